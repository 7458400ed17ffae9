//! Anthropic's Messages API, from OpenAI's request and to OpenAI's deltas.
//! <https://docs.anthropic.com/en/api/messages>, <https://docs.anthropic.com/en/api/messages-streaming>
use super::{Broken, Said, Usage, unsayable};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::{borrow::Cow, collections::VecDeque};

pub const VERSION: &str = "2023-06-01";
/// Has to be said there.
const USUAL_MAX_TOKENS: i64 = 1024;
/// The tool through which it is made to answer as a JSON schema wants.
const ANSWER: &str = "answer_as_json";

/// The request in Anthropic's words; or what of it cannot be said there.
pub fn request(given: &Map<String, Value>, model: &str) -> Result<Vec<u8>, String> {
    let max_tokens = ["max_completion_tokens", "max_tokens"]
        .iter()
        .find_map(|name| given.get(*name).and_then(Value::as_i64));
    let mut request = Map::new();
    request.insert("model".into(), model.into());
    request.insert(
        "max_tokens".into(),
        max_tokens.unwrap_or(USUAL_MAX_TOKENS).into(),
    );
    request.insert("stream".into(), true.into());
    let (mut system, messages) = conversation(given)?;
    request.insert("messages".into(), messages.into());
    // What goes to 2 elsewhere goes to 1 here; newer models take one of the two.
    match (number(given, "temperature"), number(given, "top_p")) {
        (Some(temperature), _) => {
            request.insert("temperature".into(), temperature.min(1.0).into());
        }
        (None, Some(top_p)) => {
            request.insert("top_p".into(), top_p.into());
        }
        (None, None) => {}
    }
    let stops = match given.get("stop") {
        Some(Value::String(stop)) => vec![stop.clone()],
        Some(Value::Array(stops)) => stops
            .iter()
            .filter_map(|stop| stop.as_str().map(str::to_owned))
            .collect(),
        _ => vec![],
    };
    let stops: Vec<_> = stops
        .into_iter()
        .filter(|stop| !stop.trim().is_empty())
        .collect();
    if !stops.is_empty() {
        request.insert("stop_sequences".into(), stops.into());
    }
    tools(given, &mut request);
    format(given, &mut request, &mut system);
    if !system.is_empty() {
        request.insert("system".into(), system.into());
    }
    // Writing JSON to memory does not fail.
    Ok(serde_json::to_vec(&request).unwrap_or_default())
}

fn number(given: &Map<String, Value>, name: &str) -> Option<f64> {
    given.get(name).and_then(Value::as_f64)
}

fn text_of(content: Option<&Value>) -> String {
    match content {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            let texts = parts.iter().filter_map(|part| part.get("text")?.as_str());
            texts.collect::<Vec<_>>().join("\n")
        }
        _ => String::new(),
    }
}

/// What the system says, and the turns of the others: each role's messages in a row are one turn,
/// and what tools answered is the user's.
fn conversation(given: &Map<String, Value>) -> Result<(String, Vec<Value>), String> {
    let mut system: Vec<String> = vec![];
    let mut turns: Vec<(&str, Vec<Value>)> = vec![];
    let messages = given.get("messages").and_then(Value::as_array);
    for message in messages.into_iter().flatten() {
        let content = message.get("content");
        let role = message.get("role").and_then(Value::as_str);
        let (role, blocks) = match role.unwrap_or_default() {
            "system" | "developer" => {
                system.push(text_of(content));
                continue;
            }
            "assistant" => ("assistant", assistant(message)),
            "tool" => {
                let answer = json!({
                    "type": "tool_result",
                    "tool_use_id": message.get("tool_call_id").cloned().unwrap_or_default(),
                    "content": text_of(content),
                });
                ("user", vec![answer])
            }
            _ => ("user", user(content)?),
        };
        match turns.last_mut() {
            Some((of, turn)) if *of == role => turn.extend(blocks),
            _ => turns.push((role, blocks)),
        }
    }
    turns.retain(|(_, blocks)| !blocks.is_empty());
    // An answer that was begun must not end in white space.
    if let Some((role, blocks)) = turns.last_mut()
        && *role == "assistant"
        && let Some(Value::String(text)) = blocks.last_mut().and_then(|block| block.get_mut("text"))
    {
        text.truncate(text.trim_end().len());
    }
    system.retain(|text| !text.trim().is_empty());
    let turns = turns
        .into_iter()
        .map(|(role, blocks)| json!({"role": role, "content": blocks}));
    Ok((system.join("\n\n"), turns.collect()))
}

