//! Selling on the web: a page of Stripe's to pay on. A client says what it wants to buy; what that costs,
//! who pays, and where the browser comes back to is decided here.
use super::{
    customers, manage_url,
    plans::{Offer, Plan},
    portal, reread,
    stripe_api::{Failure, Stripe},
    stripe_of,
};
use crate::{
    App, Error, Result,
    extract::{Auth, Json, Path, Time},
    http::is_loopback,
    idempotency,
};
use anyhow::Context;
use axum::{
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use db::{Timestamp, checkouts::Checkout};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::time::Duration;
use url::Url;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

/// A page that is open for less is not given to anyone any more.
const STILL_OPEN: Duration = Duration::from_secs(10 * 60);
const MAX_QUANTITY: u32 = 1_000;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(begin))
        .routes(routes!(show))
}

/// What somebody wants to buy.
#[derive(Deserialize, Serialize, ToSchema)]
struct NewCheckout {
    /// The name of a plan.
    #[serde(default)]
    plan: Option<String>,
    /// Or one of its prices, as `GET /api/billing/plans` names them.
    #[serde(default)]
    price: Option<String>,
    /// How many; 1 unless said.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 1000)]
    quantity: Option<u32>,
    /// As customers know it. Without it, the page asks for one.
    #[serde(default)]
    promotion_code: Option<String>,
    /// Where the browser comes back to, on a site of yours; `{CHECKOUT_SESSION_ID}` in it becomes the id.
    #[serde(default)]
    success_url: Option<String>,
    /// Where it comes back to unpaid.
    #[serde(default)]
    cancel_url: Option<String>,
    /// Also where there is a subscription already.
    #[serde(default)]
    force: bool,
}

#[derive(Serialize, ToSchema)]
struct Begun {
    /// Where to send the browser.
    url: String,
    id: String,
    expires_at: Time,
}

impl From<Checkout> for Begun {
    fn from(checkout: Checkout) -> Self {
        Self {
            url: checkout.url,
            id: checkout.id,
            expires_at: checkout.expires_at.into(),
        }
    }
}

/// Begin a checkout. The same request again gives the same page while it is open; an `Idempotency-Key`
/// gives it whatever became of it.
#[utoipa::path(post, path = "/api/billing/checkout", tag = "billing", request_body = NewCheckout,
    params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = Begun), (status = 409), (status = 503)))]
async fn begin(
    State(app): State<App>,
    auth: Auth,
    headers: HeaderMap,
    Json(new): Json<NewCheckout>,
) -> Result<Response> {
    let api = stripe_of(&app)?;
    let (plan, offer) = new.offer(&app)?;
    let back = new.back(&app)?;
    let request = Request::of(&app, &auth, &new, idempotency::chosen_key(&headers)?).await?;
    if let Some(known) = request.known(&app).await? {
        let mut response = Json(Begun::from(known)).into_response();
        idempotency::mark(&mut response);
        return Ok(response);
    }
    if !new.force {
        refuse_second(&app, api, auth.user).await?;
    }
    if let Some(open) = request.still_open(&app, api).await? {
        return Ok(Json(Begun::from(open)).into_response());
    }

    let mut fields = new.fields(api, auth.user, plan, offer, back).await?;
    if offer.interval.is_some() && plan.trial_days > 0 && is_new(&app, auth.user).await? {
        let days = plan.trial_days.to_string();
        fields.push(("subscription_data[trial_period_days]", days));
    }
    let session = open(&app, api, &request, fields).await?;

    let begun = request.keep(&app, &plan.name, &session).await?;
    Ok(Json(Begun::from(begun)).into_response())
}

