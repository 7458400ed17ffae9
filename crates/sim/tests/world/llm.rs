use futures_util::StreamExt;
use serde_json::{Value, json};
use sim::{Reply, Step};

use crate::{ask, chunks, events, http, said, soon, world};

#[tokio::test]
async fn a_stream_says_the_same_as_the_whole_answer() {
    let world = world().await;

    let whole: Value = ask(&world, "sim", json!({})).await.json().await.unwrap();
    let more = json!({"stream": true, "stream_options": {"include_usage": true}});
    let stream = ask(&world, "sim", more).await.text().await.unwrap();

    let chunks = chunks(&stream);
    assert_eq!(
        said(&chunks),
        whole["choices"][0]["message"]["content"].as_str().unwrap()
    );
    assert_eq!(chunks.last().unwrap()["usage"], whole["usage"]);
    assert!(said(&chunks).contains("learn to sail"), "{}", said(&chunks));
}

#[tokio::test]
async fn a_stream_has_every_part_openai_sends() {
    let world = world().await;

    let more = json!({"stream": true, "stream_options": {"include_usage": true}});
    let response = ask(&world, "sim", more).await;

    assert_eq!(
        response.headers()["content-type"],
        "text/event-stream; charset=utf-8"
    );
    assert!(response.headers().contains_key("x-request-id"));
    let body = response.text().await.unwrap();
    assert!(body.ends_with("data: [DONE]\n\n"));
    let chunks = chunks(&body);
    let [first, .., finish, usage] = &chunks[..] else {
        panic!("too short")
    };
    assert_eq!(
        first["choices"][0]["delta"],
        json!({"role": "assistant", "content": "", "refusal": null})
    );
    assert_eq!(finish["choices"][0]["finish_reason"], "stop");
    assert_eq!(finish["choices"][0]["delta"], json!({}));
    assert_eq!(usage["choices"], json!([]));
    assert!(usage["usage"]["total_tokens"].as_u64().unwrap() > 10);
    for chunk in &chunks {
        assert_eq!(chunk["object"], "chat.completion.chunk");
        assert_eq!(
            (&chunk["id"], &chunk["model"]),
            (&first["id"], &json!("sim"))
        );
        assert!(chunk["obfuscation"].is_string() && chunk.get("usage").is_some());
    }
    assert!(
        chunks[..chunks.len() - 1]
            .iter()
            .all(|chunk| chunk["usage"].is_null())
    );
}

#[tokio::test]
async fn without_include_usage_no_chunk_speaks_of_it() {
    let world = world().await;

    let more = json!({"stream": true, "stream_options": {"include_obfuscation": false}});
    let body = ask(&world, "sim", more).await.text().await.unwrap();

    let chunks = chunks(&body);
    assert!(
        chunks
            .iter()
            .all(|chunk| chunk.get("usage").is_none() && chunk.get("obfuscation").is_none())
    );
    assert!(chunks.iter().all(|chunk| chunk["choices"][0].is_object()));
}

#[tokio::test]
async fn a_limit_of_tokens_ends_the_answer_with_length() {
    let world = world().await;

    let body: Value = ask(&world, "sim", json!({"max_tokens": 7}))
        .await
        .json()
        .await
        .unwrap();
    let newer: Value = ask(&world, "sim", json!({"max_completion_tokens": 7}))
        .await
        .json()
        .await
        .unwrap();

    assert_eq!(body["usage"]["completion_tokens"], 7);
    assert_eq!(body["choices"][0]["finish_reason"], "length");
    assert_eq!(body["choices"], newer["choices"]);
}

