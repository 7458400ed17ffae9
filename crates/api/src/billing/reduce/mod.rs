//! What is told becomes what is known: pure functions of a state, a fact and the time. Nothing here asks
//! a database, a provider or the clock, so that every order of a story's facts can be tried.
//!
//! Two kinds of facts keep every order at one end. A *snapshot* says all of an object as of a moment: the
//! later wins. A *mark* says one thing that happened, and is merged so that neither order nor repetition
//! matters. What is granted follows from both together.
use db::Timestamp;
use std::time::Duration;

pub mod revenuecat;
pub mod stripe;
#[cfg(test)]
mod tests;

/// The event of a renewal may come this late without a gap in access.
pub const RENEWAL_LEEWAY: Duration = Duration::from_secs(24 * 3600);
/// What is older is no news for anybody: a backlog writes no mails.
const NEWS: Duration = Duration::from_secs(3 * 24 * 3600);

/// What the operator decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Access goes on for so long while a renewal is unpaid.
    pub grace: Duration,
    /// Whether access ends when what was paid for it goes back.
    pub revokes_refunded: bool,
    /// Whether it ends while a bank asks for the money back.
    pub suspends_disputed: bool,
}

/// When a snapshot was true, and what told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Basis {
    pub at: Timestamp,
    /// Decides within one moment.
    pub rank: i64,
    pub event: String,
}

/// Read from the provider's API, at the time the request was sent: it knows everything that happened before.
pub const READ: i64 = 9;

/// What a user is to be told by mail, once for each key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    pub key: String,
    pub news: News,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// What they bought is open.
    Subscribed {
        plan: String,
    },
    /// A renewal could not be charged; access goes on until then.
    PaymentFailed {
        plan: String,
        until: Option<Timestamp>,
        link: Option<String>,
    },
    /// Their bank wants them to confirm a renewal.
    ActionRequired {
        plan: String,
        link: Option<String>,
    },
    TrialEnding {
        plan: String,
        at: Timestamp,
        renews: bool,
    },
    Ended {
        plan: String,
    },
}

/// Whether it happened lately.
fn is_news(at: Timestamp, now: Timestamp) -> bool {
    at + NEWS > now
}
