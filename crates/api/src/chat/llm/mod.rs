//! Who answers: one request in OpenAI's words, asked of one provider after another in its own
//! dialect until the first word comes, and heard in OpenAI's deltas.
use crate::{app::Clock, http};
use db::Timestamp;
use serde_json::{Map, Value};
use std::{future::Future, sync::Arc, time::Duration};
use uuid::Uuid;

mod answer;
mod anthropic;
mod asking;
mod backend;
mod breaker;
mod call;
pub mod config;
mod decoder;
mod failure;
mod openai;
mod refusal;
mod typed;

pub use answer::Answer;
pub use config::{Config, Provider};
pub use failure::Failure;

use asking::{Asked, Asking, Won};
use backend::Backend;
use call::Call;
use failure::{Broken, Failed, Next, RETRY_AFTER};

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
        let mut asking = Asking::new(self, caller);
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

/// For setting tokens aside, and where the provider does not say.
pub fn estimate_tokens(text: &str) -> i64 {
    super::tokens::estimate(text)
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
