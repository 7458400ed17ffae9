//! What a plan allows in a period, set aside before the provider is asked and settled after.
use crate::{App, Error, Result, billing::plans::Plan};
use chrono::{DateTime, Datelike, Months, NaiveDate};
use db::{Timestamp, Tx};

const MESSAGES: &str = "messages";
const TOKENS: &str = "tokens";
/// An answer is cut shorter rather than refused, but not shorter than this.
const MIN_OUTPUT: i64 = 64;
/// Where the plan sets no limit; counted all the same.
const UNLIMITED: i64 = i64::MAX / 4;

/// A calendar month, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    pub start: Timestamp,
    pub end: Timestamp,
}

impl Period {
    pub fn of(now: Timestamp) -> Self {
        let date = DateTime::from_timestamp_micros(now.as_micros())
            .unwrap_or_default()
            .date_naive();
        let first = date.with_day(1).unwrap_or(date);
        let at = |date: NaiveDate| {
            Timestamp::from_unix(date.and_time(chrono::NaiveTime::MIN).and_utc().timestamp())
        };
        Self {
            start: at(first),
            end: at(first.checked_add_months(Months::new(1)).unwrap_or(first)),
        }
    }
}

/// What was set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reservation {
    pub window_start: Timestamp,
    pub tokens: i64,
    /// How long the answer may be.
    pub max_output: i64,
}

pub fn limit(configured: u32) -> i64 {
    if configured == 0 {
        UNLIMITED
    } else {
        configured.into()
    }
}

/// Sets aside one message and its tokens, all or nothing; whoever refuses rolls back.
pub async fn reserve(
    app: &App,
    tx: &mut Tx,
    subject: &str,
    plan: &Plan,
    prompt: i64,
    max_output: i64,
) -> Result<Reservation> {
    let period = Period::of(app.now());
    let exceeded = |what| Error::QuotaExceeded {
        what,
        resets_at: period.end,
    };
    if !db::usage::reserve(tx, subject, MESSAGES, period.start, 1, limit(plan.messages)).await? {
        return Err(exceeded(MESSAGES));
    }
    let tokens_limit = limit(plan.tokens);
    let left = db::usage::left(tx, subject, TOKENS, period.start, tokens_limit).await?;
    let affordable = left - prompt;
    if affordable < max_output.min(MIN_OUTPUT) {
        return Err(exceeded(TOKENS));
    }
    let max_output = max_output.min(affordable);
    let tokens = prompt + max_output;
    if !db::usage::reserve(tx, subject, TOKENS, period.start, tokens, tokens_limit).await? {
        return Err(exceeded(TOKENS));
    }
    Ok(Reservation {
        window_start: period.start,
        tokens,
        max_output,
    })
}

/// Turns what was set aside into what was used. A message that came to nothing is given back.
pub async fn settle(
    tx: &mut Tx,
    subject: &str,
    window_start: Timestamp,
    reserved_tokens: i64,
    used_tokens: i64,
    counts: bool,
) -> Result<()> {
    db::usage::settle(tx, subject, MESSAGES, window_start, 1, i64::from(counts)).await?;
    db::usage::settle(
        tx,
        subject,
        TOKENS,
        window_start,
        reserved_tokens,
        used_tokens,
    )
    .await?;
    Ok(())
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
    }
}
