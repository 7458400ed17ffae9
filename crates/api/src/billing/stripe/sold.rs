//! What a checkout sold.
use super::{
    keep::{Touched, reduce},
    owner::owner,
};
use crate::{
    App,
    billing::{
        apply::{self, Cause, Outcome},
        reduce::stripe::{Fact, unknown_payment},
    },
};
use db::{Tx, billing::money::Payment};
use uuid::Uuid;
use webhooks::stripe::Checkout;

/// A checkout says whose customer it is; what it sold by subscription, the subscription's events say.
pub async fn checked_out(
    app: &App,
    tx: &mut Tx,
    mode: &str,
    checkout: &Checkout,
    by: &Cause<'_>,
) -> anyhow::Result<Outcome> {
    let (customer, named) = (checkout.customer.as_deref(), checkout.user_id.as_deref());
    let linked = owner(app, tx, mode, customer, named, by).await?;
    match checkout.mode.as_str() {
        "payment" => purchased(app, tx, mode, checkout, linked, by).await,
        "setup" => Ok(Outcome::Processed),
        _ if linked.is_some() => Ok(Outcome::Processed),
        _ => Ok(Outcome::Parked("unlinked")),
    }
}

/// A one-time purchase opens its plan for ever, once it is paid.
async fn purchased(
    app: &App,
    tx: &mut Tx,
    mode: &str,
    checkout: &Checkout,
    linked: Option<Uuid>,
    by: &Cause<'_>,
) -> anyhow::Result<Outcome> {
    if !["paid", "no_payment_required"].contains(&checkout.payment_status.as_str()) {
        return Ok(Outcome::Processed);
    }
    let user_id = match (&checkout.user_id, linked) {
        (Some(named), None) => apply::user(tx, named).await?,
        (_, linked) => linked,
    };
    let said = |name: &str| checkout.metadata.get(name).cloned();
    let of_price = || said("price").and_then(|price| app.plans.of_price(&price).map(Into::into));
    let Some(plan) = said("plan").or_else(of_price) else {
        return Ok(Outcome::Parked("unknown_price"));
    };
    // What costs nothing has no payment.
    let id = checkout.payment_intent.as_ref().unwrap_or(&checkout.id);
    let bought = Fact::Payment(Payment {
        amount: checkout.amount_total.unwrap_or(0),
        currency: checkout.currency.clone(),
        customer: checkout.customer.clone(),
        user_id,
        plan: Some(plan),
        paid_at: Some(by.at),
        ..unknown_payment(mode, id)
    });
    let reduced = reduce(app, tx, mode, &Touched::payment(id), &[bought], by).await?;
    Ok(match reduced.user() {
        Some(_) => Outcome::Processed,
        None => Outcome::Parked("unlinked"),
    })
}
