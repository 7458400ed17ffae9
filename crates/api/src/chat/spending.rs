use super::quota::Period;
use crate::{
    App, Error, Result,
    extract::{Admin, Json, Query, Time},
};
use axum::extract::State;
use chrono::{DateTime, NaiveDate, NaiveTime};
use db::{Timestamp, usage::Sum};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

/// Users of one answer at most; the dearest come first.
const MAX_USERS: i64 = 1000;
/// Without `from`.
const USUALLY: Duration = Duration::from_secs(29 * 86_400);

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(spending))
}

#[derive(Deserialize, IntoParams)]
struct Wanted {
    /// From then on: a date, or a time in RFC 3339. Without it, the last 30 days.
    #[serde(default)]
    from: Option<String>,
    /// Before then; without it, until now.
    #[serde(default)]
    to: Option<String>,
    /// `day` (in UTC, the usual), `model` or `user`.
    #[serde(default)]
    by: By,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = SpendingBy)]
enum By {
    #[default]
    Day,
    Model,
    User,
}

#[derive(Serialize, ToSchema)]
struct Spending {
    from: Time,
    to: Time,
    by: By,
    data: Vec<Spent>,
    total: Spent,
}

/// What was spent under one key.
#[derive(Default, Serialize, ToSchema)]
#[schema(as = SpentBy)]
struct Spent {
    /// The day, the model or the user's id; null of users who are gone, and of the total.
    key: Option<String>,
    /// Of which something came.
    answers: i64,
    input_tokens: i64,
    /// Of the input, what the provider had at hand.
    cached_tokens: i64,
    output_tokens: i64,
    /// Of the output, what was thought and not said.
    reasoning_tokens: i64,
    /// Millionths of a dollar.
    cost_microusd: i64,
    /// Of the cost, what the provider may have billed though nothing came: the questions, as estimated.
    maybe_microusd: i64,
}

/// What the model cost, out of the ledger.
#[utoipa::path(get, path = "/api/admin/usage", tag = "admin", params(Wanted), responses((status = 200, body = Spending)))]
async fn spending(
    State(app): State<App>,
    _: Admin,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Spending>> {
    let at = |field: &str, text: Option<&str>| {
        let time = text.map(|text| time(text).ok_or_else(|| unreadable(field)));
        time.transpose()
    };
    let until_now = || app.now() + Duration::from_micros(1);
    let to = at("to", wanted.to.as_deref())?.unwrap_or_else(until_now);
    let from = at("from", wanted.from.as_deref())?;
    let from = from.unwrap_or_else(|| Period::day_of(to - USUALLY).start);
    if from >= to {
        return Err(Error::invalid("from", "has to be before `to`"));
    }

    let (by, limit) = match wanted.by {
        By::Day => ("day", i64::MAX),
        By::Model => ("model", i64::MAX),
        By::User => ("user", MAX_USERS),
    };
    let sums = db::usage::sums(&app.db, by, from, to, limit).await?;
    let data: Vec<_> = sums.into_iter().map(|sum| spent(sum, wanted.by)).collect();

    Ok(Json(Spending {
        from: from.into(),
        to: to.into(),
        by: wanted.by,
        total: data.iter().fold(Spent::default(), total),
        data,
    }))
}

fn time(text: &str) -> Option<Timestamp> {
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok();
    let time = match date {
        Some(date) => date.and_time(NaiveTime::MIN).and_utc(),
        None => DateTime::parse_from_rfc3339(text).ok()?.to_utc(),
    };
    Some(Timestamp::from_micros(time.timestamp_micros()))
}

fn unreadable(field: &str) -> Error {
    Error::invalid(
        field,
        "has to be a date like 2026-11-20, or a time like 2026-11-20T09:30:00Z",
    )
}

fn spent(sum: Sum, by: By) -> Spent {
    // The engines write ids each in their way.
    let id = |key: String| Uuid::parse_str(&key).map_or(key, |id| id.to_string());
    Spent {
        key: match by {
            By::User => sum.key.map(id),
            By::Day | By::Model => sum.key,
        },
        answers: sum.answers,
        input_tokens: sum.input_tokens,
        cached_tokens: sum.cached_tokens,
        output_tokens: sum.output_tokens,
        reasoning_tokens: sum.reasoning_tokens,
        cost_microusd: sum.cost_microusd,
        maybe_microusd: sum.maybe_microusd,
    }
}

fn total(so_far: Spent, one: &Spent) -> Spent {
    Spent {
        key: None,
        answers: so_far.answers + one.answers,
        input_tokens: so_far.input_tokens + one.input_tokens,
        cached_tokens: so_far.cached_tokens + one.cached_tokens,
        output_tokens: so_far.output_tokens + one.output_tokens,
        reasoning_tokens: so_far.reasoning_tokens + one.reasoning_tokens,
        cost_microusd: so_far.cost_microusd + one.cost_microusd,
        maybe_microusd: so_far.maybe_microusd + one.maybe_microusd,
    }
}
