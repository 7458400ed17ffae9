use serde_json::{Value, json};

use crate::dice::fresh;
use crate::stripe::books::{Books, within};
use crate::stripe::call::Call;
use crate::stripe::life::{checkout, end};
use crate::stripe::params::Params;
use crate::stripe::refusal::{Refusal, Result};
use crate::stripe::state::{Card, Customer, Show, Subscription, TestClock};

const PARAMS: &[&str] = &[
    "address",
    "balance",
    "description",
    "email",
    "invoice_settings",
    "metadata",
    "name",
    "payment_method",
    "phone",
    "preferred_locales",
    "shipping",
    "source",
    "tax",
    "tax_exempt",
    "test_clock",
];

pub fn create(books: &mut Books, call: &Call) -> Result<Value> {
    call.params.only(PARAMS)?;
    let test_clock = call.params.owned("test_clock");
    if let Some(clock) = &test_clock {
        books.find::<TestClock>(clock, "test_clock")?;
    }
    let mut customer = Customer {
        id: fresh("cus", 14),
        test_clock,
        ..Customer::default()
    };
    fill(&mut customer, &call.params)?;
    let id = customer.id.clone();
    let card = card(books, &call.params)?;
    let clock = customer
        .test_clock
        .as_deref()
        .and_then(|clock| books.get::<TestClock>(clock));
    let at = clock.map_or(books.now, |clock| clock.frozen_at);
    customer.created = at;
    books.add(customer, "customer.created", at);
    if let Some(card) = card {
        keep(books, card, &id, at);
    }
    retrieve_as(books, call, &id)
}

pub fn retrieve(books: &mut Books, call: &Call) -> Result<Value> {
    retrieve_as(books, call, call.id())
}

fn retrieve_as(books: &Books, call: &Call, id: &str) -> Result<Value> {
    Ok(books.find::<Customer>(id, "id")?.show(&call.version))
}

pub fn update(books: &mut Books, call: &Call) -> Result<Value> {
    call.params.only(PARAMS)?;
    let mut customer = books.customer(call.id(), "id")?.clone();
    fill(&mut customer, &call.params)?;
    let card = card(books, &call.params)?;
    let at = books.now_of(call.id());
    books.change::<Customer>(call.id(), "customer.updated", at, |kept| *kept = customer);
    if let Some(card) = card {
        keep(books, card, call.id(), at);
    }
    retrieve_as(books, call, call.id())
}

/// Its subscriptions end at once.
pub fn delete(books: &mut Books, call: &Call) -> Result<Value> {
    let customer = books.customer(call.id(), "id")?.clone();
    let at = books.now_of(&customer.id);
    let own = books.subscriptions.iter().filter(|subscription| {
        subscription.customer == customer.id && !subscription.status.is_over()
    });
    let own: Vec<_> = own
        .map(|subscription: &Subscription| subscription.id.clone())
        .collect();
    for subscription in own {
        end::now(books, &subscription, "cancellation_requested", at);
    }
    books.tell("customer.deleted", at, customer);
    let deleted = books.edit::<Customer>(call.id(), |customer| customer.is_deleted = true);
    Ok(deleted.map_or(Value::Null, |(_, deleted)| deleted.show(&call.version)))
}

pub fn list(books: &mut Books, call: &Call) -> Result<Value> {
    call.params.only(&[
        "created",
        "email",
        "ending_before",
        "limit",
        "starting_after",
        "test_clock",
    ])?;
    let (email, clock) = (call.params.text("email"), call.params.text("test_clock"));
    let mut rows = vec![];
    for customer in books
        .customers
        .iter()
        .filter(|customer| !customer.is_deleted)
    {
        let holds = email.is_none_or(|email| customer.email.as_deref() == Some(email))
            && clock.is_none_or(|clock| customer.test_clock.as_deref() == Some(clock));
        if holds && within(call, customer.created)? {
            rows.push(customer);
        }
    }
    books.list(call, rows)
}

/// `email:'…'` and `metadata['key']:'value'`, as one looks for a customer of one's own.
pub fn search(books: &mut Books, call: &Call) -> Result<Value> {
    let query = call.params.required("query")?;
    let Some((field, wanted)) = query.split_once(':') else {
        return Err(Refusal::invalid(
            "query",
            "We were unable to parse your search query.",
        ));
    };
    let wanted = wanted.trim().trim_matches(['\'', '"']);
    let key = field
        .trim()
        .strip_prefix("metadata[")
        .map(|key| key.trim_end_matches(']').trim_matches(['\'', '"']));
    let is_found = |customer: &&Customer| match key {
        Some(key) => customer
            .metadata
            .get(key)
            .is_some_and(|value| value == wanted),
        None => field.trim() == "email" && customer.email.as_deref() == Some(wanted),
    };
    let found = books
        .customers
        .iter()
        .filter(|customer| !customer.is_deleted)
        .filter(is_found);
    let data: Vec<_> = found.map(|customer| customer.show(&call.version)).collect();
    Ok(
        json!({"object": "search_result", "data": data, "has_more": false, "next_page": null, "url": call.path}),
    )
}

fn fill(customer: &mut Customer, params: &Params) -> Result<()> {
    let texts = [
        ("email", &mut customer.email),
        ("name", &mut customer.name),
        ("phone", &mut customer.phone),
        ("description", &mut customer.description),
    ];
    for (name, kept) in texts {
        if params.has(name) {
            *kept = params.owned(name);
        }
    }
    if let Some(email) = customer.email.as_ref().filter(|email| !email.contains('@')) {
        return Err(Refusal::invalid(
            "email",
            format!("Invalid email address: {email}"),
        ));
    }
    if let Some(balance) = params.int("balance")? {
        customer.balance_minor = balance;
    }
    params.merge_metadata(&mut customer.metadata);
    Ok(())
}

/// The card it is to pay with from now on: one of its own, or a token.
fn card(books: &Books, params: &Params) -> Result<Option<Card>> {
    let settings = params.inside("invoice_settings");
    let Some(id) = settings
        .text("default_payment_method")
        .or(params.text("payment_method"))
    else {
        return Ok(None);
    };
    match books.get::<Card>(id) {
        Some(card) => Ok(Some(card.clone())),
        None => Card::read(id, books.now)
            .map(Some)
            .map_err(|_| Refusal::no_such("payment_method", id, "payment_method")),
    }
}

fn keep(books: &mut Books, card: Card, customer: &str, at: i64) {
    let id = match card.customer {
        Some(_) => card.id,
        None => checkout::attach(books, card, customer, "", at),
    };
    books.change::<Customer>(customer, "customer.updated", at, |customer| {
        customer.card = Some(id)
    });
}
