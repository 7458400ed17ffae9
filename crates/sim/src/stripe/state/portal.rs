//! The pages on which customers look after their subscriptions.

use serde_json::{Value, json};

use super::{Show, thing};
use crate::stripe::params::Metadata;
use crate::stripe::version::Version;

#[derive(Debug, Clone)]
pub struct PortalConfiguration {
    pub id: String,
    pub created: i64,
    pub is_active: bool,
    pub is_default: bool,
    pub name: Option<String>,
    pub business_profile: Value,
    pub default_return_url: Option<String>,
    /// As they were given, over what everyone has.
    pub features: Value,
    pub metadata: Metadata,
}

thing!(
    PortalConfiguration,
    "billing_portal.configuration",
    portal_configurations
);

impl PortalConfiguration {
    /// What a portal offers that nobody has configured.
    pub fn usual_features() -> Value {
        json!({
            "customer_update": {"allowed_updates": [], "enabled": false},
            "invoice_history": {"enabled": true},
            "payment_method_update": {"enabled": true, "payment_method_configuration": null},
            "subscription_cancel": {
                "cancellation_reason": {"enabled": false, "options": []},
                "enabled": true,
                "mode": "at_period_end",
                "proration_behavior": "none",
            },
            "subscription_update": {
                "default_allowed_updates": ["price"],
                "enabled": true,
                "products": [],
                "proration_behavior": "always_invoice",
                "schedule_at_period_end": {"conditions": []},
                "trial_update_behavior": "end_trial",
            },
        })
    }

    /// What one has that is made: whatever it does not name is off.
    pub fn no_features() -> Value {
        let mut features = Self::usual_features();
        for feature in features
            .as_object_mut()
            .into_iter()
            .flat_map(|features| features.values_mut())
        {
            feature["enabled"] = false.into();
        }
        features
    }

    pub fn offers(&self, feature: &str) -> bool {
        self.features[feature]["enabled"] == true
    }

    /// The prices that may be changed to; all of them when none is named.
    pub fn prices(&self) -> Option<Vec<String>> {
        let products = self.features["subscription_update"]["products"].as_array()?;
        let prices = products
            .iter()
            .filter_map(|product| product["prices"].as_array())
            .flatten();
        let prices: Vec<_> = prices
            .filter_map(|price| price.as_str().map(str::to_owned))
            .collect();
        (!prices.is_empty()).then_some(prices)
    }
}

impl Show for PortalConfiguration {
    fn show(&self, _: &Version) -> Value {
        json!({
            "id": self.id,
            "object": "billing_portal.configuration",
            "active": self.is_active,
            "application": null,
            "business_profile": self.business_profile,
            "created": self.created,
            "default_return_url": self.default_return_url,
            "features": self.features,
            "is_default": self.is_default,
            "livemode": false,
            "login_page": {"enabled": false, "url": null},
            "metadata": self.metadata,
            "name": self.name,
            "updated": self.created,
        })
    }
}

#[derive(Debug, Clone)]
pub struct PortalSession {
    pub id: String,
    pub created: i64,
    pub customer: String,
    pub configuration: String,
    pub return_url: Option<String>,
    pub flow: Value,
    pub url: String,
}

thing!(PortalSession, "billing_portal.session", portal_sessions);

impl Show for PortalSession {
    fn show(&self, version: &Version) -> Value {
        let mut shown = json!({
            "id": self.id,
            "object": "billing_portal.session",
            "configuration": self.configuration,
            "created": self.created,
            "customer": self.customer,
            "flow": self.flow,
            "livemode": false,
            "locale": null,
            "on_behalf_of": null,
            "return_url": self.return_url,
            "url": self.url,
        });
        if !version.is_old() {
            shown["customer_account"] = Value::Null;
        }
        shown
    }
}
