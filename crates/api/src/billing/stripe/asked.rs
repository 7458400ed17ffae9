//! What the API says of what an event names.
use super::{Read, Reading, mode};
use crate::{
    App,
    billing::{
        apply::Outcome,
        reduce::{
            READ,
            stripe::{SOURCE, unknown_payment},
        },
        stripe_api::{Failure, Stripe},
    },
};
use anyhow::anyhow;
use db::{
    Timestamp,
    billing::money::{self, Payment},
};
use serde_json::Value;
use webhooks::stripe::{self as wire, Change, Event};

/// Reads an event, and asks the API what has become of it since. Fails while the API cannot be asked: the
/// event waits, and nothing is taken from anybody meanwhile.
pub async fn read(
    app: &App,
    body: &[u8],
    received_at: Timestamp,
) -> anyhow::Result<Result<Reading, Outcome>> {
    let mut event = wire::read(body).map_err(|e| anyhow!("{e}"))?;
    if event.livemode != app.config.billing.is_live(app.config.is_production()) {
        return Ok(Err(Outcome::Ignored("other_mode")));
    }
    if event.account.is_some() {
        return Ok(Err(Outcome::Ignored("connected_account")));
    }
    let Some(api) = &app.stripe else {
        return Ok(match thin_path(&event) {
            Some(_) => Err(Outcome::Parked("thin")),
            None => Ok(Reading {
                event,
                subscription: None,
                is_covered: false,
                payment: None,
            }),
        });
    };
    if let Some(path) = thin_path(&event) {
        if let Change::Thin { object_type } = &event.change
            && object_type.as_deref() == Some("subscription")
        {
            let id = event.object_id.clone().unwrap_or_default();
            let Some(Answer { read, object }) = ask(app, api, &id).await? else {
                return Ok(Err(Outcome::Ignored("gone")));
            };
            event = match object {
                Some(object) => wire::with_object(event, &object).map_err(|e| anyhow!("{e}"))?,
                None => event,
            };
            return Ok(Ok(Reading {
                event,
                subscription: Some(read),
                is_covered: false,
                payment: None,
            }));
        }
        event = match api.get(&path, &[]).await {
            Ok(object) => wire::with_object(event, &object).map_err(|e| anyhow!("{e}"))?,
            Err(Failure::NotFound) => return Ok(Err(Outcome::Ignored("gone"))),
            Err(failure) => return Err(failure.into()),
        };
    }
    let mode = mode(&event);
    let (mut subscription, mut is_covered) = (None, false);
    if let Some(id) = subscription_of(&event) {
        is_covered = is_read(app, mode, id, received_at).await?;
        if !is_covered {
            subscription = ask(app, api, id).await?.map(|answer| answer.read);
        }
    }
    let payment = match payment_of(&event.change) {
        Some(id) => invoice_of(app, api, mode, id).await?,
        None => None,
    };
    Ok(Ok(Reading {
        event,
        subscription,
        is_covered,
        payment,
    }))
}

/// Where the object of a thin event is read, when it is one that matters here.
fn thin_path(event: &Event) -> Option<String> {
    let Change::Thin { object_type } = &event.change else {
        return None;
    };
    let id = event.object_id.as_deref().filter(|id| is_id(id))?;
    let objects = match object_type.as_deref()? {
        "subscription" => "subscriptions",
        "invoice" => "invoices",
        "invoice_payment" => "invoice_payments",
        "checkout.session" => "checkout/sessions",
        "customer" => "customers",
        "charge" => "charges",
        "refund" => "refunds",
        "dispute" => "disputes",
        _ => return None,
    };
    Some(format!("/v1/{objects}/{id}"))
}

/// Ids go into paths: what is none asks for nothing.
fn is_id(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// The subscription whose state an event may have changed.
fn subscription_of(event: &Event) -> Option<&str> {
    match &event.change {
        Change::Subscription(told) => Some(&told.id),
        Change::Checkout(told) => told.subscription.as_deref(),
        Change::Invoice(told) => told.subscription.as_deref(),
        _ => None,
    }
}

/// The payment that money went back of.
fn payment_of(change: &Change) -> Option<&str> {
    match change {
        Change::ChargeRefunded(told) => told.payment_intent.as_deref(),
        Change::Refund(told) => told.payment_intent.as_deref(),
        Change::Dispute(told) => told.payment_intent.as_deref(),
        _ => None,
    }
}

/// Whether it was read after the event came: of many events that wait together, the first asks for all.
async fn is_read(app: &App, mode: &str, id: &str, received_at: Timestamp) -> db::Result<bool> {
    let known = db::billing::known_subscription(&app.db, SOURCE, mode, id).await?;
    Ok(known.is_some_and(|s| s.basis_rank == READ && s.basis_at > received_at))
}

struct Answer {
    read: Read,
    object: Option<Value>,
}

/// `None` where the answer means nothing: the simulated Stripe does not know what somebody made up and
/// signed with the secret that everyone knows.
async fn ask(app: &App, api: &Stripe, id: &str) -> anyhow::Result<Option<Answer>> {
    if !is_id(id) {
        return Err(anyhow!("an id that is none"));
    }
    let at = app.now();
    let object = match api.get(&format!("/v1/subscriptions/{id}"), &[]).await {
        Ok(object) => Some(object),
        Err(Failure::NotFound) if app.config.billing.sells_simulated() => return Ok(None),
        Err(Failure::NotFound) => None,
        Err(failure) => return Err(failure.into()),
    };
    let told = object.as_ref().map(wire::read_subscription).transpose();
    let read = Read {
        id: id.into(),
        told: told.map_err(|e| anyhow!("{e}"))?,
        at,
    };
    Ok(Some(Answer { read, object }))
}

/// Since «basil» neither refund nor dispute names the invoice: asked for where no event has told.
async fn invoice_of(
    app: &App,
    api: &Stripe,
    mode: &str,
    payment: &str,
) -> anyhow::Result<Option<(Payment, money::Invoice)>> {
    let known = money::known_payment(&app.db, SOURCE, mode, payment).await?;
    if !is_id(payment) || known.is_some_and(|p| p.invoice.is_some() || p.plan.is_some()) {
        return Ok(None);
    }
    let query = [
        ("payment[type]", "payment_intent"),
        ("payment[payment_intent]", payment),
    ];
    let found = match api.get("/v1/invoice_payments", &query).await {
        Ok(found) => found,
        Err(Failure::NotFound) => return Ok(None),
        Err(failure) => return Err(failure.into()),
    };
    let Some(invoice) = found["data"][0]["invoice"].as_str().filter(|id| is_id(id)) else {
        return Ok(None);
    };
    let read = match api.get(&format!("/v1/invoices/{invoice}"), &[]).await {
        Ok(read) => wire::read_invoice(&read).map_err(|e| anyhow!("{e}"))?,
        Err(Failure::NotFound) => return Ok(None),
        Err(failure) => return Err(failure.into()),
    };
    let paid_at = read.paid_at.map(Timestamp::from_unix);
    let paid = Payment {
        invoice: Some(invoice.into()),
        amount: found["data"][0]["amount_paid"].as_i64().unwrap_or(0),
        ..unknown_payment(mode, payment)
    };
    Ok(Some((
        paid,
        super::money::invoice_row(mode, &read, None, paid_at),
    )))
}
