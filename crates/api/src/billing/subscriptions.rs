//! Changing what was bought on the web: what it would cost, another plan, its end, and going on after all.
use super::{
    checkout::mismatch,
    manage_url,
    offers::{self, price_id},
    overview::{self, Subscription},
    plans::Offer,
    reread,
    stripe_api::Stripe,
    stripe_of,
};
use crate::{
    App, Error, Result,
    extract::{Auth, Json, Path, json_or_default},
    idempotency,
};
use axum::{
    extract::{Request, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

/// Seconds that a price which was previewed holds for.
const PREVIEW_HOLDS_S: i64 = 3600;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(preview))
        .routes(routes!(change))
        .routes(routes!(cancel))
        .routes(routes!(resume))
}

/// What somebody wants instead.
#[derive(Deserialize, ToSchema)]
struct NewChoice {
    /// The name of a plan.
    #[serde(default)]
    plan: Option<String>,
    /// Or one of its prices, as `GET /api/billing/plans` names them.
    #[serde(default)]
    price: Option<String>,
    /// How many; as many as now unless said.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 1000)]
    quantity: Option<u32>,
    /// Of the preview, whose amounts then hold: Unix time.
    #[serde(default)]
    proration_date: Option<i64>,
}

#[derive(Serialize, ToSchema)]
struct Preview {
    /// Charged at once, in the currency's smallest unit; 0 where there is credit left.
    due_minor: i64,
    /// The same with credit counted.
    total_minor: i64,
    /// ISO code.
    currency: String,
    lines: Vec<Line>,
    /// Say it when changing, within an hour, so that it costs the same: Unix time.
    proration_date: i64,
}

#[derive(Serialize, ToSchema)]
struct Line {
    description: Option<String>,
    amount_minor: i64,
}

/// What a change would cost now.
#[utoipa::path(post, path = "/api/billing/subscriptions/{id}/preview", tag = "billing", params(("id" = String, Path)),
    request_body = NewChoice, responses((status = 200, body = Preview), (status = 404), (status = 409), (status = 503)))]
async fn preview(
    State(app): State<App>,
    auth: Auth,
    Path(id): Path<String>,
    Json(new): Json<NewChoice>,
) -> Result<Json<Preview>> {
    let api = stripe_of(&app)?;
    let offer = new.offer(&app)?;
    let own = own(&app, auth.user, &id).await?;
    let now = read(api, &own.external_id).await?;

    let date = new.proration_date(&app)?.unwrap_or(app.now().unix());
    let mut fields = vec![("subscription".to_owned(), own.external_id)];
    fields.extend(new.fields(api, &app, offer, &now, Some(date)).await?);
    // A part of an object here, and the whole of one when it is changed.
    for (name, _) in fields.iter_mut().skip(1) {
        let (head, rest) = name.split_at(name.find('[').unwrap_or(name.len()));
        *name = format!("subscription_details[{head}]{rest}");
    }
    let key = format!("preview:{}", Uuid::new_v4());
    let invoice = api
        .post("/v1/invoices/create_preview", &fields, &key)
        .await?;

    let number = |of: &Value, name: &str| of[name].as_i64().unwrap_or_default();
    let line = |line: &Value| Line {
        description: line["description"].as_str().map(ToOwned::to_owned),
        amount_minor: number(line, "amount"),
    };
    let lines = invoice["lines"]["data"].as_array();
    let currency = invoice["currency"].as_str().unwrap_or_default();
    Ok(Json(Preview {
        due_minor: number(&invoice, "amount_due"),
        total_minor: number(&invoice, "total"),
        currency: currency.to_uppercase(),
        lines: lines.into_iter().flatten().map(line).collect(),
        proration_date: date,
    }))
}

/// Change to another plan or number, at once. What the rest of the period costs more is charged, and where
/// that fails nothing changes; what it costs less is credited.
#[utoipa::path(post, path = "/api/billing/subscriptions/{id}/change", tag = "billing",
    params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header)), request_body = NewChoice,
    responses((status = 200, body = Subscription), (status = 402), (status = 404), (status = 409), (status = 503)))]
async fn change(
    State(app): State<App>,
    auth: Auth,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(new): Json<NewChoice>,
) -> Result<Response> {
    let api = stripe_of(&app)?;
    let offer = new.offer(&app)?;
    let date = new.proration_date(&app)?;
    let own = own(&app, auth.user, &id).await?;
    let now = read(api, &own.external_id).await?;

    let mut fields = new.fields(api, &app, offer, &now, date).await?;
    fields.push(("payment_behavior".into(), "error_if_incomplete".into()));
    let key = key("change", auth.user, &own.external_id, &headers)?;
    let path = format!("/v1/subscriptions/{}", own.external_id);
    let changed = api.write(&path, &fields, &key).await.map_err(mismatch)?;

    let mut response = settled(&app, api, auth.user, &own.external_id).await?;
    if changed.replayed {
        idempotency::mark(&mut response);
    }
    Ok(response)
}

