//! Where customers look after their subscriptions: <https://docs.stripe.com/customer-management>.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::{Value, json};

use super::{day, expiry, go, nothing_here, page};
use crate::stripe::account::Account;
use crate::stripe::books::Books;
use crate::stripe::life::billing::{self, Outcome, Presence};
use crate::stripe::life::change::{self, Proration};
use crate::stripe::life::{checkout, end};
use crate::stripe::params::Params;
use crate::stripe::refusal::{Refusal, Result};
use crate::stripe::state::subscription::{Item, Status};
use crate::stripe::state::{
    Card, Customer, Invoice, PortalConfiguration, PortalSession, Price, Subscription, money,
};

pub fn routes() -> Router<Account> {
    Router::new()
        .route("/portal/{session}", get(show))
        .route("/portal/{session}/preview", post(preview))
        .route("/portal/{session}/change", post(change_plan))
        .route("/portal/{session}/cancel", post(cancel))
        .route("/portal/{session}/resume", post(resume))
        .route("/portal/{session}/card", post(card))
}

/// A session, and what it allows.
struct Visit {
    session: PortalSession,
    configuration: PortalConfiguration,
    at: i64,
}

impl Visit {
    fn of(books: &Books, id: &str) -> Option<Self> {
        let session = books.get::<PortalSession>(id)?.clone();
        let configuration = books
            .get::<PortalConfiguration>(&session.configuration)?
            .clone();
        let at = books.now_of(&session.customer);
        Some(Self {
            session,
            configuration,
            at,
        })
    }

    /// One of the visitor's own that is not over.
    fn subscription(&self, books: &Books, params: &Params) -> Result<Subscription> {
        let id = params.required("subscription")?;
        let own = books
            .get::<Subscription>(id)
            .filter(|own| own.customer == self.session.customer && !own.status.is_over());
        own.cloned()
            .ok_or_else(|| Refusal::no_such("subscription", id, "subscription"))
    }

    /// The prices to change to.
    fn prices(&self, books: &Books, subscription: &Subscription) -> Vec<Price> {
        if !self.configuration.offers("subscription_update") || subscription.items.len() != 1 {
            return vec![];
        }
        let allowed = self.configuration.prices();
        let mut prices: Vec<_> = books
            .prices
            .iter()
            .filter(|price| {
                price.is_active
                    && price.recurring.is_some()
                    && price.currency == subscription.currency()
            })
            .filter(|price| {
                allowed
                    .as_ref()
                    .is_none_or(|allowed| allowed.contains(&price.id))
            })
            .cloned()
            .collect();
        prices.sort_by_key(|price| {
            (
                price
                    .recurring
                    .map(|recurring| recurring.interval == "year"),
                price.amount_minor,
            )
        });
        prices
    }
}

async fn show(State(account): State<Account>, Path(id): Path<String>) -> Response {
    account.with(|books| home(books, &id, None))
}

/// Does something, and shows the portal with what is to be said about it; a flow ends elsewhere.
fn act(
    account: &Account,
    id: &str,
    body: &[u8],
    act: impl FnOnce(&mut Books, &Visit, &Params) -> Result<&'static str>,
) -> Response {
    let params = Params::parse(body);
    account.with(|books| {
        let Some(visit) = Visit::of(books, id) else {
            return nothing_here();
        };
        match act(books, &visit, &params) {
            Ok(said) => {
                match visit.session.flow["after_completion"]["redirect"]["return_url"].as_str() {
                    Some(url) => go(url),
                    None => home(books, id, Some(("right", said))),
                }
            }
            Err(refusal) => home(books, id, Some(("wrong", &refusal.message))),
        }
    })
}

async fn cancel(State(account): State<Account>, Path(id): Path<String>, body: Bytes) -> Response {
    act(&account, &id, &body, |books, visit, params| {
        let subscription = visit.subscription(books, params)?;
        if visit.configuration.features["subscription_cancel"]["mode"] == "immediately" {
            end::now(books, &subscription.id, "cancellation_requested", visit.at);
            return Ok("Your plan has ended.");
        }
        end::at_period_end(books, &subscription.id, visit.at);
        Ok("Your plan is cancelled, and stays available until the end of what you paid for.")
    })
}

async fn resume(State(account): State<Account>, Path(id): Path<String>, body: Bytes) -> Response {
    act(&account, &id, &body, |books, visit, params| {
        let subscription = visit.subscription(books, params)?;
        end::resume(books, &subscription.id, visit.at);
        Ok("Your plan goes on.")
    })
}

