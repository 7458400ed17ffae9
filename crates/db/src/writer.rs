//! SQLite's one writer, with group commit.
//!
//! Transactions run one after another on one connection, as SQLite demands. But `commit`, the step
//! that waits for the disk, is shared: the first transaction opens a batch, each further one is a
//! savepoint inside it, and when its work is done it queues up once more; whoever comes first commits
//! for all that finished before. One client alone sees no delay, and says no more than it would without
//! any of this; N clients share one `fsync`. `commit` returns only when it is on disk.
use sqlx::{SqliteConnection, raw_sql};
use std::{
    io,
    ops::Range,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::sync::{Mutex, OwnedMutexGuard};

#[derive(Clone)]
pub(crate) struct Writer {
    batch: Arc<Mutex<Batch>>,
    patience: Duration,
    place: Arc<Place>,
}

/// Where the file was when it was opened. SQLite goes on writing into one that was deleted, and says nothing.
pub(crate) struct Place {
    path: PathBuf,
    device_and_inode: (u64, u64),
}

impl Place {
    pub fn of(path: &Path) -> io::Result<Self> {
        let file = std::fs::metadata(path)?;
        Ok(Self {
            path: path.to_owned(),
            device_and_inode: (file.dev(), file.ino()),
        })
    }

    /// Fails when nobody would find what is written now.
    pub fn check(&self) -> io::Result<()> {
        match Self::of(&self.path)?.device_and_inode == self.device_and_inode {
            true => Ok(()),
            false => Err(io::Error::other("another file is in its place")),
        }
    }
}

struct Batch {
    conn: SqliteConnection,
    /// `begin` was said.
    open: bool,
    /// What is to be taken back, of a transaction that may since have been dropped.
    begun: Option<Begun>,
    /// Transactions that finished their work, and how many of these are on disk.
    done: u64,
    durable: u64,
    /// Those that a failed commit took with it.
    lost: Vec<Range<u64>>,
    /// Nothing begins any more.
    closed: bool,
    place: Arc<Place>,
}

/// How a transaction began.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Begun {
    /// With the batch, in which there is nothing else.
    Batch,
    /// Within it.
    Savepoint,
}

/// One transaction's turn at the connection.
pub(crate) struct Work {
    batch: Option<OwnedMutexGuard<Batch>>,
    writer: Writer,
}

impl Writer {
    pub fn new(conn: SqliteConnection, patience: Duration, place: Place) -> Self {
        let place = Arc::new(place);
        let batch = Batch {
            conn,
            open: false,
            begun: None,
            done: 0,
            durable: 0,
            lost: vec![],
            closed: false,
            place: place.clone(),
        };
        Self {
            batch: Arc::new(Mutex::new(batch)),
            patience,
            place,
        }
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Waits for its turn, at most as long as one waits for a pooled connection.
    pub async fn begin(&self) -> sqlx::Result<Work> {
        let turn = tokio::time::timeout(self.patience, self.batch.clone().lock_owned()).await;
        let batch = turn.map_err(|_| sqlx::Error::PoolTimedOut)?;
        if batch.closed {
            return Err(sqlx::Error::PoolClosed);
        }
        let mut work = Work {
            batch: Some(batch),
            writer: self.clone(),
        };
        // On its own task: what was begun is noted even when the caller has gone away.
        let begun = tokio::spawn(async move {
            let batch = work.batch.as_mut().ok_or(sqlx::Error::WorkerCrashed)?;
            batch.undo().await?;
            batch.begun = Some(match batch.open {
                false => {
                    batch.say("begin immediate").await?;
                    batch.open = true;
                    Begun::Batch
                }
                true => {
                    batch.say("savepoint work").await?;
                    Begun::Savepoint
                }
            });
            Ok(work)
        });
        begun.await.map_err(|_| sqlx::Error::WorkerCrashed)?
    }

    /// The connection with no batch open on it, for what manages its own transaction.
    pub async fn alone(&self) -> sqlx::Result<Alone> {
        let mut batch = self.batch.clone().lock_owned().await;
        if batch.open {
            let last = batch.done;
            batch.settle(last).await?;
        }
        Ok(Alone(batch))
    }

    /// Waits for the transaction under way and folds the WAL back into the file. No other begins.
    pub async fn close(&self) {
        if let Ok(mut alone) = self.alone().await {
            alone.0.closed = true;
            let _ = raw_sql("pragma wal_checkpoint(truncate)")
                .execute(alone.conn())
                .await;
        }
    }
}

pub(crate) struct Alone(OwnedMutexGuard<Batch>);

impl Alone {
    pub fn conn(&mut self) -> &mut SqliteConnection {
        &mut self.0.conn
    }
}

impl Alone {
    /// One transaction, without others beside it.
    pub async fn whole(mut self) -> sqlx::Result<Whole> {
        self.0.say("begin immediate").await?;
        Ok(Whole(Some(self)))
    }
}

/// A transaction that holds the writer from its beginning to its end; dropped, it is taken back.
pub(crate) struct Whole(Option<Alone>);

impl Whole {
    pub fn conn(&mut self) -> sqlx::Result<&mut SqliteConnection> {
        self.0
            .as_mut()
            .map(Alone::conn)
            .ok_or(sqlx::Error::WorkerCrashed)
    }