impl NewChoice {
    /// `None` where the number alone changes.
    fn offer<'a>(&self, app: &'a App) -> Result<Option<&'a Offer>> {
        let (plan, price) = (self.plan.as_deref(), self.price.as_deref());
        match offers::named(app, plan, price, self.quantity)? {
            None if self.quantity.is_some() => Ok(None),
            None => Err(offers::one_of_both()),
            Some(named) if named.offer.interval.is_some() => Ok(Some(named.offer)),
            Some(named) => Err(Error::invalid(named.field, "is no subscription")),
        }
    }

    fn proration_date(&self, app: &App) -> Result<Option<i64>> {
        let now = app.now().unix();
        match self.proration_date {
            Some(date) if !(now - PREVIEW_HOLDS_S..=now).contains(&date) => Err(Error::invalid(
                "proration_date",
                "has to be of a preview of the last hour",
            )),
            date => Ok(date),
        }
    }

    /// The change, as members of a subscription.
    async fn fields(
        &self,
        api: &Stripe,
        app: &App,
        offer: Option<&Offer>,
        now: &Value,
        date: Option<i64>,
    ) -> Result<Vec<(String, String)>> {
        let items = now["items"]["data"].as_array();
        let items: Vec<_> = items.into_iter().flatten().collect();
        let is_plan = |item: &&&Value| {
            let price = &item["price"];
            [&price["id"], &price["lookup_key"]]
                .into_iter()
                .filter_map(|name| name.as_str())
                .any(|name| app.plans.of_price(name).is_some())
        };
        // Beside the plan there may be what a human added at Stripe.
        let item = items.iter().find(is_plan).or(items.first());
        let Some(id) = item.and_then(|item| item["id"].as_str()) else {
            return Err(Error::SubscriptionEnded);
        };
        let mut fields = vec![("items[0][id]".to_owned(), id.to_owned())];
        if let Some(offer) = offer {
            fields.push(("items[0][price]".into(), price_id(api, offer).await?));
        }
        if let Some(quantity) = self.quantity {
            fields.push(("items[0][quantity]".into(), quantity.to_string()));
        }
        fields.push(("proration_behavior".into(), "always_invoice".into()));
        fields.extend(date.map(|date| ("proration_date".into(), date.to_string())));
        Ok(fields)
    }
}

#[derive(Default, Deserialize, ToSchema)]
struct End {
    /// At the end of what is paid for, unless said.
    #[serde(default)]
    at: When,
}

#[derive(Clone, Copy, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum When {
    #[default]
    PeriodEnd,
    Now,
}

/// End a subscription, with the period that is paid for, or now.
#[utoipa::path(post, path = "/api/billing/subscriptions/{id}/cancel", tag = "billing", params(("id" = String, Path)),
    request_body = Option<End>, responses((status = 200, body = Subscription), (status = 404), (status = 409), (status = 503)))]
async fn cancel(
    State(app): State<App>,
    auth: Auth,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response> {
    let end: End = json_or_default(request, &app).await?;
    let api = stripe_of(&app)?;
    let own = own(&app, auth.user, &id).await?;
    read(api, &own.external_id).await?;

    let path = format!("/v1/subscriptions/{}", own.external_id);
    if end.at == When::Now {
        api.delete(&path, &[]).await?;
    } else {
        let key = format!("cancel:{}", Uuid::new_v4());
        api.post(&path, &[("cancel_at_period_end", "true")], &key)
            .await?;
    }

    settled(&app, api, auth.user, &own.external_id).await
}

/// Go on with what was to end, or was paused.
#[utoipa::path(post, path = "/api/billing/subscriptions/{id}/resume", tag = "billing", params(("id" = String, Path)),
    responses((status = 200, body = Subscription), (status = 402), (status = 404), (status = 409), (status = 503)))]
async fn resume(State(app): State<App>, auth: Auth, Path(id): Path<String>) -> Result<Response> {
    let api = stripe_of(&app)?;
    let own = own(&app, auth.user, &id).await?;
    let now = read(api, &own.external_id).await?;

    let path = format!("/v1/subscriptions/{}", own.external_id);
    let key = format!("resume:{}", Uuid::new_v4());
    // Stripe's portal writes either of the first two.
    if now["cancel_at_period_end"] == true {
        api.post(&path, &[("cancel_at_period_end", "false")], &key)
            .await?;
    } else if !now["cancel_at"].is_null() {
        api.post(&path, &[("cancel_at", "")], &key).await?;
    } else if !now["pause_collection"].is_null() {
        api.post(&path, &[("pause_collection", "")], &key).await?;
    } else if now["status"] == "paused" {
        let path = format!("{path}/resume");
        api.post(&path, &[("billing_cycle_anchor", "now")], &key)
            .await?;
    }

    settled(&app, api, auth.user, &own.external_id).await
}

/// A subscription of the user's own that is ours to change. Whose it is else is nobody's business.
pub async fn own(app: &App, user: Uuid, id: &str) -> Result<db::billing::Subscription> {
    let mode = app.config.billing.mode(app.config.is_production());
    let own = db::billing::subscriptions_of_user(&app.db, user).await?;
    let own = own.into_iter().find(|own| own.external_id == id);
    let own = own.ok_or(Error::NotFound)?;
    if own.provider != "stripe" {
        return Err(Error::ManagedElsewhere {
            manage_url: manage_url(&own.store).map(ToOwned::to_owned),
            store: own.store,
        });
    }
    Some(own)
        .filter(|own| own.mode == mode)
        .ok_or(Error::NotFound)
}

/// How it stands at Stripe, where it can still be changed.
async fn read(api: &Stripe, id: &str) -> Result<Value> {
    let now = api.get(&format!("/v1/subscriptions/{id}"), &[]).await?;
    match now["status"].as_str() {
        Some("canceled" | "incomplete_expired") => Err(Error::SubscriptionEnded),
        _ => Ok(now),
    }
}

/// What it is after the change, read anew: a repeated request is answered with how it was after the first.
async fn settled(app: &App, api: &Stripe, user: Uuid, id: &str) -> Result<Response> {
    reread::subscription(app, api, id).await?;
    let own = own(app, user, id).await?;
    Ok(Json(overview::subscription(own)).into_response())
}

fn key(what: &str, user: Uuid, id: &str, headers: &HeaderMap) -> Result<String> {
    let key = match idempotency::chosen_key(headers)? {
        Some(key) => hex::encode(Sha256::digest(key)),
        None => Uuid::new_v4().to_string(),
    };
    Ok(format!("{what}:{user}:{id}:{key}"))
}
