//! Puts a backup in the place of a database. Everything is looked at before anything is touched, and
//! what was there is set aside, never deleted.
use super::{
    file::{self, Form, Unfinished},
    place::{Place, PlaceUrl},
    postgres,
};
use crate::Config;
use anyhow::{Context, bail, ensure};
use chrono::DateTime;
use db::{
    DatabaseUrl, Db, Timestamp,
    backup::{self, Held, Server, Standing},
};
use serde::Serialize;
use std::{
    io::BufWriter,
    path::{Path, PathBuf},
};

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Restored {
    pub file: String,
    /// Whether there was a sum beside the file to hold it against.
    pub sum_compared: bool,
    /// Migrations that run at the next start.
    pub pending_migrations: usize,
    /// Where what was there before is now.
    pub set_aside: Option<String>,
}

/// A backup on this machine, whose sum is right.
struct Fetched {
    path: PathBuf,
    compared: bool,
    /// Removed afterwards, where it came from elsewhere.
    _download: Option<Unfinished>,
}

/// Puts `from`, a file or one in S3, in the place of the configured database.
pub async fn restore(
    config: &Config,
    from: &str,
    force: bool,
    now: Timestamp,
    tell: impl Fn(&str),
) -> anyhow::Result<Restored> {
    let url = config.core.direct_url();
    tell("reading the backup …");
    let fetched = fetch(config, from, url).await?;
    let at = DateTime::from_timestamp(now.unix(), 0).unwrap_or_default();
    let stamp = at.format("%Y%m%dt%H%M%Sz").to_string();
    let (standing, set_aside) = match (url, Form::of(&fetched.path)?) {
        (DatabaseUrl::Sqlite(target), form @ (Form::Sqlite | Form::SqliteGzip)) => {
            into_sqlite(&fetched.path, form, target, &stamp, force, tell).await?
        }
        (DatabaseUrl::Postgres(target), Form::Postgres) => {
            into_postgres(&fetched.path, url, target, &stamp, force, tell).await?
        }
        (_, form) => {
            let (this, that) = match form {
                Form::Postgres => ("PostgreSQL", "SQLite"),
                _ => ("SQLite", "PostgreSQL"),
            };
            bail!(
                "{from} is a backup of {this}, and DATABASE_URL is {that}: restore it into {this}, then `plinth db copy`"
            )
        }
    };
    Ok(Restored {
        file: from.to_owned(),
        sum_compared: fetched.compared,
        pending_migrations: match standing {
            Standing::Older(pending) => pending,
            _ => 0,
        },
        set_aside,
    })
}

/// Reads all of a backup and says what it is, changing nothing.
pub async fn verify(config: &Config, from: &str) -> anyhow::Result<String> {
    let beside = DatabaseUrl::Sqlite(std::env::temp_dir().join("plinth-verify"));
    let fetched = fetch(config, from, &beside).await?;
    let (what, standing) = match Form::of(&fetched.path)? {
        Form::Postgres => {
            postgres::major(postgres::RESTORE)?;
            let (_, ran) = postgres::inspect(&fetched.path).await?;
            ("PostgreSQL", Standing::of(false, &ran))
        }
        form => {
            let copy =
                unpacked(&fetched.path, form, beside.path().unwrap_or(Path::new(""))).await?;
            let ran = backup::inspect(copy.path()).await?;
            ("SQLite", Standing::of(true, &ran))
        }
    };
    accepted(standing)?;
    let sum = match fetched.compared {
        true => "its SHA-256 is right",
        false => "no SHA-256 is beside it",
    };
    let schema = match standing {
        Standing::Older(pending) => format!("{pending} migrations behind"),
        _ => "as new as this version".to_owned(),
    };
    Ok(format!(
        "a whole backup of {what}: {sum}, its schema is {schema}"
    ))
}

