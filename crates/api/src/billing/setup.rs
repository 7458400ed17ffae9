//! Makes at Stripe what selling needs: products and prices of `plans.toml`, what customers may do in the
//! portal, and the endpoint of the webhooks. What is there already stays, or is brought up to date.
use super::{
    plans::{Interval, Offer, Plan},
    stripe_api::{EVENTS, Failure, Stripe, VERSION},
};
use crate::{App, http::is_loopback};
use anyhow::Context;
use serde::Serialize;
use serde_json::Value;
use url::Url;
use uuid::Uuid;

/// Marks what this made.
const MARK: &str = "plinth";

/// What came of one part.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Done {
    /// `product`, `price`, `portal` or `webhook`.
    pub what: &'static str,
    pub id: String,
    pub outcome: Outcome,
    /// To be set in the environment.
    pub variable: Option<(String, String)>,
    /// What to do about it besides.
    pub note: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Made,
    Updated,
    /// It was there, and is as it should be.
    Found,
}

pub type Fields = Vec<(String, String)>;

/// Does it all, and tells of each part.
pub async fn run(app: &App, api: &Stripe, mut tell: impl FnMut(Done)) -> anyhow::Result<()> {
    let mut sold = vec![];
    for plan in app.plans.iter().filter(|plan| !plan.offers.is_empty()) {
        let mut found = vec![];
        for offer in &plan.offers {
            found.push(found_price(api, offer).await?);
        }
        // What an operator made by hand is gone on with.
        let product_id = match found.iter().find_map(|price| price["product"].as_str()) {
            Some(product) => product.to_owned(),
            None => {
                let product = product(api, plan).await?;
                let id = product.id.clone();
                tell(product);
                id
            }
        };
        let mut prices = vec![];
        for (n, (offer, found)) in plan.offers.iter().zip(&found).enumerate() {
            let mut price = price(api, plan, offer, found, &product_id).await?;
            if n == 0 {
                let variable = format!("STRIPE_PRICE_{}", plan.name.to_uppercase());
                price.variable = Some((variable, price.id.clone()));
            }
            if offer.interval.is_some() {
                prices.push(price.id.clone());
            }
            tell(price);
        }
        sold.push((product_id, prices));
    }
    tell(portal(app, api, &sold).await?);
    if let Some(webhook) = webhook(app, api).await? {
        tell(webhook);
    }
    Ok(())
}

fn fields<const N: usize>(fields: [(&str, &str); N]) -> Fields {
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    fields.into_iter().map(owned).collect()
}

async fn write(api: &Stripe, path: &str, fields: &Fields) -> Result<Value, Failure> {
    // Everything was looked for first: a key of an earlier run would give what is gone since.
    api.post(path, fields, &format!("setup:{}", Uuid::new_v4()))
        .await
}

fn done(what: &'static str, object: &Value, outcome: Outcome) -> anyhow::Result<Done> {
    let id = object["id"].as_str();
    Ok(Done {
        what,
        id: id
            .with_context(|| format!("a {what} has an id"))?
            .to_owned(),
        outcome,
        variable: None,
        note: None,
    })
}

/// A product has an id of ours, so that there is one of a plan.
async fn product(api: &Stripe, plan: &Plan) -> anyhow::Result<Done> {
    let id = format!("{MARK}_{}", plan.name);
    let path = format!("/v1/products/{id}");
    match api.get(&path, &[]).await {
        Ok(found) if found["name"] == plan.title && found["active"] != false => {
            done("product", &found, Outcome::Found)
        }
        Ok(_) => {
            let wanted = fields([("name", &plan.title), ("active", "true")]);
            done(
                "product",
                &write(api, &path, &wanted).await?,
                Outcome::Updated,
            )
        }
        Err(Failure::NotFound) => {
            let wanted = fields([
                ("id", &id),
                ("name", &plan.title),
                ("metadata[plan]", &plan.name),
            ]);
            let made = write(api, "/v1/products", &wanted).await?;
            done("product", &made, Outcome::Made)
        }
        Err(failure) => Err(failure.into()),
    }
}

/// The price of this lookup key; null where there is none.
async fn found_price(api: &Stripe, offer: &Offer) -> Result<Value, Failure> {
    let query = [("lookup_keys[]", offer.lookup.as_str()), ("active", "true")];
    let mut found = api.get("/v1/prices", &query).await?;
    Ok(found["data"][0].take())
}

/// Stripe's prices do not change: another amount is another price, which takes over the lookup key. Who pays
/// the old one goes on paying it.
async fn price(
    api: &Stripe,
    plan: &Plan,
    offer: &Offer,
    found: &Value,
    product: &str,
) -> anyhow::Result<Done> {
    let interval = offer.interval.map(|interval| match interval {
        Interval::Month => "month",
        Interval::Year => "year",
    });
    let same = found["product"] == product
        && found["unit_amount"] == offer.amount_minor
        && found["currency"] == offer.currency
        && found["recurring"]["interval"].as_str() == interval;
    if same {
        return done("price", found, Outcome::Found);
    }
    let amount = offer.amount_minor.to_string();
    let mut wanted = fields([
        ("product", product),
        ("currency", &offer.currency),
        ("unit_amount", &amount),
        ("lookup_key", &offer.lookup),
        ("transfer_lookup_key", "true"),
        ("nickname", &offer.title),
        ("metadata[plan]", &plan.name),
    ]);
    wanted.extend(interval.map(|interval| ("recurring[interval]".into(), interval.into())));
    let made = write(api, "/v1/prices", &wanted).await?;
    done("price", &made, Outcome::Made)
}

