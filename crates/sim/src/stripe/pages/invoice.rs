//! An invoice as its customer sees it, and pays it when a card did not.

use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;
use serde_json::json;

use super::{day, go, nothing_here, page};
use crate::stripe::account::Account;
use crate::stripe::books::Books;
use crate::stripe::life::billing::{self, Outcome, Presence};
use crate::stripe::state::{Invoice, money};

pub fn routes() -> Router<Account> {
    Router::new()
        .route("/pay/invoice/{invoice}", get(show).post(pay))
        .route("/pay/invoice/{invoice}/pdf", get(pdf))
}

async fn show(State(account): State<Account>, Path(id): Path<String>) -> Response {
    account.with(|books| shown(books, &id, None))
}

/// There is no other form of it.
async fn pdf(Path(id): Path<String>) -> Response {
    go(&format!("/pay/invoice/{id}"))
}

/// Whoever is here can also tell their bank that it is them.
async fn pay(State(account): State<Account>, Path(id): Path<String>) -> Response {
    account.with(|books| {
        let Some(customer) = books
            .get::<Invoice>(&id)
            .map(|invoice| invoice.customer.clone())
        else {
            return nothing_here();
        };
        let at = books.now_of(&customer);
        match billing::collect(books, &id, at, Presence::Confirmed) {
            Outcome::Paid => shown(books, &id, Some(("right", "Paid. Thank you."))),
            Outcome::Declined(refusal) => shown(books, &id, Some(("wrong", &refusal.message))),
            Outcome::Processing => shown(
                books,
                &id,
                Some(("right", "Your bank sends the money within days.")),
            ),
            Outcome::Asks => shown(books, &id, Some(("heed", "Your bank has not answered."))),
        }
    })
}

fn shown(books: &Books, id: &str, told: Option<(&str, &str)>) -> Response {
    let Some(invoice) = books.get::<Invoice>(id) else {
        return nothing_here();
    };
    let amount = |minor: i64| money(minor, &invoice.currency);
    let card = billing::card_of(books, invoice.subscription.as_deref(), &invoice.customer);
    let status = match (invoice.status, invoice.paid_at) {
        ("paid", Some(at)) => format!("Paid on {}", day(at)),
        ("open", _) => "Waits to be paid".to_owned(),
        ("void", _) => "Void: nothing is owed".to_owned(),
        (status, _) => status.to_owned(),
    };
    let lines = invoice
        .lines
        .iter()
        .map(|line| json!({"name": line.description, "amount": amount(line.amount_minor)}));
    let used = invoice
        .starting_balance_minor
        .min(0)
        .max(-invoice.total_minor().max(0));
    page(
        "invoice.html",
        json!({
            "number": invoice.number,
            "total": amount(invoice.due_minor()),
            "status": status,
            "to": invoice.email,
            "date": day(invoice.created),
            "lines": lines.collect::<Vec<_>>(),
            "off": (invoice.discount_minor() > 0).then(|| amount(invoice.discount_minor())),
            "balance": (used < 0).then(|| amount(used)),
            "due": amount(invoice.due_minor()),
            "is_open": invoice.status == "open",
            "card": card.map(|card| format!("{} •••• {}", card.shown_brand(), card.last4)),
            "told": told.map(|(tone, text)| json!({"tone": tone, "text": text})),
        }),
    )
}
