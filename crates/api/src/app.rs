//! What every handler shares.
use crate::{
    auth::{jwks::Issuers, keys::Keys, password::Passwords},
    billing::{plans::Plans, revenuecat_api::RevenueCat, stripe_api::Stripe},
    chat::{assistants::Assistants, llm::Llm, relay::Relay, stream::Streams},
    config::Config,
    http::Client,
    limit::Limits,
    mail::Mailer,
};
use anyhow::Context;
use db::{Db, Timestamp};
use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// One instance of Plinth. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Inner>);

pub struct Inner {
    pub config: Config,
    pub db: Db,
    pub clock: Clock,
    pub keys: Keys,
    pub issuers: Issuers,
    pub passwords: Passwords,
    pub limits: Limits,
    pub plans: Plans,
    /// `None` where nothing is sold on the web.
    pub stripe: Option<Stripe>,
    /// Absent without a key of RevenueCat's API.
    pub revenuecat: Option<RevenueCat>,
    pub assistants: Assistants,
    pub llm: Llm,
    pub streams: Streams,
    pub mailer: Mailer,
    /// What is simulated here, and for whom it has to be said.
    pub simulated: Simulated,
    /// Who we are among the instances: holds leases.
    pub instance: String,
    /// Cancelled when the process is told to stop: load balancers should look elsewhere.
    pub not_ready: CancellationToken,
    /// Cancelled when it does: nothing new is taken on.
    pub draining: CancellationToken,
    /// Work that outlives its request: answers being made.
    pub tasks: TaskTracker,
}

/// Which parts of the outside are simulated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Simulated {
    pub llm: bool,
    pub mail: bool,
    pub payments: bool,
    /// Some of those to sign in with.
    pub providers: bool,
}

impl std::ops::Deref for App {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl App {
    /// Puts an instance together over an opened, migrated database.
    pub async fn new(
        config: Config,
        db: Db,
        simulated: Simulated,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        Self::with_client(config, db, Client::default(), simulated, clock).await
    }

    /// The same with what asks others' APIs, which can be made while the database is opened.
    pub async fn with_client(
        config: Config,
        db: Db,
        http: Client,
        simulated: Simulated,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        let plans = Plans::load(&config.billing, &config.chat).context("plans.toml")?;
        crate::chat::prices::keep(&db, plans.prices(), clock.now())
            .await
            .context("writing down the models' prices")?;
        let keys = Keys::load(&db, &config, clock.now())
            .await
            .context("loading the signing keys")?;
        let relay = config.core.redis_url.as_ref().map(Relay::connect);
        let relay = relay.transpose()?;
        let inner = Inner {
            keys,
            issuers: Issuers::new(&config.auth.providers, http.clone()),
            mailer: Mailer::new(&config.mail, http.clone())?,
            passwords: Passwords::new()?,
            limits: Limits::new(&config, clock.clone()).await?,
            plans,
            stripe: Stripe::new(&config.billing, http.clone()),
            revenuecat: RevenueCat::new(&config.billing, http.clone()),
            assistants: Assistants::load()?,
            llm: Llm::new(
                &config.chat.providers,
                config.chat.llm_timeout,
                http,
                clock.clone(),
            ),
            streams: Streams::new(relay),
            simulated,
            instance: format!("{}-{}", hostname(), uuid::Uuid::new_v4().simple()),
            not_ready: CancellationToken::new(),
            draining: CancellationToken::new(),
            tasks: TaskTracker::new(),
            clock,
            config,
            db,
        };
        Ok(Self(Arc::new(inner)))
    }

    /// The time, in whole microseconds.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Where clients reach us, without a slash at the end.
    pub fn public_url(&self) -> String {
        let core = &self.config.core;
        match &core.public_url {
            Some(url) => url.as_str().trim_end_matches('/').to_owned(),
            None => format!("http://{}", std::net::SocketAddr::new(core.host, core.port)),
        }
    }
}

fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .take(40)
        .collect()
}

/// The wall clock, or one that tests turn.
#[derive(Debug, Clone)]
pub struct Clock(Option<Arc<AtomicI64>>);

impl Clock {
    pub fn system() -> Self {
        Self(None)
    }

    /// Stands still until it is turned.
    pub fn stopped_at(at: Timestamp) -> Self {
        Self(Some(Arc::new(AtomicI64::new(at.as_micros()))))
    }

    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Some(turned) => Timestamp::from_micros(turned.load(Ordering::SeqCst)),
            None => {
                let since = SystemTime::now()
                    .duration_since(SystemTime::UNIX_EPOCH)
                    .unwrap_or_default();
                Timestamp::from_micros(since.as_micros() as i64)
            }
        }
    }

    /// Moves a stopped clock on; the wall clock goes its own way.
    pub fn turn(&self, by: Duration) {
        if let Some(turned) = &self.0 {
            turned.fetch_add(by.as_micros() as i64, Ordering::SeqCst);
        }
    }
}
