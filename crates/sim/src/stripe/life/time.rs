//! What time brings: renewals, the ends of trials and of subscriptions, attempts to be paid, sessions
//! that expire. Each happens at its own moment, however late anyone looks.

use super::billing::{self, DRAFT_S, Presence};
use super::{DAY_S, end, payment};
use crate::stripe::books::Books;
use crate::stripe::state::payment::PaymentStatus;
use crate::stripe::state::subscription::Status;
use crate::stripe::state::{Invoice, Payment, Session, Subscription};

/// So long the first invoice of a subscription may remain unpaid.
const INCOMPLETE_S: i64 = 23 * 60 * 60;
/// So long before the end of a trial it is told of.
const TRIAL_NOTICE_S: i64 = 3 * DAY_S;
/// Centuries of daily renewals: whoever turns the clock further sees the rest at the next look.
const MAX_STEPS: usize = 100_000;

enum Due {
    TrialWillEnd(String),
    PeriodEnds(String),
    Ends(String),
    NeverPaid(String),
    CollectsAgain(String),
    Finalizes(String),
    IsTriedAgain(String),
    Expires(String),
    Settles(String),
}

/// Everything that is due, in the order in which it became due.
pub fn catch_up(books: &mut Books) {
    for _ in 0..MAX_STEPS {
        let Some((at, due)) = next(books) else { return };
        happen(books, due, at);
    }
    tracing::warn!("the simulated clock was turned further than it can follow at once");
}

fn next(books: &Books) -> Option<(i64, Due)> {
    let own = books.subscriptions.iter();
    let own = own.filter(|own| !own.is_made_up && !waits_for_bank(books, own));
    let subscriptions = own.flat_map(|subscription| {
        let now = books.now_of(&subscription.customer);
        of_subscription(subscription)
            .into_iter()
            .filter(move |(at, _)| *at <= now)
    });
    let invoices = books.invoices.iter().flat_map(|invoice| {
        let now = books.now_of(&invoice.customer);
        of_invoice(invoice).filter(move |(at, _)| *at <= now)
    });
    let sessions = books
        .sessions
        .iter()
        .filter(|session| session.status == "open" && session.expires_at <= books.now);
    let sessions = sessions.map(|session| (session.expires_at, Due::Expires(session.id.clone())));
    let payments = books.payments.iter().filter_map(|payment| {
        let now = payment
            .customer
            .as_deref()
            .map_or(books.now, |id| books.now_of(id));
        let at = payment.settles_at.filter(|at| *at <= now)?;
        Some((at, Due::Settles(payment.id.clone())))
    });
    subscriptions
        .chain(invoices)
        .chain(sessions)
        .chain(payments)
        .min_by_key(|(at, _)| *at)
}

/// Whether the first payment of it is on its way.
fn waits_for_bank(books: &Books, subscription: &Subscription) -> bool {
    let invoice = subscription.latest_invoice.as_deref();
    let invoice = invoice.and_then(|id| books.get::<Invoice>(id));
    let payment = invoice.and_then(|invoice| invoice.payment.as_deref());
    let payment = payment.and_then(|id| books.get::<Payment>(id));
    subscription.status == Status::Incomplete
        && payment.is_some_and(|payment| payment.status == PaymentStatus::Processing)
}

fn of_subscription(subscription: &Subscription) -> Vec<(i64, Due)> {
    let id = || subscription.id.clone();
    let mut due = vec![];
    match subscription.status {
        Status::Canceled | Status::IncompleteExpired => return due,
        Status::Incomplete => {
            return vec![(subscription.created + INCOMPLETE_S, Due::NeverPaid(id()))];
        }
        Status::Paused => {}
        Status::Trialing if !subscription.trial_end_told => {
            // A trial that is shorter than the notice is told of at once.
            let told = (subscription.period.1 - TRIAL_NOTICE_S).max(subscription.period.0);
            due.push((told, Due::TrialWillEnd(id())));
            due.push((subscription.period.1, Due::PeriodEnds(id())));
        }
        _ => due.push((subscription.period.1, Due::PeriodEnds(id()))),
    }
    if let Some(at) = subscription.cancel_at {
        due.push((at, Due::Ends(id())));
    }
    if let Some(at) = subscription
        .pause
        .as_ref()
        .and_then(|pause| pause.resumes_at)
    {
        due.push((at, Due::CollectsAgain(id())));
    }
    due
}

