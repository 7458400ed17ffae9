//! Coupons, the codes people type for them, and what they take off.

use serde_json::{Value, json};

use super::{Show, thing};
use crate::stripe::params::Metadata;
use crate::stripe::version::Version;

#[derive(Debug, Clone)]
pub struct Coupon {
    pub id: String,
    pub created: i64,
    pub name: Option<String>,
    pub off: Off,
    pub duration: &'static str,
    /// Of duration `repeating`.
    pub months: Option<u32>,
    pub metadata: Metadata,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Off {
    Percent(f64),
    Amount(i64, String),
}

thing!(Coupon, "coupon", coupons);

impl Coupon {
    pub const DURATIONS: &[&str] = &["once", "repeating", "forever"];

    /// Of an amount in minor units.
    pub fn of(&self, subtotal: i64) -> i64 {
        let off = match &self.off {
            Off::Percent(percent) => (subtotal as f64 * percent / 100.0).round() as i64,
            Off::Amount(amount, _) => *amount,
        };
        off.clamp(0, subtotal.max(0))
    }

    /// `20% off`, `$5.00 off for 3 months`.
    pub fn words(&self) -> String {
        let off = match &self.off {
            Off::Percent(percent) => format!("{percent}% off"),
            Off::Amount(amount, currency) => format!("{} off", super::money(*amount, currency)),
        };
        match (self.duration, self.months) {
            ("forever", _) => format!("{off}, for ever"),
            ("repeating", Some(months)) => format!("{off} for {months} months"),
            _ => off,
        }
    }
}

impl Show for Coupon {
    fn show(&self, _: &Version) -> Value {
        let (percent, amount, currency) = match &self.off {
            Off::Percent(percent) => (Some(percent), None, None),
            Off::Amount(amount, currency) => (None, Some(amount), Some(currency)),
        };
        json!({
            "id": self.id,
            "object": "coupon",
            "amount_off": amount,
            "created": self.created,
            "currency": currency,
            "duration": self.duration,
            "duration_in_months": self.months,
            "livemode": false,
            "max_redemptions": null,
            "metadata": self.metadata,
            "name": self.name,
            "percent_off": percent,
            "redeem_by": null,
            "times_redeemed": 0,
            "valid": true,
        })
    }
}

#[derive(Debug, Clone)]
pub struct PromotionCode {
    pub id: String,
    pub created: i64,
    pub code: String,
    pub coupon: Coupon,
    pub is_active: bool,
    pub times_redeemed: u32,
    pub metadata: Metadata,
}

thing!(PromotionCode, "promotion_code", promotion_codes);

impl Show for PromotionCode {
    fn show(&self, version: &Version) -> Value {
        let mut shown = json!({
            "id": self.id,
            "object": "promotion_code",
            "active": self.is_active,
            "code": self.code,
            "created": self.created,
            "customer": null,
            "expires_at": null,
            "livemode": false,
            "max_redemptions": null,
            "metadata": self.metadata,
            "restrictions": {"first_time_transaction": false, "minimum_amount": null, "minimum_amount_currency": null},
            "times_redeemed": self.times_redeemed,
        });
        if version.is_old() {
            shown["coupon"] = self.coupon.show(version);
        } else {
            shown["promotion"] = json!({"type": "coupon", "coupon": self.coupon.id});
        }
        shown
    }
}

/// A coupon at work.
#[derive(Debug, Clone)]
pub struct Discount {
    pub id: String,
    pub coupon: Coupon,
    pub promotion_code: Option<String>,
    pub start: i64,
    pub end: Option<i64>,
    /// A coupon of duration `once` is.
    pub is_used: bool,
}

impl Discount {
    pub fn new(coupon: Coupon, promotion_code: Option<String>, now: i64) -> Self {
        let months = coupon.months.filter(|_| coupon.duration == "repeating");
        let end = months.map(|count| {
            super::catalog::Recurring {
                interval: "month",
                count,
                trial_days: None,
            }
            .after(now)
        });
        Self {
            id: crate::dice::fresh("di", 24),
            coupon,
            promotion_code,
            start: now,
            end,
            is_used: false,
        }
    }

    pub fn holds_at(&self, at: i64) -> bool {
        !self.is_used && self.end.is_none_or(|end| at < end)
    }

    pub fn show(&self, version: &Version) -> Value {
        let mut shown = json!({
            "id": self.id,
            "object": "discount",
            "checkout_session": null,
            "customer": null,
            "end": self.end,
            "invoice": null,
            "invoice_item": null,
            "promotion_code": self.promotion_code,
            "start": self.start,
            "subscription": null,
            "subscription_item": null,
        });
        if version.is_old() {
            shown["coupon"] = self.coupon.show(version);
        } else {
            shown["source"] = json!({"type": "coupon", "coupon": self.coupon.id});
        }
        shown
    }
}
