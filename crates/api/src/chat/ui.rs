//! The AI SDK's chat transport: `useChat` with `api: "/api/chat"` works as it is.
//! <https://ai-sdk.dev/docs/ai-sdk-ui/transport>
use super::{
    Form,
    ask::{self, Question, Role, Turn, Wishes, Within},
    conversations,
    encode::{Listener, ui},
    generation::{self, Accepted, Once},
    generations::request_stop,
    relay,
};
use crate::{
    App, Error, Result,
    error::Invalid,
    extract::{self, Asker, Auth, Json, Path},
    idempotency::{Keyed, Request, Retries},
};
use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use db::conversations::{Conversation, Message};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

/// Characters of an id that a client gives.
const MAX_ID: usize = 200;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(resume))
        .routes(routes!(stop))
}

/// What the AI SDK posts.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UiChat {
    /// The chat's id, which the client makes up.
    id: String,
    messages: Vec<UiMessage>,
    /// `submit-message`, or `regenerate-message` for another answer to the last question.
    #[serde(default)]
    trigger: Trigger,
    /// The message that is edited or answered anew.
    #[serde(default)]
    message_id: Option<String>,
    #[serde(default)]
    assistant: Option<String>,
    #[serde(default)]
    model: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
enum Trigger {
    #[default]
    SubmitMessage,
    RegenerateMessage,
}

#[derive(Deserialize, ToSchema)]
struct UiMessage {
    #[serde(default)]
    id: String,
    role: Role,
    parts: Vec<UiPart>,
}

#[derive(Deserialize, ToSchema)]
struct UiPart {
    r#type: String,
    #[serde(default)]
    text: Option<String>,
}

impl UiMessage {
    fn text(&self) -> String {
        let said = self.parts.iter().filter(|part| part.r#type == "text");
        said.filter_map(|part| part.text.as_deref()).collect()
    }
}

/// The question, trimmed, when everything about the request is as it should be.
fn check<'a>(app: &App, chat: &'a UiChat) -> Result<(&'a UiMessage, String)> {
    let mut faults = vec![];
    if chat.id.is_empty() || chat.id.chars().count() > MAX_ID {
        faults.push(Invalid::new(
            "id",
            format!("has to be 1 to {MAX_ID} characters"),
        ));
    }
    let asked = chat
        .messages
        .iter()
        .rposition(|message| message.role == Role::User);
    let last = asked.filter(|index| {
        chat.trigger == Trigger::RegenerateMessage || index + 1 == chat.messages.len()
    });
    let Some(index) = last else {
        faults.push(Invalid::new(
            "messages",
            "has to end with a message of the user's",
        ));
        return Err(Error::Invalid(faults));
    };
    let message = &chat.messages[index];
    if message.id.chars().count() > MAX_ID {
        faults.push(Invalid::new(
            "messages",
            format!("has an id of more than {MAX_ID} characters"),
        ));
    }
    if message.parts.iter().any(|part| part.r#type == "file") {
        faults.push(Invalid::new(
            "messages",
            "holds a file; text alone is taken",
        ));
    }
    let content = ask::content(app, "messages", &message.text(), &mut faults);
    ask::assistant(app, chat.assistant.as_deref(), &mut faults);
    match faults.is_empty() {
        true => Ok((message, content)),
        false => Err(Error::Invalid(faults)),
    }
}

/// Answers in the AI SDK's stream.
pub async fn chat(app: &App, auth: &Auth, headers: &HeaderMap, body: &[u8]) -> Result<Response> {
    let chat: UiChat = extract::parse(body)?;
    let (message, content) = check(app, &chat)?;
    let request = Request {
        scope: "/api/chat",
        form: Form::Plain,
        retries: Retries::Silent,
        headers,
        body,
    };
    let ask = |keyed| accept(app, auth, &chat, message, &content, keyed);
    let accepted = match generation::once(app, auth, request, ask).await? {
        Once::Kept(answer) => generation::again(app, &answer).await?,
        Once::Accepted(accepted) => accepted,
    };
    let listener = Listener::new(app, auth, accepted.reader);
    Ok(ui::response(ui::parts(accepted.head, listener)))
}

