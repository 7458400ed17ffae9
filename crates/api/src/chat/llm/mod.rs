//! Who answers: one request in OpenAI's words, asked of one provider after another in its own
//! dialect until the first word comes, and heard in OpenAI's deltas.
use crate::{Error, app::Clock, http};
use db::Timestamp;
use serde_json::{Map, Value};
use std::{
    collections::HashMap,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use uuid::Uuid;

mod answer;
mod anthropic;
mod breaker;
mod call;
pub mod config;
mod decoder;
mod openai;
mod refusal;
mod typed;

pub use answer::Answer;
pub use config::{Config, Provider};

use breaker::{Breaker, Leave};
use call::Call;

/// Times that one provider is asked before the first word; after it nothing is tried again.
const ATTEMPTS: u32 = 3;
/// A provider that asks for a longer pause is not waited for.
const MAX_PAUSE: Duration = Duration::from_secs(20);
/// Pauses between attempts: a random part of twice the last one's.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);
/// For one of the answers that a provider makes at once.
const QUEUE: Duration = Duration::from_secs(5);
/// Said where a provider says nothing of it.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Models whose outcomes are remembered, a key.
const MAX_BREAKERS: usize = 1_000;

/// The providers, their keys, and how they fare.
pub struct Llm {
    http: http::Client,
    clock: Clock,
    config: Config,
    backends: Vec<Arc<Backend>>,
    first_token: Duration,
    idle: Duration,
    total: Duration,
}

/// One provider.
struct Backend {
    provider: Provider,
    base: String,
    /// Of its chat.
    url: String,
    keys: Vec<Key>,
    /// The key to begin with: the last one that was taken.
    current: AtomicUsize,
    in_flight: Arc<Semaphore>,
}

struct Key {
    header: axum::http::HeaderValue,
    secret: crate::config::Secret,
    breakers: Mutex<HashMap<String, Arc<Breaker>>>,
}

/// One thing a provider says.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// OpenAI's `delta`: `content`, `tool_calls` (each with its index and, at first, its id),
    /// `refusal`, `reasoning_content`.
    Delta(Map<String, Value>),
    /// In all so far.
    Usage(Usage),
    /// `stop`, `length`, `tool_calls`, `content_filter` or a word of the provider's own.
    Finish(String),
}

/// Tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub input: i64,
    pub output: i64,
    /// Of the input, what the provider had at hand.
    pub cached: i64,
    /// Of the output, what was thought and not said.
    pub reasoning: i64,
}

/// Who was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct By {
    pub provider: Provider,
    pub model: Arc<str>,
}

/// One call of a provider, and what came of it: `answered`, or what was wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    pub by: By,
    pub outcome: &'static str,
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
            _ => Self::unavailable(),
        }
    }

    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::Refused(_))
    }

    fn unavailable() -> Self {
        Self::Unavailable {
            retry_after: RETRY_AFTER,
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unavailable { retry_after } => Self::LlmUnavailable { retry_after },
            Failure::TimedOut => Self::LlmTimeout,
            Failure::Refused(why) => Self::LlmRefused(why),
            Failure::Truncated | Failure::Draining | Failure::Interrupted => Self::LlmUnavailable {
                retry_after: RETRY_AFTER,
            },
        }
    }
}

/// An attempt that came to nothing.
#[derive(Debug, Clone)]
struct Failed {
    failure: Failure,
    outcome: &'static str,
    /// Whether others would fare the same: one user's odd request must not cost them theirs.
    is_fault: bool,
    next: Next,
}

/// What may be tried after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Nobody would answer this.
    Nothing,
    OtherRoute,
    /// This one is refused or used up.
    OtherKey,
    /// The same again, after a pause.
    Again(Duration),
}

/// A stream that broke.
#[derive(Debug)]
struct Broken {
    failure: Failure,
    outcome: &'static str,
}

impl Broken {
    /// It ended, or might as well have.
    fn cut(outcome: &'static str) -> Self {
        Self {
            failure: Failure::Truncated,
            outcome,
        }
    }

    /// It said so itself, in the midst of its answer.
    fn said(error: &Value) -> Self {
        tracing::warn!(
            code = refusal::code(error),
            "a language model failed within its answer"
        );
        Self {
            failure: Failure::unavailable(),
            outcome: "error_event",
        }
    }
}

