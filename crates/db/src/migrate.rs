//! One history of migrations for both engines.
//!
//! A migration is written once, in PostgreSQL's words. SQLite knows fewer types, so on the way there
//! each type word is replaced by the one it stores, and every table becomes `strict`. A migration that
//! must differ has two files, `0007_name.sqlite.up.sql` and `0007_name.postgres.up.sql`.
use crate::{Db, Error, Result, engine::Engine};
use sqlx::{
    AssertSqlSafe, Connection, SqlSafeStr,
    migrate::{Migrate, MigrateError, Migration, Migrator},
};
use std::borrow::Cow;

static WRITTEN: Migrator = sqlx::migrate!("../../migrations");

/// How long one instance waits for another that migrates.
const LOCK_TIMEOUT: &str = "set local lock_timeout = '60s'";
/// Any number, the same in every instance; an `xact` lock is safe behind every pooler.
const LOCK: &str = "select pg_advisory_xact_lock(7305809)";
/// Migrating may rightly take longer than a request's statement.
const NO_STATEMENT_TIMEOUT: &str = "set local statement_timeout = 0";

/// What SQLite stores for each type that it has no word for.
const TYPES: [(&str, &str); 6] = [
    ("uuid", "blob"),
    ("bytea", "blob"),
    ("jsonb", "text"),
    ("timestamptz", "integer"),
    ("bigint", "integer"),
    ("boolean", "integer"),
];

/// One migration of the history, and whether this database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The number its file begins with.
    pub version: i64,
    /// The rest of the file's name.
    pub description: String,
    /// Whether the database has it.
    pub applied: bool,
}

/// Runs `$body` with the connection of a transaction that no other instance can run beside it.
macro_rules! locked {
    ($db:ident, |$conn:ident| $body:expr) => {
        match &$db.engine {
            Engine::Postgres { pool, .. } => {
                let mut $conn = pool.begin().await?;
                for statement in [LOCK_TIMEOUT, NO_STATEMENT_TIMEOUT, LOCK] {
                    sqlx::query(statement).execute(&mut *$conn).await?;
                }
                let done = $body.map_err(explain)?;
                $conn.commit().await?;
                done
            }
            Engine::Sqlite { writer, .. } => {
                let mut alone = writer.alone().await?;
                let mut $conn = alone.conn().begin_with("begin immediate").await?;
                let done = $body.map_err(explain)?;
                $conn.commit().await?;
                done
            }
        }
    };
}

impl Db {
    /// Brings the schema up to date, in one transaction under a lock: instances that start together
    /// run it once, and one that dies half-way leaves nothing behind. A database that was migrated
    /// by other files is refused, with what to do.
    pub async fn migrate(&self) -> Result<()> {
        let migrator = self.migrator();
        locked!(self, |conn| migrator
            .run_direct(None, &mut *conn, false)
            .await);
        Ok(())
    }

    /// Takes back the newest `steps` migrations, under the same lock.
    pub async fn revert(&self, steps: usize) -> Result<()> {
        let applied: Vec<_> = self
            .migrations()
            .await?
            .into_iter()
            .filter(|m| m.applied)
            .collect();
        let keep = applied.len().saturating_sub(steps);
        let target = keep
            .checked_sub(1)
            .map_or(0, |newest| applied[newest].version);
        let migrator = self.migrator();
        locked!(self, |conn| migrator.undo(&mut *conn, target).await);
        Ok(())
    }

    /// The whole history, oldest first, with what this database has of it.
    pub async fn migrations(&self) -> Result<Vec<Applied>> {
        let migrator = self.migrator();
        let applied = locked!(self, |conn| applied(&migrator, &mut *conn).await);
        let ups = migrator
            .iter()
            .filter(|m| m.migration_type.is_up_migration());
        Ok(ups
            .map(|m| Applied {
                version: m.version,
                description: m.description.to_string(),
                applied: applied.contains(&m.version),
            })
            .collect())
    }

    fn migrator(&self) -> Migrator {
        history(self.is_sqlite())
    }
}

/// The files that are meant for this engine.
pub(crate) fn history(sqlite: bool) -> Migrator {
    let (own, other) = if sqlite {
        (".sqlite", ".postgres")
    } else {
        (".postgres", ".sqlite")
    };
    let files = WRITTEN
        .iter()
        .filter(|m| !m.description.ends_with(other))
        .map(|m| {
            let sql = if sqlite {
                in_sqlite_words(m.sql.as_str())
            } else {
                m.sql.as_str().to_owned()
            };
            let description = m
                .description
                .strip_suffix(own)
                .unwrap_or(&m.description)
                .to_owned();
            Migration::new(
                m.version,
                Cow::Owned(description),
                m.migration_type,
                AssertSqlSafe(sql).into_sql_str(),
                m.no_tx,
            )
        });
    let mut migrator = Migrator::with_migrations(files.collect());
    // Ours is held by the transaction; sqlx's is held by the session, which a pooler may swap.
    migrator.set_locking(false);
    migrator
}

