//! Events on their way to the backend: signed when sent, sent again until they are taken, and led
//! astray as the board says.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::clock::Clock;
use super::faults::Faults;
use crate::dice;

/// Stripe waits about as long; RevenueCat three times.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Between two looks at the clock, which may have been turned.
const TICK: Duration = Duration::from_millis(500);
/// For how many of the events the board remembers how it went.
const REMEMBERED: usize = 2_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    Stripe,
    RevenueCat,
}

impl Provider {
    /// Seconds before each further attempt. Stripe's own are not published: "up to three days" live
    /// (<https://docs.stripe.com/webhooks#retries>); RevenueCat's are.
    fn retries(self) -> &'static [i64] {
        match self {
            Self::Stripe => &[10, 60, 300, 1800, 7200, 21_600, 43_200, 86_400, 86_400],
            Self::RevenueCat => &[300, 600, 1200, 2400, 4800],
        }
    }

    /// RevenueCat: "your server should return a 200 status code", and nothing else counts.
    fn is_taken(self, status: u16) -> bool {
        match self {
            Self::Stripe => (200..300).contains(&status),
            Self::RevenueCat => status == 200,
        }
    }
}

/// How the sender says who it is.
#[derive(Debug, Clone)]
pub struct Seal {
    pub provider: Provider,
    /// Of Stripe: signs. Of RevenueCat: is sent as Authorization.
    pub secret: String,
    /// Of RevenueCat: signs, where signing is on.
    pub signing_secret: Option<String>,
}

/// One event for one endpoint.
#[derive(Debug, Clone)]
pub struct Letter {
    pub event: String,
    pub url: String,
    pub body: String,
    seal: Seal,
    due: i64,
    attempts: usize,
    serial: u64,
}

/// How an attempt went: when, in the provider's time, and the answer's status, if there was one.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    pub at: i64,
    pub status: Option<u16>,
}

/// Clones share the letters and the faults.
#[derive(Clone)]
pub struct Outbox {
    inner: Arc<Mutex<Inner>>,
    clock: Clock,
    posted: Arc<Notify>,
}

#[derive(Default)]
struct Inner {
    waiting: Vec<Letter>,
    faults: Faults,
    /// When `same_second` was switched on.
    frozen_at: Option<i64>,
    serial: u64,
    /// By event: how many endpoints have yet to take it.
    untaken: HashMap<String, usize>,
    attempts: BTreeMap<u64, (String, Attempt)>,
}

impl Outbox {
    pub fn new(clock: Clock) -> Self {
        Self {
            inner: Arc::default(),
            clock,
            posted: Arc::default(),
        }
    }

    pub fn faults(&self) -> Faults {
        self.inner().faults.clone()
    }

    pub fn set_faults(&self, faults: Faults) {
        let mut inner = self.inner();
        let frozen = inner.frozen_at.unwrap_or_else(|| self.clock.now());
        inner.frozen_at = faults.same_second.then_some(frozen);
        inner.faults = faults;
    }

    /// How this question to an API goes wrong, if it does.
    pub fn strike(&self) -> Option<super::faults::ApiFault> {
        self.inner().faults.strike()
    }

    /// When what happens at `at` says that it happened.
    pub fn stamp(&self, at: i64) -> i64 {
        self.inner().frozen_at.unwrap_or(at)
    }

    pub fn post(&self, event: &str, url: String, body: String, seal: Seal) {
        let mut inner = self.inner();
        *inner.untaken.entry(event.to_owned()).or_default() += 1;
        if inner.faults.drop {
            return;
        }
        let copies = if inner.faults.duplicate { 2 } else { 1 };
        let due = self.clock.now() + i64::from(inner.faults.delay_s);
        for _ in 0..copies {
            inner.serial += 1;
            let letter = Letter {
                event: event.to_owned(),
                url: url.clone(),
                body: body.clone(),
                seal: seal.clone(),
                due,
                attempts: 0,
                serial: inner.serial,
            };
            inner.waiting.push(letter);
        }
        drop(inner);
        self.posted.notify_one();
    }

