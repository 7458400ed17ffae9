//! OpenAI's `x-ratelimit-*`: what is left of the plan, in the headers that its clients read.
//! <https://platform.openai.com/docs/guides/rate-limits>
use super::quota::{Left, Metric};
use axum::http::{HeaderMap, HeaderValue};
use db::Timestamp;

/// What is left after the request that is answered. What has no limit is not said.
pub fn say(headers: &mut HeaderMap, left: Left, now: Timestamp) {
    let metrics = [("requests", left.messages), ("tokens", left.tokens)];
    for (what, metric) in metrics {
        if let Some(Metric { limit, left: rest }) = metric {
            put(headers, "limit", what, limit.to_string());
            put(headers, "remaining", what, rest.max(0).to_string());
            put(headers, "reset", what, duration(left.resets_at, now));
        }
    }
}

/// Nothing is left of what refused it.
pub fn say_none(headers: &mut HeaderMap, quota: &str, resets_at: Timestamp, now: Timestamp) {
    let what = match quota {
        "messages" => "requests",
        "tokens" => "tokens",
        // OpenAI has no header for money.
        _ => return,
    };
    put(headers, "remaining", what, "0".into());
    put(headers, "reset", what, duration(resets_at, now));
}

fn put(headers: &mut HeaderMap, which: &str, what: &str, value: String) {
    let name = format!("x-ratelimit-{which}-{what}");
    if let (Ok(name), Ok(value)) = (
        axum::http::HeaderName::try_from(name),
        HeaderValue::try_from(value),
    ) {
        headers.insert(name, value);
    }
}

/// As Go writes it, and OpenAI: `6m0s`.
fn duration(until: Timestamp, now: Timestamp) -> String {
    let left = until.since(now);
    let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_is_written_as_openai_does() {
        let now = Timestamp::from_unix(1_000);
        for (seconds, written) in [(0, "0s"), (59, "59s"), (360, "6m0s"), (7_261, "2h1m1s")] {
            assert_eq!(
                duration(Timestamp::from_unix(1_000 + seconds), now),
                written
            );
        }
    }
}
