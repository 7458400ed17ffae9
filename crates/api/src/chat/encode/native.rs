//! Our own events: `start`, `delta`, `reasoning`, `tool_call`, `snapshot`, then one `finish`, `error` or
//! `reconnect`. Their ids are `{generation}.{seq}`, from which a client goes on.
use super::{Heard, Listener, NOTHING, words};
use crate::{
    Error,
    chat::{
        generation::Head,
        llm::{Failure, Usage},
        stream::Event,
    },
};
use futures_util::{Stream, StreamExt, stream};
use serde_json::{Value, json};
use uuid::Uuid;

/// One event: its name and its data.
pub fn event(head: &Head, event: &Event) -> (&'static str, Value) {
    let message = head.place.map(|place| place.message);
    match event {
        Event::Delta(delta) => {
            let text = |name: &str| delta.get(name).and_then(Value::as_str);
            match (text("content"), text("reasoning_content")) {
                (Some(text), _) => ("delta", json!({"text": text})),
                (None, Some(text)) => ("reasoning", json!({"text": text})),
                (None, None) => ("tool_call", Value::Object(delta.clone())),
            }
        }
        Event::Snapshot(answer) => {
            let mut data = json!({"text": answer.text});
            if !answer.reasoning.is_empty() {
                data["reasoning"] = answer.reasoning.clone().into();
            }
            if !answer.tool_calls.is_empty() {
                data["tool_calls"] = answer.tool_calls.clone().into();
            }
            ("snapshot", data)
        }
        Event::Finish { reason, usage } => (
            "finish",
            json!({"reason": reason, "message_id": message, "usage": usage_body(*usage)}),
        ),
        Event::Error(failure) => ("error", error(failure)),
    }
}

fn error(failure: &Failure) -> Value {
    json!({
        "code": failure.code(),
        "message": words(failure),
        "retryable": failure.is_retryable(),
    })
}

/// What comes before the first event.
pub fn start(head: &Head) -> Value {
    json!({
        "generation_id": head.generation,
        "conversation_id": head.place.map(|place| place.conversation),
        "message_id": head.place.map(|place| place.message),
        "model": head.model,
    })
}

/// OpenAI's words for tokens.
pub fn usage_body(usage: Usage) -> Value {
    json!({"prompt_tokens": usage.input, "completion_tokens": usage.output, "total_tokens": usage.input + usage.output})
}

/// What a client hears that goes on after an event; 0 is the beginning. A reader that leaves does not
/// end the answer.
pub fn events(
    head: Head,
    listener: Listener,
    after: u64,
) -> impl Stream<Item = String> + Send + 'static {
    let first = (after == 0).then(|| written(head.generation, 0, "start", &start(&head)));
    let rest = stream::unfold((listener, head), async |(mut listener, head)| {
        let text = match listener.next().await? {
            Heard::Event(seq, next) => {
                let (name, mut data) = event(&head, &next);
                if name == "snapshot" {
                    data["upto"] = seq.into();
                }
                written(head.generation, seq, name, &data)
            }
            Heard::Nothing => NOTHING.into(),
            Heard::SignedOut => {
                let data = json!({"code": "session_ended", "message": Error::SessionEnded.to_string(), "retryable": false});
                format!("event: error\ndata: {data}\n\n")
            }
            Heard::Reconnect => "event: reconnect\nretry: 250\ndata: {}\n\n".into(),
        };
        Some((text, (listener, head)))
    });
    stream::iter(first).chain(rest)
}

pub fn written(generation: Uuid, seq: u64, name: &str, data: &Value) -> String {
    format!("id: {generation}.{seq}\nevent: {name}\ndata: {data}\n\n")
}
