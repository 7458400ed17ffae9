//! Where a checkout session sends a customer: <https://docs.stripe.com/payments/checkout>.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::{Value, json};

use super::{day, expiry, go, note, nothing_here, page};
use crate::stripe::account::Account;
use crate::stripe::books::Books;
use crate::stripe::life::checkout::{self, Paying};
use crate::stripe::params::Params;
use crate::stripe::refusal::Refusal;
use crate::stripe::state::session::Asked;
use crate::stripe::state::{Customer, Session, money};

pub fn routes() -> Router<Account> {
    Router::new()
        .route("/pay/{session}", get(show).post(pay))
        .route("/pay/{session}/promotion", post(promote))
        .route("/pay/{session}/confirm", post(confirm))
}

async fn show(State(account): State<Account>, Path(id): Path<String>) -> Response {
    account.with(|books| form(books, &id, &Tried::default()))
}

/// What was filled in before, and what was wrong with it.
#[derive(Default)]
struct Tried {
    params: Params,
    refused: Option<String>,
    code_refused: Option<String>,
}

async fn pay(State(account): State<Account>, Path(id): Path<String>, body: Bytes) -> Response {
    let params = Params::parse(&body);
    let number = params.text("number").unwrap_or_default().to_owned();
    account.with(|books| {
        let expires = match params.text("expires") {
            Some(text) => expiry(text, books.now).map(Some),
            None => Ok(None),
        };
        let expires = match expires {
            Ok(expires) => expires,
            Err(refusal) => return again(books, &id, params, refusal),
        };
        let asked = Asked {
            number,
            expires,
            name: params.owned("name").unwrap_or_default(),
            email: params.owned("email"),
        };
        let paying = Paying {
            asked: &asked,
            confirmed: false,
        };
        match checkout::pay(books, &id, &paying) {
            Ok(Some(done)) => go(&success(&done)),
            Ok(None) => {
                books.edit::<Session>(&id, |session| session.asked = Some(asked));
                bank(books, &id)
            }
            Err(refusal) => again(books, &id, params, refusal),
        }
    })
}

fn again(books: &mut Books, id: &str, params: Params, refusal: Refusal) -> Response {
    form(
        books,
        id,
        &Tried {
            params,
            refused: Some(refusal.message),
            code_refused: None,
        },
    )
}

async fn promote(State(account): State<Account>, Path(id): Path<String>, body: Bytes) -> Response {
    let params = Params::parse(&body);
    account.with(|books| {
        match checkout::promote(books, &id, params.text("code").unwrap_or_default()) {
            Ok(()) => go(&format!("/pay/{id}")),
            Err(refusal) => form(
                books,
                &id,
                &Tried {
                    code_refused: Some(refusal.message),
                    ..Tried::default()
                },
            ),
        }
    })
}

/// The bank's answer.
async fn confirm(State(account): State<Account>, Path(id): Path<String>, body: Bytes) -> Response {
    let is_confirmed = Params::parse(&body).text("answer") == Some("yes");
    account.with(|books| {
        let asked = books.edit::<Session>(&id, |session| session.asked = None).and_then(|(before, _)| before.asked);
        let Some(asked) = asked else { return form(books, &id, &Tried::default()) };
        if !is_confirmed {
            let refused = "We are unable to authenticate your payment method. Please choose a different payment method and try again.";
            return form(books, &id, &Tried { refused: Some(refused.to_owned()), ..Tried::default() });
        }
        match checkout::pay(books, &id, &Paying { asked: &asked, confirmed: true }) {
            Ok(Some(done)) => go(&success(&done)),
            Ok(None) => form(books, &id, &Tried::default()),
            Err(refusal) => again(books, &id, Params::default(), refusal),
        }
    })
}

/// Where the browser goes back to.
fn success(session: &Session) -> String {
    let url = session.success_url.as_deref().unwrap_or("/");
    url.replace("{CHECKOUT_SESSION_ID}", &session.id)
}

fn bank(books: &Books, id: &str) -> Response {
    let Some(session) = books.get::<Session>(id) else {
        return nothing_here();
    };
    let (subtotal, off) = session.amounts(books.now);
    let number = session
        .asked
        .as_ref()
        .map_or("", |asked| asked.number.trim());
    let last4: String = number
        .chars()
        .skip(number.chars().count().saturating_sub(4))
        .collect();
    page(
        "confirm.html",
        json!({"path": format!("/pay/{id}"), "amount": money(subtotal - off, session.currency()), "last4": last4}),
    )
}

