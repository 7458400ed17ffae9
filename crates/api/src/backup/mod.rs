//! Backups: a whole database as one file, in a folder or in S3, and its way back.
//!
//! A backup is made beside the place where it belongs and appears there whole or not at all, with
//! its SHA-256 beside it: `plinth-20261130T203000Z.sqlite3.gz`, or `.dump`, which is `pg_dump`'s own form.
use crate::{App, config::Problem};
use anyhow::Context;
use db::DatabaseUrl;
use std::{num::NonZeroU32, time::Duration};

pub mod file;
mod place;
pub mod postgres;
pub mod restore;
mod s3;
pub mod take;
#[cfg(test)]
mod tests;

pub use place::{Place, PlaceUrl};

/// A job of this kind takes a backup.
pub const KIND: &str = "backup";
/// How long it may take: longer than anything else that jobs do.
pub const PATIENCE: Duration = Duration::from_secs(6 * 3600);

/// Where a second copy of everything is.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Backups")]
pub struct Config {
    /// Where backups go: a folder, or `s3://bucket/prefix`. Unset, none is made by itself.
    #[arg(long)]
    pub backup_url: Option<PlaceUrl>,

    /// How often, once BACKUP_URL is set: `hourly`, `daily`, `weekly`, a time like `6h`, or `off` where something else calls `plinth backup`.
    #[arg(long, default_value = "daily", value_parser = schedule)]
    pub backup_schedule: Schedule,

    /// Days that a backup is kept. The seven newest stay, however old they are.
    #[arg(long, default_value = "7")]
    pub backup_keep_days: NonZeroU32,

    /// Who writes to `s3://`.
    #[arg(long)]
    pub aws_access_key_id: Option<String>,

    /// And the key's other half.
    #[arg(long)]
    pub aws_secret_access_key: Option<crate::config::Secret>,

    /// For keys that are lent for some hours.
    #[arg(long)]
    pub aws_session_token: Option<crate::config::Secret>,

    /// Where the bucket is; `auto` for Cloudflare and Tigris.
    #[arg(
        long,
        default_value = "us-east-1",
        visible_alias = "aws-default-region"
    )]
    pub aws_region: String,

    /// The address of an S3 that is not Amazon's.
    #[arg(long, visible_alias = "aws-endpoint-url")]
    pub aws_endpoint_url_s3: Option<url::Url>,
}

/// `None` where no backup is made by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule(Option<Duration>);

fn schedule(text: &str) -> Result<Schedule, String> {
    const HOUR: u64 = 3600;
    let every = match text {
        "off" => return Ok(Schedule(None)),
        "hourly" => Duration::from_secs(HOUR),
        "daily" => Duration::from_secs(24 * HOUR),
        "weekly" => Duration::from_secs(7 * 24 * HOUR),
        other => crate::config::seconds(other)
            .map_err(|_| "hourly, daily, weekly, a time like 6h, or off".to_owned())?,
    };
    match every.as_secs() >= HOUR {
        true => Ok(Schedule(Some(every))),
        false => Err("at least an hour".into()),
    }
}

impl Config {
    /// How often a job makes one.
    pub fn every(&self) -> Option<Duration> {
        self.backup_url.as_ref().and(self.backup_schedule.0)
    }

    pub fn check(
        &self,
        database: &DatabaseUrl,
        problems: &mut Vec<Problem>,
        warnings: &mut Vec<Problem>,
    ) {
        if let Some(url @ PlaceUrl::S3 { .. }) = &self.backup_url
            && let Err(error) = Place::open(url, self)
        {
            problems.push(Problem::new(
                "BACKUP_URL",
                format!("cannot be used ({error:#})"),
                "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_REGION, and AWS_ENDPOINT_URL_S3 where it is not Amazon's.",
            ));
        }
        let dumps = self.every().is_some() && database.path().is_none();
        if dumps && let Err(error) = postgres::major(postgres::DUMP) {
            warnings.push(Problem::new(
                "BACKUP_URL",
                format!("is set, but this machine can make no backup of PostgreSQL: {error:#}"),
                "Have the jobs done where it is (`plinth serve --role worker`, others with `--role api`), or set BACKUP_SCHEDULE=off.",
            ));
        }
    }
}

/// Takes a backup, notes it, and forgets those that are too old.
pub async fn run(app: &App) -> anyhow::Result<()> {
    let Some(url) = &app.config.backup.backup_url else {
        return Ok(());
    };
    let made = scheduled(app, url).await;
    if made.is_err() {
        metrics::counter!("backup_failures_total").increment(1);
    }
    let made = made.context("the backup failed; the ones before it are untouched")?;
    tracing::info!(
        name = made.name,
        size_bytes = made.bytes,
        "a backup was made"
    );
    Ok(())
}

async fn scheduled(app: &App, url: &PlaceUrl) -> anyhow::Result<take::Made> {
    let config = &app.config;
    let place = Place::open(url, &config.backup)?;
    let source = take::Source::open(&config.core).await?;
    let made = take::take(&source, &place, app.now(), |_| {}).await;
    source.close().await;
    let made = made?;
    take::note(&app.db, &made, app.now()).await?;
    let gone = place
        .prune(app.now(), config.backup.backup_keep_days)
        .await
        .context("the backup was made, but old ones cannot be removed")?;
    if !gone.is_empty() {
        tracing::info!(
            removed = gone.len(),
            "backups were older than BACKUP_KEEP_DAYS"
        );
    }
    Ok(made)
}

/// What monitoring asks: whether there is a backup, and how old it is.
pub async fn measure(app: &App) {
    if let Ok(Some(newest)) = db::backups::newest(&app.db).await {
        metrics::gauge!("backup_last_success_timestamp_seconds")
            .set(newest.finished_at.unix() as f64);
        metrics::gauge!("backup_size_bytes").set(newest.size_bytes as f64);
    }
}
