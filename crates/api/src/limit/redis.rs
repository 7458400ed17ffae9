//! The same GCRA in Redis, by Redis' own clock, so that instances need not agree on the time.
use super::{
    Decision, Rule, Shape,
    growing::{FIRST_WAIT, kept},
};
use crate::config::Secret;
use anyhow::Context;
use redis::{
    Script, ScriptInvocation,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// A request waits no longer for Redis before its instance decides alone.
pub const PATIENCE: Duration = Duration::from_millis(50);
/// How often a silent Redis is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// `KEYS[1]` holds the theoretical arrival time, in microseconds, of the next request that would
/// conform (<https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm>).
const GCRA: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local tat = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now)
local wait = tat + interval - burst * interval - now
if wait > 0 then return {0, 0, wait} end
tat = tat + interval
redis.call('SET', KEYS[1], string.format('%.0f', tat), 'PX', math.ceil((tat - now) / 1000))
return {1, math.floor((burst * interval - (tat - now)) / interval), 0}
";

/// `KEYS[1]` holds how many tries there were in a row, and until when there may be no other.
const GROWING: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local free, first, longest, kept = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local state = redis.call('HMGET', KEYS[1], 'tries', 'until')
local tries, till = tonumber(state[1] or 0), tonumber(state[2] or 0)
if till > now then return {0, 0, till - now} end
tries = tries + 1
local wait = 0
if tries >= free then wait = math.min(first * 2 ^ math.min(tries - free, 30), longest) end
redis.call('HSET', KEYS[1], 'tries', tries, 'until', string.format('%.0f', now + wait))
redis.call('PEXPIRE', KEYS[1], kept)
return {1, math.max(free - tries, 0), 0}
";

pub struct Redis {
    client: redis::Client,
    connection: Arc<RwLock<ConnectionManager>>,
    even: Script,
    growing: Script,
    silent: Arc<AtomicBool>,
}

impl Redis {
    /// The connection is made in the background and made again whenever it breaks: Redis is never
    /// a reason not to start.
    pub async fn connect(url: &Secret) -> anyhow::Result<Self> {
        let client = redis::Client::open(url.expose()).context("REDIS_URL cannot be read")?;
        let connection = connection(&client).context("REDIS_URL cannot be used")?;
        Ok(Self {
            client,
            connection: Arc::new(RwLock::new(connection)),
            even: Script::new(GCRA),
            growing: Script::new(GROWING),
            silent: Default::default(),
        })
    }

    fn connection(&self) -> ConnectionManager {
        let connection = self.connection.read();
        connection.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// `None` when Redis does not answer in time.
    pub async fn decide(&self, rule: &Rule, key: &str) -> Option<Decision> {
        if self.silent.load(Ordering::Relaxed) {
            return None;
        }
        let call = self.call(rule, key);
        let mut connection = self.connection();
        let answer = tokio::time::timeout(
            PATIENCE,
            call.invoke_async::<(u8, u32, u64)>(&mut connection),
        )
        .await;
        match answer {
            Ok(Ok((allowed, remaining, wait))) => Some(Decision {
                allowed: allowed == 1,
                remaining,
                retry_after: Duration::from_micros(wait),
            }),
            Ok(Err(error)) => self.fell_silent(&error.to_string()),
            Err(_) => self.fell_silent("no answer in time"),
        }
    }

    fn call(&self, rule: &Rule, key: &str) -> ScriptInvocation<'_> {
        let (key, period) = (name(rule, key), rule.period);
        let micros = |time: Duration| time.as_micros() as u64;
        match rule.shape {
            Shape::Even => {
                let mut call = self.even.key(key);
                call.arg(micros(period / rule.requests.get()))
                    .arg(rule.requests.get());
                call
            }
            Shape::Growing => {
                let mut call = self.growing.key(key);
                call.arg(rule.requests.get())
                    .arg(micros(FIRST_WAIT.min(period)))
                    .arg(micros(period))
                    .arg(kept(rule).as_millis() as u64);
                call
            }
        }
    }

    /// When it does not answer, what is counted there runs out by itself.
    pub async fn forget(&self, rule: &Rule, key: &str) {
        if self.silent.load(Ordering::Relaxed) {
            return;
        }
        let (del, mut connection) = (redis::Cmd::del(name(rule, key)), self.connection());
        let deleted = del.query_async::<()>(&mut connection);
        match tokio::time::timeout(PATIENCE, deleted).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => _ = self.fell_silent(&error.to_string()),
            Err(_) => _ = self.fell_silent("no answer in time"),
        }
    }

    pub async fn answers(&self) -> bool {
        !self.silent.load(Ordering::Relaxed) && answers(self.connection()).await
    }

    /// Says so once, and asks again in the background until it answers.
    fn fell_silent(&self, why: &str) -> Option<Decision> {
        metrics::counter!("redis_failures_total").increment(1);
        if !self.silent.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                why,
                "Redis does not answer; each instance counts rate limits for itself until it does"
            );
            let (client, shared) = (self.client.clone(), self.connection.clone());
            let silent = self.silent.clone();
            tokio::spawn(async move {
                let fresh = loop {
                    tokio::time::sleep(RETRY).await;
                    // Over a connection of its own: the other end of the old one may be gone
                    // without a word, and nothing would ever break it.
                    if let Ok(fresh) = connection(&client)
                        && answers(fresh.clone()).await
                    {
                        break fresh;
                    }
                };
                *shared.write().unwrap_or_else(PoisonError::into_inner) = fresh;
                silent.store(false, Ordering::Relaxed);
                tracing::info!("Redis answers again; rate limits are shared");
            });
        }
        None
    }
}

fn name(rule: &Rule, key: &str) -> String {
    format!("plinth:limit:{}:{key}", rule.name)
}

fn connection(client: &redis::Client) -> redis::RedisResult<ConnectionManager> {
    let config = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(Duration::from_secs(2)))
        .set_response_timeout(Some(PATIENCE))
        .set_number_of_retries(1);
    ConnectionManager::new_lazy_with_config(client.clone(), config)
}

async fn answers(mut connection: ConnectionManager) -> bool {
    let ping = redis::cmd("PING");
    ping.query_async::<String>(&mut connection).await.is_ok()
}
