//! Asking an assistant something in a conversation: what the model is shown, and where question and
//! answer are kept.
use super::{
    assistants,
    generation::{self, Accepted, Asked, Place},
    llm::estimate_tokens,
};
use crate::{App, Error, Result, error::Invalid, extract::Auth, idempotency::Keyed};
use db::conversations::{Conversation, Message};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

/// Characters of a title made of the first question.
const TITLE_CHARS: usize = 60;

/// Something said in a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
pub struct Turn {
    pub role: Role,
    pub content: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
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

/// Where a question is asked.
#[derive(Debug, Clone)]
pub enum Within {
    /// A conversation that begins with it, under an id of the client's if it has one; with what the
    /// client remembers of what was said before.
    New {
        client_id: Option<String>,
        history: Vec<Turn>,
    },
    /// After a message, or at the beginning.
    Existing {
        conversation: Conversation,
        parent: Option<Uuid>,
    },
}

/// How it is to be answered; what is absent is the assistant's, or the configuration's.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    pub assistant: Option<String>,
    pub model: Option<String>,
    pub max_output: Option<u32>,
    /// What the assistant may know of the user, in place of the profile they keep here.
    pub profile: Option<Map<String, Value>>,
}

/// What is asked.
#[derive(Debug, Clone)]
pub enum Question {
    New {
        content: String,
        client_id: Option<String>,
    },
    /// One that was asked before, and gets another answer.
    Again(Message),
}

/// A question, trimmed, when it is as it should be.
pub fn content(app: &App, field: &str, text: &str, faults: &mut Vec<Invalid>) -> String {
    let (text, max) = (text.trim(), app.config.chat.chat_max_message_chars);
    if text.is_empty() || text.chars().count() > max {
        let problem = format!("has to be 1 to {max} characters");
        faults.push(Invalid::new(field, problem));
    }
    text.to_owned()
}

/// Whether there is such an assistant.
pub fn assistant(app: &App, name: Option<&str>, faults: &mut Vec<Invalid>) {
    if name.is_some_and(|name| app.assistants.get(name).is_none()) {
        faults.push(Invalid::new(
            "assistant",
            "is not one of GET /api/assistants",
        ));
    }
}

/// Asks, or refuses with nothing stored.
pub async fn ask(
    app: &App,
    auth: &Auth,
    within: Within,
    question: Question,
    wishes: Wishes,
    keyed: Keyed,
) -> Result<Accepted> {
    let stored = match &within {
        Within::Existing { conversation, .. } => Some(conversation.assistant.clone()),
        Within::New { .. } => None,
    };
    let wanted = wishes.assistant.or(stored);
    let name = wanted.unwrap_or_else(|| match wishes.profile {
        Some(_) => "future_self".to_owned(),
        None => assistants::DEFAULT.to_owned(),
    });
    let assistant = app
        .assistants
        .get(&name)
        .ok_or_else(|| Error::invalid("assistant", "does not exist any more"))?;
    let profile = match wishes.profile {
        Some(profile) => profile,
        None => super::profile::of(app, auth.user).await?,
    };
    let config = &app.config.chat;
    let model = wishes.model.or_else(|| assistant.model.clone());
    let model = model.unwrap_or_else(|| config.llm_model.clone());
    let longest = assistant.max_output_tokens.unwrap_or(config.llm_max_tokens);
    let max_output = wishes
        .max_output
        .unwrap_or(longest)
        .min(config.llm_max_tokens);

    let content = match &question {
        Question::New { content, .. } => content.clone(),
        Question::Again(message) => message.content.clone(),
    };
    let system = app.assistants.prompt(&name, &profile)?;
    let room = app.plans.window(&model) - i64::from(max_output);
    let messages = shown(&system, history(app, &within).await?, &content, room);
    let tokens = messages
        .iter()
        .filter_map(|message| message["content"].as_str())
        .map(|text| estimate_tokens(text) + PER_MESSAGE)
        .sum();
    let mut request = Map::new();
    request.insert("messages".into(), messages.into());
    request.insert("temperature".into(), json!(assistant.temperature));
    let asked = Asked {
        request,
        model: model.clone(),
        prompt_text_tokens: tokens,
        max_output: max_output.into(),
        keyed: Some(keyed),
    };
    generation::start(app, auth, asked, async |tx| {
        let now = app.now();
        let (conversation, parent) = match within {
            Within::Existing {
                conversation,
                parent,
            } => (conversation.id, parent),
            Within::New { client_id, .. } => {
                let (id, title) = (Uuid::now_v7(), title(&content));
                let client_id = client_id.as_deref();
                let made = db::conversations::create(
                    tx,
                    id,
                    auth.user,
                    Some(&title),
                    &name,
                    client_id,
                    now,
                );
                if !made.await? {
                    // Another request began it in the same moment.
                    return Err(Error::IdempotencyInFlight);
                }
                (id, None)
            }
        };
        let question = match question {
            Question::Again(message) => message.id,
            Question::New { content, client_id } => {
                let (id, client_id) = (Uuid::now_v7(), client_id.as_deref());
                let added =
                    db::conversations::ask(tx, id, conversation, parent, &content, client_id, now);
                if !added.await? {
                    return Err(Error::invalid(
                        "client_message_id",
                        "is that of another message",
                    ));
                }
                id
            }
        };
        let answer = Uuid::now_v7();
        db::conversations::place_answer(tx, answer, conversation, question, &model, now).await?;
        db::conversations::advance(tx, conversation, answer, now).await?;
        Ok(Some(Place {
            conversation,
            message: answer,
        }))
    })
    .await
}

