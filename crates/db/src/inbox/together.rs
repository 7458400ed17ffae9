//! Arrivals that wait together are written together, in as few statements as the engine allows and in
//! one commit.
//!
//! Whoever has the turn takes everything that waits, writes it, and tells each sender; while it waits
//! for the disk, the next ones gather. One sender alone sees no delay.
use super::{APPLY, Arrival};
use crate::{
    Db, Error, Result, Timestamp,
    engine::Engine,
    postgres::{Session, within},
};
use sqlx::{PgConnection, QueryBuilder, Sqlite, SqliteConnection};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Semaphore, oneshot};
use uuid::Uuid;

/// Statements under way at most, where there are several connections.
const STATEMENTS: usize = 6;
/// Bytes of one statement, as far as there is a choice.
const STATEMENT_BYTES: usize = 256 * 1024;
/// The same over TLS. sqlx leaves Nagle's algorithm on: what does not fit one record (16 KiB) waits
/// 40 ms for the acknowledgement of its first part.
const STATEMENT_BYTES_OVER_TLS: usize = 12 * 1024;
/// What an arrival adds to its body.
const OVERHEAD: usize = 400;

const INGEST_POSTGRES: &str = "
    with arrived as (
        insert into webhook_events (id, provider, mode, external_id, kind, api_version, subject, occurred_at,
                                    received_at, key_id, body, source, status)
        select *, 'received'
        from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
                    $8::timestamptz[], $9::timestamptz[], $10::text[], $11::bytea[], $12::text[])
        on conflict (provider, mode, external_id) do nothing
        returning id, subject, received_at
    ), queued as (
        insert into jobs (id, kind, subject, payload, due_at, attempts, created_at)
        select id, $13, subject, jsonb_build_object('event', id), received_at, 0, received_at from arrived
    )
    select id from arrived";

// SQLite has no `unnest`, and no `with` that writes: behind each comes a row an arrival.
const EVENTS_SQLITE: &str = "
    insert into webhook_events (id, provider, mode, external_id, kind, api_version, subject, occurred_at,
                                received_at, key_id, body, source, status) ";
const JOBS_SQLITE: &str =
    "insert into jobs (id, kind, subject, payload, due_at, attempts, created_at) ";

/// What waits to be written.
pub(crate) struct Arrivals {
    waiting: Mutex<Vec<Waiting>>,
    turns: Arc<Semaphore>,
    statement_bytes: usize,
}

struct Waiting {
    id: Uuid,
    provider: String,
    mode: String,
    external_id: String,
    kind: String,
    api_version: Option<String>,
    subject: String,
    occurred_at: Timestamp,
    received_at: Timestamp,
    key_id: Option<String>,
    body: Vec<u8>,
    source: String,
    written: oneshot::Sender<Result<bool>>,
}

pub(crate) async fn ingest(db: &Db, arrival: &Arrival<'_>, now: Timestamp) -> Result<bool> {
    let arrivals = &db.arrivals;
    let (written, mut told) = oneshot::channel();
    let waiting = Waiting {
        id: Uuid::now_v7(),
        provider: arrival.provider.into(),
        mode: arrival.mode.into(),
        external_id: arrival.external_id.into(),
        kind: arrival.kind.into(),
        api_version: arrival.api_version.map(Into::into),
        subject: arrival.subject.into(),
        occurred_at: arrival.occurred_at,
        received_at: now,
        key_id: arrival.key_id.map(Into::into),
        body: arrival.body.into(),
        source: arrival.source.into(),
        written,
    };
    arrivals.lock().push(waiting);
    let told = tokio::select! {
        biased;
        told = &mut told => told,
        turn = arrivals.turns.clone().acquire_owned() => {
            let db = db.clone();
            // On its own task: a sender who goes away takes no others with it.
            tokio::spawn(async move {
                db.arrivals.write(&db).await;
                drop(turn);
            });
            told.await
        }
    };
    told.unwrap_or(Err(Error::Connection(sqlx::Error::WorkerCrashed)))
}

impl Arrivals {
    /// For PostgreSQL's connections, which may be encrypted, or are known not to be.
    pub(crate) fn of_connections(maybe_tls: bool) -> Self {
        let statement_bytes = if maybe_tls {
            STATEMENT_BYTES_OVER_TLS
        } else {
            STATEMENT_BYTES
        };
        Self::new(STATEMENTS, statement_bytes)
    }

    /// For SQLite's one writer: a second turn would take its arrivals before it can write them.
    pub(crate) fn of_one_writer() -> Self {
        Self::new(1, STATEMENT_BYTES)
    }

