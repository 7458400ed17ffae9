use serde_json::Value;

use crate::stripe::books::{Books, within};
use crate::stripe::call::Call;
use crate::stripe::event::Event;
use crate::stripe::refusal::{Refusal, Result};
use crate::stripe::state::Show;

/// Stripe's limit.
const MAX_TYPES: usize = 20;

pub fn list(books: &mut Books, call: &Call) -> Result<Value> {
    let params = &call.params;
    params.only(&[
        "created",
        "delivery_success",
        "ending_before",
        "limit",
        "starting_after",
        "type",
        "types",
    ])?;
    let (mut types, delivered) = (params.texts("types"), params.flag("delivery_success")?);
    types.extend(params.owned("type"));
    if types.len() > MAX_TYPES {
        return Err(Refusal::invalid(
            "types",
            format!("You may only specify up to {MAX_TYPES} types."),
        ));
    }
    let mut rows = vec![];
    for event in books.events.iter() {
        let is_wanted = types.is_empty() || types.iter().any(|wanted| is_of(&event.kind, wanted));
        let holds = is_wanted
            && delivered
                .is_none_or(|delivered| delivered == (books.outbox.untaken(&event.id) == 0));
        if holds && within(call, event.created)? {
            rows.push(event);
        }
    }
    books.list_as(call, rows, |event| show(books, call, event))
}

/// `invoice.*` is every event of invoices.
fn is_of(kind: &str, wanted: &str) -> bool {
    match wanted.strip_suffix('*') {
        Some(family) => kind.starts_with(family),
        None => kind == wanted,
    }
}

fn show(books: &Books, call: &Call, event: &Event) -> Value {
    event
        .awaited(books.outbox.untaken(&event.id))
        .show(&call.version)
}

pub fn retrieve(books: &mut Books, call: &Call) -> Result<Value> {
    let event = books.find::<Event>(call.id(), "id")?;
    Ok(show(books, call, event))
}