    pub async fn commit(mut self) -> sqlx::Result<()> {
        let mut alone = self.0.take().ok_or(sqlx::Error::WorkerCrashed)?;
        let committed = alone.0.say("commit").await;
        if committed.is_err() {
            let _ = alone.0.say("rollback").await;
        }
        committed
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        if let (Some(mut alone), Ok(runtime)) =
            (self.0.take(), tokio::runtime::Handle::try_current())
        {
            runtime.spawn(async move { alone.0.say("rollback").await });
        }
    }
}

impl Work {
    pub fn conn(&mut self) -> sqlx::Result<&mut SqliteConnection> {
        self.batch
            .as_mut()
            .map(|batch| &mut batch.conn)
            .ok_or(sqlx::Error::WorkerCrashed)
    }

    pub async fn commit(mut self) -> sqlx::Result<()> {
        let mut batch = self.batch.take().ok_or(sqlx::Error::WorkerCrashed)?;
        let writer = self.writer.clone();
        // On its own task, so that a caller who goes away leaves no batch behind uncommitted.
        let end = tokio::spawn(async move {
            if batch.begun == Some(Begun::Savepoint) {
                batch.say("release work").await?;
            }
            batch.begun = None;
            batch.done += 1;
            let mine = batch.done;
            drop(batch);
            writer.batch.lock_owned().await.settle(mine).await
        });
        end.await.map_err(|_| sqlx::Error::WorkerCrashed)?
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let (Some(mut batch), Ok(runtime)) =
            (self.batch.take(), tokio::runtime::Handle::try_current())
        {
            let writer = self.writer.clone();
            runtime.spawn(async move {
                let _ = batch.undo().await;
                let last = batch.done;
                drop(batch);
                let _ = writer.batch.lock_owned().await.settle(last).await;
            });
        }
    }
}

impl Batch {
    async fn say(&mut self, sql: &'static str) -> sqlx::Result<()> {
        sqlx::query(sql).execute(&mut self.conn).await.map(drop)
    }

    /// Takes back what a dropped transaction left.
    async fn undo(&mut self) -> sqlx::Result<()> {
        match self.begun.take() {
            None => {}
            Some(Begun::Batch) => {
                // Some errors have SQLite roll back by itself; then this is one too.
                let _ = self.say("rollback").await;
                self.open = false;
            }
            Some(Begun::Savepoint) => {
                let undone = async {
                    self.say("rollback to work").await?;
                    self.say("release work").await
                };
                if let Err(e) = undone.await {
                    self.fail().await;
                    return Err(e);
                }
            }
        }
        Ok(())
    }

    /// Makes everything up to `mine` durable, unless another already did.
    async fn settle(&mut self, mine: u64) -> sqlx::Result<()> {
        self.undo().await?;
        if self.lost.iter().any(|lost| lost.contains(&mine)) {
            return Err(sqlx::Error::Protocol(
                "the batch this transaction was part of could not be committed".into(),
            ));
        }
        if !self.open || (self.durable >= mine && self.durable != self.done) {
            return Ok(());
        }
        let committed = match self.place.check() {
            Ok(()) => self.say("commit").await,
            Err(gone) => Err(gone.into()),
        };
        match committed {
            Ok(()) => {
                self.open = false;
                self.durable = self.done;
                Ok(())
            }
            Err(e) => {
                self.fail().await;
                Err(e)
            }
        }
    }

    async fn fail(&mut self) {
        let _ = raw_sql("rollback").execute(&mut self.conn).await;
        let lost = self.durable + 1..self.done + 1;
        match self.lost.last_mut() {
            // A full disk fails every batch: one range tells of all of them.
            Some(last) if last.end == lost.start => last.end = lost.end,
            _ => self.lost.push(lost),
        }
        self.durable = self.done;
        self.open = false;
    }
}
