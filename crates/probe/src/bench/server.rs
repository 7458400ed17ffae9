//! The server as an operator starts it, with nothing configured but where it listens and keeps its rows.
use super::{
    Bench,
    load::Turn,
    process::{Process, free_port},
};
use crate::{
    events::{self, STRIPE_SECRET},
    person::{User, ask},
};
use anyhow::{Result, bail};
use reqwest::Client;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use url::Url;
use uuid::Uuid;

/// A release build is ready in a tenth of a second; a debug build on a busy machine is not.
const READY_WITHIN: Duration = Duration::from_secs(30);
const APPLIED_WITHIN: Duration = Duration::from_secs(10);

pub struct Server {
    pub process: Process,
    pub port: u16,
    pub folder: PathBuf,
    client: Client,
}

impl Server {
    /// Starts it in a folder of its own, and returns when it is ready. `arguments` follow the binary's
    /// name; `environment` adds to the least there is.
    pub async fn start(
        bench: &Bench,
        name: &str,
        database: Option<&str>,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let folder = bench.scratch.fresh(name)?;
        let port = free_port()?;
        let process = launch(bench, &folder, port, database, arguments, environment)?;
        let client = Client::builder().timeout(Duration::from_secs(30)).build()?;
        let mut server = Self {
            process,
            port,
            folder,
            client,
        };
        let started = Instant::now();
        loop {
            let answer = server.client.get(server.url("/health/ready")).send().await;
            if answer.is_ok_and(|answer| answer.status() == 200) {
                return Ok(server);
            }
            if server.process.has_ended() || started.elapsed() > READY_WITHIN {
                bail!(
                    "plinth does not get ready. It said:\n{}",
                    server.process.last_words()
                );
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// The file that its rows are in, when nothing else was said.
    pub fn file(&self) -> PathBuf {
        self.folder.join("plinth.db")
    }

    /// A turn of load, with what it cost this process.
    pub async fn measured(&self, load: impl Future<Output = Result<Turn>>) -> Result<Turn> {
        measured(&self.process, load).await
    }

    pub async fn jwks(&self) -> Result<Value> {
        ask(self.client.get(self.url("/.well-known/jwks.json"))).await
    }

    pub async fn sign_up(&self) -> Result<User> {
        User::sign_up(&self.client, &self.url("")).await
    }

    pub async fn get(&self, path: &str, user: &User) -> Result<Value> {
        ask(self.client.get(self.url(path)).bearer_auth(&user.token)).await
    }

    /// Sells the plan `pro` to a user, whose quota then holds for a measurement. Returns how long after the
    /// event was sent the user saw it.
    pub async fn make_pro(&self, user: &User) -> Result<Duration> {
        let key = Uuid::new_v4().simple().to_string();
        let bought = events::Purchase {
            key: &key[..24],
            user: &user.id,
            price: "price_pro",
        };
        let body = events::subscription(&bought, events::now()).to_string();
        let signature = webhooks::stripe::sign(body.as_bytes(), STRIPE_SECRET, events::now());
        let delivery = self.client.post(self.url("/webhooks/stripe")).body(body);
        let sent = Instant::now();
        ask(delivery.header(webhooks::stripe::SIGNATURE_HEADER, signature)).await?;
        while self.get("/api/entitlements", user).await?["plan"] != "pro" {
            if sent.elapsed() > APPLIED_WITHIN {
                bail!("a signed subscription event did not give the plan pro");
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(sent.elapsed())
    }
}

/// Starts the server's process, and returns before it listens.
pub fn launch(
    bench: &Bench,
    folder: &Path,
    port: u16,
    database: Option<&str>,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> Result<Process> {
    let database = database.unwrap_or("sqlite://plinth.db");
    let mut variables = vec![
        ("DATABASE_URL", database),
        ("LOG_LEVEL", "error"),
        ("RATE_LIMITS", "off"),
    ];
    variables.extend(environment);
    variables.extend(bench.set.iter().map(|(name, value)| (&**name, &**value)));
    Process::serve(&bench.plinth, folder, port, variables, |command| {
        command.args(arguments);
    })
}

/// A turn of load, with the CPU time that `process` took for it and its memory in the end.
pub async fn measured(process: &Process, load: impl Future<Output = Result<Turn>>) -> Result<Turn> {
    let before = process.cpu()?;
    let turn = load.await?;
    let cpu = process.cpu()?.saturating_sub(before);
    Ok(Turn {
        cpu: Some(cpu),
        rss: Some(process.rss()?),
        ..turn
    })
}

/// Names of our databases begin so.
fn prefix() -> String {
    format!("probe_bench_{}_", std::process::id())
}

/// Makes an empty database on the server of `url`, and gives the URL that names it.
pub async fn create_database(url: &Url, name: &str) -> Result<Url> {
    let name = prefix() + name;
    let mut connection = PgConnection::connect(url.as_str()).await?;
    sqlx::raw_sql(AssertSqlSafe(format!(
        "drop database if exists {name} with (force)"
    )))
    .execute(&mut connection)
    .await?;
    sqlx::raw_sql(AssertSqlSafe(format!("create database {name}")))
        .execute(&mut connection)
        .await?;
    let mut url = url.clone();
    url.set_path(&name);
    Ok(url)
}

/// Drops what [`create_database`] made.
pub async fn drop_databases(url: &Url) -> Result<()> {
    let mut connection = PgConnection::connect(url.as_str()).await?;
    let names: Vec<(String,)> = sqlx::query_as(
        "select datname::text from pg_database where starts_with(datname::text, $1)",
    )
    .bind(prefix())
    .fetch_all(&mut connection)
    .await?;
    for (name,) in names {
        sqlx::raw_sql(AssertSqlSafe(format!(
            "drop database if exists {name} with (force)"
        )))
        .execute(&mut connection)
        .await?;
    }
    Ok(())
}
