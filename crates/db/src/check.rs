//! Proves every declared statement against a migrated database: its text, the types of its
//! arguments, the columns it returns against the row that reads them, and that it finds its rows
//! through an index. Run on both engines by a test, and against production by `plinth doctor`.
use crate::{
    Db, Result,
    engine::Engine,
    statement::{Registered, Row, Statement},
};
use sqlx::{
    AssertSqlSafe, Column, Either, Executor, FromRow, SqlSafeStr, TypeInfo, postgres::PgRow,
    sqlite::SqliteRow,
};

/// Reads one row of each engine into a statement's row type, for its errors alone.
#[doc(hidden)]
pub struct Decode {
    postgres: fn(&PgRow) -> sqlx::Result<()>,
    sqlite: fn(&SqliteRow) -> sqlx::Result<()>,
}

impl Decode {
    pub(crate) const NONE: Self = Self {
        postgres: |_| Ok(()),
        sqlite: |_| Ok(()),
    };

    pub(crate) const fn of<R: Row>() -> Self {
        Self {
            postgres: |row| <R as FromRow<PgRow>>::from_row(row).map(drop),
            sqlite: |row| <R as FromRow<SqliteRow>>::from_row(row).map(drop),
        }
    }
}

fn statements() -> Vec<&'static Statement> {
    let mut all: Vec<_> = inventory::iter::<Registered>()
        .map(|registered| registered.0)
        .collect();
    all.sort_by_key(|statement| statement.name);
    all
}

/// How many statements there are.
pub fn count() -> usize {
    statements().len()
}

/// One line for each fault; empty when all is well. Writes nothing.
pub async fn verify(db: &Db) -> Result<Vec<String>> {
    let mut faults = vec![];
    for statement in statements() {
        let found = match &db.engine {
            Engine::Postgres { pool, .. } => postgres(&mut *pool.acquire().await?, statement).await,
            Engine::Sqlite { read, .. } => sqlite(&mut *read.acquire().await?, statement).await,
        };
        let found = found.unwrap_or_else(|e| vec![e.to_string()]);
        faults.extend(
            found
                .into_iter()
                .map(|fault| format!("{}: {fault}", statement.name)),
        );
    }
    Ok(faults)
}

async fn postgres(
    conn: &mut sqlx::PgConnection,
    statement: &Statement,
) -> sqlx::Result<Vec<String>> {
    let mut faults = vec![];
    // First with the types the arguments have, as at run time; `describe` then finds it in the cache.
    conn.prepare_with(statement.postgres.into_sql_str(), &(statement.params)().0)
        .await?;
    let described = conn.describe(statement.postgres.into_sql_str()).await?;

    let columns: Vec<_> = described
        .columns
        .iter()
        .map(|c| (c.name(), c.type_info().name().to_owned()))
        .collect();
    let nullable = described
        .nullable
        .iter()
        .enumerate()
        .filter(|n| *n.1 == Some(true))
        .map(|n| Some(n.0));
    for null in std::iter::once(None).chain(nullable) {
        let sample: Vec<_> = columns
            .iter()
            .enumerate()
            .map(|(i, (name, ty))| {
                format!(
                    "{}::{ty} as \"{name}\"",
                    if null == Some(i) {
                        "null"
                    } else {
                        postgres_sample(ty)
                    }
                )
            })
            .collect();
        if sample.is_empty() {
            break;
        }
        let row = sqlx::query(AssertSqlSafe(format!("select {}", sample.join(", "))))
            .fetch_one(&mut *conn)
            .await?;
        faults.extend(fault((statement.decode.postgres)(&row)));
    }
    Ok(faults)
}

fn postgres_sample(ty: &str) -> &'static str {
    match ty {
        "UUID" => "'00000000-0000-0000-0000-000000000000'",
        "TIMESTAMPTZ" => "'epoch'",
        "JSONB" | "JSON" => "'{}'",
        "BOOL" => "'f'",
        "INT2" | "INT4" | "INT8" | "FLOAT4" | "FLOAT8" | "NUMERIC" => "'0'",
        _ => "''",
    }
}

