//! OpenAI's chat completions, as OpenAI, Gemini's compatible endpoint and many others speak them.
//!
//! Their words differ (indexes and ids left out, errors as lists), so chunks are read loosely. What
//! is not loose is the end: without a `finish_reason` an answer is not finished, however politely
//! the connection was closed.
//! <https://platform.openai.com/docs/api-reference/chat-streaming>, <https://ai.google.dev/gemini-api/docs/openai>
use super::{Broken, Provider, Said, Usage, unsayable};
use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap};
use serde_json::{Map, Value};
use std::{borrow::Cow, collections::VecDeque};
use uuid::Uuid;

/// Members that Gemini does not know, and refuses a request for.
const UNKNOWN_TO_GEMINI: [&str; 7] = [
    "logit_bias",
    "metadata",
    "modalities",
    "prediction",
    "prompt_cache_key",
    "service_tier",
    "verbosity",
];

/// The request as this provider wants it, without a copy of what was asked.
pub fn request(given: &Map<String, Value>, provider: Provider, model: &str) -> Vec<u8> {
    let request = Request {
        given,
        provider,
        model,
    };
    // Writing JSON to memory does not fail.
    serde_json::to_vec(&request).unwrap_or_default()
}

struct Request<'a> {
    given: &'a Map<String, Value>,
    provider: Provider,
    model: &'a str,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

impl Serialize for Request<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let thinks = self.provider == Provider::OpenAi && thinks(self.model);
        let mut request = serializer.serialize_map(None)?;
        request.serialize_entry("model", self.model)?;
        request.serialize_entry("stream", &true)?;
        let options = StreamOptions {
            include_usage: true,
        };
        request.serialize_entry("stream_options", &options)?;
        for (name, value) in self.given {
            let name = match name.as_str() {
                "model" | "stream" | "stream_options" => continue,
                // They take no other temperature than their own, and a word of their own for this.
                "temperature" if thinks && value.as_f64() != Some(1.0) => continue,
                "max_tokens" if thinks => "max_completion_tokens",
                name if self.provider == Provider::Gemini && UNKNOWN_TO_GEMINI.contains(&name) => {
                    continue;
                }
                name => name,
            };
            request.serialize_entry(name, value)?;
        }
        request.end()
    }
}

/// Whether it is one of OpenAI's models that think first.
fn thinks(model: &str) -> bool {
    let begins = |with: &[&str]| with.iter().any(|begin| model.starts_with(begin));
    begins(&["o1", "o3", "o4", "gpt-5"]) && !model.contains("chat")
}

#[derive(Deserialize)]
struct Chunk<'a> {
    error: Option<Value>,
    #[serde(borrow)]
    choices: Option<Vec<Choice<'a>>>,
    usage: Option<Value>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    index: Option<u64>,
    delta: Option<Map<String, Value>>,
    #[serde(borrow)]
    finish_reason: Option<Cow<'a, str>>,
}

/// Where a stream is.
#[derive(Default)]
pub struct Reader {
    /// The index and the id that each call of a tool came with.
    calls: Vec<(Option<Value>, String)>,
    pub finished: bool,
    pub done: bool,
}

impl Reader {
    /// Reads one event.
    pub fn take(&mut self, event: &[u8], ready: &mut VecDeque<Said>) -> Result<(), Broken> {
        if event == b"[DONE]" {
            self.done = true;
            // [DONE] alone is no end: some servers say it after giving up.
            return if self.finished {
                Ok(())
            } else {
                Err(Broken::cut("done_unfinished"))
            };
        }
        let chunk: Chunk<'_> =
            serde_json::from_slice(event).map_err(|_| Broken::cut("malformed"))?;
        if let Some(error) = chunk.error {
            return Err(Broken::said(&error));
        }
        let choices = chunk.choices.into_iter().flatten();
        for choice in choices.filter(|choice| choice.index.unwrap_or(0) == 0) {
            if let Some(delta) = choice.delta.and_then(|delta| self.delta(delta)) {
                ready.push_back(Said::Delta(delta));
            }
            let reason = choice.finish_reason.as_deref().unwrap_or_default();
            if !reason.is_empty() && !self.finished {
                // Gemini stops when it calls.
                let calls = reason == "stop" && !self.calls.is_empty();
                let reason = if calls { "tool_calls" } else { reason };
                ready.push_back(Said::Finish(reason.to_owned()));
                self.finished = true;
            }
        }
        if let Some(usage) = chunk.usage.filter(Value::is_object) {
            ready.push_back(Said::Usage(usage_of(&usage)));
        }
        Ok(())
    }