impl NewCheckout {
    /// What is sold under the name, and nothing else.
    fn offer<'a>(&self, app: &'a App) -> Result<(&'a Plan, &'a Offer)> {
        let (field, name) = match (&self.plan, &self.price) {
            (Some(plan), None) => ("plan", plan),
            (None, Some(price)) => ("price", price),
            _ => {
                return Err(Error::invalid(
                    "plan",
                    "or a price has to be named, not both",
                ));
            }
        };
        if !(1..=MAX_QUANTITY).contains(&self.quantity.unwrap_or(1)) {
            return Err(Error::invalid("quantity", "has to be 1 to 1,000"));
        }
        app.plans
            .offer(name)
            .ok_or_else(|| Error::invalid(field, "is not sold here"))
    }

    /// Where the browser comes back to, paid and not.
    fn back(&self, app: &App) -> Result<(String, String)> {
        let (config, own) = (&app.config.billing, app.public_url());
        let or = |asked: &Option<String>, configured: &Option<Url>, usual: String, field| {
            let url = match (asked, configured) {
                (Some(asked), _) => ours(app, field, asked)?,
                (None, Some(configured)) => configured.as_str().to_owned(),
                (None, None) => usual,
            };
            Ok::<_, Error>(url)
        };
        Ok((
            or(
                &self.success_url,
                &config.stripe_success_url,
                format!("{own}/subscriptions/success?session_id={{CHECKOUT_SESSION_ID}}"),
                "success_url",
            )?,
            or(
                &self.cancel_url,
                &config.stripe_cancel_url,
                format!("{own}/subscriptions/cancel"),
                "cancel_url",
            )?,
        ))
    }

    async fn fields(
        &self,
        api: &Stripe,
        user: Uuid,
        plan: &Plan,
        offer: &Offer,
        (success, cancel): (String, String),
    ) -> Result<Vec<(&'static str, String)>> {
        let user = user.to_string();
        let mut fields = vec![
            ("line_items[0][price]", price_id(api, offer).await?),
            (
                "line_items[0][quantity]",
                self.quantity.unwrap_or(1).to_string(),
            ),
            ("success_url", success),
            ("cancel_url", cancel),
            ("client_reference_id", user.clone()),
            ("metadata[user_id]", user.clone()),
            ("metadata[plan]", plan.name.clone()),
        ];
        fields.extend(match offer.interval {
            Some(_) => [
                ("mode", "subscription".into()),
                ("subscription_data[metadata][user_id]", user),
            ],
            None => [
                ("mode", "payment".into()),
                ("payment_intent_data[metadata][user_id]", user),
            ],
        });
        fields.push(match self.promotion_code.as_deref().map(str::trim) {
            None | Some("") => ("allow_promotion_codes", "true".into()),
            Some(code) => ("discounts[0][promotion_code]", promotion(api, code).await?),
        });
        Ok(fields)
    }
}

/// A URL of one of our own sites. Whoever could name another would send those who paid to a page of theirs.
pub fn ours(app: &App, field: &'static str, asked: &str) -> Result<String> {
    let refuse = || {
        let problem =
            "has to be on the site of PUBLIC_URL, STRIPE_SUCCESS_URL or STRIPE_CANCEL_URL";
        Error::invalid(field, problem)
    };
    let url = Url::parse(asked).map_err(|_| refuse())?;
    let config = &app.config.billing;
    let own = Url::parse(&app.public_url()).ok();
    let sites = [&own, &config.stripe_success_url, &config.stripe_cancel_url];
    let is_ours = sites.into_iter().flatten().any(|site| {
        site.origin() == url.origin() && url.origin().is_tuple() && url.username().is_empty()
    });
    // As sign-ins lead back to in development.
    let is_here = !app.config.is_production() && url.scheme() == "http" && is_loopback(&url);
    if !is_ours && !is_here {
        return Err(refuse());
    }
    Ok(url.into())
}

/// Why a price has no id.
pub enum Unpriced {
    /// Nobody made it.
    Missing,
    Failed(Failure),
}

impl From<Unpriced> for Error {
    fn from(unpriced: Unpriced) -> Self {
        match unpriced {
            Unpriced::Missing => Self::BillingRefused,
            Unpriced::Failed(failure) => failure.into(),
        }
    }
}

/// Stripe's id of a price: configured, or found by its lookup key.
pub async fn price_id(api: &Stripe, offer: &Offer) -> Result<String, Unpriced> {
    if let Some(id) = &offer.id {
        return Ok(id.clone());
    }
    let query = [("lookup_keys[]", offer.lookup.as_str()), ("active", "true")];
    let prices = api.get("/v1/prices", &query).await;
    let prices = prices.map_err(Unpriced::Failed)?;
    let id = prices["data"][0]["id"].as_str();
    id.map(ToOwned::to_owned).ok_or_else(|| {
        tracing::error!(
            lookup = offer.lookup,
            "Stripe has no price of this lookup key; `plinth billing setup-stripe` makes it"
        );
        Unpriced::Missing
    })
}

