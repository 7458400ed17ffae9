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
            model == "sim-429"
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
