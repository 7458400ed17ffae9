//! Anthropic's events in OpenAI's deltas.
use super::ANSWER;
use crate::chat::llm::{Broken, Said, Usage, unsayable};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::{borrow::Cow, collections::VecDeque};

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    index: Option<u64>,
    message: Option<Value>,
    content_block: Option<Value>,
    #[serde(borrow)]
    delta: Option<Delta<'a>>,
    usage: Option<Value>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Cow<'a, str>>,
    text: Option<String>,
    thinking: Option<String>,
    partial_json: Option<String>,
    #[serde(borrow)]
    stop_reason: Option<Cow<'a, str>>,
}

/// A call of a tool that is being said.
struct Call {
    block: u64,
    /// Its arguments are the answer.
    is_answer: bool,
    /// What it has without being told, and whether it was told anything.
    input: Value,
    told: bool,
}

/// Where a stream is.
#[derive(Default)]
pub struct Reader {
    calls: Vec<Call>,
    usage: Usage,
    pub finished: bool,
    pub done: bool,
}

impl Reader {
    /// Reads one event.
    pub fn take(&mut self, event: &[u8], ready: &mut VecDeque<Said>) -> Result<(), Broken> {
        let event: Event<'_> =
            serde_json::from_slice(event).map_err(|_| Broken::cut("malformed"))?;
        match &*event.kind {
            "message_start" => {
                let usage = event
                    .message
                    .as_ref()
                    .and_then(|message| message.get("usage"));
                self.count(usage);
            }
            "content_block_start" => {
                let block = event.content_block.unwrap_or_default();
                self.begin(event.index.unwrap_or(0), block, ready);
            }
            "content_block_delta" => {
                if let Some(delta) = event.delta {
                    self.delta(event.index.unwrap_or(0), delta, ready);
                }
            }
            "content_block_stop" => self.end_call(event.index.unwrap_or(0), ready),
            "message_delta" => {
                self.count(event.usage.as_ref());
                let reason = event.delta.and_then(|delta| delta.stop_reason);
                if let Some(reason) = reason.filter(|_| !self.finished) {
                    ready.push_back(Said::Finish(self.reason(&reason).to_owned()));
                    self.finished = true;
                }
                // Before the end it counts the output so far, and would be too little if it stayed.
                if self.finished {
                    ready.push_back(Said::Usage(self.usage));
                }
            }
            "message_stop" => {
                self.done = true;
                if !self.finished {
                    return Err(Broken::cut("done_unfinished"));
                }
            }
            "error" => return Err(Broken::said(&event.error.unwrap_or_default())),
            // Pings, and what is new: clients are asked to let it be.
            _ => {}
        }
        Ok(())
    }

    /// Counts are totals, not steps. Input that was cached is counted apart there.
    fn count(&mut self, usage: Option<&Value>) {
        let count = |name: &str| {
            let count = usage?.get(name)?.as_i64()?;
            Some(count.clamp(0, i64::from(i32::MAX)))
        };
        if let Some(input) = count("input_tokens") {
            let cached = count("cache_read_input_tokens").unwrap_or(0);
            self.usage.cached = cached;
            self.usage.input = input + cached + count("cache_creation_input_tokens").unwrap_or(0);
        }
        if let Some(output) = count("output_tokens") {
            self.usage.output = output;
        }
    }

    fn begin(&mut self, index: u64, mut block: Value, ready: &mut VecDeque<Said>) {
        match block.get("type").and_then(Value::as_str) {
            Some("text") => say("content", text_of_block(&mut block, "text"), ready),
            Some("thinking") => say(
                "reasoning_content",
                text_of_block(&mut block, "thinking"),
                ready,
            ),
            Some("tool_use") => {
                let is_answer = block["name"] == ANSWER;
                if !is_answer {
                    let call = json!({"index": self.calls.len(), "id": block["id"], "type": "function", "function": {"name": block["name"], "arguments": ""}});
                    push("tool_calls", json!([call]), ready);
                }
                self.calls.push(Call {
                    block: index,
                    is_answer,
                    input: block["input"].take(),
                    told: false,
                });
            }
            _ => {}
        }
    }

    fn delta(&mut self, index: u64, delta: Delta<'_>, ready: &mut VecDeque<Said>) {
        match delta.kind.as_deref() {
            Some("text_delta") => say("content", delta.text.unwrap_or_default(), ready),
            Some("thinking_delta") => {
                say(
                    "reasoning_content",
                    delta.thinking.unwrap_or_default(),
                    ready,
                );
            }
            Some("input_json_delta") => {
                let piece = delta.partial_json.unwrap_or_default();
                self.arguments(index, piece, ready);
            }
            _ => {}
        }
    }

    fn arguments(&mut self, block: u64, piece: String, ready: &mut VecDeque<Said>) {
        let mut calls = self.calls.iter_mut().enumerate();
        let Some((at, call)) = calls.rfind(|(_, call)| call.block == block) else {
            return;
        };
        call.told |= !piece.is_empty();
        match (piece.is_empty(), call.is_answer) {
            (true, _) => {}
            (false, true) => say("content", piece, ready),
            (false, false) => {
                let mut call = json!([{"index": at, "function": {"arguments": piece}}]);
                unsayable(&mut call);
                push("tool_calls", call, ready);
            }
        }
    }

    /// A call that was told nothing has what it began with.
    fn end_call(&mut self, block: u64, ready: &mut VecDeque<Said>) {
        let silent = self
            .calls
            .iter()
            .find(|call| call.block == block && !call.told);
        if let Some(call) = silent {
            let whole = call.input.as_object().map_or_else(
                || "{}".to_owned(),
                |input| serde_json::to_string(input).unwrap_or_default(),
            );
            self.arguments(block, whole, ready);
        }
    }

    fn reason<'a>(&self, reason: &'a str) -> &'a str {
        match reason {
            "end_turn" | "stop_sequence" | "pause_turn" => "stop",
            "max_tokens" | "model_context_window_exceeded" => "length",
            "tool_use" if self.calls.iter().all(|call| call.is_answer) => "stop",
            "tool_use" => "tool_calls",
            "refusal" => "content_filter",
            own => own,
        }
    }
}

fn text_of_block(block: &mut Value, name: &str) -> String {
    match block[name].take() {
        Value::String(text) => text,
        _ => String::new(),
    }
}

fn say(name: &str, text: String, ready: &mut VecDeque<Said>) {
    if !text.is_empty() {
        let mut text = Value::String(text);
        unsayable(&mut text);
        push(name, text, ready);
    }
}

fn push(name: &str, value: Value, ready: &mut VecDeque<Said>) {
    let mut delta = Map::new();
    delta.insert(name.to_owned(), value);
    ready.push_back(Said::Delta(delta));
}
