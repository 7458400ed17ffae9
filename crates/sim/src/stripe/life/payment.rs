//! Charging, with what banks make of it, at once or days later.

use super::{DAY_S, billing, dispute};
use crate::dice::fresh;
use crate::stripe::books::Books;
use crate::stripe::refusal::Refusal;
use crate::stripe::state::card::Behaviour;
use crate::stripe::state::payment::PaymentStatus;
use crate::stripe::state::{Card, Charge, Invoice, Payment, Session};

/// A bank that debits answers after so long.
const SETTLES_S: i64 = 4 * DAY_S;

/// What its bank agreed to: paid now, or processing.
pub fn charge(books: &mut Books, payment: &str, card: Card, at: i64) -> PaymentStatus {
    if !matches!(card.behaviour, Behaviour::Settles(_)) {
        succeed(books, payment, card, at);
        return PaymentStatus::Succeeded;
    }
    let waiting = books.change::<Payment>(payment, "payment_intent.processing", at, |payment| {
        payment.status = PaymentStatus::Processing;
        payment.settles_at = Some(at + SETTLES_S);
        payment.card = Some(card);
    });
    if let Some(invoice) = waiting.and_then(|payment| payment.invoice) {
        books.edit::<Invoice>(&invoice, |invoice| invoice.next_attempt = None);
    }
    PaymentStatus::Processing
}

fn succeed(books: &mut Books, payment: &str, card: Card, at: i64) {
    let (charge, behaviour) = (fresh("ch", 24), card.behaviour);
    let paid = books.change::<Payment>(payment, "payment_intent.succeeded", at, |payment| {
        payment.status = PaymentStatus::Succeeded;
        payment.succeeded_at = Some(at);
        payment.settles_at = None;
        payment.card = Some(card);
        payment.charge = Some(charge.clone());
        payment.declined = None;
    });
    let Some(paid) = paid else { return };
    let told = Charge {
        id: charge.clone(),
        payment: paid.clone(),
    };
    books.tell("charge.succeeded", at, told);
    if let Some(invoice) = &paid.invoice {
        let charged = books.edit::<Invoice>(invoice, |invoice| invoice.charge = Some(charge));
        if let Some((_, invoice)) = charged {
            billing::paid(books, &invoice, at);
        }
    }
    if let Behaviour::Disputes(status) = behaviour {
        dispute::open(books, &paid.id, status, at);
    }
}

pub fn decline(books: &mut Books, payment: &str, card: Option<Card>, refusal: Refusal, at: i64) {
    let charge = fresh("ch", 24);
    let declined =
        books.change::<Payment>(payment, "payment_intent.payment_failed", at, |payment| {
            payment.status = PaymentStatus::NeedsCard;
            payment.settles_at = None;
            payment.card = card;
            payment.charge = Some(charge.clone());
            payment.declined = Some(refusal);
        });
    let Some(declined) = declined else { return };
    let told = Charge {
        id: charge.clone(),
        payment: declined.clone(),
    };
    books.tell("charge.failed", at, told);
    if let Some(invoice) = &declined.invoice {
        let charged = books.edit::<Invoice>(invoice, |invoice| invoice.charge = Some(charge));
        if let Some((_, invoice)) = charged {
            billing::failed(books, &invoice, at, "");
        }
    }
}

/// The bank answers; so does the checkout that waited for it.
pub fn settle(books: &mut Books, payment: &str, at: i64) {
    let Some(waiting) = books.get::<Payment>(payment).cloned() else {
        return;
    };
    let Some(account) = waiting.card else { return };
    let has_money = account.behaviour == Behaviour::Settles(true);
    if has_money {
        succeed(books, payment, account, at);
    } else {
        let message = "The customer's bank account could not be located.";
        let refusal = Refusal::card("no_account", None, message);
        decline(books, payment, Some(account), refusal, at);
    }
    let is_its = |session: &&Session| {
        let invoice = session.invoice.is_some() && session.invoice == waiting.invoice;
        session.payment_status == "unpaid"
            && (invoice || session.payment.as_deref() == Some(payment))
    };
    let session = books.sessions.iter().find(is_its);
    let Some(session) = session.map(|session| session.id.clone()) else {
        return;
    };
    let told = books.edit::<Session>(&session, |session| {
        if has_money {
            session.payment_status = "paid";
        }
    });
    if let Some((_, session)) = told {
        let kind = if has_money {
            "checkout.session.async_payment_succeeded"
        } else {
            "checkout.session.async_payment_failed"
        };
        books.tell(kind, at, session);
    }
}
