//! What a status other than 2xx means, and what may be said of it. Our keys' trouble is never the
//! user's; a provider's words are shown to the user alone, without anything that looks like a key.
use super::{Failed, Failure, Next, Provider, RETRY_AFTER};
use chrono::DateTime;
use http::HeaderMap;
use serde_json::Value;
use std::time::Duration;

/// Of an error's body, what is read.
const MAX_BODY: usize = 64 * 1024;
/// For an error's body.
const PATIENCE: Duration = Duration::from_secs(2);
/// Of a provider's words, what a user is shown.
const MAX_WORDS: usize = 300;

/// Reads a refusal.
pub async fn read(response: reqwest::Response, provider: Provider, key: usize) -> Failed {
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    let body = tokio::time::timeout(PATIENCE, body(response)).await;
    let body = body.unwrap_or_default();
    // Gemini sends a list of one.
    let error = body
        .get("error")
        .or_else(|| body.get(0)?.get("error"))
        .unwrap_or(&Value::Null);
    let failed = meaning(status, error, retry_after(&headers, error));
    let request = ["x-request-id", "request-id"]
        .iter()
        .find_map(|name| headers.get(*name)?.to_str().ok());
    let (code, outcome) = (code(error), failed.outcome);
    if failed.next == Next::OtherKey {
        metrics::counter!("llm_keys_refused_total", "provider" => provider.name(), "outcome" => outcome)
            .increment(1);
        tracing::error!(%provider, key, status, code, outcome, request, "a provider does not take our key, or wants money");
    } else {
        tracing::warn!(%provider, status, code, outcome, request, "a language model refused");
    }
    failed
}

async fn body(mut response: reqwest::Response) -> Value {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_BODY {
            return Value::Null;
        }
    }
    serde_json::from_slice(&body).unwrap_or_default()
}

fn word<'a>(error: &'a Value, name: &str) -> &'a str {
    error.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// An error's word for itself, if it is one.
pub fn code(error: &Value) -> &str {
    let is_word = |text: &&str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        !text.is_empty() && text.len() <= 64 && text.chars().all(fits)
    };
    let words = ["code", "status", "type"].map(|name| word(error, name));
    words.into_iter().find(is_word).unwrap_or_default()
}

fn meaning(status: u16, error: &Value, retry_after: Option<Duration>) -> Failed {
    let unavailable = Failure::Unavailable {
        retry_after: retry_after.unwrap_or(RETRY_AFTER),
    };
    let failed = |failure, outcome, is_fault, next| Failed {
        failure,
        outcome,
        is_fault,
        next,
    };
    let passing = |outcome| {
        Failed::passing(
            unavailable.clone(),
            outcome,
            retry_after.unwrap_or_default(),
        )
    };
    let (code, words) = (word(error, "code"), word(error, "message"));
    let is = |wanted: &str| code == wanted || word(error, "type") == wanted;
    match status {
        401..=403 => failed(unavailable, "key_refused", true, Next::OtherKey),
        // Gemini and Anthropic say so under a status that is the caller's elsewhere.
        400 if words.contains("API key") || error.to_string().contains("API_KEY_INVALID") => {
            failed(unavailable, "key_refused", true, Next::OtherKey)
        }
        400 if words.contains("credit balance") => {
            failed(unavailable, "out_of_money", true, Next::OtherKey)
        }
        400 | 413 | 422 => failed(
            Failure::Refused(shown(words)),
            "refused",
            false,
            Next::Nothing,
        ),
        404 => failed(unavailable, "not_found", false, Next::OtherRoute),
        429 if is("insufficient_quota") || is("billing_hard_limit_reached") => {
            failed(unavailable, "out_of_money", true, Next::OtherKey)
        }
        429 => passing("rate_limited"),
        408 | 409 | 425 => passing("busy"),
        500..=599 => passing("server_error"),
        _ => failed(unavailable, "strange_status", true, Next::OtherRoute),
    }
}

/// How long it wants to be left alone.
/// <https://www.rfc-editor.org/rfc/rfc9110#field.retry-after>
fn retry_after(headers: &HeaderMap, error: &Value) -> Option<Duration> {
    let header = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let number = |text: &str| {
        let number = text.parse::<f64>().ok()?;
        Duration::try_from_secs_f64(number).ok()
    };
    if let Some(millis) = header("retry-after-ms").and_then(number) {
        return Some(millis / 1000);
    }
    let date = |text: &str| {
        let until = DateTime::parse_from_rfc2822(text).ok()?;
        // Counted from the server's own time, which it has to say.
        let now = DateTime::parse_from_rfc2822(header("date")?).ok()?;
        Some((until - now).to_std().unwrap_or_default())
    };
    if let Some(said) = header("retry-after") {
        return number(said).or_else(|| date(said));
    }
    // Gemini: {"@type": "…RetryInfo", "retryDelay": "34s"}.
    let details = error.get("details").and_then(Value::as_array);
    let delay = details
        .into_iter()
        .flatten()
        .find_map(|detail| detail.get("retryDelay")?.as_str());
    delay.and_then(|delay| number(delay.trim_end_matches('s')))
}

