//! What Stripe's events change.
use super::apply::{self, Outcome};
use crate::App;
use anyhow::anyhow;
use db::{
    Timestamp, Tx,
    billing::{Grant, Subscription},
};
use serde_json::Value;
use std::time::Duration;
use uuid::Uuid;
use webhooks::stripe::{self as wire, Change, Checkout, Event};

const SOURCE: &str = "stripe";
/// The event of a renewal may come this late without a gap in access.
const RENEWAL_LEEWAY: Duration = Duration::from_secs(24 * 3600);
/// Access goes on for so long while a renewal is unpaid.
const GRACE: Duration = Duration::from_secs(7 * 24 * 3600);

pub async fn apply(app: &App, tx: &mut Tx, body: &[u8]) -> anyhow::Result<Outcome> {
    let event = wire::read(body).map_err(|e| anyhow!("{e}"))?;
    if event.livemode != app.config.billing.is_live(app.config.is_production()) {
        return Ok(Outcome::Ignored("other_mode"));
    }
    if event.account.is_some() {
        return Ok(Outcome::Ignored("connected_account"));
    }
    let mode = if event.livemode { "live" } else { "test" };
    match &event.change {
        Change::Subscription(subscription) => changed(app, tx, mode, &event, subscription).await,
        Change::Checkout(_) if sold_nothing(&event) => Ok(Outcome::Ignored("no_effect")),
        Change::Checkout(checkout) => checked_out(app, tx, mode, &event, checkout).await,
        Change::CustomerDeleted => customer_deleted(app, tx, mode, &event).await,
        // The subscription's own events, which come with these, say what they mean for access.
        Change::Invoice(_) => Ok(Outcome::Processed),
        _ => Ok(Outcome::Ignored("no_effect")),
    }
}

/// A checkout that its customer left, or whose slow payment never came.
fn sold_nothing(event: &Event) -> bool {
    [
        "checkout.session.expired",
        "checkout.session.async_payment_failed",
    ]
    .contains(&&*event.kind)
}

/// Within one second deleted wins over updated, and updated over created.
fn rank(event: &Event) -> i64 {
    match event.kind.as_str() {
        "customer.subscription.deleted" => 3,
        "customer.subscription.created" => 1,
        _ => 2,
    }
}

async fn changed(
    app: &App,
    tx: &mut Tx,
    mode: &str,
    event: &Event,
    told: &wire::Subscription,
) -> anyhow::Result<Outcome> {
    // First, so that even an event which is too old to count can say whose the subscription is.
    let (customer, named) = (told.customer.as_deref(), told.user_id.as_deref());
    let owner = owner(app, tx, mode, customer, named).await?;
    let stored = db::billing::subscription(tx, SOURCE, mode, &told.id).await?;
    if let Some(refusal) = stored
        .as_ref()
        .and_then(|stored| outdated(stored, event, told))
    {
        return Ok(Outcome::Ignored(refusal));
    }
    let user = stored.and_then(|stored| stored.user_id).or(owner);
    let row = row(app, mode, event, told, user);
    db::billing::save_subscription(tx, &row, app.now()).await?;
    grant(app, tx, &row).await?;
    Ok(match (user, &row.plan) {
        (None, _) => Outcome::Parked("unlinked"),
        (_, None) => Outcome::Parked("unknown_price"),
        _ => Outcome::Processed,
    })
}

/// Why what is told changes nothing of what is stored.
fn outdated(
    stored: &Subscription,
    event: &Event,
    told: &wire::Subscription,
) -> Option<&'static str> {
    if is_terminal(&stored.status) && !is_over(told) {
        return Some("terminal");
    }
    let (was, is) = (
        (stored.basis_at, stored.basis_rank),
        (Timestamp::from_unix(event.created), rank(event)),
    );
    // Of two updates in one second the later is the one that knows of the other's status.
    let before = told.previous_status.as_deref();
    let follows = before.unwrap_or(told.status.as_str()) == stored.status;
    let stale = is < was || (is == was && stored.basis_event != event.id && !follows);
    stale.then_some("stale")
}

fn is_terminal(status: &str) -> bool {
    ["canceled", "incomplete_expired"].contains(&status)
}

fn is_over(told: &wire::Subscription) -> bool {
    told.deleted || is_terminal(told.status.as_str())
}

