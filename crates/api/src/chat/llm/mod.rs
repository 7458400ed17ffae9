//! The provider: OpenAI's chat completions, always streamed, read tolerantly.
//!
//! Its words differ from server to server (Gemini's compatible endpoint leaves out indexes and ids,
//! errors come as arrays), so chunks are read as loose JSON. What is not loose is the end: without a
//! `finish_reason` an answer is not finished, however politely the connection was closed.
use super::{Config, sse};
use crate::{Error, config::Secret, http::Client};
use db::Timestamp;
use futures_util::{Stream, StreamExt};
use serde_json::{Map, Value, json};
use std::{
    pin::Pin,
    sync::atomic::{AtomicI64, AtomicU32, Ordering},
    time::Duration,
};

/// Attempts before the first word; after it nothing is tried again.
const ATTEMPTS: u32 = 3;
/// A provider that asks for a longer pause is not waited for.
const MAX_PAUSE: Duration = Duration::from_secs(20);
/// Failures in a row, of the provider's own, after which it is left alone for a while.
const TOLERATED: u32 = 5;
const LEFT_ALONE: Duration = Duration::from_secs(10);

pub struct Llm {
    client: Client,
    base_url: String,
    key: Option<Secret>,
    /// Silence allowed, before the first word and between words.
    patience: Duration,
    failures: AtomicU32,
    /// In microseconds since 1970: not asked again before.
    left_alone_until: AtomicI64,
}

/// One thing a provider says.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// OpenAI's `delta`, as it came: `content`, `tool_calls`, `refusal`, `reasoning_content`.
    Delta(Map<String, Value>),
    Usage(Usage),
    /// `stop`, `length`, `tool_calls`, `content_filter` or a word of the provider's own.
    Finish(String),
}

/// Tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub input: i64,
    pub output: i64,
}

/// Why there is no answer, or no more of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Its fault or the network's.
    Unavailable { retry_after: Duration },
    /// Silent for too long.
    TimedOut,
    /// It will not have this request; its words, for the user.
    Refused(String),
    /// It ended without saying that it had finished.
    Truncated,
    /// Not its doing: this process is told to end.
    Draining,
    /// Nor this: the answer was taken for abandoned, and settled as such.
    Interrupted,
}

impl Failure {
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "llm_unavailable",
            Self::TimedOut => "llm_timeout",
            Self::Refused(_) => "llm_refused",
            Self::Truncated => "llm_truncated",
            Self::Draining => "server_draining",
            Self::Interrupted => "interrupted",
        }
    }

    /// The failure of this code.
    pub fn of(code: &str) -> Self {
        match code {
            "llm_timeout" => Self::TimedOut,
            "llm_refused" => Self::Refused("The language model refused the request.".into()),
            "llm_truncated" => Self::Truncated,
            "server_draining" => Self::Draining,
            "interrupted" => Self::Interrupted,
            _ => Self::Unavailable {
                retry_after: Duration::from_secs(1),
            },
        }
    }

    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::Refused(_))
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unavailable { retry_after } => Self::LlmUnavailable { retry_after },
            Failure::TimedOut => Self::LlmTimeout,
            Failure::Refused(why) => Self::LlmRefused(why),
            Failure::Truncated | Failure::Draining | Failure::Interrupted => Self::LlmUnavailable {
                retry_after: Duration::from_secs(1),
            },
        }
    }
}

/// An attempt that came to nothing.
struct Failed {
    failure: Failure,
    /// The pause after which it may be tried again.
    again_after: Option<Duration>,
    /// Whether others would fare the same: one user's odd request must not cost them theirs.
    counts: bool,
}

impl Failed {
    fn passing(failure: Failure) -> Self {
        Self {
            failure,
            again_after: Some(Duration::ZERO),
            counts: true,
        }
    }

    fn lasting(failure: Failure) -> Self {
        Self {
            again_after: None,
            ..Self::passing(failure)
        }
    }
}

pub type Answer = Pin<Box<dyn Stream<Item = Result<Said, Failure>> + Send>>;

impl Llm {
    pub fn new(config: &Config, client: Client) -> Self {
        Self {
            client,
            base_url: config
                .openai_base_url
                .as_str()
                .trim_end_matches('/')
                .to_owned(),
            key: config.openai_api_key.clone(),
            patience: config.llm_timeout,
            failures: AtomicU32::new(0),
            left_alone_until: AtomicI64::new(0),
        }
    }

