//! What RevenueCat's events change. <https://www.revenuecat.com/docs/integrations/webhooks/event-types-and-fields>
use super::apply::{self, Outcome};
use crate::App;
use anyhow::anyhow;
use db::{
    Timestamp, Tx,
    billing::{Grant, Subscription},
};
use std::time::Duration;
use uuid::Uuid;
use webhooks::revenuecat::{self as wire, Event, Kind};

const SOURCE: &str = "revenuecat";
/// The event of a renewal may come this late without a gap in access.
const RENEWAL_LEEWAY: Duration = Duration::from_secs(24 * 3600);
/// Expiries of one period may differ by this between events.
const SAME_PERIOD: Duration = Duration::from_secs(1);

/// How an event leaves the purchase it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Paid, and renewed unless it is bought once or prepaid.
    Active,
    /// Paid for ever.
    Owned,
    /// Paid to the end of the period, not renewed after.
    Cancelled,
    Refunded,
    /// Not paid; open until the grace ends.
    BillingIssue,
    Expired,
}

impl State {
    fn of(event: &Event) -> Option<Self> {
        Some(match event.kind {
            Kind::InitialPurchase
            | Kind::Renewal
            | Kind::Uncancellation
            | Kind::SubscriptionExtended
            | Kind::RefundReversed
            | Kind::PurchaseRedeemed => Self::Active,
            Kind::NonRenewingPurchase => Self::Owned,
            Kind::Cancellation => match event.cancel_reason.as_deref() {
                Some("CUSTOMER_SUPPORT") => Self::Refunded,
                // A billing issue is told at the same time, and knows of the grace.
                Some("BILLING_ERROR") => return None,
                _ => Self::Cancelled,
            },
            Kind::BillingIssue => Self::BillingIssue,
            Kind::Expiration => Self::Expired,
            _ => return None,
        })
    }

    fn word(self) -> &'static str {
        match self {
            Self::Active | Self::Owned => "active",
            Self::Cancelled => "cancelled",
            Self::Refunded => "refunded",
            Self::BillingIssue => "billing_issue",
            Self::Expired => "expired",
        }
    }
}

pub async fn apply(app: &App, tx: &mut Tx, body: &[u8]) -> anyhow::Result<Outcome> {
    let event = wire::read(body).map_err(|e| anyhow!("{e}"))?;
    if event.sandbox && app.config.is_production() {
        return Ok(Outcome::Ignored("sandbox"));
    }
    if event.kind == Kind::Transfer {
        return Ok(Outcome::Parked("transfer"));
    }
    let Some(state) = State::of(&event) else {
        return Ok(Outcome::Ignored("no_effect"));
    };
    let Some(purchase) = event
        .original_transaction_id
        .clone()
        .or(event.transaction_id.clone())
    else {
        return Ok(Outcome::Parked("no_transaction"));
    };
    let mode = if event.sandbox { "test" } else { "live" };
    let source_ref = format!("{mode}:{purchase}");
    let stored = db::billing::subscription(tx, SOURCE, mode, &purchase).await?;
    let told_end = (state == State::Expired).then(|| expires_at(&event).unwrap_or(at(&event)));
    let ended_at = stored
        .as_ref()
        .and_then(|stored| stored.ended_at)
        .max(told_end);

    let (mut row, mut grants) = match stored {
        // Its end is all that an expiration adds.
        Some(stored) if state == State::Expired => {
            let grants = db::billing::grants_of_source(tx, SOURCE, &source_ref).await?;
            (stored, grants)
        }
        Some(stored) if basis(&event, state) < (stored.basis_at, stored.basis_rank) => {
            return Ok(Outcome::Ignored("stale"));
        }
        _ => {
            let user = match resolve(tx, &event).await? {
                Ok(user) => user,
                Err(parked) => return Ok(parked),
            };
            let entitlements = entitlements(app, tx, &event, &source_ref).await?;
            let plan = app.plans.best(entitlements.iter().map(String::as_str));
            let grants = entitlements
                .iter()
                .map(|entitlement| grant(&event, state, user, entitlement, &source_ref))
                .collect();
            let row = row(&event, state, mode, &purchase, user, plan.name.clone());
            (row, grants)
        }
    };
    row.ended_at = ended_at;
    let over = ended_at.filter(|ended| is_over(&row, *ended));
    if let Some(ended) = over {
        end(&mut row, &mut grants, ended);
    }
    db::billing::save_subscription(tx, &row, app.now()).await?;
    db::billing::replace_grants(tx, SOURCE, &source_ref, &grants, app.now()).await?;
    Ok(if state == State::Expired && over.is_none() {
        Outcome::Ignored("stale")
    } else if grants.is_empty() {
        Outcome::Parked("no_entitlement")
    } else {
        Outcome::Processed
    })
}