impl From<decoder::TooLarge> for Broken {
    fn from(_: decoder::TooLarge) -> Self {
        Self::cut("too_large")
    }
}

/// No text column of PostgreSQL's takes NUL: the answer could never be settled.
fn unsayable(value: &mut Value) {
    match value {
        Value::String(text) if text.contains('\0') => text.retain(|c| c != '\0'),
        Value::Array(items) => items.iter_mut().for_each(unsayable),
        Value::Object(members) => members.values_mut().for_each(unsayable),
        _ => {}
    }
}

/// An attempt that came to something.
struct Won<T> {
    value: T,
    by: By,
    attempts: Vec<Attempt>,
    leave: Leave,
    permit: OwnedSemaphorePermit,
}

impl Llm {
    /// `timeout` is LLM_TIMEOUT, which holds where no other is named.
    pub fn new(config: &Config, timeout: Duration, http: http::Client, clock: Clock) -> Self {
        let backend = |provider| Arc::new(Backend::new(config, provider));
        Self {
            backends: config.providers().into_iter().map(backend).collect(),
            first_token: config.llm_first_token_timeout.unwrap_or(timeout),
            idle: config.llm_idle_timeout.unwrap_or(timeout),
            total: config.llm_total_timeout.unwrap_or(timeout * 10),
            config: config.clone(),
            http,
            clock,
        }
    }

    /// How long an answer may take in all.
    pub fn total(&self) -> Duration {
        self.total
    }

    /// Who is asked first for a model.
    pub fn provider_of(&self, model: &str) -> Option<Provider> {
        let routes = self.config.routes(model);
        routes.first().map(|(provider, _)| *provider)
    }

    /// Whether a provider failed so often that it is left alone just now.
    pub fn is_degraded(&self, now: Timestamp) -> bool {
        let mut keys = self.backends.iter().flat_map(|backend| &backend.keys);
        keys.any(|key| key.breakers().values().any(|breaker| breaker.is_open(now)))
    }

    /// Asks, and gives the answer as it comes. Tries again, and others, before the first word,
    /// never after. `request` is OpenAI's, without `stream`; `caller` is whose it is: what one
    /// caller alone meets does not keep the others from a provider.
    pub async fn ask(
        &self,
        mut request: Map<String, Value>,
        caller: Uuid,
    ) -> Result<Answer, Failure> {
        let usual = || self.config.llm_temperature.into();
        request.entry("temperature").or_insert_with(usual);
        let request = &request;
        let model = request.get("model").and_then(Value::as_str);
        let won = self
            .first(
                model.unwrap_or_default(),
                caller,
                |_| true,
                move |call| async move { call.chat(request).await },
            )
            .await?;
        Ok(Answer::new(won, self.clock.clone(), self.idle))
    }

    /// OpenAI's embeddings: the request and the answer are as theirs.
    pub async fn embed(
        &self,
        request: &Map<String, Value>,
        caller: Uuid,
    ) -> Result<Value, Failure> {
        self.typed(request, caller, typed::Kind::Embeddings).await
    }

    /// OpenAI's moderations: the request and the answer are as theirs.
    pub async fn moderate(
        &self,
        request: &Map<String, Value>,
        caller: Uuid,
    ) -> Result<Value, Failure> {
        self.typed(request, caller, typed::Kind::Moderations).await
    }

    async fn typed(
        &self,
        request: &Map<String, Value>,
        caller: Uuid,
        kind: typed::Kind,
    ) -> Result<Value, Failure> {
        let model = request.get("model").and_then(Value::as_str);
        let speaks = |provider| provider != Provider::Anthropic;
        let attempt = move |call: Call| async move { call.typed(kind, request).await };
        let won = self
            .first(model.unwrap_or_default(), caller, speaks, attempt)
            .await?;
        Ok(won.value)
    }