/// What was said before, oldest first. What is stored wins over what a client remembers.
async fn history(app: &App, within: &Within) -> Result<Vec<Turn>> {
    let limit = app.config.chat.chat_history_limit;
    match within {
        Within::New { history, .. } => {
            let more = history.len().saturating_sub(limit);
            Ok(history[more..].to_vec())
        }
        Within::Existing { parent: None, .. } => Ok(vec![]),
        Within::Existing {
            parent: Some(leaf), ..
        } => {
            let mut branch = db::conversations::branch(&app.db, *leaf, limit as i64).await?;
            branch.reverse();
            let said = branch
                .into_iter()
                .filter(|message| !message.content.is_empty());
            Ok(said
                .map(|message| Turn {
                    role: match message.role.as_str() {
                        "user" => Role::User,
                        _ => Role::Assistant,
                    },
                    content: message.content,
                })
                .collect())
        }
    }
}

/// What a message costs besides its words.
const PER_MESSAGE: i64 = 4;

/// OpenAI's messages: the prompt, as many of the newest turns as there is room for, the question. What
/// belongs together is left out together: no answer is shown without its question.
fn shown(system: &str, history: Vec<Turn>, question: &str, room: i64) -> Vec<Value> {
    let cost = |text: &str| estimate_tokens(text) + PER_MESSAGE;
    // Estimates err; a fiftieth is kept free.
    let mut left = room - room / 50 - cost(system) - cost(question);
    let mut from = history.len();
    let mut turn = 0;
    for (index, said) in history.iter().enumerate().rev() {
        turn += cost(&said.content);
        if turn > left {
            break;
        }
        if said.role == Role::User {
            (left, turn, from) = (left - turn, 0, index);
        }
    }
    // What a client remembers may begin with an answer: it stays if all of it fits.
    if from > 0
        && history[..from]
            .iter()
            .all(|said| said.role == Role::Assistant)
        && turn <= left
    {
        from = 0;
    }
    let said = history[from..]
        .iter()
        .map(|said| json!({"role": said.role.word(), "content": said.content}));
    [json!({"role": "system", "content": system})]
        .into_iter()
        .chain(said)
        .chain([json!({"role": "user", "content": question})])
        .collect()
}

/// The first words of the first question.
pub fn title(question: &str) -> String {
    let line = question.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(TITLE_CHARS) {
        Some((end, _)) => format!("{}…", line[..end].trim_end()),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Invariant 40.
        #[test]
        fn what_is_shown_fits_and_keeps_the_prompt_the_question_and_whole_turns(
            turns in prop::collection::vec(("[a-z ]{0,200}", "[a-z ]{0,200}"), 0..12), room in 0..4_000i64,
        ) {
            let history: Vec<_> = turns.iter().flat_map(|(question, answer)| [
                Turn { role: Role::User, content: question.clone() },
                Turn { role: Role::Assistant, content: answer.clone() },
            ]).collect();

            let messages = shown("Be kind.", history.clone(), "And now?", room);

            let text = |message: &Value| message["content"].as_str().unwrap().to_owned();
            let (first, last) = (messages.first().unwrap(), messages.last().unwrap());
            prop_assert_eq!((text(first), text(last)), ("Be kind.".to_owned(), "And now?".to_owned()));
            let between = &messages[1..messages.len() - 1];
            prop_assert!(between.first().is_none_or(|message| message["role"] == "user"));
            let newest = history[history.len() - between.len()..].iter().map(|turn| turn.content.clone());
            prop_assert_eq!(between.iter().map(text).collect::<Vec<_>>(), newest.collect::<Vec<_>>());
            let cost: i64 = messages.iter().map(|message| estimate_tokens(&text(message)) + PER_MESSAGE).sum();
            prop_assert!(between.is_empty() || cost <= room);
        }
    }

    #[test]
    fn a_title_is_the_first_words() {
        assert_eq!(title("  Hello\n there "), "Hello there");
        assert_eq!(title(&"word ".repeat(40)).chars().count(), 60);
    }
}
