//! A subscription as of a moment, and which of two counts.
use super::{SOURCE, is_terminal};
use crate::billing::{
    plans::Plans,
    reduce::{Basis, READ},
};
use db::{Json, Timestamp, billing::Subscription};
use uuid::Uuid;
use webhooks::stripe as wire;

/// A subscription as it was told or read.
pub fn snapshot(
    plans: &Plans,
    mode: &str,
    told: &wire::Subscription,
    basis: &Basis,
    user: Option<Uuid>,
) -> Subscription {
    let at = |seconds: Option<i64>| seconds.map(Timestamp::from_unix);
    let entitlements = entitlements(plans, &told.items);
    let plan = plans.best_of(entitlements.iter().map(String::as_str));
    let ends_at_period = told.cancel_at_period_end.then_some(told.period_end);
    let cancel_at = told.cancel_at.or(ends_at_period.flatten());
    let ended = told.deleted || is_terminal(told.status.as_str());
    let ended_at = at(told.ended_at).unwrap_or(basis.at);
    Subscription {
        provider: SOURCE.into(),
        mode: mode.into(),
        external_id: told.id.clone(),
        user_id: user,
        customer: told.customer.clone(),
        store: SOURCE.into(),
        status: if told.deleted {
            "canceled".into()
        } else {
            told.status.as_str().to_owned()
        },
        plan,
        product: told.items.first().and_then(|item| item.product.clone()),
        quantity: told.items.iter().map(|item| item.quantity).sum(),
        will_renew: !ended && cancel_at.is_none(),
        period_start: at(told.period_start),
        period_end: at(told.period_end),
        trial_end: at(told.trial_end),
        cancel_at: at(cancel_at),
        ended_at: ended.then_some(ended_at),
        basis_at: basis.at,
        basis_rank: basis.rank,
        basis_event: basis.event.clone(),
        entitlements: Some(Json(entitlements)),
        kind: None,
        started_at: at(told.created),
        latest_invoice: told.latest_invoice.clone(),
        paused: told.pause_collection.clone(),
        paid_up_at: None,
        grace_until: None,
        refunded_at: None,
    }
}

/// Everything that the items open: by the price's id, else its lookup key, else what its metadata says.
fn entitlements(plans: &Plans, items: &[wire::Item]) -> Vec<String> {
    let mut all: Vec<String> = vec![];
    for item in items {
        let lookup = || plans.of_price(item.lookup_key.as_deref()?);
        let opens = match plans.of_price(&item.price).or_else(lookup) {
            Some(plan) => vec![plan.to_owned()],
            None => {
                let named = item.entitlements.iter();
                named.map(|name| plans.of_revenuecat(name)).collect()
            }
        };
        all.extend(opens);
    }
    all.sort();
    all.dedup();
    all
}

/// All that a subscription opens, by name.
pub fn names(s: &Subscription) -> Vec<String> {
    match &s.entitlements {
        Some(names) => names.0.clone(),
        None => s.plan.clone().into_iter().collect(),
    }
}

/// Why what is told changes nothing of what is known.
pub fn outdated(
    known: &Subscription,
    told: &Subscription,
    previous_status: Option<&str>,
) -> Option<&'static str> {
    let is_read = |s: &Subscription| s.basis_rank == READ;
    // A read says how it is, also where a row had it wrong.
    if is_terminal(&known.status) && !is_terminal(&told.status) && !is_read(told) {
        return Some("terminal");
    }
    let second = |s: &Subscription| s.basis_at.unix();
    // Of two updates in one second the later is the one that knows of the other's status.
    let follows = previous_status.unwrap_or(&told.status) == known.status;
    let stale = match (is_read(known), is_read(told)) {
        (true, true) => told.basis_at < known.basis_at,
        (false, true) => second(told) < second(known),
        (true, false) if second(told) == second(known) => previous_status.is_none() || !follows,
        (true, false) => second(told) < second(known),
        (false, false) => {
            let (was, is) = (
                (known.basis_at, known.basis_rank),
                (told.basis_at, told.basis_rank),
            );
            is < was || (is == was && known.basis_event != told.basis_event && !follows)
        }
    };
    stale.then_some("stale")
}