/// Whose customer it is. One who is nobody's yet is tied, once and for all, to the user that the object
/// names, who then gets what was told of the customer before.
async fn owner(
    app: &App,
    tx: &mut Tx,
    mode: &str,
    customer: Option<&str>,
    named: Option<&str>,
) -> anyhow::Result<Option<Uuid>> {
    let Some(customer) = customer else {
        return Ok(None);
    };
    let known = db::billing::user_of_customer(tx, SOURCE, mode, customer).await?;
    let (None, Some(named)) = (known, named) else {
        return Ok(known);
    };
    let Some(user) = apply::user(tx, named).await? else {
        return Ok(None);
    };
    db::billing::link_customer(tx, SOURCE, mode, customer, user, app.now()).await?;
    for subscription in db::billing::subscriptions_of_customer(tx, SOURCE, mode, customer).await? {
        let claimed = Subscription {
            user_id: Some(user),
            ..subscription
        };
        db::billing::save_subscription(tx, &claimed, app.now()).await?;
        grant(app, tx, &claimed).await?;
    }
    Ok(Some(user))
}

fn row(
    app: &App,
    mode: &str,
    event: &Event,
    told: &wire::Subscription,
    user: Option<Uuid>,
) -> Subscription {
    let at = |seconds: Option<i64>| seconds.map(Timestamp::from_unix);
    let bought = told
        .items
        .iter()
        .filter_map(|item| app.plans.of_price(&item.price));
    let plan = told
        .items
        .iter()
        .any(|item| app.plans.of_price(&item.price).is_some())
        .then(|| app.plans.best(bought).name.clone());
    let ends_at_period = told
        .cancel_at_period_end
        .then_some(told.period_end)
        .flatten();
    let cancel_at = told.cancel_at.or(ends_at_period);
    let ended = is_over(told);
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
        ended_at: ended.then(|| Timestamp::from_unix(told.ended_at.unwrap_or(event.created))),
        basis_at: Timestamp::from_unix(event.created),
        basis_rank: rank(event),
        basis_event: event.id.clone(),
    }
}

/// Makes what a subscription grants what its state says. Nobody's subscription grants nothing.
async fn grant(app: &App, tx: &mut Tx, subscription: &Subscription) -> anyhow::Result<()> {
    let grants: Vec<_> = grants(subscription).into_iter().collect();
    Ok(
        db::billing::replace_grants(tx, SOURCE, &subscription.external_id, &grants, app.now())
            .await?,
    )
}

/// What a subscription opens, by its state alone: section 3.5 of Stripe's statuses,
/// <https://docs.stripe.com/billing/subscriptions/overview#subscription-statuses>.
pub fn grants(s: &Subscription) -> Option<Grant> {
    let (user_id, plan) = (s.user_id?, s.plan.clone()?);
    // What is not told is over when it was told: nothing is open for ever for want of a date.
    let period_end = s.period_end.unwrap_or(s.basis_at);
    let cancelled_at = s.cancel_at;
    let (ends_at, in_grace) = match s.status.as_str() {
        "trialing" => (cancelled_at.or(s.trial_end).unwrap_or(period_end), false),
        "active" => (cancelled_at.unwrap_or(period_end + RENEWAL_LEEWAY), false),
        // The period that is not paid for has begun: its start is when the renewal first failed.
        "past_due" => {
            let forgiven = s.period_start.unwrap_or(s.basis_at) + GRACE;
            (cancelled_at.map_or(forgiven, |at| at.min(forgiven)), true)
        }
        "unpaid" | "paused" | "incomplete" | "incomplete_expired" | "canceled" => {
            (s.ended_at.unwrap_or(s.basis_at), false)
        }
        // A status that Stripe invents later opens what was paid for.
        _ => (period_end, false),
    };
    Some(Grant {
        user_id,
        entitlement: plan,
        source: SOURCE.into(),
        source_ref: s.external_id.clone(),
        starts_at: s.period_start.unwrap_or(s.basis_at).min(s.basis_at),
        ends_at: Some(ends_at),
        revoked_at: None,
        reason: None,
        in_grace,
        will_renew: s.will_renew,
    })
}

