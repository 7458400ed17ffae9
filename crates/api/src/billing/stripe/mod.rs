//! The way of Stripe's events to the reducer: what they name is read anew from the API where it can be,
//! and what they change is written down.
use super::apply::{Cause, Outcome};
use crate::App;
use anyhow::anyhow;
use db::{
    Timestamp, Tx,
    billing::money::{Invoice, Payment},
};
use serde_json::Value;
use told::Told;
use webhooks::stripe::{self as wire, Change, Event};

mod asked;
mod keep;
mod money;
mod owner;
mod sold;
mod told;

pub use asked::read;

/// An event, with what the API says now of what it is about.
pub struct Reading {
    event: Event,
    subscription: Option<Read>,
    /// It was read after this event came, on behalf of another: there is nothing new in this one.
    is_covered: bool,
    /// Which invoice a payment was of, and which subscription that invoice is of.
    payment: Option<(Payment, Invoice)>,
}

/// What the API answered to a request that was sent at `at`.
struct Read {
    id: String,
    /// `None`: there is no such subscription.
    told: Option<wire::Subscription>,
    at: Timestamp,
}

fn mode(event: &Event) -> &'static str {
    if event.livemode { "live" } else { "test" }
}

/// Writes down what an event says.
pub async fn apply(app: &App, tx: &mut Tx, reading: &Reading) -> anyhow::Result<Outcome> {
    let Reading { event, .. } = reading;
    let by = Cause {
        event: &event.id,
        kind: &event.kind,
        at: Timestamp::from_unix(event.created),
    };
    let told = Told {
        app,
        mode: mode(event),
        by,
        reading,
    };
    match &event.change {
        Change::Subscription(subscription) => told.subscription(tx, subscription).await,
        Change::Thin { .. } if reading.subscription.is_some() => told.again(tx).await,
        Change::Checkout(_) if sold_nothing(event) => Ok(Outcome::Ignored("no_effect")),
        Change::Checkout(checkout) => told.checkout(tx, checkout).await,
        Change::Invoice(invoice) => told.invoice(tx, invoice).await,
        Change::InvoicePayment(paid) => told.invoice_payment(tx, paid).await,
        Change::ChargeRefunded(charge) => told.charge(tx, charge).await,
        Change::Refund(refund) => told.refund(tx, refund).await,
        Change::Dispute(dispute) => told.dispute(tx, dispute).await,
        Change::Customer(customer) => told.customer(tx, customer).await,
        Change::CustomerDeleted => told.customer_deleted(tx).await,
        Change::Thin { .. } | Change::Other => Ok(Outcome::Ignored("no_effect")),
    }
}

/// A subscription as the API gave it to a request that was sent at `basis`.
pub async fn apply_subscription(
    app: &App,
    tx: &mut Tx,
    object: &Value,
    basis: Timestamp,
) -> anyhow::Result<Outcome> {
    let told = wire::read_subscription(object).map_err(|e| anyhow!("{e}"))?;
    let read = Read {
        id: told.id.clone(),
        told: Some(told),
        at: basis,
    };
    told::again(app, tx, own_mode(app), &read, &Cause::read(basis)).await
}

/// The same where the API says that there is no such subscription.
pub async fn gone(
    app: &App,
    tx: &mut Tx,
    subscription: &str,
    basis: Timestamp,
) -> anyhow::Result<Outcome> {
    let read = Read {
        id: subscription.into(),
        told: None,
        at: basis,
    };
    told::again(app, tx, own_mode(app), &read, &Cause::read(basis)).await
}

/// A checkout session as the API gave it.
pub async fn apply_checkout(
    app: &App,
    tx: &mut Tx,
    session: &Value,
    basis: Timestamp,
) -> anyhow::Result<Outcome> {
    let checkout = wire::read_checkout(session).map_err(|e| anyhow!("{e}"))?;
    if session["status"] == "expired" {
        return Ok(Outcome::Ignored("no_effect"));
    }
    sold::checked_out(app, tx, own_mode(app), &checkout, &Cause::read(basis)).await
}

fn own_mode(app: &App) -> &'static str {
    match app.config.billing.is_live(app.config.is_production()) {
        true => "live",
        false => "test",
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
