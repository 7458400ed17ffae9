//! OpenAI's shapes: <https://platform.openai.com/docs/api-reference/chat>.

use axum::Json;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::chat::Said;
use super::refusal::{Error, key};
use crate::faults::{KNOBS, Knobs};

/// What every chunk of one answer repeats.
pub struct Shape {
    pub id: String,
    pub created: i64,
    pub model: String,
    /// Every chunk then says `usage: null`.
    pub include_usage: bool,
    pub obfuscation: bool,
}

#[derive(Clone, Copy, Serialize)]
pub struct Usage {
    pub prompt_tokens: usize,
    pub completion_tokens: usize,
    pub total_tokens: usize,
    prompt_tokens_details: PromptTokens,
    completion_tokens_details: CompletionTokens,
}

#[derive(Clone, Copy, Default, Serialize)]
struct PromptTokens {
    cached_tokens: usize,
    audio_tokens: usize,
}

#[derive(Clone, Copy, Default, Serialize)]
struct CompletionTokens {
    reasoning_tokens: usize,
    audio_tokens: usize,
    accepted_prediction_tokens: usize,
    rejected_prediction_tokens: usize,
}

#[derive(Serialize)]
struct Chunk<'a, D> {
    id: &'a str,
    object: &'a str,
    created: i64,
    model: &'a str,
    service_tier: &'a str,
    system_fingerprint: &'a str,
    choices: &'a [Choice<'a, D>],
    /// Not asked for, not in this chunk, or what it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    obfuscation: Option<&'a str>,
}

#[derive(Serialize)]
struct Choice<'a, D> {
    index: usize,
    delta: D,
    logprobs: Option<()>,
    finish_reason: Option<&'a str>,
}

#[derive(Serialize)]
struct Content<'a> {
    content: &'a str,
}

impl Usage {
    pub fn new(prompt_tokens: usize, completion_tokens: usize) -> Self {
        Self {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens + completion_tokens,
            prompt_tokens_details: PromptTokens::default(),
            completion_tokens_details: CompletionTokens::default(),
        }
    }
}

impl Shape {
    pub fn new(model: &str, include_usage: bool, obfuscation: bool) -> Self {
        Self {
            id: format!("chatcmpl-{}", Uuid::new_v4().simple()),
            created: crate::now(),
            model: model.to_owned(),
            include_usage,
            obfuscation,
        }
    }

    pub fn role(&self, content: Option<&str>) -> Bytes {
        let delta = json!({"role": "assistant", "content": content, "refusal": null});
        self.chunk(delta, 0, None)
    }

    pub fn content(&self, piece: &str) -> Bytes {
        self.chunk(Content { content: piece }, piece.len(), None)
    }

    pub fn tool(&self, id: &str, name: &str) -> Bytes {
        let function = json!({"name": name, "arguments": ""});
        let call = json!({"index": 0, "id": id, "type": "function", "function": function});
        self.chunk(json!({ "tool_calls": [call] }), 0, None)
    }

    /// As Gemini sends it.
    pub fn whole_call(&self, name: &str, arguments: &str) -> Bytes {
        let function = json!({"name": name, "arguments": arguments});
        let call = json!({"type": "function", "function": function});
        self.chunk(json!({ "tool_calls": [call] }), 0, None)
    }

    pub fn arguments(&self, piece: &str) -> Bytes {
        let call = json!({"index": 0, "function": {"arguments": piece}});
        self.chunk(json!({ "tool_calls": [call] }), piece.len(), None)
    }

    pub fn finish(&self, reason: &str) -> Bytes {
        self.chunk(json!({}), 0, Some(reason))
    }

    pub fn usage(&self, usage: Usage) -> Bytes {
        self.event::<()>(None, Some(usage), 0)
    }

    fn chunk<D: Serialize>(&self, delta: D, length: usize, finish: Option<&str>) -> Bytes {
        let choice = Choice {
            index: 0,
            delta,
            logprobs: None,
            finish_reason: finish,
        };
        self.event(Some(choice), None, length)
    }

    fn event<D: Serialize>(
        &self,
        choice: Option<Choice<'_, D>>,
        usage: Option<Usage>,
        length: usize,
    ) -> Bytes {
        // As many letters as make all chunks about as long: an eavesdropper learns less.
        const FILLER: &str = "x7Qm2LfTzR9bKd04";
        let filler = &FILLER[length.min(FILLER.len() - 1)..];
        event(&Chunk {
            id: &self.id,
            object: "chat.completion.chunk",
            created: self.created,
            model: &self.model,
            service_tier: "default",
            system_fingerprint: FINGERPRINT,
            choices: choice.as_slice(),
            usage: self.include_usage.then_some(usage),
            obfuscation: self.obfuscation.then_some(filler),
        })
    }

    /// The whole answer at once.
    pub fn completion(&self, said: &Said, reason: &str, usage: Usage) -> Value {
        let message = match said {
            Said::Text(text) => {
                json!({"role": "assistant", "content": text, "refusal": null, "annotations": []})
            }
            Said::Call {
                id,
                name,
                arguments,
            } => {
                let function = json!({"name": name, "arguments": arguments});
                let call = json!({"id": id, "type": "function", "function": function});
                json!({"role": "assistant", "content": null, "tool_calls": [call], "refusal": null, "annotations": []})
            }
        };
        json!({
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": [{"index": 0, "message": message, "logprobs": null, "finish_reason": reason}],
            "usage": usage,
            "service_tier": "default",
            "system_fingerprint": FINGERPRINT,
        })
    }
}

const FINGERPRINT: &str = "fp_sim";
pub const DONE: Bytes = Bytes::from_static(b"data: [DONE]\n\n");

pub fn event(data: &impl Serialize) -> Bytes {
    let mut event = b"data: ".to_vec();
    // Writing to memory, of shapes that are all JSON, does not fail.
    let _ = serde_json::to_writer(&mut event, data);
    event.extend_from_slice(b"\n\n");
    event.into()
}

/// The headers every answer has.
pub fn headers() -> [(HeaderName, HeaderValue); 3] {
    let id = format!("req_{}", Uuid::new_v4().simple());
    [
        (
            HeaderName::from_static("x-request-id"),
            HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static("req_sim")),
        ),
        (
            HeaderName::from_static("openai-processing-ms"),
            HeaderValue::from_static("12"),
        ),
        (
            HeaderName::from_static("openai-version"),
            HeaderValue::from_static("2020-10-01"),
        ),
    ]
}

fn model_card(id: &str) -> Value {
    json!({"id": id, "object": "model", "created": 1_790_000_000, "owned_by": "sim"})
}

pub async fn models(headers: HeaderMap) -> Result<Response, Error> {
    key(&headers)?;
    let names = std::iter::once("sim").chain(KNOBS.iter().map(|(name, _)| *name));
    let cards: Vec<_> = names.map(model_card).collect();
    Ok((
        self::headers(),
        Json(json!({"object": "list", "data": cards})),
    )
        .into_response())
}

pub async fn model(Path(model): Path<String>, headers: HeaderMap) -> Result<Response, Error> {
    key(&headers)?;
    Knobs::of_model(&model).ok_or_else(|| Error::unknown_model(&model))?;
    Ok((self::headers(), Json(model_card(&model))).into_response())
}
