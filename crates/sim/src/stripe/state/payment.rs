//! Payment intents, their charges, what they pay for, and what is given back.

use serde_json::{Value, json};

use super::{Card, Show, put, take, thing};
use crate::stripe::params::Metadata;
use crate::stripe::refusal::Refusal;
use crate::stripe::version::Version;

/// A payment intent.
#[derive(Debug, Clone)]
pub struct Payment {
    pub id: String,
    pub created: i64,
    pub customer: Option<String>,
    pub email: Option<String>,
    pub amount_minor: i64,
    pub currency: String,
    pub status: PaymentStatus,
    pub invoice: Option<String>,
    pub card: Option<Card>,
    /// Of the last attempt.
    pub charge: Option<String>,
    pub declined: Option<Refusal>,
    pub description: Option<String>,
    pub metadata: Metadata,
    pub refunded_minor: i64,
    pub succeeded_at: Option<i64>,
    /// When its bank will have answered.
    pub settles_at: Option<i64>,
    pub is_disputed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaymentStatus {
    NeedsCard,
    NeedsConfirmation,
    Processing,
    Succeeded,
}

thing!(Payment, "payment_intent", payments);

impl Show for Payment {
    fn show(&self, version: &Version) -> Value {
        let succeeded = self.status == PaymentStatus::Succeeded;
        let status = match self.status {
            PaymentStatus::NeedsCard => "requires_payment_method",
            PaymentStatus::NeedsConfirmation => "requires_action",
            PaymentStatus::Processing => "processing",
            PaymentStatus::Succeeded => "succeeded",
        };
        let error = self
            .declined
            .as_ref()
            .map(|refusal| refusal.body("")["error"].clone());
        let mut shown = json!({
            "id": self.id,
            "object": "payment_intent",
            "amount": self.amount_minor,
            "amount_capturable": 0,
            "amount_details": {"tip": {}},
            "amount_received": if succeeded { self.amount_minor } else { 0 },
            "application": null,
            "application_fee_amount": null,
            "automatic_payment_methods": null,
            "canceled_at": null,
            "cancellation_reason": null,
            "capture_method": "automatic",
            "client_secret": format!("{}_secret_{}", self.id, crate::dice::Dice::of(&self.id).letters(25)),
            "confirmation_method": "automatic",
            "created": self.created,
            "currency": self.currency,
            "customer": self.customer,
            "customer_account": null,
            "description": self.description,
            "last_payment_error": error,
            "latest_charge": self.charge,
            "livemode": false,
            "metadata": self.metadata,
            "next_action": (self.status == PaymentStatus::NeedsConfirmation).then(|| json!({"type": "use_stripe_sdk", "use_stripe_sdk": {}})),
            "on_behalf_of": null,
            "payment_method": self.card.as_ref().map(|card| &card.id),
            "payment_method_options": {"card": {"request_three_d_secure": "automatic"}},
            "payment_method_types": ["card"],
            "processing": null,
            "receipt_email": null,
            "review": null,
            "setup_future_usage": "off_session",
            "shipping": null,
            "source": null,
            "statement_descriptor": null,
            "statement_descriptor_suffix": null,
            "status": status,
            "transfer_data": null,
            "transfer_group": null,
        });
        if version.is_old() {
            take(&mut shown, &["customer_account"]);
            put(&mut shown, json!({ "invoice": self.invoice }));
        }
        shown
    }
}

/// A payment's, as far as its last attempt went.
#[derive(Debug, Clone)]
pub struct Charge {
    pub id: String,
    pub payment: Payment,
}

impl Show for Charge {
    fn show(&self, version: &Version) -> Value {
        let payment = &self.payment;
        let paid = payment.status == PaymentStatus::Succeeded;
        let card = payment.card.as_ref();
        let declined = payment.declined.as_ref().filter(|_| !paid);
        let mut shown = json!({
            "id": self.id,
            "object": "charge",
            "amount": payment.amount_minor,
            "amount_captured": if paid { payment.amount_minor } else { 0 },
            "amount_refunded": payment.refunded_minor,
            "application": null,
            "application_fee": null,
            "application_fee_amount": null,
            "balance_transaction": paid.then(|| self.id.replacen("ch_", "txn_", 1)),
            "billing_details": {
                "address": {"city": null, "country": "US", "line1": null, "line2": null, "postal_code": "94107", "state": null},
                "email": payment.email,
                "name": card.and_then(|card| card.name.as_ref()),
                "phone": null,
                "tax_id": null,
            },
            "calculated_statement_descriptor": "PLINTH SIMULATED",
            "captured": paid,
            "created": payment.succeeded_at.unwrap_or(payment.created),
            "currency": payment.currency,
            "customer": payment.customer,
            "description": payment.description,
            "disputed": payment.is_disputed,
            "failure_balance_transaction": null,
            "failure_code": declined.and_then(|refusal| refusal.code),
            "failure_message": declined.map(|refusal| &refusal.message),
            "fraud_details": {},
            "livemode": false,
            "metadata": payment.metadata,
            "on_behalf_of": null,
            "outcome": {
                "network_status": if paid { "approved_by_network" } else { "declined_by_network" },
                "reason": declined.and_then(|refusal| refusal.code),
                "risk_level": "normal",
                "seller_message": if paid { "Payment complete." } else { "The bank did not return any further details with this decline." },
                "type": if paid { "authorized" } else { "issuer_declined" },
            },
            "paid": paid,
            "payment_intent": payment.id,
            "payment_method": card.map(|card| &card.id),
            "payment_method_details": card.map(|card| json!({
                "card": {"brand": card.brand, "country": "US", "exp_month": card.exp_month, "exp_year": card.exp_year, "funding": "credit", "last4": card.last4, "network": card.brand},
                "type": "card",
            })),
            "receipt_email": null,
            "receipt_number": null,
            "receipt_url": null,
            "refunded": paid && payment.refunded_minor == payment.amount_minor,
            "review": null,
            "shipping": null,
            "source": null,
            "source_transfer": null,
            "statement_descriptor": null,
            "statement_descriptor_suffix": null,
            "status": if paid { "succeeded" } else { "failed" },
            "transfer_data": null,
            "transfer_group": null,
        });
        if version.is_old() {
            put(&mut shown, json!({ "invoice": payment.invoice }));
        }
        shown
    }
}

/// Which payment is for which invoice: since basil nothing else says.
#[derive(Debug, Clone)]
pub struct InvoicePayment {
    pub id: String,
    pub created: i64,
    pub invoice: String,
    pub payment: String,
    pub amount_minor: i64,
    pub currency: String,
    pub paid_at: Option<i64>,
}

thing!(InvoicePayment, "invoice_payment", invoice_payments);

impl Show for InvoicePayment {
    fn show(&self, _: &Version) -> Value {
        json!({
            "id": self.id,
            "object": "invoice_payment",
            "amount_paid": self.paid_at.map(|_| self.amount_minor),
            "amount_requested": self.amount_minor,
            "created": self.created,
            "currency": self.currency,
            "invoice": self.invoice,
            "is_default": true,
            "livemode": false,
            "payment": {"type": "payment_intent", "payment_intent": self.payment},
            "status": if self.paid_at.is_some() { "paid" } else { "open" },
            "status_transitions": {"canceled_at": null, "paid_at": self.paid_at},
        })
    }
}

#[derive(Debug, Clone)]
pub struct Refund {
    pub id: String,
    pub created: i64,
    pub payment: String,
    pub charge: Option<String>,
    pub customer: Option<String>,
    pub card: Option<String>,
    pub amount_minor: i64,
    pub currency: String,
    pub reason: Option<&'static str>,
    pub metadata: Metadata,
}

thing!(Refund, "refund", refunds);

impl Show for Refund {
    fn show(&self, version: &Version) -> Value {
        let mut shown = json!({
            "id": self.id,
            "object": "refund",
            "amount": self.amount_minor,
            "balance_transaction": self.id.replacen("re_", "txn_", 1),
            "charge": self.charge,
            "created": self.created,
            "currency": self.currency,
            "customer": self.customer,
            "customer_account": null,
            "destination_details": {"card": {"reference": null, "reference_status": "pending", "reference_type": "acquirer_reference_number", "type": "refund"}, "type": "card"},
            "metadata": self.metadata,
            "payment_intent": self.payment,
            "payment_method": self.card,
            "reason": self.reason,
            "receipt_number": null,
            "source_transfer_reversal": null,
            "status": "succeeded",
            "transfer_reversal": null,
        });
        if version.is_old() {
            take(
                &mut shown,
                &["customer", "customer_account", "payment_method"],
            );
        }
        shown
    }
}
