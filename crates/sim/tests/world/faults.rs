use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::{Value, json};
use sim::World;
use sim::faults::{End, Knobs, Refusal};

use crate::{ask, chunks, events, http, soon, world};

/// What arrives before the end, and whether the end was a clean one.
async fn streamed(world: &World, model: &str) -> (String, bool) {
    let mut body = ask(world, model, json!({"stream": true}))
        .await
        .bytes_stream();
    let mut text = Vec::new();
    while let Some(part) = soon(body.next()).await {
        match part {
            Ok(part) => text.extend_from_slice(&part),
            Err(_) => return (String::from_utf8(text).unwrap(), false),
        }
    }
    (String::from_utf8(text).unwrap(), true)
}

#[test]
fn knobs_are_put_together_with_dashes() {
    let knobs = Knobs::of_model("sim-slow-2000-gap-50-tokens-7-cut-5").unwrap();

    let expected = Knobs {
        slow: Duration::from_secs(2),
        gap: Some(Duration::from_millis(50)),
        tokens: Some(7),
        end: Some(End::Cut(5)),
        ..Knobs::default()
    };
    assert_eq!(knobs, expected);
    assert_eq!(
        Knobs::of_model("sim-html-502").unwrap().refusal,
        Some(Refusal::BadGateway)
    );
    for plain in ["sim", "gpt-5-cut-5", "simple", ""] {
        assert_eq!(Knobs::of_model(plain), Some(Knobs::default()), "{plain}");
    }
    for wrong in [
        "sim-",
        "sim-teapot",
        "sim-slow",
        "sim-slow-x",
        "sim-cut--1",
        "sim-html-500",
        "sim-429-",
    ] {
        assert_eq!(Knobs::of_model(wrong), None, "{wrong}");
    }
}

#[test]
fn every_advertised_knob_exists() {
    for (name, _) in sim::faults::KNOBS {
        assert!(Knobs::of_model(name).is_some(), "{name}");
    }
}

#[tokio::test]
async fn refusals_have_openai_s_four_keys() {
    let world = world().await;

    for (model, status, code) in [
        ("sim-429", 429, json!("rate_limit_exceeded")),
        ("sim-retry-30", 429, json!("rate_limit_exceeded")),
        ("sim-402", 402, json!("billing_not_active")),
        (
            "sim-403",
            403,
            json!("unsupported_country_region_territory"),
        ),
        ("sim-404", 404, json!("model_not_found")),
        ("sim-413", 413, Value::Null),
        ("sim-504", 504, Value::Null),
        ("sim-quota", 429, json!("insufficient_quota")),
        ("sim-401", 401, json!("invalid_api_key")),
        ("sim-400", 400, json!("invalid_value")),
        ("sim-500", 500, Value::Null),
        ("sim-503", 503, json!("server_is_overloaded")),
        ("sim-529", 529, Value::Null),
        ("sim-teapot", 404, json!("model_not_found")),
    ] {
        let response = ask(&world, model, json!({"stream": true})).await;

        assert_eq!(response.status().as_u16(), status, "{model}");
        assert_eq!(
            response.headers().contains_key("retry-after"),
            status == 429 && model != "sim-quota"
        );
        assert!(response.headers().contains_key("x-request-id"));
        let body: Value = response.json().await.unwrap();
        let keys: Vec<_> = body["error"].as_object().unwrap().keys().collect();
        assert_eq!(keys, ["code", "message", "param", "type"], "{model}");
        assert_eq!(body["error"]["code"], code, "{model}");
    }
    assert!(
        world
            .llm()
            .calls()
            .iter()
            .all(|call| call.finished && !call.closed_early)
    );
}

#[tokio::test]
async fn a_proxy_s_page_is_html() {
    let world = world().await;

    let response = ask(&world, "sim-html-502", json!({})).await;

    assert_eq!(response.status().as_u16(), 502);
    assert!(response.text().await.unwrap().starts_with("<html>"));
}

