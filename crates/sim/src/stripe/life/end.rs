//! Leaving, and coming back before it is too late.

use super::billing;
use crate::stripe::books::Books;
use crate::stripe::state::subscription::Status;
use crate::stripe::state::{Invoice, Subscription};

/// Ends it at `at`, for this reason: cancellation_requested or payment_failed.
pub fn now(books: &mut Books, subscription: &str, reason: &'static str, at: i64) {
    let ended = books.edit::<Subscription>(subscription, |subscription| {
        subscription.status = if subscription.status == Status::Incomplete {
            Status::IncompleteExpired
        } else {
            Status::Canceled
        };
        subscription.ended_at = Some(at);
        subscription.canceled_at = subscription.canceled_at.or(Some(at));
        subscription.cancellation.reason = subscription.cancellation.reason.or(Some(reason));
        subscription.pending.clear();
    });
    if let Some((before, after)) = ended {
        if after.status == Status::IncompleteExpired {
            books.tell_change("customer.subscription.updated", at, before, after);
        } else {
            books.tell("customer.subscription.deleted", at, after);
        }
    }
    let unpaid = books
        .invoices
        .iter()
        .filter(|invoice| invoice.subscription.as_deref() == Some(subscription));
    let unpaid: Vec<_> = unpaid
        .filter(|invoice| matches!(invoice.status, "open" | "draft"))
        .map(|invoice: &Invoice| invoice.id.clone())
        .collect();
    for invoice in unpaid {
        books.edit::<Invoice>(&invoice, |invoice| {
            (invoice.next_attempt, invoice.finalizes_at) = (None, None)
        });
        if reason == "expired" {
            billing::void(books, &invoice, at);
        }
    }
}

pub fn at_period_end(books: &mut Books, subscription: &str, at: i64) {
    books.change::<Subscription>(
        subscription,
        "customer.subscription.updated",
        at,
        |subscription| leave(subscription, at),
    );
}

pub fn leave(subscription: &mut Subscription, at: i64) {
    subscription.cancels_at_period_end = true;
    subscription.canceled_at = Some(at);
    subscription.cancellation.reason = Some("cancellation_requested");
}

pub fn stay(subscription: &mut Subscription) {
    subscription.cancels_at_period_end = false;
    subscription.cancel_at = None;
    subscription.canceled_at = None;
    subscription.cancellation = Default::default();
}

/// Takes a cancellation back.
pub fn resume(books: &mut Books, subscription: &str, at: i64) {
    books.change::<Subscription>(subscription, "customer.subscription.updated", at, stay);
}