async fn sqlite(
    conn: &mut sqlx::SqliteConnection,
    statement: &Statement,
) -> sqlx::Result<Vec<String>> {
    let mut faults = vec![];
    let described = conn.describe(statement.sqlite.into_sql_str()).await?;

    // SQLite would read an argument that is not there as NULL, and never say so.
    if let Some(Either::Right(wanted)) = described.parameters
        && wanted > (statement.params)().1
    {
        faults.push(format!("has {wanted} parameters"));
    }

    let sample: Vec<_> = described
        .columns
        .iter()
        .map(|c| {
            let value = match c.type_info().name() {
                "BLOB" => "zeroblob(16)",
                "TEXT" => "'{}'",
                "REAL" => "0.0",
                "NULL" => "null",
                _ => "0",
            };
            format!("{value} as \"{}\"", c.name())
        })
        .collect();
    if !sample.is_empty() {
        let row = sqlx::query(AssertSqlSafe(format!("select {}", sample.join(", "))))
            .fetch_one(&mut *conn)
            .await?;
        faults.extend(fault((statement.decode.sqlite)(&row)));
    }

    let plan: Vec<(i64, i64, i64, String)> = sqlx::query_as(AssertSqlSafe(format!(
        "explain query plan {}",
        statement.sqlite
    )))
    .fetch_all(&mut *conn)
    .await?;
    // A recursion reads what it made itself; a search of words reads an index of its own.
    let recursion = statement.sqlite.starts_with("with recursive");
    let harmless = |step: &str| {
        ["CONSTANT ROW", "USING", "VIRTUAL TABLE INDEX"]
            .iter()
            .any(|words| step.contains(words))
            || (recursion && ["SCAN b", "SCAN branch"].contains(&step))
    };
    for (.., step) in plan {
        if step.starts_with("SCAN ") && !harmless(&step) {
            faults.push(format!("reads a whole table: {step}"));
        }
    }

    // `&Db` sends a statement to connections that cannot write: it must truly only read.
    let program: Vec<(i64, String, i64, i64)> =
        sqlx::query_as(AssertSqlSafe(format!("explain {}", statement.sqlite)))
            .fetch_all(&mut *conn)
            .await?;
    if statement.reads
        && program
            .iter()
            .any(|(_, op, _, p2)| op == "Transaction" && *p2 != 0)
    {
        faults.push("takes &Db, but writes".into());
    }
    Ok(faults)
}

/// Only what says that text and row disagree; a sample value may well be no valid enum or JSON shape.
fn fault(decoded: sqlx::Result<()>) -> Option<String> {
    let error = decoded.err()?;
    let real = match &error {
        sqlx::Error::ColumnDecode { source, .. } => {
            source.is::<sqlx::error::UnexpectedNullError>()
                || source.to_string().starts_with("mismatched types")
        }
        _ => true,
    };
    real.then(|| error.to_string())
}

/// What PostgreSQL says of a type, and what SQLite can keep of it.
const TYPES: [(&str, &str); 8] = [
    (" uuid", " blob"),
    (" bytea", " blob"),
    (" timestamp with time zone", " integer"),
    (" boolean", " integer"),
    (" bigint", " integer"),
    (" integer", " integer"),
    (" jsonb", " text"),
    (" text", " text"),
];

/// The history is each database's, and the search of words each engine's.
fn is_engines_own(name: &str) -> bool {
    let own = ["_sqlx_migrations", "messages_search", "searched_messages"];
    own.iter().any(|own| name.starts_with(own))
}

/// Every table that both engines have, by name.
pub(crate) async fn tables(db: &Db) -> Result<Vec<String>> {
    let mut tables: Vec<String> = match &db.engine {
        Engine::Postgres { pool, .. } => {
            sqlx::query_scalar(
                "select relname::text from pg_class
                 where relnamespace = current_schema()::regnamespace and relkind in ('r', 'p') and not relispartition",
            )
            .fetch_all(pool)
            .await?
        }
        Engine::Sqlite { read, .. } => {
            sqlx::query_scalar(
                "select name from pragma_table_list
                 where schema = 'main' and type = 'table' and name not like 'sqlite\\_%' escape '\\'",
            )
            .fetch_all(read)
            .await?
        }
    };
    tables.retain(|name| !is_engines_own(name));
    tables.sort();
    Ok(tables)
}

/// The schema in words both engines share, one line for each column, key, index and reference.
/// Equal on both engines, and kept in `schema.txt`, where a review sees what a migration changes.
pub async fn schema(db: &Db) -> Result<Vec<String>> {
    let mut lines: Vec<String> = match &db.engine {
        Engine::Postgres { pool, .. } => {
            sqlx::query_scalar(include_str!("check/schema.postgres.sql"))
                .fetch_all(pool)
                .await?
        }
        Engine::Sqlite { read, .. } => {
            sqlx::query_scalar(include_str!("check/schema.sqlite.sql"))
                .fetch_all(read)
                .await?
        }
    };
    lines.retain(|line| !is_engines_own(line) && !line.contains("to_tsvector"));
    if !db.is_sqlite() {
        let columns = lines.iter_mut().filter(|line| {
            line.split(' ')
                .next()
                .is_some_and(|first| first.contains('.'))
        });
        for line in columns {
            let known = TYPES.iter().find_map(|(postgres, sqlite)| {
                line.find(postgres).map(|at| (at, postgres, sqlite))
            });
            if let Some((at, postgres, sqlite)) = known {
                line.replace_range(at..at + postgres.len(), sqlite);
            }
        }
    }
    lines.sort();
    Ok(lines)
}
