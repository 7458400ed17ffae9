//! The two engines behind one face. Nothing outside this crate knows which one runs.
use crate::{
    DatabaseUrl, Error, Pooling, Result, bell::Bell, inbox::together::Arrivals, pooler,
    postgres::Session, writer,
};
use sqlx::{
    ConnectOptions, PgPool, SqlitePool,
    postgres::{PgConnectOptions, PgPoolOptions, PgSslMode},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use std::{path::Path, sync::Arc, time::Duration};

/// How connections are kept.
#[derive(Debug, Clone)]
pub struct Options {
    /// Connections at most: PostgreSQL in all, SQLite readers.
    pub max_connections: u32,
    /// How long a caller waits for a connection before it is told that there is none.
    pub acquire_timeout: Duration,
    /// PostgreSQL ends a statement that runs longer.
    pub statement_timeout: Duration,
    /// A statement that takes longer is logged.
    pub slow_statement: Duration,
    /// PostgreSQL: the schema that unqualified names mean, when not the server's default.
    pub schema: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_connections: 10,
            acquire_timeout: Duration::from_secs(3),
            statement_timeout: Duration::from_secs(30),
            slow_statement: Duration::from_millis(250),
            schema: None,
        }
    }
}

/// A database of either engine. Cheap to clone.
#[derive(Clone)]
pub struct Db {
    pub(crate) engine: Engine,
    /// Rings when a transaction that enqueued a job was committed here.
    pub(crate) bell: Arc<Bell>,
    /// Webhook events that wait to be written.
    pub(crate) arrivals: Arc<Arrivals>,
}

#[derive(Clone)]
pub(crate) enum Engine {
    Postgres {
        pool: PgPool,
        pooling: Pooling,
        /// For one answer: a little longer than the server takes to end a statement.
        patience: Duration,
    },
    /// One writer; readers never wait for it (WAL).
    Sqlite {
        read: SqlitePool,
        writer: writer::Writer,
    },
}

/// An open transaction: the only thing that can write. Dropped without [`Tx::commit`], it never was.
pub struct Tx {
    pub(crate) open: Open,
    /// What a commit rings, once a job was enqueued.
    pub(crate) bell: Arc<Bell>,
    pub(crate) enqueued: bool,
}

pub(crate) enum Open {
    Postgres(Session),
    Sqlite(writer::Work),
}

/// Connections of the pool, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolState {
    /// Open connections.
    pub open: u32,
    /// Of these, not in use.
    pub idle: u32,
    /// The configured bound.
    pub max: u32,
}

impl Db {
    /// Opens the database; for SQLite the file and its folder are made when they are not there.
    /// PostgreSQL behind a pooler that mixes up answers is refused with the way out.
    pub async fn open(url: &DatabaseUrl, options: &Options) -> Result<Self> {
        match url {
            DatabaseUrl::Sqlite(path) => Self::open_sqlite(path, options).await,
            DatabaseUrl::Postgres(url) => Self::open_postgres(url, options).await,
        }
    }

    fn new(engine: Engine, arrivals: Arrivals) -> Self {
        let elsewhere = match &engine {
            Engine::Postgres { pool, .. } => Some(pool.clone()),
            Engine::Sqlite { .. } => None,
        };
        Self {
            engine,
            bell: Bell::new(elsewhere),
            arrivals: Arc::new(arrivals),
        }
    }

    async fn open_sqlite(path: &Path, options: &Options) -> Result<Self> {
        let cannot = |what: String| {
            Error::Refused(format!(
                "cannot open the database file {}: {what}",
                path.display()
            ))
        };
        if let Some(folder) = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
        {
            std::fs::create_dir_all(folder)
                .map_err(|e| cannot(format!("its folder cannot be made ({e})")))?;
        }
        let connect = sqlite_options(path, options);
        // A writer first: it makes the file, and says at once when the volume is read only or the file damaged.
        let writer = connect
            .clone()
            .connect()
            .await
            .map_err(|e| cannot(explain_sqlite(&e)))?;
        let read = SqlitePoolOptions::new()
            .max_connections(options.max_connections)
            .acquire_timeout(options.acquire_timeout)
            .max_lifetime(None)
            .idle_timeout(None)
            .test_before_acquire(false)
            .connect_with(connect.pragma("query_only", "on"))
            .await
            .map_err(|e| cannot(explain_sqlite(&e)))?;
        let place = writer::Place::of(path).map_err(|e| cannot(e.to_string()))?;
        let engine = Engine::Sqlite {
            read,
            writer: writer::Writer::new(writer, options.acquire_timeout, place),
        };
        Ok(Self::new(engine, Arrivals::of_one_writer()))
    }

    async fn open_postgres(url: &url::Url, options: &Options) -> Result<Self> {
        let (bare, mut connect) = postgres_options(url, options)?;
        let pooling = match pooler::inspect(&connect).await {
            // PgBouncer knows no start-up parameter that it was not told of, and says so.
            Err(e) if e.to_string().contains("startup parameter") => {
                tracing::warn!(
                    "the pooler takes no settings: statement_timeout is the server's own"
                );
                connect = bare;
                pooler::inspect(&connect).await?
            }
            inspected => inspected?,
        };
        let maybe_tls = !matches!(connect.get_ssl_mode(), PgSslMode::Disable);
        let pool = PgPoolOptions::new()
            .max_connections(options.max_connections)
            .acquire_timeout(options.acquire_timeout)
            // A connection in steady use is not asked whether it lives; one that rested may have died.
            .test_before_acquire(false)
            .before_acquire(|conn, meta| {
                Box::pin(async move {
                    use sqlx::Connection;
                    Ok(meta.idle_for < RESTED || conn.ping().await.is_ok())
                })
            })
            .connect_with(connect)
            .await?;
        Ok(Self::new(
            Engine::Postgres {
                pool,
                pooling,
                patience: options.statement_timeout + ANSWERED_WITHIN,
            },
            Arrivals::of_connections(maybe_tls),
        ))
    }