    /// What the first route gives that can.
    async fn first<T, F>(
        &self,
        model: &str,
        caller: Uuid,
        speaks: impl Fn(Provider) -> bool,
        attempt: impl Fn(Call) -> F,
    ) -> Result<Won<T>, Failure>
    where
        F: Future<Output = Result<T, Failed>>,
    {
        let mut routes = self.config.routes(model);
        routes.retain(|(provider, _)| speaks(*provider));
        let mut asking = Asking {
            llm: self,
            caller,
            attempts: Vec::new(),
            failure: None,
        };
        for (at, (provider, model)) in routes.iter().enumerate() {
            let is_last = at + 1 == routes.len();
            let backend = self.backends.iter().find(|own| own.provider == *provider);
            let Some(backend) = backend else { continue };
            match asking.of(backend, model, is_last, &attempt).await {
                Asked::Won(won) => return Ok(won),
                Asked::Refused(failure) => return Err(failure),
                Asked::Next => {}
            }
        }
        Err(asking.failure.unwrap_or_else(|| {
            tracing::error!(model, "no provider of LLM_PROVIDER has this model");
            Failure::unavailable()
        }))
    }
}

/// One request on its way from route to route.
struct Asking<'a> {
    llm: &'a Llm,
    caller: Uuid,
    attempts: Vec<Attempt>,
    /// The newest.
    failure: Option<Failure>,
}

enum Asked<T> {
    Won(Won<T>),
    /// And nobody else needs to be asked.
    Refused(Failure),
    Next,
}

impl Asking<'_> {
    /// Asks one provider, with its keys in turn, again after pauses, until its time for the first
    /// word is up.
    async fn of<T, F>(
        &mut self,
        backend: &Arc<Backend>,
        model: &str,
        is_last: bool,
        attempt: &impl Fn(Call) -> F,
    ) -> Asked<T>
    where
        F: Future<Output = Result<T, Failed>>,
    {
        let by = By {
            provider: backend.provider,
            model: model.into(),
        };
        let deadline = Instant::now() + self.llm.first_token;
        let (mut spent, mut pauses) = (Vec::new(), 0);
        loop {
            let (key, mut leave) = match self.key(backend, model, &spent, is_last) {
                Ok(found) => found,
                Err(retry_after) => {
                    let left_alone = || Failure::Unavailable { retry_after };
                    self.failure.get_or_insert_with(left_alone);
                    return Asked::Next;
                }
            };
            let Some(permit) = backend.permit(deadline).await else {
                self.note(&by, "too_many_in_flight");
                self.failure = Some(Failure::unavailable());
                return Asked::Next;
            };
            let Ok(client) = self.llm.http.get() else {
                // The machine has no certificates to judge anybody by.
                self.note(&by, "unreachable");
                self.failure = Some(Failure::unavailable());
                return Asked::Next;
            };
            let call = Call {
                client: client.clone(),
                backend: backend.clone(),
                key,
                model: by.model.clone(),
                deadline,
            };
            let failed = match attempt(call).await {
                Ok(value) => {
                    leave.answered(self.llm.clock.now());
                    backend.current.store(key, Ordering::Relaxed);
                    self.note(&by, "answered");
                    return Asked::Won(Won {
                        value,
                        by,
                        attempts: std::mem::take(&mut self.attempts),
                        leave,
                        permit,
                    });
                }
                Err(failed) => failed,
            };
            drop(permit);
            self.note(&by, failed.outcome);
            if failed.is_fault && leave.failed(self.llm.clock.now()) {
                tracing::error!(provider = %by.provider, model, key, "a language model failed repeatedly and is left alone");
            }
            drop(leave);
            let pause = match failed.next {
                Next::Nothing => return Asked::Refused(failed.failure),
                Next::OtherRoute => None,
                Next::OtherKey => {
                    spent.push(key);
                    (spent.len() < backend.keys.len()).then_some(Duration::ZERO)
                }
                // Another key has limits of its own.
                Next::Again(_)
                    if failed.outcome == "rate_limited" && spent.len() + 1 < backend.keys.len() =>
                {
                    spent.push(key);
                    Some(Duration::ZERO)
                }
                Next::Again(after) => {
                    pauses += 1;
                    let pause = after.max(jittered(pauses));
                    (pauses < ATTEMPTS && pause <= MAX_PAUSE).then_some(pause)
                }
            };
            self.failure = Some(failed.failure);
            match pause.filter(|pause| Instant::now() + *pause < deadline) {
                Some(Duration::ZERO) => {}
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Asked::Next,
            }
        }
    }

    /// The first key from the current one on that is not spent and not left alone; or when one
    /// might be had.
    fn key(
        &self,
        backend: &Backend,
        model: &str,
        spent: &[usize],
        is_last: bool,
    ) -> Result<(usize, Leave), Duration> {
        let now = self.llm.clock.now();
        let (first, count) = (backend.current.load(Ordering::Relaxed), backend.keys.len());
        let mut soonest = None;
        for key in (0..count).map(|at| (first + at) % count) {
            if spent.contains(&key) {
                continue;
            }
            let is_last = is_last && spent.len() + 1 >= count;
            let breaker = backend.keys[key].breaker(model, now);
            match breaker.admit(self.caller, is_last, now) {
                Ok(leave) => return Ok((key, leave)),
                Err(pause) => {
                    soonest = Some(soonest.map_or(pause, |soonest: Duration| soonest.min(pause)));
                }
            }
        }
        Err(soonest.unwrap_or(RETRY_AFTER))
    }

    fn note(&mut self, by: &By, outcome: &'static str) {
        metrics::counter!("llm_attempts_total", "provider" => by.provider.name(), "outcome" => outcome)
            .increment(1);
        self.attempts.push(Attempt {
            by: by.clone(),
            outcome,
        });
    }
}