async fn applied<C: Migrate>(migrator: &Migrator, conn: &mut C) -> Result<Vec<i64>, MigrateError> {
    conn.ensure_migrations_table(&migrator.table_name).await?;
    let rows = conn.list_applied_migrations(&migrator.table_name).await?;
    Ok(rows.into_iter().map(|row| row.version).collect())
}

/// Replaces type words, outside of quotes and comments, and closes each table as `strict`.
fn in_sqlite_words(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len());
    for line in sql.lines() {
        let (code, comment) = line.split_at(line.find("--").unwrap_or(line.len()));
        for (i, quoted_or_not) in code.split('\'').enumerate() {
            if i > 0 {
                out.push('\'');
            }
            if i % 2 == 1 {
                out.push_str(quoted_or_not);
                continue;
            }
            for word in
                quoted_or_not.split_inclusive(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            {
                let bare = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                let known = TYPES.iter().find(|(postgres, _)| *postgres == bare);
                out.push_str(known.map_or(bare, |(_, sqlite)| sqlite));
                out.push_str(&word[bare.len()..]);
            }
        }
        if code == ");" {
            out.truncate(out.len() - 1);
            out.push_str(" strict;");
        }
        out.push_str(comment);
        out.push('\n');
    }
    out
}

fn explain(error: MigrateError) -> Error {
    Error::Refused(match error {
        MigrateError::Execute(source) => return Error::Connection(source),
        MigrateError::VersionMismatch(version) => format!(
            "migration {version} was changed after this database had run it. Put its file back as it was and write the change as a new migration"
        ),
        MigrateError::VersionMissing(version) => format!(
            "this database has migration {version}, which this version of Plinth does not know: it was migrated by a newer one. Deploy that version, or take the migration back with it (`plinth migrate down 1`)"
        ),
        MigrateError::Dirty(version) => format!(
            "migration {version} was left half-applied. Undo by hand what it did, delete its row from _sqlx_migrations, and start again"
        ),
        MigrateError::ExecuteMigration(source, version) => {
            format!("migration {version} failed and was taken back whole: {source}")
        }
        other => other.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the version before, which still serves while this one migrates, would stumble over.
    fn breaks(sql: &str) -> Vec<String> {
        let code: Vec<_> = sql
            .lines()
            .map(|line| line.split("--").next().unwrap_or_default().to_lowercase())
            .collect();
        let statements = code.join(" ");
        let statements = statements
            .split(';')
            .map(|one| one.split_whitespace().collect::<Vec<_>>().join(" "));
        let breaking = |one: &String| {
            let made = one.starts_with("create table");
            let has = |words: &str| one.contains(words);
            !made
                && ([
                    "drop table",
                    "drop column",
                    "rename",
                    "set not null",
                    " type ",
                ]
                .iter()
                .any(|words| has(words))
                    || (has("add column") && has("not null") && !has("default")))
        };
        statements.filter(breaking).collect()
    }

    #[test]
    fn a_migration_leaves_the_version_before_working_or_says_why_not() {
        // Those up to here were written before anyone could have both running.
        const FIRST: i64 = 62;
        let ups = WRITTEN
            .iter()
            .filter(|m| m.version >= FIRST && m.migration_type.is_up_migration());
        for migration in ups {
            let sql = migration.sql.as_str();
            let reason = sql
                .lines()
                .find_map(|line| line.strip_prefix("-- breaking: "));
            assert!(
                reason.is_some() || breaks(sql).is_empty(),
                "{:04}_{}: {:?}. Expand first and contract in a later release, or write `-- breaking: ` and why",
                migration.version,
                migration.description,
                breaks(sql)
            );
        }
    }

    #[test]
    fn what_breaks_is_told_from_what_adds() {
        for sql in [
            "drop table t;",
            "alter table t\n    drop column c;",
            "alter table t rename to u;",
            "alter table t alter column c type bigint;",
            "alter table t alter column c set not null;",
            "alter table t add column c text not null;",
        ] {
            assert_eq!(breaks(sql).len(), 1, "{sql}");
        }
        for sql in [
            "create table t (id uuid not null, type text not null);",
            "alter table t add column c text;",
            "alter table t add column c bigint not null default 0;",
            "create index t_c on t (c); -- drop table t",
            "alter table t drop constraint t_c;",
        ] {
            assert_eq!(breaks(sql), Vec::<String>::new(), "{sql}");
        }
    }

    #[test]
    fn type_words_are_replaced_outside_of_quotes_and_comments_alone() {
        let sql = "create table t ( -- a uuid\n    id uuid not null,\n    uuid_like text check (uuid_like in ('uuid', 'bigint'))\n);\n";
        assert_eq!(
            in_sqlite_words(sql),
            "create table t ( -- a uuid\n    id blob not null,\n    uuid_like text check (uuid_like in ('uuid', 'bigint'))\n) strict;\n"
        );
    }

    #[test]
    fn every_migration_runs_inside_a_transaction_and_can_be_taken_back() {
        for migration in WRITTEN.iter() {
            assert!(
                !migration.no_tx,
                "{} leaves the transaction",
                migration.version
            );
            let downs = WRITTEN
                .iter()
                .filter(|m| m.version == migration.version && m.migration_type.is_down_migration());
            assert!(downs.count() > 0, "{} has no way back", migration.version);
        }
    }
}