/// Stripe's id of a promotion code that holds.
async fn promotion(api: &Stripe, code: &str) -> Result<String> {
    let query = [("code", code), ("active", "true"), ("limit", "1")];
    let codes = api.get("/v1/promotion_codes", &query).await?;
    let id = codes["data"][0]["id"].as_str();
    id.map(ToOwned::to_owned)
        .ok_or_else(|| Error::invalid("promotion_code", "is unknown or does not hold any more"))
}

/// Refuses who would be charged twice.
async fn refuse_second(app: &App, api: &Stripe, user: Uuid) -> Result<()> {
    let now = app.now();
    let grants = db::billing::grants(&app.db, user).await?;
    let renewing = grants.iter().find(|grant| {
        let open = grant.ends_at.is_none_or(|end| now < end) && grant.revoked_at.is_none();
        grant.will_renew && open
    });
    let Some(renewing) = renewing else {
        return Ok(());
    };
    let subscriptions = db::billing::subscriptions_of_user(&app.db, user).await?;
    let of = |s: &&db::billing::Subscription| renewing.source_ref.ends_with(&s.external_id);
    let store = subscriptions.iter().find(of);
    let store = store.map_or(renewing.source.clone(), |s| s.store.clone());
    let manage_url = match store.as_str() {
        // Whoever is refused is helped on; without Stripe's portal they know why all the same.
        "stripe" => portal::url(app, api, user, None, &[]).await.ok(),
        store => manage_url(store).map(ToOwned::to_owned),
    };
    Err(Error::AlreadySubscribed { store, manage_url })
}

/// Whether somebody never had a subscription.
async fn is_new(app: &App, user: Uuid) -> Result<bool> {
    let before = db::billing::subscriptions_of_user(&app.db, user).await?;
    Ok(before.is_empty())
}

