//! What the pay page does.

use super::billing::Presence;
use super::payment;
use super::start::{self, Wanted};
use crate::dice::fresh;
use crate::stripe::books::Books;
use crate::stripe::refusal::{Refusal, Result};
use crate::stripe::state::payment::PaymentStatus;
use crate::stripe::state::promotion::Discount;
use crate::stripe::state::session::Asked;
use crate::stripe::state::subscription::Item;
use crate::stripe::state::{
    Card, Customer, Invoice, Payment, PromotionCode, Session, Subscription,
};

pub use super::DAY_S;

pub struct Paying<'a> {
    pub asked: &'a Asked,
    /// The bank was told that it is really them.
    pub confirmed: bool,
}

/// An open session.
pub fn open(books: &Books, id: &str) -> Result<Session> {
    let session = books.find::<Session>(id, "id")?;
    match session.status {
        "open" => Ok(session.clone()),
        status => Err(Refusal::not_now(
            Some("checkout_session_not_open"),
            format!("This checkout session is {status}."),
        )),
    }
}

/// Whether there is nothing to ask a card for.
pub fn is_free(session: &Session, now: i64) -> bool {
    let (subtotal, off) = session.amounts(now);
    session.mode != "setup" && subtotal - off == 0 && !session.always_asks_for_card
}

/// Takes a promotion code that someone typed.
pub fn promote(books: &mut Books, id: &str, code: &str) -> Result<()> {
    let session = open(books, id)?;
    let typed = code.trim();
    let known = books
        .promotion_codes
        .iter()
        .find(|known| known.is_active && known.code.eq_ignore_ascii_case(typed));
    let Some(known) = known.filter(|_| session.allows_promotion_codes).cloned() else {
        return Err(Refusal::not_now(None, "This code is invalid."));
    };
    let discount = Discount::new(known.coupon, Some(known.id), books.now);
    books.edit::<Session>(id, |session| session.discount = Some(discount));
    Ok(())
}

/// Pays. `None`: the bank has to be told first that it is them.
pub fn pay(books: &mut Books, id: &str, paying: &Paying<'_>) -> Result<Option<Session>> {
    let session = open(books, id)?;
    let at = session
        .customer
        .as_deref()
        .map_or(books.now, |customer| books.now_of(customer));
    let asked = paying.asked;
    let mut card = None;
    if !asked.number.is_empty() || !is_free(&session, at) {
        let read = Card::read(&asked.number, at)?;
        let (exp_month, exp_year) = asked.expires.unwrap_or((read.exp_month, read.exp_year));
        card = Some(Card {
            exp_month,
            exp_year,
            ..read
        });
    }
    let (subtotal, off) = session.amounts(at);
    let charged = subtotal - off > 0;
    if let Some(card) = &card {
        let agreed = if charged {
            card.charge(true, paying.confirmed)
        } else {
            card.keep(paying.confirmed)
        };
        if !agreed? {
            return Ok(None);
        }
    }

    let customer = customer(books, &session, asked, at);
    let card = card.map(|card| attach(books, card, &customer, &asked.name, at));
    let (mut subscription, mut invoice, mut payment) = (None, None, None);
    match session.mode {
        "subscription" => {
            let id = subscribe(books, &session, &customer, card, at);
            invoice = books
                .get::<Subscription>(&id)
                .and_then(|subscription| subscription.latest_invoice.clone());
            subscription = Some(id);
        }
        "payment" if charged => {
            payment = Some(pay_once(
                books,
                &session,
                &customer,
                card,
                subtotal - off,
                at,
            ))
        }
        _ => {}
    }
    if let Some(code) = session
        .discount
        .as_ref()
        .and_then(|discount| discount.promotion_code.as_deref())
    {
        books.edit::<PromotionCode>(code, |code| code.times_redeemed += 1);
    }
    let of_invoice = invoice.as_deref().and_then(|id| {
        let invoice = books.get::<Invoice>(id)?;
        invoice.payment.clone()
    });
    let waits = payment.clone().or(of_invoice).is_some_and(|payment| {
        let payment = books.get::<Payment>(&payment);
        payment.is_some_and(|payment| payment.status == PaymentStatus::Processing)
    });
    let done = books.edit::<Session>(id, |session| {
        session.status = "complete";
        session.payment_status = match (charged, waits) {
            (false, _) => "no_payment_required",
            (true, true) => "unpaid",
            (true, false) => "paid",
        };
        session.customer = Some(customer);
        session.name = Some(asked.name.clone()).filter(|name| !name.is_empty());
        session.email = session.email.take().or_else(|| asked.email.clone());
        (session.subscription, session.invoice, session.payment) = (subscription, invoice, payment);
    });
    let done = done.map(|(_, done)| done);
    if let Some(done) = &done {
        books.tell("checkout.session.completed", at, done.clone());
    }
    Ok(done)
}

