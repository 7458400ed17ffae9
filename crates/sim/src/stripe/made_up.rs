//! Events of a story that never happened here: one is told what it says, and everything else follows.

use serde::Deserialize;
use serde_json::{Value, json};

use super::API_VERSION;
use super::books::Books;
use super::life::DAY_S;
use super::params::Metadata;
use super::state::catalog::Recurring;
use super::state::invoice::Line;
use super::state::session::SessionLine;
use super::state::subscription::{Cancellation, Item, Status};
use super::state::{Customer, Invoice, Price, Session, Show, Subscription};
use super::version::Version;
use crate::dice::{Dice, fresh};

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
    let newest = Version::newest();
    let mut data = match spec.kind.as_str() {
        kind if kind.starts_with("checkout.session.") => {
            json!({ "object": facts.session().show(&newest) })
        }
        kind if kind.starts_with("invoice.") => json!({ "object": facts.invoice().show(&newest) }),
        _ => {
            // Also a status that there is not.
            let mut subscription = facts.subscription().show(&newest);
            subscription["status"] = facts.status.into();
            json!({ "object": subscription })
        }
    };
    if spec.kind == "customer.subscription.updated" {
        data["previous_attributes"] = facts.previous();
    }
    json!({
        "id": spec.id.clone().unwrap_or_else(|| fresh("evt", 24)),
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

/// The account knows from now on what an event says: who asks about it finds it.
pub fn know(books: &mut Books, spec: &Stripe) {
    let facts = Facts::of(spec, spec.happened_at.unwrap_or(books.now));
    let status = match spec.kind.as_str() {
        "invoice.payment_failed" => Some(Status::PastDue),
        _ => Status::named(facts.status),
    };
    let subscription = Subscription {
        status: status.unwrap_or(Status::Active),
        ..facts.subscription()
    };
    let customer = Customer {
        id: facts.customer.clone(),
        created: facts.at,
        email: Some(spec.email.clone()),
        metadata: facts.metadata.clone(),
        ..Customer::default()
    };
    if books.get::<Customer>(&customer.id).is_none() {
        books.customers.put(customer);
    }
    let id = subscription.id.clone();
    if books
        .edit::<Subscription>(&id, |kept| *kept = subscription.clone())
        .is_none()
    {
        books.subscriptions.put(subscription);
    }
}

struct Facts<'a> {
    spec: &'a Stripe,
    at: i64,
    status: &'a str,
    customer: String,
    subscription: String,
    item: String,
    invoice: String,
    period: (i64, i64),
    metadata: Metadata,
}

const MONTH_S: i64 = 30 * DAY_S;
const PRICE_CREATED: i64 = 1_786_224_000;

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
        let user = spec
            .user_id
            .iter()
            .map(|user| ("user_id".to_owned(), user.as_str().into()));
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
            period: (spec.period_start.unwrap_or(end - MONTH_S), end),
            metadata: user.collect(),
            spec,
            at,
            customer,
            subscription,
            item,
        }
    }

    fn price(&self) -> Price {
        Price {
            id: self.spec.price.clone(),
            created: PRICE_CREATED,
            product: format!("prod_{}", Dice::of(&self.spec.price).letters(14)),
            product_name: "Pro".to_owned(),
            currency: self.spec.currency.clone(),
            amount_minor: self.spec.amount_minor,
            recurring: Some(Recurring {
                interval: "month",
                count: 1,
                trial_days: None,
            }),
            lookup_key: self.spec.lookup_key.clone(),
            is_active: true,
            livemode: self.spec.livemode,
            ..Price::default()
        }
    }

    fn subscription(&self) -> Subscription {
        let (start, end) = self.period;
        let ended = self.spec.kind == "customer.subscription.deleted";
        let leaves = self.spec.cancel_at_period_end;
        let item = Item {
            id: self.item.clone(),
            created: start,
            price: self.price(),
            quantity: 1,
            metadata: Metadata::new(),
        };
        Subscription {
            id: self.subscription.clone(),
            created: start,
            customer: self.customer.clone(),
            status: Status::Active,
            items: vec![item],
            period: self.period,
            anchor: start,
            trial: (self.status == "trialing").then_some(self.period),
            without_card: "create_invoice",
            cancel_at: leaves.then_some(end),
            cancels_at_period_end: leaves,
            canceled_at: (ended || leaves).then_some(self.at),
            ended_at: ended.then_some(self.at),
            cancellation: Cancellation {
                reason: (ended || leaves).then_some("cancellation_requested"),
                ..Cancellation::default()
            },
            card: Some(format!("pm_{}", Dice::of(&self.customer).letters(24))),
            latest_invoice: Some(self.invoice.clone()),
            pause: None,
            discount: None,
            description: None,
            metadata: self.metadata.clone(),
            pending: vec![],
            test_clock: None,
            trial_end_told: false,
            is_made_up: true,
            livemode: self.spec.livemode,
        }
    }

    fn session(&self) -> Session {
        let id = format!("cs_test_{}", Dice::of(&self.invoice).letters(58));
        Session {
            created: self.at - 120,
            expires_at: self.at - 120 + DAY_S,
            mode: "subscription",
            status: if self.spec.kind == "checkout.session.expired" {
                "expired"
            } else {
                "complete"
            },
            payment_status: "paid",
            customer: Some(self.customer.clone()),
            email: Some(self.spec.email.clone()),
            name: Some("Ann Example".to_owned()),
            client_reference_id: self.spec.user_id.clone(),
            success_url: Some(
                "https://app.example.com/billing/success?session_id={CHECKOUT_SESSION_ID}"
                    .to_owned(),
            ),
            cancel_url: Some("https://app.example.com/billing/cancel".to_owned()),
            lines: vec![SessionLine {
                id: format!("li_{}", Dice::of(&id).letters(24)),
                price: self.price(),
                quantity: 1,
            }],
            allows_promotion_codes: true,
            always_asks_for_card: true,
            metadata: self.metadata.clone(),
            subscription: Some(self.subscription.clone()),
            invoice: Some(self.invoice.clone()),
            livemode: self.spec.livemode,
            id,
            ..Session::default()
        }
    }

    fn invoice(&self) -> Invoice {
        let paid = matches!(
            self.spec.kind.as_str(),
            "invoice.paid" | "invoice.payment_succeeded"
        );
        let line = Line {
            id: format!("il_{}", Dice::of(&self.invoice).letters(24)),
            description: "1 × Pro".to_owned(),
            amount_minor: self.spec.amount_minor,
            price: self.price(),
            quantity: 1,
            period: self.period,
            is_proration: false,
            item: Some(self.item.clone()),
        };
        Invoice {
            id: self.invoice.clone(),
            created: self.at,
            customer: self.customer.clone(),
            email: Some(self.spec.email.clone()),
            name: Some("Ann Example".to_owned()),
            subscription: Some(self.subscription.clone()),
            subscription_metadata: self.metadata.clone(),
            billing_reason: self.spec.billing_reason.clone(),
            status: if paid { "paid" } else { "open" },
            currency: self.spec.currency.clone(),
            lines: vec![line],
            number: Some("SIM-0001".to_owned()),
            attempts: 1,
            next_attempt: (!paid).then_some(self.at + 3 * DAY_S),
            finalized_at: Some(self.at),
            paid_at: paid.then_some(self.at),
            url: Some(format!(
                "https://invoice.stripe.com/i/acct_sim/{}",
                self.invoice
            )),
            livemode: self.spec.livemode,
            ..Invoice::default()
        }
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
