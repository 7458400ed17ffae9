//! A customer, and how API v1 shows them: <https://www.revenuecat.com/docs/api-v1#tag/customers>.

use chrono::{DateTime, SecondsFormat};
use serde_json::{Map, Value, json};

#[derive(Debug, Clone)]
pub struct Customer {
    /// Every id they have had; the first is the original one, the last is in use.
    pub ids: Vec<String>,
    pub first_seen: i64,
    pub purchases: Vec<Purchase>,
}

#[derive(Debug, Clone)]
pub struct Purchase {
    pub product: String,
    /// What it opens; `None`: nobody has said.
    pub entitlement: Option<String>,
    /// APP_STORE, PLAY_STORE, …
    pub store: String,
    /// SANDBOX or PRODUCTION.
    pub environment: String,
    pub first_transaction: String,
    pub first_purchased_at: i64,
    pub purchased_at: i64,
    /// `None` is never.
    pub expires_at: Option<i64>,
    /// NORMAL, TRIAL, …
    pub period_type: String,
    pub period_s: i64,
    pub began_with_trial: bool,
    pub renewals: u32,
    pub unsubscribed_at: Option<i64>,
    pub billing_issue_at: Option<i64>,
    pub grace_until: Option<i64>,
    pub refunded_at: Option<i64>,
    /// What it changes to.
    pub next: Option<Next>,
    /// It pauses from the end of the period until then.
    pub resumes_at: Option<i64>,
    pub is_paused: bool,
    /// It was told that it ended.
    pub has_ended: bool,
    /// When somebody told of it that it is so, since when time does nothing to it.
    pub made_up_at: Option<i64>,
}

/// Another product, and what that opens.
#[derive(Debug, Clone)]
pub struct Next {
    pub product: String,
    pub entitlement: Option<String>,
}

impl Purchase {
    /// Of the last payment: Google counts renewals behind the first id, Apple gives new ones.
    pub fn transaction(&self) -> String {
        match (self.renewals, self.store.as_str()) {
            (0, _) => self.first_transaction.clone(),
            (renewal, "PLAY_STORE") => format!("{}..{}", self.first_transaction, renewal - 1),
            (renewal, _) => format!("{}{renewal}", self.first_transaction),
        }
    }

    fn show(&self) -> Value {
        json!({
            "auto_resume_date": self.resumes_at.map(date),
            "billing_issues_detected_at": self.billing_issue_at.map(date),
            "display_name": self.product,
            "expires_date": self.expires_at.map(date),
            "grace_period_expires_date": self.grace_until.map(date),
            "is_sandbox": self.environment != "PRODUCTION",
            "original_purchase_date": date(self.first_purchased_at),
            "ownership_type": "PURCHASED",
            "period_type": self.period_type.to_lowercase(),
            "price": {"amount": 9.99, "currency": "USD"},
            "purchase_date": date(self.purchased_at),
            "refunded_at": self.refunded_at.map(date),
            "store": self.store.to_lowercase(),
            "store_transaction_id": self.transaction(),
            "unsubscribe_detected_at": self.unsubscribed_at.map(date),
        })
    }

    fn show_bought_once(&self) -> Value {
        json!({
            "display_name": self.product,
            "id": self.first_transaction,
            "is_sandbox": self.environment != "PRODUCTION",
            "price": {"amount": 99, "currency": "USD"},
            "purchase_date": date(self.purchased_at),
            "store": self.store.to_lowercase(),
            "store_transaction_id": self.first_transaction,
        })
    }
}

impl Customer {
    pub fn show(&self, now: i64) -> Value {
        let mut entitlements: Map<String, Value> = Map::new();
        let mut subscriptions = Map::new();
        let mut once: Map<String, Value> = Map::new();
        // What ends last comes last, and so is what an entitlement is shown with.
        let mut purchases: Vec<_> = self.purchases.iter().collect();
        purchases.sort_by_key(|purchase| purchase.expires_at.unwrap_or(i64::MAX));
        for purchase in purchases {
            let was_given_back = purchase.expires_at.is_none() && purchase.refunded_at.is_some();
            if let Some(entitlement) = purchase.entitlement.clone().filter(|_| !was_given_back) {
                let shown = json!({
                    "expires_date": purchase.expires_at.map(date),
                    "grace_period_expires_date": purchase.grace_until.map(date),
                    "product_identifier": purchase.product,
                    "purchase_date": date(purchase.purchased_at),
                });
                entitlements.insert(entitlement, shown);
            }
            match purchase.expires_at {
                Some(_) => drop(subscriptions.insert(purchase.product.clone(), purchase.show())),
                None if was_given_back => {}
                None => {
                    let bought = once
                        .entry(purchase.product.clone())
                        .or_insert_with(|| json!([]));
                    bought
                        .as_array_mut()
                        .into_iter()
                        .for_each(|bought| bought.push(purchase.show_bought_once()));
                }
            }
        }
        json!({
            "request_date": date(now),
            "request_date_ms": now * 1000,
            "subscriber": {
                "entitlements": entitlements,
                "first_seen": date(self.first_seen),
                "last_seen": date(now),
                "management_url": (!subscriptions.is_empty()).then_some("https://apps.apple.com/account/subscriptions"),
                "non_subscriptions": once,
                "original_app_user_id": self.ids.first(),
                "original_application_version": "1.0",
                "original_purchase_date": date(self.first_seen),
                "other_purchases": {},
                "subscriptions": subscriptions,
                "subscriber_attributes": {},
            },
        })
    }
}

/// `2026-12-06T21:20:00Z`.
fn date(at: i64) -> String {
    let at = DateTime::from_timestamp(at, 0).unwrap_or_default();
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}
