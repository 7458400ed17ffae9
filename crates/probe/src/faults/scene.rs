//! Where a fault happens: servers, what is behind them, and what has to hold whatever breaks.
use super::{
    Engine, Setup,
    case::Case,
    mailbox::Mailbox,
    plinth::Plinth,
    postgres::{self, Postgres},
    redis::Redis,
};
use crate::process::steady_port;
use anyhow::{Context, Result};
use reqwest::Client;
use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};
use uuid::Uuid;

pub struct Scene<'a> {
    pub setup: &'a Setup,
    pub postgres: Option<Postgres>,
    pub mailbox: Mailbox,
    pub client: Client,
    /// What every server here is told.
    pub variables: Vec<(String, String)>,
    pub stripe_secret: String,
    pub revenuecat_secret: String,
    pub seen: Seen,
    folder: PathBuf,
}

/// What every answer and every log is looked at for.
#[derive(Clone, Default)]
pub struct Seen(Arc<Mutex<Records>>);

#[derive(Default)]
pub struct Records {
    /// Answers of 500 and above that say no code.
    pub unexplained: Vec<String>,
    /// `/health/live`: how often it was asked, and what it answered but 200.
    pub asked_live: usize,
    pub not_live: Vec<String>,
    /// What servers said that have ended.
    pub logs: Vec<String>,
    pub secrets: Vec<String>,
}

impl Seen {
    pub fn note(&self, note: impl FnOnce(&mut Records)) {
        if let Ok(mut records) = self.0.lock() {
            note(&mut records);
        }
    }
}

impl<'a> Scene<'a> {
    /// An empty database, a mailbox, secrets of its own. `settings` are PostgreSQL's.
    pub async fn set(setup: &'a Setup, engine: Engine, settings: &[&str]) -> Result<Self> {
        let folder = setup.scratch.fresh("scene")?;
        let postgres = match engine {
            Engine::Sqlite => None,
            Engine::Postgres => {
                let bin = setup.postgres.as_ref().context("no PostgreSQL")?;
                let port = steady_port()?;
                Some(Postgres::start(bin, &setup.scratch, port, settings)?)
            }
        };
        let database = match &postgres {
            None => format!("sqlite://{}", folder.join("plinth.db").display()),
            Some(cluster) => cluster.url(cluster.port(), "postgres"),
        };
        let (mailbox, mail_port) = Mailbox::open().await?;
        let secret = || Uuid::new_v4().simple().to_string();
        let jwt_secret = secret() + &secret();
        let (stripe_secret, revenuecat_secret) = (format!("whsec_{}", secret()), secret());
        let smtp = format!("smtp://127.0.0.1:{mail_port}");
        let variables = [
            ("DATABASE_URL", database.as_str()),
            ("LOG_LEVEL", "info"),
            ("LOG_FORMAT", "json"),
            ("RATE_LIMITS", "off"),
            // What tokens name as their issuer, wherever a server listens.
            ("PUBLIC_URL", "http://localhost:8080"),
            ("JWT_SECRET", jwt_secret.as_str()),
            ("STRIPE_WEBHOOK_SECRET", stripe_secret.as_str()),
            ("REVENUECAT_WEBHOOK_SECRET", revenuecat_secret.as_str()),
            ("SMTP_URL", smtp.as_str()),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let seen = Seen::default();
        let secrets = [
            jwt_secret.as_str(),
            &stripe_secret,
            &revenuecat_secret,
            postgres::PASSWORD,
        ];
        seen.note(|records| records.secrets.extend(secrets.map(ToOwned::to_owned)));
        Ok(Self {
            setup,
            postgres,
            mailbox,
            client: Client::builder().timeout(Duration::from_secs(30)).build()?,
            variables: variables.into(),
            stripe_secret,
            revenuecat_secret,
            seen,
            folder,
        })
    }

    pub fn folder(&self) -> &std::path::Path {
        &self.folder
    }

    pub fn postgres(&self) -> Result<&Postgres> {
        self.postgres.as_ref().context("this fault is PostgreSQL's")
    }

    /// A Redis that is not started yet.
    pub fn redis(&self) -> Result<Redis> {
        let program = self.setup.redis.as_ref().context("no redis-server")?;
        Redis::new(program, &self.setup.scratch, steady_port()?)
    }

    /// A server that is not started yet, told this besides.
    pub fn server(&self, name: &str, variables: &[(&str, &str)]) -> Result<Plinth> {
        Plinth::new(self, self.folder.join(name), variables)
    }

    /// A server that is ready.
    pub async fn serve(&self, variables: &[(&str, &str)]) -> Result<Plinth> {
        let mut server = self.server("one", variables)?;
        server.start().await?;
        Ok(server)
    }

    /// What holds whatever breaks. Servers have to be gone by now: what they said is read.
    pub fn look_back(self, case: &mut Case) {
        self.seen.note(|records| {
            case.none("no 5xx without a code", &records.unexplained);
            if records.asked_live > 0 {
                case.none("/health/live 200 throughout", &records.not_live);
            }
            let mut leaks = vec![];
            let mut panics = vec![];
            for line in records.logs.iter().flat_map(|log| log.lines()) {
                if records
                    .secrets
                    .iter()
                    .any(|secret| line.contains(secret.as_str()))
                {
                    leaks.push("a line with a secret".to_owned());
                }
                if line.contains("panicked at") {
                    panics.push(line.chars().take(200).collect());
                }
            }
            case.none("no secret in the log", &leaks);
            case.none("no panic", &panics);
        });
    }
}
