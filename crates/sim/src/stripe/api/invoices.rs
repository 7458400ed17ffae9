use serde_json::Value;

use crate::stripe::books::{Books, within};
use crate::stripe::call::Call;
use crate::stripe::life::billing::{self, Outcome, Presence};
use crate::stripe::life::change::{self, Proration};
use crate::stripe::refusal::{Refusal, Result};
use crate::stripe::state::subscription::{Cancellation, Status};
use crate::stripe::state::{Customer, Invoice, InvoicePayment, Show, Subscription};

pub fn list(books: &mut Books, call: &Call) -> Result<Value> {
    let params = &call.params;
    params.only(&[
        "collection_method",
        "created",
        "customer",
        "due_date",
        "ending_before",
        "limit",
        "starting_after",
        "status",
        "subscription",
    ])?;
    let (customer, subscription, status) = (
        params.text("customer"),
        params.text("subscription"),
        params.text("status"),
    );
    let mut rows = vec![];
    for invoice in books.invoices.iter() {
        let holds = customer.is_none_or(|customer| invoice.customer == customer)
            && subscription
                .is_none_or(|subscription| invoice.subscription.as_deref() == Some(subscription))
            && status.is_none_or(|status| invoice.status == status);
        if holds && within(call, invoice.created)? {
            rows.push(invoice);
        }
    }
    books.list(call, rows)
}

pub fn retrieve(books: &mut Books, call: &Call) -> Result<Value> {
    Ok(books.find::<Invoice>(call.id(), "id")?.show(&call.version))
}

/// With the customer's card, as they are there.
pub fn pay(books: &mut Books, call: &Call) -> Result<Value> {
    let invoice = books.find::<Invoice>(call.id(), "id")?;
    if invoice.status != "open" {
        return Err(Refusal::not_now(
            None,
            format!("Invoice is already {}", invoice.status),
        ));
    }
    let at = books.now_of(&invoice.customer.clone());
    match billing::collect(books, call.id(), at, Presence::There) {
        Outcome::Paid | Outcome::Processing => retrieve(books, call),
        Outcome::Declined(refusal) => Err(refusal),
        Outcome::Asks => {
            let message = "This payment requires additional user action before it can be completed successfully.";
            Err(Refusal::card(
                "invoice_payment_intent_requires_action",
                None,
                message,
            ))
        }
    }
}

/// The invoice that would come next, or at once, if this were done; nothing is.
pub fn create_preview(books: &mut Books, call: &Call) -> Result<Value> {
    let params = &call.params;
    params.only(&[
        "automatic_tax",
        "currency",
        "customer",
        "customer_details",
        "discounts",
        "invoice_items",
        "preview_mode",
        "subscription",
        "subscription_details",
    ])?;
    let details = params.inside("subscription_details");
    let (subscription, lines, at, reason) = match params.text("subscription") {
        Some(id) => {
            let subscription = books.find::<Subscription>(id, "subscription")?.clone();
            if subscription.status.is_over()
                || (subscription.is_leaving()
                    && !details.has("items")
                    && !details.has("cancel_at_period_end"))
            {
                return Err(Refusal::not_now(
                    Some("invoice_upcoming_none"),
                    "No upcoming invoices for customer.",
                ));
            }
            of_change(books, call, subscription)?
        }
        None => of_new(books, call)?,
    };
    let discount = subscription
        .discount
        .clone()
        .filter(|discount| discount.holds_at(at));
    let preview = Invoice {
        id: crate::dice::fresh("upcoming_in", 24),
        subscription: Some(subscription.id.clone()).filter(|id| !id.is_empty()),
        subscription_metadata: subscription.metadata.clone(),
        billing_reason: reason.to_owned(),
        currency: subscription.currency().to_owned(),
        discount,
        test_clock: subscription.test_clock.clone(),
        ..billing::blank(books, &subscription.customer, lines, at)
    };
    Ok(preview.show(&call.version))
}

type Preview = (
    Subscription,
    Vec<crate::stripe::state::invoice::Line>,
    i64,
    &'static str,
);

fn of_change(books: &Books, call: &Call, subscription: Subscription) -> Result<Preview> {
    let details = call.params.inside("subscription_details");
    let now = books.now_of(&subscription.customer);
    let items = super::subscriptions::changed_items(books, &details, &subscription, now)?;
    let proration = details
        .word("proration_behavior", Proration::WORDS)?
        .map_or(Proration::Later, Proration::of);
    let prorated_at = details
        .int("proration_date")?
        .unwrap_or(now)
        .clamp(subscription.period.0, subscription.period.1);
    let (after, changes) = change::planned(&subscription, items, proration, prorated_at);
    let mut lines = subscription.pending.clone();
    lines.extend(changes);
    let at_once = proration == Proration::Now || after.period != subscription.period;
    if at_once && details.has("items") {
        return Ok((after, lines, now, "subscription_update"));
    }
    // Together with the next period, which begins when this one ends.
    let ends = if details.text("trial_end") == Some("now") {
        now
    } else {
        subscription.period.1
    };
    lines.extend(billing::regular_lines(
        &after,
        after.period_from(ends),
        false,
    ));
    Ok((after, lines, ends, "upcoming"))
}

/// A subscription that there is not yet.
fn of_new(books: &Books, call: &Call) -> Result<Preview> {
    let details = call.params.inside("subscription_details");
    let customer = match call.params.text("customer") {
        Some(id) => books.customer(id, "customer")?.clone(),
        None => Customer::default(),
    };
    if !details.has("items") {
        return Err(Refusal::not_now(
            Some("invoice_upcoming_none"),
            "No upcoming invoices for customer.",
        ));
    }
    let at = books.now_of(&customer.id);
    let mut subscription = Subscription {
        id: String::new(),
        created: at,
        customer: customer.id,
        status: Status::Incomplete,
        items: vec![],
        period: (at, at),
        anchor: at,
        trial: None,
        without_card: "create_invoice",
        cancel_at: None,
        cancels_at_period_end: false,
        canceled_at: None,
        ended_at: None,
        cancellation: Cancellation::default(),
        card: None,
        latest_invoice: None,
        pause: None,
        discount: super::checkout::discount(books, &call.params, at)?,
        description: None,
        metadata: Default::default(),
        pending: vec![],
        test_clock: customer.test_clock,
        trial_end_told: false,
        is_made_up: false,
        livemode: false,
    };
    subscription.items = super::subscriptions::changed_items(books, &details, &subscription, at)?;
    let lines = billing::regular_lines(&subscription, subscription.period_from(at), false);
    Ok((subscription, lines, at, "subscription_create"))
}

pub fn payments(books: &mut Books, call: &Call) -> Result<Value> {
    let params = &call.params;
    params.only(&[
        "created",
        "ending_before",
        "invoice",
        "limit",
        "payment",
        "starting_after",
        "status",
    ])?;
    let payment = params.inside("payment");
    let (invoice, intent, status) = (
        params.text("invoice"),
        payment.text("payment_intent"),
        params.text("status"),
    );
    let holds = |payment: &&InvoicePayment| {
        invoice.is_none_or(|invoice| payment.invoice == invoice)
            && intent.is_none_or(|intent| payment.payment == intent)
            && status.is_none_or(|status| (status == "paid") == payment.paid_at.is_some())
    };
    books.list(call, books.invoice_payments.iter().filter(holds))
}