/// Opens the page for the user's customer.
async fn open(
    app: &App,
    api: &Stripe,
    request: &Request,
    fields: Vec<(&'static str, String)>,
) -> Result<Value> {
    let customer = customers::of(app, api, request.user).await?;
    let send = async |customer: String, key: String| {
        let mut fields = fields.clone();
        fields.push(("customer", customer));
        api.post("/v1/checkout/sessions", &fields, &key).await
    };
    let key = request.stripe_key();
    let opened = match send(customer.clone(), key.clone()).await {
        Err(Failure::Refused { code, param, .. })
            if code == "resource_missing" && param.as_deref() == Some("customer") =>
        {
            let other = customers::in_place_of(app, api, request.user, &customer).await?;
            send(other, format!("{key}:after:{customer}")).await
        }
        opened => opened,
    };
    opened.map_err(mismatch)
}

/// What Stripe says when a key comes again with another request.
pub fn mismatch(failure: Failure) -> Error {
    match failure {
        Failure::Refused { code, .. } if code == "idempotency_error" => Error::IdempotencyMismatch,
        failure => failure.into(),
    }
}

/// A request for a checkout, as a second one like it is recognised.
struct Request {
    user: Uuid,
    mode: &'static str,
    hash: [u8; 32],
    /// A client's own, or one of the request and the pages that it led to before: two at once have the same,
    /// and so has one that was cut off before its page was kept.
    key: String,
    chosen: bool,
}

impl Request {
    async fn of(app: &App, auth: &Auth, new: &NewCheckout, chosen: Option<&str>) -> Result<Self> {
        let body = serde_json::to_vec(new).context("a request is JSON")?;
        let hash: [u8; 32] = Sha256::digest(&body).into();
        let key = match chosen {
            Some(key) => format!("key:{}", hex::encode(Sha256::digest(key))),
            None => {
                let (before, one) = db::checkouts::like(&app.db, auth.user, &hash).await?;
                let one = one.unwrap_or_default();
                format!("like:{}:{before}:{one}", hex::encode(hash))
            }
        };
        Ok(Self {
            user: auth.user,
            mode: app.config.billing.mode(app.config.is_production()),
            hash,
            key,
            chosen: chosen.is_some(),
        })
    }

    fn stripe_key(&self) -> String {
        let digest = hex::encode(Sha256::digest(&self.key));
        format!("checkout:{}:{digest}", self.user)
    }

    /// What a request with the client's key led to.
    async fn known(&self, app: &App) -> Result<Option<Checkout>> {
        if !self.chosen {
            return Ok(None);
        }
        let known = db::checkouts::by_key(&app.db, self.user, &self.key).await?;
        match known {
            Some(known) if known.request_hash != self.hash => Err(Error::IdempotencyMismatch),
            known => Ok(known),
        }
    }

    /// The page that the same request without a key led to, while it can be paid on.
    async fn still_open(&self, app: &App, api: &Stripe) -> Result<Option<Checkout>> {
        if self.chosen {
            return Ok(None);
        }
        let until = app.now() + STILL_OPEN;
        let newest =
            db::checkouts::newest_like(&app.db, self.user, self.mode, &self.hash, until).await?;
        let Some(newest) = newest else {
            return Ok(None);
        };
        let path = format!("/v1/checkout/sessions/{}", newest.id);
        match api.get(&path, &[]).await {
            Ok(session) => Ok(Some(newest).filter(|_| session["status"] == "open")),
            Err(Failure::NotFound) => Ok(None),
            Err(failure) => Err(failure.into()),
        }
    }

    async fn keep(&self, app: &App, plan: &str, session: &Value) -> Result<Checkout> {
        let text = |name: &str| {
            let text = session[name].as_str().map(ToOwned::to_owned);
            text.with_context(|| format!("a checkout has a member {name}"))
        };
        let expires_at = session["expires_at"].as_i64();
        let checkout = Checkout {
            id: text("id")?,
            user_id: self.user,
            mode: self.mode.into(),
            request_hash: self.hash.into(),
            plan: plan.into(),
            url: text("url")?,
            expires_at: Timestamp::from_unix(expires_at.context("a checkout expires")?),
        };
        let mut tx = app.db.begin().await?;
        db::checkouts::keep(
            &mut tx,
            &checkout.id,
            self.user,
            self.mode,
            &self.key,
            &self.hash,
            plan,
            &checkout.url,
            checkout.expires_at,
            app.now(),
        )
        .await?;
        tx.commit().await?;
        Ok(checkout)
    }
}

/// The checkout of this id, if it was begun here. What is no id of Stripe's is nobody's.
pub async fn known(app: &App, id: &str) -> Result<Option<Checkout>> {
    if !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Ok(None);
    }
    let mode = app.config.billing.mode(app.config.is_production());
    Ok(db::checkouts::by_id(&app.db, id, mode).await?)
}

#[derive(Serialize, ToSchema)]
struct Standing {
    id: String,
    /// `open`, `complete` or `expired`.
    status: String,
    /// `paid`, `unpaid` or `no_payment_required`. What is complete and unpaid is paid later, as by debit.
    payment_status: String,
    plan: String,
    /// Where to pay, while it is open.
    url: Option<String>,
    expires_at: Time,
    /// What was bought.
    subscription: Option<String>,
}

/// How a checkout stands, read anew from Stripe; what it sold is open when this answers.
#[utoipa::path(get, path = "/api/billing/checkout/{id}", tag = "billing", params(("id" = String, Path)),
    responses((status = 200, body = Standing), (status = 404), (status = 503)))]
async fn show(
    State(app): State<App>,
    auth: Auth,
    Path(id): Path<String>,
) -> Result<Json<Standing>> {
    let api = stripe_of(&app)?;
    let checkout = known(&app, &id).await?;
    let checkout = checkout.filter(|checkout| checkout.user_id == auth.user);
    let checkout = checkout.ok_or(Error::NotFound)?;

    let session = reread::checkout(&app, api, &checkout.id).await?;

    let text = |name: &str| session[name].as_str().unwrap_or_default().to_owned();
    let subscription = &session["subscription"];
    let subscription = subscription["id"].as_str().or(subscription.as_str());
    Ok(Json(Standing {
        status: text("status"),
        payment_status: text("payment_status"),
        plan: checkout.plan,
        url: Some(checkout.url).filter(|_| session["status"] == "open"),
        expires_at: checkout.expires_at.into(),
        subscription: subscription.map(ToOwned::to_owned),
        id: checkout.id,
    }))
}
