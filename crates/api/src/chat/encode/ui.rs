//! The AI SDK's encoding: its UI message stream, version 1.
//! <https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol#data-stream-protocol>
//!
//! A part of an unknown type ends the client's stream, so nothing is said but what versions 6 and 7
//! both know; that we are still there is said by comments.
use super::{Heard, Listener, NOTHING, completion::Had, native::usage_body, words};
use crate::{
    Error,
    chat::{generation::Head, stream::Event},
};
use axum::{
    http::{HeaderName, HeaderValue},
    response::Response,
};
use futures_util::{Stream, StreamExt, stream};
use serde_json::{Map, Value, json};

/// By which the client knows the encoding.
const VERSION: HeaderName = HeaderName::from_static("x-vercel-ai-ui-message-stream");

/// A response in this encoding.
pub fn response(events: impl Stream<Item = String> + Send + 'static) -> Response {
    let mut response = crate::chat::sse::response(events);
    response
        .headers_mut()
        .insert(VERSION, HeaderValue::from_static("v1"));
    response
}

/// The parts of a message, from its beginning: the client has no cursor, and resumes by hearing it all.
pub fn parts(head: Head, listener: Listener) -> impl Stream<Item = String> + Send + 'static {
    let message = head.place.map(|place| place.message);
    let start = [
        json!({"type": "start", "messageId": message, "messageMetadata": {"generationId": head.generation, "conversationId": head.place.map(|place| place.conversation), "model": head.model}}),
        json!({"type": "start-step"}),
    ];
    let rest = stream::unfold((listener, Parts::default(), false), async |state| {
        let (mut listener, mut parts, over) = state;
        if over {
            return None;
        }
        let (text, over) = match listener.next().await? {
            Heard::Nothing => (NOTHING.into(), false),
            Heard::Event(_, event) => (parts.of(&event), event.is_last()),
            Heard::SignedOut => (parts.error(&Error::SessionEnded.to_string()), true),
            // Without a last part it is not over: the client comes back for it.
            Heard::Reconnect => return None,
        };
        Some((text, (listener, parts, over)))
    });
    stream::iter(start.map(|part| line(&part))).chain(rest)
}

fn line(part: &Value) -> String {
    format!("data: {part}\n\n")
}

/// The parts that are open.
#[derive(Default)]
struct Parts {
    had: Had,
    /// The type and the number of the part that text goes into.
    open: Option<(&'static str, usize)>,
    begun: usize,
    /// Tool calls so far: id, name, arguments.
    calls: Vec<Call>,
}

#[derive(Default)]
struct Call {
    id: String,
    name: String,
    arguments: String,
}

impl Parts {
    fn of(&mut self, event: &Event) -> String {
        match event {
            Event::Delta(delta) => self.said(delta),
            Event::Snapshot(answer) => match self.had.missing(answer) {
                Some(delta) => self.said(&delta),
                None => String::new(),
            },
            Event::Finish { reason, .. } if reason == "truncated" => {
                self.error("The answer was cut off.")
            }
            Event::Finish { reason, usage } => {
                let finish = json!({"type": "finish", "finishReason": reason_of(reason), "messageMetadata": {"usage": usage_body(*usage), "finishReason": reason}});
                let mut text = self.end();
                text += &line(&json!({"type": "finish-step"}));
                text + &line(&finish) + "data: [DONE]\n\n"
            }
            Event::Error(failure) => self.error(&words(failure)),
        }
    }

    fn said(&mut self, delta: &Map<String, Value>) -> String {
        self.had.take(delta);
        let mut text = String::new();
        for (kind, name) in [("reasoning", "reasoning_content"), ("text", "content")] {
            if let Some(said) = delta.get(name).and_then(Value::as_str) {
                text += &self.text(kind, said);
            }
        }
        // A model that declines says so in words.
        if let Some(said) = delta.get("refusal").and_then(Value::as_str) {
            text += &self.text("text", said);
        }
        let calls = delta.get("tool_calls").and_then(Value::as_array);
        for call in calls.into_iter().flatten() {
            text += &self.call(call);
        }
        text
    }

    fn text(&mut self, kind: &'static str, said: &str) -> String {
        let mut text = String::new();
        let number = match self.open {
            Some((open, number)) if open == kind => number,
            _ => {
                text += &self.close();
                self.begun += 1;
                self.open = Some((kind, self.begun));
                text +=
                    &line(&json!({"type": format!("{kind}-start"), "id": self.begun.to_string()}));
                self.begun
            }
        };
        text + &line(
            &json!({"type": format!("{kind}-delta"), "id": number.to_string(), "delta": said}),
        )
    }

    fn close(&mut self) -> String {
        let open = self.open.take();
        open.map_or(String::new(), |(kind, number)| {
            line(&json!({"type": format!("{kind}-end"), "id": number.to_string()}))
        })
    }

    fn call(&mut self, piece: &Value) -> String {
        let word = |path| piece.pointer(path).and_then(Value::as_str).unwrap_or("");
        let mut text = self.close();
        let (id, name, arguments) = (
            word("/id"),
            word("/function/name"),
            word("/function/arguments"),
        );
        let goes_on = !self.calls.is_empty()
            && (id.is_empty() || self.calls.iter().any(|call| call.id == id));
        if !goes_on {
            let id = match id {
                "" => format!("call_{}", self.calls.len()),
                id => id.to_owned(),
            };
            text += &line(&json!({"type": "tool-input-start", "toolCallId": id, "toolName": name}));
            self.calls.push(Call {
                id,
                name: name.to_owned(),
                arguments: String::new(),
            });
        }
        let index = piece.get("index").and_then(Value::as_u64);
        let index = index.map_or(self.calls.len() - 1, |index| index as usize);
        let index = index.min(self.calls.len() - 1);
        let call = &mut self.calls[index];
        call.arguments += arguments;
        if !arguments.is_empty() {
            text += &line(
                &json!({"type": "tool-input-delta", "toolCallId": call.id, "inputTextDelta": arguments}),
            );
        }
        text
    }

    /// Ends what is open.
    fn end(&mut self) -> String {
        let mut text = self.close();
        for call in self.calls.drain(..) {
            let part = match serde_json::from_str::<Value>(&call.arguments) {
                Ok(input) => {
                    json!({"type": "tool-input-available", "toolCallId": call.id, "toolName": call.name, "input": input})
                }
                Err(_) => {
                    json!({"type": "tool-input-error", "toolCallId": call.id, "toolName": call.name, "input": call.arguments, "errorText": "The arguments are not JSON."})
                }
            };
            text += &line(&part);
        }
        text
    }

    fn error(&mut self, words: &str) -> String {
        let text = self.end() + &line(&json!({"type": "error", "errorText": words}));
        text + "data: [DONE]\n\n"
    }
}

/// The client knows these words alone.
fn reason_of(reason: &str) -> &'static str {
    match reason {
        "stop" | "stopped" => "stop",
        "length" => "length",
        "content_filter" => "content-filter",
        "tool_calls" | "function_call" => "tool-calls",
        _ => "other",
    }
}
