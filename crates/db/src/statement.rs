//! A declared statement and one call of it.
use crate::{
    Db, Error, Result, Tx,
    check::Decode,
    engine::{Engine, Open},
    postgres::{Session, Talk, within},
};
use sqlx::{
    Arguments, Encode, FromRow, PgPool, Postgres, Sqlite, SqliteConnection, SqlitePool, Type,
    postgres::{PgArguments, PgRow},
    sqlite::{SqliteArguments, SqliteRow},
};
use std::time::Duration;

/// Exactly one row, for tuples that have no name of their own.
pub type One<T> = T;

/// What `sql!` makes of one function.
pub struct Statement {
    pub(crate) name: &'static str,
    pub(crate) postgres: &'static str,
    pub(crate) sqlite: &'static str,
    /// Declared with `&Db`: it runs on a connection that cannot write.
    pub(crate) reads: bool,
    pub(crate) params: fn() -> (Vec<sqlx::postgres::PgTypeInfo>, usize),
    pub(crate) decode: Decode,
}

pub(crate) struct Registered(pub &'static Statement);
inventory::collect!(Registered);

/// The names of a row's columns, for `{columns}`.
pub trait Columns {
    #[doc(hidden)]
    const COLUMNS: &'static [&'static str];
}

macro_rules! no_columns {
    ($(($($t:ident),*))*) => {$(
        impl<$($t),*> Columns for ($($t,)*) { const COLUMNS: &'static [&'static str] = &[]; }
    )*};
}
no_columns! { (A) (A, B) (A, B, C) (A, B, C, D) }

/// What both engines can bind.
pub(crate) trait Param<'q>:
    Encode<'q, Postgres> + Type<Postgres> + Encode<'q, Sqlite> + Type<Sqlite>
{
}
impl<'q, T: Encode<'q, Postgres> + Type<Postgres> + Encode<'q, Sqlite> + Type<Sqlite>> Param<'q>
    for T
{
}

/// What both engines can read.
pub(crate) trait Row:
    for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow> + Send + Unpin
{
}
impl<T: for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow> + Send + Unpin> Row for T {}

/// A connection to run on, with the arguments bound so far.
enum Target<'c> {
    PgPool(&'c PgPool, Duration, PgArguments),
    Pg(&'c mut Session, PgArguments),
    SqlitePool(&'c SqlitePool, SqliteArguments),
    Sqlite(&'c mut SqliteConnection, SqliteArguments),
}

pub(crate) struct Call<'c> {
    statement: &'static Statement,
    target: sqlx::Result<Target<'c>>,
}

impl Statement {
    pub(crate) fn on_db<'c>(&'static self, db: &'c Db) -> Call<'c> {
        let target = match &db.engine {
            Engine::Postgres { pool, patience, .. } => {
                Target::PgPool(pool, *patience, PgArguments::default())
            }
            Engine::Sqlite { read, .. } => Target::SqlitePool(read, SqliteArguments::default()),
        };
        Call {
            statement: self,
            target: Ok(target),
        }
    }

    pub(crate) fn on_tx<'c>(&'static self, tx: &'c mut Tx) -> Call<'c> {
        let target = match &mut tx.open {
            Open::Postgres(tx) => Ok(Target::Pg(tx, PgArguments::default())),
            Open::Sqlite(work) => work
                .conn()
                .map(|conn| Target::Sqlite(conn, SqliteArguments::default())),
        };
        Call {
            statement: self,
            target,
        }
    }
}

/// Says one thing to PostgreSQL.
macro_rules! said {
    ($session:ident, |$conn:ident| $body:expr) => {
        match $session.talk() {
            Err(error) => Err(error),
            Ok(Talk {
                patience,
                conn: $conn,
            }) => {
                let answer = within(patience, async { $body }).await;
                $session.heard(answer)
            }
        }
    };
}

/// Runs `$body` with the query and the connection of whichever engine the call is for.
macro_rules! on_engine {
    ($call:ident, $make:ident, |$query:ident, $conn:ident| $body:expr) => {{
        let Call { statement, target } = $call;
        let done = match target {
            Err(error) => Err(error),
            Ok(Target::PgPool(pool, patience, args)) => {
                let $query = sqlx::$make(statement.postgres, args);
                match Session::open(pool, patience).await {
                    Ok(mut session) => said!(session, |$conn| $body),
                    Err(error) => Err(error),
                }
            }
            Ok(Target::Pg(session, args)) => {
                let $query = sqlx::$make(statement.postgres, args);
                said!(session, |$conn| $body)
            }
            Ok(Target::SqlitePool($conn, args)) => {
                let $query = sqlx::$make(statement.sqlite, args);
                $body
            }
            Ok(Target::Sqlite($conn, args)) => {
                let $query = sqlx::$make(statement.sqlite, args);
                $body
            }
        };
        done.map_err(|source| Error::Statement {
            statement: statement.name,
            source,
        })
    }};
}

impl Call<'_> {
    pub(crate) fn bind<'q>(mut self, value: impl Param<'q>) -> Self {
        let added = match &mut self.target {
            Ok(Target::PgPool(_, _, args) | Target::Pg(_, args)) => args.add(value),
            Ok(Target::SqlitePool(_, args) | Target::Sqlite(_, args)) => args.add(value),
            Err(_) => Ok(()),
        };
        if let Err(error) = added {
            self.target = Err(sqlx::Error::Encode(error));
        }
        self
    }

    pub(crate) async fn optional<R: Row>(self) -> Result<Option<R>> {
        on_engine!(self, query_as_with, |query, conn| query
            .fetch_optional(conn)
            .await)
    }

    pub(crate) async fn one<R: Row>(self) -> Result<R> {
        on_engine!(self, query_as_with, |query, conn| query
            .fetch_one(conn)
            .await)
    }

    pub(crate) async fn all<R: Row>(self) -> Result<Vec<R>> {
        on_engine!(self, query_as_with, |query, conn| query
            .fetch_all(conn)
            .await)
    }

    pub(crate) async fn affected(self) -> Result<u64> {
        on_engine!(self, query_with, |query, conn| query
            .execute(conn)
            .await
            .map(|done| done.rows_affected()))
    }
}

