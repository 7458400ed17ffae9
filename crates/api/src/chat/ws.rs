//! The same events over a WebSocket (RFC 6455), several answers at a time. It is opened with a ticket that
//! is good once and for half a minute: a token in an address would end up in logs.
//!
//! A client sends `{"type":"send", "content", "conversation_id"?, "client_message_id"?, "parent_id"?,
//! "assistant"?, "model"?, "max_output_tokens"?}`, `{"type":"attach", "generation_id", "after"?}`,
//! `{"type":"stop", "generation_id"}` and `{"type":"ping"}`; it hears `{"type":"event", "generation_id",
//! "seq", "event", "data"}`, `{"type":"pong"}` and `{"type":"error", "code", "message", "ref"?}`, whose
//! `ref` is that of the frame that it answers, if it had one.
use super::{
    Form,
    ask::{self, Question, Wishes, Within},
    encode::{Heard, Listener, native},
    generation::{self, Accepted, Once},
    generations::request_stop,
    relay,
};
use crate::{
    App, Error, Result,
    auth::access,
    error::{Dialect, Invalid},
    extract::{self, Auth, Json, Query, Reach, Time},
    idempotency::{Keyed, Request, Retries},
};
use anyhow::Context;
use axum::{
    extract::{
        State,
        ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code},
    },
    http::{HeaderMap, HeaderValue},
    response::Response,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::{SinkExt, StreamExt, stream::SplitSink};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::time::Duration;
use tokio::{sync::mpsc, task::JoinSet};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

/// A ticket is good for so long.
const TICKET: Duration = Duration::from_secs(30);
const SEALED_FOR: &[u8] = b"a ticket for the WebSocket";
/// Answers that one socket listens to at a time.
const AT_ONCE: usize = 16;
/// Frames that wait for a slow client; its answers wait with them, in their logs.
const QUEUE: usize = 64;
const MAX_FRAME: usize = 64 * 1024;
/// How often a silent socket is looked at: whether its client is there, and still signed in.
const CHECKED: Duration = Duration::from_secs(5);

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(ticket))
        .routes(routes!(open))
}

#[derive(Serialize, ToSchema)]
struct Ticket {
    ticket: String,
    expires_at: Time,
}

#[derive(Serialize, Deserialize)]
struct Sealed {
    user: Uuid,
    session: Uuid,
    /// Unix seconds.
    exp: i64,
    nonce: Uuid,
}

/// A ticket that opens one WebSocket, within half a minute.
#[utoipa::path(post, path = "/api/chat/ws-ticket", tag = "chat", responses((status = 200, body = Ticket)))]
async fn ticket(State(app): State<App>, auth: Auth) -> Result<Json<Ticket>> {
    let expires_at = app.now() + TICKET;
    let sealed = Sealed {
        user: auth.user,
        session: auth.session,
        exp: expires_at.unix(),
        nonce: Uuid::new_v4(),
    };
    let sealed = serde_json::to_vec(&sealed).context("writing a ticket")?;
    let sealed = app.keys.seal(SEALED_FOR, &sealed)?;
    Ok(Json(Ticket {
        ticket: URL_SAFE_NO_PAD.encode(sealed),
        expires_at: expires_at.into(),
    }))
}

#[derive(Deserialize, utoipa::IntoParams)]
struct Opening {
    /// Of `POST /api/chat/ws-ticket`.
    #[serde(default)]
    ticket: String,
}

/// Chat over a WebSocket.
#[utoipa::path(get, path = "/api/chat/ws", tag = "chat", security(()), params(Opening), responses((status = 101, description = "A WebSocket"), (status = 401, description = "The ticket is none, was used, or ran out")))]
async fn open(
    State(app): State<App>,
    Query(opening): Query<Opening>,
    request: axum::extract::Request,
) -> Result<Response> {
    let auth = admit(&app, &opening.ticket).await?;
    let (mut parts, _) = request.into_parts();
    let upgrade = <WebSocketUpgrade as axum::extract::FromRequestParts<App>>::from_request_parts(
        &mut parts, &app,
    )
    .await;
    let upgrade = upgrade.map_err(|_| Error::invalid("Upgrade", "has to ask for a WebSocket"))?;
    let upgrade = upgrade
        .max_message_size(MAX_FRAME)
        .max_frame_size(MAX_FRAME);
    Ok(upgrade.on_upgrade(async move |socket| serve(app, auth, socket).await))
}

