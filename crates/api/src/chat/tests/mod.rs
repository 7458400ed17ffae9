use super::quota::Period;
use crate::testing::{Answer, Engine, Person, Test, both_engines, request};
use axum::body::Body;
use db::{Timestamp, usage::Amount};
use futures_util::future::join_all;
use http::{Method, Response, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use sim::{Reply, Step};
use std::{future::Future, time::Duration};
use tower::ServiceExt;

mod answers;
mod branches;
mod completions;
mod conversations;
mod embeddings;
mod faults;
mod idempotency;
mod leaving;
mod moderation;
mod money;
mod providers;
mod questions;
mod quota;
mod resuming;
mod scrub;
mod titles;
mod waiting;

const ADA: &str = "ada@example.com";
const BOB: &str = "bob@example.com";
const CHAT: &str = "/api/chat";
const COMPLETIONS: &str = "/v1/chat/completions";

/// A test whose provider is impatient, for those that wait for its silence to end.
async fn impatient(engine: Engine) -> Test {
    Test::with(engine, &[("LLM_TIMEOUT", "1")]).await
}

/// A body of OpenAI's with one question.
fn question(text: &str) -> Value {
    json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}]})
}

/// The same, of a model or with other members besides.
fn question_with(members: Value) -> Value {
    let mut body = question("Hello");
    body.as_object_mut()
        .unwrap()
        .extend(members.as_object().unwrap().clone());
    body
}

/// One event of a provider's stream.
fn said(chunk: &Value) -> Step {
    Step::send(format!("data: {chunk}\n\n"))
}

/// A provider's stream that says these words and then does this.
fn words<const N: usize>(words: [&str; N], then: impl IntoIterator<Item = Step>) -> Reply {
    let words = words.map(|word| {
        said(&json!({"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": null}]}))
    });
    Reply::Stream(words.into_iter().chain(then).collect())
}

fn finish(reason: &str) -> Step {
    said(&json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}))
}

fn done() -> Step {
    Step::send("data: [DONE]\n\n")
}

/// An error of OpenAI's.
fn refusal(status: u16, code: &str, headers: &[(&str, &str)]) -> Reply {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Reply::Status {
        status,
        headers: headers.iter().map(owned).collect(),
        body:
            json!({"error": {"message": "No.", "type": "some_error", "param": null, "code": code}})
                .to_string(),
    }
}

/// What does not happen soon does not happen.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future)
        .await
        .expect("it happens soon")
}

impl Test {
    async fn ask(&self, person: &Person, message: &str) -> Answer {
        self.post(&person.token, CHAT, json!({"message": message}))
            .await
    }

    async fn ask_streamed(&self, person: &Person, message: &str) -> Answer {
        let body = json!({"message": message, "stream": true});
        self.post(&person.token, CHAT, body).await
    }

    async fn complete(&self, person: &Person, body: Value) -> Answer {
        self.post(&person.token, COMPLETIONS, body).await
    }

    async fn keyed(&self, person: &Person, key: &str, path: &str, body: Value) -> Answer {
        let request = request(Method::POST, &person.token, path)
            .header(header::CONTENT_TYPE, "application/json")
            .header("idempotency-key", key);
        self.send(request.body(Body::from(body.to_string())).unwrap())
            .await
    }

    /// A response whose body is read by and by.
    async fn open(&self, person: &Person, path: &str, body: Value) -> Response<Body> {
        let request = request(Method::POST, &person.token, path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string()))
            .unwrap();
        self.router.clone().oneshot(request).await.unwrap()
    }

    fn llm(&self) -> &sim::Llm {
        self.world.llm()
    }

    /// Waits until every answer has been made and settled.
    async fn settled(&self) {
        self.app.tasks.close();
        soon(self.app.tasks.wait()).await;
        self.app.tasks.reopen();
    }

    async fn messages(&self, person: &Person, conversation: &Value) -> Vec<Value> {
        let path = format!(
            "/api/conversations/{}/messages",
            conversation.as_str().unwrap()
        );
        let answer = self.get(&person.token, &path).await.json();
        answer["data"].as_array().unwrap().clone()
    }

    async fn conversations(&self, person: &Person) -> Vec<Value> {
        let answer = self.get(&person.token, "/api/conversations").await.json();
        answer["data"].as_array().unwrap().clone()
    }

    /// Messages and tokens of the period: used, set aside.
    async fn counted(&self, person: &Person) -> [i64; 4] {
        let usage = self.get(&person.token, "/api/usage").await.json();
        let count = |pointer| usage.pointer(pointer).and_then(Value::as_i64).unwrap();
        [
            count("/messages/used"),
            count("/messages/reserved"),
            count("/tokens/used"),
            count("/tokens/reserved"),
        ]
    }

    /// Input and output tokens of the ledger, and their cost.
    async fn ledger(&self, person: &Person) -> (i64, i64, i64) {
        let user = person.id.parse().unwrap();
        let spent = db::usage::spent(&self.app.db, user, Timestamp::from_unix(0))
            .await
            .unwrap();
        (spent.input_tokens, spent.output_tokens, spent.cost_microusd)
    }

    /// Uses up so much of the period.
    async fn use_up(&self, person: &Person, metric: &str, amount: i64) {
        let (subject, start) = (
            format!("user:{}", person.id),
            Period::of(self.app.now()).start,
        );
        let mut used = Amount::default();
        match metric {
            "messages" => used.messages = amount,
            "tokens" => used.tokens = amount,
            _ => used.microusd = amount,
        }
        let mut tx = self.app.db.begin().await.unwrap();
        let opened = db::usage::open(&mut tx, &subject, "", start, Amount::default()).await;
        assert!(opened.unwrap().is_some());
        db::usage::settle(&mut tx, &subject, "", start, Amount::default(), used)
            .await
            .unwrap();
        tx.commit().await.unwrap();
    }

    /// Answers of which nobody has said yet how they ended.
    async fn under_way(&self) -> usize {
        let end_of_time = Timestamp::from_micros(i64::MAX / 4);
        let open = db::generations::expired(&self.app.db, end_of_time, 1_000).await;
        open.unwrap().len()
    }

    /// Nothing was asked of the provider, kept or counted for this person.
    async fn is_untouched(&self, person: &Person, counted: [i64; 4]) {
        assert_eq!(self.llm().count(), 0, "the provider was asked");
        assert_eq!(self.conversations(person).await, Vec::<Value>::new());
        assert_eq!(self.under_way().await, 0);
        assert_eq!(self.counted(person).await, counted);
        assert_eq!(self.ledger(person).await, (0, 0, 0));
    }
}

/// Reads a stream up to the first event of this name, and gives all it has read.
async fn read_to(body: &mut Body, event: &str) -> String {
    let mut text = String::new();
    while !text.contains(event) {
        let frame = soon(body.frame())
            .await
            .expect("the stream goes on")
            .unwrap();
        text += std::str::from_utf8(&frame.into_data().unwrap()).unwrap();
    }
    text
}

/// Names of events, in order, repetitions left out.
fn names(answer: &Answer) -> Vec<String> {
    let mut names: Vec<_> = answer.events().into_iter().map(|(name, _)| name).collect();
    names.dedup();
    names
}

/// The data of a stream's last event.
fn last(answer: &Answer) -> Value {
    answer.events().pop().expect("an event").1
}

/// The words of a native stream.
fn text(answer: &Answer) -> String {
    let events = answer.events();
    let texts = events.iter().filter(|(name, _)| name == "delta");
    texts
        .map(|(_, data)| data["text"].as_str().unwrap())
        .collect()
}

fn keys(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}
