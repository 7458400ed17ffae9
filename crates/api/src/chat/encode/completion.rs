//! OpenAI's encoding: chat completions whole, and in chunks.
//! <https://platform.openai.com/docs/api-reference/chat/streaming>
use super::{Heard, Listener, NOTHING, native::usage_body, words};
use crate::{
    Error,
    chat::{
        answer::Answer,
        generation::Head,
        llm::{Failure, Usage},
        stream::{Event, StopOnDrop},
    },
};
use futures_util::{Stream, StreamExt, stream};
use serde_json::{Map, Value, json};
use uuid::Uuid;

fn id(generation: Uuid) -> String {
    format!("chatcmpl-{}", generation.simple())
}

/// OpenAI's answer in one piece.
pub fn completion(head: &Head, answer: &Answer, reason: &str, usage: Usage) -> Value {
    json!({
        "id": id(head.generation),
        "object": "chat.completion",
        "created": head.created_at.unix(),
        "model": head.model,
        "choices": [{"index": 0, "message": answer.message(), "logprobs": null, "finish_reason": openai_reason(reason)}],
        "usage": usage_body(usage),
    })
}

/// These clients know OpenAI's words alone.
fn openai_reason(reason: &str) -> &str {
    if reason == "stopped" { "stop" } else { reason }
}

/// Chunks, then `[DONE]`; or an error, and no `[DONE]`.
pub fn chunks(
    head: Head,
    listener: Listener,
    include_usage: bool,
    guard: Option<StopOnDrop>,
) -> impl Stream<Item = String> + Send + 'static {
    let head = json!({"id": id(head.generation), "object": "chat.completion.chunk", "created": head.created_at.unix(), "model": head.model});
    let chunk = move |choices: Value, usage: Value| {
        let mut chunk = head.clone();
        chunk["choices"] = choices;
        if include_usage {
            chunk["usage"] = usage;
        }
        format!("data: {chunk}\n\n")
    };
    let said = |delta: Value| json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": null}]);
    let first = chunk(
        said(json!({"role": "assistant", "content": ""})),
        Value::Null,
    );
    struct Hearing {
        listener: Listener,
        had: Had,
        over: bool,
        _guard: Option<StopOnDrop>,
    }
    let hearing = Hearing {
        listener,
        had: Had::default(),
        over: false,
        _guard: guard,
    };
    let rest = stream::unfold(hearing, move |mut hearing| {
        let chunk = chunk.clone();
        async move {
            if hearing.over {
                return None;
            }
            let text = match hearing.listener.next().await? {
                Heard::Nothing => NOTHING.into(),
                Heard::Event(_, event) => match &*event {
                    Event::Delta(delta) => {
                        hearing.had.take(delta);
                        chunk(said(Value::Object(delta.clone())), Value::Null)
                    }
                    Event::Snapshot(answer) => match hearing.had.missing(answer) {
                        Some(delta) => {
                            hearing.had.take(&delta);
                            chunk(said(Value::Object(delta)), Value::Null)
                        }
                        None => {
                            hearing.over = true;
                            failure(&Failure::Interrupted)
                        }
                    },
                    Event::Finish { reason, .. } if reason == "truncated" => {
                        failure(&Failure::Truncated)
                    }
                    Event::Finish { reason, usage } => {
                        let choice = json!([{"index": 0, "delta": {}, "logprobs": null, "finish_reason": openai_reason(reason)}]);
                        let mut text = chunk(choice, Value::Null);
                        if include_usage {
                            text += &chunk(json!([]), usage_body(*usage));
                        }
                        text + "data: [DONE]\n\n"
                    }
                    Event::Error(error) => failure(error),
                },
                Heard::SignedOut => error("session_ended", &Error::SessionEnded.to_string()),
                Heard::Reconnect => failure(&Failure::Draining),
            };
            Some((text, hearing))
        }
    });
    stream::once(async { first }).chain(rest)
}

/// How much a client has, whose protocol only ever adds.
#[derive(Default)]
pub struct Had {
    text: usize,
    reasoning: usize,
    refusal: usize,
    calls: bool,
}

impl Had {
    pub fn take(&mut self, delta: &Map<String, Value>) {
        let len = |name: &str| delta.get(name).and_then(Value::as_str).map_or(0, str::len);
        self.text += len("content");
        self.reasoning += len("reasoning_content");
        self.refusal += len("refusal");
        self.calls |= delta.contains_key("tool_calls");
    }

    /// What of an answer it does not have; `None` where that cannot be told.
    pub fn missing(&self, answer: &Answer) -> Option<Map<String, Value>> {
        if self.calls {
            return None;
        }
        let mut delta = Map::new();
        for (name, text, had) in [
            ("content", &answer.text, self.text),
            ("reasoning_content", &answer.reasoning, self.reasoning),
            ("refusal", &answer.refusal, self.refusal),
        ] {
            let more = text.get(had..)?;
            if !more.is_empty() {
                delta.insert(name.into(), more.into());
            }
        }
        if !answer.tool_calls.is_empty() {
            delta.insert("tool_calls".into(), answer.tool_calls.clone().into());
        }
        Some(delta)
    }
}

/// What makes every OpenAI SDK throw in the middle of a stream.
fn failure(failure: &Failure) -> String {
    error(failure.code(), &words(failure))
}

fn error(code: &str, words: &str) -> String {
    format!(
        "data: {}\n\n",
        json!({"error": {"message": words, "type": "server_error", "param": null, "code": code}})
    )
}
