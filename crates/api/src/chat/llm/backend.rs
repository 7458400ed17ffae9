//! A provider as it is asked: its addresses, its keys and how each fares, and how many answers it makes at once.
use super::{Config, Provider, breaker::Breaker, call};
use db::Timestamp;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, atomic::AtomicUsize},
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

/// For one of the answers that a provider makes at once.
const QUEUE: Duration = Duration::from_secs(5);
/// Models whose outcomes are remembered, a key.
const MAX_BREAKERS: usize = 1_000;

/// One provider.
pub struct Backend {
    pub provider: Provider,
    pub base: String,
    /// Of its chat.
    pub url: String,
    pub keys: Vec<Key>,
    /// The key to begin with: the last one that was taken.
    pub current: AtomicUsize,
    in_flight: Arc<Semaphore>,
}

pub struct Key {
    pub header: axum::http::HeaderValue,
    pub secret: crate::config::Secret,
    breakers: Mutex<HashMap<String, Arc<Breaker>>>,
}

impl Backend {
    pub fn new(config: &Config, provider: Provider) -> Self {
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
    pub async fn permit(&self, deadline: Instant) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = self.in_flight.clone().try_acquire_owned() {
            return Some(permit);
        }
        let until = deadline.min(Instant::now() + QUEUE);
        let waiting = self.in_flight.clone().acquire_owned();
        tokio::time::timeout_at(until, waiting).await.ok()?.ok()
    }
}

impl Key {
    pub fn breakers(&self) -> MutexGuard<'_, HashMap<String, Arc<Breaker>>> {
        // A panic while it was held left a whole map.
        self.breakers
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub fn breaker(&self, model: &str, now: Timestamp) -> Arc<Breaker> {
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
