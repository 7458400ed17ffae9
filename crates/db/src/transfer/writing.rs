use super::{
    Columns, Sum,
    cell::{Cell, Kind},
    reading,
};
use crate::{Db, Error, Result, engine::Engine, writer::Whole};
use sqlx::{
    AssertSqlSafe, PgConnection, Postgres, SqliteConnection, Transaction, postgres::PgCopyIn,
};
use std::fmt::Write;

/// One transaction that everything arrives in.
pub enum Writing {
    Postgres {
        tx: Transaction<'static, Postgres>,
        /// What puts the references back.
        references: Vec<String>,
    },
    Sqlite(Whole),
}

const REFERENCES: &str = "
    select format('alter table %s drop constraint %I', conrelid::regclass, conname),
           format('alter table %s add constraint %I %s', conrelid::regclass, conname, pg_get_constraintdef(oid))
    from pg_constraint
    where contype = 'f' and connamespace = current_schema()::regnamespace and conparentid = 0
    order by conrelid, conname";

/// Numbers that PostgreSQL gives out go on where the copied ones end.
const SEQUENCES: &str = "
    select format('select setval(%L, coalesce((select max(%I) from %I), 0) + 1, false)',
                  pg_get_serial_sequence(quote_ident(table_name), column_name), column_name, table_name)
    from information_schema.columns
    where table_schema = current_schema()
      and pg_get_serial_sequence(quote_ident(table_name), column_name) is not null";

impl Writing {
    pub async fn begin(db: &Db) -> Result<Self> {
        match &db.engine {
            Engine::Postgres { pool, .. } => {
                let mut tx = pool.begin().await?;
                let all: Vec<(String, String)> =
                    sqlx::query_as(REFERENCES).fetch_all(&mut *tx).await?;
                let (off, on): (Vec<_>, Vec<_>) = all.into_iter().unzip();
                let mut writing = Self::Postgres { tx, references: on };
                for statement in off {
                    writing.say(&statement).await?;
                }
                Ok(writing)
            }
            Engine::Sqlite { writer, .. } => {
                let mut writing = Self::Sqlite(writer.alone().await?.whole().await?);
                writing.say("pragma defer_foreign_keys = on").await?;
                Ok(writing)
            }
        }
    }

    pub async fn say(&mut self, sql: &str) -> Result<()> {
        let query = AssertSqlSafe(sql.to_owned());
        match self {
            Self::Postgres { tx, .. } => {
                sqlx::query(query).execute(&mut **tx).await.map(drop)?;
            }
            Self::Sqlite(whole) => sqlx::query(query).execute(whole.conn()?).await.map(drop)?,
        }
        Ok(())
    }

    pub async fn sink(&mut self, table: &str, columns: &Columns) -> Result<Sink<'_>> {
        let names: Vec<_> = columns
            .iter()
            .map(|(name, _)| format!("\"{name}\""))
            .collect();
        let names = names.join(", ");
        Ok(match self {
            Self::Postgres { tx, .. } => Sink::Postgres {
                copy: tx
                    .copy_in_raw(&format!("copy \"{table}\" ({names}) from stdin"))
                    .await?,
                kinds: columns.iter().map(|(_, kind)| *kind).collect(),
                lines: String::new(),
            },
            Self::Sqlite(whole) => {
                let places: Vec<_> = (1..=columns.len()).map(|n| format!("${n}")).collect();
                Sink::Sqlite {
                    conn: whole.conn()?,
                    insert: format!(
                        "insert into \"{table}\" ({names}) values ({})",
                        places.join(", ")
                    ),
                }
            }
        })
    }

    /// What is there now.
    pub async fn sum(&mut self, table: &str, columns: &Columns) -> Result<Sum> {
        let rows = match self {
            Self::Postgres { tx, .. } => reading::of_postgres(tx, table, columns),
            Self::Sqlite(whole) => reading::of_sqlite(whole.conn()?, table, columns),
        };
        reading::sum(rows, table, columns).await
    }

    pub async fn commit(mut self) -> Result<()> {
        if let Self::Postgres { tx, references } = &mut self {
            let mut last = std::mem::take(references);
            let sequences: Vec<String> = sqlx::query_scalar(SEQUENCES).fetch_all(&mut **tx).await?;
            last.extend(sequences);
            for statement in last {
                self.say(&statement).await?;
            }
        }
        match self {
            Self::Postgres { tx, .. } => tx.commit().await?,
            Self::Sqlite(whole) => whole.commit().await?,
        }
        Ok(())
    }
}

/// Where a table's rows go.
pub enum Sink<'a> {
    Postgres {
        copy: PgCopyIn<&'a mut PgConnection>,
        kinds: Vec<Kind>,
        lines: String,
    },
    Sqlite {
        conn: &'a mut SqliteConnection,
        insert: String,
    },
}

const CHUNK: usize = 256 * 1024;

impl Sink<'_> {
    pub async fn write(&mut self, row: &[Cell]) -> Result<()> {
        match self {
            Self::Postgres { copy, kinds, lines } => {
                for (i, (cell, kind)) in row.iter().zip(kinds.iter()).enumerate() {
                    if i > 0 {
                        lines.push('\t');
                    }
                    write_cell(lines, cell, *kind)?;
                }
                lines.push('\n');
                if lines.len() > CHUNK {
                    copy.send(std::mem::take(lines).into_bytes()).await?;
                }
            }
            Self::Sqlite { conn, insert } => {
                let mut query = sqlx::query(AssertSqlSafe(insert.clone()));
                for cell in row {
                    query = match cell {
                        Cell::Null => query.bind(None::<i64>),
                        Cell::Int(n) => query.bind(n),
                        Cell::Real(x) => query.bind(x),
                        Cell::Text(text) => query.bind(text),
                        Cell::Bytes(bytes) => query.bind(bytes),
                    };
                }
                query.execute(&mut **conn).await?;
            }
        }
        Ok(())
    }

    pub async fn finish(self) -> Result<()> {
        if let Self::Postgres {
            mut copy, lines, ..
        } = self
        {
            copy.send(lines.into_bytes()).await?;
            copy.finish().await?;
        }
        Ok(())
    }
}

/// In the text form of COPY (https://www.postgresql.org/docs/15/sql-copy.html, File Formats).
fn write_cell(line: &mut String, cell: &Cell, kind: Kind) -> Result<()> {
    let written = match (cell, kind) {
        (Cell::Null, _) => write!(line, "\\N"),
        (Cell::Int(n), Kind::Bool) => write!(line, "{}", *n != 0),
        (Cell::Int(micros), Kind::Time) => match chrono::DateTime::from_timestamp_micros(*micros) {
            Some(at) => write!(line, "{}", at.format("%Y-%m-%d %H:%M:%S%.6f+00")),
            None => return Err(Error::Refused(format!("{micros} is no time"))),
        },
        (Cell::Int(n), _) => write!(line, "{n}"),
        (Cell::Real(x), _) => write!(line, "{x}"),
        (Cell::Bytes(bytes), kind) => {
            if kind != Kind::Uuid {
                line.push_str("\\\\x");
            }
            bytes.iter().try_for_each(|byte| write!(line, "{byte:02x}"))
        }
        (Cell::Text(text), _) => {
            for c in text.chars() {
                match c {
                    '\\' => line.push_str("\\\\"),
                    '\t' => line.push_str("\\t"),
                    '\n' => line.push_str("\\n"),
                    '\r' => line.push_str("\\r"),
                    c => line.push(c),
                }
            }
            Ok(())
        }
    };
    written.map_err(|_| Error::Refused("a value cannot be written".into()))
}
