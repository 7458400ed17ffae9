//! The few provider events that are sent from here, in the shape of today's APIs.
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// <https://docs.stripe.com/api/versioning>
const STRIPE_VERSION: &str = "2026-10-28.endive";
pub const MONTH_S: i64 = 30 * 24 * 60 * 60;
/// What a server in development takes for the secrets of both providers.
pub const STRIPE_SECRET: &str = "whsec_development_only";
pub const REVENUECAT_SECRET: &str = "development_only";

/// Unix seconds.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_secs()).unwrap_or(i64::MAX)
}

/// Who bought what in a Stripe event. `key` makes its ids, 24 letters and digits: the same key is
/// the same event, customer and subscription.
pub struct Purchase<'a> {
    pub key: &'a str,
    pub user: &'a str,
    pub price: &'a str,
}

/// Stripe's `customer.subscription.created`: active from `now` (unix seconds) for a month.
/// <https://docs.stripe.com/api/subscriptions/object>
pub fn subscription(bought: &Purchase<'_>, now: i64) -> Value {
    let Purchase { key, user, price } = bought;
    let (customer, subscription) = (format!("cus_{key}"), format!("sub_{key}"));
    let product = "prod_probe";
    let recurring = json!({
        "interval": "month", "interval_count": 1, "meter": null, "trial_period_days": null, "usage_type": "licensed",
    });
    let price = json!({
        "id": price, "object": "price", "active": true, "billing_scheme": "per_unit", "created": now - MONTH_S,
        "currency": "usd", "custom_unit_amount": null, "livemode": false, "lookup_key": null, "metadata": {},
        "nickname": null, "product": product, "recurring": recurring, "tax_behavior": "unspecified",
        "tiers_mode": null, "transform_quantity": null, "type": "recurring", "unit_amount": 2900,
        "unit_amount_decimal": "2900",
    });
    let item = json!({
        "id": format!("si_{key}"), "object": "subscription_item", "billing_thresholds": null, "created": now,
        "current_period_end": now + MONTH_S, "current_period_start": now, "discounts": [], "metadata": {},
        "price": price, "quantity": 1, "subscription": subscription, "tax_rates": [],
    });
    let object = json!({
        "id": subscription, "object": "subscription", "application": null, "application_fee_percent": null,
        "automatic_tax": {"disabled_reason": null, "enabled": false, "liability": null},
        "billing_cycle_anchor": now, "billing_cycle_anchor_config": null, "cancel_at": null,
        "cancel_at_period_end": false, "canceled_at": null,
        "cancellation_details": {"comment": null, "feedback": null, "reason": null},
        "collection_method": "charge_automatically", "created": now, "currency": "usd", "customer": customer,
        "days_until_due": null, "default_payment_method": null, "default_source": null, "default_tax_rates": [],
        "description": null, "discounts": [], "ended_at": null,
        "invoice_settings": {"account_tax_ids": null, "issuer": {"type": "self"}},
        "items": {
            "object": "list", "data": [item], "has_more": false, "total_count": 1,
            "url": format!("/v1/subscription_items?subscription={subscription}"),
        },
        "latest_invoice": format!("in_{key}"), "livemode": false, "metadata": {"user_id": user},
        "next_pending_invoice_item_invoice": null, "on_behalf_of": null, "pause_collection": null,
        "payment_settings": {
            "payment_method_options": null, "payment_method_types": null, "save_default_payment_method": "off",
        },
        "pending_invoice_item_interval": null, "pending_setup_intent": null, "pending_update": null, "quantity": 1,
        "schedule": null, "start_date": now, "status": "active", "test_clock": null, "transfer_data": null,
        "trial_end": null, "trial_settings": {"end_behavior": {"missing_payment_method": "create_invoice"}},
        "trial_start": null,
    });
    json!({
        "id": format!("evt_{key}"), "object": "event", "api_version": STRIPE_VERSION, "created": now,
        "data": {"object": object}, "livemode": false, "pending_webhooks": 1,
        "request": {"id": null, "idempotency_key": null}, "type": "customer.subscription.created",
    })
}

/// RevenueCat's `TEST`, as its dashboard sends it.
/// <https://www.revenuecat.com/docs/integrations/webhooks/event-types-and-fields>
pub fn revenuecat_test(id: &str, now: i64) -> Value {
    let at = now * 1000;
    json!({"api_version": "1.0", "event": {
        "aliases": [], "app_id": "appprobe", "app_user_id": "probe", "country_code": "US", "currency": "USD",
        "entitlement_id": null, "entitlement_ids": null, "environment": "SANDBOX", "event_timestamp_ms": at,
        "expiration_at_ms": at + 7_200_000, "id": id, "original_app_user_id": "probe", "period_type": "NORMAL",
        "price": 0, "price_in_purchased_currency": 0, "product_id": "test_product", "purchased_at_ms": at,
        "store": "APP_STORE", "subscriber_attributes": {}, "transaction_id": null, "type": "TEST",
    }})
}

#[cfg(test)]
mod tests {
    use super::*;
    use webhooks::stripe::{Change, Status};

    #[test]
    fn a_subscription_is_read_as_an_active_one() {
        let bought = Purchase {
            key: "k1",
            user: "u1",
            price: "price_pro",
        };
        let body = subscription(&bought, 1_795_000_000).to_string();

        let event = webhooks::stripe::read(body.as_bytes()).unwrap();
        let Change::Subscription(subscription) = event.change else {
            panic!("{event:?}")
        };
        assert_eq!(event.id, "evt_k1");
        assert_eq!(subscription.status, Status::Active);
        assert_eq!(subscription.user_id.as_deref(), Some("u1"));
        assert_eq!(subscription.items[0].price, "price_pro");
        assert_eq!(subscription.period_end, Some(1_795_000_000 + MONTH_S));
    }

    #[test]
    fn a_revenuecat_test_is_read() {
        let body = revenuecat_test("id1", 1_795_000_000).to_string();
        let event = webhooks::revenuecat::read(body.as_bytes()).unwrap();
        assert_eq!(event.kind, webhooks::revenuecat::Kind::Test);
    }
}