async fn accept(
    app: &App,
    auth: &Auth,
    chat: &UiChat,
    message: &UiMessage,
    content: &str,
    keyed: Keyed,
) -> Result<Accepted> {
    let (within, question) = match conversations::of_id(app, auth, &chat.id).await? {
        None => {
            let before = chat
                .messages
                .iter()
                .take_while(|said| !std::ptr::eq(*said, message));
            let within = Within::New {
                client_id: Some(chat.id.clone()),
                history: before
                    .map(|said| Turn {
                        role: said.role,
                        content: said.text(),
                    })
                    .collect(),
            };
            (within, asked(message, content))
        }
        Some(conversation) => place(app, chat, conversation, message, content).await?,
    };
    let wishes = Wishes {
        assistant: chat.assistant.clone(),
        model: chat.model.clone(),
        ..Wishes::default()
    };
    ask::ask(app, auth, within, question, wishes, keyed).await
}

fn asked(message: &UiMessage, content: &str) -> Question {
    Question::New {
        content: content.into(),
        client_id: Some(message.id.clone()).filter(|id| !id.is_empty()),
    }
}

/// Where in a conversation a message belongs: after the one that the client shows before it.
async fn place(
    app: &App,
    chat: &UiChat,
    conversation: Conversation,
    message: &UiMessage,
    content: &str,
) -> Result<(Within, Question)> {
    let known = stored(app, &conversation, &message.id).await?;
    let known = match (known, chat.trigger, &chat.message_id) {
        // The client names the answer that it wants another of.
        (None, Trigger::RegenerateMessage, Some(id)) => {
            let named = stored(app, &conversation, id).await?;
            match named.and_then(|named| named.parent_id) {
                Some(parent) => db::conversations::message(&app.db, parent).await?,
                None => None,
            }
        }
        (known, ..) => known,
    };
    if let Some(known) = known {
        let within = Within::Existing {
            conversation,
            parent: known.parent_id,
        };
        let again = known.content == content || chat.trigger == Trigger::RegenerateMessage;
        let edited = Question::New {
            content: content.into(),
            client_id: None,
        };
        return Ok((
            within,
            if again {
                Question::Again(known)
            } else {
                edited
            },
        ));
    }
    let before = chat
        .messages
        .iter()
        .take_while(|said| !std::ptr::eq(*said, message));
    let before = match before.last() {
        Some(before) => stored(app, &conversation, &before.id).await?,
        None => None,
    };
    let parent = before.map(|before| before.id).or(conversation.active_leaf);
    let within = Within::Existing {
        conversation,
        parent,
    };
    Ok((within, asked(message, content)))
}

/// The message of this id, by us or by the client.
async fn stored(app: &App, conversation: &Conversation, id: &str) -> Result<Option<Message>> {
    if id.is_empty() {
        return Ok(None);
    }
    let ours = Uuid::try_parse(id).ok();
    Ok(db::conversations::message_of(&app.db, conversation.id, ours, id).await?)
}

/// The answer that is being made in a conversation.
async fn running(app: &App, auth: &Auth, id: &str) -> Result<Option<db::generations::Generation>> {
    let Some(conversation) = conversations::of_id(app, auth, id).await? else {
        return Ok(None);
    };
    let newest = db::generations::newest(&app.db, conversation.id).await?;
    Ok(newest.filter(|newest| newest.finished_at.is_none()))
}

/// Resume a chat in the AI SDK's way: the answer that is being made, from its beginning. 204 when none
/// is, also in a chat that there is not.
#[utoipa::path(get, path = "/api/chat/{id}/stream", tag = "chat", params(("id" = String, Path, description = "The chat's id, ours or the client's")), responses((status = 200, description = "The AI SDK's UI message stream", body = String, content_type = "text/event-stream"), (status = 204, description = "No answer is being made")))]
async fn resume(
    State(app): State<App>,
    Asker(auth): Asker,
    Path(id): Path<String>,
) -> Result<Response> {
    let Some(row) = running(&app, &auth, &id).await? else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let reader = relay::attach(&app, &row, 0).await?;
    let listener = Listener::new(&app, &auth, reader);
    Ok(ui::response(ui::parts((&row).into(), listener)))
}

#[derive(Serialize, ToSchema)]
struct Stopped {
    /// Whether an answer was being made.
    stopped: bool,
}

/// Stop the answer that is being made in a chat, wherever it is made.
#[utoipa::path(post, path = "/api/chat/{id}/stop", tag = "chat", params(("id" = String, Path, description = "The chat's id, ours or the client's")), responses((status = 200, body = Stopped)))]
async fn stop(
    State(app): State<App>,
    Asker(auth): Asker,
    Path(id): Path<String>,
) -> Result<Json<Stopped>> {
    let row = running(&app, &auth, &id).await?;
    if let Some(row) = &row {
        request_stop(&app, row).await?;
    }
    Ok(Json(Stopped {
        stopped: row.is_some(),
    }))
}
