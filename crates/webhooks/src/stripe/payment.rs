//! Money that goes back. Since «basil» none of these names the invoice or the subscription: the
//! payment intent is the way to them (see [`super::InvoicePayment`]).

use crate::json::{self, Object};

/// A charge of which some or all was refunded. <https://docs.stripe.com/api/charges/object>
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChargeRefunded {
    /// `ch_…`
    pub id: String,
    /// What the charge belongs to.
    pub payment_intent: Option<String>,
    /// The invoice it paid. Only sent by API versions before «basil».
    pub invoice: Option<String>,
    /// What was charged, in the currency's smallest unit.
    pub amount: i64,
    /// What was given back of it so far.
    pub amount_refunded: i64,
    /// Whether that is all of it.
    pub refunded: bool,
    /// ISO code in lower case.
    pub currency: String,
}

/// One refund. <https://docs.stripe.com/api/refunds/object>
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refund {
    /// `re_…`
    pub id: String,
    /// The charge it is of.
    pub charge: Option<String>,
    /// What that charge belongs to.
    pub payment_intent: Option<String>,
    /// In the currency's smallest unit. May be a part of the charge.
    pub amount: i64,
    /// ISO code in lower case.
    pub currency: String,
    /// `pending`, `requires_action`, `succeeded`, `failed` or `canceled`.
    pub status: Option<String>,
}

/// A customer's bank asks for the money back. <https://docs.stripe.com/api/disputes/object>
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dispute {
    /// `du_…` or `dp_…`
    pub id: String,
    /// The disputed charge.
    pub charge: Option<String>,
    /// What that charge belongs to.
    pub payment_intent: Option<String>,
    /// In the currency's smallest unit.
    pub amount: i64,
    /// ISO code in lower case.
    pub currency: String,
    /// `needs_response`, `under_review`, `won`, `lost`, `prevented`; with a leading `warning_` for
    /// an inquiry, which has taken no money yet.
    pub status: String,
    /// What the customer claims, such as `fraudulent`.
    pub reason: Option<String>,
}

impl ChargeRefunded {
    pub(super) fn read(charge: &Object) -> json::Result<Self> {
        Ok(Self {
            id: charge.required("id", Object::text)?,
            payment_intent: charge.id("payment_intent")?,
            invoice: charge.id("invoice")?,
            amount: charge.required("amount", Object::int)?,
            amount_refunded: charge.required("amount_refunded", Object::int)?,
            refunded: charge.required("refunded", Object::flag)?,
            currency: charge.required("currency", Object::text)?,
        })
    }
}

impl Refund {
    pub(super) fn read(refund: &Object) -> json::Result<Self> {
        Ok(Self {
            id: refund.required("id", Object::text)?,
            charge: refund.id("charge")?,
            payment_intent: refund.id("payment_intent")?,
            amount: refund.required("amount", Object::int)?,
            currency: refund.required("currency", Object::text)?,
            status: refund.text("status")?,
        })
    }
}

impl Dispute {
    pub(super) fn read(dispute: &Object) -> json::Result<Self> {
        Ok(Self {
            id: dispute.required("id", Object::text)?,
            charge: dispute.id("charge")?,
            payment_intent: dispute.id("payment_intent")?,
            amount: dispute.required("amount", Object::int)?,
            currency: dispute.required("currency", Object::text)?,
            status: dispute.required("status", Object::text)?,
            reason: dispute.text("reason")?,
        })
    }
}
