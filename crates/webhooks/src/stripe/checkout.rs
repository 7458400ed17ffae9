use std::collections::BTreeMap;

use crate::json::{self, Object};

/// A checkout session. <https://docs.stripe.com/api/checkout/sessions/object>
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkout {
    /// `cs_…`
    pub id: String,
    /// `payment`, `subscription` or `setup`.
    pub mode: String,
    /// `paid`, `no_payment_required`, or `unpaid` while a slow payment is on its way: completing
    /// the session does not mean that it was paid for.
    pub payment_status: String,
    /// `None` for a guest.
    pub customer: Option<String>,
    /// What it started, in mode `subscription`.
    pub subscription: Option<String>,
    /// What was paid, in mode `payment`.
    pub payment_intent: Option<String>,
    /// Our user: `client_reference_id`, else `metadata.user_id`.
    pub user_id: Option<String>,
    /// What the customer pays, in the currency's smallest unit. `None` in mode `setup`.
    pub amount_total: Option<i64>,
    /// ISO code in lower case.
    pub currency: Option<String>,
    /// What we noted when we opened the session. The event does not carry the line items, so in
    /// mode `payment` this alone says what was bought.
    pub metadata: BTreeMap<String, String>,
}

impl Checkout {
    pub(super) fn read(session: &Object) -> json::Result<Self> {
        let metadata = session.object("metadata")?.into_texts()?;

        Ok(Self {
            id: session.required("id", Object::text)?,
            mode: session.required("mode", Object::text)?,
            payment_status: session.required("payment_status", Object::text)?,
            customer: session.id("customer")?,
            subscription: session.id("subscription")?,
            payment_intent: session.id("payment_intent")?,
            user_id: session
                .text("client_reference_id")?
                .or(super::user_id(session)?),
            amount_total: session.int("amount_total")?,
            currency: session.text("currency")?,
            metadata,
        })
    }
}
