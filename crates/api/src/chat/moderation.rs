//! What users say is judged before it is stored, set aside for or shown to a model, where that is asked
//! for: OpenAI's moderations, <https://platform.openai.com/docs/guides/moderation>.
use super::{llm::Failure, scrub::Scrub};
use crate::{App, Error, Result};
use serde_json::{Map, Value};
use std::time::Duration;
use uuid::Uuid;

/// Who judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Moderator {
    Off,
    Openai,
}

/// What is done while the moderator cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Unjudged {
    /// What nobody judged is answered.
    Open,
    /// It is refused.
    Closed,
}

/// Refuses what is flagged of all that a request has users say.
pub async fn check(app: &App, user: Uuid, request: &Map<String, Value>) -> Result<()> {
    let config = &app.config.chat;
    let mut texts = said_by_users(request);
    if config.moderation == Moderator::Off || texts.is_empty() {
        return Ok(());
    }
    if config.pii_scrub {
        Scrub::hiding(&mut texts.iter_mut().collect::<Vec<_>>());
    }
    let mut asked = Map::new();
    asked.insert("model".into(), config.moderation_model.clone().into());
    asked.insert("input".into(), texts.into());
    let verdict = app.llm.moderate(&asked, user).await;
    let flagged = verdict.as_ref().ok().and_then(flagged);
    let outcome = match flagged {
        Some(true) => "flagged",
        Some(false) => "passed",
        None => "unavailable",
    };
    metrics::counter!("moderations_total", "outcome" => outcome).increment(1);
    match (flagged, config.moderation_unavailable) {
        (Some(true), _) => Err(Error::ContentFlagged),
        (Some(false), _) => Ok(()),
        (None, Unjudged::Open) => {
            tracing::warn!(
                "the moderator cannot be had: a question is answered that nobody judged"
            );
            Ok(())
        }
        (None, Unjudged::Closed) => Err(Error::LlmUnavailable {
            retry_after: match verdict {
                Err(Failure::Unavailable { retry_after }) => retry_after,
                _ => Duration::from_secs(1),
            },
        }),
    }
}

fn said_by_users(request: &Map<String, Value>) -> Vec<String> {
    let messages = request.get("messages").and_then(Value::as_array);
    let by_users = messages
        .into_iter()
        .flatten()
        .filter(|m| m["role"] == "user");
    let mut texts = vec![];
    for message in by_users {
        match &message["content"] {
            Value::String(text) => texts.push(text.clone()),
            Value::Array(parts) => {
                let said = parts.iter().filter_map(|part| part["text"].as_str());
                texts.extend(said.map(ToOwned::to_owned));
            }
            _ => {}
        }
    }
    texts.retain(|text| !text.trim().is_empty());
    texts
}

/// The verdict over all of it; `None` when it is none.
fn flagged(answer: &Value) -> Option<bool> {
    let results = answer["results"].as_array()?;
    let each = results.iter().map(|result| result["flagged"].as_bool());
    let each: Vec<_> = each.collect::<Option<_>>()?;
    (!each.is_empty()).then(|| each.contains(&true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_no_verdict_flags_and_passes_nothing() {
        for (answer, verdict) in [
            (
                json!({"results": [{"flagged": false}, {"flagged": true}]}),
                Some(true),
            ),
            (json!({"results": [{"flagged": false}]}), Some(false)),
            (json!({"results": []}), None),
            (json!({"results": [{"flagged": false}, {}]}), None),
            (json!({"results": [{"flagged": "false"}]}), None),
            (json!([]), None),
        ] {
            assert_eq!(flagged(&answer), verdict, "{answer}");
        }
    }
}
