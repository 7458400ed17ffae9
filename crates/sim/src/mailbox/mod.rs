//! Every mail that was sent, on a page and as JSON. Nothing leaves the machine.

mod read;
mod sendgrid;
pub mod smtp;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;

/// The newest that are kept.
const MAX_MESSAGES: usize = 1_000;
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// One mail.
#[derive(Debug, Clone, Serialize)]
pub struct Message {
    /// Counts from 1.
    pub id: u64,
    /// Address of the envelope; empty for a bounce.
    pub from: String,
    /// Addresses of the envelope, those of Bcc too.
    pub to: Vec<String>,
    pub subject: String,
    /// Made of the HTML when the mail has no text.
    pub text: String,
    pub html: Option<String>,
    /// In their order, decoded; the names as they were written.
    pub headers: Vec<(String, String)>,
    /// Their names.
    pub attachments: Vec<String>,
    pub received_at: DateTime<Utc>,
    /// As it came, dots unstuffed.
    #[serde(skip)]
    pub raw: Vec<u8>,
}

impl Message {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// The newest 1,000 mails, or 64 MiB of them. Clones share it.
#[derive(Clone, Default)]
pub struct Mailbox {
    state: Arc<Mutex<Kept>>,
    changed: Arc<watch::Sender<()>>,
}

#[derive(Default)]
struct Kept {
    received: u64,
    bytes: usize,
    messages: VecDeque<Message>,
    /// What the next deliveries are refused with.
    refusals: VecDeque<u16>,
}

impl Mailbox {
    /// Oldest first.
    pub fn messages(&self) -> Vec<Message> {
        self.kept().messages.iter().cloned().collect()
    }

    /// Those for this address, oldest first.
    pub fn to(&self, address: &str) -> Vec<Message> {
        let to = |message: &&Message| message.to.iter().any(|to| to.eq_ignore_ascii_case(address));
        self.kept().messages.iter().filter(to).cloned().collect()
    }

    /// Waits until so many mails for this address are there. It may take for ever: put a timeout
    /// around it.
    pub async fn until(&self, address: &str, count: usize) -> Vec<Message> {
        let mut changed = self.changed.subscribe();
        loop {
            let messages = self.to(address);
            if messages.len() >= count || changed.changed().await.is_err() {
                return messages;
            }
        }
    }

    /// Refuses the next deliveries: over SMTP with these reply codes, over HTTP with these statuses.
    pub fn refuse(&self, codes: impl IntoIterator<Item = u16>) {
        self.kept().refusals.extend(codes);
    }

    /// What this delivery is to be refused with.
    fn refusal(&self) -> Option<u16> {
        self.kept().refusals.pop_front()
    }

    pub fn clear(&self) {
        let mut kept = self.kept();
        kept.messages.clear();
        kept.bytes = 0;
    }

    /// Keeps a mail as it came, and gives its id.
    fn receive(&self, from: String, to: Vec<String>, raw: Vec<u8>, at: DateTime<Utc>) -> u64 {
        self.keep(read::message(from, to, raw, at))
    }

    /// Keeps a mail and gives its id.
    fn keep(&self, mut message: Message) -> u64 {
        let mut kept = self.kept();
        kept.received += 1;
        kept.bytes += message.raw.len();
        message.id = kept.received;
        kept.messages.push_back(message);
        while kept.messages.len() > MAX_MESSAGES || kept.bytes > MAX_BYTES {
            let oldest = kept.messages.pop_front();
            kept.bytes -= oldest.map_or(0, |oldest| oldest.raw.len());
        }
        let id = kept.received;
        drop(kept);
        self.changed.send_replace(());
        id
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub fn routes(mailbox: Mailbox) -> Router {
    Router::new()
        .route("/mailbox", get(page))
        .route("/mailbox/messages", get(list).delete(clear))
        .route("/mailbox/messages/{id}", get(one))
        .with_state(mailbox.clone())
        .merge(sendgrid::routes(mailbox))
}

/// Nothing of a mail runs: its frame is sandboxed, and this is what it inherits.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
    img-src data: http: https:; font-src data:; connect-src 'self'; frame-src 'self'; \
    base-uri 'none'; form-action 'none'";

async fn page() -> Response {
    let page = Html(include_str!("page.html"));
    ([(header::CONTENT_SECURITY_POLICY, POLICY)], page).into_response()
}

#[derive(Deserialize)]
struct Filter {
    to: Option<String>,
}

/// Newest first.
async fn list(State(mailbox): State<Mailbox>, Query(filter): Query<Filter>) -> Json<Value> {
    let mut messages = match filter.to {
        Some(address) => mailbox.to(&address),
        None => mailbox.messages(),
    };
    messages.reverse();
    Json(json!({ "messages": messages }))
}

/// With its source.
async fn one(State(mailbox): State<Mailbox>, Path(id): Path<u64>) -> Response {
    let found = mailbox
        .messages()
        .into_iter()
        .find(|message| message.id == id);
    let Some(message) = found else {
        let missing = json!({"error": {"code": "not_found", "message": "no such message"}});
        return (StatusCode::NOT_FOUND, Json(missing)).into_response();
    };
    let mut body = json!(message);
    body["raw"] = String::from_utf8_lossy(&message.raw).into();
    Json(body).into_response()
}

async fn clear(State(mailbox): State<Mailbox>) -> StatusCode {
    mailbox.clear();
    StatusCode::NO_CONTENT
}