fn at(event: &Event) -> Timestamp {
    Timestamp::from_millis(event.at_ms)
}

fn expires_at(event: &Event) -> Option<Timestamp> {
    event.expiration_at_ms.map(Timestamp::from_millis)
}

/// What a state is measured by: the later wins, and of one moment the worse. An expiration tells no
/// state but an end; whatever else is told of the purchase, before or after, knows more.
fn basis(event: &Event, state: State) -> (Timestamp, i64) {
    match state {
        State::Active | State::Owned => (at(event), 0),
        State::BillingIssue => (at(event), 1),
        State::Cancelled => (at(event), 2),
        State::Refunded => (at(event), 3),
        State::Expired => (Timestamp::from_unix(0), 0),
    }
}

/// Whether the end that was told is the end of the period that is known. An expiration may be told
/// after the renewal that followed it, and a renewal after the expiration that it made void.
fn is_over(row: &Subscription, ended: Timestamp) -> bool {
    row.period_end.is_none_or(|end| end <= ended + SAME_PERIOD)
}

fn end(row: &mut Subscription, grants: &mut [Grant], ended: Timestamp) {
    row.status = State::Expired.word().into();
    row.will_renew = false;
    for grant in grants {
        grant.ends_at = Some(grant.ends_at.map_or(ended, |end| end.min(ended)));
        grant.in_grace = false;
        grant.will_renew = false;
    }
}

/// Our names of what it opens. Null says nothing about what it had opened.
async fn entitlements(
    app: &App,
    tx: &mut Tx,
    event: &Event,
    source_ref: &str,
) -> db::Result<Vec<String>> {
    if let Some(ids) = &event.entitlement_ids {
        return Ok(ids.iter().map(|id| app.plans.of_revenuecat(id)).collect());
    }
    let grants = db::billing::grants_of_source(tx, SOURCE, source_ref).await?;
    Ok(grants.into_iter().map(|grant| grant.entitlement).collect())
}

/// The one user of ours that the event names, under any of its ids.
async fn resolve(tx: &mut Tx, event: &Event) -> db::Result<Result<Uuid, Outcome>> {
    let mut users = vec![];
    for id in &event.app_user_ids {
        if let Some(user) = apply::user(tx, id).await?
            && !users.contains(&user)
        {
            users.push(user);
        }
    }
    Ok(match users.as_slice() {
        [user] => Ok(*user),
        [] => Err(Outcome::Parked("unlinked")),
        _ => Err(Outcome::Parked("ambiguous")),
    })
}

fn row(
    event: &Event,
    state: State,
    mode: &str,
    purchase: &str,
    user: Uuid,
    plan: String,
) -> Subscription {
    let (basis_at, basis_rank) = basis(event, state);
    Subscription {
        provider: SOURCE.into(),
        mode: mode.into(),
        external_id: purchase.into(),
        user_id: Some(user),
        customer: None,
        store: event.store.clone().unwrap_or_default().to_lowercase(),
        status: state.word().into(),
        plan: Some(plan),
        product: event.product_id.clone(),
        quantity: 1,
        will_renew: will_renew(event, state),
        period_start: event.purchased_at_ms.map(Timestamp::from_millis),
        period_end: expires_at(event),
        trial_end: None,
        cancel_at: expires_at(event).filter(|_| state == State::Cancelled),
        ended_at: None,
        basis_at,
        basis_rank,
        basis_event: event.id.clone(),
    }
}

fn will_renew(event: &Event, state: State) -> bool {
    state == State::Active
        && event.expiration_at_ms.is_some()
        && event.period_type.as_deref() != Some("PREPAID")
}

fn grant(event: &Event, state: State, user_id: Uuid, entitlement: &str, source_ref: &str) -> Grant {
    let (happened, expires) = (at(event), expires_at(event));
    let ends_at = match state {
        State::Active if will_renew(event, state) => expires.map(|end| end + RENEWAL_LEEWAY),
        State::Active | State::Owned | State::Cancelled | State::Refunded | State::Expired => {
            expires
        }
        State::BillingIssue => event
            .grace_period_expiration_at_ms
            .map(Timestamp::from_millis)
            .or(expires),
    };
    Grant {
        user_id,
        entitlement: entitlement.into(),
        source: SOURCE.into(),
        source_ref: source_ref.into(),
        starts_at: event
            .purchased_at_ms
            .map_or(happened, Timestamp::from_millis)
            .min(happened),
        ends_at,
        revoked_at: (state == State::Refunded).then_some(happened),
        reason: (state == State::Refunded).then(|| "refund".into()),
        in_grace: state == State::BillingIssue,
        will_renew: will_renew(event, state),
    }
}
