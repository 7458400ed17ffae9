//! What tells who somebody is, kept from the provider: e-mail addresses, phone numbers, card numbers and
//! IBANs are asked about as `[EMAIL_1]`, and put back where the answer repeats them. What stands for what
//! is known for the length of one answer, in memory alone.
use regex::Regex;
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, sync::LazyLock};

/// What is looked for, in this order: what one has found the next does not see.
static KINDS: LazyLock<[Kind; 4]> = LazyLock::new(|| {
    [
        Kind::new(
            "EMAIL",
            r"[\p{L}\p{N}._%+'-]+@[\p{L}\p{N}-]+(?:\.[\p{L}\p{N}-]+)+",
            |_| true,
        ),
        // ISO 13616: two letters, two check digits, up to 30 more, often in groups of four.
        Kind::new(
            "IBAN",
            r"\b[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b",
            is_iban,
        ),
        Kind::new("CARD", r"\b[0-9](?:[ -]?[0-9]){12,24}\b", is_card),
        // With a country's code, a trunk zero or a bracketed or dashed area code; a bare number is none.
        Kind::new(
            "PHONE",
            r"(?:\+|\b00)[1-9](?:[ ()./-]{0,3}[0-9]){6,13}\b|\(?\b0[1-9][0-9]{1,4}\)?(?:[ /-]{0,3}[0-9]){5,10}\b|(?:\([0-9]{3}\) ?|\b[0-9]{3}[-. ])[0-9]{3}[-. ][0-9]{4}\b",
            |_| true,
        ),
    ]
});

struct Kind {
    name: &'static str,
    pattern: Regex,
    holds: fn(&str) -> bool,
}

impl Kind {
    fn new(name: &'static str, pattern: &str, holds: fn(&str) -> bool) -> Self {
        let pattern = Regex::new(pattern).expect("the pattern is one");
        Self {
            name,
            pattern,
            holds,
        }
    }

    /// Where in a match it is: what stands beside a number, like when a card runs out, may look like more
    /// of it.
    fn extent(&self, text: &str) -> Option<std::ops::Range<usize>> {
        let gaps: Vec<_> = text.match_indices([' ', '-']).map(|(at, _)| at).collect();
        let starts = [0].into_iter().chain(gaps.iter().map(|at| at + 1));
        let ends = || [text.len()].into_iter().chain(gaps.iter().rev().copied());
        let spans = starts.flat_map(|start| ends().map(move |end| start..end));
        spans
            .filter(|span| span.start < span.end)
            .find(|span| (self.holds)(&text[span.clone()]))
    }
}

/// ISO 7812: the check digit of card numbers, by Luhn's formula.
fn is_card(text: &str) -> bool {
    let digits: Vec<_> = text.bytes().rev().filter(u8::is_ascii_digit).collect();
    let sum: u32 = digits
        .iter()
        .enumerate()
        .map(
            |(place, digit)| match (place % 2, u32::from(digit - b'0')) {
                (0, digit) => digit,
                (_, digit) => digit * 2 / 10 + digit * 2 % 10,
            },
        )
        .sum();
    (13..=19).contains(&digits.len()) && sum.is_multiple_of(10)
}

/// ISO 7064, MOD 97-10: letters count from 10, the first four characters stand last.
fn is_iban(text: &str) -> bool {
    let text: Vec<_> = text.bytes().filter(u8::is_ascii_alphanumeric).collect();
    let (head, rest) = text.split_at(text.len().min(4));
    let rest = rest.iter().chain(head);
    let remainder = rest.fold(0u32, |sum, c| match char::from(*c).to_digit(36) {
        Some(digit @ 0..10) => (sum * 10 + digit) % 97,
        letter => (sum * 100 + letter.unwrap_or_default()) % 97,
    });
    (15..=34).contains(&text.len()) && remainder == 1
}

