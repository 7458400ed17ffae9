use super::{DONE, FAILED, configured, frame::say, runtime};
use crate::{
    Config,
    app::Clock,
    backup::{
        Place, PlaceUrl,
        restore::{self, Restored},
        take::{self, Made, Source, Stage},
    },
    config::Checked,
    error::explain,
};
use anyhow::Context;
use clap::Args;
use db::{DatabaseUrl, Db};
use serde_json::json;
use std::io::IsTerminal;

#[derive(Args)]
pub struct Backup {
    /// A folder, or s3://bucket/prefix. Default: BACKUP_URL, where old backups are removed afterwards
    #[arg(long)]
    to: Option<PlaceUrl>,
    /// List the backups that are there, and make none
    #[arg(long, conflicts_with = "verify")]
    list: bool,
    /// Read all of a backup and say whether it can be restored; make none
    #[arg(long, value_name = "FILE")]
    verify: Option<String>,
    #[command(flatten)]
    form: Form,
}

#[derive(Args)]
pub struct Restore {
    /// A file, or s3://bucket/prefix/file
    file: String,
    /// Set aside what is there already
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    form: Form,
}

#[derive(clap::Subcommand)]
pub enum Database {
    /// Copy everything into a new database of either engine, and compare what arrived
    Copy {
        /// The database that is read; nothing should be writing to it
        #[arg(long)]
        from: DatabaseUrl,
        /// One that holds nothing yet; its schema is made
        #[arg(long)]
        to: DatabaseUrl,
        #[command(flatten)]
        form: Form,
    },
}

#[derive(Args)]
pub struct Form {
    /// Print a JSON document a line
    #[arg(long)]
    json: bool,
}

impl Form {
    /// For whoever watches; nothing wipes it.
    fn progress(&self, text: &str) {
        if !self.json && std::io::stderr().is_terminal() {
            eprint!("\r\x1b[K{text}");
        }
    }
}

pub fn backup(asked: Backup) -> u8 {
    configured(|checked| outcome(runtime(perform(checked, asked))))
}

pub fn restore(asked: Restore) -> u8 {
    configured(|checked| outcome(runtime(bring_back(checked.config, asked))))
}

/// Needs no configuration: both databases are named.
pub fn database(asked: Database) -> u8 {
    let Database::Copy { from, to, form } = asked;
    outcome(runtime(copy(&from, &to, &form)))
}

fn outcome(done: anyhow::Result<()>) -> u8 {
    match done {
        Ok(()) => DONE,
        Err(error) => {
            eprintln!("plinth: {}", explain(&error));
            FAILED
        }
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

async fn perform(checked: Checked, asked: Backup) -> anyhow::Result<()> {
    let config = &checked.config;
    if let Some(file) = &asked.verify {
        let is = restore::verify(config, file).await?;
        match asked.form.json {
            true => say!("{}", json!({"file": file, "is": is})),
            false => say!("{file}: {is}."),
        }
        return Ok(());
    }
    let url = asked.to.as_ref().or(config.backup.backup_url.as_ref());
    let url =
        url.context("say where: --to FOLDER or --to s3://bucket/prefix, or set BACKUP_URL")?;
    let place = Place::open(url, &config.backup)?;
    if asked.list {
        return list(&place, url, &asked.form).await;
    }
    let made = make(config, &place, &asked.form).await?;
    let gone = match asked.to {
        // It is the operator's own place.
        Some(_) => vec![],
        None => {
            let (now, keep) = (Clock::system().now(), config.backup.backup_keep_days);
            place.prune(now, keep).await?
        }
    };
    asked.form.progress("");
    match asked.form.json {
        true => say!(
            "{}",
            json!({"name": made.name, "at": url.to_string(), "bytes": made.bytes, "sha256": made.sha256, "removed": gone})
        ),
        false => {
            say!("{url}/{}  {}", made.name, megabytes(made.bytes));
            say!("sha256 {}", made.sha256);
            for name in gone {
                say!("removed {name}: older than BACKUP_KEEP_DAYS");
            }
        }
    }
    Ok(())
}

async fn make(config: &Config, place: &Place, form: &Form) -> anyhow::Result<Made> {
    let now = Clock::system().now();
    let source = Source::open(&config.core).await?;
    let tell = |stage| match stage {
        Stage::Copying => form.progress("copying …"),
        Stage::Checking => form.progress("checking the copy …"),
        Stage::Written(bytes) => form.progress(&format!("{} written …", megabytes(bytes))),
    };
    let made = take::take(&source, place, now, tell).await;
    if let Ok(made) = &made
        && let Err(error) = take::note(&source.db, made, Clock::system().now()).await
    {
        eprintln!(
            "Note: the backup was made, but could not be noted for /metrics: {}",
            explain(&error)
        );
    }
    source.close().await;
    made
}

async fn list(place: &Place, url: &PlaceUrl, form: &Form) -> anyhow::Result<()> {
    for found in place.list().await? {
        match form.json {
            true => say!("{}", json!({"name": found.name, "bytes": found.bytes})),
            false => say!("{url}/{}  {}", found.name, megabytes(found.bytes)),
        }
    }
    Ok(())
}

async fn bring_back(config: Config, asked: Restore) -> anyhow::Result<()> {
    let now = Clock::system().now();
    let form = &asked.form;
    let tell = |text: &str| form.progress(text);
    let restored = restore::restore(&config, &asked.file, asked.force, now, tell).await?;
    form.progress("");
    if form.json {
        say!("{}", json!(restored));
        return Ok(());
    }
    let Restored {
        file,
        sum_compared,
        pending_migrations,
        set_aside,
    } = restored;
    say!("{} is what {file} says.", config.core.direct_url());
    if !sum_compared {
        say!("There was no {file}.sha256 to compare it with.");
    }
    if let Some(aside) = set_aside {
        say!("What was there before is in {aside}.");
    }
    if pending_migrations > 0 {
        say!("{pending_migrations} migrations run at the next start, or with `plinth migrate`.");
    }
    Ok(())
}

async fn copy(from: &DatabaseUrl, to: &DatabaseUrl, form: &Form) -> anyhow::Result<()> {
    if let Some(path) = from.path() {
        anyhow::ensure!(path.exists(), "there is no database at {from}");
    }
    let options = db::backup::options();
    let source = Db::open(from, &options).await;
    let source = source.with_context(|| format!("cannot use {from}"))?;
    let target = Db::open(to, &options).await;
    let target = target.with_context(|| format!("cannot use {to}"))?;
    target.migrate().await?;
    let told = |sum: &db::transfer::Sum| match form.json {
        true => say!(
            "{}",
            json!({"table": sum.table, "rows": sum.rows, "hash": sum.hash})
        ),
        false => say!("{:<24} {:>10}  {}", sum.table, sum.rows, sum.hash),
    };
    let copied = db::transfer::copy(&source, &target, told).await;
    source.close().await;
    target.close().await;
    let copied = copied?;
    let rows: u64 = copied.iter().map(|sum| sum.rows).sum();
    if !form.json {
        let tables = copied.len();
        say!("{tables} tables with {rows} rows are in {to}, equal to those of {from}.");
    }
    Ok(())
}
