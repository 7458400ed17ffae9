//! Takes a backup while the server goes on serving.
use super::{
    file::{self, Unfinished},
    place::{self, Place, Upload},
    postgres,
};
use crate::config::Core;
use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use db::{
    DatabaseUrl, Db, Pooling, Timestamp,
    backup::{self, Server, Standing},
};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use tokio::sync::mpsc::{Receiver, channel};

/// A backup that stands where it belongs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Made {
    pub name: String,
    pub bytes: u64,
    pub sha256: String,
}

/// How far it is, for whoever watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Copying,
    Checking,
    Written(u64),
}

/// A database that can be backed up.
pub struct Source {
    pub db: Db,
    url: DatabaseUrl,
    server: Option<Server>,
}

impl Source {
    /// Opens what is configured, past a pooler, and writes nothing. An older or newer schema is fine:
    /// before a release it is the new version that backs the old schema up.
    pub async fn open(core: &Core) -> anyhow::Result<Self> {
        let url = core.direct_url();
        if let Some(path) = url.path() {
            ensure!(
                path.exists(),
                "there is no database at {url}: check DATABASE_URL"
            );
        }
        let db = Db::open(url, &backup::options())
            .await
            .with_context(|| format!("cannot use {url}"))?;
        let server = db.server().await?;
        if let Some(server) = &server {
            ensure!(
                db.pooling() == Pooling::Direct,
                "{url} goes through a pooler in transaction mode, where pg_dump does not work: set DATABASE_DIRECT_URL"
            );
            postgres::fits(postgres::DUMP, server.major)?;
        }
        let ran = db.ran().await?;
        if Standing::of(db.is_sqlite(), &ran) == Standing::Foreign {
            bail!("{url} holds nothing of Plinth's: check DATABASE_URL");
        }
        Ok(Self {
            db,
            url: url.clone(),
            server,
        })
    }

    pub async fn close(&self) {
        self.db.close().await;
    }
}

/// Takes one. Whatever fails, what was in the place before stays, and nothing half done is added.
pub async fn take(
    source: &Source,
    place: &Place,
    now: Timestamp,
    tell: impl Fn(Stage),
) -> anyhow::Result<Made> {
    let name = file::name(now, source.db.is_sqlite());
    tell(Stage::Copying);
    let mut upload = Upload::begin(place, &name).await?;
    // Lives until the last piece is written.
    let (mut pieces, _snapshot) = match (&source.url, &source.server) {
        (DatabaseUrl::Postgres(url), Some(server)) => (dump(url, server)?, None),
        (url, _) => {
            let path = url.path().context("no file")?;
            let snapshot = snapshot(path, &name, &tell).await?;
            (pack(snapshot.path().to_owned()), Some(snapshot))
        }
    };
    let written = async {
        let (mut hash, mut bytes) = (Sha256::new(), 0);
        while let Some(piece) = pieces.recv().await {
            let piece = piece?;
            hash.update(&piece);
            bytes += piece.len() as u64;
            upload.write(piece).await?;
            tell(Stage::Written(bytes));
        }
        Ok((hex::encode(hash.finalize()), bytes))
    };
    match written.await {
        Ok((sha256, bytes)) => {
            upload.finish(&sha256).await?;
            Ok(Made {
                name,
                bytes,
                sha256,
            })
        }
        Err(error) => {
            upload.give_up().await;
            Err(error)
        }
    }
}

/// Writes down that there is a new backup. A schema from before there was a place for it has none.
pub async fn note(db: &Db, made: &Made, now: Timestamp) -> anyhow::Result<()> {
    let ran = db.ran().await?;
    if Standing::of(db.is_sqlite(), &ran) != Standing::Current {
        return Ok(());
    }
    let mut tx = db.begin().await?;
    db::backups::record(&mut tx, &made.name, made.bytes as i64, now).await?;
    Ok(tx.commit().await?)
}

/// A copy beside the database, where there is room for it, which is read in full before it is trusted.
async fn snapshot(path: &Path, name: &str, tell: &impl Fn(Stage)) -> anyhow::Result<Unfinished> {
    place::sweep(path.parent().unwrap_or(Path::new(".")));
    let copy = Unfinished::beside(&path.with_file_name(name), "snapshot")
        .with_context(|| format!("cannot write beside {}", path.display()))?;
    // An empty file is one that SQLite may fill, with the mode that we give it.
    copy.create()
        .with_context(|| format!("cannot write beside {}", path.display()))?;
    backup::snapshot(path, copy.path()).await?;
    tell(Stage::Checking);
    backup::inspect(copy.path())
        .await
        .context("the database itself is damaged; the backups before are untouched")?;
    Ok(copy)
}

type Pieces = Receiver<anyhow::Result<Bytes>>;

/// Pieces that wait to be written: enough to keep both sides busy.
const AHEAD: usize = 8;

fn pack(path: PathBuf) -> Pieces {
    let (sender, receiver) = channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        let give = |piece: Vec<u8>| {
            let sent = sender.blocking_send(Ok(piece.into()));
            sent.map_err(|_| std::io::ErrorKind::BrokenPipe.into())
        };
        if let Err(error) = file::pack(&path, give) {
            let error = anyhow::Error::new(error).context("packing");
            let _ = sender.blocking_send(Err(error));
        }
    });
    receiver
}

fn dump(url: &url::Url, server: &Server) -> anyhow::Result<Pieces> {
    let dump = postgres::dump(url, &server.schema)?;
    let (sender, receiver) = channel(AHEAD);
    tokio::spawn(postgres::pieces(dump, sender));
    Ok(receiver)
}
