//! OpenAI's request in Anthropic's words.
use super::ANSWER;
use serde_json::{Map, Value, json};

/// Has to be said there.
const USUAL_MAX_TOKENS: i64 = 1024;

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