/// Takes a ticket, for good.
async fn admit(app: &App, ticket: &str) -> Result<Auth> {
    let sealed = URL_SAFE_NO_PAD.decode(ticket).ok();
    let opened = sealed.and_then(|sealed| app.keys.unseal(SEALED_FOR, &sealed));
    let opened = opened.and_then(|opened| serde_json::from_slice::<Sealed>(&opened).ok());
    let opened = opened.filter(|opened| opened.exp > app.now().unix());
    let opened = opened.ok_or(Error::InvalidToken)?;

    let mut tx = app.db.begin().await?;
    let hash: [u8; 32] = Sha256::digest(ticket).into();
    if !db::seen_tokens::note(&mut tx, &hash, app.now() + TICKET * 2).await? {
        return Err(Error::InvalidToken);
    }
    tx.commit().await?;

    let standing = db::sessions::standing(&app.db, opened.session).await?;
    let standing = standing.ok_or(Error::SessionEnded)?;
    let auth = Auth {
        user: opened.user,
        session: opened.session,
        authenticated_at: standing.authenticated_at,
        aal2: standing.aal == "aal2",
        second_factor: standing.second_factor,
        reach: Reach::Full,
    };
    match access::stands(app, &auth).await {
        true => Ok(auth),
        false => Err(Error::SessionEnded),
    }
}

#[derive(Deserialize)]
struct Frame {
    /// Comes back with what answers it.
    #[serde(default)]
    r#ref: Option<Value>,
    #[serde(flatten)]
    kind: Kind,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Kind {
    Send(Send),
    Attach {
        generation_id: Uuid,
        #[serde(default)]
        after: u64,
    },
    Stop {
        generation_id: Uuid,
    },
    Ping,
}

#[derive(Deserialize)]
struct Send {
    content: String,
    #[serde(default)]
    conversation_id: Option<Uuid>,
    #[serde(default)]
    client_message_id: Option<String>,
    #[serde(default)]
    parent_id: Option<Uuid>,
    #[serde(default)]
    assistant: Option<String>,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    max_output_tokens: Option<u32>,
}

/// One socket, until either side closes it.
async fn serve(app: App, auth: Auth, socket: WebSocket) {
    let (sink, mut frames) = socket.split();
    let (say, said) = mpsc::channel(QUEUE);
    let writer = tokio::spawn(write(sink, said));
    let mut answers = JoinSet::new();
    let mut ticks = tokio::time::interval(CHECKED);
    let why = loop {
        tokio::select! {
            frame = frames.next() => match frame {
                Some(Ok(Message::Text(text))) => {
                    let answer = hear(&app, &auth, &text, &say, &mut answers).await;
                    if say.send(answer).await.is_err() {
                        break None;
                    }
                }
                Some(Ok(Message::Binary(_))) => break Some((close_code::UNSUPPORTED, "text alone is read")),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_)) | Err(_)) | None => break None,
            },
            _ = ticks.tick() => {
                if !access::stands(&app, &auth).await {
                    break Some((close_code::POLICY, "session_ended"));
                }
                if say.try_send(Some(Message::Ping(Default::default()))).is_err() && say.is_closed() {
                    break None;
                }
                while answers.try_join_next().is_some() {}
                if app.draining.is_cancelled() && answers.is_empty() {
                    break Some((close_code::RESTART, "server_draining"));
                }
            }
        }
    };
    answers.abort_all();
    if let Some((code, reason)) = why {
        let close = CloseFrame {
            code,
            reason: reason.into(),
        };
        let _ = say.send(Some(Message::Close(Some(close)))).await;
    }
    drop(say);
    let _ = tokio::time::timeout(CHECKED, writer).await;
}

async fn write(mut sink: SplitSink<WebSocket, Message>, mut said: mpsc::Receiver<Option<Message>>) {
    while let Some(message) = said.recv().await {
        if let Some(message) = message
            && sink.send(message).await.is_err()
        {
            return;
        }
    }
}

fn text(body: &Value) -> Option<Message> {
    Some(Message::Text(body.to_string().into()))
}

/// Does what a frame asks, and gives what is to be said at once.
async fn hear(
    app: &App,
    auth: &Auth,
    frame: &str,
    say: &mpsc::Sender<Option<Message>>,
    answers: &mut JoinSet<()>,
) -> Option<Message> {
    let of = serde_json::from_str::<Value>(frame).ok();
    let of = of.and_then(|frame| frame.get("ref").cloned());
    match obey(app, auth, frame, say, answers).await {
        Ok(answer) => answer,
        Err(error) => {
            let mut body = json!({"type": "error", "code": error.code(Dialect::Problem), "message": error.to_string()});
            if let Some(of) = of {
                body["ref"] = of;
            }
            text(&body)
        }
    }
}

