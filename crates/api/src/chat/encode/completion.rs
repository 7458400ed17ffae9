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
use serde::Serialize;
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

/// What is the same in every chunk of an answer.
struct Chunks {
    id: String,
    created: i64,
    model: String,
    include_usage: bool,
}

#[derive(Serialize)]
struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: i64,
    model: &'a str,
    choices: &'a [Choice<'a>],
    /// Where it is asked for it is null until the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Value>>,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: u32,
    delta: &'a Map<String, Value>,
    logprobs: Option<()>,
    finish_reason: Option<&'a str>,
}

impl Chunks {
    fn line(&self, choices: &[Choice<'_>], usage: Option<Value>) -> String {
        let chunk = Chunk {
            id: &self.id,
            object: "chat.completion.chunk",
            created: self.created,
            model: &self.model,
            choices,
            usage: self.include_usage.then_some(usage),
        };
        // Writing JSON to memory does not fail.
        let chunk = serde_json::to_string(&chunk).unwrap_or_default();
        format!("data: {chunk}\n\n")
    }

    fn delta(&self, delta: &Map<String, Value>, finish_reason: Option<&str>) -> String {
        let choice = Choice {
            index: 0,
            delta,
            logprobs: None,
            finish_reason,
        };
        self.line(&[choice], None)
    }

    /// That it begins: whose words they are.
    fn begin(&self) -> String {
        let role = [("role", "assistant"), ("content", "")];
        let role = role.map(|(name, value)| (name.to_owned(), value.into()));
        self.delta(&role.into_iter().collect(), None)
    }

    /// That it is over, and why.
    fn finish(&self, reason: &str, usage: Usage) -> String {
        let mut text = self.delta(&Map::new(), Some(openai_reason(reason)));
        if self.include_usage {
            text += &self.line(&[], Some(usage_body(usage)));
        }
        text + "data: [DONE]\n\n"
    }
}

/// A client that listens in OpenAI's words.
struct Hearing {
    listener: Listener,
    chunks: Chunks,
    had: Had,
    over: bool,
    _guard: Option<StopOnDrop>,
}

impl Hearing {
    fn say(&mut self, heard: Heard) -> String {
        match heard {
            Heard::Nothing => NOTHING.into(),
            Heard::Event(_, event) => match &*event {
                Event::Delta(delta) => {
                    self.had.take(delta);
                    self.chunks.delta(delta, None)
                }
                Event::Snapshot(answer) => match self.had.missing(answer) {
                    Some(delta) => {
                        self.had.take(&delta);
                        self.chunks.delta(&delta, None)
                    }
                    None => {
                        self.over = true;
                        failure(&Failure::Interrupted)
                    }
                },
                Event::Finish { reason, .. } if reason == "truncated" => {
                    failure(&Failure::Truncated)
                }
                Event::Finish { reason, usage } => self.chunks.finish(reason, *usage),
                Event::Error(error) => failure(error),
            },
            Heard::SignedOut => error("session_ended", &Error::SessionEnded.to_string()),
            Heard::Reconnect => failure(&Failure::Draining),
        }
    }
}

/// Chunks, then `[DONE]`; or an error, and no `[DONE]`.
pub fn chunks(
    head: Head,
    listener: Listener,
    include_usage: bool,
    guard: Option<StopOnDrop>,
) -> impl Stream<Item = String> + Send + 'static {
    let chunks = Chunks {
        id: id(head.generation),
        created: head.created_at.unix(),
        model: head.model,
        include_usage,
    };
    let first = chunks.begin();
    let hearing = Hearing {
        listener,
        chunks,
        had: Had::default(),
        over: false,
        _guard: guard,
    };
    let rest = stream::unfold(hearing, async |mut hearing| {
        if hearing.over {
            return None;
        }
        let heard = hearing.listener.next().await?;
        Some((hearing.say(heard), hearing))
    });
    stream::iter([first]).chain(rest)
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