// ---- the text of a statement, worked out while compiling ----

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Dialect {
    Postgres,
    Sqlite,
}

const fn starts_with(text: &[u8], at: usize, prefix: &[u8]) -> bool {
    let mut i = 0;
    while i < prefix.len() {
        if at + i >= text.len() || text[at + i] != prefix[i] {
            return false;
        }
        i += 1;
    }
    true
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// What grows while a statement is expanded; with `N` = 0 it only counts.
struct Out<const N: usize> {
    bytes: [u8; N],
    len: usize,
    mute: bool,
}

impl<const N: usize> Out<N> {
    const fn push(&mut self, byte: u8) {
        if self.mute {
            return;
        }
        if N > 0 {
            self.bytes[self.len] = byte;
        }
        self.len += 1;
    }

    const fn push_all(&mut self, bytes: &[u8]) {
        let mut i = 0;
        while i < bytes.len() {
            self.push(bytes[i]);
            i += 1;
        }
    }

    const fn push_placeholder(&mut self, index: usize) {
        self.push(b'$');
        if index >= 10 {
            self.push(b'0' + (index / 10) as u8);
        }
        self.push(b'0' + (index % 10) as u8);
    }
}

/// Turns `$name` into `$1`, fills in `{columns}`, keeps the parts of this dialect, folds white space.
pub(crate) const fn expand<const N: usize>(
    text: &str,
    names: &[&str],
    columns: &[&str],
    dialect: Dialect,
) -> ([u8; N], usize) {
    let text = text.as_bytes();
    let mut out = Out::<N> {
        bytes: [0; N],
        len: 0,
        mute: false,
    };
    let mut used = [false; 32];
    let mut i = 0;
    while i < text.len() {
        let byte = text[i];
        if byte == b'$' && i + 1 < text.len() && is_word(text[i + 1]) {
            let mut end = i + 1;
            while end < text.len() && is_word(text[end]) {
                end += 1;
            }
            let mut n = 0;
            loop {
                if n == names.len() {
                    panic!("the statement uses a $name that is no argument of the function");
                }
                let name = names[n].as_bytes();
                if name.len() == end - i - 1 && starts_with(text, i + 1, name) {
                    break;
                }
                n += 1;
            }
            used[n] = true;
            out.push_placeholder(n + 1);
            i = end;
        } else if starts_with(text, i, b"{columns}") {
            if columns.is_empty() {
                panic!("{{columns}} needs a function that returns a row!");
            }
            let mut c = 0;
            while c < columns.len() {
                if c > 0 {
                    out.push_all(b", ");
                }
                out.push_all(columns[c].as_bytes());
                c += 1;
            }
            i += b"{columns}".len();
        } else if starts_with(text, i, b"{postgres:") {
            out.mute = matches!(dialect, Dialect::Sqlite);
            i += b"{postgres:".len();
        } else if starts_with(text, i, b"{sqlite:") {
            out.mute = matches!(dialect, Dialect::Postgres);
            i += b"{sqlite:".len();
        } else if byte == b'}' {
            out.mute = false;
            i += 1;
        } else if byte == b' ' || byte == b'\n' {
            while i < text.len() && (text[i] == b' ' || text[i] == b'\n') {
                i += 1;
            }
            if i < text.len() {
                out.push(b' ');
            }
        } else {
            out.push(byte);
            i += 1;
        }
    }
    let mut n = 0;
    while n < names.len() {
        if !used[n] {
            panic!("an argument of the function is never used in its statement");
        }
        n += 1;
    }
    (out.bytes, out.len)
}
