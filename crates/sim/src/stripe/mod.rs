//! Stripe's snapshot events in the shape of API version 2026-10-28.endive, where the period is on
//! the subscription's items: <https://docs.stripe.com/api/events/object>.

mod documents;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::dice::Dice;

pub const API_VERSION: &str = "2026-10-28.endive";

/// Those that applications listen to; others that begin like one of them are built the same way.
pub const TYPES: &[&str] = &[
    "checkout.session.completed",
    "customer.subscription.created",
    "customer.subscription.updated",
    "customer.subscription.deleted",
    "invoice.paid",
    "invoice.payment_failed",
];

/// What an event says. Everything has a default, and without `customer` and `subscription` both
/// follow from the user, so that events of one user belong together.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Stripe {
    #[serde(rename = "type")]
    pub kind: String,
    /// A new one when not given; give it to send the same event twice.
    pub id: Option<String>,
    /// In the metadata and as client_reference_id; without it the event names nobody.
    pub user_id: Option<String>,
    pub customer: Option<String>,
    pub subscription: Option<String>,
    pub email: String,
    pub price: String,
    /// `pro_month` or the like.
    pub lookup_key: Option<String>,
    pub amount_minor: i64,
    pub currency: String,
    /// Of the subscription: active, trialing, past_due, unpaid, canceled, incomplete, … When not
    /// given, canceled for deleted, else active.
    pub status: Option<String>,
    /// Of the subscription before an update.
    pub previous_status: Option<String>,
    pub cancel_at_period_end: bool,
    /// Unix seconds; a month before the end of the period when not given.
    pub period_start: Option<i64>,
    /// Unix seconds; a month from the event when not given.
    pub period_end: Option<i64>,
    /// Of an invoice: subscription_create, subscription_cycle, …
    pub billing_reason: String,
    /// Unix seconds; now when not given. Stripe delivers late and out of order.
    pub happened_at: Option<i64>,
    pub livemode: bool,
}

impl Default for Stripe {
    fn default() -> Self {
        Self {
            kind: "customer.subscription.created".to_owned(),
            id: None,
            user_id: None,
            customer: None,
            subscription: None,
            email: "ann@example.com".to_owned(),
            price: "price_pro".to_owned(),
            lookup_key: None,
            amount_minor: 2900,
            currency: "usd".to_owned(),
            status: None,
            previous_status: None,
            cancel_at_period_end: false,
            period_start: None,
            period_end: None,
            billing_reason: "subscription_cycle".to_owned(),
            happened_at: None,
            livemode: false,
        }
    }
}

/// Whether [`event`] knows what such an event is about.
pub fn builds(kind: &str) -> bool {
    let families = ["checkout.session.", "customer.subscription.", "invoice."];
    families.iter().any(|family| kind.starts_with(family))
}

/// The event, `now` in unix seconds. With an id given it is the same every time. A type of no known
/// family is about the subscription.
pub fn event(spec: &Stripe, now: i64) -> Value {
    let facts = Facts::of(spec, spec.happened_at.unwrap_or(now));
    let mut data = match spec.kind.as_str() {
        kind if kind.starts_with("checkout.session.") => json!({ "object": facts.session() }),
        kind if kind.starts_with("invoice.") => json!({ "object": facts.invoice() }),
        _ => json!({ "object": facts.subscription() }),
    };
    if spec.kind == "customer.subscription.updated" {
        data["previous_attributes"] = facts.previous();
    }
    let fresh = || {
        format!(
            "evt_{}",
            Dice::of(&uuid::Uuid::new_v4().to_string()).letters(24)
        )
    };
    json!({
        "id": spec.id.clone().unwrap_or_else(fresh),
        "object": "event",
        "api_version": API_VERSION,
        "created": facts.at,
        "data": data,
        "livemode": spec.livemode,
        "pending_webhooks": 1,
        "request": {"id": null, "idempotency_key": null},
        "type": spec.kind,
    })
}

struct Facts<'a> {
    spec: &'a Stripe,
    at: i64,
    status: &'a str,
    customer: String,
    subscription: String,
    item: String,
    product: String,
    invoice: String,
    period: (i64, i64),
    metadata: Value,
}

const DAY_S: i64 = 24 * 60 * 60;
const MONTH_S: i64 = 30 * DAY_S;

impl<'a> Facts<'a> {
    fn of(spec: &'a Stripe, at: i64) -> Self {
        let mut dice = Dice::of(spec.user_id.as_deref().unwrap_or("nobody"));
        let mut made = |given: &Option<String>, prefix: &str, length| {
            let id = format!("{prefix}_{}", dice.letters(length));
            given.clone().unwrap_or(id)
        };
        let customer = made(&spec.customer, "cus", 14);
        let subscription = made(&spec.subscription, "sub", 24);
        let item = made(&None, "si", 14);
        let end = spec
            .period_end
            .unwrap_or_else(|| spec.period_start.unwrap_or(at) + MONTH_S);
        let deleted = spec.kind == "customer.subscription.deleted";
        Self {
            status: spec
                .status
                .as_deref()
                .unwrap_or(if deleted { "canceled" } else { "active" }),
            // One invoice a period.
            invoice: format!(
                "in_{}",
                Dice::of(&format!("{subscription}{end}")).letters(24)
            ),
            product: format!("prod_{}", Dice::of(&spec.price).letters(14)),
            period: (spec.period_start.unwrap_or(end - MONTH_S), end),
            metadata: spec
                .user_id
                .as_ref()
                .map_or(json!({}), |user| json!({ "user_id": user })),
            spec,
            at,
            customer,
            subscription,
            item,
        }
    }

