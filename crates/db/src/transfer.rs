//! Everything a database holds, row for row, into a database of either engine.
//!
//! Which tables there are and what their columns hold is asked of the databases: a table that a migration
//! adds is copied without a word here. PostgreSQL's references are taken off for the time of the copy and
//! put back in the same transaction, which proves every one of them; so the order of the tables does not
//! matter, nor that a message refers to another message.
use crate::{
    DatabaseUrl, Db, Error, Result,
    backup::{self, Standing},
    check,
    engine::Engine,
};
use futures_util::TryStreamExt;
use std::{collections::BTreeMap, path::PathBuf};

mod cell;
mod reading;
#[cfg(test)]
mod tests;
mod writing;

use cell::{Kind, Sums};
use reading::Reading;
use writing::Writing;

/// What a table holds, in a form that is equal on both engines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sum {
    /// The table.
    pub table: String,
    /// How many rows.
    pub rows: u64,
    /// Of all their values, whatever their order.
    pub hash: String,
}

/// A table's columns, in the order in which they are read and written.
type Columns = Vec<(String, Kind)>;

/// The sum of each table, as of one moment.
pub async fn sums(db: &Db) -> Result<Vec<Sum>> {
    sums_as(db, &columns(db).await?).await
}

async fn sums_as(db: &Db, tables: &BTreeMap<String, Columns>) -> Result<Vec<Sum>> {
    let mut reading = Reading::begin(db).await?;
    let mut sums = vec![];
    for (table, columns) in tables {
        sums.push(reading.sum(table, columns).await?);
    }
    Ok(sums)
}

/// Copies every table into a database that has been migrated and holds nothing else, in one transaction,
/// and reads back what arrived before it counts. `told` hears of each table.
pub async fn copy(from: &Db, to: &Db, mut told: impl FnMut(&Sum)) -> Result<Vec<Sum>> {
    for (db, which) in [(from, "source"), (to, "target")] {
        if Standing::of(db.is_sqlite(), &db.ran().await?) != Standing::Current {
            return Err(Error::Refused(format!(
                "the {which} does not have this version's schema: run `plinth migrate` on it first"
            )));
        }
    }
    // SQLite does not say which of its texts are JSON.
    let tables = columns(if to.is_sqlite() { from } else { to }).await?;
    let filled_by_migrations = emptiness(to, &tables).await?;

    let mut reading = Reading::begin(from).await?;
    let mut writing = Writing::begin(to).await?;
    for table in &filled_by_migrations {
        writing.say(&format!("delete from {table}")).await?;
    }
    let mut sums = vec![];
    for (table, columns) in &tables {
        let sent = send(&mut reading, &mut writing, table, columns)
            .await
            .map_err(|e| Error::Refused(format!("{table}: {e}; nothing was copied")))?;
        let arrived = writing.sum(table, columns).await?;
        if sent != arrived {
            return Err(Error::Refused(format!(
                "{table} did not arrive as it was sent ({} rows of {}): nothing was copied",
                arrived.rows, sent.rows
            )));
        }
        told(&sent);
        sums.push(sent);
    }
    writing.commit().await?;
    Ok(sums)
}

async fn send(
    reading: &mut Reading,
    writing: &mut Writing,
    table: &str,
    columns: &Columns,
) -> Result<Sum> {
    let mut sent = Sums::of(table, columns);
    let mut rows = reading.rows(table, columns);
    let mut sink = writing.sink(table, columns).await?;
    while let Some(row) = rows.try_next().await? {
        sent.add(&row);
        sink.write(&row).await?;
    }
    sink.finish().await?;
    Ok(sent.sum())
}

/// The tables that hold what migrations put there and nothing more. Refuses a database with more.
async fn emptiness(to: &Db, tables: &BTreeMap<String, Columns>) -> Result<Vec<String>> {
    let filled = to.filled().await?;
    if filled.is_empty() {
        return Ok(vec![]);
    }
    let (fresh, there) = (fresh(tables).await?, sums_as(to, tables).await?);
    let strange: Vec<_> = filled
        .iter()
        .filter(|(table, _)| {
            let of = |sums: &[Sum]| sums.iter().find(|sum| sum.table == *table).cloned();
            of(&fresh) != of(&there)
        })
        .map(|(table, rows)| format!("{rows} in {table}"))
        .collect();
    match strange.is_empty() {
        true => Ok(filled.into_iter().map(|(table, _)| table).collect()),
        false => Err(Error::Refused(format!(
            "the target has rows already ({}): copy into a new database that was migrated and never served",
            strange.join(", ")
        ))),
    }
}

/// What a database holds that was only ever migrated.
async fn fresh(tables: &BTreeMap<String, Columns>) -> Result<Vec<Sum>> {
    let folder = Scratch(std::env::temp_dir().join(format!("plinth-{}", uuid::Uuid::new_v4())));
    let url = DatabaseUrl::Sqlite(folder.0.join("fresh.db"));
    let db = Db::open(&url, &backup::options()).await?;
    db.migrate().await?;
    let shared: Vec<_> = check::tables(&db).await?;
    let mut tables = tables.clone();
    tables.retain(|table, _| shared.contains(table));
    let sums = sums_as(&db, &tables).await;
    db.close().await;
    sums
}

struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn columns(db: &Db) -> Result<BTreeMap<String, Columns>> {
    let mut all = BTreeMap::new();
    for table in check::tables(db).await? {
        let columns: Vec<(String, String)> = match &db.engine {
            Engine::Postgres { pool, .. } => {
                sqlx::query_as(
                    "select attname::text, format_type(atttypid, null) from pg_attribute
                     where attrelid = to_regclass($1) and attnum > 0 and not attisdropped order by attnum",
                )
                .bind(&table)
                .fetch_all(pool)
                .await?
            }
            Engine::Sqlite { read, .. } => {
                sqlx::query_as("select name, 'as it is' from pragma_table_info($1) order by cid")
                    .bind(&table)
                    .fetch_all(read)
                    .await?
            }
        };
        let columns = columns.into_iter().map(|(name, ty)| (name, Kind::of(&ty)));
        all.insert(table, columns.collect());
    }
    Ok(all)
}
