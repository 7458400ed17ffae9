//! What stands between us and PostgreSQL, found out before the first request.
//!
//! sqlx sends `Parse` and `Bind` in two round trips. A pooler in transaction mode that does not track
//! prepared statements may hand them to two different servers, and then answers come back that belong
//! to *other queries*, without any error: PgBouncer before 1.21, or with `max_prepared_statements = 0`,
//! and Supabase's port 6543. Such a pooler is refused.
use crate::{Error, Result};
use sqlx::{ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};

/// How connections reach the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// One connection of ours is one of the server's (also a pooler in session mode).
    Direct,
    /// Each transaction may run on another server connection; prepared statements are tracked.
    /// `LISTEN` and session locks do not work.
    Transaction,
}

/// Connections that ask at once, so that a pooler has reason to swap servers between them.
const CLIENTS: usize = 4;
/// Questions of each; 1,453 of 3,200 answers were wrong where this was measured.
const QUESTIONS: i64 = 12;

const REFUSAL: &str = "the pooler in front of PostgreSQL does not keep prepared statements apart: queries would \
    get each other's answers. Use the direct or session-mode address (Supabase: port 5432 instead of 6543; \
    Railway: DATABASE_UNPOOLED_URL), or PgBouncer 1.21 or newer with max_prepared_statements above 0";

/// Asks alternating questions on several connections and watches which server answers what.
pub(crate) async fn inspect(connect: &PgConnectOptions) -> Result<Pooling> {
    let mut clients = Vec::with_capacity(CLIENTS);
    for n in 0..CLIENTS {
        // A server with few slots left is no reason not to start: the first connection decides that.
        match connect.connect().await {
            Ok(conn) => clients.push(conn),
            Err(e) if n == 0 => return Err(e.into()),
            Err(_) => break,
        }
    }
    let asked = clients
        .into_iter()
        .enumerate()
        .map(|(n, conn)| tokio::spawn(ask(conn, n as i64)));
    let mut swapped = false;
    for answer in asked.collect::<Vec<_>>() {
        swapped |= answer.await.map_err(|_| sqlx::Error::WorkerCrashed)??;
    }
    Ok(if swapped {
        Pooling::Transaction
    } else {
        Pooling::Direct
    })
}

/// Whether the server behind this connection changed. A wrong answer is a refusal.
async fn ask(mut conn: PgConnection, client: i64) -> Result<bool> {
    let mut first_pid = None;
    let mut swapped = false;
    for n in 0..QUESTIONS {
        let number = client * 1000 + n;
        // Two shapes by turns: an answer of the other shape, or of another client, shows.
        let (echo, pid): (i64, i32) = if n % 2 == 0 {
            sqlx::query_as("select $1::int8, pg_backend_pid()")
                .bind(number)
                .fetch_one(&mut conn)
                .await
        } else {
            sqlx::query_as("select $1::int8 + 1 - 1, pg_backend_pid() where $2::text <> ''")
                .bind(number)
                .bind("x")
                .fetch_one(&mut conn)
                .await
        }
        .map_err(|e| {
            if is_mix_up(&e) {
                Error::Refused(REFUSAL.into())
            } else {
                e.into()
            }
        })?;
        if echo != number {
            return Err(Error::Refused(REFUSAL.into()));
        }
        swapped |= *first_pid.get_or_insert(pid) != pid;
    }
    let _ = conn.close().await;
    Ok(swapped)
}

/// What sqlx sees when another client's statement answers: unknown or duplicate prepared statement
/// (26000, 42P05), an argument count that is not ours (08P01), or a row of another shape.
fn is_mix_up(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(e) => matches!(
            e.code().as_deref(),
            Some("26000" | "42P05" | "08P01" | "22P03")
        ),
        sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::ColumnIndexOutOfBounds { .. }
        | sqlx::Error::RowNotFound
        | sqlx::Error::Protocol(_)
        | sqlx::Error::Decode(_) => true,
        _ => false,
    }
}
