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
            Kind::Cancellation if event.cancel_reason.as_deref() == Some("CUSTOMER_SUPPORT") => {
                Self::Refunded
            }
            Kind::Cancellation => Self::Cancelled,
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
    let stored = db::billing::subscription(tx, SOURCE, mode, &purchase).await?;
    if stored
        .as_ref()
        .is_some_and(|stored| outdated(stored, &event, state))
    {
        return Ok(Outcome::Ignored("stale"));
    }
    let user = match resolve(tx, &event).await? {
        Ok(user) => user,
        Err(parked) => return Ok(parked),
    };

    let source_ref = format!("{mode}:{purchase}");
    let entitlements = match &event.entitlement_ids {
        Some(ids) => ids.iter().map(|id| app.plans.of_revenuecat(id)).collect(),
        // Null says nothing about what it had opened.
        None => db::billing::grants_of_source(tx, SOURCE, &source_ref)
            .await?
            .into_iter()
            .map(|grant| grant.entitlement)
            .collect::<Vec<_>>(),
    };
    let row = row(
        &event,
        state,
        mode,
        &purchase,
        user,
        app.plans
            .best(entitlements.iter().map(String::as_str))
            .name
            .clone(),
    );
    db::billing::save_subscription(tx, &row, app.now()).await?;
    let grants: Vec<_> = entitlements
        .iter()
        .map(|entitlement| grant(&event, state, user, entitlement, &source_ref))
        .collect();
    db::billing::replace_grants(tx, SOURCE, &source_ref, &grants, app.now()).await?;
    Ok(if grants.is_empty() {
        Outcome::Parked("no_entitlement")
    } else {
        Outcome::Processed
    })
}

/// An older event, or the expiry of a period that was renewed since.
fn outdated(stored: &Subscription, event: &Event, state: State) -> bool {
    let older = Timestamp::from_millis(event.at_ms) < stored.basis_at;
    let expires = event.expiration_at_ms.map(Timestamp::from_millis);
    let of_earlier_period = stored
        .period_end
        .zip(expires)
        .is_some_and(|(stored, expires)| expires + SAME_PERIOD < stored);
    older || (state == State::Expired && of_earlier_period)
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
    let at = |millis: Option<i64>| millis.map(Timestamp::from_millis);
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
        period_start: at(event.purchased_at_ms),
        period_end: at(event.expiration_at_ms),
        trial_end: None,
        cancel_at: (state == State::Cancelled)
            .then(|| at(event.expiration_at_ms))
            .flatten(),
        ended_at: (state == State::Expired)
            .then(|| at(event.expiration_at_ms))
            .flatten(),
        basis_at: Timestamp::from_millis(event.at_ms),
        basis_rank: 0,
        basis_event: event.id.clone(),
    }
}

fn will_renew(event: &Event, state: State) -> bool {
    state == State::Active
        && event.expiration_at_ms.is_some()
        && event.period_type.as_deref() != Some("PREPAID")
}

fn grant(event: &Event, state: State, user_id: Uuid, entitlement: &str, source_ref: &str) -> Grant {
    let happened = Timestamp::from_millis(event.at_ms);
    let expires = event.expiration_at_ms.map(Timestamp::from_millis);
    let ends_at = match state {
        State::Active if will_renew(event, state) => expires.map(|end| end + RENEWAL_LEEWAY),
        State::Active | State::Owned | State::Cancelled | State::Refunded => expires,
        State::BillingIssue => event
            .grace_period_expiration_at_ms
            .map(Timestamp::from_millis)
            .or(expires),
        State::Expired => Some(expires.unwrap_or(happened).min(happened)),
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