/// An empty text is refused there.
fn text_block(text: &str) -> Option<Value> {
    (!text.trim().is_empty()).then(|| json!({"type": "text", "text": text}))
}

fn assistant(message: &Value) -> Vec<Value> {
    let mut blocks: Vec<_> = text_block(&text_of(message.get("content")))
        .into_iter()
        .collect();
    let calls = message.get("tool_calls").and_then(Value::as_array);
    for call in calls.into_iter().flatten() {
        let arguments = call.pointer("/function/arguments").and_then(Value::as_str);
        let arguments: Option<Value> =
            arguments.and_then(|arguments| serde_json::from_str(arguments).ok());
        blocks.push(json!({
            "type": "tool_use",
            "id": call.get("id").cloned().unwrap_or_default(),
            "name": call.pointer("/function/name").cloned().unwrap_or_default(),
            "input": arguments.filter(Value::is_object).unwrap_or_else(|| json!({})),
        }));
    }
    blocks
}

fn user(content: Option<&Value>) -> Result<Vec<Value>, String> {
    let Some(Value::Array(parts)) = content else {
        return Ok(text_block(&text_of(content)).into_iter().collect());
    };
    let mut blocks = vec![];
    for part in parts {
        let word = |pointer: &str| {
            part.pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        match word("/type") {
            "text" => blocks.extend(text_block(word("/text"))),
            "image_url" => {
                blocks.push(json!({"type": "image", "source": source(word("/image_url/url"))}));
            }
            "file" if word("/file/file_data").starts_with("data:application/pdf") => {
                blocks.push(json!({"type": "document", "source": source(word("/file/file_data"))}));
            }
            other => return Err(format!("this model takes no content of type {other:?}")),
        }
    }
    Ok(blocks)
}

/// `data:` URLs hold the image, others name it.
fn source(url: &str) -> Value {
    let held = url
        .strip_prefix("data:")
        .and_then(|held| held.split_once(";base64,"));
    match held {
        Some((kind, data)) => json!({"type": "base64", "media_type": kind, "data": data}),
        None => json!({"type": "url", "url": url}),
    }
}

fn tools(given: &Map<String, Value>, request: &mut Map<String, Value>) {
    let tools = given.get("tools").and_then(Value::as_array);
    let tools: Vec<_> = tools
        .into_iter()
        .flatten()
        .filter_map(|tool| tool.get("function"))
        .map(|function| {
            let schema = function.get("parameters").filter(|given| given.is_object());
            let mut tool = json!({
                "name": function.get("name").cloned().unwrap_or_default(),
                "input_schema": schema.cloned().unwrap_or_else(|| json!({"type": "object", "properties": {}})),
            });
            if let Some(description) = function.get("description").filter(|given| given.is_string()) {
                tool["description"] = description.clone();
            }
            tool
        })
        .collect();
    if tools.is_empty() {
        return;
    }
    let choice = given.get("tool_choice");
    let mut chosen = match choice.and_then(Value::as_str) {
        Some("none") => json!({"type": "none"}),
        Some("required") => json!({"type": "any"}),
        _ => match choice.and_then(|choice| choice.pointer("/function/name")) {
            Some(name) => json!({"type": "tool", "name": name}),
            None => json!({"type": "auto"}),
        },
    };
    if given.get("parallel_tool_calls") == Some(&Value::Bool(false)) && chosen["type"] != "none" {
        chosen["disable_parallel_tool_use"] = true.into();
    }
    request.insert("tools".into(), tools.into());
    request.insert("tool_choice".into(), chosen);
}

/// There is no `response_format`: a schema becomes a tool that has to be called, whose arguments are
/// the answer; beside other tools, and without a schema, it is asked for in words.
fn format(given: &Map<String, Value>, request: &mut Map<String, Value>, system: &mut String) {
    let Some(format) = given.get("response_format") else {
        return;
    };
    let schema = format.pointer("/json_schema/schema");
    let wanted = match (format.get("type").and_then(Value::as_str), schema) {
        (Some("json_schema"), Some(schema)) if !request.contains_key("tools") => {
            let tool =
                json!({"name": ANSWER, "description": "Gives the answer.", "input_schema": schema});
            request.insert("tools".into(), json!([tool]));
            request.insert(
                "tool_choice".into(),
                json!({"type": "tool", "name": ANSWER}),
            );
            return;
        }
        (Some("json_schema"), Some(schema)) => {
            format!("Answer with JSON alone, without a code fence, that fits this schema: {schema}")
        }
        (Some("json_object" | "json_schema"), _) => {
            "Answer with one JSON object alone, without a code fence.".to_owned()
        }
        _ => return,
    };
    if !system.is_empty() {
        system.push_str("\n\n");
    }
    system.push_str(&wanted);
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(given: Value) -> Value {
        let request = request(given.as_object().unwrap(), "claude-haiku-4-5").unwrap();
        serde_json::from_slice(&request).unwrap()
    }

    fn read(events: &[Value]) -> Vec<Said> {
        let (mut reader, mut ready) = (Reader::default(), VecDeque::new());
        for event in events {
            let taken = reader.take(event.to_string().as_bytes(), &mut ready);
            assert!(taken.is_ok(), "{event}");
        }
        ready.into()
    }

    fn delta(delta: Value) -> Said {
        Said::Delta(delta.as_object().unwrap().clone())
    }

    #[test]
    fn a_conversation_is_said_in_its_words() {
        let asked = asked(json!({
            "model": "gpt-4o", "max_tokens": 50, "temperature": 1.6, "top_p": 0.5, "stop": ["END", " "], "seed": 1, "n": 1,
            "messages": [
                {"role": "system", "content": "Be kind."},
                {"role": "user", "content": [
                    {"type": "text", "text": "Weather here?"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO"}},
                    {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
                ]},
                {"role": "assistant", "content": null, "tool_calls": [
                    {"id": "a", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"Bonn\"}"}},
                    {"id": "b", "type": "function", "function": {"name": "weather", "arguments": "not JSON"}},
                ]},
                {"role": "tool", "tool_call_id": "a", "content": "sunny"},
                {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "rain"}]},
                {"role": "user", "content": "And?"},
                {"role": "developer", "content": "Be short."},
                {"role": "assistant", "content": "It is "},
            ],
            "tools": [{"type": "function", "function": {"name": "weather", "description": "Tells it.", "parameters": {"type": "object"}, "strict": true}}],
            "tool_choice": "required", "parallel_tool_calls": false,
        }));

        assert_eq!(
            asked,
            json!({
                "model": "claude-haiku-4-5", "max_tokens": 50, "stream": true, "temperature": 1.0, "stop_sequences": ["END"],
                "system": "Be kind.\n\nBe short.",
                "messages": [
                    {"role": "user", "content": [
                        {"type": "text", "text": "Weather here?"},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}},
                        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
                    ]},
                    {"role": "assistant", "content": [
                        {"type": "tool_use", "id": "a", "name": "weather", "input": {"city": "Bonn"}},
                        {"type": "tool_use", "id": "b", "name": "weather", "input": {}},
                    ]},
                    {"role": "user", "content": [
                        {"type": "tool_result", "tool_use_id": "a", "content": "sunny"},
                        {"type": "tool_result", "tool_use_id": "b", "content": "rain"},
                        {"type": "text", "text": "And?"},
                    ]},
                    {"role": "assistant", "content": [{"type": "text", "text": "It is"}]},
                ],
                "tools": [{"name": "weather", "description": "Tells it.", "input_schema": {"type": "object"}}],
                "tool_choice": {"type": "any", "disable_parallel_tool_use": true},
            })
        );
    }

    #[test]
    fn choices_of_tools_and_formats_have_their_equivalents() {
        let tools = json!([{"type": "function", "function": {"name": "f"}}]);
        for (choice, expected) in [
            (json!("none"), json!({"type": "none"})),
            (json!("auto"), json!({"type": "auto"})),
            (Value::Null, json!({"type": "auto"})),
            (
                json!({"type": "function", "function": {"name": "f"}}),
                json!({"type": "tool", "name": "f"}),
            ),
        ] {
            let asked = asked(json!({"messages": [], "tools": tools, "tool_choice": choice}));
            assert_eq!(asked["tool_choice"], expected);
            assert_eq!(
                asked["tools"][0]["input_schema"],
                json!({"type": "object", "properties": {}})
            );
            assert_eq!(asked["max_tokens"], 1024);
        }
        let schema = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object", "required": ["a"]}}});
        let asked_so = asked(json!({"messages": [], "response_format": schema}));
        assert_eq!(
            asked_so["tool_choice"],
            json!({"type": "tool", "name": ANSWER})
        );
        assert_eq!(
            asked_so["tools"][0]["input_schema"]["required"],
            json!(["a"])
        );
        for format in [schema, json!({"type": "json_object"})] {
            let system = asked(json!({"messages": [], "tools": tools, "response_format": format}));
            assert!(system["system"].as_str().unwrap().contains("JSON"));
        }
        let audio = json!({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]});
        assert!(
            request(audio.as_object().unwrap(), "claude")
                .unwrap_err()
                .contains("input_audio")
        );
    }

    #[test]
    fn a_stream_is_heard_in_openais_words() {
        let said = read(&[
            json!({"type": "message_start", "message": {"usage": {"input_tokens": 10, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 2, "output_tokens": 1}}}),
            json!({"type": "ping"}),
            json!({"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}}),
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm."}}),
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "x"}}),
            json!({"type": "content_block_stop", "index": 0}),
            json!({"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}}),
            json!({"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Let me \0see."}}),
            json!({"type": "content_block_stop", "index": 1}),
            json!({"type": "content_block_start", "index": 2, "content_block": {"type": "tool_use", "id": "t1", "name": "weather", "input": {}}}),
            json!({"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": ""}}),
            json!({"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": "{\"a\":1}"}}),
            json!({"type": "content_block_stop", "index": 2}),
            json!({"type": "content_block_start", "index": 3, "content_block": {"type": "tool_use", "id": "t2", "name": "time", "input": {}}}),
            json!({"type": "content_block_stop", "index": 3}),
            json!({"type": "novelty"}),
            json!({"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": null}, "usage": {"output_tokens": 15}}),
            json!({"type": "message_stop"}),
        ]);

        let begun = |index: u8, id: &str, name: &str| {
            delta(
                json!({"tool_calls": [{"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": ""}}]}),
            )
        };
        let told = |index: u8, text: &str| {
            delta(json!({"tool_calls": [{"index": index, "function": {"arguments": text}}]}))
        };
        assert_eq!(
            said,
            [
                delta(json!({"reasoning_content": "Hm."})),
                delta(json!({"content": "Let me see."})),
                begun(0, "t1", "weather"),
                told(0, "{\"a\":1}"),
                begun(1, "t2", "time"),
                told(1, "{}"),
                Said::Finish("tool_calls".into()),
                Said::Usage(Usage {
                    input: 17,
                    output: 15,
                    cached: 5,
                    reasoning: 0
                }),
            ]
        );
    }

    #[test]
    fn a_schema_answered_through_the_tool_is_text() {
        let said = read(&[
            json!({"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "id": "t", "name": ANSWER, "input": {}}}),
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": "{\"a\":"}}),
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": "1}"}}),
            json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 3}}),
        ]);

        assert_eq!(
            said[..3],
            [
                delta(json!({"content": "{\"a\":"})),
                delta(json!({"content": "1}"})),
                Said::Finish("stop".into())
            ]
        );
    }

    #[test]
    fn reasons_to_stop_are_openais_and_strange_ones_stay() {
        for (theirs, ours) in [
            ("end_turn", "stop"),
            ("stop_sequence", "stop"),
            ("max_tokens", "length"),
            ("refusal", "content_filter"),
            ("because", "because"),
        ] {
            let said = read(&[json!({"type": "message_delta", "delta": {"stop_reason": theirs}})]);
            assert_eq!(said[0], Said::Finish(ours.into()));
        }
    }
}