#[tokio::test]
async fn a_stop_word_is_where_the_answer_ends() {
    let world = world().await;
    world.llm().script([Reply::text("One, two, three.")]);

    let body: Value = ask(&world, "sim", json!({"stop": [" three", "four"]}))
        .await
        .json()
        .await
        .unwrap();

    assert_eq!(body["choices"][0]["message"]["content"], "One, two,");
    assert_eq!(body["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn a_future_self_knows_the_hopes_and_the_fears() {
    let world = world().await;
    let system = "You are the user's future self, 10 years from now.\nHopes: a house by the sea\nFears:\n- losing touch with friends.\nSpeak with wisdom.";

    let messages = json!([{"role": "system", "content": system}, {"role": "user", "content": "Did we make it?"}]);
    let body: Value = ask(&world, "sim", json!({"messages": messages}))
        .await
        .json()
        .await
        .unwrap();

    let text = body["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(
        text.contains("a house by the sea") && text.contains("losing touch with friends"),
        "{text}"
    );
}

#[tokio::test]
async fn a_forced_tool_is_called_with_what_its_schema_requires() {
    let world = world().await;
    let parameters = json!({
        "type": "object",
        "properties": {
            "place": {"type": "string", "maxLength": 12},
            "days": {"type": "integer", "minimum": 3},
            "unit": {"enum": ["celsius", "fahrenheit"]},
            "note": {"type": "string"},
        },
        "required": ["place", "days", "unit"],
    });
    let tools = json!([{"type": "function", "function": {"name": "get_weather", "parameters": parameters}}]);
    let more = |stream| json!({"tools": tools, "tool_choice": "required", "stream": stream});

    let whole: Value = ask(&world, "sim", more(false)).await.json().await.unwrap();
    let stream = ask(&world, "sim", more(true)).await.text().await.unwrap();

    let choice = &whole["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(choice["message"]["content"], Value::Null);
    let call = &choice["message"]["tool_calls"][0]["function"];
    assert_eq!(call["name"], "get_weather");
    let arguments: Value = serde_json::from_str(call["arguments"].as_str().unwrap()).unwrap();
    assert_eq!(
        arguments,
        json!({"place": "learn to sai", "days": 3, "unit": "celsius"})
    );
    let chunks = chunks(&stream);
    let deltas = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["tool_calls"].get(0));
    let deltas: Vec<_> = deltas.collect();
    assert_eq!(deltas[0]["function"]["name"], "get_weather");
    assert!(deltas.iter().all(|delta| delta["index"] == 0));
    let streamed: String = deltas
        .iter()
        .filter_map(|delta| delta["function"]["arguments"].as_str())
        .collect();
    assert_eq!(call["arguments"], streamed);
}

#[tokio::test]
async fn a_tool_is_left_alone_until_the_text_asks_for_it() {
    let world = world().await;
    let tools = json!([{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}]);
    let asking = json!([{"role": "user", "content": "Please get weather for Rome"}]);
    let answered = json!([
        {"role": "user", "content": "Please get weather for Rome"},
        {"role": "assistant", "content": null, "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny, 24 degrees"},
    ]);

    let unasked: Value = ask(&world, "sim", json!({"tools": tools}))
        .await
        .json()
        .await
        .unwrap();
    let asked: Value = ask(&world, "sim", json!({"tools": tools, "messages": asking}))
        .await
        .json()
        .await
        .unwrap();
    let after: Value = ask(&world, "sim", json!({"tools": tools, "messages": answered}))
        .await
        .json()
        .await
        .unwrap();

    assert_eq!(unasked["choices"][0]["finish_reason"], "stop");
    assert_eq!(
        asked["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"],
        "{}"
    );
    assert!(
        after["choices"][0]["message"]["content"]
            .as_str()
            .unwrap()
            .contains("sunny, 24 degrees")
    );
}

#[tokio::test]
async fn structured_output_fits_its_schema() {
    let world = world().await;
    let schema = json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 40},
            "born": {"type": "string", "format": "date"},
            "score": {"type": "number", "exclusiveMinimum": 0, "maximum": 0.5},
            "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "minItems": 2},
            "parent": {"anyOf": [{"type": "null"}, {"type": "boolean"}]},
        },
        "required": ["name", "born", "score", "tags", "parent"],
        "$defs": {"tag": {"type": ["string", "null"], "enum": ["a", "b"]}},
    });
    let format =
        json!({"type": "json_schema", "json_schema": {"name": "person", "schema": schema}});

    let body: Value = ask(&world, "sim", json!({"response_format": format}))
        .await
        .json()
        .await
        .unwrap();
    let plain = json!({"response_format": {"type": "json_object"}});
    let object: Value = ask(&world, "sim", plain).await.json().await.unwrap();

    let text = body["choices"][0]["message"]["content"].as_str().unwrap();
    let person: Value = serde_json::from_str(text).unwrap();
    assert!(person["name"].as_str().unwrap().len() >= 40);
    assert_eq!(person["born"], "2027-01-01");
    assert!(
        person["score"]
            .as_f64()
            .is_some_and(|score| score > 0.0 && score <= 0.5),
        "{person}"
    );
    assert_eq!(
        (&person["tags"], &person["parent"]),
        (&json!(["a", "a"]), &json!(false))
    );
    let text = object["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(serde_json::from_str::<Value>(text).unwrap().is_object());
}

