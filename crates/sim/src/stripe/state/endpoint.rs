use serde_json::{Value, json};

use super::{Show, thing};
use crate::stripe::params::Metadata;
use crate::stripe::version::Version;

/// Where events are sent to.
#[derive(Debug, Clone)]
pub struct Endpoint {
    pub id: String,
    pub created: i64,
    pub url: String,
    pub secret: String,
    /// `*` is every event.
    pub events: Vec<String>,
    pub is_enabled: bool,
    /// Of its events; the account's when it names none.
    pub version: Option<String>,
    pub description: Option<String>,
    pub metadata: Metadata,
}

thing!(Endpoint, "webhook_endpoint", endpoints);

impl Endpoint {
    pub fn wants(&self, kind: &str) -> bool {
        self.is_enabled
            && self
                .events
                .iter()
                .any(|event| event == "*" || event == kind)
    }
}

impl Show for Endpoint {
    fn show(&self, _: &Version) -> Value {
        json!({
            "id": self.id,
            "object": "webhook_endpoint",
            "api_version": self.version,
            "application": null,
            "created": self.created,
            "description": self.description,
            "enabled_events": self.events,
            "livemode": false,
            "metadata": self.metadata,
            "status": if self.is_enabled { "enabled" } else { "disabled" },
            "url": self.url,
        })
    }
}
