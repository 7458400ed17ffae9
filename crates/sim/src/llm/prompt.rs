//! What a request asks for.

use serde_json::Value;

use super::refusal::Error;
use super::tokens;

pub struct Prompt {
    /// All system and developer messages.
    pub system: String,
    /// The newest message of the user.
    pub user: String,
    /// What a tool answered, when that is the newest message.
    pub tool_answer: Option<String>,
    pub tokens: usize,
    pub max_tokens: Option<usize>,
    pub stop: Vec<String>,
    /// The tool that has to be called, or that the text asks for.
    pub tool: Option<Tool>,
    pub format: Format,
    pub stream: bool,
    pub include_usage: bool,
    pub obfuscation: bool,
}

pub struct Tool {
    pub name: String,
    pub parameters: Value,
}

pub enum Format {
    Text,
    JsonObject,
    JsonSchema(Value),
}

/// Around each message, and for the answer's beginning, as OpenAI counts them.
const TOKENS_PER_MESSAGE: usize = 3;
const TOKENS_OF_IMAGE: usize = 85;

impl Prompt {
    pub fn read(body: &Value) -> Result<Self, Error> {
        let messages = match &body["messages"] {
            Value::Null => {
                let message = "Missing required parameter: 'messages'.";
                return Err(Error::invalid(
                    "messages",
                    "missing_required_parameter",
                    message,
                ));
            }
            Value::Array(messages) if !messages.is_empty() => messages,
            Value::Array(_) => {
                let message = "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.";
                return Err(Error::invalid("messages", "empty_array", message));
            }
            _ => {
                let message = "Invalid type for 'messages': expected an array of objects.";
                return Err(Error::invalid("messages", "invalid_type", message));
            }
        };
        if body["n"].as_u64().is_some_and(|n| n != 1) {
            let message = "Invalid value for 'n': the simulation gives one answer.";
            return Err(Error::invalid("n", "invalid_value", message));
        }

        let of_role = |roles: &[&str]| {
            let fits =
                |message: &&Value| roles.contains(&message["role"].as_str().unwrap_or_default());
            messages
                .iter()
                .filter(fits)
                .map(|message| text(&message["content"]))
                .collect::<Vec<_>>()
        };
        let user = of_role(&["user"]).pop().unwrap_or_default();
        let newest = messages.last().filter(|message| message["role"] == "tool");
        let tool_answer = newest.map(|message| text(&message["content"]));
        let options = &body["stream_options"];

        Ok(Self {
            system: of_role(&["system", "developer"]).join("\n"),
            tool: tool(body, &user, tool_answer.is_some())?,
            user,
            tool_answer,
            tokens: count(messages, &body["tools"]),
            max_tokens: max_tokens(body)?,
            stop: match &body["stop"] {
                Value::String(stop) if !stop.is_empty() => vec![stop.clone()],
                Value::Array(stops) => stops
                    .iter()
                    .filter_map(Value::as_str)
                    .filter(|stop| !stop.is_empty())
                    .map(String::from)
                    .collect(),
                _ => Vec::new(),
            },
            format: match body["response_format"]["type"].as_str() {
                Some("json_object") => Format::JsonObject,
                Some("json_schema") => {
                    Format::JsonSchema(body["response_format"]["json_schema"]["schema"].clone())
                }
                _ => Format::Text,
            },
            stream: body["stream"].as_bool().unwrap_or_default(),
            include_usage: options["include_usage"].as_bool().unwrap_or_default(),
            obfuscation: options["include_obfuscation"].as_bool().unwrap_or(true),
        })
    }
}

/// The newest message of the user.
pub fn question(body: &Value) -> String {
    let messages = body["messages"].as_array().map(Vec::as_slice);
    let mut messages = messages.unwrap_or_default().iter();
    let newest = messages.rfind(|message| message["role"] == "user");
    newest.map_or_else(String::new, |message| text(&message["content"]))
}

/// Of a message: a string, or parts of which some are text.
fn text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let texts = parts.iter().filter_map(|part| part["text"].as_str());
            texts.collect::<Vec<_>>().join(" ")
        }
        _ => String::new(),
    }
}

fn count(messages: &[Value], tools: &Value) -> usize {
    let of_message = |message: &Value| {
        let calls = message["tool_calls"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let arguments = calls
            .iter()
            .filter_map(|call| call["function"]["arguments"].as_str());
        let parts = message["content"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let images = parts
            .iter()
            .filter(|part| part["type"] == "image_url")
            .count();
        TOKENS_PER_MESSAGE
            + tokens::count(message["role"].as_str().unwrap_or_default())
            + tokens::count(&text(&message["content"]))
            + arguments.map(tokens::count).sum::<usize>()
            + images * TOKENS_OF_IMAGE
    };
    let tools = if tools.is_null() {
        0
    } else {
        tokens::count(&tools.to_string())
    };
    messages.iter().map(of_message).sum::<usize>() + TOKENS_PER_MESSAGE + tools
}

fn max_tokens(body: &Value) -> Result<Option<usize>, Error> {
    for param in ["max_completion_tokens", "max_tokens"] {
        match &body[param] {
            Value::Null => {}
            value => match value.as_u64().and_then(|max| usize::try_from(max).ok()) {
                Some(max) if max > 0 => return Ok(Some(max)),
                _ => {
                    let message = format!("Invalid '{param}': expected an integer of at least 1.");
                    return Err(Error::invalid(param, "integer_below_min_value", message));
                }
            },
        }
    }
    Ok(None)
}

/// A forced tool is called; with `auto`, one whose name stands in the user's text. After a tool has
/// answered, `auto` leads to prose.
fn tool(body: &Value, user: &str, answered: bool) -> Result<Option<Tool>, Error> {
    let tools = body["tools"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let choice = &body["tool_choice"];
    let name_of = |tool: &Value| {
        tool["function"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };

    let chosen = match (choice.as_str(), choice["function"]["name"].as_str()) {
        (Some("none"), _) => None,
        (Some("required"), _) => tools.first(),
        (_, Some(name)) => {
            let found = tools.iter().find(|tool| name_of(tool) == name);
            if found.is_none() {
                let message = format!("Tool choice '{name}' not found in 'tools' parameter.");
                return Err(Error::invalid("tool_choice", "invalid_value", message));
            }
            found
        }
        _ if answered => None,
        _ => {
            let user = user.to_lowercase();
            let asked = |tool: &&Value| {
                let name = name_of(tool).to_lowercase();
                user.contains(&name) || user.contains(&name.replace('_', " "))
            };
            tools.iter().find(asked)
        }
    };
    Ok(chosen.map(|tool| Tool {
        name: name_of(tool),
        parameters: tool["function"]["parameters"].clone(),
    }))
}
