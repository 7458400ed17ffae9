//! RevenueCat's webhook events: <https://www.revenuecat.com/docs/integrations/webhooks/event-types-and-fields>.

use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::dice::Dice;

/// Those that are built in all their parts; any other name gets the parts that all share.
pub const TYPES: &[&str] = &[
    "TEST",
    "INITIAL_PURCHASE",
    "RENEWAL",
    "CANCELLATION",
    "UNCANCELLATION",
    "EXPIRATION",
    "BILLING_ISSUE",
    "TRANSFER",
];

/// What an event says. Everything has a default; the product, the entitlement and the transaction
/// stay the same for the same user, so events follow one another.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RevenueCat {
    #[serde(rename = "type")]
    pub kind: String,
    /// A new one when not given; give it to send the same event twice.
    pub id: Option<String>,
    pub user_id: String,
    /// Of a TRANSFER: who has the purchase from now on.
    pub to_user_id: Option<String>,
    pub entitlement: String,
    pub product_id: String,
    /// From the event to the end of what was paid; negative is in the past. A month when not given,
    /// now for EXPIRATION.
    pub expires_in_s: Option<i64>,
    /// Of a BILLING_ISSUE: from the event to the end of the grace period. 16 days when not given.
    pub grace_s: Option<i64>,
    /// NORMAL, TRIAL, INTRO, PREPAID.
    pub period_type: String,
    /// APP_STORE, PLAY_STORE, STRIPE, …
    pub store: String,
    /// SANDBOX or PRODUCTION.
    pub environment: String,
    /// Of CANCELLATION and EXPIRATION: UNSUBSCRIBE, BILLING_ERROR, CUSTOMER_SUPPORT (a refund), …
    pub reason: String,
    /// Unix seconds; now when not given. Stores deliver late and out of order.
    pub happened_at: Option<i64>,
}

impl Default for RevenueCat {
    fn default() -> Self {
        Self {
            kind: "INITIAL_PURCHASE".to_owned(),
            id: None,
            user_id: "8c1d1d7e-5f0a-4a53-9b5e-0c2a7a4f3b11".to_owned(),
            to_user_id: None,
            entitlement: "pro_access".to_owned(),
            product_id: "com.example.pro.monthly".to_owned(),
            expires_in_s: None,
            grace_s: None,
            period_type: "NORMAL".to_owned(),
            store: "APP_STORE".to_owned(),
            environment: "SANDBOX".to_owned(),
            reason: "UNSUBSCRIBE".to_owned(),
            happened_at: None,
        }
    }
}

const DAY_S: i64 = 24 * 60 * 60;

/// The event, `now` in unix seconds. With an id given it is the same every time.
pub fn event(spec: &RevenueCat, now: i64) -> Value {
    let at = spec.happened_at.unwrap_or(now);
    let id = spec
        .id
        .clone()
        .unwrap_or_else(|| Uuid::new_v4().to_string().to_uppercase());
    let event = match spec.kind.as_str() {
        "TRANSFER" => transfer(spec, at, &id),
        _ => purchase(spec, at, &id),
    };
    json!({"api_version": "1.0", "event": event})
}

fn transfer(spec: &RevenueCat, at: i64, id: &str) -> Value {
    let to = spec
        .to_user_id
        .as_deref()
        .unwrap_or("2f6b2f0e-7d57-4b7a-8a3c-51c0d7a9e902");
    json!({
        "app_id": APP,
        "environment": spec.environment,
        "event_timestamp_ms": at * 1000,
        "id": id,
        "store": spec.store,
        "transferred_from": [spec.user_id],
        "transferred_to": [to],
        "type": "TRANSFER",
    })
}

const APP: &str = "appsim0000";

fn purchase(spec: &RevenueCat, at: i64, id: &str) -> Value {
    let mut dice = Dice::of(&spec.user_id);
    let anonymous = format!("$RCAnonymousID:{:016x}{:016x}", dice.roll(), dice.roll());
    let first_transaction = (2_000_000_000_000_000 + dice.below(999_999_999)).to_string();
    let kind = spec.kind.as_str();

    let default_expiry = if kind == "EXPIRATION" { 0 } else { 30 * DAY_S };
    let expires_at = at + spec.expires_in_s.unwrap_or(default_expiry);
    let purchased_at = if kind == "EXPIRATION" {
        expires_at - 30 * DAY_S
    } else {
        at
    };
    let transaction = if kind == "RENEWAL" {
        format!("{first_transaction}1")
    } else {
        first_transaction.clone()
    };
    let paid = matches!(kind, "TEST" | "INITIAL_PURCHASE" | "RENEWAL");
    let price = if paid && spec.period_type != "TRIAL" {
        json!(9.99)
    } else {
        json!(0)
    };
    let share = |part: f64| if paid { json!(part) } else { Value::Null };
    let entitlements = if kind == "TEST" {
        Value::Null
    } else {
        json!([spec.entitlement])
    };

    let mut event = json!({
        "aliases": [spec.user_id, anonymous],
        "app_id": APP,
        "app_user_id": spec.user_id,
        "commission_percentage": share(0.15),
        "country_code": "US",
        "currency": "USD",
        "entitlement_id": null,
        "entitlement_ids": entitlements,
        "environment": spec.environment,
        "event_timestamp_ms": at * 1000,
        "expiration_at_ms": expires_at * 1000,
        "experiments": [],
        "id": id,
        "is_family_share": false,
        "metadata": null,
        "offer_code": null,
        "original_app_user_id": anonymous,
        "original_transaction_id": first_transaction,
        "period_type": spec.period_type,
        "presented_offering_id": "default",
        "price": price,
        "price_in_purchased_currency": price,
        "product_id": spec.product_id,
        "purchased_at_ms": purchased_at * 1000,
        "renewal_number": if kind == "RENEWAL" { json!(2) } else { Value::Null },
        "store": spec.store,
        "subscriber_attributes": {"$email": {"updated_at_ms": (at - DAY_S) * 1000, "value": "ann@example.com"}},
        "takehome_percentage": share(0.85),
        "tax_percentage": share(0.0),
        "transaction_id": transaction,
        "type": kind,
    });
    match kind {
        "TEST" => event["transaction"] = Value::Null,
        "RENEWAL" => event["is_trial_conversion"] = false.into(),
        "CANCELLATION" => event["cancel_reason"] = spec.reason.as_str().into(),
        "EXPIRATION" => event["expiration_reason"] = spec.reason.as_str().into(),
        "BILLING_ISSUE" => {
            let grace = at + spec.grace_s.unwrap_or(16 * DAY_S);
            event["grace_period_expiration_at_ms"] = (grace * 1000).into();
        }
        _ => {}
    }
    event
}
