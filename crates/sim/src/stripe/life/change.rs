//! Another price or quantity in the midst of a period.

use super::billing::{self, Outcome, Presence};
use crate::dice::fresh;
use crate::stripe::books::Books;
use crate::stripe::refusal::Result;
use crate::stripe::state::Subscription;
use crate::stripe::state::invoice::Line;
use crate::stripe::state::subscription::{Item, Status};

/// What becomes of the difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proration {
    /// On the next invoice.
    Later,
    /// On an invoice of its own, at once.
    Now,
    None,
}

impl Proration {
    pub const WORDS: &[&str] = &["create_prorations", "always_invoice", "none"];

    pub fn of(word: &str) -> Self {
        match word {
            "always_invoice" => Self::Now,
            "none" => Self::None,
            _ => Self::Later,
        }
    }
}

/// The subscription as it is with these items, and what it costs until the end of the period: what is
/// not used of the old ones goes back.
pub fn planned(
    subscription: &Subscription,
    items: Vec<Item>,
    proration: Proration,
    at: i64,
) -> (Subscription, Vec<Line>) {
    let mut after = Subscription {
        items,
        ..subscription.clone()
    };
    let interval = |subscription: &Subscription| {
        subscription
            .items
            .iter()
            .find_map(|item| item.price.recurring)
            .map(|r| (r.interval, r.count))
    };
    let restarts =
        interval(subscription) != interval(&after) && subscription.status != Status::Trialing;
    if restarts {
        after.anchor = at;
        after.period = after.period_from(at);
    }
    let prorated = proration != Proration::None && subscription.status != Status::Trialing;
    let mut lines = if prorated {
        prorations(subscription, &after, restarts, at)
    } else {
        vec![]
    };
    if restarts {
        lines.extend(billing::regular_lines(&after, after.period, false));
    }
    (after, lines)
}

fn prorations(before: &Subscription, after: &Subscription, restarts: bool, at: i64) -> Vec<Line> {
    let (start, end) = before.period;
    let (left, whole) = ((end - at).clamp(0, end - start), (end - start).max(1));
    let part = |amount: i64| {
        (i128::from(amount) * i128::from(left) + i128::from(whole) / 2) / i128::from(whole)
    };
    let part = |amount: i64| i64::try_from(part(amount)).unwrap_or_default();
    let day = chrono::DateTime::from_timestamp(at, 0)
        .map(|at| at.format("%-d %b %Y").to_string())
        .unwrap_or_default();
    let line = |item: &Item, amount_minor: i64, words: &str| Line {
        id: fresh("il", 24),
        description: format!(
            "{words} time on {} × {} after {day}",
            item.quantity, item.price.product_name
        ),
        amount_minor,
        price: item.price.clone(),
        quantity: item.quantity,
        period: (at, end),
        is_proration: true,
        item: Some(item.id.clone()),
    };
    let same = |item: &&Item, in_other: &Subscription| {
        in_other.items.iter().any(|other| {
            other.id == item.id
                && other.price.id == item.price.id
                && other.quantity == item.quantity
        })
    };
    let gone = before
        .items
        .iter()
        .filter(|item| restarts || !same(item, after));
    let back = gone.map(|item| line(item, -part(item.amount_minor()), "Unused"));
    let new = after
        .items
        .iter()
        .filter(|item| !restarts && !same(item, before));
    let owed = new.map(|item| line(item, part(item.amount_minor()), "Remaining"));
    back.chain(owed).collect()
}

/// Does it. With `must_be_paid`, an invoice that cannot be paid at once leaves everything as it was.
pub fn items(
    books: &mut Books,
    id: &str,
    items: Vec<Item>,
    proration: Proration,
    must_be_paid: bool,
    presence: Presence,
    at: i64,
) -> Result<Outcome> {
    let Some(subscription) = books.get::<Subscription>(id).cloned() else {
        return Ok(Outcome::Paid);
    };
    let (after, lines) = planned(&subscription, items, proration, at);
    let at_once = proration == Proration::Now || after.period != subscription.period;
    if must_be_paid
        && at_once
        && lines.iter().map(|line| line.amount_minor).sum::<i64>() > 0
        && let Some(card) = billing::card_of(books, Some(id), &subscription.customer)
    {
        card.charge(presence != Presence::Away, presence == Presence::Confirmed)?;
    }

    let invoiced = at_once && !lines.is_empty();
    let before = subscription.clone();
    books.edit::<Subscription>(id, |subscription| {
        (subscription.items, subscription.period, subscription.anchor) =
            (after.items, after.period, after.anchor);
        if !invoiced {
            subscription.pending.extend(lines.iter().cloned());
        }
    });
    let invoice = if invoiced {
        let pending = books
            .edit::<Subscription>(id, |subscription| subscription.pending.clear())
            .map(|(before, _)| before.pending);
        let lines = pending
            .unwrap_or_default()
            .into_iter()
            .chain(lines)
            .collect();
        billing::draft(books, id, lines, "subscription_update", at)
    } else {
        None
    };
    if let Some(after) = books.get::<Subscription>(id).cloned() {
        books.tell_change("customer.subscription.updated", at, before, after);
    }
    let Some(invoice) = invoice else {
        return Ok(Outcome::Paid);
    };
    billing::finalize(books, &invoice, at);
    Ok(billing::collect(books, &invoice, at, presence))
}
