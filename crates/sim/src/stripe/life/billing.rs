//! Invoices: made, finalized, paid or not.

use super::{DAY_S, payment};
use crate::dice::fresh;
use crate::stripe::books::{AfterRetries, Books};
use crate::stripe::refusal::Refusal;
use crate::stripe::state::invoice::Line;
use crate::stripe::state::payment::PaymentStatus;
use crate::stripe::state::subscription::{Item, Status};
use crate::stripe::state::{Card, Customer, Invoice, InvoicePayment, Payment, Subscription};

/// From a renewal to its invoice's finalization.
pub const DRAFT_S: i64 = 60 * 60;
/// From each failed attempt to the next.
const RETRIES_S: [i64; 3] = [3 * DAY_S, 5 * DAY_S, 7 * DAY_S];

/// Whether someone is there to confirm, and has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    Away,
    There,
    Confirmed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Paid,
    /// The bank answers in days.
    Processing,
    /// The bank wants to hear it from the customer.
    Asks,
    Declined(Refusal),
}

/// A period of the subscription's items.
pub fn regular_lines(subscription: &Subscription, period: (i64, i64), is_free: bool) -> Vec<Line> {
    let line = |item: &Item| Line {
        id: fresh("il", 24),
        description: if is_free {
            format!("Trial period for {}", item.price.product_name)
        } else {
            format!(
                "{} × {} (at {})",
                item.quantity,
                item.price.product_name,
                item.price.words()
            )
        },
        amount_minor: if is_free { 0 } else { item.amount_minor() },
        price: item.price.clone(),
        quantity: item.quantity,
        period,
        is_proration: false,
        item: Some(item.id.clone()),
    };
    subscription.items.iter().map(line).collect()
}

/// A draft of these lines.
pub fn draft(
    books: &mut Books,
    subscription: &str,
    lines: Vec<Line>,
    reason: &str,
    at: i64,
) -> Option<String> {
    let subscription = books.get::<Subscription>(subscription)?.clone();
    let discount = subscription
        .discount
        .clone()
        .filter(|discount| discount.holds_at(at));
    let invoice = Invoice {
        id: fresh("in", 24),
        subscription: Some(subscription.id.clone()),
        subscription_metadata: subscription.metadata.clone(),
        billing_reason: reason.to_owned(),
        currency: subscription.currency().to_owned(),
        discount,
        test_clock: subscription.test_clock.clone(),
        ..blank(books, &subscription.customer, lines, at)
    };
    let id = invoice.id.clone();
    books.edit::<Subscription>(&subscription.id, |subscription| {
        subscription.latest_invoice = Some(id.clone());
        if let Some(discount) = subscription
            .discount
            .as_mut()
            .filter(|discount| discount.coupon.duration == "once")
        {
            discount.is_used = invoice.subtotal_minor() > 0;
        }
    });
    books.add(invoice, "invoice.created", at);
    Some(id)
}

/// A draft of a customer's, of no subscription yet.
pub fn blank(books: &Books, customer: &str, lines: Vec<Line>, at: i64) -> Invoice {
    let customer = books.get::<Customer>(customer).cloned().unwrap_or_default();
    Invoice {
        id: fresh("in", 24),
        created: at,
        email: customer.email,
        name: customer.name,
        starting_balance_minor: customer.balance_minor,
        customer: customer.id,
        billing_reason: "manual".to_owned(),
        status: "draft",
        currency: lines
            .first()
            .map_or_else(|| "usd".to_owned(), |line| line.price.currency.clone()),
        lines,
        ..Invoice::default()
    }
}