/// The customer's card from now on, and that of every subscription; what is owed is tried again.
async fn card(State(account): State<Account>, Path(id): Path<String>, body: Bytes) -> Response {
    act(&account, &id, &body, |books, visit, params| {
        let (exp_month, exp_year) = expiry(params.required("expires")?, visit.at)?;
        let card = Card {
            exp_month,
            exp_year,
            ..Card::read(params.required("number")?, visit.at)?
        };
        card.keep(true)?;
        let customer = visit.session.customer.clone();
        let card = checkout::attach(books, card, &customer, "", visit.at);
        books.change::<Customer>(&customer, "customer.updated", visit.at, |customer| {
            customer.card = Some(card.clone())
        });
        let own = books
            .subscriptions
            .iter()
            .filter(|own| own.customer == customer && !own.status.is_over());
        let own: Vec<_> = own.map(|own| own.id.clone()).collect();
        for subscription in own {
            books.change::<Subscription>(
                &subscription,
                "customer.subscription.updated",
                visit.at,
                |own| own.card = Some(card.clone()),
            );
        }
        let owed = books
            .invoices
            .iter()
            .filter(|invoice| invoice.customer == customer && invoice.status == "open");
        let owed: Vec<_> = owed.map(|invoice: &Invoice| invoice.id.clone()).collect();
        for invoice in owed {
            if let Outcome::Declined(refusal) =
                billing::collect(books, &invoice, visit.at, Presence::Confirmed)
            {
                return Err(refusal);
            }
        }
        Ok("Your card is saved.")
    })
}

async fn change_plan(
    State(account): State<Account>,
    Path(id): Path<String>,
    body: Bytes,
) -> Response {
    act(&account, &id, &body, |books, visit, params| {
        let subscription = visit.subscription(books, params)?;
        let items = changed(books, visit, &subscription, params)?;
        change::items(
            books,
            &subscription.id,
            items,
            visit.proration(),
            true,
            Presence::Confirmed,
            visit.at,
        )?;
        Ok("Your plan is changed.")
    })
}

impl Visit {
    fn proration(&self) -> Proration {
        let word = &self.configuration.features["subscription_update"]["proration_behavior"];
        word.as_str().map_or(Proration::Now, Proration::of)
    }
}

fn changed(
    books: &Books,
    visit: &Visit,
    subscription: &Subscription,
    params: &Params,
) -> Result<Vec<Item>> {
    let wanted = params.required("price")?;
    let price = visit
        .prices(books, subscription)
        .into_iter()
        .find(|price| price.id == wanted);
    let price = price.ok_or_else(|| Refusal::no_such("price", wanted, "price"))?;
    Ok(subscription
        .items
        .iter()
        .map(|item| Item {
            price: price.clone(),
            ..item.clone()
        })
        .collect())
}

/// What a change costs today, before it is done.
async fn preview(State(account): State<Account>, Path(id): Path<String>, body: Bytes) -> Response {
    let params = Params::parse(&body);
    account.with(|books| {
        let Some(visit) = Visit::of(books, &id) else {
            return nothing_here();
        };
        let planned = visit.subscription(books, &params).and_then(|subscription| {
            let items = changed(books, &visit, &subscription, &params)?;
            Ok((
                change::planned(&subscription, items, visit.proration(), visit.at),
                subscription,
            ))
        });
        match planned {
            Ok(((after, lines), before)) => {
                planned_page(books, &id, &visit, (&before, &after), lines)
            }
            Err(refusal) => home(books, &id, Some(("wrong", &refusal.message))),
        }
    })
}

fn planned_page(
    books: &Books,
    id: &str,
    visit: &Visit,
    (before, after): (&Subscription, &Subscription),
    lines: Vec<crate::stripe::state::invoice::Line>,
) -> Response {
    let Some(item) = after.items.first() else {
        return nothing_here();
    };
    if before
        .items
        .first()
        .is_some_and(|old| old.price.id == item.price.id)
    {
        return home(books, id, Some(("heed", "This is the plan that you have.")));
    }
    let amount = |minor: i64| money(minor, after.currency());
    let invoice = billing::blank(books, &visit.session.customer, lines, visit.at);
    let at_once = visit.proration() == Proration::Now || after.period != before.period;
    let label = if invoice.total_minor() < 0 {
        "Kept for your next invoice"
    } else if at_once {
        "Due today"
    } else {
        "On your next invoice"
    };
    let shown = if invoice.total_minor() < 0 {
        -invoice.total_minor()
    } else {
        invoice.due_minor()
    };
    let lines = invoice
        .lines
        .iter()
        .map(|line| json!({"name": line.description, "amount": amount(line.amount_minor)}));
    page(
        "preview.html",
        json!({
            "path": format!("/portal/{id}"),
            "name": item.price.product_name,
            "price": item.price.words(),
            "price_id": item.price.id,
            "subscription": after.id,
            "lines": lines.collect::<Vec<_>>(),
            "label": label,
            "due": amount(shown),
        }),
    )
}