    /// Whether the provider failed so often that it is left alone just now.
    pub fn is_degraded(&self, now: Timestamp) -> bool {
        self.left_alone_until.load(Ordering::Relaxed) > now.as_micros()
    }

    /// Asks, and gives the answer as it comes. Tries again before the first word, never after.
    /// `request` is OpenAI's, without `stream`.
    pub async fn ask(
        &self,
        mut request: Map<String, Value>,
        now: Timestamp,
    ) -> Result<Answer, Failure> {
        if self.is_degraded(now) {
            return Err(Failure::Unavailable {
                retry_after: LEFT_ALONE,
            });
        }
        request.insert("stream".into(), true.into());
        request.insert("stream_options".into(), json!({"include_usage": true}));
        let mut attempt = 1;
        loop {
            let failed = match self.attempt(&request).await {
                Ok(answer) => {
                    self.failures.store(0, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(failed) => failed,
            };
            if failed.counts {
                self.note_failure(now);
            }
            let may_again = attempt < ATTEMPTS && !self.is_degraded(now);
            match failed.again_after {
                Some(pause) if may_again && pause <= MAX_PAUSE => {
                    tokio::time::sleep(pause.max(jittered(attempt))).await
                }
                _ => return Err(failed.failure),
            }
            attempt += 1;
        }
    }

    /// One request, up to the first word.
    async fn attempt(&self, request: &Map<String, Value>) -> Result<Answer, Failed> {
        let client = self.client.get().map_err(|error| {
            tracing::error!(%error, "nothing can be asked of the language model");
            Failed::lasting(Failure::Unavailable {
                retry_after: LEFT_ALONE,
            })
        })?;
        let mut call = client
            .post(format!("{}/chat/completions", self.base_url))
            .json(request);
        // A server without a key of its own, and the simulated one, want to see one all the same.
        call = call.bearer_auth(self.key.as_ref().map_or("simulated", Secret::expose));
        let response = match tokio::time::timeout(self.patience, call.send()).await {
            Err(_) => return Err(Failed::lasting(Failure::TimedOut)),
            Ok(Err(error)) => {
                tracing::warn!(error = %error.without_url(), "the language model cannot be reached");
                return Err(Failed::passing(Failure::Unavailable {
                    retry_after: Duration::from_secs(1),
                }));
            }
            Ok(Ok(response)) => response,
        };
        if !response.status().is_success() {
            return Err(refusal(response, self.patience).await);
        }
        let mut answer = said(response, self.patience);
        match answer.next().await {
            Some(Ok(first)) => Ok(Box::pin(
                futures_util::stream::once(async { Ok(first) }).chain(answer),
            )),
            Some(Err(Failure::TimedOut)) => Err(Failed::lasting(Failure::TimedOut)),
            Some(Err(failure)) => Err(Failed::passing(failure)),
            None => Err(Failed::passing(Failure::Truncated)),
        }
    }

    fn note_failure(&self, now: Timestamp) {
        if self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= TOLERATED {
            self.failures.store(0, Ordering::Relaxed);
            self.left_alone_until
                .store((now + LEFT_ALONE).as_micros(), Ordering::Relaxed);
            tracing::error!(
                seconds = LEFT_ALONE.as_secs(),
                "the language model failed repeatedly and is left alone"
            );
        }
    }
}

fn jittered(attempt: u32) -> Duration {
    Duration::from_millis(250 << attempt.min(4)).mul_f64(rand::random())
}

/// What a status other than 2xx means. Our key's trouble (401, 402, 403) is never the user's.
async fn refusal(response: reqwest::Response, patience: Duration) -> Failed {
    let status = response.status().as_u16();
    let retry_after = response
        .headers()
        .get("retry-after")
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map(Duration::from_secs);
    let body = tokio::time::timeout(patience, response.json::<Value>()).await;
    let body = body.map_or(Value::Null, Result::unwrap_or_default);
    let error = body
        .get("error")
        .or_else(|| body.get(0)?.get("error"))
        .unwrap_or(&Value::Null);
    let word = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
    let out_of_money = word("code") == "insufficient_quota";
    tracing::warn!(status, code = word("code"), "the language model refused");
    let unavailable = Failure::Unavailable {
        retry_after: retry_after.unwrap_or(Duration::from_secs(1)),
    };
    match status {
        400 | 413 | 422 => Failed {
            counts: false,
            ..Failed::lasting(Failure::Refused(
                word("message").chars().take(300).collect(),
            ))
        },
        429 if out_of_money => Failed::lasting(unavailable),
        408 | 409 | 425 | 429 | 500..=599 => Failed {
            again_after: Some(retry_after.unwrap_or_default()),
            ..Failed::passing(unavailable)
        },
        _ => Failed {
            counts: matches!(status, 401..=403),
            ..Failed::lasting(unavailable)
        },
    }
}

/// The events of a response, ended by the first failure or by the provider's own end.
fn said(response: reqwest::Response, patience: Duration) -> Answer {
    struct Reading {
        bytes: Pin<Box<dyn Stream<Item = reqwest::Result<axum::body::Bytes>> + Send>>,
        decoder: sse::Decoder,
        ready: std::collections::VecDeque<Said>,
        finished: bool,
        over: bool,
    }
    let reading = Reading {
        bytes: Box::pin(response.bytes_stream()),
        decoder: sse::Decoder::default(),
        ready: Default::default(),
        finished: false,
        over: false,
    };
    Box::pin(futures_util::stream::unfold(
        reading,
        move |mut reading| async move {
            loop {
                if let Some(said) = reading.ready.pop_front() {
                    return Some((Ok(said), reading));
                }
                if reading.over {
                    return None;
                }
                let failure = match tokio::time::timeout(patience, reading.bytes.next()).await {
                    Err(_) => Failure::TimedOut,
                    Ok(Some(Ok(bytes))) => {
                        match take(&mut reading.decoder, &bytes, &mut reading.ready) {
                            Ok(finished) => {
                                reading.finished |= finished.finished;
                                reading.over |= finished.done;
                                continue;
                            }
                            Err(failure) => failure,
                        }
                    }
                    // The end, with or without [DONE].
                    Ok(None) if reading.finished => return None,
                    Ok(None | Some(Err(_))) => Failure::Truncated,
                };
                reading.over = true;
                return Some((Err(failure), reading));
            }
        },
    ))
}

#[derive(Default)]
struct Progress {
    finished: bool,
    done: bool,
}

fn take(
    decoder: &mut sse::Decoder,
    bytes: &[u8],
    ready: &mut std::collections::VecDeque<Said>,
) -> Result<Progress, Failure> {
    let mut progress = Progress::default();
    for event in decoder.feed(bytes).map_err(|_| Failure::Truncated)? {
        if event == b"[DONE]" {
            progress.done = true;
            continue;
        }
        let chunk: Value = serde_json::from_slice(&event).map_err(|_| Failure::Truncated)?;
        if let Some(error) = chunk.get("error").filter(|error| !error.is_null()) {
            let code = error.get("code").and_then(Value::as_str);
            tracing::warn!(code, "the language model failed within its answer");
            return Err(Failure::Unavailable {
                retry_after: Duration::from_secs(1),
            });
        }
        let choice = chunk.get("choices").and_then(|choices| choices.get(0));
        if let Some(Value::Object(delta)) = choice.and_then(|choice| choice.get("delta")) {
            let mut delta = delta.clone();
            delta.remove("role");
            delta.retain(|_, value| !value.is_null() && value != "");
            for value in delta.values_mut() {
                // No text column of PostgreSQL's takes it: the answer could never be settled.
                if let Value::String(text) = value {
                    text.retain(|c| c != '\0');
                }
            }
            if !delta.is_empty() {
                ready.push_back(Said::Delta(delta));
            }
        }
        if let Some(reason) = choice
            .and_then(|choice| choice.get("finish_reason"))
            .and_then(Value::as_str)
            .filter(|reason| !reason.is_empty())
        {
            ready.push_back(Said::Finish(reason.to_owned()));
            progress.finished = true;
        }
        if let Some(usage) = chunk.get("usage").filter(|usage| usage.is_object()) {
            let count = |name: &str| {
                usage
                    .get(name)
                    .and_then(Value::as_i64)
                    .unwrap_or(0)
                    .clamp(0, i64::from(i32::MAX))
            };
            ready.push_back(Said::Usage(Usage {
                input: count("prompt_tokens"),
                output: count("completion_tokens"),
            }));
        }
    }
    if progress.done && !progress.finished {
        // [DONE] alone is no end: some servers say it after giving up. The stream's end decides.
        progress.done = false;
    }
    Ok(progress)
}

/// An upper estimate, for setting tokens aside and where the provider does not say: three bytes a token.
pub fn estimate_tokens(text: &str) -> i64 {
    (text.len() as i64).div_euclid(3) + 1
}