/// From now on it is owed: it has a number, and a payment if there is something to pay.
pub fn finalize(books: &mut Books, invoice: &str, at: i64) {
    let Some(invoice) = books
        .get::<Invoice>(invoice)
        .filter(|invoice| invoice.status == "draft")
        .cloned()
    else {
        return;
    };
    let (balance, sequence) = (invoice.ending_balance_minor(), {
        let customer = books.get::<Customer>(&invoice.customer);
        customer.map_or(1, |customer| customer.next_invoice.max(1))
    });
    let prefix = books
        .get::<Customer>(&invoice.customer)
        .map(Customer::invoice_prefix)
        .unwrap_or_default();
    books.change::<Customer>(&invoice.customer, "customer.updated", at, |customer| {
        customer.next_invoice = sequence + 1;
        customer.balance_minor = balance;
        customer.currency = Some(invoice.currency.clone());
    });

    let payment = (invoice.due_minor() > 0).then(|| Payment {
        id: fresh("pi", 24),
        created: at,
        customer: Some(invoice.customer.clone()),
        email: invoice.email.clone(),
        amount_minor: invoice.due_minor(),
        currency: invoice.currency.clone(),
        status: PaymentStatus::NeedsCard,
        invoice: Some(invoice.id.clone()),
        card: None,
        charge: None,
        declined: None,
        description: Some(
            if invoice.billing_reason == "subscription_create" {
                "Subscription creation"
            } else {
                "Subscription update"
            }
            .to_owned(),
        ),
        metadata: Default::default(),
        refunded_minor: 0,
        succeeded_at: None,
        settles_at: None,
        is_disputed: false,
    });
    let url = format!("{}/pay/invoice/{}", books.origin, invoice.id);
    if let Some(payment) = &payment {
        books.invoice_payments.put(InvoicePayment {
            id: fresh("inpay", 24),
            created: at,
            invoice: invoice.id.clone(),
            payment: payment.id.clone(),
            amount_minor: payment.amount_minor,
            currency: payment.currency.clone(),
            paid_at: None,
        });
    }
    let payment_id = payment.as_ref().map(|payment| payment.id.clone());
    if let Some(payment) = payment {
        books.add(payment, "payment_intent.created", at);
    }
    books.change::<Invoice>(&invoice.id, "invoice.finalized", at, |invoice| {
        invoice.status = "open";
        invoice.finalizes_at = None;
        invoice.finalized_at = Some(at);
        invoice.number = Some(format!("{prefix}-{sequence:04}"));
        invoice.payment = payment_id;
        invoice.url = Some(url);
    });
}

/// The card that a subscription is paid with.
pub fn card_of(books: &Books, subscription: Option<&str>, customer: &str) -> Option<Card> {
    let own = subscription
        .and_then(|id| books.get::<Subscription>(id))
        .and_then(|subscription| subscription.card.clone());
    let card = own.or_else(|| {
        books
            .get::<Customer>(customer)
            .and_then(|customer| customer.card.clone())
    })?;
    books.get::<Card>(&card).cloned()
}

/// Charges what is due, and tells how that went.
pub fn collect(books: &mut Books, invoice: &str, at: i64, presence: Presence) -> Outcome {
    let Some(invoice) = books
        .get::<Invoice>(invoice)
        .filter(|invoice| invoice.status == "open")
        .cloned()
    else {
        return Outcome::Paid;
    };
    let Some(payment) = invoice.payment.clone() else {
        paid(books, &invoice, at);
        return Outcome::Paid;
    };
    let card = card_of(books, invoice.subscription.as_deref(), &invoice.customer);
    let (there, confirmed) = (presence != Presence::Away, presence == Presence::Confirmed);
    let answer = match &card {
        Some(card) => card.charge(there, confirmed),
        None => Err(Refusal::not_now(
            Some("resource_missing"),
            "This customer has no attached payment source or default payment method.",
        )),
    };
    match (answer, card) {
        (Ok(true), Some(card)) => match payment::charge(books, &payment, card, at) {
            PaymentStatus::Processing => Outcome::Processing,
            _ => Outcome::Paid,
        },
        (Ok(_), card) => {
            books.change::<Payment>(&payment, "payment_intent.requires_action", at, |payment| {
                payment.status = PaymentStatus::NeedsConfirmation;
                payment.card = card;
            });
            failed(books, &invoice, at, "invoice.payment_action_required");
            Outcome::Asks
        }
        (Err(refusal), card) => {
            payment::decline(books, &payment, card, refusal.clone(), at);
            Outcome::Declined(refusal)
        }
    }
}

