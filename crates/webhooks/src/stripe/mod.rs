//! Stripe's webhooks: the `Stripe-Signature` header and the events that bear on what a customer
//! may use. <https://docs.stripe.com/webhooks>
//!
//! The reader takes both shapes in which Stripe tells a fact: an endpoint's API version decides
//! where a subscription's period or an invoice's subscription stands, and «basil» (2025-03-31)
//! moved most of them (<https://docs.stripe.com/changelog/basil>).

mod checkout;
mod invoice;
mod payment;
mod subscription;

pub use checkout::Checkout;
pub use invoice::{Invoice, InvoicePayment, read_invoice};
pub use payment::{ChargeRefunded, Dispute, Refund};
pub use subscription::{Item, Status, Subscription, read_subscription};

pub use crate::signature::{sign, verify};

use chrono::DateTime;
use serde_json::Value;

use crate::Unreadable;
use crate::json::{self, Object};

/// Carries the signature of a delivery.
pub const SIGNATURE_HEADER: &str = "stripe-signature";
/// Stripe's own default for how far a signature's time may be off, in seconds.
pub const TOLERANCE_S: i64 = 300;

/// The `object` of a thin event: <https://docs.stripe.com/event-destinations#thin-events>.
const THIN_EVENT: &str = "v2.core.event";

/// One event. <https://docs.stripe.com/api/events/object>
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Equal for every delivery of this event, `evt_…`. Stripe may tell one change by two events.
    pub id: String,
    /// Stripe's `type`, such as `invoice.paid`; with a leading `v1.` or `v2.` for thin events.
    pub kind: String,
    /// The API version that shaped the payload. `None` for thin events.
    pub api_version: Option<String>,
    /// When it happened, unix seconds.
    pub created: i64,
    /// Whether real money is involved; false in a sandbox.
    pub livemode: bool,
    /// The account it happened in, when that is not ours: Connect, or the context of a thin event.
    pub account: Option<String>,
    /// The object it is about. `None` where the object has no id, as an upcoming invoice.
    pub object_id: Option<String>,
    /// The customer that object belongs to, or is.
    pub customer: Option<String>,
    /// What it says, as far as it can matter to a customer's access.
    pub change: Change,
}

/// The payload of an [`Event`]: the object after the change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// `customer.subscription.*`
    Subscription(Subscription),
    /// `checkout.session.*`
    Checkout(Checkout),
    /// `invoice.paid` and its twin `invoice.payment_succeeded`, `.payment_failed`,
    /// `.payment_action_required`, `.finalization_failed`, `.upcoming`. The other invoice events
    /// change nobody's access.
    Invoice(Invoice),
    /// `invoice_payment.paid`
    InvoicePayment(InvoicePayment),
    /// `charge.refunded`
    ChargeRefunded(ChargeRefunded),
    /// `refund.*` and `charge.refund.updated`
    Refund(Refund),
    /// `charge.dispute.*`
    Dispute(Dispute),
    /// `customer.created`, `customer.updated`
    Customer(Customer),
    /// `customer.deleted`; [`Event::customer`] is gone.
    CustomerDeleted,
    /// A thin event. It only names [`Event::object_id`]: fetch that object to learn its state, and
    /// go on with [`with_object`].
    Thin {
        /// The type of the object to fetch, such as `subscription`.
        object_type: Option<String>,
    },
    /// A type that has no bearing here, or that is newer than this code.
    Other,
}

/// A customer. <https://docs.stripe.com/api/customers/object>
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Customer {
    /// `cus_…`
    pub id: String,
    /// `metadata.user_id`: our user, when we created the customer.
    pub user_id: Option<String>,
    /// The mail address Stripe writes to.
    pub email: Option<String>,
}

/// Reads a verified body.
pub fn read(body: &[u8]) -> Result<Event, Unreadable> {
    let body = json::parse(body)?;
    let event = Object::root(&body)?;
    if event.text("object")?.as_deref() == Some(THIN_EVENT) {
        read_thin(&event)
    } else {
        read_snapshot(&event)
    }
}

fn read_snapshot(event: &Object) -> json::Result<Event> {
    let kind = event.required("type", Object::text)?;
    let data = event.required_object("data")?;
    let object = data.required_object("object")?;

    // An unknown object may give these names another shape, and then there is nothing to tell.
    let object_type = object.text("object").unwrap_or_default();
    let object_id = object.text("id").unwrap_or_default();
    let customer = match object_type.as_deref() {
        Some("customer") => object_id.clone(),
        _ => object.id("customer").unwrap_or_default(),
    };
    let change = match object_type {
        Some(object_type) => Change::read(&kind, &object_type, &data)?,
        None => Change::Other,
    };

    Ok(Event {
        id: event.required("id", Object::text)?,
        kind,
        api_version: event.text("api_version")?,
        created: event.required("created", Object::int)?,
        livemode: event.required("livemode", Object::flag)?,
        account: account(event)?,
        object_id,
        customer,
        change,
    })
}

