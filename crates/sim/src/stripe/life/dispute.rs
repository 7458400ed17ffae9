//! A bank asks for money back, and how that ends.

use crate::dice::fresh;
use crate::stripe::books::Books;
use crate::stripe::state::{Dispute, Payment};

pub fn open(books: &mut Books, payment: &str, status: &'static str, at: i64) {
    let disputed = books.edit::<Payment>(payment, |payment| payment.is_disputed = true);
    let Some((_, payment)) = disputed else { return };
    let dispute = Dispute {
        id: fresh("dp", 24),
        created: at,
        payment: payment.id,
        charge: payment.charge,
        amount_minor: payment.amount_minor,
        currency: payment.currency,
        status,
        evidence: None,
        metadata: Default::default(),
    };
    let takes_money = !dispute.is_inquiry();
    books.add(dispute.clone(), "charge.dispute.created", at);
    if takes_money {
        books.tell("charge.dispute.funds_withdrawn", at, dispute);
    }
}

/// What the bank makes of the evidence: the words that Stripe's own sandbox goes by decide at once.
/// <https://docs.stripe.com/testing#evidence>
pub fn answer(books: &mut Books, dispute: &str, evidence: &str, at: i64) {
    let Some(known) = books.get::<Dispute>(dispute) else {
        return;
    };
    let is_inquiry = known.is_inquiry();
    let status = match (evidence, is_inquiry) {
        ("winning_evidence", false) => "won",
        ("losing_evidence", false) => "lost",
        ("winning_evidence", true) => "warning_closed",
        (_, false) => "under_review",
        (_, true) => "warning_under_review",
    };
    books.edit::<Dispute>(dispute, |dispute| {
        dispute.evidence = Some(evidence.to_owned())
    });
    turn(books, dispute, status, at);
}

/// Gives it up, or tells that it is over.
pub fn turn(books: &mut Books, dispute: &str, status: &'static str, at: i64) {
    let Some((before, after)) = books.edit::<Dispute>(dispute, |dispute| dispute.status = status)
    else {
        return;
    };
    books.tell_change("charge.dispute.updated", at, before, after.clone());
    if status == "won" {
        books.tell("charge.dispute.funds_reinstated", at, after.clone());
    }
    if after.is_closed() {
        books.tell("charge.dispute.closed", at, after);
    }
}