async fn fetch(config: &Config, from: &str, target: &DatabaseUrl) -> anyhow::Result<Fetched> {
    let (path, sum, download) = match from.parse::<PlaceUrl>().map_err(anyhow::Error::msg)? {
        PlaceUrl::Folder(path) => {
            ensure!(path.is_file(), "there is no file {}", path.display());
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let beside = path.with_file_name(file::checksum_of(&name));
            (path, std::fs::read_to_string(beside).ok(), None)
        }
        PlaceUrl::S3 { bucket, prefix } => {
            let key = prefix.trim_end_matches('/');
            let (folder, name) = match key.rsplit_once('/') {
                Some((folder, name)) => (format!("{folder}/"), name),
                None => (String::new(), key),
            };
            let place = PlaceUrl::S3 {
                bucket,
                prefix: folder,
            };
            let Place::S3(bucket) = Place::open(&place, &config.backup)? else {
                bail!("no bucket");
            };
            let beside = match target.path() {
                Some(path) => path.with_file_name(name),
                None => std::env::temp_dir().join(name),
            };
            make_folder_of(&beside)?;
            let download = Unfinished::beside(&beside, "part")?;
            download
                .create()
                .with_context(|| format!("cannot write {}", download.path().display()))?;
            let sum = bucket.text(&file::checksum_of(name)).await?;
            bucket.fetch(name, download.path()).await?;
            (download.path().to_owned(), sum, Some(download))
        }
    };
    let expected = sum.as_deref().and_then(file::read_checksum);
    if let Some(expected) = &expected {
        let of = path.clone();
        let is = tokio::task::spawn_blocking(move || file::sha256(&of)).await??;
        ensure!(
            is == *expected,
            "{from} is damaged: its SHA-256 is {is}, and was {expected} when it was made. Nothing was touched; take another one"
        );
    }
    Ok(Fetched {
        path,
        compared: expected.is_some(),
        _download: download,
    })
}

/// Only what came from these migrations, and not from later ones.
fn accepted(standing: Standing) -> anyhow::Result<()> {
    match standing {
        Standing::Foreign => bail!(
            "this is no backup of Plinth's: it was not made by these migrations. Nothing was touched"
        ),
        Standing::Newer(version) => bail!(
            "this backup has migration {version}, which this version of Plinth does not know: restore it with the version that made it. Nothing was touched"
        ),
        Standing::Current | Standing::Older(_) => Ok(()),
    }
}

fn refuse(url: &impl std::fmt::Display, what: &str) -> anyhow::Error {
    anyhow::anyhow!(
        "{url} is in the way: {what}. With --force it is set aside, not deleted; nothing was touched"
    )
}

fn listed(filled: &[(String, i64)]) -> Option<String> {
    let rows: i64 = filled.iter().map(|(_, rows)| rows).sum();
    let of = |name: &str| filled.iter().find(|(table, _)| table == name);
    let users = of("users").map_or(0, |(_, rows)| *rows);
    (rows > 0).then(|| format!("it holds {rows} rows, {users} of them users"))
}

async fn into_sqlite(
    from: &Path,
    form: Form,
    target: &Path,
    stamp: &str,
    force: bool,
    tell: impl Fn(&str),
) -> anyhow::Result<(Standing, Option<String>)> {
    let copy = unpacked(from, form, target).await?;
    tell("checking it …");
    let standing = Standing::of(true, &backup::inspect(copy.path()).await?);
    accepted(standing)?;
    let in_the_way = match target.exists() {
        true => in_the_way(target).await,
        false => None,
    };
    let url = target.display();
    if let Some(what) = in_the_way.filter(|_| !force) {
        return Err(refuse(&url, &what));
    }
    let held = Held::hold(target).await.with_context(|| {
        format!("{url} is in use: stop what serves it, and restore again. Nothing was touched")
    })?;
    let mut aside = None;
    if let Some(held) = held {
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(format!(".before-{stamp}"));
        let path = target.with_file_name(name);
        held.set_aside(&path)
            .await
            .with_context(|| format!("{url} cannot be set aside"))?;
        aside = Some(path);
    }
    if let Err(error) = copy.keep_as(target) {
        if let Some(aside) = &aside {
            std::fs::rename(aside, target).context("it cannot be put back either")?;
        }
        return Err(error).with_context(|| format!("cannot write {url}"));
    }
    Ok((standing, aside.map(|path| path.display().to_string())))
}