async fn obey(
    app: &App,
    auth: &Auth,
    frame: &str,
    say: &mpsc::Sender<Option<Message>>,
    answers: &mut JoinSet<()>,
) -> Result<Option<Message>> {
    let Frame { r#ref, kind } = extract::parse(frame.as_bytes())?;
    while answers.try_join_next().is_some() {}
    let (accepted, after) = match kind {
        Kind::Ping => return Ok(text(&json!({"type": "pong", "ref": r#ref}))),
        Kind::Stop { generation_id } => {
            let row = db::generations::of_user(&app.db, auth.user, generation_id).await?;
            request_stop(app, &row.ok_or(Error::NotFound)?).await?;
            return Ok(None);
        }
        Kind::Attach { .. } | Kind::Send(_) if answers.len() >= AT_ONCE => {
            return Err(Error::invalid(
                "type",
                format!("is refused: {AT_ONCE} answers are listened to"),
            ));
        }
        Kind::Attach {
            generation_id,
            after,
        } => {
            let row = db::generations::of_user(&app.db, auth.user, generation_id).await?;
            let row = row.ok_or(Error::NotFound)?;
            let reader = relay::attach(app, &row, after).await?;
            let head = (&row).into();
            let accepted = Accepted {
                head,
                reader,
                left: None,
                guard: None,
            };
            (accepted, after)
        }
        Kind::Send(send) => (self::send(app, auth, send, frame).await?, 0),
    };
    answers.spawn(tell(
        app.clone(),
        auth.clone(),
        accepted,
        after,
        r#ref,
        say.clone(),
    ));
    Ok(None)
}

/// Asks what a frame asks, once for each id of the client's.
async fn send(app: &App, auth: &Auth, send: Send, frame: &str) -> Result<Accepted> {
    let (mut faults, mut headers) = (vec![], HeaderMap::new());
    let content = ask::content(app, "content", &send.content, &mut faults);
    ask::assistant(app, send.assistant.as_deref(), &mut faults);
    if let Some(id) = &send.client_message_id {
        match HeaderValue::from_str(id) {
            Ok(id) => _ = headers.insert("idempotency-key", id),
            Err(_) => faults.push(Invalid::new("client_message_id", "has to be printable")),
        }
    }
    if !faults.is_empty() {
        return Err(Error::Invalid(faults));
    }
    let request = Request {
        scope: "/api/chat/ws",
        form: Form::Message,
        retries: Retries::Said,
        headers: &headers,
        body: frame.as_bytes(),
    };
    let ask = |keyed| accept(app, auth, &send, &content, keyed);
    match generation::once(app, auth, request, ask).await? {
        Once::Kept(answer) => generation::again(app, &answer).await,
        Once::Accepted(accepted) => Ok(accepted),
    }
}

async fn accept(
    app: &App,
    auth: &Auth,
    send: &Send,
    content: &str,
    keyed: Keyed,
) -> Result<Accepted> {
    let within = match send.conversation_id {
        None => Within::New {
            client_id: None,
            history: vec![],
        },
        Some(id) => {
            let conversation = db::conversations::of_user(&app.db, auth.user, id).await?;
            let conversation = conversation.ok_or(Error::NotFound)?;
            let parent = send.parent_id.or(conversation.active_leaf);
            Within::Existing {
                conversation,
                parent,
            }
        }
    };
    let question = Question::New {
        content: content.to_owned(),
        client_id: send.client_message_id.clone(),
    };
    let wishes = Wishes {
        assistant: send.assistant.clone(),
        model: send.model.clone(),
        max_output: send.max_output_tokens,
        profile: None,
    };
    ask::ask(app, auth, within, question, wishes, keyed).await
}

/// Tells a socket what comes of an answer.
async fn tell(
    app: App,
    auth: Auth,
    accepted: Accepted,
    after: u64,
    r#ref: Option<Value>,
    say: mpsc::Sender<Option<Message>>,
) {
    let Accepted { head, reader, .. } = accepted;
    let frame = |seq: u64, event: &str, data: Value| {
        let mut body = json!({"type": "event", "generation_id": head.generation, "seq": seq, "event": event, "data": data});
        if let Some(r#ref) = &r#ref {
            body["ref"] = r#ref.clone();
        }
        text(&body)
    };
    if after == 0
        && say
            .send(frame(0, "start", native::start(&head)))
            .await
            .is_err()
    {
        return;
    }
    let mut listener = Listener::new(&app, &auth, reader).lasting();
    while let Some(heard) = listener.next().await {
        let said = match heard {
            Heard::Event(seq, event) => {
                let (name, data) = native::event(&head, &event);
                frame(seq, name, data)
            }
            Heard::Nothing => continue,
            // The socket is closed for it.
            Heard::SignedOut | Heard::Reconnect => return,
        };
        if say.send(said).await.is_err() {
            return;
        }
    }
}
