//! A whole database as a file: taken while it serves, looked at before it is trusted, put in place.
use crate::{Db, Error, Options, Result, check, engine, engine::Engine, migrate::history};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteLockingMode},
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// A migration that a database, or a copy of one, was taken through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// The number its file begins with.
    pub version: i64,
    /// Of the file's text.
    pub checksum: Vec<u8>,
}

/// What a database is to this version of Plinth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// As new as we are.
    Current,
    /// So many migrations behind: they run at the next start.
    Older(usize),
    /// It was migrated by a newer version, to this number.
    Newer(i64),
    /// It was not made by these migrations.
    Foreign,
}

impl Standing {
    /// Where this history stands in ours.
    pub fn of(sqlite: bool, ran: &[Ran]) -> Self {
        let ours: Vec<_> = history(sqlite)
            .iter()
            .filter(|m| m.migration_type.is_up_migration())
            .map(|m| (m.version, m.checksum.to_vec()))
            .collect();
        let newest_here = ours.iter().map(|(version, _)| *version).max().unwrap_or(0);
        let Some(newest_there) = ran.iter().map(|ran| ran.version).max() else {
            return Self::Foreign;
        };
        let known = |ran: &Ran| ours.contains(&(ran.version, ran.checksum.clone()));
        if !ran
            .iter()
            .filter(|ran| ran.version <= newest_here)
            .all(known)
            || ran.iter().all(|ran| ran.version > newest_here)
        {
            return Self::Foreign;
        }
        if newest_there > newest_here {
            return Self::Newer(newest_there);
        }
        match ours.len() - ran.len() {
            0 => Self::Current,
            behind => Self::Older(behind),
        }
    }
}

const RAN: &str = "select version, checksum from _sqlx_migrations where success order by version";

fn ran(rows: Vec<(i64, Vec<u8>)>) -> Vec<Ran> {
    rows.into_iter()
        .map(|(version, checksum)| Ran { version, checksum })
        .collect()
}

impl Db {
    /// The migrations it was taken through; none where it is empty, or not ours. Writes nothing.
    pub async fn ran(&self) -> Result<Vec<Ran>> {
        Ok(match &self.engine {
            Engine::Postgres { pool, .. } => {
                let there: bool =
                    sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null")
                        .fetch_one(pool)
                        .await?;
                match there {
                    true => ran(sqlx::query_as(RAN).fetch_all(pool).await?),
                    false => vec![],
                }
            }
            Engine::Sqlite { read, .. } => ran_of_file(&mut *read.acquire().await?).await?,
        })
    }

    /// How many rows each table has that has any, the history of migrations apart.
    pub async fn filled(&self) -> Result<Vec<(String, i64)>> {
        let mut filled = vec![];
        for table in check::tables(self).await? {
            let sql = AssertSqlSafe(format!("select count(*) from {table}"));
            let rows: i64 = match &self.engine {
                Engine::Postgres { pool, .. } => sqlx::query_scalar(sql).fetch_one(pool).await?,
                Engine::Sqlite { read, .. } => sqlx::query_scalar(sql).fetch_one(read).await?,
            };
            if rows > 0 {
                filled.push((table, rows));
            }
        }
        Ok(filled)
    }
}

async fn ran_of_file(conn: &mut SqliteConnection) -> Result<Vec<Ran>> {
    let there: i64 =
        sqlx::query_scalar("select count(*) from sqlite_schema where name = '_sqlx_migrations'")
            .fetch_one(&mut *conn)
            .await?;
    Ok(match there {
        0 => vec![],
        _ => ran(sqlx::query_as(RAN).fetch_all(conn).await?),
    })
}

fn quietly(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .log_statements(tracing::log::LevelFilter::Off)
        .log_slow_statements(tracing::log::LevelFilter::Off, Duration::ZERO)
}

fn refused(path: &Path, error: &sqlx::Error) -> Error {
    Error::Refused(format!(
        "{}: {}",
        path.display(),
        engine::explain_sqlite(error)
    ))
}

/// Writes what a SQLite database holds at this moment into a new file. Requests go on meanwhile: it
/// is one read transaction, and readers and the writer do not wait for each other (WAL).
pub async fn snapshot(path: &Path, to: &Path) -> Result<()> {
    let mut conn = quietly(path)
        .connect()
        .await
        .map_err(|e| refused(path, &e))?;
    let copied = sqlx::query("vacuum into $1")
        .bind(to.to_string_lossy().into_owned())
        .execute(&mut conn)
        .await;
    conn.close().await?;
    copied.map(drop).map_err(|e| refused(to, &e))
}

/// Reads all of a SQLite file that nobody has open; refuses one that is damaged. Gives its history.
pub async fn inspect(path: &Path) -> Result<Vec<Ran>> {
    let look = async {
        let mut conn = quietly(path).read_only(true).connect().await?;
        let faults: Vec<(String,)> = sqlx::query_as("pragma integrity_check(3)")
            .fetch_all(&mut conn)
            .await?;
        let dangling: Option<(String,)> =
            sqlx::query_as("select \"table\" from pragma_foreign_key_check limit 1")
                .fetch_optional(&mut conn)
                .await?;
        let ran = ran_of_file(&mut conn).await;
        conn.close().await?;
        Ok::<_, sqlx::Error>((faults, dangling, ran))
    };
    let (faults, dangling, ran) = look.await.map_err(|e| refused(path, &e))?;
    if let Some((fault,)) = faults.first().filter(|(word,)| word != "ok") {
        return Err(Error::Refused(format!(
            "{} is damaged: {fault}",
            path.display()
        )));
    }
    if let Some((table,)) = dangling {
        return Err(Error::Refused(format!(
            "{} is damaged: a row of {table} refers to one that is not there",
            path.display()
        )));
    }
    ran
}

