//! Anthropic's Messages API over the same model: <https://docs.anthropic.com/en/api/messages>.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::{Value, json};
use uuid::Uuid;

use super::chat::Said;
use super::refusal::Error;
use super::wire::{self, Usage};
use crate::faults::Knobs;

/// Whose protocol is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    OpenAi,
    Anthropic,
}

impl Dialect {
    /// A request of this dialect in OpenAI's words.
    pub fn openai(self, body: Value) -> Value {
        match self {
            Self::OpenAi => body,
            Self::Anthropic => openai(&body),
        }
    }

    pub fn error(self, error: &Error) -> Value {
        match self {
            Self::OpenAi => error.body(),
            Self::Anthropic => {
                json!({"type": "error", "error": {"type": kind(error), "message": error.message}, "request_id": "req_sim"})
            }
        }
    }

    pub fn error_event(self, error: &Error) -> Bytes {
        match self {
            Self::OpenAi => wire::event(&error.body()),
            Self::Anthropic => event("error", &self.error(error)),
        }
    }

    pub fn refusal(self, error: &Error) -> Response {
        let status =
            StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, wire::headers(), Json(self.error(error))).into_response()
    }
}

fn kind(error: &Error) -> &'static str {
    match error.status {
        400 => "invalid_request_error",
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        503 | 529 => "overloaded_error",
        _ => "api_error",
    }
}

/// What the model reads of a request.
fn openai(body: &Value) -> Value {
    if body.is_null() {
        return Value::Null;
    }
    let mut messages = vec![];
    let system = text(&body["system"]);
    if !system.is_empty() {
        messages.push(json!({"role": "system", "content": system}));
    }
    for message in body["messages"].as_array().into_iter().flatten() {
        let blocks = message["content"].as_array();
        let results = blocks
            .into_iter()
            .flatten()
            .filter(|block| block["type"] == "tool_result");
        let mut answered = false;
        for result in results {
            messages.push(json!({"role": "tool", "content": text(&result["content"])}));
            answered = true;
        }
        let content = text(&message["content"]);
        if !answered || !content.is_empty() {
            messages.push(json!({"role": message["role"], "content": content}));
        }
    }
    let tools = body["tools"].as_array().map(|tools| {
        let function = |tool: &Value| json!({"type": "function", "function": {"name": tool["name"], "parameters": tool["input_schema"]}});
        tools.iter().map(function).collect::<Vec<_>>()
    });
    let choice = match body["tool_choice"]["type"].as_str() {
        Some("any") => json!("required"),
        Some("none") => json!("none"),
        Some("tool") => json!({"function": {"name": body["tool_choice"]["name"]}}),
        _ => Value::Null,
    };
    let messages = if body["messages"].is_array() {
        json!(messages)
    } else {
        body["messages"].clone()
    };
    json!({
        "model": body["model"],
        "messages": messages,
        "max_tokens": body["max_tokens"],
        "stop": body["stop_sequences"],
        "tools": tools,
        "tool_choice": choice,
        "stream": body["stream"],
    })
}

/// A string, or the text of blocks.
fn text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => {
            let texts = blocks
                .iter()
                .filter_map(|block| block["text"].as_str())
                .collect::<Vec<_>>();
            texts.join(" ")
        }
        _ => String::new(),
    }
}

/// What the events of one answer repeat.
pub struct Shape {
    id: String,
    model: String,
    input_tokens: usize,
}

impl Shape {
    pub fn new(model: &str, input_tokens: usize) -> Self {
        Self {
            id: format!("msg_{}", Uuid::new_v4().simple()),
            model: model.to_owned(),
            input_tokens,
        }
    }

    fn around(&self, content: Value, reason: Value, output_tokens: usize) -> Value {
        json!({
            "id": self.id, "type": "message", "role": "assistant", "model": self.model,
            "content": content, "stop_reason": reason, "stop_sequence": null,
            "usage": {"input_tokens": self.input_tokens, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": output_tokens},
        })
    }

    /// The whole answer at once.
    pub fn message(&self, said: &Said, finish: &str, usage: Usage) -> Value {
        let block = match said {
            Said::Text(text) => json!({"type": "text", "text": text}),
            Said::Call {
                id,
                name,
                arguments,
            } => {
                let input: Value = serde_json::from_str(arguments).unwrap_or_default();
                json!({"type": "tool_use", "id": id, "name": name, "input": input})
            }
        };
        self.around(
            json!([block]),
            reason(finish).into(),
            usage.completion_tokens,
        )
    }

    pub fn head(&self, said: &Said) -> Vec<Bytes> {
        let block = match said {
            Said::Text(_) => json!({"type": "text", "text": ""}),
            Said::Call { id, name, .. } => {
                json!({"type": "tool_use", "id": id, "name": name, "input": {}})
            }
        };
        let message = self.around(json!([]), Value::Null, 1);
        vec![
            event(
                "message_start",
                &json!({"type": "message_start", "message": message}),
            ),
            event(
                "content_block_start",
                &json!({"type": "content_block_start", "index": 0, "content_block": block}),
            ),
            event("ping", &json!({"type": "ping"})),
        ]
    }

    pub fn word(&self, piece: &str, is_text: bool) -> Bytes {
        let delta = if is_text {
            json!({"type": "text_delta", "text": piece})
        } else {
            json!({"type": "input_json_delta", "partial_json": piece})
        };
        event(
            "content_block_delta",
            &json!({"type": "content_block_delta", "index": 0, "delta": delta}),
        )
    }

    pub fn tail(&self, finish: &str, usage: Usage, knobs: &Knobs) -> Vec<Bytes> {
        let delta = json!({"stop_reason": reason(finish), "stop_sequence": null});
        let usage = json!({"output_tokens": usage.completion_tokens});
        let tail = [
            Some(event(
                "content_block_stop",
                &json!({"type": "content_block_stop", "index": 0}),
            )),
            (!knobs.no_finish).then(|| {
                event(
                    "message_delta",
                    &json!({"type": "message_delta", "delta": delta, "usage": usage}),
                )
            }),
            (!knobs.no_done).then(|| event("message_stop", &json!({"type": "message_stop"}))),
        ];
        tail.into_iter().flatten().collect()
    }
}

fn reason(finish: &str) -> &'static str {
    match finish {
        "length" => "max_tokens",
        "tool_calls" => "tool_use",
        "content_filter" => "refusal",
        _ => "end_turn",
    }
}

fn event(name: &str, data: &Value) -> Bytes {
    format!("event: {name}\ndata: {data}\n\n").into()
}