    fn new(turns: usize, statement_bytes: usize) -> Self {
        Self {
            waiting: Mutex::default(),
            turns: Arc::new(Semaphore::new(turns)),
            statement_bytes,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes until nothing waits.
    async fn write(&self, db: &Db) {
        loop {
            let batch: Vec<_> = {
                let mut waiting = self.lock();
                let mut bytes = 0;
                let fits = |arrival: &&Waiting| {
                    bytes += arrival.body.len() + OVERHEAD;
                    bytes <= self.statement_bytes
                };
                let n = waiting
                    .iter()
                    .take_while(fits)
                    .count()
                    .max(1)
                    .min(waiting.len());
                waiting.drain(..n).collect()
            };
            if batch.is_empty() {
                return;
            }
            match insert(db, &batch).await {
                Ok(fresh) => {
                    for Waiting { id, written, .. } in batch {
                        let _ = written.send(Ok(fresh.contains(&id)));
                    }
                }
                Err(error) => {
                    let error = Arc::new(error);
                    for Waiting { written, .. } in batch {
                        let _ = written.send(Err(Error::Shared(error.clone())));
                    }
                }
            }
        }
    }
}

/// Writes them, and gives the ids of those that were not here before, once all that it saw is on disk.
async fn insert(db: &Db, batch: &[Waiting]) -> Result<Vec<Uuid>> {
    match &db.engine {
        Engine::Postgres { pool, patience, .. } => {
            let inserted = async {
                let mut session = Session::open(pool, *patience).await?;
                let talk = session.talk()?;
                let answer = within(talk.patience, insert_postgres(talk.conn, batch)).await;
                session.heard(answer)
            };
            inserted.await.map_err(failed)
        }
        Engine::Sqlite { writer, .. } => {
            let mut work = writer.begin().await?;
            let fresh = insert_sqlite(work.conn()?, batch).await.map_err(failed)?;
            // Also when nothing was fresh: the first of two may be written and not yet on disk.
            work.commit().await?;
            Ok(fresh)
        }
    }
}

fn failed(source: sqlx::Error) -> Error {
    Error::Statement {
        statement: "db::inbox::together::insert",
        source,
    }
}

async fn insert_postgres(conn: &mut PgConnection, batch: &[Waiting]) -> sqlx::Result<Vec<Uuid>> {
    let column = |get: fn(&Waiting) -> &str| batch.iter().map(get).collect::<Vec<_>>();
    sqlx::query_scalar(INGEST_POSTGRES)
        .bind(batch.iter().map(|w| w.id).collect::<Vec<_>>())
        .bind(column(|w| &w.provider))
        .bind(column(|w| &w.mode))
        .bind(column(|w| &w.external_id))
        .bind(column(|w| &w.kind))
        .bind(
            batch
                .iter()
                .map(|w| w.api_version.as_deref())
                .collect::<Vec<_>>(),
        )
        .bind(column(|w| &w.subject))
        .bind(batch.iter().map(|w| w.occurred_at).collect::<Vec<_>>())
        .bind(batch.iter().map(|w| w.received_at).collect::<Vec<_>>())
        .bind(
            batch
                .iter()
                .map(|w| w.key_id.as_deref())
                .collect::<Vec<_>>(),
        )
        .bind(batch.iter().map(|w| w.body.as_slice()).collect::<Vec<_>>())
        .bind(column(|w| &w.source))
        .bind(APPLY)
        .fetch_all(conn)
        .await
}

async fn insert_sqlite(conn: &mut SqliteConnection, batch: &[Waiting]) -> sqlx::Result<Vec<Uuid>> {
    let mut events = QueryBuilder::<Sqlite>::new(EVENTS_SQLITE);
    events.push_values(batch, |mut row, waiting| {
        row.push_bind(waiting.id)
            .push_bind(&waiting.provider)
            .push_bind(&waiting.mode)
            .push_bind(&waiting.external_id)
            .push_bind(&waiting.kind)
            .push_bind(&waiting.api_version)
            .push_bind(&waiting.subject)
            .push_bind(waiting.occurred_at)
            .push_bind(waiting.received_at)
            .push_bind(&waiting.key_id)
            .push_bind(waiting.body.as_slice())
            .push_bind(&waiting.source)
            .push("'received'");
    });
    events.push(" on conflict (provider, mode, external_id) do nothing returning id");
    // A text for each number of rows: kept, they would push out the statements that everyone asks for.
    let fresh: Vec<Uuid> = events
        .build_query_scalar()
        .persistent(false)
        .fetch_all(&mut *conn)
        .await?;
    if fresh.is_empty() {
        return Ok(fresh);
    }

    let mut jobs = QueryBuilder::<Sqlite>::new(JOBS_SQLITE);
    let arrived = batch.iter().filter(|waiting| fresh.contains(&waiting.id));
    jobs.push_values(arrived, |mut row, waiting| {
        row.push_bind(waiting.id)
            .push_bind(APPLY)
            .push_bind(&waiting.subject)
            .push_bind(serde_json::json!({"event": waiting.id}))
            .push_bind(waiting.received_at)
            .push("0")
            .push_bind(waiting.received_at);
    });
    jobs.build().persistent(false).execute(conn).await?;
    Ok(fresh)
}
