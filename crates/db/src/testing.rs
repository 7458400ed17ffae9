//! Throw-away databases: SQLite always, PostgreSQL where `TEST_DATABASE_URL` names a server.
use crate::{DatabaseUrl, Db, Options, Result, engine::Engine};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use std::{
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::sync::OnceCell;

/// The server that tests use beside SQLite.
pub const VARIABLE: &str = "TEST_DATABASE_URL";
/// When set, a test that would be skipped for want of a server fails.
pub const REQUIRED: &str = "TEST_REQUIRE_SERVERS";

/// A variable of the test run.
pub fn variable(name: &str) -> Option<String> {
    #[expect(
        clippy::disallowed_methods,
        reason = "tests are told of servers by the environment alone"
    )]
    std::env::var(name).ok()
}

static NEXT: AtomicU32 = AtomicU32::new(0);

fn options() -> Options {
    Options {
        max_connections: 4,
        acquire_timeout: Duration::from_secs(30),
        ..Options::default()
    }
}

/// A path that no other test has, in memory where the system offers that.
fn fresh_path() -> PathBuf {
    let folder = if std::path::Path::new("/dev/shm").is_dir() {
        "/dev/shm".into()
    } else {
        std::env::temp_dir()
    };
    folder.join(format!(
        "plinth-test-{}-{}.db",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    ))
}

/// A SQLite file of its own, removed when this is dropped.
pub struct SqliteFile(PathBuf);

impl SqliteFile {
    /// A name that no other test has; nothing is made yet.
    pub fn new() -> Self {
        Self(fresh_path())
    }

    /// As `DATABASE_URL` writes it.
    pub fn url(&self) -> String {
        format!("sqlite://{}", self.0.display())
    }

    /// Where it is.
    pub fn path(&self) -> &std::path::Path {
        &self.0
    }
}

impl Default for SqliteFile {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for SqliteFile {
    fn drop(&mut self) {
        for suffix in ["", "-wal", "-shm"] {
            let mut name = self.0.clone().into_os_string();
            name.push(suffix);
            let _ = std::fs::remove_file(name);
        }
    }
}

/// A migrated SQLite database: a copy of one that was migrated once in this process.
pub async fn sqlite() -> Result<(Db, SqliteFile)> {
    static TEMPLATE: OnceCell<Vec<u8>> = OnceCell::const_new();
    let template = TEMPLATE
        .get_or_try_init(async || {
            let file = SqliteFile::new();
            let db = Db::open(&DatabaseUrl::Sqlite(file.0.clone()), &options()).await?;
            db.migrate().await?;
            db.close().await;
            std::fs::read(&file.0).map_err(|e| crate::Error::Connection(e.into()))
        })
        .await?;
    let file = SqliteFile::new();
    std::fs::write(&file.0, template).map_err(|e| crate::Error::Connection(e.into()))?;
    let db = Db::open(&DatabaseUrl::Sqlite(file.0.clone()), &options()).await?;
    Ok((db, file))
}

/// A migrated PostgreSQL schema of its own; `None`, and a word on standard error, without a server.
pub async fn postgres() -> Result<Option<Db>> {
    let Some((url, schema)) = postgres_schema().await? else {
        return Ok(None);
    };
    let db = Db::open(
        &url,
        &Options {
            schema: Some(schema),
            ..options()
        },
    )
    .await?;
    db.migrate().await?;
    Ok(Some(db))
}

/// Whether there is a server to test on; says so once when there is not.
pub fn postgres_is_there() -> bool {
    static SAID: std::sync::Once = std::sync::Once::new();
    let there = variable(VARIABLE).is_some();
    assert!(
        there || variable(REQUIRED).is_none(),
        "{VARIABLE} is not set"
    );
    if !there {
        SAID.call_once(|| eprintln!("skipped on PostgreSQL: {VARIABLE} is not set"));
    }
    there
}

/// An empty schema and the server that holds it.
pub async fn postgres_schema() -> Result<Option<(DatabaseUrl, String)>> {
    if !postgres_is_there() {
        return Ok(None);
    }
    let server = variable(VARIABLE).unwrap_or_default();
    let url = DatabaseUrl::parse(&server)?;
    let DatabaseUrl::Postgres(address) = &url else {
        panic!("{VARIABLE} has to name a PostgreSQL server")
    };
    let mut conn = PgConnection::connect(address.as_str()).await?;
    sweep(&mut conn).await?;
    let schema = name();
    conn.execute(AssertSqlSafe(format!("create schema {schema}")))
        .await?;
    conn.close().await?;
    Ok(Some((url, schema)))
}

/// A PostgreSQL database of its own, for what works on a whole one. Nothing is in it yet.
pub struct PostgresDatabase(String);

impl PostgresDatabase {
    /// Fails without a server: ask [`postgres_is_there`] first.
    pub async fn new() -> Result<Self> {
        let server = variable(VARIABLE).unwrap_or_default();
        let mut url = url::Url::parse(&server).map_err(|e| crate::Error::Refused(e.to_string()))?;
        let mut conn = PgConnection::connect(&server).await?;
        sweep(&mut conn).await?;
        let name = name();
        conn.execute(AssertSqlSafe(format!("create database {name}")))
            .await?;
        conn.close().await?;
        url.set_path(&name);
        Ok(Self(url.into()))
    }

