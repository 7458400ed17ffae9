//! Messages of a conversation: the list, a question, another answer.
use super::{
    Form,
    ask::{self, Question, Wishes, Within},
    conversations,
    encode::{
        Listener,
        native::{self, usage_body},
    },
    generation::{self, Accepted, Head, Once},
    generations, llm, relay, sse,
};
use crate::{
    App, Error, Result,
    error::Invalid,
    extract::{self, Asker, Auth, Json, List, Page, Path, Query, Time},
    idempotency::{self, Keyed, Retries},
};
use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use db::conversations::Conversation;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, send))
        .routes(routes!(regenerate))
}

#[derive(Serialize, ToSchema)]
struct Message {
    id: Uuid,
    parent_id: Option<Uuid>,
    /// The id that the client gave it.
    client_message_id: Option<String>,
    /// `user` or `assistant`.
    role: String,
    content: String,
    /// `complete`; of an answer also `streaming`, `truncated`, `stopped` or `failed`.
    status: String,
    model: Option<String>,
    input_tokens: Option<i64>,
    output_tokens: Option<i64>,
    created_at: Time,
}

impl From<db::conversations::Message> for Message {
    fn from(row: db::conversations::Message) -> Self {
        let db::conversations::Message {
            id,
            parent_id,
            client_id,
            role,
            content,
            status,
            model,
            input_tokens,
            output_tokens,
            created_at,
            ..
        } = row;
        Self {
            id,
            parent_id,
            client_message_id: client_id,
            role,
            content,
            status,
            model,
            input_tokens,
            output_tokens,
            created_at: created_at.into(),
        }
    }
}

/// A conversation's messages of every branch, oldest first.
#[utoipa::path(get, path = "/api/conversations/{id}/messages", tag = "chat", params(("id" = String, Path, description = "Ours, or the client's: the AI SDK's chat"), Page), responses((status = 200, body = List<Message>), (status = 404)))]
async fn list(
    State(app): State<App>,
    Asker(auth): Asker,
    Path(id): Path<String>,
    Query(page): Query<Page>,
) -> Result<Json<List<Message>>> {
    let (limit, after) = (page.limit()?, page.cursor()?.unwrap_or(Uuid::nil()));
    let conversation = conversations::of_id(&app, &auth, &id).await?;
    let conversation = conversation.ok_or(Error::NotFound)?.id;
    let rows = db::conversations::messages(&app.db, conversation, after, limit + 1).await?;
    Ok(Json(List::of(rows, limit, |row| row.id, Into::into)))
}

async fn of_user(app: &App, auth: &Auth, id: Uuid) -> Result<Conversation> {
    let row = db::conversations::of_user(&app.db, auth.user, id).await?;
    row.ok_or(Error::NotFound)
}

#[derive(Deserialize, ToSchema)]
struct Send {
    /// 1 to 1,000 characters.
    content: String,
    /// The client's id of the message: sent again, it gets the answer of the first time.
    #[serde(default)]
    client_message_id: Option<String>,
    /// The message it comes after; absent, the newest that is shown. An edit has the parent of what it
    /// replaces; that of the first message is null.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Uuid>)]
    parent_id: Option<Option<Uuid>>,
    #[serde(flatten)]
    wishes: Wanted,
}

#[derive(Default, Deserialize, ToSchema)]
struct Wanted {
    #[serde(default)]
    assistant: Option<String>,
    /// One of GET /api/models.
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    max_output_tokens: Option<u32>,
}

impl Wanted {
    fn check(&self, app: &App, faults: &mut Vec<Invalid>) {
        ask::assistant(app, self.assistant.as_deref(), faults);
        if self.max_output_tokens == Some(0) {
            faults.push(Invalid::new("max_output_tokens", "has to be at least 1"));
        }
    }

    fn wishes(&self) -> Wishes {
        Wishes {
            assistant: self.assistant.clone(),
            model: self.model.clone(),
            max_output: self.max_output_tokens,
            profile: None,
        }
    }
}

/// Tells null from absent.
fn present<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Option<Uuid>>, D::Error> {
    Option::deserialize(value).map(Some)
}