#[tokio::test]
async fn embeddings_are_unit_vectors_that_know_what_is_alike() {
    let world = world().await;
    let input = [
        "A cat on the roof",
        "The cat on a roof",
        "Quarterly tax report",
    ];
    let embed = async |more: Value| -> Value {
        let mut body = json!({"model": "text-embedding-3-small", "input": input});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let url = format!("{}/embeddings", world.llm_url());
        http()
            .post(url)
            .bearer_auth("sk")
            .json(&body)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap()
    };

    let body = embed(json!({})).await;
    let again = embed(json!({})).await;
    let small = embed(json!({"dimensions": 8, "encoding_format": "base64"})).await;

    let vector = |at: usize| -> Vec<f64> {
        serde_json::from_value(body["data"][at]["embedding"].clone()).unwrap()
    };
    let dot =
        |a: usize, b: usize| -> f64 { vector(a).iter().zip(vector(b)).map(|(x, y)| x * y).sum() };
    assert_eq!(vector(0).len(), 1536);
    assert!((dot(0, 0) - 1.0).abs() < 1e-3);
    assert!(dot(0, 1) > 0.5 && dot(0, 2) < 0.3);
    assert_eq!(body, again);
    // 8 floats of 4 bytes are 44 letters.
    assert_eq!(small["data"][2]["embedding"].as_str().unwrap().len(), 44);
}