fn form(books: &mut Books, id: &str, tried: &Tried) -> Response {
    let Some(session) = books.get::<Session>(id).cloned() else {
        return nothing_here();
    };
    match session.status {
        "complete" => {
            return note(
                "This is paid",
                "Thank you. This page has done its work.",
                Some(("Back to the shop", &success(&session))),
            );
        }
        "expired" => {
            let way = session
                .cancel_url
                .as_deref()
                .map(|url| ("Back to the shop", url));
            return note(
                "This page has expired",
                "Nothing was paid. Start once more where you came from.",
                way,
            );
        }
        _ => {}
    }
    let mut shown = offer(&session, books.now);
    let fixed = session
        .customer
        .as_deref()
        .and_then(|customer| books.get::<Customer>(customer))
        .and_then(|customer| customer.email.clone());
    let text = |name: &str| tried.params.text(name);
    shown["path"] = format!("/pay/{id}").into();
    shown["known_email"] = json!(fixed.or_else(|| session.customer_email.clone()));
    shown["filled"] = json!({"email": text("email"), "number": text("number"), "expires": text("expires"), "name": text("name")});
    shown["refused"] = json!(tried.refused);
    shown["code_refused"] = json!(tried.code_refused);
    page("pay.html", shown)
}

/// What is bought, and when what is due.
fn offer(session: &Session, now: i64) -> Value {
    let currency = session.currency();
    let (subtotal, off) = session.amounts(now);
    let due = money(subtotal - off, currency);
    let trial_end = session.trial_end(now);
    let whole: i64 = session
        .lines
        .iter()
        .map(|line| line.price.amount_minor * line.quantity)
        .sum();
    let recurring = session.lines.iter().find_map(|line| line.price.recurring);
    let names: Vec<_> = session
        .lines
        .iter()
        .map(|line| line.price.product_name.as_str())
        .collect();
    let names = names.join(" and ");
    let per = recurring.map(|recurring| format!("per {}", recurring.words()));
    let every = recurring
        .map(|recurring| recurring.words())
        .unwrap_or_default();
    let is_free = checkout::is_free(session, now);
    let days = trial_end.map(|end| (end - now + checkout::DAY_S / 2) / checkout::DAY_S);

    let (heading, headline, button) = match (session.mode, days) {
        ("setup", _) => (
            "Save a card".to_owned(),
            "Save a card".to_owned(),
            "Save card".to_owned(),
        ),
        ("subscription", Some(days)) => (
            format!("Try {names}"),
            format!("{days} days free"),
            "Start trial".to_owned(),
        ),
        ("subscription", None) => (
            format!("Subscribe to {names}"),
            money(whole, currency),
            "Subscribe".to_owned(),
        ),
        _ => (
            format!("Pay for {names}"),
            due.clone(),
            format!("Pay {due}"),
        ),
    };
    let then = trial_end.map(|end| {
        format!(
            "Then {} every {every}, from {}",
            money(whole, currency),
            day(end)
        )
    });
    let promise = match (session.mode, trial_end) {
        ("subscription", Some(end)) => format!(
            "Your card is charged on {} unless you cancel before.",
            day(end)
        ),
        ("subscription", None) => format!("Charged every {every} until you cancel."),
        ("setup", _) => "Your card is kept for later.".to_owned(),
        _ => "Paid once.".to_owned(),
    };
    let lines = session.lines.iter().map(|line| {
        let is_later = trial_end.is_some() && line.price.recurring.is_some();
        json!({
            "name": line.price.product_name,
            "quantity": line.quantity,
            "each": (line.quantity > 1 || line.price.recurring.is_some()).then(|| line.price.words()),
            "amount": if is_later { "Free".to_owned() } else { money(line.price.amount_minor * line.quantity, currency) },
        })
    });
    json!({
        "heading": heading,
        "headline": headline,
        "per": per.filter(|_| trial_end.is_none() && session.mode == "subscription"),
        "then": then,
        "lines": lines.collect::<Vec<_>>(),
        "cancel_url": session.cancel_url,
        "takes_code": session.allows_promotion_codes && session.discount.is_none(),
        "discount": session.discount.as_ref().map(|discount| json!({
            "name": discount.coupon.name.as_deref().unwrap_or("Discount"),
            "words": discount.coupon.words(),
            "amount": money(discount.coupon.of(subtotal), currency),
        })),
        "subtotal": money(subtotal, currency),
        "due": due,
        "how": if is_free { "Nothing to pay now" } else { "Pay with card" },
        "asks_card": !is_free,
        "button": button,
        "promise": promise,
    })
}
