//! The board: what was told and how that went, the clock to turn, and what goes wrong.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post, put};
use axum::{Form, Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::clock::Clock;
use super::faults::{ApiFault, Faults};
use super::outbox::{Attempt, Outbox};
use super::page::page;
use crate::revenuecat::{Act, Bought, Project};
use crate::stripe::{Account, AfterRetries};

/// How much of what was told is shown.
const SHOWN: usize = 60;
/// Of the clock: further than a century is a typing error.
const MAX_TURN_S: u64 = 100 * 366 * 24 * 60 * 60;

#[derive(Clone)]
pub struct Board {
    pub account: Account,
    pub project: Project,
    pub outbox: Outbox,
    pub clock: Clock,
}

pub fn routes(board: Board) -> Router {
    Router::new()
        .route("/payments", get(show))
        .route("/payments/clock", get(clock).post(turn).put(turn_by))
        .route(
            "/payments/faults",
            get(faults).put(set_faults).post(tick_faults),
        )
        .route(
            "/payments/after_retries",
            put(after_retries).post(choose_after_retries),
        )
        .route("/payments/events/{id}/send", post(send_again))
        .route("/payments/phones", post(buy))
        .route("/payments/phones/{id}", post(act))
        .with_state(board)
}

/// Where a form on the board leads.
fn back() -> Response {
    Redirect::to("/payments").into_response()
}

async fn show(State(board): State<Board>) -> Response {
    let events = board.account.told(SHOWN);
    let events = events.into_iter().map(|event| {
        let attempts = board.outbox.attempts(&event.id);
        let tried = attempts.iter().map(|Attempt { at, status }| match status {
            Some(status) => json!({"what": status.to_string(), "at": moment(*at), "good": (200..300).contains(status)}),
            None => json!({"what": "no answer", "at": moment(*at), "good": false}),
        });
        json!({"id": event.id, "kind": event.kind, "object": event.object, "at": moment(event.at), "attempts": tried.collect::<Vec<_>>()})
    });
    let phones = board.project.customers().into_iter().map(|customer| {
        let holds = customer
            .purchases
            .iter()
            .filter(|purchase| !purchase.has_ended);
        let holds = holds.map(|purchase| {
            json!({
                "product": purchase.product,
                "store": purchase.store,
                "until": purchase.expires_at.map(moment),
                "leaves": purchase.unsubscribed_at.is_some(),
                "owes": purchase.billing_issue_at.is_some(),
            })
        });
        json!({"id": customer.ids.last(), "holds": holds.collect::<Vec<_>>()})
    });
    let turned_s = board.clock.turned_s();
    page(
        "board.html",
        json!({
            "now": moment(board.clock.now()),
            "turned": (turned_s > 0).then(|| format!("{} days ahead", turned_s / 86_400)),
            "turns": [["1 hour", 3600], ["1 day", 86_400], ["3 days", 259_200], ["1 week", 604_800], ["1 month", 2_678_400], ["1 year", 31_622_400]],
            "faults": board.outbox.faults(),
            "after": board.account.after_retries(),
            "events": events.collect::<Vec<_>>(),
            "phones": phones.collect::<Vec<_>>(),
            "code": crate::stripe::PROMOTION_CODE,
        }),
    )
}

/// `30 Nov 2026, 14:05`.
fn moment(at: i64) -> String {
    let at = chrono::DateTime::from_timestamp(at, 0);
    at.map(|at| at.format("%-d %b %Y, %H:%M").to_string())
        .unwrap_or_default()
}

async fn clock(State(board): State<Board>) -> Json<Value> {
    Json(json!({"now": board.clock.now(), "turned_s": board.clock.turned_s()}))
}

#[derive(Deserialize)]
struct Turn {
    by_s: u64,
}

/// Renewals, ends of trials, attempts to be paid and expiries happen on the way.
async fn turn_by(State(board): State<Board>, Json(turn): Json<Turn>) -> Response {
    if turn.by_s > MAX_TURN_S {
        return refuse("the clock turns by a century at most");
    }
    board.account.advance(Duration::from_secs(turn.by_s));
    board.project.catch_up();
    clock(State(board)).await.into_response()
}

async fn turn(State(board): State<Board>, Form(turn): Form<Turn>) -> Response {
    let _ = turn_by(State(board), Json(turn)).await;
    back()
}

async fn faults(State(board): State<Board>) -> Json<Faults> {
    Json(board.outbox.faults())
}

async fn set_faults(State(board): State<Board>, Json(faults): Json<Faults>) -> Json<Faults> {
    board.outbox.set_faults(faults);
    Json(board.outbox.faults())
}

/// As a form sends it: what is not ticked is not there, and what is empty is nothing.
#[derive(Deserialize)]
struct Ticked {
    #[serde(default)]
    duplicate: bool,
    #[serde(default)]
    twin: bool,
    #[serde(default)]
    drop: bool,
    #[serde(default)]
    same_second: bool,
    #[serde(default)]
    bad_signature: bool,
    #[serde(default)]
    two_signatures: bool,
    #[serde(default)]
    old_version: bool,
    reorder: String,
    delay_s: String,
    api: String,
    api_times: String,
}

async fn tick_faults(State(board): State<Board>, Form(ticked): Form<Ticked>) -> Response {
    let api = match ticked.api.as_str() {
        "500" => Some(ApiFault::ServerError),
        "429" => Some(ApiFault::RateLimited),
        "timeout" => Some(ApiFault::Timeout),
        _ => None,
    };
    board.outbox.set_faults(Faults {
        duplicate: ticked.duplicate,
        twin: ticked.twin,
        reorder: ticked.reorder.parse().ok(),
        delay_s: ticked.delay_s.parse().unwrap_or_default(),
        drop: ticked.drop,
        same_second: ticked.same_second,
        bad_signature: ticked.bad_signature,
        two_signatures: ticked.two_signatures,
        old_version: ticked.old_version,
        api,
        api_times: ticked.api_times.parse().ok(),
    });
    back()
}

#[derive(Deserialize, Serialize)]
struct Choice {
    after_retries: AfterRetries,
}

async fn after_retries(State(board): State<Board>, Json(choice): Json<Choice>) -> Json<Choice> {
    board.account.set_after_retries(choice.after_retries);
    Json(choice)
}

async fn choose_after_retries(State(board): State<Board>, Form(choice): Form<Choice>) -> Response {
    board.account.set_after_retries(choice.after_retries);
    back()
}

async fn send_again(State(board): State<Board>, Path(id): Path<String>) -> Response {
    if board.account.send_again(&id) {
        back()
    } else {
        refuse("there is no such event")
    }
}

#[derive(Deserialize)]
struct Buying {
    id: String,
    product: String,
    entitlement: String,
    store: String,
}

async fn buy(State(board): State<Board>, Form(buying): Form<Buying>) -> Response {
    let bought = Bought {
        product: buying.product,
        entitlement: Some(buying.entitlement).filter(|entitlement| !entitlement.is_empty()),
        store: buying.store,
        ..Bought::default()
    };
    done(board.project.act(buying.id.trim(), Act::Purchase(bought)))
}

#[derive(Deserialize)]
struct Wanted {
    act: String,
    #[serde(default)]
    to: String,
}

async fn act(
    State(board): State<Board>,
    Path(id): Path<String>,
    Form(wanted): Form<Wanted>,
) -> Response {
    let act = match wanted.act.as_str() {
        "renew" => Act::Renew,
        "cancel" => Act::Cancel,
        "uncancel" => Act::Uncancel,
        "billing_issue" => Act::BillingIssue {
            grace_days: Some(16),
        },
        "refund" => Act::Refund,
        "expire" => Act::Expire,
        "pause" => Act::Pause { days: 30 },
        "transfer" if !wanted.to.trim().is_empty() => Act::Transfer {
            to: wanted.to.trim().to_owned(),
        },
        _ => return refuse("nothing of that kind happens on a phone"),
    };
    done(board.project.act(&id, act))
}

fn done(acted: Result<(), &'static str>) -> Response {
    match acted {
        Ok(()) => back(),
        Err(why) => refuse(why),
    }
}

fn refuse(why: &'static str) -> Response {
    (
        StatusCode::CONFLICT,
        Json(json!({"error": {"code": "not_now", "message": why}})),
    )
        .into_response()
}