/// What was hidden of one request, and what of its answer is held back.
#[derive(Default)]
pub struct Scrub {
    /// By placeholder.
    hidden: BTreeMap<String, String>,
    /// The end of what came, where it may begin a placeholder: of each text that an answer has.
    held: BTreeMap<Text, String>,
    /// All that a request says, where placeholders may not be words of its own.
    said: String,
}

/// A text that comes in pieces.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Text {
    Member(&'static str),
    /// The arguments of the tool call of this index.
    Arguments(u64),
}

/// The members of OpenAI's `delta` that are text.
const MEMBERS: [&str; 3] = ["content", "reasoning_content", "refusal"];

impl Scrub {
    /// Hides what OpenAI's `messages` say, whoever says it: an answer of before repeats what was put back.
    pub fn of(request: &mut Map<String, Value>) -> Self {
        let messages = request.get_mut("messages").and_then(Value::as_array_mut);
        let mut texts = vec![];
        for message in messages.into_iter().flatten() {
            collect(message, &mut texts);
        }
        Self::hiding(&mut texts)
    }

    /// Hides what texts say of which nothing is put back, or all by the same names.
    pub fn hiding(texts: &mut [&mut String]) -> Self {
        let said: Vec<_> = texts.iter().map(|text| text.as_str()).collect();
        let mut scrub = Self {
            said: said.join("\n"),
            ..Self::default()
        };
        for text in texts {
            **text = scrub.hide(text);
        }
        scrub.said = String::new();
        scrub
    }

    fn hide(&mut self, text: &str) -> String {
        let mut text = text.to_owned();
        // What stands beside a placeholder stands at the edge of a word from then on.
        let mut found = true;
        while found {
            found = false;
            for kind in KINDS.iter() {
                let replace = |captures: &regex::Captures<'_>| {
                    let matched = &captures[0];
                    let Some(span) = kind.extent(matched) else {
                        return matched.to_owned();
                    };
                    found = true;
                    let placeholder = self.placeholder(kind.name, &matched[span.clone()]);
                    [&matched[..span.start], &placeholder, &matched[span.end..]].concat()
                };
                text = kind.pattern.replace_all(&text, replace).into_owned();
            }
        }
        text
    }

    /// The same for the same, and none that the request says by itself.
    fn placeholder(&mut self, kind: &str, what: &str) -> String {
        let known = self.hidden.iter().find(|(placeholder, value)| {
            value.as_str() == what && placeholder[1..].starts_with(kind)
        });
        if let Some((placeholder, _)) = known {
            return placeholder.clone();
        }
        let mut numbers = 1..;
        let free = numbers.find_map(|n: u32| {
            let placeholder = format!("[{kind}_{n}]");
            let taken = self.hidden.contains_key(&placeholder) || self.said.contains(&placeholder);
            (!taken).then_some(placeholder)
        });
        let placeholder = free.unwrap_or_default();
        self.hidden.insert(placeholder.clone(), what.to_owned());
        placeholder
    }

    /// Puts back what a piece of an answer names. What may be the beginning of a placeholder is held until
    /// the next piece.
    pub fn reveal(&mut self, delta: &mut Map<String, Value>) {
        if self.hidden.is_empty() {
            return;
        }
        for member in MEMBERS {
            if let Some(Value::String(text)) = delta.get_mut(member) {
                *text = self.put_back(Text::Member(member), text);
                if text.is_empty() {
                    delta.remove(member);
                }
            }
        }
        let calls = delta.get_mut("tool_calls").and_then(Value::as_array_mut);
        for (place, call) in calls.into_iter().flatten().enumerate() {
            let index = call.get("index").and_then(Value::as_u64);
            let index = index.unwrap_or(place as u64);
            if let Some(Value::String(text)) = call.pointer_mut("/function/arguments") {
                *text = self.put_back(Text::Arguments(index), text);
            }
        }
    }

    /// What is still held at the end, as a last piece.
    pub fn rest(&mut self) -> Option<Map<String, Value>> {
        let mut delta = Map::new();
        for (text, held) in std::mem::take(&mut self.held) {
            match text {
                _ if held.is_empty() => {}
                Text::Member(member) => {
                    delta.insert(member.into(), held.into());
                }
                Text::Arguments(index) => {
                    let calls = delta.entry("tool_calls").or_insert_with(|| json!([]));
                    if let Value::Array(calls) = calls {
                        calls.push(json!({"index": index, "function": {"arguments": held}}));
                    }
                }
            }
        }
        Some(delta).filter(|delta| !delta.is_empty())
    }

    fn put_back(&mut self, text: Text, piece: &str) -> String {
        let mut rest = self.held.remove(&text).unwrap_or_default() + piece;
        let mut whole = String::with_capacity(rest.len());
        while let Some(bracket) = rest.find('[') {
            whole += &rest[..bracket];
            rest.drain(..bracket);
            let named =
                |(placeholder, _): &(&String, &String)| rest.starts_with(placeholder.as_str());
            if let Some((placeholder, value)) = self.hidden.iter().find(named) {
                whole += value;
                rest.drain(..placeholder.len());
            } else if self.hidden.keys().any(|known| known.starts_with(&rest)) {
                self.held.insert(text, rest);
                return whole;
            } else {
                whole.push('[');
                rest.drain(..1);
            }
        }
        whole + &rest
    }
}

