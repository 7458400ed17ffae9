//! A bank asks for the money of a charge back: <https://docs.stripe.com/api/disputes>.

use serde_json::{Value, json};

use super::{Show, thing};
use crate::stripe::params::Metadata;
use crate::stripe::version::Version;

#[derive(Debug, Clone)]
pub struct Dispute {
    pub id: String,
    pub created: i64,
    pub payment: String,
    pub charge: Option<String>,
    pub amount_minor: i64,
    pub currency: String,
    /// warning_needs_response, warning_under_review, warning_closed, needs_response, under_review, won or
    /// lost; what begins with «warning» is an inquiry, which takes no money yet.
    pub status: &'static str,
    pub evidence: Option<String>,
    pub metadata: Metadata,
}

thing!(Dispute, "dispute", disputes);

impl Dispute {
    pub fn is_inquiry(&self) -> bool {
        self.status.starts_with("warning_")
    }

    pub fn is_closed(&self) -> bool {
        matches!(self.status, "won" | "lost" | "warning_closed")
    }
}

impl Show for Dispute {
    fn show(&self, _: &Version) -> Value {
        json!({
            "id": self.id,
            "object": "dispute",
            "amount": self.amount_minor,
            "balance_transactions": [],
            "charge": self.charge,
            "created": self.created,
            "currency": self.currency,
            "enhanced_eligibility_types": [],
            "evidence": {"uncategorized_text": self.evidence},
            "evidence_details": {
                "due_by": self.created + 9 * 24 * 60 * 60,
                "enhanced_eligibility": {},
                "has_evidence": self.evidence.is_some(),
                "past_due": false,
                "submission_count": i32::from(self.evidence.is_some()),
            },
            "is_charge_refundable": self.is_inquiry(),
            "livemode": false,
            "metadata": self.metadata,
            "network_reason_code": "10.4",
            "payment_intent": self.payment,
            "payment_method_details": {"card": {"brand": "visa", "case_type": if self.is_inquiry() { "inquiry" } else { "chargeback" }, "network_reason_code": "10.4"}, "type": "card"},
            "reason": "fraudulent",
            "status": self.status,
        })
    }
}