/// A checkout says whose customer it is; what it sold by subscription, the subscription's events say.
async fn checked_out(
    app: &App,
    tx: &mut Tx,
    mode: &str,
    event: &Event,
    checkout: &Checkout,
) -> anyhow::Result<Outcome> {
    let (customer, named) = (checkout.customer.as_deref(), checkout.user_id.as_deref());
    let linked = owner(app, tx, mode, customer, named).await?;
    if checkout.mode == "payment" {
        return purchased(app, tx, event, checkout, linked).await;
    }
    Ok(if linked.is_some() || checkout.mode == "setup" {
        Outcome::Processed
    } else {
        Outcome::Parked("unlinked")
    })
}

/// A one-time purchase opens its plan for ever, once it is paid.
async fn purchased(
    app: &App,
    tx: &mut Tx,
    event: &Event,
    checkout: &Checkout,
    linked: Option<Uuid>,
) -> anyhow::Result<Outcome> {
    if !["paid", "no_payment_required"].contains(&checkout.payment_status.as_str()) {
        return Ok(Outcome::Processed);
    }
    let named = match &checkout.user_id {
        Some(user) => apply::user(tx, user).await?,
        None => None,
    };
    let Some(user_id) = linked.or(named) else {
        return Ok(Outcome::Parked("unlinked"));
    };
    let (Some(plan), Some(payment)) = (checkout.metadata.get("plan"), &checkout.payment_intent)
    else {
        return Ok(Outcome::Parked("unknown_price"));
    };
    let grant = Grant {
        user_id,
        entitlement: plan.clone(),
        source: SOURCE.into(),
        source_ref: payment.clone(),
        starts_at: Timestamp::from_unix(event.created),
        ends_at: None,
        revoked_at: None,
        reason: Some("purchase".into()),
        in_grace: false,
        will_renew: false,
    };
    db::billing::replace_grants(tx, SOURCE, payment, &[grant], app.now()).await?;
    Ok(Outcome::Processed)
}

async fn customer_deleted(
    app: &App,
    tx: &mut Tx,
    mode: &str,
    event: &Event,
) -> anyhow::Result<Outcome> {
    let Some(customer) = event.customer.as_deref().or(event.object_id.as_deref()) else {
        return Ok(Outcome::Ignored("no_effect"));
    };
    let at = Timestamp::from_unix(event.created);
    for subscription in db::billing::subscriptions_of_customer(tx, SOURCE, mode, customer).await? {
        if is_terminal(&subscription.status) {
            continue;
        }
        let ended = Subscription {
            status: "canceled".into(),
            will_renew: false,
            ended_at: Some(at),
            // Its basis stays: the subscription's own end is told too, and knows better.
            ..subscription
        };
        db::billing::save_subscription(tx, &ended, app.now()).await?;
        grant(app, tx, &ended).await?;
    }
    Ok(Outcome::Processed)
}

/// What a subscription is, as it was read at `basis`.
pub async fn apply_subscription(
    app: &App,
    tx: &mut Tx,
    object: &Value,
    basis: Timestamp,
) -> anyhow::Result<Outcome> {
    let event = as_event("customer.subscription.updated", object, basis);
    apply(app, tx, &event).await
}

/// The same of a checkout.
pub async fn apply_checkout(
    app: &App,
    tx: &mut Tx,
    object: &Value,
    basis: Timestamp,
) -> anyhow::Result<Outcome> {
    let event = as_event("checkout.session.completed", object, basis);
    apply(app, tx, &event).await
}

/// Stripe has no such subscription any more.
pub async fn gone(app: &App, tx: &mut Tx, id: &str, basis: Timestamp) -> anyhow::Result<Outcome> {
    let mode = app.config.billing.mode(app.config.is_production());
    let Some(stored) = db::billing::subscription(tx, SOURCE, mode, id).await? else {
        return Ok(Outcome::Ignored("unknown"));
    };
    let ended = Subscription {
        status: "canceled".into(),
        will_renew: false,
        ended_at: Some(stored.ended_at.unwrap_or(basis)),
        ..stored
    };
    db::billing::save_subscription(tx, &ended, app.now()).await?;
    grant(app, tx, &ended).await?;
    Ok(Outcome::Processed)
}

fn as_event(kind: &str, object: &Value, basis: Timestamp) -> Vec<u8> {
    let event = serde_json::json!({
        "id": format!("read_{}", basis.as_micros()),
        "object": "event",
        "type": kind,
        "created": basis.unix(),
        "livemode": object["livemode"],
        "data": {"object": object},
    });
    event.to_string().into_bytes()
}