    fn subscription(&self) -> Value {
        let (start, end) = self.period;
        let ended = self.spec.kind == "customer.subscription.deleted";
        let leaves = self.spec.cancel_at_period_end;
        let canceled = ended || leaves;
        let trial = self.status == "trialing";
        let when = |so: bool, at: i64| so.then_some(at);
        json!({
            "id": self.subscription,
            "object": "subscription",
            "application": null,
            "application_fee_percent": null,
            "automatic_tax": {"enabled": false, "liability": null, "disabled_reason": null},
            "billing_cycle_anchor": start,
            "billing_cycle_anchor_config": null,
            "billing_mode": {"type": "flexible", "flexible": {"proration_discounts": "included"}, "updated_at": null},
            "billing_schedules": [],
            "billing_thresholds": null,
            "cancel_at": when(leaves, end),
            "cancel_at_period_end": leaves,
            "canceled_at": when(canceled, self.at),
            "cancellation_details": {"comment": null, "feedback": null, "reason": canceled.then_some("cancellation_requested")},
            "collection_method": "charge_automatically",
            "created": start,
            "currency": self.spec.currency,
            "customer": self.customer,
            "customer_account": null,
            "days_until_due": null,
            "default_payment_method": format!("pm_{}", Dice::of(&self.customer).letters(24)),
            "default_source": null,
            "default_tax_rates": [],
            "description": null,
            "discounts": [],
            "ended_at": when(ended, self.at),
            "invoice_settings": {"account_tax_ids": null, "issuer": {"type": "self"}},
            "items": {
                "object": "list",
                "data": [self.item()],
                "has_more": false,
                "total_count": 1,
                "url": format!("/v1/subscription_items?subscription={}", self.subscription),
            },
            "latest_invoice": self.invoice,
            "livemode": self.spec.livemode,
            "managed_payments": null,
            "metadata": self.metadata,
            "next_pending_invoice_item_invoice": null,
            "on_behalf_of": null,
            "pause_collection": null,
            "payment_settings": {"payment_method_options": null, "payment_method_types": null, "save_default_payment_method": "off"},
            "pending_invoice_item_interval": null,
            "pending_setup_intent": null,
            "pending_update": null,
            "plan": self.plan(),
            "quantity": 1,
            "schedule": null,
            "start_date": start,
            "status": self.status,
            "test_clock": null,
            "transfer_data": null,
            "trial_end": when(trial, end),
            "trial_settings": {"end_behavior": {"missing_payment_method": "create_invoice", "billing_cycle_anchor": "now"}},
            "trial_start": when(trial, start),
        })
    }

    fn item(&self) -> Value {
        json!({
            "id": self.item,
            "object": "subscription_item",
            "billing_thresholds": null,
            "created": self.period.0,
            "current_period_end": self.period.1,
            "current_period_start": self.period.0,
            "current_trial": null,
            "discounts": [],
            "metadata": {},
            "plan": self.plan(),
            "price": self.price(),
            "quantity": 1,
            "subscription": self.subscription,
            "tax_rates": [],
        })
    }

    fn price(&self) -> Value {
        json!({
            "id": self.spec.price,
            "object": "price",
            "active": true,
            "billing_scheme": "per_unit",
            "created": PRICE_CREATED,
            "currency": self.spec.currency,
            "custom_unit_amount": null,
            "livemode": self.spec.livemode,
            "lookup_key": self.spec.lookup_key,
            "metadata": {},
            "nickname": null,
            "product": self.product,
            "recurring": {"interval": "month", "interval_count": 1, "meter": null, "trial_period_days": null, "usage_type": "licensed"},
            "tax_behavior": "unspecified",
            "tiers_mode": null,
            "transform_quantity": null,
            "type": "recurring",
            "unit_amount": self.spec.amount_minor,
            "unit_amount_decimal": self.spec.amount_minor.to_string(),
        })
    }

    fn plan(&self) -> Value {
        json!({
            "id": self.spec.price,
            "object": "plan",
            "active": true,
            "amount": self.spec.amount_minor,
            "amount_decimal": self.spec.amount_minor.to_string(),
            "billing_scheme": "per_unit",
            "created": PRICE_CREATED,
            "currency": self.spec.currency,
            "interval": "month",
            "interval_count": 1,
            "livemode": self.spec.livemode,
            "metadata": {},
            "meter": null,
            "nickname": null,
            "product": self.product,
            "tiers_mode": null,
            "transform_usage": null,
            "trial_period_days": null,
            "usage_type": "licensed",
        })
    }

    /// What an update changed, as far as the rest of the event tells.
    fn previous(&self) -> Value {
        let mut previous = json!({});
        let before = self.spec.previous_status.as_deref();
        let before = before.or((self.status != "active").then_some("active"));
        if let Some(status) = before {
            previous["status"] = status.into();
        }
        if self.spec.cancel_at_period_end {
            previous["cancel_at"] = Value::Null;
            previous["cancel_at_period_end"] = false.into();
            previous["canceled_at"] = Value::Null;
            previous["cancellation_details"] = json!({ "reason": null });
        }
        previous
    }
}

const PRICE_CREATED: i64 = 1_786_224_000;
