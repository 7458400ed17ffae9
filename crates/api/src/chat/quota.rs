//! What a plan allows in a period, and what everyone together may cost, set aside before the provider
//! is asked and settled after.
use super::{prices, subject_of};
use crate::{
    Error, Result,
    billing::plans::{Limits, Plan},
};
use chrono::{DateTime, Datelike, Months, NaiveDate};
use db::{
    Timestamp, Tx,
    generations::Generation,
    usage::{Amount, Window},
};
use std::time::Duration;
use uuid::Uuid;

/// An answer is cut shorter rather than refused, but not shorter than this.
const MIN_OUTPUT: i64 = 64;
/// Where there is no limit; counted all the same.
const UNLIMITED: i64 = i64::MAX / 4;
/// Everyone together, of a day and of a month.
pub const DAY: &str = "everyone:day";
pub const MONTH: &str = "everyone:month";
/// How soon to look again whether the model was switched on.
const SWITCHED_OFF: Duration = Duration::from_secs(60);

/// A stretch of the calendar, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    pub start: Timestamp,
    pub end: Timestamp,
}

impl Period {
    /// The month.
    pub fn of(now: Timestamp) -> Self {
        let date = date(now);
        let first = date.with_day(1).unwrap_or(date);
        Self {
            start: midnight(first),
            end: midnight(first.checked_add_months(Months::new(1)).unwrap_or(first)),
        }
    }

    /// The day.
    pub fn day_of(now: Timestamp) -> Self {
        let date = date(now);
        Self {
            start: midnight(date),
            end: midnight(date.succ_opt().unwrap_or(date)),
        }
    }
}

fn date(at: Timestamp) -> NaiveDate {
    DateTime::from_timestamp_micros(at.as_micros())
        .unwrap_or_default()
        .date_naive()
}

fn midnight(date: NaiveDate) -> Timestamp {
    Timestamp::from_unix(date.and_time(chrono::NaiveTime::MIN).and_utc().timestamp())
}

/// What was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    pub window_start: Timestamp,
    pub amount: Amount,
    /// How long the answer may be.
    pub max_output: i64,
    /// What its tokens cost.
    pub price: Option<Uuid>,
    pub in_model_window: bool,
    pub in_budget: bool,
    pub left: Left,
}

/// What the user may still ask for, in the window in which that is least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    pub messages: Option<Metric>,
    pub tokens: Option<Metric>,
    pub resets_at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    pub limit: i64,
    pub left: i64,
}

/// Whose limit it is that something is set aside under.
enum Of {
    Plan,
    Model,
    Everyone { ends_at: Timestamp },
}

/// A window that is held until the transaction ends, and what may be used in it.
struct Held {
    of: Of,
    subject: String,
    window: Window,
    limits: Amount,
}

/// Sets aside one message, its tokens and their cost in every window there is, or refuses: then
/// whoever asked rolls back. Windows are held in one order, the user's first and everyone's last, so
/// that no two wait for each other, and those that many want are held for the shortest time.
pub async fn reserve(
    tx: &mut Tx,
    user: Uuid,
    plan: &Plan,
    model: &str,
    prompt: i64,
    max_output: i64,
    now: Timestamp,
) -> Result<Reservation> {
    let settings = db::prices::settings_now(tx).await?;
    if !settings.enabled {
        return Err(Error::LlmSwitchedOff {
            retry_after: SWITCHED_OFF,
        });
    }
    let price = db::prices::at(tx, model, now).await?;
    let (month, day, subject) = (Period::of(now), Period::day_of(now), subject_of(user));
    let mut held = vec![Held {
        of: Of::Plan,
        window: hold(tx, &subject, "", month.start).await?,
        subject: subject.clone(),
        limits: limits(plan.limits()),
    }];
    let of_model = plan.limits_of(model);
    if let Some(of_model) = of_model {
        held.push(Held {
            of: Of::Model,
            window: hold_model(tx, user, &subject, model, month.start).await?,
            subject,
            limits: limits(of_model),
        });
    }
    let budgets = [
        (DAY, day, settings.budget_day_microusd),
        (MONTH, month, settings.budget_month_microusd),
    ];
    let in_budget = budgets.iter().any(|(_, _, budget)| budget.is_some());
    if in_budget {
        for (subject, period, budget) in budgets {
            held.push(Held {
                of: Of::Everyone {
                    ends_at: period.end,
                },
                window: hold(tx, subject, "", period.start).await?,
                subject: subject.to_owned(),
                limits: Amount {
                    messages: UNLIMITED,
                    tokens: UNLIMITED,
                    microusd: budget.unwrap_or(UNLIMITED),
                },
            });
        }
    }

    let mut affordable = max_output;
    for held in &held {
        let left = held.left();
        let refused = |what| held.refusal(what, model, month.end, now);
        if left.messages < 1 {
            return Err(refused("messages"));
        }
        let outputs = [
            ("tokens", left.tokens - prompt),
            (
                "cost",
                prices::affordable_output(price.as_ref(), prompt, left.microusd),
            ),
        ];
        for (what, output) in outputs {
            if output < max_output.min(MIN_OUTPUT) {
                return Err(refused(what));
            }
            affordable = affordable.min(output);
        }
    }
    let amount = Amount {
        messages: 1,
        tokens: prompt + affordable,
        microusd: prices::most(price.as_ref(), prompt, affordable),
    };
    for held in &held {
        let Window {
            model,
            window_start,
            ..
        } = &held.window;
        db::usage::reserve(tx, &held.subject, model, *window_start, amount).await?;
    }
    Ok(Reservation {
        window_start: month.start,
        amount,
        max_output: affordable,
        price: price.map(|price| price.id),
        in_model_window: of_model.is_some(),
        in_budget,
        left: left(&held, amount, month.end),
    })
}