/// What becomes of an invoice whose charge went well.
pub fn paid(books: &mut Books, invoice: &Invoice, at: i64) {
    let paid = books.edit::<Invoice>(&invoice.id, |invoice| {
        invoice.status = "paid";
        invoice.paid_at = Some(at);
        invoice.attempts += u32::from(invoice.payment.is_some());
        invoice.next_attempt = None;
    });
    let Some((_, paid)) = paid else { return };
    books.tell("invoice.paid", at, paid.clone());
    books.tell("invoice.payment_succeeded", at, paid.clone());
    let of_invoice = books
        .invoice_payments
        .iter()
        .find(|payment| payment.invoice == invoice.id);
    if let Some(id) = of_invoice.map(|payment| payment.id.clone())
        && let Some((_, payment)) =
            books.edit::<InvoicePayment>(&id, |payment| payment.paid_at = Some(at))
    {
        books.tell("invoice_payment.paid", at, payment);
    }
    let Some(subscription) = &invoice.subscription else {
        return;
    };
    let is_latest =
        |subscription: &Subscription| subscription.latest_invoice.as_deref() == Some(&*invoice.id);
    books.change::<Subscription>(
        subscription,
        "customer.subscription.updated",
        at,
        |subscription| {
            let waits = matches!(
                subscription.status,
                Status::Incomplete | Status::PastDue | Status::Unpaid
            );
            if waits && is_latest(subscription) {
                subscription.status = Status::Active;
            }
        },
    );
}

/// `action` is told of besides when the bank asks.
pub fn failed(books: &mut Books, invoice: &Invoice, at: i64, action: &str) {
    let first = invoice.billing_reason == "subscription_create";
    let failed = books.edit::<Invoice>(&invoice.id, |invoice| {
        let retry = RETRIES_S.get(invoice.attempts as usize).filter(|_| !first);
        invoice.attempts += 1;
        invoice.next_attempt = retry.map(|wait| at + wait);
    });
    let Some((_, failed)) = failed else { return };
    books.tell("invoice.payment_failed", at, failed.clone());
    if !action.is_empty() {
        books.tell(action, at, failed.clone());
    }
    let Some(subscription) = &invoice.subscription else {
        return;
    };
    let gives_up = !first && failed.next_attempt.is_none();
    let after = books.policy.after_retries;
    if gives_up && after == AfterRetries::Canceled {
        super::end::now(books, subscription, "payment_failed", at);
        return;
    }
    books.change::<Subscription>(
        subscription,
        "customer.subscription.updated",
        at,
        |subscription| match subscription.status {
            Status::Active | Status::Trialing => subscription.status = Status::PastDue,
            Status::PastDue if gives_up && after == AfterRetries::Unpaid => {
                subscription.status = Status::Unpaid;
            }
            _ => {}
        },
    );
}

pub fn void(books: &mut Books, invoice: &str, at: i64) {
    let open = books
        .get::<Invoice>(invoice)
        .is_some_and(|invoice| matches!(invoice.status, "open" | "draft"));
    if open {
        books.change::<Invoice>(invoice, "invoice.voided", at, |invoice| {
            invoice.status = "void";
            invoice.voided_at = Some(at);
            (invoice.next_attempt, invoice.finalizes_at) = (None, None);
        });
    }
}

pub fn mark_uncollectible(books: &mut Books, invoice: &str, at: i64) {
    books.change::<Invoice>(invoice, "invoice.marked_uncollectible", at, |invoice| {
        invoice.status = "uncollectible";
        invoice.uncollectible_at = Some(at);
        (invoice.next_attempt, invoice.finalizes_at) = (None, None);
    });
}