/// Who pays: whom the application named, or someone new.
fn customer(books: &mut Books, session: &Session, asked: &Asked, at: i64) -> String {
    if let Some(customer) = &session.customer {
        let email = books
            .get::<Customer>(customer)
            .and_then(|customer| customer.email.clone());
        books.edit::<Session>(&session.id, |session| session.email = email);
        return customer.clone();
    }
    let customer = Customer {
        id: fresh("cus", 14),
        created: at,
        email: session
            .customer_email
            .clone()
            .or_else(|| asked.email.clone()),
        name: Some(asked.name.clone()).filter(|name| !name.is_empty()),
        ..Customer::default()
    };
    let id = customer.id.clone();
    books.add(customer, "customer.created", at);
    id
}

/// Keeps a card for a customer.
pub fn attach(books: &mut Books, card: Card, customer: &str, name: &str, at: i64) -> String {
    let email = books
        .get::<Customer>(customer)
        .and_then(|customer| customer.email.clone());
    let name = Some(name.to_owned()).filter(|name| !name.is_empty());
    let card = Card {
        customer: Some(customer.to_owned()),
        name,
        email,
        ..card
    };
    let id = card.id.clone();
    books.add(card, "payment_method.attached", at);
    id
}

fn subscribe(
    books: &mut Books,
    session: &Session,
    customer: &str,
    card: Option<String>,
    at: i64,
) -> String {
    let items = session.lines.iter().map(|line| Item {
        id: fresh("si", 14),
        created: at,
        price: line.price.clone(),
        quantity: line.quantity,
        metadata: Default::default(),
    });
    let wanted = Wanted {
        customer: customer.to_owned(),
        items: items.collect(),
        card,
        trial_end: session.trial_end(at),
        without_card: session.onward.without_card.unwrap_or("create_invoice"),
        discount: session.discount.clone(),
        description: session.onward.description.clone(),
        metadata: session.onward.metadata.clone(),
        cancels_at_period_end: false,
        cancel_at: None,
        waits: false,
    };
    start::subscribe(books, wanted, Presence::Confirmed, at).0
}

fn pay_once(
    books: &mut Books,
    session: &Session,
    customer: &str,
    card: Option<String>,
    amount_minor: i64,
    at: i64,
) -> String {
    let payment = Payment {
        id: fresh("pi", 24),
        created: at,
        customer: Some(customer.to_owned()),
        email: books
            .get::<Customer>(customer)
            .and_then(|customer| customer.email.clone()),
        amount_minor,
        currency: session.currency().to_owned(),
        status: PaymentStatus::NeedsCard,
        invoice: None,
        card: None,
        charge: None,
        declined: None,
        description: session.onward.description.clone(),
        metadata: session.onward.metadata.clone(),
        refunded_minor: 0,
        succeeded_at: None,
        settles_at: None,
        is_disputed: false,
    };
    let id = payment.id.clone();
    books.payments.put(payment);
    let card = card.and_then(|card| books.get::<Card>(&card).cloned());
    if let Some(card) = card {
        payment::charge(books, &id, card, at);
    }
    id
}
