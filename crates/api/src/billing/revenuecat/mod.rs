//! The way of RevenueCat's events to the reducer: whose they are, what RevenueCat's API says besides, and
//! writing down what they change. <https://www.revenuecat.com/docs/integrations/webhooks/event-types-and-fields>
use super::{
    apply::{Cause, Outcome},
    reduce::revenuecat::SOURCE,
};
use crate::App;
use anyhow::anyhow;
use db::{Timestamp, Tx, billing::stores};
use held::Taken;
use names::{Who, link, resolve};
use serde_json::Value;
use told::Told;
use uuid::Uuid;
use webhooks::revenuecat::{self as wire, Event, Kind, Subscriber};

mod held;
mod keep;
mod names;
mod told;
mod transfer;

/// An event, with what the API says now of those of our users whom it names.
pub struct Reading {
    event: Event,
    subscribers: Vec<Read>,
}

/// What the API answered to a request that was sent at `at`.
struct Read {
    user: Uuid,
    subscriber: Subscriber,
    at: Timestamp,
}

/// Reads an event, and asks the API what its customers hold. Fails while the API cannot be asked: the event
/// waits, and nothing is taken from anybody meanwhile.
pub async fn read(app: &App, body: &[u8]) -> anyhow::Result<Result<Reading, Outcome>> {
    let event = wire::read(body).map_err(|e| anyhow!("{e}"))?;
    if event.sandbox && app.config.is_production() {
        return Ok(Err(Outcome::Ignored("sandbox")));
    }
    if is_twin(app, event.store.as_deref()) {
        return Ok(Err(Outcome::Ignored("told_by_stripe")));
    }
    let mut subscribers = vec![];
    if let Some(api) = app.revenuecat.as_ref().filter(|_| changes(&event)) {
        let named = event.app_user_ids.iter();
        let moved = event.transferred_from.iter().chain(&event.transferred_to);
        for name in named.chain(moved) {
            // The API makes a customer of whoever it is asked for: only our own users are.
            let Ok(id) = Uuid::try_parse(name) else {
                continue;
            };
            let Some((user,)) = db::billing::known_user_named(&app.db, id).await? else {
                continue;
            };
            if subscribers.iter().any(|read: &Read| read.user == user) {
                continue;
            }
            let at = app.now();
            let answer = api.subscriber(name).await?;
            let subscriber = wire::read_subscriber(&answer).map_err(|e| anyhow!("{e}"))?;
            subscribers.push(Read {
                user,
                subscriber,
                at,
            });
        }
    }
    Ok(Ok(Reading { event, subscribers }))
}

/// What Stripe sold, it tells by itself where it is asked to: counted once.
fn is_twin(app: &App, store: Option<&str>) -> bool {
    store.is_some_and(|store| store.eq_ignore_ascii_case("stripe"))
        && app.config.billing.takes_stripe()
}

fn changes(event: &Event) -> bool {
    matches!(
        event.kind,
        Kind::InitialPurchase
            | Kind::Renewal
            | Kind::Cancellation
            | Kind::Uncancellation
            | Kind::NonRenewingPurchase
            | Kind::SubscriptionPaused
            | Kind::Expiration
            | Kind::BillingIssue
            | Kind::ProductChange
            | Kind::Transfer
            | Kind::SubscriptionExtended
            | Kind::TemporaryEntitlementGrant
            | Kind::RefundReversed
            | Kind::PurchaseRedeemed
    )
}

/// Writes down what an event says. `arrival` is its row in the inbox, which waits while nobody is known by
/// its names.
pub async fn apply(
    app: &App,
    tx: &mut Tx,
    reading: &Reading,
    arrival: Option<Uuid>,
) -> anyhow::Result<Outcome> {
    let event = &reading.event;
    let told = Told {
        app,
        event,
        mode: if event.sandbox { "test" } else { "live" },
        at: Timestamp::from_millis(event.at_ms),
        by: Cause {
            event: &event.id,
            kind: event.kind.as_str(),
            at: Timestamp::from_millis(event.at_ms),
        },
    };
    if let Some(arrival) = arrival {
        stores::stop_waiting(tx, arrival).await?;
    }
    let outcome = match event.kind {
        Kind::Transfer => told.transfer(tx).await?,
        Kind::VirtualCurrencyTransaction => told.virtual_currency(tx).await?,
        Kind::SubscriberAlias => told.alias(tx).await?,
        Kind::TemporaryEntitlementGrant => told.temporary(tx, &reading.subscribers).await?,
        _ => told.purchase(tx).await?,
    };
    for read in &reading.subscribers {
        held::take(app, tx, read, &told.by).await?;
    }
    if let (Outcome::Parked("unlinked"), Some(arrival)) = (outcome, arrival) {
        let moved = event.transferred_from.iter().chain(&event.transferred_to);
        for name in event.app_user_ids.iter().chain(moved) {
            stores::wait_for_name(tx, name, arrival).await?;
        }
    }
    Ok(outcome)
}

/// What a user holds, as the API answered to a request that was sent at `basis`.
pub async fn apply_subscriber(
    app: &App,
    tx: &mut Tx,
    user: Uuid,
    answer: &Value,
    basis: Timestamp,
) -> anyhow::Result<Taken> {
    let read = Read {
        user,
        subscriber: wire::read_subscriber(answer).map_err(|e| anyhow!("{e}"))?,
        at: basis,
    };
    let original = read.subscriber.original_app_user_id.iter();
    let by = Cause::read(basis);
    let who = resolve(tx, original.clone()).await?;
    if who != Who::Many {
        link(app, tx, original, user, &by).await?;
    }
    held::take(app, tx, &read, &by).await
}
