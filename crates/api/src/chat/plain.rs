use super::{
    Form,
    ask::{self, Question, Turn, Wishes, Within},
    encode::{
        Listener,
        native::{self, usage_body, written},
    },
    generation::{self, Accepted, Once, Place},
    llm::Usage,
    messages, sse, ui,
};
use crate::{
    App, Error, Result,
    extract::{self, Asker, Auth, Json},
    idempotency::{self, Keyed, Retries},
};
use axum::{
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

/// Bytes of the plain form at most.
const MAX_BODY: usize = 256 * 1024;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(chat))
}

/// Which of the two bodies it is.
#[derive(Deserialize)]
struct Shape {
    message: Option<serde::de::IgnoredAny>,
    messages: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Chat {
    /// The question, 1 to 1,000 characters.
    message: String,
    /// What was said before, when no conversation is named; the last 10 count.
    #[serde(default)]
    conversation_history: Vec<Turn>,
    /// What the assistant may know of the user; also makes `future_self` the assistant.
    #[serde(default)]
    future_self_profile: Option<Map<String, Value>>,
    /// Goes on with this conversation; without it a new one begins.
    #[serde(default)]
    conversation_id: Option<Uuid>,
    #[serde(default)]
    assistant: Option<String>,
    /// Answer as server-sent events.
    #[serde(default)]
    stream: bool,
}

/// The plain form, or the AI SDK's.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "for the description alone")]
enum Either {
    Plain(Chat),
    Ui(ui::UiChat),
}

/// What [`chat`] answers without `stream`.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "for the description alone")]
struct ChatAnswer {
    response: String,
    usage: ChatUsage,
    conversation_id: Uuid,
    message_id: Uuid,
    /// `stop`, `length`, `truncated`, …
    finish_reason: String,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "for the description alone")]
struct ChatUsage {
    prompt_tokens: i64,
    completion_tokens: i64,
    total_tokens: i64,
}

/// Ask an assistant. The question and its answer are kept in a conversation; the answer is made to
/// its end even if the client goes away. With `stream` the events are `start`, `delta`, then one
/// `finish` or `error`. The AI SDK's body, with `messages`, is answered in its UI message stream.
#[utoipa::path(post, path = "/api/chat", tag = "chat", request_body = Either,
    params(("Idempotency-Key" = Option<String>, Header, description = "A retry with the same key gets the same answer and costs nothing")),
    responses((status = 200, description = "The answer, or server-sent events", content((ChatAnswer = "application/json"), (String = "text/event-stream")))))]
async fn chat(State(app): State<App>, Asker(auth): Asker, request: Request) -> Result<Response> {
    let headers = request.headers().clone();
    if !extract::is_json(&headers) {
        return Err(Error::UnsupportedMediaType);
    }
    let body = extract::body(request, &app).await?;
    match extract::parse::<Shape>(&body) {
        Ok(shape) if shape.message.is_none() && shape.messages.is_some() => {
            return ui::chat(&app, &auth, &headers, &body).await;
        }
        _ if body.len() > MAX_BODY => return Err(Error::BodyTooLarge),
        Ok(_) => {}
        Err(error) => return Err(error),
    }
    let chat: Chat = extract::parse(&body)?;
    if let Some(resumed) = messages::resume(&app, &auth, &headers).await? {
        return Ok(resumed);
    }
    let message = check(&app, &chat)?;
    let request = idempotency::Request {
        scope: "/api/chat",
        form: Form::Plain,
        retries: Retries::Silent,
        headers: &headers,
        body: &body,
    };
    let ask = |keyed| accept(&app, &auth, &chat, &message, keyed);
    let mut accepted = match generation::once(&app, &auth, request, ask).await? {
        Once::Kept(answer) => return Ok(replay(answer, chat.stream)),
        Once::Accepted(accepted) => accepted,
    };

    if chat.stream {
        let listener = Listener::new(&app, &auth, accepted.reader);
        return Ok(sse::response(native::events(accepted.head, listener, 0)));
    }
    let (answer, reason, usage) = accepted.whole().await?;
    let place = accepted
        .head
        .place
        .ok_or_else(|| anyhow::anyhow!("a chat has a conversation"))?;
    Ok(Json(plain(&answer.text, &reason, usage, place)).into_response())
}

/// The question, trimmed, when everything about the request is as it should be; else every fault.
fn check(app: &App, chat: &Chat) -> Result<String> {
    let mut faults = vec![];
    let message = ask::content(app, "message", &chat.message, &mut faults);
    ask::assistant(app, chat.assistant.as_deref(), &mut faults);
    match faults.is_empty() {
        true => Ok(message),
        false => Err(Error::Invalid(faults)),
    }
}

async fn accept(
    app: &App,
    auth: &Auth,
    chat: &Chat,
    message: &str,
    keyed: Keyed,
) -> Result<Accepted> {
    let within = match chat.conversation_id {
        Some(id) => {
            let conversation = db::conversations::of_user(&app.db, auth.user, id).await?;
            let conversation = conversation.ok_or(Error::NotFound)?;
            let parent = conversation.active_leaf;
            Within::Existing {
                conversation,
                parent,
            }
        }
        None => Within::New {
            client_id: None,
            history: chat.conversation_history.clone(),
        },
    };
    let question = Question::New {
        content: message.into(),
        client_id: None,
    };
    let wishes = Wishes {
        assistant: chat.assistant.clone(),
        profile: chat.future_self_profile.clone(),
        ..Wishes::default()
    };
    ask::ask(app, auth, within, question, wishes, keyed).await
}

/// The answer in one piece.
pub fn plain(text: &str, reason: &str, usage: Usage, place: Place) -> Value {
    json!({
        "response": text,
        "usage": usage_body(usage),
        "conversationId": place.conversation,
        "messageId": place.message,
        "finishReason": reason,
    })
}

/// A kept answer, once more.
fn replay(answer: String, streamed: bool) -> Response {
    if !streamed {
        return idempotency::replayed(answer);
    }
    let kept: Value = serde_json::from_str(&answer).unwrap_or_default();
    let message = &kept["messageId"];
    let id = Uuid::nil();
    let parts = [
        written(
            id,
            0,
            "start",
            &json!({"generation_id": null, "conversation_id": kept["conversationId"], "message_id": message}),
        ),
        written(id, 1, "delta", &json!({"text": kept["response"]})),
        written(
            id,
            2,
            "finish",
            &json!({"reason": kept["finishReason"], "message_id": message, "usage": kept["usage"]}),
        ),
    ];
    let mut response = sse::response(stream::iter(parts));
    idempotency::mark(&mut response);
    response
}