/// On a new machine there is none yet.
fn make_folder_of(target: &Path) -> anyhow::Result<()> {
    let folder = target.parent().unwrap_or(Path::new(""));
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}

async fn unpacked(from: &Path, form: Form, target: &Path) -> anyhow::Result<Unfinished> {
    make_folder_of(target)?;
    let copy = Unfinished::beside(&target.with_file_name("plinth-"), "restoring")?;
    let to = copy
        .create()
        .with_context(|| format!("cannot write {}", copy.path().display()))?;
    let from = from.to_owned();
    let unpacked = tokio::task::spawn_blocking(move || {
        let mut to = BufWriter::new(to);
        match form {
            Form::SqliteGzip => file::unpack(&from, &mut to),
            _ => std::io::copy(&mut std::fs::File::open(&from)?, &mut to),
        }
    });
    unpacked.await?.context(
        "the backup cannot be unpacked: it is damaged, or the disk is full. Nothing was touched",
    )?;
    Ok(copy)
}

/// What would be lost to sight, if anything.
async fn in_the_way(target: &Path) -> Option<String> {
    let looked = async {
        let url = DatabaseUrl::Sqlite(target.to_owned());
        let db = Db::open(&url, &backup::options()).await?;
        let filled = db.filled().await;
        db.close().await;
        filled
    };
    match looked.await {
        Ok(filled) => listed(&filled),
        Err(error) => Some(error.to_string()),
    }
}

async fn into_postgres(
    from: &Path,
    url: &DatabaseUrl,
    target: &url::Url,
    stamp: &str,
    force: bool,
    tell: impl Fn(&str),
) -> anyhow::Result<(Standing, Option<String>)> {
    postgres::major(postgres::RESTORE)?;
    let (schema, ran) = postgres::inspect(from).await?;
    let standing = Standing::of(false, &ran);
    accepted(standing)?;
    let db = Db::open(url, &backup::options())
        .await
        .with_context(|| format!("cannot use {url}"))?;
    let restored = async {
        let server = db.server().await?.context("no server")?;
        postgres::fits(postgres::RESTORE, server.major)?;
        ensure!(
            server.schema == schema,
            "the backup is of the schema {schema}, and {url} has its tables in {}: make them equal with search_path",
            server.schema
        );
        let aside = make_room(&db, url, &server, stamp, force).await?;
        tell("restoring …");
        if let Err(error) = postgres::restore(target, from, &schema).await {
            if let Some(aside) = &aside {
                db.put_back(&schema, aside)
                    .await
                    .with_context(|| format!("what was there is in the schema {aside}"))?;
            }
            return Err(error.context("nothing was restored, and all is as it was"));
        }
        Ok(aside.map(|aside| format!("the schema {aside}")))
    };
    let restored = restored.await;
    db.close().await;
    Ok((standing, restored?))
}

async fn make_room(
    db: &Db,
    url: &DatabaseUrl,
    server: &Server,
    stamp: &str,
    force: bool,
) -> anyhow::Result<Option<String>> {
    let servers = db.served_by().await?;
    let live = (servers > 0).then(|| format!("{servers} connections of running servers use it"));
    let in_the_way = live.or(listed(&db.filled().await?));
    if let Some(what) = in_the_way.filter(|_| !force) {
        return Err(refuse(url, &what));
    }
    if !db.has_tables().await? {
        return Ok(None);
    }
    let aside = format!("{}_before_{stamp}", server.schema);
    db.set_aside(&server.schema, &aside)
        .await
        .with_context(|| format!("the schema {} cannot be set aside", server.schema))?;
    Ok(Some(aside))
}
