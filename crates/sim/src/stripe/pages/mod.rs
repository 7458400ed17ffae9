//! The pages that customers are sent to: to pay, to look after their subscriptions, to see an invoice.

mod invoice;
mod pay;
mod portal;

use std::sync::OnceLock;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use minijinja::Environment;
use minijinja::value::Serde;
use serde_json::{Value, json};

use super::account::Account;
use super::refusal::{Refusal, Result};

/// Who sells.
pub const MERCHANT: &str = "Plinth";
/// Without `form-action`: a browser would not follow the way back to the application.
const POLICY: &str = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'";

pub fn routes(account: Account) -> Router {
    let routes = Router::new()
        .merge(pay::routes())
        .merge(portal::routes())
        .merge(invoice::routes());
    routes.with_state(account)
}

fn templates() -> &'static Environment<'static> {
    static TEMPLATES: OnceLock<Environment<'static>> = OnceLock::new();
    TEMPLATES.get_or_init(|| {
        let mut templates = Environment::new();
        for (name, text) in [
            ("base.html", include_str!("base.html")),
            ("confirm.html", include_str!("confirm.html")),
            ("invoice.html", include_str!("invoice.html")),
            ("note.html", include_str!("note.html")),
            ("pay.html", include_str!("pay.html")),
            ("portal.html", include_str!("portal.html")),
            ("preview.html", include_str!("preview.html")),
        ] {
            if let Err(error) = templates.add_template(name, text) {
                tracing::error!(%error, name, "a page of the simulation cannot be read");
            }
        }
        templates
    })
}

fn page(name: &str, mut shown: Value) -> Response {
    shown["merchant"] = MERCHANT.into();
    let rendered = templates()
        .get_template(name)
        .and_then(|template| template.render(minijinja::Value::from(Serde(shown))));
    match rendered {
        Ok(html) => (
            [
                (header::CONTENT_SECURITY_POLICY, POLICY),
                (header::CACHE_CONTROL, "no-store"),
            ],
            Html(html),
        )
            .into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")).into_response(),
    }
}

/// A page that says one thing, with a way on.
fn note(heading: &str, text: &str, way: Option<(&str, &str)>) -> Response {
    let (link, url) = way.unzip();
    page(
        "note.html",
        json!({"heading": heading, "text": text, "link": link, "url": url}),
    )
}

fn nothing_here() -> Response {
    let note = note(
        "There is nothing here",
        "This address is of nothing that the simulation knows; it forgets when it is started anew.",
        None,
    );
    (StatusCode::NOT_FOUND, note).into_response()
}

fn go(url: &str) -> Response {
    Redirect::to(url).into_response()
}

/// `30 Nov 2026`.
fn day(at: i64) -> String {
    let at = chrono::DateTime::from_timestamp(at, 0);
    at.map(|at| at.format("%-d %b %Y").to_string())
        .unwrap_or_default()
}

/// `12 / 34`, which has to lie ahead.
fn expiry(text: &str, now: i64) -> Result<(u32, i32)> {
    let wrong = || {
        Refusal::card(
            "invalid_expiry_year",
            None,
            "Your card's expiration date is incomplete.",
        )
    };
    let (month, year) = text.split_once('/').ok_or_else(wrong)?;
    let month: u32 = month.trim().parse().map_err(|_| wrong())?;
    let year: i32 = year.trim().parse().map_err(|_| wrong())?;
    let year = if year < 100 { 2000 + year } else { year };
    let first = chrono::NaiveDate::from_ymd_opt(year, month, 1).ok_or_else(wrong)?;
    let after = first
        .checked_add_months(chrono::Months::new(1))
        .and_then(|day| day.and_hms_opt(0, 0, 0))
        .ok_or_else(wrong)?;
    if after.and_utc().timestamp() <= now {
        return Err(Refusal::card(
            "expired_card",
            None,
            "Your card's expiration date is in the past.",
        ));
    }
    Ok((month, year))
}