/// A provider's words for a user: not long, and without what looks like a key.
fn shown(words: &str) -> String {
    let is_secret = |word: &str| {
        let word = word.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
        let begins = |with: &[&str]| with.iter().any(|begin| word.starts_with(begin));
        begins(&["sk-", "AIza", "org-", "proj_", "req_"])
            || (word.len() >= 40 && !word.contains('/'))
    };
    let words = words
        .split_whitespace()
        .map(|word| if is_secret(word) { "…" } else { word });
    let words = words.collect::<Vec<_>>().join(" ");
    let visible = words.chars().filter(|c| !c.is_control());
    visible.take(MAX_WORDS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            (
                http::HeaderName::from_static(name),
                http::HeaderValue::from_static(value),
            )
        });
        pairs.collect()
    }

    #[test]
    fn a_pause_is_read_in_every_form_it_is_asked_for() {
        let date = ("date", "Fri, 20 Nov 2026 09:30:00 GMT");
        let gemini = json!({"details": [{"@type": "x"}, {"retryDelay": "34.5s"}]});
        let millis = Duration::from_millis;
        for (pairs, error, expected) in [
            (vec![("retry-after", "7")], Value::Null, Some(millis(7_000))),
            (vec![("retry-after", "0.5")], Value::Null, Some(millis(500))),
            (
                vec![("retry-after-ms", "250"), ("retry-after", "1")],
                Value::Null,
                Some(millis(250)),
            ),
            (
                vec![date, ("retry-after", "Fri, 20 Nov 2026 09:30:12 GMT")],
                Value::Null,
                Some(millis(12_000)),
            ),
            (
                vec![date, ("retry-after", "Fri, 20 Nov 2026 09:29:00 GMT")],
                Value::Null,
                Some(Duration::ZERO),
            ),
            (vec![], gemini.clone(), Some(millis(34_500))),
            (vec![("retry-after", "2")], gemini, Some(millis(2_000))),
            (vec![("retry-after", "soon")], Value::Null, None),
            (vec![("retry-after", "-3")], Value::Null, None),
            (vec![("retry-after", "inf")], Value::Null, None),
            (vec![], Value::Null, None),
        ] {
            assert_eq!(retry_after(&headers(&pairs), &error), expected, "{pairs:?}");
        }
    }

    /// Invariant 24.

    #[test]

    fn only_what_passes_is_asked_again() {
        let of = |status, error: Value| {
            let failed = meaning(status, &error, None);
            (failed.outcome, failed.is_fault, failed.next)
        };
        let again = Next::Again(Duration::ZERO);
        for status in [400, 413, 422] {
            assert_eq!(
                of(status, json!({"message": "no"})),
                ("refused", false, Next::Nothing)
            );
        }
        for status in [401, 402, 403] {
            assert_eq!(
                of(status, Value::Null),
                ("key_refused", true, Next::OtherKey)
            );
        }
        for status in [408, 409, 425] {
            assert_eq!(of(status, Value::Null), ("busy", true, again));
        }
        for status in [500, 502, 503, 504, 529] {
            assert_eq!(of(status, Value::Null), ("server_error", true, again));
        }
        let gemini = json!({"code": 400, "status": "INVALID_ARGUMENT", "message": "Bad", "details": [{"reason": "API_KEY_INVALID"}]});
        let anthropic = json!({"type": "invalid_request_error", "message": "Your credit balance is too low to access the Anthropic API."});
        for (status, error, expected) in [
            (
                429,
                json!({"code": "rate_limit_exceeded"}),
                ("rate_limited", true, again),
            ),
            (
                429,
                json!({"code": 429, "status": "RESOURCE_EXHAUSTED"}),
                ("rate_limited", true, again),
            ),
            (
                429,
                json!({"type": "insufficient_quota", "code": null}),
                ("out_of_money", true, Next::OtherKey),
            ),
            (404, Value::Null, ("not_found", false, Next::OtherRoute)),
            (400, gemini, ("key_refused", true, Next::OtherKey)),
            (400, anthropic, ("out_of_money", true, Next::OtherKey)),
            (302, Value::Null, ("strange_status", true, Next::OtherRoute)),
        ] {
            assert_eq!(of(status, error), expected, "{status}");
        }
    }

    /// Invariant 49.

    #[test]

    fn a_providers_words_hold_no_key_and_its_code_no_words() {
        let said = format!("Incorrect (sk-{0}) or {0} key.\n\0Ask", "a1".repeat(24));
        assert_eq!(shown(&said), "Incorrect … or … key. Ask");
        assert_eq!(shown(&"word ".repeat(1_000)).chars().count(), MAX_WORDS);
        assert_eq!(
            code(&json!({"code": "your key sk-1 is bad", "type": "auth_error"})),
            "auth_error"
        );
        assert_eq!(
            code(&json!({"code": 400, "status": "INVALID_ARGUMENT"})),
            "INVALID_ARGUMENT"
        );
        assert_eq!(code(&json!("sk-1")), "");
    }
}
