use super::{
    Columns, Sum,
    cell::{Cell, Kind, Sums},
};
use crate::{Db, Result, engine::Engine};
use futures_util::{StreamExt, TryStreamExt, stream::BoxStream};
use sqlx::{
    AssertSqlSafe, Decode, PgConnection, Postgres, Row, Sqlite, SqliteConnection, Transaction,
    TypeInfo, ValueRef, postgres::PgRow, sqlite::SqliteRow,
};

/// A database as it is at one moment, whatever is written meanwhile.
pub enum Reading {
    Postgres(Transaction<'static, Postgres>),
    Sqlite(Transaction<'static, Sqlite>),
}

pub type Rows<'a> = BoxStream<'a, Result<Vec<Cell>>>;

impl Reading {
    pub async fn begin(db: &Db) -> Result<Self> {
        Ok(match &db.engine {
            Engine::Postgres { pool, .. } => {
                let begin = "begin isolation level repeatable read read only";
                Self::Postgres(pool.begin_with(begin).await?)
            }
            Engine::Sqlite { read, .. } => Self::Sqlite(read.begin().await?),
        })
    }

    pub fn rows(&mut self, table: &str, columns: &Columns) -> Rows<'_> {
        match self {
            Self::Postgres(tx) => of_postgres(tx, table, columns),
            Self::Sqlite(tx) => of_sqlite(tx, table, columns),
        }
    }

    pub async fn sum(&mut self, table: &str, columns: &Columns) -> Result<Sum> {
        sum(self.rows(table, columns), table, columns).await
    }
}

pub async fn sum(mut rows: Rows<'_>, table: &str, columns: &Columns) -> Result<Sum> {
    let mut sums = Sums::of(table, columns);
    while let Some(row) = rows.try_next().await? {
        sums.add(&row);
    }
    Ok(sums.sum())
}

pub fn of_postgres<'a>(conn: &'a mut PgConnection, table: &str, columns: &Columns) -> Rows<'a> {
    let kinds: Vec<_> = columns.iter().map(|(_, kind)| *kind).collect();
    let values: Vec<_> = columns
        .iter()
        .map(|(name, kind)| match kind {
            Kind::Uuid => format!("uuid_send(\"{name}\")"),
            Kind::Time => format!("(extract(epoch from \"{name}\") * 1000000)::bigint"),
            Kind::Bool => format!("\"{name}\"::int::bigint"),
            Kind::Int => format!("\"{name}\"::bigint"),
            Kind::Real => format!("\"{name}\"::double precision"),
            Kind::Bytes => format!("\"{name}\""),
            Kind::Json | Kind::Text => format!("\"{name}\"::text"),
        })
        .collect();
    let sql = format!("select {} from \"{table}\"", values.join(", "));
    let rows = sqlx::query(AssertSqlSafe(sql)).fetch(conn);
    rows.map(move |row| Ok(cells_of_postgres(&row?, &kinds)?))
        .boxed()
}

fn cells_of_postgres(row: &PgRow, kinds: &[Kind]) -> sqlx::Result<Vec<Cell>> {
    let cell = |(i, kind): (usize, &Kind)| {
        let value = match kind {
            Kind::Time | Kind::Bool | Kind::Int => row.try_get::<Option<_>, _>(i)?.map(Cell::Int),
            Kind::Real => row.try_get::<Option<_>, _>(i)?.map(Cell::Real),
            Kind::Uuid | Kind::Bytes => row.try_get::<Option<_>, _>(i)?.map(Cell::Bytes),
            Kind::Json | Kind::Text => row.try_get::<Option<_>, _>(i)?.map(Cell::Text),
        };
        Ok(value.unwrap_or(Cell::Null))
    };
    kinds.iter().enumerate().map(cell).collect()
}

pub fn of_sqlite<'a>(conn: &'a mut SqliteConnection, table: &str, columns: &Columns) -> Rows<'a> {
    let names: Vec<_> = columns
        .iter()
        .map(|(name, _)| format!("\"{name}\""))
        .collect();
    let sql = format!("select {} from \"{table}\"", names.join(", "));
    let rows = sqlx::query(AssertSqlSafe(sql)).fetch(conn);
    rows.map(|row| Ok(cells_of_sqlite(&row?)?)).boxed()
}

fn cells_of_sqlite(row: &SqliteRow) -> sqlx::Result<Vec<Cell>> {
    let cell = |i| {
        let value = row.try_get_raw(i)?;
        // Of one that is not there, the type would be the column's.
        if value.is_null() {
            return Ok(Cell::Null);
        }
        let ty = value.type_info().name().to_owned();
        let decoded = match &*ty {
            "INTEGER" => <i64 as Decode<Sqlite>>::decode(value).map(Cell::Int),
            "REAL" => <f64 as Decode<Sqlite>>::decode(value).map(Cell::Real),
            "BLOB" => <Vec<u8> as Decode<Sqlite>>::decode(value).map(Cell::Bytes),
            _ => <String as Decode<Sqlite>>::decode(value).map(Cell::Text),
        };
        decoded.map_err(sqlx::Error::Decode)
    };
    (0..row.len()).map(cell).collect()
}