fn of_invoice(invoice: &Invoice) -> impl Iterator<Item = (i64, Due)> {
    let finalizes = invoice.finalizes_at.filter(|_| invoice.status == "draft");
    let tried = invoice.next_attempt.filter(|_| invoice.status == "open");
    let finalizes = finalizes.map(|at| (at, Due::Finalizes(invoice.id.clone())));
    finalizes
        .into_iter()
        .chain(tried.map(|at| (at, Due::IsTriedAgain(invoice.id.clone()))))
}

fn happen(books: &mut Books, due: Due, at: i64) {
    match due {
        Due::TrialWillEnd(id) => {
            if let Some((_, told)) =
                books.edit::<Subscription>(&id, |subscription| subscription.trial_end_told = true)
            {
                books.tell("customer.subscription.trial_will_end", at, told);
            }
        }
        Due::PeriodEnds(id) => renew(books, &id, at, false),
        Due::Ends(id) => end::now(books, &id, "cancellation_requested", at),
        Due::NeverPaid(id) => end::now(books, &id, "expired", at),
        Due::CollectsAgain(id) => {
            books.change::<Subscription>(
                &id,
                "customer.subscription.updated",
                at,
                |subscription| subscription.pause = None,
            );
        }
        Due::Finalizes(id) => {
            billing::finalize(books, &id, at);
            billing::collect(books, &id, at, Presence::Away);
        }
        Due::IsTriedAgain(id) => {
            billing::collect(books, &id, at, Presence::Away);
        }
        Due::Settles(id) => payment::settle(books, &id, at),
        Due::Expires(id) => {
            books.change::<Session>(&id, "checkout.session.expired", at, |session| {
                session.status = "expired"
            });
        }
    }
}

/// A period ended: the next begins, and is invoiced; or everything ends. `at_once`: someone is waiting,
/// so the invoice is not a draft for an hour.
pub fn renew(books: &mut Books, id: &str, at: i64, at_once: bool) {
    let Some(subscription) = books.get::<Subscription>(id).cloned() else {
        return;
    };
    if subscription.cancels_at_period_end {
        return end::now(books, id, "cancellation_requested", at);
    }
    let trial_ends = subscription.status == Status::Trialing;
    if trial_ends && billing::card_of(books, Some(id), &subscription.customer).is_none() {
        match subscription.without_card {
            "cancel" => return end::now(books, id, "cancellation_requested", at),
            "pause" => return pause(books, id, at),
            _ => {}
        }
    }

    let before = subscription.clone();
    let period = subscription.period_from(at);
    books.edit::<Subscription>(id, |subscription| {
        subscription.period = period;
        if trial_ends {
            (subscription.status, subscription.anchor) = (Status::Active, at);
            subscription.trial = subscription.trial.map(|(start, _)| (start, at));
        }
    });
    let pending = books.edit::<Subscription>(id, |subscription| subscription.pending.clear());
    let mut lines = pending
        .map(|(before, _)| before.pending)
        .unwrap_or_default();
    lines.extend(billing::regular_lines(&subscription, period, false));
    let invoice = billing::draft(books, id, lines, "subscription_cycle", at);
    if let Some(after) = books.get::<Subscription>(id).cloned() {
        books.tell_change("customer.subscription.updated", at, before, after);
    }

    let Some(invoice) = invoice else { return };
    match subscription.pause.as_ref().map(|pause| pause.behavior) {
        Some("void") => billing::void(books, &invoice, at),
        Some("mark_uncollectible") => billing::mark_uncollectible(books, &invoice, at),
        // Kept as a draft; and of an unpaid subscription no one expects anything any more.
        Some(_) => {}
        None if subscription.status == Status::Unpaid => {}
        None if at_once => {
            billing::finalize(books, &invoice, at);
            billing::collect(books, &invoice, at, Presence::Away);
        }
        None => {
            books.edit::<Invoice>(&invoice, |invoice| {
                invoice.finalizes_at = Some(at + DRAFT_S)
            });
        }
    }
}

/// No invoices until it is resumed.
pub fn pause(books: &mut Books, id: &str, at: i64) {
    let paused =
        books.edit::<Subscription>(id, |subscription| subscription.status = Status::Paused);
    if let Some((before, after)) = paused {
        books.tell_change("customer.subscription.updated", at, before, after.clone());
        books.tell("customer.subscription.paused", at, after);
    }
}
