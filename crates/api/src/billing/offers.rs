//! What is sold, by the name that a client gives it and by Stripe's ids.
use super::{
    plans::{Offer, Plan},
    stripe_api::{Failure, Stripe},
};
use crate::{App, Error, Result};

const MAX_QUANTITY: u32 = 1_000;

/// What a request names.
pub struct Named<'a> {
    /// By which of its members.
    pub field: &'static str,
    pub plan: &'a Plan,
    pub offer: &'a Offer,
}

/// What is sold under the name of a plan or of one of its prices, and nothing else; `None` where neither is
/// named.
pub fn named<'a>(
    app: &'a App,
    plan: Option<&str>,
    price: Option<&str>,
    quantity: Option<u32>,
) -> Result<Option<Named<'a>>> {
    if !(1..=MAX_QUANTITY).contains(&quantity.unwrap_or(1)) {
        return Err(Error::invalid("quantity", "has to be 1 to 1,000"));
    }
    let (field, name) = match (plan, price) {
        (None, None) => return Ok(None),
        (Some(plan), None) => ("plan", plan),
        (None, Some(price)) => ("price", price),
        (Some(_), Some(_)) => return Err(one_of_both()),
    };
    let sold = app.plans.offer(name);
    let (plan, offer) = sold.ok_or_else(|| Error::invalid(field, "is not sold here"))?;
    Ok(Some(Named { field, plan, offer }))
}

pub fn one_of_both() -> Error {
    Error::invalid("plan", "or a price has to be named, not both")
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
pub async fn promotion(api: &Stripe, code: &str) -> Result<String> {
    let query = [("code", code), ("active", "true"), ("limit", "1")];
    let codes = api.get("/v1/promotion_codes", &query).await?;
    let id = codes["data"][0]["id"].as_str();
    id.map(ToOwned::to_owned)
        .ok_or_else(|| Error::invalid("promotion_code", "is unknown or does not hold any more"))
}
