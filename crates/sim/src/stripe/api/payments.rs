use serde_json::{Value, json};

use crate::dice::fresh;
use crate::stripe::books::Books;
use crate::stripe::call::Call;
use crate::stripe::life::checkout;
use crate::stripe::refusal::{Refusal, Result};
use crate::stripe::state::payment::PaymentStatus;
use crate::stripe::state::{Card, Charge, Payment, Refund, Show};

pub fn retrieve(books: &mut Books, call: &Call) -> Result<Value> {
    Ok(books.find::<Payment>(call.id(), "id")?.show(&call.version))
}

pub fn refund(books: &mut Books, call: &Call) -> Result<Value> {
    let params = &call.params;
    params.only(&["amount", "charge", "metadata", "payment_intent", "reason"])?;
    let payment = match (params.text("payment_intent"), params.text("charge")) {
        (Some(id), _) => books.find::<Payment>(id, "payment_intent")?,
        (None, Some(id)) => {
            let of_charge = books
                .payments
                .iter()
                .find(|payment| payment.charge.as_deref() == Some(id));
            of_charge.ok_or_else(|| Refusal::no_such("charge", id, "charge"))?
        }
        (None, None) => {
            return Err(Refusal::not_now(
                Some("parameter_missing"),
                "One of the following params should be provided for this request: payment_intent or charge.",
            ));
        }
    };
    let left = payment.amount_minor - payment.refunded_minor;
    if payment.status != PaymentStatus::Succeeded || left == 0 {
        let message = format!(
            "Charge {} has already been refunded.",
            payment.charge.as_deref().unwrap_or_default()
        );
        return Err(Refusal::not_now(Some("charge_already_refunded"), message));
    }
    let amount = params.int("amount")?.unwrap_or(left);
    if !(1..=left).contains(&amount) {
        return Err(Refusal::invalid(
            "amount",
            format!(
                "Refund amount ({amount}) is greater than unrefunded amount on charge ({left})"
            ),
        ));
    }
    let reason = params.word(
        "reason",
        &["duplicate", "fraudulent", "requested_by_customer"],
    )?;
    let id = payment.id.clone();
    let refund = give_back(books, &id, amount, reason, params.metadata());
    refund
        .map(|refund| refund.show(&call.version))
        .ok_or_else(|| Refusal::no_such("payment_intent", &id, "payment_intent"))
}

/// Tells of the refund and of its charge.
pub fn give_back(
    books: &mut Books,
    payment: &str,
    amount_minor: i64,
    reason: Option<&'static str>,
    metadata: crate::stripe::params::Metadata,
) -> Option<Refund> {
    let (before, after) =
        books.edit::<Payment>(payment, |payment| payment.refunded_minor += amount_minor)?;
    let at = after
        .customer
        .as_deref()
        .map_or(books.now, |customer| books.now_of(customer));
    let refund = Refund {
        id: fresh("re", 24),
        created: at,
        payment: after.id.clone(),
        charge: after.charge.clone(),
        customer: after.customer.clone(),
        card: after.card.as_ref().map(|card| card.id.clone()),
        amount_minor,
        currency: after.currency.clone(),
        reason,
        metadata,
    };
    if let Some(charge) = after.charge.clone() {
        let before = Charge {
            id: charge.clone(),
            payment: before,
        };
        books.tell_change(
            "charge.refunded",
            at,
            before,
            Charge {
                id: charge,
                payment: after,
            },
        );
    }
    books.add(refund.clone(), "refund.created", at);
    books.tell("charge.refund.updated", at, refund.clone());
    Some(refund)
}

pub fn retrieve_refund(books: &mut Books, call: &Call) -> Result<Value> {
    Ok(books.find::<Refund>(call.id(), "id")?.show(&call.version))
}

pub fn refunds(books: &mut Books, call: &Call) -> Result<Value> {
    let params = &call.params;
    params.only(&[
        "charge",
        "created",
        "ending_before",
        "limit",
        "payment_intent",
        "starting_after",
    ])?;
    let (payment, charge) = (params.text("payment_intent"), params.text("charge"));
    let holds = |refund: &&Refund| {
        payment.is_none_or(|payment| refund.payment == payment)
            && charge.is_none_or(|charge| refund.charge.as_deref() == Some(charge))
    };
    books.list(call, books.refunds.iter().filter(holds))
}

pub fn card(books: &mut Books, call: &Call) -> Result<Value> {
    Ok(books.find::<Card>(call.id(), "id")?.show(&call.version))
}

pub fn cards(books: &mut Books, call: &Call) -> Result<Value> {
    let customer = books.customer(call.id(), "id")?;
    let own = books
        .cards
        .iter()
        .filter(|card| card.customer.as_ref() == Some(&customer.id));
    books.list(call, own)
}

/// A card that is there, or a token as the SDKs' examples use them.
pub fn attach(books: &mut Books, call: &Call) -> Result<Value> {
    let customer = call.params.required("customer")?.to_owned();
    books.customer(&customer, "customer")?;
    let at = books.now_of(&customer);
    if let Some(card) = books.get::<Card>(call.id()).cloned() {
        books.change::<Card>(&card.id, "payment_method.attached", at, |card| {
            card.customer = Some(customer)
        });
        return card_of(books, call, &card.id);
    }
    let card = Card::read(call.id(), at)
        .map_err(|_| Refusal::no_such("payment_method", call.id(), "id"))?;
    card.keep(true)?;
    let id = checkout::attach(books, card, &customer, "", at);
    card_of(books, call, &id)
}

fn card_of(books: &Books, call: &Call, id: &str) -> Result<Value> {
    Ok(books
        .get::<Card>(id)
        .map_or(json!(null), |card| card.show(&call.version)))
}