fn home(books: &Books, id: &str, told: Option<(&str, &str)>) -> Response {
    let Some(visit) = Visit::of(books, id) else {
        return nothing_here();
    };
    let customer = &visit.session.customer;
    let mut own: Vec<_> = books
        .subscriptions
        .iter()
        .filter(|own| own.customer == *customer && own.status != Status::IncompleteExpired)
        .collect();
    // The newest first; one that is over is shown only where there is no other.
    own.reverse();
    if own.iter().any(|own| !own.status.is_over()) {
        own.retain(|own| !own.status.is_over());
    } else {
        own.truncate(1);
    }
    let card = billing::card_of(books, own.first().map(|own| own.id.as_str()), customer);
    let invoices = books
        .invoices
        .iter()
        .rev()
        .filter(|invoice| invoice.customer == *customer && invoice.status != "draft");
    let shows_invoices = visit.configuration.offers("invoice_history");
    let told = told.or_else(|| {
        let owes = own
            .iter()
            .any(|own| matches!(own.status, Status::PastDue | Status::Unpaid));
        owes.then_some((
            "wrong",
            "Your last payment failed. Use another card to keep your plan.",
        ))
    });
    page(
        "portal.html",
        json!({
            "path": format!("/portal/{id}"),
            "return_url": visit.session.return_url,
            "told": told.map(|(tone, text)| json!({"tone": tone, "text": text})),
            "open": visit.session.flow["type"],
            "subscriptions": own.iter().map(|own| subscription(books, &visit, own)).collect::<Vec<_>>(),
            "may_cancel": visit.configuration.offers("subscription_cancel"),
            "cancels_at_once": visit.configuration.features["subscription_cancel"]["mode"] == "immediately",
            "may_change_card": visit.configuration.offers("payment_method_update"),
            "card": card.map(|card| json!({"brand": card.shown_brand(), "last4": card.last4, "expires": format!("{:02} / {:02}", card.exp_month, card.exp_year % 100)})),
            "invoices": invoices.filter(|_| shows_invoices).map(invoice).collect::<Vec<_>>(),
        }),
    )
}

fn subscription(books: &Books, visit: &Visit, own: &Subscription) -> Value {
    let named = |item: &Item| match item.quantity {
        1 => item.price.product_name.clone(),
        quantity => format!("{} × {quantity}", item.price.product_name),
    };
    let names: Vec<_> = own.items.iter().map(named).collect();
    let prices: Vec<_> = own.items.iter().map(|item| item.price.words()).collect();
    let until = day(own.cancel_at.unwrap_or(own.period.1));
    let (tone, status) = match own.status {
        _ if own.is_leaving() => ("heed", "Cancels"),
        Status::Active => ("good", "Active"),
        Status::Trialing => ("good", "Trial"),
        Status::Paused => ("heed", "Paused"),
        Status::Canceled => ("heed", "Ended"),
        _ => ("wrong", "Payment failed"),
    };
    let next = match own.status {
        _ if own.is_leaving() => format!("Available until {until}"),
        Status::Canceled => own
            .ended_at
            .map(|at| format!("Ended on {}", day(at)))
            .unwrap_or_default(),
        Status::Trialing => format!("Free until {until}, then {}", prices.join(" and ")),
        Status::Active => format!("Renews on {until}"),
        _ => String::new(),
    };
    let now = own.items.first().map(|item| item.price.id.as_str());
    let choices = visit.prices(books, own).into_iter().map(|price| {
        json!({"id": price.id, "name": price.product_name, "price": price.words(), "is_now": Some(price.id.as_str()) == now})
    });
    json!({
        "id": own.id,
        "name": names.join(", "),
        "price": prices.join(" and "),
        "status": status,
        "tone": tone,
        "next": next,
        "until": until,
        "acts": !own.status.is_over(),
        "leaves": own.is_leaving(),
        "choices": choices.collect::<Vec<_>>(),
    })
}

fn invoice(invoice: &Invoice) -> Value {
    let (tone, status) = match invoice.status {
        "paid" => ("good", "Paid"),
        "open" => ("wrong", "Open"),
        "void" => ("heed", "Void"),
        _ => ("heed", "Uncollectible"),
    };
    json!({
        "url": invoice.url,
        "date": day(invoice.created),
        "amount": money(invoice.due_minor(), &invoice.currency),
        "what": invoice.lines.last().map(|line| line.price.product_name.as_str()),
        "tone": tone,
        "status": status,
    })
}