impl Backend {
    fn new(config: &Config, provider: Provider) -> Self {
        let base = config.base_url(provider).as_str().trim_end_matches('/');
        let url = match provider {
            Provider::Anthropic => format!("{}/v1/messages", base.trim_end_matches("/v1")),
            _ => format!("{base}/chat/completions"),
        };
        let keys = config.keys_in_use(provider);
        let key = |secret: &crate::config::Secret| Key {
            header: call::header(provider, secret),
            secret: secret.clone(),
            breakers: Mutex::default(),
        };
        Self {
            provider,
            base: base.to_owned(),
            url,
            keys: keys.iter().map(key).collect(),
            current: AtomicUsize::new(0),
            in_flight: Arc::new(Semaphore::new(config.llm_max_in_flight as usize)),
        }
    }

    /// One of the answers that may be made at once, if there is one soon.
    async fn permit(&self, deadline: Instant) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = self.in_flight.clone().try_acquire_owned() {
            return Some(permit);
        }
        let until = deadline.min(Instant::now() + QUEUE);
        let waiting = self.in_flight.clone().acquire_owned();
        tokio::time::timeout_at(until, waiting).await.ok()?.ok()
    }
}

impl Key {
    fn breakers(&self) -> MutexGuard<'_, HashMap<String, Arc<Breaker>>> {
        // A panic while it was held left a whole map.
        self.breakers
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn breaker(&self, model: &str, now: Timestamp) -> Arc<Breaker> {
        let mut breakers = self.breakers();
        if let Some(breaker) = breakers.get(model) {
            return breaker.clone();
        }
        if breakers.len() >= MAX_BREAKERS {
            breakers.retain(|_, breaker| !breaker.is_idle(now));
        }
        breakers.entry(model.to_owned()).or_default().clone()
    }
}

/// The request that costs nothing and shows whether a key is taken.
pub fn models(
    client: &reqwest::Client,
    provider: Provider,
    base: &str,
    key: &crate::config::Secret,
) -> reqwest::RequestBuilder {
    let header = call::header(provider, key);
    match provider {
        Provider::Anthropic => client
            .get(format!("{}/v1/models", base.trim_end_matches("/v1")))
            .header("x-api-key", header)
            .header("anthropic-version", anthropic::VERSION),
        _ => client
            .get(format!("{base}/models"))
            .header(axum::http::header::AUTHORIZATION, header),
    }
}

/// Full jitter: clients that failed together do not come back together.
fn jittered(pause: u32) -> Duration {
    let longest = (FIRST_PAUSE * 2_u32.pow(pause.min(6) - 1)).min(LONGEST_PAUSE);
    longest.mul_f64(rand::random())
}

/// For setting tokens aside, and where the provider does not say.
pub fn estimate_tokens(text: &str) -> i64 {
    super::tokens::estimate(text)
}