    /// As `DATABASE_URL` writes it.
    pub fn url(&self) -> String {
        self.0.clone()
    }
}

/// Which says when it may be swept away.
fn name() -> String {
    let hour = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
        / 3600;
    format!(
        "plinth_test_{hour}_{}_{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// Drops what test runs of earlier hours left behind, once a process.
async fn sweep(conn: &mut PgConnection) -> Result<()> {
    static SWEPT: OnceCell<()> = OnceCell::const_new();
    if SWEPT.initialized() {
        return Ok(());
    }
    let hour = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
        / 3600;
    let old: Vec<(String, String)> = sqlx::query_as(
        "select nspname::text, 'schema if exists ' || nspname || ' cascade' from pg_namespace where nspname like 'plinth\\_test\\_%'
         union all
         select datname::text, 'database if exists ' || datname || ' with (force)' from pg_database where datname like 'plinth\\_test\\_%'",
    )
    .fetch_all(&mut *conn)
    .await?;
    for (name, what) in old {
        let made = name
            .split('_')
            .nth(2)
            .and_then(|hour| hour.parse::<u64>().ok())
            .unwrap_or(0);
        if made + 2 <= hour {
            conn.execute(AssertSqlSafe(format!("drop {what}"))).await?;
        }
    }
    let _ = SWEPT.set(());
    Ok(())
}

/// How many rows a table has.
pub async fn rows(db: &Db, table: &str) -> Result<i64> {
    let sql = AssertSqlSafe(format!("select count(*) from {table}"));
    Ok(match &db.engine {
        Engine::Postgres { pool, .. } => sqlx::query_scalar(sql).fetch_one(pool).await?,
        Engine::Sqlite { read, .. } => sqlx::query_scalar(sql).fetch_one(read).await?,
    })
}

/// Runs a statement that no code of ours has: what an operator, or an attacker, would type.
pub async fn execute(db: &Db, sql: &str) -> Result<()> {
    let sql = AssertSqlSafe(sql.to_owned());
    match &db.engine {
        Engine::Postgres { pool, .. } => sqlx::query(sql).execute(pool).await.map(drop)?,
        Engine::Sqlite { writer, .. } => {
            let mut alone = writer.alone().await?;
            sqlx::query(sql).execute(alone.conn()).await.map(drop)?;
        }
    }
    Ok(())
}

/// Every row of every table but these, as text: equal before and after what is to have changed nothing.
pub async fn content(db: &Db, but: &[&str]) -> Result<Vec<String>> {
    let schema = crate::check::schema(db).await?;
    let mut columns: std::collections::BTreeMap<&str, Vec<&str>> = Default::default();
    for line in &schema {
        let word = line.split(' ').next().unwrap_or_default();
        if let Some((table, column)) = word.split_once('.')
            && !but.contains(&table)
            && !but.contains(&word)
        {
            columns.entry(table).or_default().push(column);
        }
    }
    let mut rows = vec![];
    for (table, columns) in columns {
        let texts: Vec<_> = columns
            .iter()
            .map(|column| match &db.engine {
                Engine::Postgres { .. } => format!("coalesce({column}::text, '')"),
                Engine::Sqlite { .. } => format!("quote({column})"),
            })
            .collect();
        let sql = format!(
            "select '{table}: ' || {} from {table} order by 1",
            texts.join(" || ', ' || ")
        );
        let sql = AssertSqlSafe(sql);
        let of_table: Vec<(String,)> = match &db.engine {
            Engine::Postgres { pool, .. } => sqlx::query_as(sql).fetch_all(pool).await?,
            Engine::Sqlite { read, .. } => sqlx::query_as(sql).fetch_all(read).await?,
        };
        rows.extend(of_table.into_iter().map(|(row,)| row));
    }
    Ok(rows)
}

/// One test, two engines: `both_engines! { async fn name(db: Db) { … } }`.
#[macro_export]
macro_rules! both_engines {
    ($($(#[$meta:meta])* async fn $name:ident($db:ident: Db) $body:block)*) => {$(
        $(#[$meta])*
        mod $name {
            #[allow(unused_imports, reason = "not every test names something of its module")]
            use super::*;
            async fn run($db: $crate::Db) $body
            #[tokio::test(flavor = "multi_thread")]
            async fn sqlite() {
                let (db, _file) = $crate::testing::sqlite().await.expect("a SQLite database");
                run(db).await
            }
            #[tokio::test(flavor = "multi_thread")]
            async fn postgres() {
                if let Some(db) = $crate::testing::postgres().await.expect("a PostgreSQL schema") {
                    run(db).await
                }
            }
        }
    )*};
}
