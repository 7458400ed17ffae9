//! Selling on the web: a page of Stripe's to pay on. A client says what it wants to buy; what that costs,
//! who pays, and where the browser comes back to is decided here.
use super::{
    begun::Request,
    customers, manage_url,
    offers::{self, Named, price_id, promotion},
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
use axum::{
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use db::checkouts::Checkout;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(begin))
        .routes(routes!(show))
}

/// What somebody wants to buy.
#[derive(Deserialize, Serialize, ToSchema)]
pub struct NewCheckout {
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
    let Named { plan, offer, .. } = new.named(&app)?;
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
    fn named<'a>(&self, app: &'a App) -> Result<Named<'a>> {
        let (plan, price) = (self.plan.as_deref(), self.price.as_deref());
        offers::named(app, plan, price, self.quantity)?.ok_or_else(offers::one_of_both)
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