/// What a question is answered, when not in events.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the description alone")]
struct Answer {
    /// The answer's id among the messages.
    id: Uuid,
    conversation_id: Uuid,
    generation_id: Uuid,
    role: String,
    content: String,
    model: String,
    /// `stop`, `length`, `stopped`, `truncated`, …
    finish_reason: String,
    usage: Value,
}

/// The answer in one piece.
pub fn answer(head: &Head, text: &str, reason: &str, usage: llm::Usage) -> Value {
    json!({
        "id": head.place.map(|place| place.message),
        "conversation_id": head.place.map(|place| place.conversation),
        "generation_id": head.generation,
        "role": "assistant",
        "content": text,
        "model": head.model,
        "finish_reason": reason,
        "usage": usage_body(usage),
    })
}

/// Ask something in a conversation. `Accept: text/event-stream` is answered in events as they come,
/// `Prefer: respond-async` at once with where they can be had, everything else with the whole answer.
/// The answer is made to its end even if the client goes away.
#[utoipa::path(post, path = "/api/conversations/{id}/messages", tag = "chat", request_body = Send,
    params(("id" = Uuid, Path), ("Idempotency-Key" = Option<String>, Header, description = "As `client_message_id`"), ("Last-Event-ID" = Option<String>, Header, description = "Goes on after that event, and asks nothing"), ("Prefer" = Option<String>, Header, description = "`respond-async`")),
    responses((status = 200, description = "The answer, or server-sent events", content((Answer = "application/json"), (String = "text/event-stream"))), (status = 202, description = "It is being made"), (status = 404)))]
async fn send(
    State(app): State<App>,
    Asker(auth): Asker,
    Path(id): Path<Uuid>,
    request: Request,
) -> Result<Response> {
    let mut headers = request.headers().clone();
    if !extract::is_json(&headers) {
        return Err(Error::UnsupportedMediaType);
    }
    let body = extract::body(request, &app).await?;
    let send: Send = extract::parse(&body)?;
    if let Some(resumed) = resume(&app, &auth, &headers).await? {
        return Ok(resumed);
    }
    let mut faults = vec![];
    let content = ask::content(&app, "content", &send.content, &mut faults);
    send.wishes.check(&app, &mut faults);
    if let Some(id) = &send.client_message_id {
        match HeaderValue::from_str(id)
            .ok()
            .filter(|id| (1..=200).contains(&id.len()))
        {
            Some(key) => _ = headers.entry("idempotency-key").or_insert(key),
            None => faults.push(Invalid::new(
                "client_message_id",
                "has to be 1 to 200 printable characters",
            )),
        }
    }
    if !faults.is_empty() {
        return Err(Error::Invalid(faults));
    }
    let conversation = of_user(&app, &auth, id).await?;
    let parent = send.parent_id.unwrap_or(conversation.active_leaf);
    if let Some(parent) = parent
        && db::conversations::message_of(&app.db, id, Some(parent), "")
            .await?
            .is_none()
    {
        return Err(Error::invalid(
            "parent_id",
            "is not a message of this conversation",
        ));
    }
    let asking = Asking {
        within: Within::Existing {
            conversation,
            parent,
        },
        question: Question::New {
            content,
            client_id: send.client_message_id.clone(),
        },
        wishes: send.wishes.wishes(),
    };
    let scope = "/api/conversations/messages";
    accepted(&app, &auth, scope, &headers, &body, asking).await
}

/// Ask for another answer to the question of an answer, or to a question. The old one stays, on a
/// branch of its own.
#[utoipa::path(post, path = "/api/conversations/{id}/messages/{message}/regenerate", tag = "chat", request_body = Option<Wanted>,
    params(("id" = Uuid, Path), ("message" = Uuid, Path), ("Idempotency-Key" = Option<String>, Header, description = "A retry with the same key gets the same answer and costs nothing")),
    responses((status = 200, description = "The answer, or server-sent events", content((Answer = "application/json"), (String = "text/event-stream"))), (status = 202, description = "It is being made"), (status = 404)))]