    /// What a delta says, when it says anything.
    fn delta(&mut self, mut delta: Map<String, Value>) -> Option<Map<String, Value>> {
        delta.retain(|name, value| name != "role" && !value.is_null() && value != "");
        delta.values_mut().for_each(unsayable);
        if let Some(Value::Array(pieces)) = delta.get_mut("tool_calls") {
            for piece in pieces.iter_mut().filter_map(Value::as_object_mut) {
                self.index(piece);
            }
        }
        (!delta.is_empty()).then_some(delta)
    }

    /// Gives a piece the index of its call. Some servers leave it out, or give all calls the same,
    /// and send calls whole: what has an id or a name of its own begins a call there.
    fn index(&mut self, piece: &mut Map<String, Value>) {
        let word = |value: Option<&Value>| {
            let word = value.and_then(Value::as_str);
            word.unwrap_or_default().to_owned()
        };
        let (index, id) = (piece.get("index").cloned(), word(piece.get("id")));
        let named = !word(
            piece
                .get("function")
                .and_then(|function| function.get("name")),
        )
        .is_empty();
        let index = index.filter(Value::is_number);
        let goes_on = self.calls.iter().rposition(|(of, known)| {
            *of == index && (id.is_empty() || id == *known) && (index.is_some() || !named)
        });
        let at = goes_on.unwrap_or_else(|| {
            let id = match id.as_str() {
                "" => format!("call_{}", Uuid::new_v4().simple()),
                id => id.to_owned(),
            };
            piece.insert("id".into(), id.clone().into());
            piece
                .entry("type")
                .or_insert_with(|| Value::from("function"));
            self.calls.push((index, id));
            self.calls.len() - 1
        });
        piece.insert("index".into(), at.into());
    }
}