#[tokio::test]
async fn a_bad_request_is_told_what_is_wrong() {
    let world = world().await;
    let post = async |key: Option<&str>, body: &'static str| {
        let request = http()
            .post(format!("{}/chat/completions", world.llm_url()))
            .body(body);
        let request = key
            .into_iter()
            .fold(request, |request, key| request.bearer_auth(key));
        let response = request.send().await.unwrap();
        (
            response.status().as_u16(),
            response.json::<Value>().await.unwrap()["error"].clone(),
        )
    };

    let (no_key, _) = post(
        None,
        r#"{"model":"sim","messages":[{"role":"user","content":"x"}]}"#,
    )
    .await;
    let (no_messages, missing) = post(Some("sk"), r#"{"model":"sim"}"#).await;
    let (no_model, _) = post(
        Some("sk"),
        r#"{"messages":[{"role":"user","content":"x"}]}"#,
    )
    .await;
    let (no_json, _) = post(Some("sk"), "{").await;
    let (empty, _) = post(Some("sk"), r#"{"model":"sim","messages":[]}"#).await;

    assert_eq!(
        (no_key, no_messages, no_model, no_json, empty),
        (401, 400, 400, 400, 400)
    );
    assert_eq!(
        (&missing["param"], &missing["code"]),
        (&json!("messages"), &json!("missing_required_parameter"))
    );
}

#[tokio::test]
async fn a_cut_stream_breaks_after_its_chunks() {
    let world = world().await;

    let (body, clean) = streamed(&world, "sim-cut-5").await;

    assert_eq!((events(&body).len(), clean), (5, false));
    assert!(
        chunks(&body)
            .iter()
            .all(|chunk| chunk["choices"][0]["finish_reason"].is_null())
    );
    let call = world.llm().calls().pop().unwrap();
    assert_eq!((call.finished, call.closed_early), (true, false));
}

#[tokio::test]
async fn an_early_end_of_body_is_clean_and_finishes_nothing() {
    let world = world().await;

    let (body, clean) = streamed(&world, "sim-eof-5").await;

    assert_eq!((events(&body).len(), clean), (5, true));
    assert!(
        chunks(&body)
            .iter()
            .all(|chunk| chunk["choices"][0]["finish_reason"].is_null())
    );
}

#[tokio::test]
async fn a_stalled_stream_stays_open_and_silent() {
    let world = world().await;
    let mut body = ask(&world, "sim-stall-3", json!({"stream": true}))
        .await
        .bytes_stream();

    let mut text = String::new();
    while events(&text).len() < 3 {
        text += std::str::from_utf8(&soon(body.next()).await.unwrap().unwrap()).unwrap();
    }
    let silence = tokio::time::timeout(Duration::from_millis(100), body.next()).await;

    assert!(silence.is_err());
    assert_eq!((events(&text).len(), world.llm().open_streams()), (3, 1));
}

#[tokio::test]
async fn garbage_comes_midway_and_the_rest_follows() {
    let world = world().await;

    let (body, clean) = streamed(&world, "sim-garbage").await;

    let events = events(&body);
    let broken: Vec<_> = events
        .iter()
        .filter(|data| serde_json::from_str::<Value>(data).is_err())
        .collect();
    assert_eq!((broken.len(), clean), (2, true), "one broken, one [DONE]");
    assert!(body.contains(r#""finish_reason":"stop""#) && events.last() == Some(&"[DONE]"));
    let at = events
        .iter()
        .position(|data| data.ends_with("delta"))
        .unwrap();
    assert!(at > 2 && at < events.len() - 3);
}

#[tokio::test]
async fn an_error_midway_is_the_last_event() {
    let world = world().await;

    let (body, clean) = streamed(&world, "sim-error").await;

    let chunks = chunks(&body);
    assert_eq!(chunks.last().unwrap()["error"]["type"], "server_error");
    assert!(chunks.len() > 3 && clean && !body.contains("[DONE]"));
}

#[tokio::test]
async fn done_may_be_missing_and_a_length_be_pretended() {
    let world = world().await;

    let (body, _) = streamed(&world, "sim-nodone-length").await;

    assert!(!body.contains("[DONE]"));
    assert_eq!(
        chunks(&body).last().unwrap()["choices"][0]["finish_reason"],
        "length"
    );
}

#[tokio::test]
async fn an_answer_has_exactly_as_many_tokens_as_its_model_says() {
    let world = world().await;

    for tokens in [1, 7, 200, 1000] {
        let body: Value = ask(&world, &format!("sim-tokens-{tokens}"), json!({}))
            .await
            .json()
            .await
            .unwrap();
        assert_eq!(body["usage"]["completion_tokens"], tokens);
        assert_eq!(body["choices"][0]["finish_reason"], "stop");
    }
}

#[tokio::test]
async fn a_slow_model_waits_before_the_head_of_its_answer_and_of_its_error() {
    let world = world().await;

    for model in ["sim-slow-80", "sim-slow-80-429"] {
        let asked = Instant::now();
        ask(&world, model, json!({"stream": true})).await;
        assert!(asked.elapsed() >= Duration::from_millis(80), "{model}");
    }
}

#[tokio::test]
async fn an_answer_that_is_not_streamed_breaks_too() {
    let world = world().await;

    let cut = ask(&world, "sim-cut-5", json!({})).await.bytes().await;
    let eof = ask(&world, "sim-eof-5", json!({}))
        .await
        .text()
        .await
        .unwrap();
    let error: Value = ask(&world, "sim-error", json!({}))
        .await
        .json()
        .await
        .unwrap();

    assert!(cut.is_err());
    assert!(eof.starts_with('{') && serde_json::from_str::<Value>(&eof).is_err());
    assert!(error["error"].is_object());
}

#[tokio::test]
async fn dropping_the_world_closes_what_is_open() {
    let world = world().await;
    let mut body = ask(&world, "sim-stall-1", json!({"stream": true}))
        .await
        .bytes_stream();
    soon(body.next()).await.unwrap().unwrap();

    drop(world);

    assert!(soon(body.next()).await.is_none_or(|part| part.is_err()));
}

/// What Anthropic's face says: the data of each event.
async fn messages(world: &World, more: Value) -> (u16, Vec<Value>) {
    let mut body = json!({"model": "claude", "max_tokens": 500, "stream": true, "messages": [{"role": "user", "content": "Shall I learn to sail this summer?"}]});
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    let url = format!("{}/v1/messages", world.anthropic_url());
    let asked = http().post(url).header("x-api-key", "sk-any").json(&body);
    let response = asked.send().await.unwrap();
    let (status, text) = (response.status().as_u16(), response.text().await.unwrap());
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let events: Vec<_> = data
        .map(|data| serde_json::from_str(data).unwrap_or(Value::Null))
        .collect();
    let whole = || vec![serde_json::from_str(&text).unwrap()];
    (status, if events.is_empty() { whole() } else { events })
}

fn kinds(events: &[Value]) -> Vec<&str> {
    let mut kinds: Vec<_> = events
        .iter()
        .map(|event| event["type"].as_str().unwrap_or("garbage"))
        .collect();
    kinds.dedup();
    kinds
}

#[tokio::test]
async fn anthropics_face_says_the_same_and_fails_in_its_own_words() {
    let world = world().await;

    let openais: Value = ask(&world, "sim", json!({})).await.json().await.unwrap();
    let (_, events) = messages(&world, json!({})).await;
    let (_, whole) = messages(&world, json!({"stream": false})).await;
    let tool = json!({"name": "look_up", "input_schema": {"type": "object", "required": ["q"], "properties": {"q": {"type": "string"}}}});
    let choice = json!({"type": "tool", "name": "look_up"});
    let (_, called) = messages(
        &world,
        json!({"stream": false, "tools": [tool], "tool_choice": choice}),
    )
    .await;

    let begun = [
        "message_start",
        "content_block_start",
        "ping",
        "content_block_delta",
    ];
    let ended = ["content_block_stop", "message_delta", "message_stop"];
    assert_eq!(kinds(&events), [&begun[..], &ended[..]].concat());
    let text: String = events
        .iter()
        .filter_map(|event| event["delta"]["text"].as_str())
        .collect();
    assert_eq!(openais["choices"][0]["message"]["content"], json!(text));
    assert_eq!(whole[0]["content"][0]["text"], json!(text));
    assert_eq!(
        whole[0]["usage"]["output_tokens"],
        openais["usage"]["completion_tokens"]
    );
    assert_eq!(
        (&called[0]["stop_reason"], &called[0]["content"][0]["name"]),
        (&json!("tool_use"), &json!("look_up"))
    );

    for (model, status, last) in [
        ("sim-error", 200, vec!["content_block_delta", "error"]),
        (
            "sim-garbage",
            200,
            vec![
                "content_block_delta",
                "garbage",
                "content_block_delta",
                "content_block_stop",
                "message_delta",
                "message_stop",
            ],
        ),
        (
            "sim-nofinish",
            200,
            vec!["content_block_stop", "message_stop"],
        ),
        ("sim-529", 529, vec!["error"]),
        ("sim-teapot", 404, vec!["error"]),
    ] {
        let (answered, events) = messages(&world, json!({"model": model})).await;
        assert!(
            answered == status && kinds(&events).ends_with(&last),
            "{model} {:?}",
            kinds(&events)
        );
    }
}

#[tokio::test]
async fn a_question_may_begin_with_a_directive_and_is_answered_without_it() {
    let world = world().await;
    let asked = |model: &'static str, question: &'static str| {
        ask(
            &world,
            model,
            json!({"messages": [{"role": "user", "content": question}]}),
        )
    };

    assert_eq!(asked("gpt-4o", "/sim-429 Hello").await.status(), 429);
    let long: Value = asked("gpt-4o", "/sim-tokens-60 Sailing boats.")
        .await
        .json()
        .await
        .unwrap();
    let (plain, told): (Value, Value) = (
        asked("gpt-4o", "Sailing boats.")
            .await
            .json()
            .await
            .unwrap(),
        asked("gpt-4o", "/sim-length Sailing boats.")
            .await
            .json()
            .await
            .unwrap(),
    );
    let strange = asked("gpt-4o", "/sim-teapot Hello").await;

    assert_eq!(long["usage"]["completion_tokens"], 60);
    assert_eq!(
        told["choices"][0]["message"],
        plain["choices"][0]["message"]
    );
    assert_eq!(told["choices"][0]["finish_reason"], "length");
    assert_eq!(strange.status(), 200, "no directive, but words");
}

#[tokio::test]
async fn moderations_flag_what_names_something_bad() {
    let world = world().await;
    let url = format!("{}/moderations", world.llm_url());

    let asked = http().post(url).bearer_auth("sk-any");
    let body = json!({"input": ["A fine day.", {"type": "text", "text": "You moron."}]});
    let answer: Value = asked
        .json(&body)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();

    let flagged: Vec<_> = answer["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| result["flagged"].as_bool().unwrap())
        .collect();
    assert_eq!(flagged, [false, true]);
    assert_eq!(answer["results"][1]["categories"]["harassment"], true);
}