/// The texts of a message.
fn collect<'a>(message: &'a mut Value, texts: &mut Vec<&'a mut String>) {
    let Some(message) = message.as_object_mut() else {
        return;
    };
    for (name, value) in message {
        match (name.as_str(), value) {
            ("content", Value::String(text)) => texts.push(text),
            ("content", Value::Array(parts)) => {
                let text = |part: &'a mut Value| match part.get_mut("text") {
                    Some(Value::String(text)) => Some(text),
                    _ => None,
                };
                texts.extend(parts.iter_mut().filter_map(text));
            }
            ("tool_calls", Value::Array(calls)) => {
                for call in calls {
                    if let Some(Value::String(text)) = call.pointer_mut("/function/arguments") {
                        texts.push(text);
                    }
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn asked(text: &str) -> Map<String, Value> {
        let request = json!({"messages": [{"role": "user", "content": text}]});
        request.as_object().unwrap().clone()
    }

    fn shown(request: &Map<String, Value>) -> String {
        request["messages"][0]["content"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// What is told of a text that a model repeats in pieces of this many characters.
    fn repeated(scrub: &mut Scrub, text: &str, size: usize) -> String {
        let chars: Vec<_> = text.chars().collect();
        let mut heard = String::new();
        let mut hear = |delta: &Map<String, Value>| {
            heard += delta
                .get("content")
                .and_then(Value::as_str)
                .unwrap_or_default();
        };
        for piece in chars.chunks(size) {
            let piece: String = piece.iter().collect();
            let mut delta = json!({"content": piece}).as_object().unwrap().clone();
            scrub.reveal(&mut delta);
            hear(&delta);
        }
        if let Some(rest) = scrub.rest() {
            hear(&rest);
        }
        heard
    }

    /// Words, brackets, what looks like a placeholder, and what is hidden.
    fn saying() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            "[a-z \\[\\]_0-9@.+-]{0,12}",
            "\\PC{0,6}",
            Just("[EMAIL_1]".to_owned()),
            Just("[PHONE_".to_owned()),
            "[a-z]{1,8}@[a-z]{1,8}\\.(com|de)",
            Just("+49 30 1234567".to_owned()),
            Just("4111 1111 1111 1111".to_owned()),
            Just("DE89 3704 0044 0532 0130 00".to_owned()),
        ];
        prop::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn what_is_hidden_is_put_back_in_whatever_pieces_it_comes(text in saying(), size in 1..14usize) {
            let mut request = asked(&text);
            let mut scrub = Scrub::of(&mut request);

            let shown = shown(&request);

            let mut again = asked(&shown);
            prop_assert!(Scrub::of(&mut again).hidden.is_empty(), "{shown}");
            prop_assert_eq!(repeated(&mut scrub, &shown, size), text);
        }
    }

    #[test]
    fn what_tells_who_somebody_is_is_hidden_and_nothing_else() {
        for (text, expected) in [
            (
                "Write to ada.l+x@mail.example.com, please.",
                "Write to [EMAIL_1], please.",
            ),
            ("jörg@bücher.example", "[EMAIL_1]"),
            (
                "a@x.de or b@x.de or a@x.de",
                "[EMAIL_1] or [EMAIL_2] or [EMAIL_1]",
            ),
            ("IBAN DE89370400440532013000!", "IBAN [IBAN_1]!"),
            ("GB82 WEST 1234 5698 7654 32", "[IBAN_1]"),
            ("DE88370400440532013000", "DE88370400440532013000"),
            ("4111 1111 1111 1111, 378282246310005", "[CARD_1], [CARD_2]"),
            ("12: 4111 1111 1111 1111 12/28", "12: [CARD_1] 12/28"),
            ("No. 12 4111-1111-1111-1111", "No. 12 [CARD_1]"),
            ("BE68 5390 0754 7034 then", "[IBAN_1] then"),
            ("4111 1111 1111 1112", "4111 1111 1111 1112"),
            ("+49 (30) 123-4567", "[PHONE_1]"),
            ("0151 23456789", "[PHONE_1]"),
            (
                "Call (555) 123-4567 or 555-123-4567",
                "Call [PHONE_1] or [PHONE_2]",
            ),
            (
                "On 2026-11-20 at 09:30 I paid 1,234,567.89 for 12 of 1000000",
                "On 2026-11-20 at 09:30 I paid 1,234,567.89 for 12 of 1000000",
            ),
            ("[EMAIL_1] is a@x.de", "[EMAIL_1] is [EMAIL_2]"),
            ("@ada, look at file.txt", "@ada, look at file.txt"),
        ] {
            let mut request = asked(text);
            Scrub::of(&mut request);
            assert_eq!(shown(&request), expected, "{text}");
        }
    }

    #[test]
    fn parts_history_and_calls_of_tools_are_hidden_too() {
        let mut request = json!({"messages": [
            {"role": "system", "content": "They are a@x.de."},
            {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f", "arguments": "{\"to\":\"b@x.de\"}"}}]},
            {"role": "user", "content": [{"type": "text", "text": "a@x.de"}, {"type": "image_url", "image_url": {"url": "https://x.de/a@x.de"}}]},
            7,
        ]});
        let members = request.as_object_mut().unwrap();

        let mut scrub = Scrub::of(members);

        let messages = &request["messages"];
        assert_eq!(messages[0]["content"], "They are [EMAIL_1].");
        assert_eq!(
            messages[1]["tool_calls"][0]["function"]["arguments"],
            "{\"to\":\"[EMAIL_2]\"}"
        );
        assert_eq!(messages[2]["content"][0]["text"], "[EMAIL_1]");
        assert_eq!(
            messages[2]["content"][1]["image_url"]["url"], "https://x.de/a@x.de",
            "an address of a picture is no address of a person"
        );

        let piece = |arguments: &str| json!({"tool_calls": [{"index": 0, "function": {"arguments": arguments}}]});
        let mut first = piece("{\"to\":\"[EMA").as_object().unwrap().clone();
        let mut second = piece("IL_2]\"}").as_object().unwrap().clone();
        scrub.reveal(&mut first);
        scrub.reveal(&mut second);
        assert_eq!(Value::from(first), piece("{\"to\":\""));
        assert_eq!(Value::from(second), piece("b@x.de\"}"));
        assert_eq!(scrub.rest(), None);
    }
}
