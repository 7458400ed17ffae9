//! The account: its books, its clock, and the post.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::books::{AfterRetries, Books};
use super::call::Answers;
use super::refusal::{Refusal, Result};
use super::state::Endpoint;
use super::state::session::Asked;
use super::{life, made_up, seed};
use crate::payments::clock::Clock;
use crate::payments::faults::ApiFault;
use crate::payments::outbox::Outbox;

/// The endpoint that nobody has to make.
const OWN_ENDPOINT: &str = "we_of_the_simulation";

/// Clones are of the same account.
#[derive(Clone)]
pub struct Account(Arc<Inner>);

struct Inner {
    clock: Clock,
    outbox: Outbox,
    answers: Answers,
    books: Mutex<Books>,
}

impl Account {
    pub(crate) fn new(http: SocketAddr, clock: Clock, outbox: Outbox) -> Self {
        let mut books = Books::new(format!("http://{http}"), clock.now(), outbox.clone());
        seed::fill(&mut books);
        Self(Arc::new(Inner {
            clock,
            outbox,
            answers: Answers::default(),
            books: Mutex::new(books),
        }))
    }

    /// Looks into the books, or changes them: before, what time has brought happens, and afterwards
    /// what happened is sent off.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Books) -> T) -> T {
        let mut books = self.0.books.lock().unwrap_or_else(PoisonError::into_inner);
        books.now = self.0.clock.now();
        life::time::catch_up(&mut books);
        let result = work(&mut books);
        books.send_off();
        result
    }

    pub(crate) fn strike(&self) -> Option<ApiFault> {
        self.0.outbox.strike()
    }

    pub(crate) fn answers(&self) -> &Answers {
        &self.0.answers
    }

    /// Turns its clock on, and does what time brings: renewals, the ends of trials, attempts to be
    /// paid.
    pub fn advance(&self, by: Duration) {
        self.0
            .clock
            .turn(i64::try_from(by.as_secs()).unwrap_or(i64::MAX));
        self.with(|_| ());
    }

    /// In unix seconds.
    pub fn now(&self) -> i64 {
        self.0.clock.now()
    }

    /// Sends every event there, signed with this secret: one endpoint, whose place the next takes.
    pub(crate) fn send_to(&self, url: &str, secret: &str) {
        self.with(|books| {
            let endpoint = Endpoint {
                id: OWN_ENDPOINT.to_owned(),
                created: books.now,
                url: url.to_owned(),
                secret: secret.to_owned(),
                events: vec!["*".to_owned()],
                is_enabled: true,
                version: None,
                description: Some("Of the simulation's own".to_owned()),
                metadata: Default::default(),
            };
            if books
                .edit::<Endpoint>(OWN_ENDPOINT, |kept| *kept = endpoint.clone())
                .is_none()
            {
                books.endpoints.put(endpoint);
            }
        });
    }

    /// The newest of what was told.
    pub(crate) fn told(&self, most: usize) -> Vec<Told> {
        self.with(|books| {
            let newest = books.events.iter().rev().take(most);
            let told = newest.map(|event| Told {
                id: event.id.clone(),
                kind: event.kind.clone(),
                object: event.object_id(),
                at: event.created,
            });
            told.collect()
        })
    }

    /// Whether there is such an event.
    pub(crate) fn send_again(&self, event: &str) -> bool {
        self.with(|books| books.send_again(event))
    }

    pub(crate) fn after_retries(&self) -> AfterRetries {
        self.with(|books| books.policy.after_retries)
    }

    /// What becomes of a subscription that is never paid.
    pub fn set_after_retries(&self, after: AfterRetries) {
        self.with(|books| books.policy.after_retries = after);
    }

    /// Knows from now on what a made-up event says.
    pub(crate) fn know(&self, spec: &made_up::Stripe) {
        self.with(|books| made_up::know(books, spec));
    }

    /// Pays an open checkout session as its page does; a card whose bank asks is confirmed. What the
    /// page would say is the error.
    pub fn pay(&self, session: &str, number: &str) -> std::result::Result<(), String> {
        let asked = Asked {
            number: number.to_owned(),
            name: "Ann Example".to_owned(),
            ..Asked::default()
        };
        let paid: Result<()> = self.with(|books| {
            life::checkout::pay(
                books,
                session,
                &life::checkout::Paying {
                    asked: &asked,
                    confirmed: true,
                },
            )
            .map(drop)
        });
        paid.map_err(|refusal: Refusal| refusal.message)
    }
}

/// An event, as the board lists it.
pub(crate) struct Told {
    pub id: String,
    pub kind: String,
    pub object: String,
    pub at: i64,
}