#[tokio::test]
async fn models_are_listed_one_by_one_and_all() {
    let world = world().await;
    let get = async |path: &str| {
        http()
            .get(format!("{}{path}", world.llm_url()))
            .bearer_auth("sk")
            .send()
            .await
            .unwrap()
    };

    let all: Value = get("/models").await.json().await.unwrap();
    let one: Value = get("/models/sim-slow-5").await.json().await.unwrap();
    let unknown = get("/models/sim-teapot").await;
    let elsewhere = get("/assistants").await;

    let ids: Vec<_> = all["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| model["id"].as_str().unwrap())
        .collect();
    assert!(ids.contains(&"sim") && ids.contains(&"sim-cut-5"));
    assert_eq!(
        (&one["id"], &one["object"]),
        (&json!("sim-slow-5"), &json!("model"))
    );
    assert_eq!(
        (unknown.status(), elsewhere.status()),
        (404.try_into().unwrap(), 404.try_into().unwrap())
    );
}

#[tokio::test]
async fn a_script_answers_the_next_calls_and_then_the_model_is_itself_again() {
    let world = world().await;
    world.llm().script([
        Reply::text("Exactly this."),
        Reply::Status {
            status: 429,
            headers: vec![("retry-after-ms".into(), "20".into())],
            body: json!({"error": {"message": "slow down"}}).to_string(),
        },
        Reply::Stream(vec![
            Step::send(": hello\n\ndata: {}"),
            Step::send("\n\n"),
            Step::Cut,
        ]),
        Reply::model("sim-tokens-3"),
    ]);

    let text: Value = ask(&world, "gpt-5", json!({})).await.json().await.unwrap();
    let status = ask(&world, "gpt-5", json!({})).await;
    let mut stream = ask(&world, "gpt-5", json!({})).await.bytes_stream();
    let knob: Value = ask(&world, "gpt-5", json!({})).await.json().await.unwrap();
    let itself: Value = ask(&world, "gpt-5", json!({})).await.json().await.unwrap();

    assert_eq!(text["choices"][0]["message"]["content"], "Exactly this.");
    assert_eq!(
        (
            status.status().as_u16(),
            &status.headers()["retry-after-ms"]
        ),
        (429, &"20".parse().unwrap())
    );
    let mut bytes = Vec::new();
    let mut cut = false;
    while let Some(part) = stream.next().await {
        match part {
            Ok(part) => bytes.extend_from_slice(&part),
            Err(_) => cut = true,
        }
    }
    assert_eq!(
        (bytes.as_slice(), cut),
        (&b": hello\n\ndata: {}\n\n"[..], true)
    );
    assert_eq!(
        (&knob["model"], &knob["usage"]["completion_tokens"]),
        (&json!("gpt-5"), &json!(3))
    );
    assert!(itself["usage"]["completion_tokens"].as_u64().unwrap() > 10);
}

#[tokio::test]
async fn every_call_is_remembered_with_how_it_ended() {
    let world = world().await;

    ask(&world, "sim", json!({"temperature": 0.5}))
        .await
        .text()
        .await
        .unwrap();
    let mut stream = ask(&world, "sim-gap-20", json!({"stream": true}))
        .await
        .bytes_stream();
    stream.next().await.unwrap().unwrap();
    let running = world.llm().open_streams();
    drop(stream);
    let calls = soon(
        world
            .llm()
            .until(|calls| calls.iter().any(|call| call.closed_early)),
    )
    .await;

    assert_eq!(running, 1);
    assert_eq!((world.llm().count(), world.llm().open_streams()), (2, 0));
    assert_eq!(
        (calls[0].finished, calls[0].closed_early, calls[0].stream),
        (true, false, false)
    );
    assert_eq!(calls[0].body["temperature"], 0.5);
    assert_eq!(calls[0].key.as_deref(), Some("sk-any"));
    assert_eq!(
        (calls[1].finished, calls[1].closed_early, calls[1].stream),
        (false, true, true)
    );
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_is_noticed_too() {
    let world = world().await;

    for model in ["sim-hang", "sim-slow-60000", "sim-gap-60000", "sim-stall-2"] {
        let stream = model == "sim-stall-2";
        let asking = ask(&world, model, json!({ "stream": stream }));
        let asking = async move {
            let mut body = asking.await.bytes_stream();
            while body.next().await.is_some() {}
        };
        let begun = world.llm().count();
        tokio::select! {
            () = asking => panic!("{model} answered"),
            _ = soon(world.llm().until(|calls| calls.len() as u64 > begun)) => {}
        }
        soon(
            world
                .llm()
                .until(|calls| calls.last().unwrap().closed_early),
        )
        .await;
        assert_eq!(world.llm().open_streams(), 0);
    }
}

#[tokio::test]
async fn a_natural_pace_sends_the_words_one_by_one() {
    let world = sim::start(sim::Options::default()).await.unwrap();

    let mut body = ask(&world, "sim-tokens-12", json!({"stream": true}))
        .await
        .bytes_stream();
    let mut parts = 0;
    while body.next().await.transpose().unwrap().is_some() {
        parts += 1;
    }

    assert!(parts >= 5, "{parts} parts");
}

#[tokio::test]
async fn what_the_user_said_twice_is_answered_twice_the_same() {
    let world = world().await;

    let first = ask(&world, "sim", json!({"stream": true}))
        .await
        .text()
        .await
        .unwrap();
    let second = ask(&world, "sim", json!({"stream": true}))
        .await
        .text()
        .await
        .unwrap();

    assert_eq!(said(&chunks(&first)), said(&chunks(&second)));
    assert_eq!(events(&first).len(), events(&second).len());
}
