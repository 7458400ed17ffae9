//! Marks: what was told of one thing, in whatever order and however often, is one.
use super::SOURCE;
use db::{
    Timestamp,
    billing::money::{Invoice, Payment, Reversal},
};

/// Merges what is told into what is known of the same object.
pub fn merge<T: Clone>(
    known: &mut Vec<T>,
    told: &T,
    is_same: impl Fn(&T) -> bool,
    merged: impl Fn(&T, &T) -> T,
) {
    match known.iter_mut().find(|known| is_same(known)) {
        Some(known) => *known = merged(known, told),
        None => known.push(told.clone()),
    }
}

/// An invoice of which only its name is known.
pub fn unknown_invoice(mode: &str, id: &str) -> Invoice {
    Invoice {
        provider: SOURCE.into(),
        mode: mode.into(),
        external_id: id.into(),
        subscription: None,
        billing_reason: None,
        amount_paid: 0,
        currency: None,
        period_end: None,
        failed_at: None,
        action_at: None,
        url: None,
        paid_at: None,
    }
}

/// A payment of which only its name is known.
pub fn unknown_payment(mode: &str, id: &str) -> Payment {
    Payment {
        provider: SOURCE.into(),
        mode: mode.into(),
        external_id: id.into(),
        invoice: None,
        amount: 0,
        currency: None,
        customer: None,
        user_id: None,
        plan: None,
        paid_at: None,
    }
}

pub fn first(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    a.into_iter().chain(b).min()
}

/// Of two texts that should be the same, one whatever came first.
fn either(a: &Option<String>, b: &Option<String>) -> Option<String> {
    a.as_ref().max(b.as_ref()).cloned()
}

pub fn invoice(a: &Invoice, b: &Invoice) -> Invoice {
    Invoice {
        subscription: either(&a.subscription, &b.subscription),
        billing_reason: either(&a.billing_reason, &b.billing_reason),
        amount_paid: a.amount_paid.max(b.amount_paid),
        currency: either(&a.currency, &b.currency),
        period_end: a.period_end.max(b.period_end),
        failed_at: first(a.failed_at, b.failed_at),
        action_at: first(a.action_at, b.action_at),
        url: either(&a.url, &b.url),
        paid_at: first(a.paid_at, b.paid_at),
        ..a.clone()
    }
}

pub fn payment(a: &Payment, b: &Payment) -> Payment {
    Payment {
        invoice: either(&a.invoice, &b.invoice),
        amount: a.amount.max(b.amount),
        currency: either(&a.currency, &b.currency),
        customer: either(&a.customer, &b.customer),
        user_id: a.user_id.or(b.user_id),
        plan: either(&a.plan, &b.plan),
        paid_at: first(a.paid_at, b.paid_at),
        ..a.clone()
    }
}

/// The later counts, and of one second what is further on.
pub fn reversal(a: &Reversal, b: &Reversal) -> Reversal {
    let standing = |r: &Reversal| {
        let rank = match r.status.as_str() {
            "warning_needs_response" | "pending" => 0,
            "warning_under_review" | "requires_action" => 1,
            "needs_response" => 2,
            "under_review" => 3,
            "succeeded" => 4,
            "failed" | "canceled" => 5,
            _ => 6,
        };
        (r.basis_at, rank, r.amount)
    };
    if standing(b) >= standing(a) { b } else { a }.clone()
}