/// Tokens, of which Gemini does not count its thoughts among those it answered with.
pub fn usage_of(usage: &Value) -> Usage {
    let count = |pointer: &str| {
        let count = usage.pointer(pointer).and_then(Value::as_f64);
        count.unwrap_or(0.0).clamp(0.0, f64::from(i32::MAX)) as i64
    };
    let (input, answered) = (count("/prompt_tokens"), count("/completion_tokens"));
    let thoughts = (count("/total_tokens") - input - answered).max(0);
    Usage {
        input,
        output: answered + thoughts,
        cached: count("/prompt_tokens_details/cached_tokens").min(input),
        reasoning: count("/completion_tokens_details/reasoning_tokens")
            .max(thoughts)
            .min(answered + thoughts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(chunks: &[Value]) -> Vec<Said> {
        let (mut reader, mut ready) = (Reader::default(), VecDeque::new());
        for chunk in chunks {
            let taken = reader.take(chunk.to_string().as_bytes(), &mut ready);
            assert!(taken.is_ok(), "{chunk}");
        }
        ready.into()
    }

    fn delta(delta: Value) -> Value {
        json!({"choices": [{"delta": delta}]})
    }

    /// Invariant 22.

    #[test]

    fn what_is_not_known_is_let_be_and_what_is_missing_is_not_missed() {
        let said = read(&[
            json!({"x_groq": {"id": 1}, "choices": null}),
            json!({"choices": [], "usage": null}),
            delta(json!({"role": "oracle", "content": ""})),
            json!({"id": 7, "created": 1e30, "object": "other", "choices": [{"index": 0, "delta": {"content": "Half", "novelty": true}, "finish_reason": "", "logprobs": 3}], "error": null}),
            json!({"choices": [{"index": 1, "delta": {"content": "another's"}}]}),
            json!({"choices": [{"finish_reason": "because"}]}),
            json!({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4.0}}),
        ]);

        let heard = json!({"content": "Half", "novelty": true});
        let usage = Usage {
            input: 3,
            output: 4,
            ..Usage::default()
        };
        assert_eq!(
            said,
            [
                Said::Delta(heard.as_object().unwrap().clone()),
                Said::Finish("because".into()),
                Said::Usage(usage)
            ]
        );
    }

    #[test]
    fn calls_without_index_or_id_get_them_and_stopping_for_them_is_said() {
        let call = |name: &str| json!({"function": {"name": name, "arguments": "{}"}, "extra_content": {"google": {"thought_signature": "abc"}}});
        let said = read(&[
            delta(json!({"tool_calls": [call("a"), call("b")]})),
            delta(
                json!({"tool_calls": [{"index": 0, "id": "x", "function": {"name": "c", "arguments": ""}}, {"index": 0, "id": "y", "function": {"name": "d", "arguments": ""}}]}),
            ),
            delta(json!({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]})),
            json!({"choices": [{"finish_reason": "stop"}]}),
        ]);

        let mut pieces = vec![];
        for said in &said {
            if let Said::Delta(delta) = said {
                pieces.extend(delta["tool_calls"].as_array().unwrap().clone());
            }
        }
        let indexes: Vec<_> = pieces
            .iter()
            .map(|piece| piece["index"].as_u64().unwrap())
            .collect();
        assert_eq!(indexes, [0, 1, 2, 3, 3]);
        assert!(
            pieces[..4]
                .iter()
                .all(|piece| piece["id"].is_string() && piece["type"] == "function")
        );
        assert_eq!(
            pieces[0]["extra_content"]["google"]["thought_signature"],
            "abc"
        );
        assert_eq!(said.last(), Some(&Said::Finish("tool_calls".into())));
    }

    #[test]
    fn geminis_thoughts_are_counted_and_paid_for() {
        let gemini = json!({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 40});
        let openai = json!({"prompt_tokens": 10, "completion_tokens": 30, "total_tokens": 40, "prompt_tokens_details": {"cached_tokens": 8}, "completion_tokens_details": {"reasoning_tokens": 25}});

        let expected = |cached| Usage {
            input: 10,
            output: 30,
            cached,
            reasoning: 25,
        };
        assert_eq!(usage_of(&gemini), expected(0));
        assert_eq!(usage_of(&openai), expected(8));
        assert_eq!(
            usage_of(&json!({"prompt_tokens": -4, "completion_tokens": 1e300})).output,
            i64::from(i32::MAX)
        );
    }

    #[test]
    fn each_is_asked_in_its_own_words() {
        let given = json!({"messages": [], "model": "other", "temperature": 0.7, "max_tokens": 9, "service_tier": "flex", "stream": false});
        let asked = |provider, model| -> Value {
            serde_json::from_slice(&request(given.as_object().unwrap(), provider, model)).unwrap()
        };

        let base = json!({"model": "m", "stream": true, "stream_options": {"include_usage": true}, "messages": []});
        let with = |model: &str, members: Value| {
            let mut expected = base.clone();
            expected["model"] = model.into();
            expected
                .as_object_mut()
                .unwrap()
                .extend(members.as_object().unwrap().clone());
            expected
        };
        let plain = json!({"temperature": 0.7, "max_tokens": 9, "service_tier": "flex"});
        assert_eq!(asked(Provider::OpenAi, "gpt-4o"), with("gpt-4o", plain));
        assert_eq!(
            asked(Provider::OpenAi, "gpt-5-mini"),
            with(
                "gpt-5-mini",
                json!({"max_completion_tokens": 9, "service_tier": "flex"})
            )
        );
        assert_eq!(
            asked(Provider::Gemini, "gemini-2.5-flash"),
            with(
                "gemini-2.5-flash",
                json!({"temperature": 0.7, "max_tokens": 9})
            )
        );
    }
}
