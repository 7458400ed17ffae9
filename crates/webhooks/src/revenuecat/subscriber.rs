use chrono::DateTime;
use serde_json::Value;

use super::without_renewal_count;
use crate::Unreadable;
use crate::json::{self, Object};

/// What a customer holds, as RevenueCat's API answers it (`GET /v1/subscribers/{app_user_id}`). Times
/// are unix milliseconds.
/// <https://www.revenuecat.com/docs/api-v1#tag/customers/operation/subscribers>
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscriber {
    /// The first id that the customer had.
    pub original_app_user_id: Option<String>,
    /// Everything that was ever bought, ended or not.
    pub purchases: Vec<Purchase>,
    /// What is open by RevenueCat's own account, with its end; `None` is for ever.
    pub entitlements: Vec<(String, Option<i64>)>,
}

/// A subscription, or something bought once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purchase {
    /// `<subscription>:<base plan>` on Google Play.
    pub product: String,
    /// In small letters, such as `app_store`.
    pub store: String,
    /// The store's id of the last payment, without the count of renewals.
    pub transaction: Option<String>,
    /// Whether no real money is involved.
    pub sandbox: bool,
    /// Bought once.
    pub once: bool,
    /// What it opens, as far as RevenueCat names this product for it.
    pub entitlements: Vec<String>,
    /// `normal`, `trial`, `intro`, `promotional` or `prepaid`.
    pub period_type: Option<String>,
    /// When the current period was bought.
    pub purchased_at_ms: Option<i64>,
    /// When it ends; `None` is never.
    pub expires_at_ms: Option<i64>,
    /// Until when a failed charge is forgiven.
    pub grace_expires_at_ms: Option<i64>,
    /// Since when it will not renew.
    pub unsubscribed_at_ms: Option<i64>,
    /// It pauses with its period, until then.
    pub resumes_at_ms: Option<i64>,
    /// Since when it cannot be charged.
    pub billing_issue_at_ms: Option<i64>,
    /// When the money went back.
    pub refunded_at_ms: Option<i64>,
    /// Whether somebody of the customer's family paid.
    pub family_share: bool,
}

/// Reads an answer of the API.
pub fn read_subscriber(answer: &Value) -> Result<Subscriber, Unreadable> {
    let subscriber = Object::root(answer)?.required_object("subscriber")?;
    let opened = entitlements(&subscriber.object("entitlements")?)?;

    let mut purchases = Vec::new();
    let subscriptions = subscriber.object("subscriptions")?;
    for product in subscriptions.keys() {
        let subscription = subscriptions.object(product)?;
        purchases.push(Purchase::read(product, &subscription, false, &opened)?);
    }
    let bought_once = subscriber.object("non_subscriptions")?;
    for product in bought_once.keys() {
        for purchase in bought_once.objects(product)? {
            purchases.push(Purchase::read(product, &purchase, true, &opened)?);
        }
    }
    Ok(Subscriber {
        original_app_user_id: subscriber.text("original_app_user_id")?,
        purchases,
        entitlements: opened
            .into_iter()
            .map(|e| (e.name, e.expires_at_ms))
            .collect(),
    })
}

struct Entitlement {
    name: String,
    product: Option<String>,
    expires_at_ms: Option<i64>,
}

fn entitlements(named: &Object) -> json::Result<Vec<Entitlement>> {
    let read = |name: &str| {
        let entitlement = named.object(name)?;
        let ends = [
            time(&entitlement, "expires_date")?,
            time(&entitlement, "grace_period_expires_date")?,
        ];
        Ok(Entitlement {
            name: name.to_owned(),
            product: entitlement.text("product_identifier")?,
            expires_at_ms: ends[0].and(ends.into_iter().flatten().max()),
        })
    };
    named.keys().map(read).collect()
}

impl Purchase {
    fn read(
        product: &str,
        purchase: &Object,
        once: bool,
        opened: &[Entitlement],
    ) -> json::Result<Self> {
        // An entitlement names a subscription of Google Play with or without its base plan.
        let subscription = product.split(':').next();
        let is_this = |named: &str| named == product || Some(named) == subscription;
        let opens = |e: &&Entitlement| e.product.as_deref().is_some_and(is_this);
        Ok(Self {
            product: product.to_owned(),
            store: purchase.required("store", Object::text)?,
            transaction: purchase
                .text("store_transaction_id")?
                .map(|id| without_renewal_count(&id).to_owned()),
            sandbox: purchase.flag("is_sandbox")?.unwrap_or(false),
            once,
            entitlements: opened
                .iter()
                .filter(opens)
                .map(|e| e.name.clone())
                .collect(),
            period_type: purchase.text("period_type")?,
            purchased_at_ms: time(purchase, "purchase_date")?,
            expires_at_ms: time(purchase, "expires_date")?,
            grace_expires_at_ms: time(purchase, "grace_period_expires_date")?,
            unsubscribed_at_ms: time(purchase, "unsubscribe_detected_at")?,
            resumes_at_ms: time(purchase, "auto_resume_date")?,
            billing_issue_at_ms: time(purchase, "billing_issues_detected_at")?,
            refunded_at_ms: time(purchase, "refunded_at")?,
            family_share: purchase.text("ownership_type")?.as_deref() == Some("FAMILY_SHARED"),
        })
    }
}

fn time(object: &Object, key: &str) -> json::Result<Option<i64>> {
    let Some(text) = object.text(key)? else {
        return Ok(None);
    };
    match DateTime::parse_from_rfc3339(&text) {
        Ok(time) => Ok(Some(time.timestamp_millis())),
        Err(_) => Err(Unreadable(format!("{key} has to be an RFC 3339 time"))),
    }
}
