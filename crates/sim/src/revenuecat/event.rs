//! Events about what somebody bought.

use serde_json::{Value, json};
use uuid::Uuid;

use super::subscriber::{Customer, Purchase};

pub const APP: &str = "appsim0000";
pub const DAY_S: i64 = 24 * 60 * 60;

/// What of an event does not follow from the purchase.
pub struct Told<'a> {
    pub kind: &'a str,
    pub at: i64,
    pub id: String,
    /// Why it was cancelled, or ended.
    pub reason: &'a str,
    /// In units of the currency; negative is given back.
    pub price: f64,
}

pub fn fresh_id() -> String {
    Uuid::new_v4().to_string().to_uppercase()
}

pub fn wrap(event: Value) -> Value {
    json!({"api_version": "1.0", "event": event})
}

pub fn of_purchase(customer: &Customer, purchase: &Purchase, told: &Told<'_>) -> Value {
    let kind = told.kind;
    let share = |part: f64| {
        if told.price > 0.0 {
            json!(part)
        } else {
            Value::Null
        }
    };
    let mut event = json!({
        "aliases": customer.ids,
        "app_id": APP,
        "app_user_id": customer.ids.last(),
        "commission_percentage": share(0.15),
        "country_code": "US",
        "currency": "USD",
        "entitlement_id": null,
        "entitlement_ids": purchase.entitlement.as_ref().map(|entitlement| [entitlement]),
        "environment": purchase.environment,
        "event_timestamp_ms": told.at * 1000,
        "expiration_at_ms": purchase.expires_at.map(|at| at * 1000),
        "experiments": [],
        "id": told.id,
        "is_family_share": false,
        "metadata": null,
        "offer_code": null,
        "original_app_user_id": customer.ids.first(),
        "original_transaction_id": purchase.first_transaction,
        "period_type": purchase.period_type,
        "presented_offering_id": "default",
        "price": told.price,
        "price_in_purchased_currency": told.price,
        "product_id": purchase.product,
        "purchased_at_ms": purchase.purchased_at * 1000,
        "renewal_number": (purchase.renewals > 0).then_some(purchase.renewals + 1),
        "store": purchase.store,
        "subscriber_attributes": {"$email": {"updated_at_ms": (told.at - DAY_S) * 1000, "value": "ann@example.com"}},
        "takehome_percentage": share(0.85),
        "tax_percentage": share(0.0),
        "transaction_id": purchase.transaction(),
        "type": kind,
    });
    match kind {
        "RENEWAL" => {
            event["is_trial_conversion"] =
                (purchase.renewals == 1 && purchase.began_with_trial).into()
        }
        "CANCELLATION" => event["cancel_reason"] = told.reason.into(),
        "EXPIRATION" => event["expiration_reason"] = told.reason.into(),
        "PRODUCT_CHANGE" => {
            event["new_product_id"] = json!(purchase.next.as_ref().map(|next| &next.product))
        }
        "SUBSCRIPTION_PAUSED" => {
            event["auto_resume_at_ms"] = json!(purchase.resumes_at.map(|at| at * 1000))
        }
        "BILLING_ISSUE" => {
            event["grace_period_expiration_at_ms"] = json!(purchase.grace_until.map(|at| at * 1000))
        }
        _ => {}
    }
    event
}

pub fn of_transfer(
    from: &[String],
    to: &[String],
    store: &str,
    environment: &str,
    at: i64,
    id: &str,
) -> Value {
    json!({
        "app_id": APP,
        "environment": environment,
        "event_timestamp_ms": at * 1000,
        "id": id,
        "store": store,
        "transferred_from": from,
        "transferred_to": to,
        "type": "TRANSFER",
    })
}
