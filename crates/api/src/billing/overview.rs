use super::{
    entitlements, notices,
    plans::{Interval, Offer},
};
use crate::{
    App, Result,
    extract::{Auth, Json, Time},
};
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(entitlements::routes())
        .routes(routes!(plans))
        .routes(routes!(billing))
}

#[derive(Serialize, ToSchema)]
struct Plans {
    data: Vec<Plan>,
}

#[derive(Serialize, ToSchema)]
struct Plan {
    name: String,
    title: String,
    /// Messages a month; null is no limit.
    messages: Option<u32>,
    /// Tokens a month; null is no limit.
    tokens: Option<u32>,
    models: Vec<String>,
    /// Days for nothing, for who never subscribed before.
    trial_days: u32,
    /// The ways to buy it, the usual one first. What everyone has is not sold.
    prices: Vec<Price>,
}

#[derive(Serialize, ToSchema)]
struct Price {
    /// To check out with.
    price: String,
    title: String,
    /// In the currency's smallest unit.
    amount_minor: u32,
    /// ISO code.
    currency: String,
    /// Null is paid once and for ever.
    interval: Option<Interval>,
}

/// What can be bought.
#[utoipa::path(get, path = "/api/billing/plans", tag = "billing", security(()), responses((status = 200, body = Plans)))]
async fn plans(State(app): State<App>) -> Json<Plans> {
    let some = |limit: u32| (limit > 0).then_some(limit);
    let price = |offer: &Offer| Price {
        price: offer.lookup.clone(),
        title: offer.title.clone(),
        amount_minor: offer.amount_minor,
        currency: offer.currency.to_uppercase(),
        interval: offer.interval,
    };
    let plan = |plan: &super::plans::Plan| Plan {
        name: plan.name.clone(),
        title: plan.title.clone(),
        messages: some(plan.messages),
        tokens: some(plan.tokens),
        models: plan.models.clone(),
        trial_days: plan.trial_days,
        prices: plan.offers.iter().map(price).collect(),
    };
    Json(Plans {
        data: app.plans.iter().map(plan).collect(),
    })
}

#[derive(Serialize, ToSchema)]
pub struct Billing {
    plan: String,
    subscriptions: Vec<Subscription>,
    /// What was bought once and is theirs for ever.
    purchases: Vec<Purchase>,
    /// Two subscriptions renew and are paid for at once: one of them is one too many.
    duplicate_subscriptions: bool,
    /// Virtual currency, and what consumables were worth.
    credits: Vec<Balance>,
}

#[derive(Serialize, ToSchema)]
struct Purchase {
    id: String,
    plan: Option<String>,
    /// In the currency's smallest unit.
    amount_minor: i64,
    /// ISO code.
    currency: Option<String>,
    paid_at: Option<Time>,
}

#[derive(Serialize, ToSchema)]
struct Balance {
    currency: String,
    amount: i64,
}

#[derive(Serialize, ToSchema)]
pub struct Subscription {
    id: String,
    /// `stripe` or `revenuecat`.
    provider: String,
    /// `stripe`, `app_store`, `play_store`, …
    store: String,
    /// The provider's word.
    status: String,
    plan: Option<String>,
    quantity: i64,
    will_renew: bool,
    current_period_end: Option<Time>,
    cancel_at: Option<Time>,
    ended_at: Option<Time>,
}

/// The user's subscriptions, on the web and on phones alike.
#[utoipa::path(get, path = "/api/billing", tag = "billing", responses((status = 200, body = Billing)))]
async fn billing(State(app): State<App>, auth: Auth) -> Result<Json<Billing>> {
    of_user(&app, auth.user).await.map(Json)
}

/// What is known of a user.
pub async fn of_user(app: &App, user: Uuid) -> Result<Billing> {
    let plan = entitlements::plan_of(app, user).await?.name.clone();
    let rows = db::billing::subscriptions_of_user(&app.db, user).await?;
    let grants = db::billing::grants(&app.db, user).await?;
    let bought = db::billing::money::purchases_of_user(&app.db, user).await?;
    let purchase = |row: db::billing::money::Payment| Purchase {
        id: row.external_id,
        plan: row.plan,
        amount_minor: row.amount,
        currency: row.currency.map(|code| code.to_uppercase()),
        paid_at: row.paid_at.map(Into::into),
    };
    let balances = db::billing::stores::balances(&app.db, user).await?;
    let balance = |row: db::billing::stores::Balance| Balance {
        currency: row.currency,
        amount: row.amount,
    };
    Ok(Billing {
        plan,
        subscriptions: rows.into_iter().map(subscription).collect(),
        purchases: bought.into_iter().map(purchase).collect(),
        duplicate_subscriptions: !notices::duplicates(&grants, app.now()).is_empty(),
        credits: balances.into_iter().map(balance).collect(),
    })
}

/// A subscription as it is shown to its owner.
pub fn subscription(row: db::billing::Subscription) -> Subscription {
    // Of a purchase that was renewed, the row still knows an end that was told before.
    let is_over = |status: &str| ["canceled", "incomplete_expired", "expired"].contains(&status);
    Subscription {
        ended_at: row
            .ended_at
            .filter(|_| is_over(&row.status))
            .map(Into::into),
        id: row.external_id,
        provider: row.provider,
        store: row.store,
        status: row.status,
        plan: row.plan,
        quantity: row.quantity,
        will_renew: row.will_renew,
        current_period_end: row.period_end.map(Into::into),
        cancel_at: row.cancel_at.map(Into::into),
    }
}
