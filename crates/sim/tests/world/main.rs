//! The world as a client meets it.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod board;
mod events;
mod faults;
mod llm;
mod mailbox;
mod oidc;
mod pages;
mod phones;
mod stripe;

use std::time::Duration;

use serde_json::{Value, json};
use sim::{Options, World};

/// A world without pauses.
async fn world() -> World {
    let options = Options {
        llm_gap: Duration::ZERO,
        ..Options::default()
    };
    sim::start(options).await.unwrap()
}

fn http() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// Asks for a chat completion; `more` is put over the request.
async fn ask(world: &World, model: &str, more: Value) -> reqwest::Response {
    let mut body = json!({"model": model, "messages": [{"role": "user", "content": "Shall I learn to sail this summer?"}]});
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    let url = format!("{}/chat/completions", world.llm_url());
    http()
        .post(url)
        .bearer_auth("sk-any")
        .json(&body)
        .send()
        .await
        .unwrap()
}

/// The `data:` of every event, `[DONE]` too.
fn events(body: &str) -> Vec<&str> {
    let events = body.split_terminator("\n\n");
    events
        .map(|event| event.strip_prefix("data: ").unwrap())
        .collect()
}

fn chunks(body: &str) -> Vec<Value> {
    let chunks = events(body).into_iter().filter(|data| *data != "[DONE]");
    chunks
        .map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

/// What the chunks say together.
fn said(chunks: &[Value]) -> String {
    let words = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str());
    words.collect()
}

/// Long enough for a busy machine; nothing waits so long unless it fails.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(5), future)
        .await
        .expect("did not happen in 5 s")
}