async fn regenerate(
    State(app): State<App>,
    Asker(auth): Asker,
    Path((id, message)): Path<(Uuid, Uuid)>,
    request: Request,
) -> Result<Response> {
    let headers = request.headers().clone();
    let body = extract::body(request, &app).await?;
    let wanted: Wanted = match body.is_empty() {
        true => Wanted::default(),
        false if extract::is_json(&headers) => extract::parse(&body)?,
        false => return Err(Error::UnsupportedMediaType),
    };
    let mut faults = vec![];
    wanted.check(&app, &mut faults);
    if !faults.is_empty() {
        return Err(Error::Invalid(faults));
    }
    let conversation = of_user(&app, &auth, id).await?;
    let named = db::conversations::message_of(&app.db, id, Some(message), "").await?;
    let named = named.ok_or(Error::NotFound)?;
    let question = match (named.role.as_str(), named.parent_id) {
        ("assistant", Some(parent)) => db::conversations::message(&app.db, parent).await?,
        _ => Some(named),
    };
    let question = question.ok_or(Error::NotFound)?;
    let asking = Asking {
        within: Within::Existing {
            conversation,
            parent: question.parent_id,
        },
        question: Question::Again(question),
        wishes: wanted.wishes(),
    };
    // Each answer anew is another wish, unless a key says otherwise.
    let keyed_body = [message.as_bytes().as_slice(), &body].concat();
    let scope = "/api/conversations/messages/regenerate";
    accepted(&app, &auth, scope, &headers, &keyed_body, asking).await
}

/// What a request asks.
#[derive(Clone)]
struct Asking {
    within: Within,
    question: Question,
    wishes: Wishes,
}

impl Asking {
    async fn ask(self, app: &App, auth: &Auth, keyed: Keyed) -> Result<Accepted> {
        ask::ask(app, auth, self.within, self.question, self.wishes, keyed).await
    }
}

/// Answers a request that asks, once, in the form that it wants.
async fn accepted(
    app: &App,
    auth: &Auth,
    scope: &'static str,
    headers: &HeaderMap,
    body: &[u8],
    asking: Asking,
) -> Result<Response> {
    let streamed = wants(headers, header::ACCEPT, "text/event-stream");
    let request = idempotency::Request {
        scope,
        form: Form::Message,
        retries: Retries::Silent,
        headers,
        body,
    };
    let ask = |keyed| asking.clone().ask(app, auth, keyed);
    let mut accepted = match generation::once(app, auth, request, ask).await? {
        Once::Kept(answer) if !streamed => return Ok(idempotency::replayed(answer)),
        Once::Kept(answer) => generation::again(app, &answer).await?,
        Once::Accepted(accepted) => accepted,
    };
    if wants(
        headers,
        header::HeaderName::from_static("prefer"),
        "respond-async",
    ) {
        let place = format!("/api/generations/{}/events", accepted.head.generation);
        let location = [(header::LOCATION, place)];
        let head = native::start(&accepted.head);
        return Ok((StatusCode::ACCEPTED, location, Json(head)).into_response());
    }
    if streamed {
        let listener = Listener::new(app, auth, accepted.reader);
        return Ok(sse::response(native::events(accepted.head, listener, 0)));
    }
    let (said, reason, usage) = accepted.whole().await?;
    Ok(Json(answer(&accepted.head, &said.text, &reason, usage)).into_response())
}

fn wants(headers: &HeaderMap, name: header::HeaderName, what: &str) -> bool {
    let values = headers.get_all(name);
    values
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains(what))
}

/// Some clients of server-sent events post again when a connection closes, and say how far they are:
/// they are to hear the rest, not to ask anew.
pub async fn resume(app: &App, auth: &Auth, headers: &HeaderMap) -> Result<Option<Response>> {
    let id = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let Some((generation, after)) = id.and_then(generations::event_id) else {
        return Ok(None);
    };
    let row = db::generations::of_user(&app.db, auth.user, generation).await?;
    let Some(row) = row else { return Ok(None) };
    let reader = relay::attach(app, &row, after).await?;
    if reader.is_at_end() {
        return Ok(Some(StatusCode::NO_CONTENT.into_response()));
    }
    let listener = Listener::new(app, auth, reader);
    let events = native::events((&row).into(), listener, after);
    Ok(Some(sse::response(events)))
}
