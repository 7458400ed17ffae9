//! Stripe's customer for a user of ours: made once, however many ask for it at the same time.
use super::stripe_api::Stripe;
use crate::{App, Error, Result};
use anyhow::Context;
use sha2::{Digest, Sha256};
use uuid::Uuid;

const PROVIDER: &str = "stripe";

/// The customer that a user's checkouts are for.
pub async fn of(app: &App, api: &Stripe, user: Uuid) -> Result<String> {
    let mode = app.config.billing.mode(app.config.is_production());
    match known(app, user).await? {
        Some(customer) => Ok(customer),
        None => make(app, api, user, &format!("cust:{user}:{mode}:v1")).await,
    }
}

/// The same, where there is one.
pub async fn known(app: &App, user: Uuid) -> Result<Option<String>> {
    let mode = app.config.billing.mode(app.config.is_production());
    let customer = db::checkouts::customer(&app.db, PROVIDER, mode, user).await?;
    Ok(customer.map(|(customer,)| customer))
}

/// Another in place of one whom Stripe says that it does not have: somebody deleted it there.
pub async fn in_place_of(app: &App, api: &Stripe, user: Uuid, lost: &str) -> Result<String> {
    let mode = app.config.billing.mode(app.config.is_production());
    let mut tx = app.db.begin().await?;
    db::checkouts::forget_customer(&mut tx, PROVIDER, mode, lost).await?;
    tx.commit().await?;
    match known(app, user).await? {
        Some(customer) => Ok(customer),
        // The first key would give the lost one again.
        None => make(app, api, user, &format!("cust:{user}:{mode}:after:{lost}")).await,
    }
}

/// Makes it at Stripe, then keeps it. Whoever dies between the two, or comes second, is given the same
/// customer for the same key; so nothing is part of the request that may change from one try to the next.
async fn make(app: &App, api: &Stripe, user: Uuid, key: &str) -> Result<String> {
    let mode = app.config.billing.mode(app.config.is_production());
    let named = db::users::by_id(&app.db, user).await?;
    let named = named.ok_or(Error::SessionEnded)?;
    let fields = [("metadata[user_id]", user.to_string())];
    let customer = api.post("/v1/customers", &fields, key).await?;
    let id = customer["id"].as_str().context("a customer has an id")?;
    if let Some(email) = &named.email {
        let digest = hex::encode(Sha256::digest(email));
        let key = format!("{key}:email:{digest}");
        let path = format!("/v1/customers/{id}");
        api.post(&path, &[("email", email)], &key).await?;
    }

    let now = app.now();
    let mut tx = app.db.begin().await?;
    db::checkouts::keep_customer(&mut tx, PROVIDER, mode, id, user, now).await?;
    tx.commit().await?;
    // Where another was faster, theirs.
    Ok(known(app, user).await?.unwrap_or_else(|| id.to_owned()))
}
