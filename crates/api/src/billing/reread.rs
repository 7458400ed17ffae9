//! What Stripe says now, applied to what is known here. Nothing is concluded from an answer that did not come.
use super::{revenuecat, revenuecat_api::RevenueCat, stripe, stripe_api::Stripe};
use crate::{App, Result};
use serde_json::Value;
use uuid::Uuid;

/// Reads a checkout with what it sold, and applies both.
pub async fn checkout(app: &App, api: &Stripe, id: &str) -> Result<Value> {
    let asked_at = app.now();
    let path = format!("/v1/checkout/sessions/{id}");
    let session = api.get(&path, &[("expand[]", "subscription")]).await?;

    let mut tx = app.db.begin().await?;
    // One that is not paid for says whose customer it is, and no more.
    stripe::apply_checkout(app, &mut tx, &session, asked_at).await?;
    if session["subscription"].is_object() {
        stripe::apply_subscription(app, &mut tx, &session["subscription"], asked_at).await?;
    }
    tx.commit().await?;
    Ok(session)
}

/// Reads one subscription, and applies it.
pub async fn subscription(app: &App, api: &Stripe, id: &str) -> Result<()> {
    let asked_at = app.now();
    let subscription = api.get(&format!("/v1/subscriptions/{id}"), &[]).await?;

    let mut tx = app.db.begin().await?;
    stripe::apply_subscription(app, &mut tx, &subscription, asked_at).await?;
    tx.commit().await?;
    Ok(())
}

/// Reads every subscription of a user's customers, and applies it.
pub async fn user(app: &App, api: &Stripe, user: Uuid) -> Result<()> {
    let mode = app.config.billing.mode(app.config.is_production());
    for customer in db::billing::customers_of_user(&app.db, user).await? {
        if customer.provider != "stripe" || customer.mode != mode {
            continue;
        }
        let asked_at = app.now();
        let query = [
            ("customer", customer.external_id.as_str()),
            ("status", "all"),
        ];
        let subscriptions = api.list("/v1/subscriptions", &query).await?;

        let mut tx = app.db.begin().await?;
        for subscription in &subscriptions {
            stripe::apply_subscription(app, &mut tx, subscription, asked_at).await?;
        }
        tx.commit().await?;
    }
    Ok(())
}

/// Reads what RevenueCat has of a user, and applies it.
pub async fn purchases(app: &App, api: &RevenueCat, user: Uuid) -> Result<()> {
    let asked_at = app.now();
    let subscriber = api.subscriber(&user.to_string()).await?;

    let mut tx = app.db.begin().await?;
    revenuecat::apply_subscriber(app, &mut tx, user, &subscriber, asked_at).await?;
    tx.commit().await?;
    Ok(())
}
