use serde_json::Value;

use crate::Unreadable;
use crate::json::{self, Object};

/// An invoice. <https://docs.stripe.com/api/invoices/object>
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invoice {
    /// `in_…`; `None` for an upcoming invoice, which does not exist yet.
    pub id: Option<String>,
    /// Who pays.
    pub customer: Option<String>,
    /// The subscription it bills. `None` for an invoice written by hand, even when a line of it
    /// mentions a subscription.
    pub subscription: Option<String>,
    /// Why it was written: `subscription_create`, `subscription_cycle`, `manual`, …
    pub billing_reason: Option<String>,
    /// How often Stripe tried to collect it.
    pub attempt_count: i64,
    /// When Stripe tries next, unix seconds. `None` when it will not.
    pub next_payment_attempt: Option<i64>,
    /// In the currency's smallest unit.
    pub amount_paid: i64,
    /// In the currency's smallest unit.
    pub amount_due: i64,
    /// ISO code in lower case.
    pub currency: String,
    /// Until when the subscription's lines pay for it, unix seconds. Not the invoice's own
    /// `period_end`, which looks back at usage.
    pub period_end: Option<i64>,
    /// What paid it. Since «basil» [`InvoicePayment`] says so instead, and this is `None` unless
    /// `payments` is expanded.
    pub payment_intent: Option<String>,
    /// Our user, from the metadata of the subscription, else of the invoice.
    pub user_id: Option<String>,
    /// The page where the customer can pay or see it.
    pub hosted_invoice_url: Option<String>,
    /// When it was paid, unix seconds.
    pub paid_at: Option<i64>,
}

/// A payment of an invoice: since «basil» the one event that joins the two. Refunds and disputes
/// name only the payment. <https://docs.stripe.com/api/invoice-payment/object>
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvoicePayment {
    /// `inpay_…`
    pub id: String,
    /// `in_…`
    pub invoice: String,
    /// `None` when it was paid another way.
    pub payment_intent: Option<String>,
    /// In the currency's smallest unit.
    pub amount_paid: i64,
    /// ISO code in lower case.
    pub currency: String,
}

/// Reads an invoice as the API answers it.
pub fn read_invoice(object: &Value) -> Result<Invoice, Unreadable> {
    Invoice::read(&Object::root(object)?)
}

impl Invoice {
    pub(super) fn read(invoice: &Object) -> json::Result<Self> {
        let lines = invoice.object("lines")?.objects("data")?;
        let subscription = subscription(invoice, &lines)?;
        let period_end = match &subscription {
            Some(subscription) => paid_through(subscription, &lines)?,
            None => None,
        };

        Ok(Self {
            id: invoice.text("id")?,
            customer: invoice.id("customer")?,
            subscription,
            billing_reason: invoice.text("billing_reason")?,
            attempt_count: invoice.int("attempt_count")?.unwrap_or(0),
            next_payment_attempt: invoice.int("next_payment_attempt")?,
            amount_paid: invoice.required("amount_paid", Object::int)?,
            amount_due: invoice.required("amount_due", Object::int)?,
            currency: invoice.required("currency", Object::text)?,
            period_end,
            payment_intent: payment_intent(invoice)?,
            user_id: user_id(invoice)?,
            hosted_invoice_url: invoice.text("hosted_invoice_url")?,
            paid_at: invoice.object("status_transitions")?.int("paid_at")?,
        })
    }
}

impl InvoicePayment {
    pub(super) fn read(payment: &Object) -> json::Result<Self> {
        Ok(Self {
            id: payment.required("id", Object::text)?,
            invoice: payment.required("invoice", Object::id)?,
            payment_intent: payment.object("payment")?.id("payment_intent")?,
            amount_paid: payment.int("amount_paid")?.unwrap_or(0),
            currency: payment.required("currency", Object::text)?,
        })
    }
}

/// The member that says it moved from `subscription` to `parent` in «basil». A null in either
/// place is an answer; only where neither was sent do the lines have to tell.
fn subscription(invoice: &Object, lines: &[Object]) -> json::Result<Option<String>> {
    if invoice.has("parent") {
        return subscription_details(invoice)?.id("subscription");
    }
    if invoice.has("subscription") {
        return invoice.id("subscription");
    }
    for line in lines {
        let found = line_subscription(line)?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn subscription_details<'a>(invoice: &Object<'a>) -> json::Result<Object<'a>> {
    invoice.object("parent")?.object("subscription_details")
}

fn line_subscription(line: &Object) -> json::Result<Option<String>> {
    let details = line.object("parent")?.object("subscription_item_details")?;
    Ok(details.id("subscription")?.or(line.id("subscription")?))
}

fn paid_through(subscription: &str, lines: &[Object]) -> json::Result<Option<i64>> {
    let mut latest = None;
    for line in lines {
        if line_subscription(line)?.as_deref() == Some(subscription) {
            latest = latest.max(line.object("period")?.int("end")?);
        }
    }
    Ok(latest)
}

fn payment_intent(invoice: &Object) -> json::Result<Option<String>> {
    let mut found = invoice.id("payment_intent")?;
    for payment in invoice.object("payments")?.objects("data")? {
        found = found.or(payment.object("payment")?.id("payment_intent")?);
    }
    Ok(found)
}

fn user_id(invoice: &Object) -> json::Result<Option<String>> {
    let since_basil = super::user_id(&subscription_details(invoice)?)?;
    let before = super::user_id(&invoice.object("subscription_details")?)?;
    Ok(since_basil.or(before).or(super::user_id(invoice)?))
}