/// Turns what was set aside into what was used, in the windows it was set aside in, whatever the
/// calendar, the plan and the budgets say by now. `billed` is what counts for everyone together.
pub async fn settle(
    tx: &mut Tx,
    generation: &Generation,
    used: Amount,
    billed: Amount,
) -> Result<()> {
    let reserved = Amount {
        messages: 1,
        tokens: generation.reserved_tokens,
        microusd: generation.reserved_microusd,
    };
    let (subject, start) = (subject_of(generation.user_id), generation.window_start);
    db::usage::settle(tx, &subject, "", start, reserved, used).await?;
    if generation.in_model_window {
        db::usage::settle(tx, &subject, &generation.model, start, reserved, used).await?;
    }
    if generation.in_budget {
        let day = Period::day_of(generation.created_at).start;
        for (subject, start) in [(DAY, day), (MONTH, start)] {
            db::usage::settle(tx, subject, "", start, reserved, billed).await?;
        }
    }
    Ok(())
}

impl Held {
    fn left(&self) -> Amount {
        let (used, reserved) = (self.window.used(), self.window.reserved());
        Amount {
            messages: self.limits.messages - used.messages - reserved.messages,
            tokens: self.limits.tokens - used.tokens - reserved.tokens,
            microusd: self.limits.microusd - used.microusd - reserved.microusd,
        }
    }

    fn refusal(
        &self,
        what: &'static str,
        model: &str,
        resets_at: Timestamp,
        now: Timestamp,
    ) -> Error {
        match self.of {
            Of::Plan => Error::QuotaExceeded {
                what,
                model: None,
                resets_at,
            },
            Of::Model => Error::QuotaExceeded {
                what,
                model: Some(model.to_owned()),
                resets_at,
            },
            // No fault of the user's, and nothing that another plan would change.
            Of::Everyone { ends_at } => Error::LlmSwitchedOff {
                retry_after: ends_at.since(now),
            },
        }
    }
}

async fn hold(tx: &mut Tx, subject: &str, model: &str, start: Timestamp) -> Result<Window> {
    match db::usage::held(tx, subject, model, start).await? {
        Some(window) => Ok(window),
        None => open(tx, subject, model, start, Amount::default()).await,
    }
}

/// A model that was not limited before was used all the same.
async fn hold_model(
    tx: &mut Tx,
    user: Uuid,
    subject: &str,
    model: &str,
    start: Timestamp,
) -> Result<Window> {
    match db::usage::held(tx, subject, model, start).await? {
        Some(window) => Ok(window),
        None => {
            let used = db::usage::of_model(tx, user, model, start).await?;
            open(tx, subject, model, start, used).await
        }
    }
}

async fn open(
    tx: &mut Tx,
    subject: &str,
    model: &str,
    start: Timestamp,
    used: Amount,
) -> Result<Window> {
    let window = db::usage::open(tx, subject, model, start, used).await?;
    window.ok_or_else(|| Error::Internal(anyhow::anyhow!("a window was closed as it was opened")))
}

fn limits(limits: Limits) -> Amount {
    let limit = |configured: u32| match configured {
        0 => UNLIMITED,
        limit => limit.into(),
    };
    Amount {
        messages: limit(limits.messages),
        tokens: limit(limits.tokens),
        microusd: limit(limits.cost),
    }
}

fn left(held: &[Held], taken: Amount, resets_at: Timestamp) -> Left {
    let least = |limit: fn(Amount) -> i64| {
        held.iter()
            .filter(|held| limit(held.limits) < UNLIMITED)
            .map(|held| Metric {
                limit: limit(held.limits),
                left: limit(held.left()) - limit(taken),
            })
            .min_by_key(|metric| metric.left)
    };
    Left {
        messages: least(|amount| amount.messages),
        tokens: least(|amount| amount.tokens),
        resets_at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_a_month_in_utc() {
        let at = |text: &str| {
            Timestamp::from_unix(DateTime::parse_from_rfc3339(text).unwrap().timestamp())
        };
        for (now, start, end) in [
            (
                "2026-11-20T09:00:00Z",
                "2026-11-01T00:00:00Z",
                "2026-12-01T00:00:00Z",
            ),
            (
                "2026-12-31T23:59:59Z",
                "2026-12-01T00:00:00Z",
                "2027-01-01T00:00:00Z",
            ),
            (
                "2028-02-29T12:00:00Z",
                "2028-02-01T00:00:00Z",
                "2028-03-01T00:00:00Z",
            ),
        ] {
            assert_eq!(
                Period::of(at(now)),
                Period {
                    start: at(start),
                    end: at(end)
                }
            );
        }
        assert_eq!(
            Period::day_of(at("2028-02-29T12:00:00Z")),
            Period {
                start: at("2028-02-29T00:00:00Z"),
                end: at("2028-03-01T00:00:00Z")
            }
        );
    }
}
