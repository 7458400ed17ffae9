use super::{
    Form, assistants,
    generation::{self, Accepted, Asked, Place},
    llm::{Usage, estimate_tokens},
    sse,
    stream::Event,
    subject,
};
use crate::{
    App, Error, Result,
    error::Invalid,
    extract::{self, Auth, Json},
    idempotency::{self, First, Keyed},
    limit::Action,
};
use axum::{
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use futures_util::{Stream, stream};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

/// Characters of a title made of the first question.
const TITLE_CHARS: usize = 60;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(chat))
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

#[derive(Debug, Clone, Deserialize, ToSchema)]
struct Turn {
    role: Role,
    content: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Role {
    User,
    Assistant,
}

impl Role {
    fn word(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
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
/// `finish` or `error`.
#[utoipa::path(post, path = "/api/chat", tag = "chat", request_body = Chat,
    params(("Idempotency-Key" = Option<String>, Header, description = "A retry with the same key gets the same answer and costs nothing")),
    responses((status = 200, description = "The answer, or server-sent events", content((ChatAnswer = "application/json"), (String = "text/event-stream")))))]
async fn chat(State(app): State<App>, auth: Auth, request: Request) -> Result<Response> {
    let headers = request.headers().clone();
    if !extract::is_json(&headers) {
        return Err(Error::UnsupportedMediaType);
    }
    let body = extract::body(request, &app).await?;
    let chat: Chat = extract::parse(&body)?;
    let message = check(&app, &chat)?;
    let keyed = match Keyed::look(&app, &auth, "/api/chat", Form::Plain, &headers, &body).await? {
        First::No(answer) => return Ok(replay(answer, chat.stream)),
        First::Yes(keyed) => Some(keyed),
        First::Unkeyed => None,
    };
    app.limits.check(Action::Chat, &subject(&auth)).await?;

    let accepted = accept(&app, &auth, &chat, &message, keyed).await?;

    if chat.stream {
        return Ok(sse::response(events(accepted)));
    }
    let (answer, reason, usage) = accepted.whole().await?;
    let place = accepted
        .place
        .ok_or_else(|| anyhow::anyhow!("a chat has a conversation"))?;
    Ok(Json(plain(&answer.text, &reason, usage, place)).into_response())
}

/// The question, trimmed, when everything about the request is as it should be; else every fault.
fn check(app: &App, chat: &Chat) -> Result<String> {
    let mut faults = vec![];
    let message = chat.message.trim();
    let max = app.config.chat.chat_max_message_chars;
    if message.is_empty() || message.chars().count() > max {
        faults.push(Invalid::new(
            "message",
            format!("has to be 1 to {max} characters"),
        ));
    }
    if chat
        .assistant
        .as_ref()
        .is_some_and(|name| app.assistants.get(name).is_none())
    {
        faults.push(Invalid::new(
            "assistant",
            "is not one of GET /api/assistants",
        ));
    }
    if faults.is_empty() {
        Ok(message.to_owned())
    } else {
        Err(Error::Invalid(faults))
    }
}

async fn accept(
    app: &App,
    auth: &Auth,
    chat: &Chat,
    message: &str,
    keyed: Option<Keyed>,
) -> Result<Accepted> {
    let conversation = match chat.conversation_id {
        Some(id) => Some(
            db::conversations::of_user(&app.db, auth.user, id)
                .await?
                .ok_or(Error::NotFound)?,
        ),
        None => None,
    };
    let wanted = if chat.future_self_profile.is_some() {
        "future_self"
    } else {
        assistants::DEFAULT
    };
    let stored = conversation
        .as_ref()
        .map(|conversation| conversation.assistant.as_str());
    let name = chat.assistant.as_deref().or(stored).unwrap_or(wanted);
    let assistant = app
        .assistants
        .get(name)
        .ok_or_else(|| Error::invalid("assistant", "does not exist any more"))?;

    let limit = app.config.chat.chat_history_limit;
    let history = match &conversation {
        // What is stored wins over what a client remembers.
        Some(conversation) => stored_history(app, conversation.id, limit).await?,
        None => chat
            .conversation_history
            .iter()
            .skip(chat.conversation_history.len().saturating_sub(limit))
            .cloned()
            .collect(),
    };
    let prompt = app.assistants.prompt(
        name,
        chat.future_self_profile.as_ref().unwrap_or(&Map::new()),
    )?;
    let mut messages = vec![json!({"role": "system", "content": prompt})];
    messages.extend(
        history
            .iter()
            .map(|turn| json!({"role": turn.role.word(), "content": turn.content})),
    );
    messages.push(json!({"role": "user", "content": message}));

    let tokens = messages
        .iter()
        .filter_map(|message| message["content"].as_str())
        .map(|text| estimate_tokens(text) + 4)
        .sum();
    let mut request = Map::new();
    request.insert("messages".into(), messages.into());
    request.insert("temperature".into(), json!(assistant.temperature));
    let asked = Asked {
        request,
        model: app.config.chat.llm_model.clone(),
        prompt_text_tokens: tokens,
        max_output: app.config.chat.llm_max_tokens.into(),
        keyed,
    };
    generation::start(app, auth, asked, async |tx| {
        let now = app.now();
        let (id, parent) = match &conversation {
            Some(conversation) => (conversation.id, conversation.active_leaf),
            None => {
                let (id, title) = (Uuid::now_v7(), title(message));
                db::conversations::create(tx, id, auth.user, Some(&title), name, now).await?;
                (id, None)
            }
        };
        let (question, answer) = (Uuid::now_v7(), Uuid::now_v7());
        db::conversations::ask(tx, question, id, parent, message, now).await?;
        db::conversations::place_answer(tx, answer, id, question, &app.config.chat.llm_model, now)
            .await?;
        db::conversations::advance(tx, id, answer, now).await?;
        Ok(Some(Place {
            conversation: id,
            message: answer,
        }))
    })
    .await
}

/// The newest messages that say something, oldest first.
async fn stored_history(app: &App, conversation: Uuid, limit: usize) -> Result<Vec<Turn>> {
    let mut newest =
        db::conversations::newest_messages(&app.db, conversation, limit as i64).await?;
    newest.reverse();
    let said = newest
        .into_iter()
        .filter(|message| !message.content.is_empty());
    Ok(said
        .map(|message| Turn {
            role: if message.role == "user" {
                Role::User
            } else {
                Role::Assistant
            },
            content: message.content,
        })
        .collect())
}

/// The first words of the first question.
fn title(message: &str) -> String {
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(TITLE_CHARS) {
        Some((end, _)) => format!("{}…", line[..end].trim_end()),
        None => line,
    }
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

/// OpenAI's words for tokens.
pub fn usage_body(usage: Usage) -> Value {
    json!({"prompt_tokens": usage.input, "completion_tokens": usage.output, "total_tokens": usage.input + usage.output})
}

/// The native encoding of a log. A reader that leaves does not end the answer.
fn events(accepted: Accepted) -> impl Stream<Item = String> + Send + 'static {
    let place = accepted.place;
    let generation = accepted.generation;
    let start = event(
        generation,
        0,
        "start",
        &json!({
            "generation_id": generation,
            "conversation_id": place.map(|p| p.conversation),
            "message_id": place.map(|p| p.message),
            "model": accepted.model,
        }),
    );
    let reader = accepted.log.read();
    let rest = stream::unfold(reader, move |mut reader| async move {
        let (seq, next) = reader.next().await?;
        let text = match &*next {
            Event::Delta(delta) => match delta.get("content").and_then(Value::as_str) {
                Some(text) => event(generation, seq, "delta", &json!({"text": text})),
                None => match delta.get("reasoning_content").and_then(Value::as_str) {
                    Some(text) => event(generation, seq, "reasoning", &json!({"text": text})),
                    None => event(generation, seq, "tool_call", &Value::Object(delta.clone())),
                },
            },
            Event::Finish { reason, usage } => event(
                generation,
                seq,
                "finish",
                &json!({"reason": reason, "message_id": place.map(|p| p.message), "usage": usage_body(*usage)}),
            ),
            Event::Error(failure) => event(
                generation,
                seq,
                "error",
                &json!({
                    "code": failure.code(),
                    "message": Error::from(failure.clone()).to_string(),
                    "retryable": failure.is_retryable(),
                }),
            ),
        };
        Some((text, reader))
    });
    stream::StreamExt::chain(stream::once(async { start }), rest)
}

fn event(generation: Uuid, seq: usize, name: &str, data: &Value) -> String {
    format!("id: {generation}.{seq}\nevent: {name}\ndata: {data}\n\n")
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
        event(
            id,
            0,
            "start",
            &json!({"generation_id": null, "conversation_id": kept["conversationId"], "message_id": message}),
        ),
        event(id, 1, "delta", &json!({"text": kept["response"]})),
        event(
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