    /// What is to be sent now, in the order to send it in. It is the caller's until [`Self::answered`].
    pub fn due(&self) -> Vec<Letter> {
        let now = self.clock.now();
        let mut inner = self.inner();
        let waiting = std::mem::take(&mut inner.waiting);
        let (mut due, later): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|letter| letter.due <= now);
        inner.waiting = later;
        match inner.faults.reorder {
            Some(seed) => {
                due.sort_by_key(|letter| dice::hash(&format!("{seed} {}", letter.serial)))
            }
            None => due.sort_by_key(|letter| (letter.due, letter.serial)),
        }
        due
    }

    /// The headers that say who sends it, at the time of sending.
    pub fn seal(&self, letter: &Letter) -> Vec<(&'static str, String)> {
        let faults = self.faults();
        let at = self.clock.base();
        let sign = |secret: &str| {
            let wrong = format!("{secret} no more");
            let with = |secret: &str| webhooks::signature::sign(letter.body.as_bytes(), secret, at);
            let ours = with(if faults.bad_signature { &wrong } else { secret });
            if !faults.two_signatures {
                return ours;
            }
            // `t=…,v1=…`: one time, a signature for each secret.
            let first = with(&wrong);
            format!(
                "{first},{}",
                ours.split_once(',').map_or("", |(_, signature)| signature)
            )
        };
        let Seal {
            provider,
            secret,
            signing_secret,
        } = &letter.seal;
        match provider {
            Provider::Stripe => vec![("stripe-signature", sign(secret))],
            Provider::RevenueCat => {
                let mut headers = vec![];
                if !secret.is_empty() {
                    let said = if faults.bad_signature {
                        "not that one"
                    } else {
                        secret.as_str()
                    };
                    headers.push(("authorization", format!("Bearer {said}")));
                }
                if let Some(secret) = signing_secret {
                    headers.push(("x-revenuecat-webhook-signature", sign(secret)));
                }
                headers
            }
        }
    }

    /// Of the endpoint, or `None` when it did not answer. What was not taken is sent again later.
    pub fn answered(&self, mut letter: Letter, status: Option<u16>) {
        let now = self.clock.now();
        let mut inner = self.inner();
        inner.serial += 1;
        let (serial, attempt) = (inner.serial, Attempt { at: now, status });
        inner
            .attempts
            .insert(serial, (letter.event.clone(), attempt));
        while inner.attempts.len() > REMEMBERED {
            inner.attempts.pop_first();
        }

        let provider = letter.seal.provider;
        if status.is_some_and(|status| provider.is_taken(status)) {
            if let Some(untaken) = inner.untaken.get_mut(&letter.event) {
                *untaken = untaken.saturating_sub(1);
            }
        } else if let Some(wait) = provider.retries().get(letter.attempts) {
            letter.attempts += 1;
            letter.due = now + wait;
            inner.waiting.push(letter);
        }
    }

    /// How many endpoints have yet to take this event.
    pub fn untaken(&self, event: &str) -> usize {
        self.inner().untaken.get(event).copied().unwrap_or_default()
    }

    /// How sending this event went so far, oldest first.
    pub fn attempts(&self, event: &str) -> Vec<Attempt> {
        let inner = self.inner();
        let of_event = inner.attempts.values().filter(|(id, _)| id == event);
        of_event.map(|(_, attempt)| *attempt).collect()
    }

    /// Sends what is due for ever. `before` runs first every time: what time has brought is told of.
    pub async fn send_for_ever(self, before: impl Fn()) -> std::convert::Infallible {
        // Made for the first letter: it reads the machine's certificates.
        let http = std::sync::OnceLock::new();
        loop {
            before();
            for letter in self.due() {
                let mut request = http
                    .get_or_init(client)
                    .post(&letter.url)
                    .body(letter.body.clone());
                request = request.header("content-type", "application/json; charset=utf-8");
                for (name, value) in self.seal(&letter) {
                    request = request.header(name, value);
                }
                let answer = request.send().await;
                self.answered(letter, answer.ok().map(|answer| answer.status().as_u16()));
            }
            let _ = tokio::time::timeout(TICK, self.posted.notified()).await;
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Loopback only: a proxy from the environment would not find it. A redirect is a failure.
fn client() -> reqwest::Client {
    let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT);
    client
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap_or_default()
}
