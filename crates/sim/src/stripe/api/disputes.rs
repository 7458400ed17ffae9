use serde_json::Value;

use crate::stripe::books::{Books, within};
use crate::stripe::call::Call;
use crate::stripe::life::dispute;
use crate::stripe::refusal::{Refusal, Result};
use crate::stripe::state::{Dispute, Show};

pub fn retrieve(books: &mut Books, call: &Call) -> Result<Value> {
    Ok(books.find::<Dispute>(call.id(), "id")?.show(&call.version))
}

pub fn list(books: &mut Books, call: &Call) -> Result<Value> {
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
    let mut rows = vec![];
    for dispute in books.disputes.iter() {
        let holds = payment.is_none_or(|payment| dispute.payment == payment)
            && charge.is_none_or(|charge| dispute.charge.as_deref() == Some(charge));
        if holds && within(call, dispute.created)? {
            rows.push(dispute);
        }
    }
    books.list(call, rows)
}

/// Evidence counts once it is submitted, which it is unless said.
pub fn update(books: &mut Books, call: &Call) -> Result<Value> {
    let params = &call.params;
    params.only(&["evidence", "metadata", "submit"])?;
    open(books, call)?;
    let mut metadata = Default::default();
    params.merge_metadata(&mut metadata);
    books.edit::<Dispute>(call.id(), |dispute| dispute.metadata.extend(metadata));
    let evidence = params.inside("evidence").owned("uncategorized_text");
    let submits = params.flag("submit")?.unwrap_or(true);
    if let Some(evidence) = evidence.filter(|_| submits) {
        let at = books.now;
        dispute::answer(books, call.id(), &evidence, at);
    }
    retrieve(books, call)
}

/// Gives it up.
pub fn close(books: &mut Books, call: &Call) -> Result<Value> {
    call.params.only(&[])?;
    let status = if open(books, call)?.is_inquiry() {
        "warning_closed"
    } else {
        "lost"
    };
    let at = books.now;
    dispute::turn(books, call.id(), status, at);
    retrieve(books, call)
}

fn open<'a>(books: &'a Books, call: &Call) -> Result<&'a Dispute> {
    let dispute = books.find::<Dispute>(call.id(), "id")?;
    if dispute.is_closed() {
        return Err(Refusal::not_now(
            None,
            format!("This dispute is already closed: {}.", call.id()),
        ));
    }
    Ok(dispute)
}
