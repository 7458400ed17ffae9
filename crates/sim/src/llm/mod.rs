//! A language model that speaks OpenAI's protocol and Anthropic's: deterministic prose, a natural
//! pace, and every fault of [`crate::faults`], by the model's name or at the beginning of a question.

mod chat;
mod embeddings;
mod messages;
mod moderations;
mod prompt;
mod prose;
mod refusal;
mod schema;
mod stream;
mod tokens;
mod wire;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use serde_json::Value;
use tokio::sync::watch;

pub use stream::Step;

/// The newest calls that are kept.
const MAX_CALLS: usize = 1_000;
/// Of a request: a long conversation with images fits.
const MAX_BODY_BYTES: usize = 32 * 1024 * 1024;

pub fn routes(llm: Llm) -> Router {
    Router::new()
        .route("/chat/completions", post(chat::completions))
        .route("/messages", post(chat::messages))
        .route("/embeddings", post(embeddings::embeddings))
        .route("/moderations", post(moderations::moderations))
        .route("/models", get(wire::models))
        .route("/models/{model}", get(wire::model))
        .fallback(refusal::unknown_url)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(llm)
}

/// The model as tests see it: what it was asked, and what it answers next. Clones share it.
#[derive(Clone)]
pub struct Llm {
    gap: Duration,
    state: Arc<Mutex<State>>,
    changed: Arc<watch::Sender<()>>,
}

#[derive(Default)]
struct State {
    begun: u64,
    calls: VecDeque<Call>,
    script: VecDeque<Reply>,
    open: usize,
}

/// One answer in a chat that was asked for, in either protocol.
#[derive(Debug, Clone)]
pub struct Call {
    /// Counts from 1.
    pub id: u64,
    pub model: String,
    pub stream: bool,
    /// Of the Authorization header, without `Bearer`, or of `x-api-key`.
    pub key: Option<String>,
    /// `Null` when it was not JSON.
    pub body: Value,
    /// All that was to be sent has been sent, be it an error or an answer that was to be cut.
    pub finished: bool,
    /// The client left before that.
    pub closed_early: bool,
}

/// What to answer instead of what the model's name asks for.
#[derive(Debug, Clone)]
pub enum Reply {
    /// These words, with everything that belongs to a normal answer.
    Text(String),
    Status {
        status: u16,
        headers: Vec<(String, String)>,
        body: String,
    },
    /// 200, `text/event-stream` and exactly this.
    Stream(Vec<Step>),
    /// As if the model had this name: `sim-slow-500-cut-3`.
    As(String),
}

impl Reply {
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A bare error; for headers name the variant.
    pub fn status(status: u16, body: impl Into<String>) -> Self {
        Self::Status {
            status,
            headers: Vec::new(),
            body: body.into(),
        }
    }

    pub fn model(name: impl Into<String>) -> Self {
        Self::As(name.into())
    }

    /// Accepts, never answers.
    pub fn hang() -> Self {
        Self::model("sim-hang")
    }

    /// The connection dies after so many chunks.
    pub fn cut(chunks: usize) -> Self {
        Self::model(format!("sim-cut-{chunks}"))
    }
}

impl Llm {
    pub(crate) fn new(gap: Duration) -> Self {
        Self {
            gap,
            state: Arc::default(),
            changed: Arc::new(watch::Sender::new(())),
        }
    }

    /// The newest 1,000 calls, oldest first.
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.iter().cloned().collect()
    }

    /// Of all calls since the start.
    pub fn count(&self) -> u64 {
        self.state().begun
    }

    /// Calls that are being answered at this moment, streamed or not.
    pub fn open_streams(&self) -> usize {
        self.state().open
    }

    /// Queues answers for the next calls, one each; when they are used up the model is itself again.
    pub fn script(&self, replies: impl IntoIterator<Item = Reply>) {
        self.state().script.extend(replies);
    }

    /// Waits until the calls are so. It may take for ever: put a timeout around it.
    pub async fn until(&self, so: impl Fn(&[Call]) -> bool) -> Vec<Call> {
        let mut changed = self.changed.subscribe();
        loop {
            let calls = self.calls();
            if so(&calls) || changed.changed().await.is_err() {
                return calls;
            }
        }
    }

    fn begin(&self, key: Option<String>, body: Value) -> (Ticket, Option<Reply>) {
        let mut state = self.state();
        state.begun += 1;
        state.open += 1;
        let id = state.begun;
        state.calls.push_back(Call {
            id,
            model: body["model"].as_str().unwrap_or_default().to_owned(),
            stream: body["stream"].as_bool().unwrap_or_default(),
            key,
            body,
            finished: false,
            closed_early: false,
        });
        if state.calls.len() > MAX_CALLS {
            state.calls.pop_front();
        }
        let reply = state.script.pop_front();
        drop(state);

        self.changed.send_replace(());
        let ticket = Ticket {
            llm: self.clone(),
            id,
            ended: false,
        };
        (ticket, reply)
    }

    fn end(&self, id: u64, note: impl FnOnce(&mut Call)) {
        let mut state = self.state();
        state.open -= 1;
        // Calls are in the order of their ids; the oldest may have been dropped.
        if let Ok(at) = state.calls.binary_search_by_key(&id, |call| call.id) {
            note(&mut state.calls[at]);
        }
        drop(state);
        self.changed.send_replace(());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Travels with an answer. Dropped before [`Ticket::finish`], it was the client who left.
struct Ticket {
    llm: Llm,
    id: u64,
    ended: bool,
}

impl Ticket {
    fn finish(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            self.llm.end(self.id, |call| call.finished = true);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.ended {
            self.llm.end(self.id, |call| call.closed_early = true);
        }
    }
}
