//! Events of a story that never happened here: one is told what it says, and everything else follows.

use serde::Deserialize;
use serde_json::{Value, json};

use super::event::{DAY_S, Told, fresh_id, of_purchase, of_transfer, wrap};
use super::project::Kept;
use super::subscriber::{Customer, Purchase};
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

/// Whom a purchase goes to where nobody is named.
const SOMEBODY: &str = "2f6b2f0e-7d57-4b7a-8a3c-51c0d7a9e902";

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

/// The event, `now` in unix seconds. With an id given it is the same every time.
pub fn event(spec: &RevenueCat, now: i64) -> Value {
    let at = spec.happened_at.unwrap_or(now);
    let id = spec.id.clone().unwrap_or_else(fresh_id);
    wrap(match spec.kind.as_str() {
        "TRANSFER" => {
            let to = spec.to_user_id.as_deref().unwrap_or(SOMEBODY);
            of_transfer(
                std::slice::from_ref(&spec.user_id),
                &[to.to_owned()],
                &spec.store,
                &spec.environment,
                at,
                &id,
            )
        }
        _ => purchase(spec, at, id),
    })
}

fn purchase(spec: &RevenueCat, at: i64, id: String) -> Value {
    let kind = spec.kind.as_str();
    let is_paid =
        matches!(kind, "TEST" | "INITIAL_PURCHASE" | "RENEWAL") && spec.period_type != "TRIAL";
    let told = Told {
        kind,
        at,
        id,
        reason: &spec.reason,
        price: if is_paid { 9.99 } else { 0.0 },
    };
    let mut event = of_purchase(&customer(spec, at), &bought(spec, at), &told);
    if kind == "TEST" {
        event["transaction"] = json!(null);
    }
    event
}

fn customer(spec: &RevenueCat, at: i64) -> Customer {
    let mut dice = Dice::of(&spec.user_id);
    let anonymous = format!("$RCAnonymousID:{:016x}{:016x}", dice.roll(), dice.roll());
    Customer {
        ids: vec![anonymous, spec.user_id.clone()],
        first_seen: at,
        purchases: vec![],
    }
}

/// What the event is about, as it says.
fn bought(spec: &RevenueCat, at: i64) -> Purchase {
    let mut dice = Dice::of(&format!("{} buys", spec.user_id));
    let kind = spec.kind.as_str();
    let default_expiry = if kind == "EXPIRATION" { 0 } else { 30 * DAY_S };
    let expires_at = at + spec.expires_in_s.unwrap_or(default_expiry);
    Purchase {
        product: spec.product_id.clone(),
        entitlement: (kind != "TEST").then(|| spec.entitlement.clone()),
        store: spec.store.clone(),
        environment: spec.environment.clone(),
        first_transaction: (2_000_000_000_000_000 + dice.below(999_999_999)).to_string(),
        first_purchased_at: at,
        purchased_at: if kind == "EXPIRATION" {
            expires_at - 30 * DAY_S
        } else {
            at
        },
        expires_at: Some(expires_at),
        period_type: spec.period_type.clone(),
        period_s: 30 * DAY_S,
        began_with_trial: false,
        renewals: u32::from(kind == "RENEWAL"),
        unsubscribed_at: None,
        billing_issue_at: None,
        grace_until: Some(at + spec.grace_s.unwrap_or(16 * DAY_S)),
        refunded_at: None,
        next: None,
        resumes_at: None,
        is_paused: false,
        has_ended: false,
        made_up_at: Some(at),
    }
}

/// How the event leaves the purchase; `None` where it changes none.
fn left(spec: &RevenueCat, at: i64) -> Option<Purchase> {
    let mut left = bought(spec, at);
    let is_of = |reason: &str| (spec.reason == reason).then_some(at);
    match spec.kind.as_str() {
        "INITIAL_PURCHASE"
        | "RENEWAL"
        | "UNCANCELLATION"
        | "SUBSCRIPTION_EXTENDED"
        | "REFUND_REVERSED" => {}
        "CANCELLATION" => {
            left.unsubscribed_at = Some(at);
            left.refunded_at = is_of("CUSTOMER_SUPPORT");
        }
        "BILLING_ISSUE" => left.billing_issue_at = Some(at),
        "EXPIRATION" => {
            left.unsubscribed_at = Some(at);
            left.billing_issue_at = is_of("BILLING_ERROR");
            left.refunded_at = is_of("CUSTOMER_SUPPORT");
            left.has_ended = true;
        }
        _ => return None,
    }
    left.grace_until = left
        .grace_until
        .filter(|_| spec.kind.as_str() == "BILLING_ISSUE");
    Some(left)
}

/// Makes what an event says so: whoever hears of it asks the API, which has to say the same. What is told
/// late, of a time before what is known, changes nothing.
pub fn know(kept: &mut Kept, spec: &RevenueCat, now: i64) {
    let at = spec.happened_at.unwrap_or(now);
    if spec.kind == "TRANSFER" {
        let to = spec.to_user_id.as_deref().unwrap_or(SOMEBODY);
        kept.hand_on(&spec.user_id, to, at);
        return;
    }
    let Some(left) = left(spec, at) else { return };
    let Customer { ids, .. } = customer(spec, at);
    let owner = kept.customer_of(&ids, at);
    let same = |known: &&mut Purchase| known.first_transaction == left.first_transaction;
    match owner.purchases.iter_mut().find(same) {
        Some(known) => {
            let is_later = known.made_up_at <= Some(at);
            // An end of the period before the one that is known.
            let is_earlier = left.has_ended && left.expires_at < known.expires_at;
            if is_later && !is_earlier {
                let first_purchased_at = known.first_purchased_at;
                *known = Purchase {
                    first_purchased_at,
                    ..left
                };
            }
        }
        None => owner.purchases.push(left),
    }
}
