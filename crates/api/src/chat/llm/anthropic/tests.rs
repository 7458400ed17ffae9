use super::*;
use crate::chat::llm::{Said, Usage};
use serde_json::{Value, json};
use std::collections::VecDeque;

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
