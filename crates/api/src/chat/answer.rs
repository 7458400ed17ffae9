//! What a model said, put together from what came.
use super::llm;
use serde_json::{Map, Value};

/// What came of an answer so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    pub text: String,
    /// What the model thought before it spoke, where its provider shows it.
    pub reasoning: String,
    pub refusal: String,
    /// OpenAI's `tool_calls`, put together.
    pub tool_calls: Vec<Value>,
}

impl Answer {
    /// One of which no more than the text is known.
    pub fn of_text(text: String) -> Self {
        Self {
            text,
            ..Self::default()
        }
    }

    /// Adds OpenAI's `delta`.
    pub fn take(&mut self, delta: &Map<String, Value>) {
        let text = |name: &str| delta.get(name).and_then(Value::as_str).unwrap_or_default();
        self.text += text("content");
        self.reasoning += text("reasoning_content");
        self.refusal += text("refusal");
        for call in delta
            .get("tool_calls")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            self.take_tool_call(call);
        }
    }

    /// A piece goes on with the call of its index. Some servers leave the index out, or give all calls
    /// the same, and send calls whole: what has an id or a name of its own begins a call there.
    fn take_tool_call(&mut self, piece: &Value) {
        fn word<'a>(call: &'a Value, path: &str) -> &'a str {
            call.pointer(path).and_then(Value::as_str).unwrap_or("")
        }
        let (id, index) = (word(piece, "/id"), piece.get("index"));
        let more = word(piece, "/function/arguments");
        let goes_on = |call: &&mut Value| {
            call.get("index") == index
                && (id.is_empty() || id == word(call, "/id"))
                && (index.is_some() || word(piece, "/function/name").is_empty())
        };
        if let Some(call) = self.tool_calls.iter_mut().rev().find(goes_on) {
            if let Some(Value::String(arguments)) = call.pointer_mut("/function/arguments") {
                arguments.push_str(more);
            }
        } else if piece.get("function").is_some_and(Value::is_object) {
            let mut call = piece.clone();
            call["function"]["arguments"] = more.into();
            self.tool_calls.push(call);
        }
    }

    /// Where the provider does not say.
    pub fn estimated_tokens(&self) -> i64 {
        let calls = self.tool_calls.iter().map(Value::to_string);
        let calls = calls.map(|call| llm::estimate_tokens(&call)).sum::<i64>();
        let said = [&self.text, &self.reasoning, &self.refusal];
        let said = said.into_iter().filter(|text| !text.is_empty());
        said.map(|text| llm::estimate_tokens(text)).sum::<i64>() + calls
    }

    pub fn is_empty(&self) -> bool {
        self.text.is_empty() && self.tool_calls.is_empty() && self.refusal.is_empty()
    }

    /// The model's text as OpenAI's `message`.
    pub fn message(&self) -> Value {
        let text = |text: &str| {
            if text.is_empty() {
                Value::Null
            } else {
                text.into()
            }
        };
        let mut message = serde_json::json!({"role": "assistant", "content": text(&self.text), "refusal": text(&self.refusal)});
        if !self.tool_calls.is_empty() {
            let mut calls = self.tool_calls.clone();
            for members in calls.iter_mut().filter_map(Value::as_object_mut) {
                members.remove("index");
            }
            message["tool_calls"] = calls.into();
        }
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn taken(deltas: impl IntoIterator<Item = Value>) -> Answer {
        let mut answer = Answer::default();
        for delta in deltas {
            answer.take(delta.as_object().unwrap());
        }
        answer
    }

    /// A text in pieces, none of them empty.
    fn pieces(text: &str, size: usize) -> Vec<String> {
        let chars: Vec<_> = text.chars().collect();
        chars
            .chunks(size)
            .map(|piece| piece.iter().collect())
            .collect()
    }

    proptest! {
        #[test]
        fn an_answer_is_the_same_in_whatever_pieces_it_came(text in "\\PC{0,60}", arguments in prop::collection::vec("\\PC{1,40}", 0..4), size in 1..9usize) {
            let words = pieces(&text, size).into_iter().map(|piece| json!({"content": piece}));
            let begin = arguments.iter().enumerate().map(|(index, _)| {
                json!({"tool_calls": [{"index": index, "id": format!("call_{index}"), "type": "function", "function": {"name": "f"}}]})
            });
            // As they come from parallel calls: a piece of each in turn.
            let mut parts: Vec<_> = arguments.iter().map(|text| pieces(text, size).into_iter()).collect();
            let mut turns = vec![];
            while parts.iter().any(|left| left.len() > 0) {
                for (index, left) in parts.iter_mut().enumerate() {
                    turns.extend(left.next().map(|piece| json!({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})));
                }
            }

            let answer = taken(words.chain(begin).chain(turns));

            prop_assert_eq!(&answer.text, &text);
            let message = answer.message();
            let calls: Vec<_> = message["tool_calls"].as_array().into_iter().flatten().map(|call| (call["id"].clone(), call["function"]["arguments"].clone())).collect();
            let expected: Vec<_> = arguments.iter().enumerate().map(|(index, text)| (json!(format!("call_{index}")), json!(text))).collect();
            prop_assert_eq!(calls, expected);
        }
    }

    #[test]
    fn a_piece_that_belongs_to_no_call_is_let_go() {
        let answer =
            taken([json!({"tool_calls": [{"index": 3}, 7, {"index": 0, "function": null}]})]);
        assert!(answer.is_empty());
    }

    #[test]
    fn what_is_called_is_estimated_like_what_is_said() {
        let call = json!({"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}});
        assert!(
            taken([json!({"tool_calls": [call]})]).estimated_tokens()
                > taken([]).estimated_tokens()
        );
    }
}