/// A SQLite file that nobody else can use while this lives.
pub struct Held {
    /// `None` where it is damaged, so that nobody can use it anyhow.
    conn: Option<SqliteConnection>,
    path: PathBuf,
}

impl Held {
    /// `None` where there is no file. A file that another process has open is refused.
    pub async fn hold(path: &Path) -> Result<Option<Self>> {
        if !path.exists() {
            return Ok(None);
        }
        let hold = async {
            let mut conn = quietly(path)
                .locking_mode(SqliteLockingMode::Exclusive)
                .busy_timeout(Duration::from_millis(500))
                .connect()
                .await?;
            sqlx::raw_sql("begin exclusive; commit;")
                .execute(&mut conn)
                .await?;
            Ok::<_, sqlx::Error>(conn)
        };
        let conn = match hold.await {
            Ok(conn) => Some(conn),
            Err(e) if engine::is_damage(&e) => None,
            Err(e) => return Err(refused(path, &e)),
        };
        Ok(Some(Self {
            conn,
            path: path.to_owned(),
        }))
    }

    /// Gives the file another name, with all that was not yet in it.
    pub async fn set_aside(mut self, aside: &Path) -> Result<()> {
        let named = |path: &Path, ending: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(ending);
            PathBuf::from(name)
        };
        if let Some(conn) = &mut self.conn {
            let whole = "pragma wal_checkpoint(truncate); pragma journal_mode = delete;";
            match sqlx::raw_sql(whole).execute(conn).await {
                Err(e) if !engine::is_damage(&e) => return Err(refused(&self.path, &e)),
                _ => {}
            }
        }
        // Who opens it in this moment finds it locked, or the new one. What is beside a damaged one stays with it.
        for ending in ["-wal", "-shm", ""] {
            match std::fs::rename(named(&self.path, ending), named(aside, ending)) {
                Err(e) if ending.is_empty() || e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(sqlx::Error::Io(e).into());
                }
                _ => {}
            }
        }
        if let Some(conn) = self.conn {
            conn.close().await?;
        }
        Ok(())
    }
}

/// What PostgreSQL says of itself and of who uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// 17 for 17.2.
    pub major: u32,
    /// Where our tables are, or would be.
    pub schema: String,
}

impl Db {
    /// `None` for SQLite.
    pub async fn server(&self) -> Result<Option<Server>> {
        let Engine::Postgres { pool, .. } = &self.engine else {
            return Ok(None);
        };
        let (version, schema): (i32, Option<String>) = sqlx::query_as(
            "select current_setting('server_version_num')::int, current_schema()::text",
        )
        .fetch_one(pool)
        .await?;
        let schema = schema.ok_or_else(|| {
            Error::Refused("the database's search_path names no schema that is there".into())
        })?;
        Ok(Some(Server {
            major: version as u32 / 10_000,
            schema,
        }))
    }

    /// Connections of servers of ours to this PostgreSQL database, this process' own apart: those
    /// that were there before it came.
    pub async fn served_by(&self) -> Result<i64> {
        let Engine::Postgres { pool, .. } = &self.engine else {
            return Ok(0);
        };
        Ok(sqlx::query_scalar(
            "select count(*) from pg_stat_activity
             where datname = current_database() and application_name = 'plinth'
               and backend_start < (select backend_start from pg_stat_activity where pid = pg_backend_pid())
                                   - interval '2 seconds'",
        )
        .fetch_one(pool)
        .await?)
    }

    /// Whether there is anything at all in the schema of our tables.
    pub async fn has_tables(&self) -> Result<bool> {
        let Engine::Postgres { pool, .. } = &self.engine else {
            return Ok(!check::tables(self).await?.is_empty());
        };
        let sql = "select exists (select 1 from pg_class where relnamespace = current_schema()::regnamespace)
                       or exists (select 1 from pg_proc where pronamespace = current_schema()::regnamespace)";
        Ok(sqlx::query_scalar(sql).fetch_one(pool).await?)
    }

    /// Renames the schema of our tables, and makes an empty one in its place.
    pub async fn set_aside(&self, schema: &str, aside: &str) -> Result<()> {
        self.rename(&[
            format!("alter schema \"{schema}\" rename to \"{aside}\""),
            format!("create schema \"{schema}\""),
        ])
        .await
    }

    /// Takes [`Self::set_aside`] back, with whatever came into its place.
    pub async fn put_back(&self, schema: &str, aside: &str) -> Result<()> {
        self.rename(&[
            format!("drop schema \"{schema}\" cascade"),
            format!("alter schema \"{aside}\" rename to \"{schema}\""),
        ])
        .await
    }

    async fn rename(&self, statements: &[String]) -> Result<()> {
        let Engine::Postgres { pool, .. } = &self.engine else {
            return Ok(());
        };
        let mut tx = pool.begin().await?;
        for statement in statements {
            sqlx::query(AssertSqlSafe(statement.clone()))
                .execute(&mut *tx)
                .await?;
        }
        Ok(tx.commit().await?)
    }
}

/// How a command that works on a whole database opens it.
pub fn options() -> Options {
    Options {
        max_connections: 2,
        acquire_timeout: Duration::from_secs(10),
        statement_timeout: Duration::ZERO,
        ..Options::default()
    }
}