fn read_thin(event: &Object) -> json::Result<Event> {
    let related = event.object("related_object")?;
    let object_id = related.text("id")?;
    let object_type = related.text("type")?;
    let created = event.required("created", Object::text)?;
    let created = DateTime::parse_from_rfc3339(&created)
        .map_err(|_| Unreadable("created has to be an RFC 3339 time".into()))?;

    Ok(Event {
        id: event.required("id", Object::text)?,
        kind: event.required("type", Object::text)?,
        api_version: None,
        created: created.timestamp(),
        livemode: event.required("livemode", Object::flag)?,
        account: account(event)?,
        customer: object_id
            .clone()
            .filter(|_| object_type.as_deref() == Some("customer")),
        object_id,
        change: Change::Thin { object_type },
    })
}

/// The event with its object as it was read from the API: of a thin event, which only names it, the
/// snapshot that Stripe did not send. Keeps what only the event knows.
pub fn with_object(event: Event, object: &Value) -> Result<Event, Unreadable> {
    let object_type = Object::root(object)?.text("object")?.unwrap_or_default();
    let kind = event.kind.strip_prefix("v1.").unwrap_or(&event.kind);
    let data = serde_json::json!({"object": object});
    let data = Object::root(&data)?;
    let change = match Change::read(kind, &object_type, &data)? {
        // Thin events have words of their own for what became of a subscription.
        Change::Other if object_type == "subscription" => {
            Change::read("customer.subscription.updated", &object_type, &data)?
        }
        change => change,
    };
    let customer = match object_type.as_str() {
        "customer" => event.object_id.clone(),
        _ => data.object("object")?.id("customer").unwrap_or_default(),
    };
    Ok(Event {
        kind: kind.to_owned(),
        customer: customer.or(event.customer),
        change,
        ..event
    })
}

/// Reads a checkout session as the API answers it.
pub fn read_checkout(object: &Value) -> Result<Checkout, Unreadable> {
    Checkout::read(&Object::root(object)?)
}

fn account(event: &Object) -> json::Result<Option<String>> {
    Ok(event.text("account")?.or(event.text("context")?))
}

impl Change {
    /// Reads `data` by the type of the event and that of its object; where the two do not belong
    /// together, it is nothing we know.
    fn read(kind: &str, object_type: &str, data: &Object) -> json::Result<Self> {
        let object = &data.object("object")?;
        Ok(match (object_type, kind) {
            (
                "subscription",
                "customer.subscription.created"
                | "customer.subscription.updated"
                | "customer.subscription.deleted"
                | "customer.subscription.paused"
                | "customer.subscription.resumed"
                | "customer.subscription.trial_will_end"
                | "customer.subscription.pending_update_applied"
                | "customer.subscription.pending_update_expired",
            ) => Self::Subscription(Subscription {
                deleted: kind == "customer.subscription.deleted",
                previous_status: data.object("previous_attributes")?.text("status")?,
                ..Subscription::read(object)?
            }),
            (
                "checkout.session",
                "checkout.session.completed"
                | "checkout.session.async_payment_succeeded"
                | "checkout.session.async_payment_failed"
                | "checkout.session.expired",
            ) => Self::Checkout(Checkout::read(object)?),
            (
                "invoice",
                "invoice.paid"
                | "invoice.payment_succeeded"
                | "invoice.payment_failed"
                | "invoice.payment_action_required"
                | "invoice.finalization_failed"
                | "invoice.upcoming",
            ) => Self::Invoice(Invoice::read(object)?),
            ("invoice_payment", "invoice_payment.paid") => {
                Self::InvoicePayment(InvoicePayment::read(object)?)
            }
            ("charge", "charge.refunded") => Self::ChargeRefunded(ChargeRefunded::read(object)?),
            (
                "refund",
                "refund.created" | "refund.updated" | "refund.failed" | "charge.refund.updated",
            ) => Self::Refund(Refund::read(object)?),
            (
                "dispute",
                "charge.dispute.created"
                | "charge.dispute.updated"
                | "charge.dispute.closed"
                | "charge.dispute.funds_withdrawn"
                | "charge.dispute.funds_reinstated",
            ) => Self::Dispute(Dispute::read(object)?),
            ("customer", "customer.created" | "customer.updated") => {
                Self::Customer(Customer::read(object)?)
            }
            ("customer", "customer.deleted") => Self::CustomerDeleted,
            _ => Self::Other,
        })
    }
}

impl Customer {
    fn read(customer: &Object) -> json::Result<Self> {
        Ok(Self {
            id: customer.required("id", Object::text)?,
            user_id: user_id(customer)?,
            email: customer.text("email")?,
        })
    }
}

/// Our user, where we wrote one into the object's metadata.
fn user_id(object: &Object) -> json::Result<Option<String>> {
    object.object("metadata")?.text("user_id")
}
