use serde::Serialize;
use serde_json::{Value, json};

use super::invoice::Line;
use super::{Discount, Price, Show, list, put, take, thing};
use crate::stripe::params::Metadata;
use crate::stripe::version::Version;

#[derive(Debug, Clone)]
pub struct Subscription {
    pub id: String,
    pub created: i64,
    pub customer: String,
    pub status: Status,
    pub items: Vec<Item>,
    /// Start and end.
    pub period: (i64, i64),
    /// What periods are counted from.
    pub anchor: i64,
    pub trial: Option<(i64, i64)>,
    /// What becomes of it when a trial ends without a card: create_invoice, cancel or pause.
    pub without_card: &'static str,
    pub cancel_at: Option<i64>,
    pub cancels_at_period_end: bool,
    pub canceled_at: Option<i64>,
    pub ended_at: Option<i64>,
    pub cancellation: Cancellation,
    pub card: Option<String>,
    pub latest_invoice: Option<String>,
    pub pause: Option<Pause>,
    pub discount: Option<Discount>,
    pub description: Option<String>,
    pub metadata: Metadata,
    /// For the next invoice: what changes in the midst of a period cost.
    pub pending: Vec<Line>,
    pub test_clock: Option<String>,
    /// It was told that the trial will end.
    pub trial_end_told: bool,
    /// Somebody told of it that it is so: time does nothing to it.
    pub is_made_up: bool,
    pub livemode: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Incomplete,
    IncompleteExpired,
    Trialing,
    Active,
    PastDue,
    Unpaid,
    Canceled,
    Paused,
}

impl Status {
    pub fn name(self) -> &'static str {
        match self {
            Self::Incomplete => "incomplete",
            Self::IncompleteExpired => "incomplete_expired",
            Self::Trialing => "trialing",
            Self::Active => "active",
            Self::PastDue => "past_due",
            Self::Unpaid => "unpaid",
            Self::Canceled => "canceled",
            Self::Paused => "paused",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        let all = [
            Self::Incomplete,
            Self::IncompleteExpired,
            Self::Trialing,
            Self::Active,
            Self::PastDue,
            Self::Unpaid,
            Self::Canceled,
            Self::Paused,
        ];
        all.into_iter().find(|status| status.name() == name)
    }

    /// Never another again.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Canceled | Self::IncompleteExpired)
    }
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct Cancellation {
    pub comment: Option<String>,
    pub feedback: Option<String>,
    pub reason: Option<&'static str>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Pause {
    /// keep_as_draft, mark_uncollectible or void.
    pub behavior: &'static str,
    pub resumes_at: Option<i64>,
}

#[derive(Debug, Clone)]
pub struct Item {
    pub id: String,
    pub created: i64,
    pub price: Price,
    pub quantity: i64,
    pub metadata: Metadata,
}

thing!(Subscription, "subscription", subscriptions);

impl Subscription {
    pub fn currency(&self) -> &str {
        self.items
            .first()
            .map_or("usd", |item| item.price.currency.as_str())
    }

    pub fn is_leaving(&self) -> bool {
        !self.status.is_over() && (self.cancels_at_period_end || self.cancel_at.is_some())
    }

    /// The end of a period that starts then.
    pub fn period_from(&self, start: i64) -> (i64, i64) {
        let recurring = self.items.iter().find_map(|item| item.price.recurring);
        (
            start,
            recurring.map_or(start, |recurring| recurring.after(start)),
        )
    }
}

impl Item {
    pub fn amount_minor(&self) -> i64 {
        self.price.amount_minor * self.quantity
    }

    fn show(&self, of: &Subscription, version: &Version) -> Value {
        let mut shown = json!({
            "id": self.id,
            "object": "subscription_item",
            "billing_thresholds": null,
            "created": self.created,
            "current_period_end": of.period.1,
            "current_period_start": of.period.0,
            "current_trial": null,
            "discounts": [],
            "metadata": self.metadata,
            "plan": self.price.plan(version),
            "price": self.price.show(version),
            "quantity": self.quantity,
            "subscription": of.id,
            "tax_rates": [],
        });
        if version.is_old() {
            take(
                &mut shown,
                &[
                    "current_period_end",
                    "current_period_start",
                    "current_trial",
                ],
            );
        }
        shown
    }
}

impl Show for Subscription {
    fn show(&self, version: &Version) -> Value {
        let items = self
            .items
            .iter()
            .map(|item| item.show(self, version))
            .collect();
        let only = self.items.first().filter(|_| self.items.len() == 1);
        let mut shown = json!({
            "id": self.id,
            "object": "subscription",
            "application": null,
            "application_fee_percent": null,
            "automatic_tax": {"enabled": false, "liability": null, "disabled_reason": null},
            "billing_cycle_anchor": self.anchor,
            "billing_cycle_anchor_config": null,
            "billing_mode": {"type": "flexible", "flexible": {"proration_discounts": "included"}, "updated_at": null},
            "billing_schedules": [],
            "billing_thresholds": null,
            "cancel_at": self.cancel_at.or((self.cancels_at_period_end && !self.status.is_over()).then_some(self.period.1)),
            "cancel_at_period_end": self.cancels_at_period_end,
            "canceled_at": self.canceled_at,
            "cancellation_details": self.cancellation,
            "collection_method": "charge_automatically",
            "created": self.created,
            "currency": self.currency(),
            "customer": self.customer,
            "customer_account": null,
            "days_until_due": null,
            "default_payment_method": self.card,
            "default_source": null,
            "default_tax_rates": [],
            "description": self.description,
            "discounts": self.discount.iter().map(|discount| discount.id.as_str()).collect::<Vec<_>>(),
            "ended_at": self.ended_at,
            "invoice_settings": {"account_tax_ids": null, "issuer": {"type": "self"}},
            "items": list(items, format!("/v1/subscription_items?subscription={}", self.id)),
            "latest_invoice": self.latest_invoice,
            "livemode": self.livemode,
            "managed_payments": null,
            "metadata": self.metadata,
            "next_pending_invoice_item_invoice": null,
            "on_behalf_of": null,
            "pause_collection": self.pause,
            "payment_settings": {"payment_method_options": null, "payment_method_types": null, "save_default_payment_method": "off"},
            "pending_invoice_item_interval": null,
            "pending_setup_intent": null,
            "pending_update": null,
            "plan": only.map(|item| item.price.plan(version)),
            "quantity": only.map(|item| item.quantity),
            "schedule": null,
            "start_date": self.created,
            "status": self.status,
            "test_clock": self.test_clock,
            "transfer_data": null,
            "trial_end": self.trial.map(|trial| trial.1),
            "trial_settings": {"end_behavior": {"missing_payment_method": self.without_card, "billing_cycle_anchor": "now"}},
            "trial_start": self.trial.map(|trial| trial.0),
        });
        if version.is_old() {
            as_of_old(self, &mut shown, version);
        }
        shown
    }
}

fn as_of_old(subscription: &Subscription, shown: &mut Value, version: &Version) {
    take(
        shown,
        &[
            "billing_mode",
            "billing_schedules",
            "customer_account",
            "managed_payments",
        ],
    );
    let discount = subscription
        .discount
        .as_ref()
        .map(|discount| discount.show(version));
    let (start, end) = subscription.period;
    put(
        shown,
        json!({"current_period_start": start, "current_period_end": end, "discount": discount}),
    );
    take(&mut shown["automatic_tax"], &["disabled_reason"]);
    take(
        &mut shown["trial_settings"]["end_behavior"],
        &["billing_cycle_anchor"],
    );
}
