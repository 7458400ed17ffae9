//! PostgreSQL: arrivals that wait together are written together, in one statement and one commit.
//!
//! Whoever has the turn takes everything that waits, writes it, and tells each sender; while it waits
//! for the disk, the next ones gather. One sender alone sees no delay.
use super::{APPLY, Arrival};
use crate::{Error, Result, Timestamp};
use sqlx::PgPool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Semaphore, oneshot};
use uuid::Uuid;

/// Statements under way at most.
const STATEMENTS: usize = 6;
/// Bytes of one statement, as far as there is a choice.
const STATEMENT_BYTES: usize = 256 * 1024;
/// The same over TLS. sqlx leaves Nagle's algorithm on: what does not fit one record (16 KiB) waits
/// 40 ms for the acknowledgement of its first part.
const STATEMENT_BYTES_OVER_TLS: usize = 12 * 1024;
/// What an arrival adds to its body.
const OVERHEAD: usize = 400;

const INGEST: &str = "
    with arrived as (
        insert into webhook_events (id, provider, mode, external_id, kind, api_version, subject, occurred_at,
                                    received_at, key_index, body, status)
        select *, 'received'
        from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
                    $8::timestamptz[], $9::timestamptz[], $10::bigint[], $11::bytea[])
        on conflict (provider, mode, external_id) do nothing
        returning id, subject, received_at
    ), queued as (
        insert into jobs (id, kind, subject, payload, due_at, attempts, created_at)
        select id, $12, subject, jsonb_build_object('event', id), received_at, 0, received_at from arrived
    )
    select id from arrived";

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
    key_index: i64,
    body: Vec<u8>,
    written: oneshot::Sender<Result<bool>>,
}

pub(crate) async fn ingest(
    pool: &PgPool,
    arrivals: &Arc<Arrivals>,
    arrival: &Arrival<'_>,
    now: Timestamp,
) -> Result<bool> {
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
        key_index: arrival.key_index,
        body: arrival.body.into(),
        written,
    };
    arrivals.lock().push(waiting);
    let told = tokio::select! {
        biased;
        told = &mut told => told,
        turn = arrivals.turns.clone().acquire_owned() => {
            let (pool, arrivals) = (pool.clone(), arrivals.clone());
            // On its own task: a sender who goes away takes no others with it.
            tokio::spawn(async move {
                arrivals.write(&pool).await;
                drop(turn);
            });
            told.await
        }
    };
    told.unwrap_or(Err(Error::Connection(sqlx::Error::WorkerCrashed)))
}

impl Arrivals {
    /// For connections that may be encrypted, or are known not to be.
    pub(crate) fn new(maybe_tls: bool) -> Self {
        Self {
            waiting: Mutex::default(),
            turns: Arc::new(Semaphore::new(STATEMENTS)),
            statement_bytes: if maybe_tls {
                STATEMENT_BYTES_OVER_TLS
            } else {
                STATEMENT_BYTES
            },
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes until nothing waits.
    async fn write(&self, pool: &PgPool) {
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
            match insert(pool, &batch).await {
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

/// The ids of those that were not here before.
async fn insert(pool: &PgPool, batch: &[Waiting]) -> Result<Vec<Uuid>> {
    let column = |get: fn(&Waiting) -> &str| batch.iter().map(get).collect::<Vec<_>>();
    let rows: Vec<(Uuid,)> = sqlx::query_as(INGEST)
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
        .bind(batch.iter().map(|w| w.key_index).collect::<Vec<_>>())
        .bind(batch.iter().map(|w| w.body.as_slice()).collect::<Vec<_>>())
        .bind(APPLY)
        .fetch_all(pool)
        .await
        .map_err(|source| Error::Statement {
            statement: "db::inbox::together::insert",
            source,
        })?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}
