//! Encodings of one log: our own events, OpenAI's chunks, the AI SDK's parts.
use super::{
    llm::Failure,
    stream::{Event, Reader},
};
use crate::{App, Error, auth::access, extract::Auth};
use db::Timestamp;
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

pub mod completion;
pub mod native;
pub mod ui;

/// How often a client whose stream is open is looked at again: who was signed out hears no more.
const CHECKED: Duration = Duration::from_secs(5);
/// A proxy that hears nothing for so long might hang up.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Some proxies cut what is older than 15 minutes, without a word.
const RECONNECT: Duration = Duration::from_secs(14 * 60);
/// What clients of every encoding skip.
pub const NOTHING: &str = ": heartbeat\n\n";

/// Why there is no more of an answer, in words for whoever asked.
fn words(failure: &Failure) -> String {
    match failure {
        Failure::Truncated | Failure::Draining | Failure::Interrupted => {
            "The answer was cut off. Try again.".into()
        }
        failure => Error::from(failure.clone()).to_string(),
    }
}

/// What a client is to hear next.
pub enum Heard {
    Event(u64, Arc<Event>),
    /// Nothing yet: it should know that we are there.
    Nothing,
    /// Nothing more: it is signed out.
    SignedOut,
    /// Nothing more on this connection.
    Reconnect,
}

/// A client that listens to an answer.
pub struct Listener {
    app: App,
    auth: Auth,
    reader: Reader,
    since: Timestamp,
    checked: Instant,
    heard: Instant,
    reconnects: bool,
    over: bool,
}

impl Listener {
    pub fn new(app: &App, auth: &Auth, reader: Reader) -> Self {
        let now = Instant::now();
        Self {
            app: app.clone(),
            auth: auth.clone(),
            reader,
            since: app.now(),
            checked: now,
            heard: now,
            reconnects: true,
            over: false,
        }
    }

    /// Where the connection outlives what proxies cut.
    pub fn lasting(self) -> Self {
        Self {
            reconnects: false,
            ..self
        }
    }

    /// The next; `None` after the last event, and after what ends the connection.
    pub async fn next(&mut self) -> Option<Heard> {
        if self.over {
            return None;
        }
        loop {
            tokio::select! {
                biased;
                next = self.reader.next() => {
                    self.heard = Instant::now();
                    return next.map(|(seq, event)| Heard::Event(seq, event));
                }
                () = tokio::time::sleep_until(self.checked + CHECKED) => {}
            }
            self.checked = Instant::now();
            if !access::stands(&self.app, &self.auth).await {
                self.over = true;
                return Some(Heard::SignedOut);
            }
            if self.reconnects && self.app.now().since(self.since) >= RECONNECT {
                self.over = true;
                return Some(Heard::Reconnect);
            }
            if self.heard.elapsed() + CHECKED / 2 >= HEARTBEAT {
                self.heard = Instant::now();
                return Some(Heard::Nothing);
            }
        }
    }
}