/// Customers see their invoices, change cards, plans and addresses, and end what they pay for with its period.
async fn portal(app: &App, api: &Stripe, sold: &[(String, Vec<String>)]) -> anyhow::Result<Done> {
    let path = "/v1/billing_portal/configurations";
    let all = api.list(path, &[("active", "true")]).await?;
    let found = all
        .iter()
        .find(|found| found["metadata"]["made_by"] == MARK);

    let mut wanted = fields([
        ("metadata[made_by]", MARK),
        ("default_return_url", &app.public_url()),
        ("features[customer_update][enabled]", "true"),
        ("features[customer_update][allowed_updates][0]", "email"),
        ("features[customer_update][allowed_updates][1]", "address"),
        ("features[invoice_history][enabled]", "true"),
        ("features[payment_method_update][enabled]", "true"),
        ("features[subscription_cancel][enabled]", "true"),
        ("features[subscription_cancel][mode]", "at_period_end"),
        ("features[subscription_update][enabled]", "true"),
        (
            "features[subscription_update][default_allowed_updates][0]",
            "price",
        ),
        (
            "features[subscription_update][proration_behavior]",
            "always_invoice",
        ),
    ]);
    let products = sold.iter().filter(|(_, prices)| !prices.is_empty());
    for (n, (product, prices)) in products.enumerate() {
        let part = format!("features[subscription_update][products][{n}]");
        wanted.push((format!("{part}[product]"), product.clone()));
        let prices = prices.iter().enumerate();
        wanted.extend(prices.map(|(m, price)| (format!("{part}[prices][{m}]"), price.clone())));
    }
    let (path, outcome) = match found.and_then(|found| found["id"].as_str()) {
        Some(id) => (format!("{path}/{id}"), Outcome::Updated),
        None => (path.to_owned(), Outcome::Made),
    };
    let mut portal = done("portal", &write(api, &path, &wanted).await?, outcome)?;
    portal.variable = Some(("STRIPE_PORTAL_CONFIGURATION".into(), portal.id.clone()));
    Ok(portal)
}

/// The endpoint speaks one version for ever; Stripe says its secret when it is made, and never again.
async fn webhook(app: &App, api: &Stripe) -> anyhow::Result<Option<Done>> {
    let url = format!("{}/webhooks/stripe", app.public_url());
    let is_here = Url::parse(&url).is_ok_and(|url| is_loopback(&url));
    if is_here && !is_loopback(&app.config.billing.stripe_api_base) {
        // Stripe would not reach it; `stripe listen` does.
        return Ok(None);
    }
    let path = "/v1/webhook_endpoints";
    let all = api.list(path, &[]).await?;
    let (ours, others): (Vec<_>, Vec<_>) = all
        .iter()
        .filter(|found| found["url"] == url)
        .partition(|found| found["api_version"] == VERSION);
    let mut wanted: Fields = EVENTS
        .iter()
        .enumerate()
        .map(|(n, kind)| (format!("enabled_events[{n}]"), (*kind).to_owned()))
        .collect();

    if let Some(found) = ours.first() {
        let listed = found["enabled_events"].as_array();
        let mut listed: Vec<_> = listed
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let mut events = EVENTS.to_vec();
        listed.sort_unstable();
        events.sort_unstable();
        if listed == events && found["status"] != "disabled" {
            return done("webhook", found, Outcome::Found).map(Some);
        }
        wanted.push(("disabled".into(), "false".into()));
        let path = format!("{path}/{}", found["id"].as_str().unwrap_or_default());
        let updated = write(api, &path, &wanted).await?;
        return done("webhook", &updated, Outcome::Updated).map(Some);
    }

    wanted.extend(fields([
        ("url", &url),
        ("api_version", VERSION),
        ("metadata[made_by]", MARK),
    ]));
    let made = write(api, path, &wanted).await?;
    let mut webhook = done("webhook", &made, Outcome::Made)?;
    let secret = made["secret"]
        .as_str()
        .context("an endpoint says its secret when it is made")?;
    webhook.variable = Some(("STRIPE_WEBHOOK_SECRET".into(), secret.to_owned()));
    let ids: Vec<_> = others
        .iter()
        .filter_map(|other| other["id"].as_str())
        .collect();
    if !ids.is_empty() {
        webhook.note = Some(format!(
            "Delete {} at Stripe once STRIPE_WEBHOOK_SECRET has the new secret beside the old one: it speaks another version.",
            ids.join(", ")
        ));
    }
    Ok(Some(webhook))
}
