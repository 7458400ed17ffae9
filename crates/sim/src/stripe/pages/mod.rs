//! The pages that customers are sent to: to pay, to look after their subscriptions, to see an invoice.

mod invoice;
mod pay;
mod portal;

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};

use super::account::Account;
use super::refusal::{Refusal, Result};
use crate::payments::page::{note, page};

pub fn routes(account: Account) -> Router {
    let routes = Router::new()
        .merge(pay::routes())
        .merge(portal::routes())
        .merge(invoice::routes());
    routes.with_state(account)
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
