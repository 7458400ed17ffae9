//! What is sold.

use serde_json::{Value, json};

use super::{Show, put, thing};
use crate::stripe::params::Metadata;
use crate::stripe::version::Version;

#[derive(Debug, Clone, Default)]
pub struct Product {
    pub id: String,
    pub created: i64,
    pub name: String,
    pub description: Option<String>,
    pub is_active: bool,
    pub default_price: Option<String>,
    pub metadata: Metadata,
}

thing!(Product, "product", products);

impl Show for Product {
    fn show(&self, _: &Version) -> Value {
        json!({
            "id": self.id,
            "object": "product",
            "active": self.is_active,
            "created": self.created,
            "default_price": self.default_price,
            "description": self.description,
            "images": [],
            "livemode": false,
            "marketing_features": [],
            "metadata": self.metadata,
            "name": self.name,
            "package_dimensions": null,
            "shippable": null,
            "statement_descriptor": null,
            "tax_code": null,
            "type": "service",
            "unit_label": null,
            "updated": self.created,
            "url": null,
        })
    }
}

#[derive(Debug, Clone, Default)]
pub struct Price {
    pub id: String,
    pub created: i64,
    pub product: String,
    /// Of the product, for lines of invoices.
    pub product_name: String,
    pub currency: String,
    pub amount_minor: i64,
    /// `None` is paid once.
    pub recurring: Option<Recurring>,
    pub lookup_key: Option<String>,
    pub nickname: Option<String>,
    pub is_active: bool,
    pub livemode: bool,
    pub metadata: Metadata,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recurring {
    pub interval: &'static str,
    pub count: u32,
    pub trial_days: Option<i64>,
}

impl Recurring {
    pub const INTERVALS: &[&str] = &["day", "week", "month", "year"];

    /// The end of a period that starts then.
    pub fn after(&self, start: i64) -> i64 {
        let day = 24 * 60 * 60;
        let days = |days: u32| start + i64::from(days) * day;
        match self.interval {
            "day" => days(self.count),
            "week" => days(7 * self.count),
            interval => {
                let months =
                    chrono::Months::new(self.count * if interval == "year" { 12 } else { 1 });
                let start_at = chrono::DateTime::from_timestamp(start, 0);
                let end = start_at.and_then(|start| start.checked_add_months(months));
                end.map_or_else(|| days(30), |end| end.timestamp())
            }
        }
    }

    /// `month`, `3 months`.
    pub fn words(&self) -> String {
        match self.count {
            1 => self.interval.to_owned(),
            count => format!("{count} {}s", self.interval),
        }
    }
}

thing!(Price, "price", prices);

impl Price {
    /// `$29.00 / month`.
    pub fn words(&self) -> String {
        let amount = super::money(self.amount_minor, &self.currency);
        match &self.recurring {
            Some(recurring) => format!("{amount} / {}", recurring.words()),
            None => amount,
        }
    }

    /// What prices were called before there were any; shown beside them ever since.
    pub fn plan(&self, version: &Version) -> Value {
        let recurring = self.recurring.as_ref();
        let mut shown = json!({
            "id": self.id,
            "object": "plan",
            "active": self.is_active,
            "amount": self.amount_minor,
            "amount_decimal": self.amount_minor.to_string(),
            "billing_scheme": "per_unit",
            "created": self.created,
            "currency": self.currency,
            "interval": recurring.map(|recurring| recurring.interval),
            "interval_count": recurring.map(|recurring| recurring.count),
            "livemode": self.livemode,
            "metadata": self.metadata,
            "meter": null,
            "nickname": self.nickname,
            "product": self.product,
            "tiers_mode": null,
            "transform_usage": null,
            "trial_period_days": recurring.and_then(|recurring| recurring.trial_days),
            "usage_type": "licensed",
        });
        if version.is_old() {
            shown["aggregate_usage"] = Value::Null;
        }
        shown
    }
}

impl Show for Price {
    fn show(&self, version: &Version) -> Value {
        let recurring = self.recurring.as_ref().map(|recurring| {
            let mut shown = json!({
                "interval": recurring.interval,
                "interval_count": recurring.count,
                "meter": null,
                "trial_period_days": recurring.trial_days,
                "usage_type": "licensed",
            });
            if version.is_old() {
                put(&mut shown, json!({ "aggregate_usage": null }));
            }
            shown
        });
        json!({
            "id": self.id,
            "object": "price",
            "active": self.is_active,
            "billing_scheme": "per_unit",
            "created": self.created,
            "currency": self.currency,
            "custom_unit_amount": null,
            "livemode": self.livemode,
            "lookup_key": self.lookup_key,
            "metadata": self.metadata,
            "nickname": self.nickname,
            "product": self.product,
            "type": if recurring.is_some() { "recurring" } else { "one_time" },
            "recurring": recurring,
            "tax_behavior": "unspecified",
            "tiers_mode": null,
            "transform_quantity": null,
            "unit_amount": self.amount_minor,
            "unit_amount_decimal": self.amount_minor.to_string(),
        })
    }
}