    /// Opens a transaction. On SQLite it holds the write lock from here on (`begin immediate`), so
    /// that no later statement can fail for want of it: never wait for anything else inside.
    pub async fn begin(&self) -> Result<Tx> {
        let open = match &self.engine {
            Engine::Postgres { pool, patience, .. } => {
                Open::Postgres(Session::begin(pool, *patience).await?)
            }
            Engine::Sqlite { writer, .. } => Open::Sqlite(writer.begin().await?),
        };
        Ok(Tx {
            open,
            bell: self.bell.clone(),
            enqueued: false,
        })
    }

    /// Whether the database answers at all.
    pub async fn ping(&self) -> Result<()> {
        match &self.engine {
            Engine::Postgres { pool, patience, .. } => {
                let mut session = Session::open(pool, *patience).await?;
                session.say("select 1").await?;
            }
            // Reads a page of the file: SQLite would answer `select 1` without it.
            Engine::Sqlite { read, writer } => {
                writer.place().check().map_err(sqlx::Error::Io)?;
                sqlx::query("select 1 from sqlite_schema limit 1")
                    .execute(read)
                    .await
                    .map(drop)?;
            }
        }
        Ok(())
    }

    /// Returns when SQLite's file was deleted, or another put in its place: what is in the one that is open
    /// ends with this process.
    pub async fn lost(&self) {
        let Engine::Sqlite { writer, .. } = &self.engine else {
            return std::future::pending().await;
        };
        while writer.place().check().is_ok() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Whether rows survive in a file of this machine alone, so that other instances cannot share them.
    pub fn is_sqlite(&self) -> bool {
        matches!(self.engine, Engine::Sqlite { .. })
    }

    /// What stands between us and PostgreSQL.
    pub fn pooling(&self) -> Pooling {
        match &self.engine {
            Engine::Postgres { pooling, .. } => *pooling,
            Engine::Sqlite { .. } => Pooling::Direct,
        }
    }

    /// The pool as it is now.
    pub fn pool_state(&self) -> PoolState {
        let (open, idle, max) = match &self.engine {
            Engine::Postgres { pool, .. } => (
                pool.size(),
                pool.num_idle(),
                pool.options().get_max_connections(),
            ),
            Engine::Sqlite { read, .. } => (
                read.size(),
                read.num_idle(),
                read.options().get_max_connections(),
            ),
        };
        PoolState {
            open,
            idle: idle as u32,
            max,
        }
    }

    /// Ends every connection after its work; SQLite's WAL is folded into the file.
    pub async fn close(&self) {
        match &self.engine {
            Engine::Postgres { pool, .. } => pool.close().await,
            Engine::Sqlite { read, writer } => {
                read.close().await;
                writer.close().await;
            }
        }
    }
}

impl Tx {
    /// Makes it so. When this returns `Ok`, what was written is on disk.
    pub async fn commit(self) -> Result<()> {
        match self.open {
            Open::Postgres(tx) => tx.commit().await?,
            Open::Sqlite(work) => work.commit().await?,
        }
        if self.enqueued {
            self.bell.ring();
        }
        Ok(())
    }
}

/// A server that ends a statement at its timeout has so long to say so.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);
/// How often SQLite's file is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Idle for longer, a PostgreSQL connection is pinged before it is handed out.
const RESTED: Duration = Duration::from_secs(5);

pub(crate) fn sqlite_options(path: &Path, options: &Options) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(options.acquire_timeout)
        .foreign_keys(true)
        .log_statements(tracing::log::LevelFilter::Off)
        .log_slow_statements(tracing::log::LevelFilter::Warn, options.slow_statement)
}

/// How to connect, without and with settings of ours for each session.
fn postgres_options(
    url: &url::Url,
    options: &Options,
) -> Result<(PgConnectOptions, PgConnectOptions)> {
    let millis = options.statement_timeout.as_millis().to_string();
    let mut settings = vec![
        ("statement_timeout", millis.clone()),
        ("idle_in_transaction_session_timeout", millis),
    ];
    settings.extend(options.schema.clone().map(|schema| ("search_path", schema)));
    let bare = PgConnectOptions::from_url(url)?
        .application_name("plinth")
        .log_statements(tracing::log::LevelFilter::Off)
        .log_slow_statements(tracing::log::LevelFilter::Warn, options.slow_statement);
    Ok((bare.clone(), bare.options(settings)))
}

/// SQLite's code for what went wrong, without its details (https://www.sqlite.org/rescode.html).
fn sqlite_code(error: &sqlx::Error) -> Option<u32> {
    let code = error.as_database_error()?.code()?;
    Some(code.parse::<u32>().ok()? & 0xff)
}

/// Whether the file is no database, or no longer.
pub(crate) fn is_damage(error: &sqlx::Error) -> bool {
    matches!(sqlite_code(error), Some(11 | 26))
}

pub(crate) fn explain_sqlite(error: &sqlx::Error) -> String {
    match sqlite_code(error) {
        Some(8) => "it, or its volume, is read only".into(),
        Some(11 | 26) => {
            "it is damaged or is no SQLite database; restore a backup with `plinth restore FILE`"
                .into()
        }
        Some(13) => "the disk is full".into(),
        Some(14) => "it is a folder, or permission is denied, or the volume is read only".into(),
        Some(5) => "another process keeps it locked".into(),
        _ => error.to_string(),
    }
}
