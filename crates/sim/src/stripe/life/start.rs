//! How a subscription begins.

use super::billing::{self, Outcome, Presence};
use crate::dice::fresh;
use crate::stripe::books::Books;
use crate::stripe::params::Metadata;
use crate::stripe::state::subscription::{Cancellation, Item, Status};
use crate::stripe::state::{Customer, Discount, Subscription};

/// What is wanted.
pub struct Wanted {
    pub customer: String,
    pub items: Vec<Item>,
    pub card: Option<String>,
    pub trial_end: Option<i64>,
    pub without_card: &'static str,
    pub discount: Option<Discount>,
    pub description: Option<String>,
    pub metadata: Metadata,
    pub cancels_at_period_end: bool,
    pub cancel_at: Option<i64>,
    /// Waits for the first invoice to be paid by someone, instead of charging the card.
    pub waits: bool,
}

/// The subscription's id, and how its first invoice went. A trial's is nothing, and paid.
pub fn subscribe(
    books: &mut Books,
    wanted: Wanted,
    presence: Presence,
    at: i64,
) -> (String, Outcome) {
    let trial = wanted
        .trial_end
        .filter(|end| *end > at)
        .map(|end| (at, end));
    let mut subscription = Subscription {
        id: fresh("sub", 24),
        created: at,
        test_clock: books
            .get::<Customer>(&wanted.customer)
            .and_then(|customer| customer.test_clock.clone()),
        customer: wanted.customer,
        status: if trial.is_some() {
            Status::Trialing
        } else {
            Status::Incomplete
        },
        items: wanted.items,
        period: (at, at),
        anchor: trial.map_or(at, |trial| trial.1),
        trial,
        without_card: wanted.without_card,
        cancel_at: wanted.cancel_at,
        cancels_at_period_end: wanted.cancels_at_period_end,
        canceled_at: wanted.cancels_at_period_end.then_some(at),
        ended_at: None,
        cancellation: Cancellation::default(),
        card: wanted.card,
        latest_invoice: None,
        pause: None,
        discount: wanted.discount,
        description: wanted.description,
        metadata: wanted.metadata,
        pending: vec![],
        trial_end_told: false,
        is_made_up: false,
        livemode: false,
    };
    subscription.period = trial.unwrap_or_else(|| subscription.period_from(at));
    let (id, is_free) = (subscription.id.clone(), trial.is_some());
    let lines = billing::regular_lines(&subscription, subscription.period, is_free);
    books.subscriptions.put(subscription);

    let invoice = billing::draft(books, &id, lines, "subscription_create", at).unwrap_or_default();
    if let Some(subscription) = books.get::<Subscription>(&id).cloned() {
        books.tell("customer.subscription.created", at, subscription);
    }
    billing::finalize(books, &invoice, at);
    let outcome = if wanted.waits && !is_free {
        Outcome::Asks
    } else {
        billing::collect(books, &invoice, at, presence)
    };
    (id, outcome)
}
