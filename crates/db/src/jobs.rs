//! Side effects that wait to happen: written in the transaction that causes them, claimed under a
//! lease, one at a time for each subject.
use crate::{DatabaseUrl, Pooling, engine::Engine, pooler, prelude::*};
use sqlx::postgres::{PgListener, PgPoolOptions};

row! {
    /// A job under our lease.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Job {
        pub id: Uuid,
        pub kind: String,
        pub subject: Option<String>,
        pub payload: Json<Value>,
        /// Counts this one.
        pub attempts: i64,
        pub created_at: Timestamp,
    }
}

row! {
    /// How much waits, for metrics.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Backlog {
        pub kind: String,
        pub waiting: i64,
        pub oldest_due_at: Timestamp,
    }
}

sql! {
    fn insert(
        tx: &mut Tx, id: Uuid, kind: &str, subject: Option<&str>, payload: &Json<Value>, dedupe_key: Option<&str>,
        due_at: Timestamp, now: Timestamp,
    ) -> bool {
        "insert into jobs (id, kind, subject, payload, dedupe_key, due_at, attempts, created_at)
         values ($id, $kind, $subject, $payload, $dedupe_key, $due_at, 0, $now)
         on conflict (dedupe_key) do nothing"
    }

    /// Up to `n` due jobs, at most one for each subject and none of a subject at work elsewhere. The
    /// unique index on leased subjects decides the race that two instances can still run.
    fn lease(tx: &mut Tx, worker: &str, now: Timestamp, until: Timestamp, n: i64) -> Vec<Job> {
        "update jobs set lease_until = $until, worker = $worker, attempts = attempts + 1
         where id in (
             select id from jobs
             where done_at is null and dead_at is null and lease_until is null and due_at <= $now
               and not exists (
                 select 1 from jobs other
                 where other.subject = jobs.subject and other.done_at is null and other.dead_at is null
                   and (other.lease_until is not null
                        or (other.due_at <= $now and (other.due_at < jobs.due_at
                            or (other.due_at = jobs.due_at and other.id < jobs.id)))))
             order by due_at, id limit $n {postgres: for update skip locked})
         returning {columns}"
    }

    /// Takes back the leases of workers that are gone.
    fn expire_leases(tx: &mut Tx, now: Timestamp) -> u64 {
        "update jobs set lease_until = null, worker = null where lease_until is not null and lease_until <= $now"
    }

    /// Keeps a lease alive. `false` when it was lost: whoever works on must stop.
    pub fn extend(tx: &mut Tx, id: Uuid, worker: &str, until: Timestamp) -> bool {
        "update jobs set lease_until = $until where id = $id and worker = $worker and lease_until is not null"
    }

    /// It happened, and nothing of what it was about is kept: a mail held a code. `false` when the
    /// lease was lost meanwhile.
    pub fn finish(tx: &mut Tx, id: Uuid, worker: &str, now: Timestamp) -> bool {
        "update jobs set done_at = $now, lease_until = null, payload = 'null'
         where id = $id and worker = $worker and lease_until is not null"
    }

    /// It failed: once more at `due_at`.
    pub fn retry(tx: &mut Tx, id: Uuid, worker: &str, due_at: Timestamp, error: &str) -> bool {
        "update jobs set due_at = $due_at, error = $error, lease_until = null, worker = null
         where id = $id and worker = $worker and lease_until is not null"
    }

    /// It failed for good, and waits for a human.
    pub fn bury(tx: &mut Tx, id: Uuid, worker: &str, now: Timestamp, error: &str) -> bool {
        "update jobs set dead_at = $now, error = $error, lease_until = null
         where id = $id and worker = $worker and lease_until is not null"
    }

    fn revive_dead(tx: &mut Tx, kind: &str, now: Timestamp) -> u64 {
        "update jobs set dead_at = null, error = null, worker = null, attempts = 0, due_at = $now
         where dead_at is not null and kind = $kind"
    }

    /// Gives back what this worker holds, untouched: it shuts down.
    pub fn give_back(tx: &mut Tx, worker: &str) -> u64 {
        "update jobs set lease_until = null, worker = null, attempts = attempts - 1
         where worker = $worker and lease_until is not null"
    }

    fn next_due(db: &Db, now: Timestamp) -> Option<(Timestamp,)> {
        "select due_at from jobs
         where done_at is null and dead_at is null and lease_until is null and due_at > $now
         order by due_at limit 1"
    }

    /// What is due and not done, by kind.
    pub fn backlog(db: &Db, now: Timestamp) -> Vec<Backlog> {
        "select kind, count(*) as waiting, min(due_at) as oldest_due_at from jobs
         where done_at is null and dead_at is null and due_at <= $now group by kind"
    }

    /// How many are dead.
    pub fn count_dead(db: &Db) -> One<(i64,)> {
        "select count(*) from jobs where dead_at is not null"
    }

    /// The jobs of a kind that wait or are under way, oldest first.
    pub fn unfinished(db: &Db, kind: &str) -> Vec<Job> {
        "select {columns} from jobs where kind = $kind and done_at is null and dead_at is null order by id"
    }

    /// Forgets what was done before `before`.
    pub fn delete_done(tx: &mut Tx, before: Timestamp) -> u64 {
        "delete from jobs where done_at < $before"
    }
}

/// What is to happen.
#[derive(Debug, Clone)]
pub struct NewJob<'a> {
    /// Which handler.
    pub kind: &'a str,
    /// Jobs of one subject run one at a time, in the order they are due.
    pub subject: Option<&'a str>,
    /// For the handler.
    pub payload: Value,
    /// A second job of the same key is not made, for as long as the first is remembered.
    pub dedupe_key: Option<&'a str>,
    /// Not before.
    pub due_at: Timestamp,
}

/// Writes the job beside the change that causes it. `false` when its key is known. Workers, here and on other
/// instances, hear of it when the transaction commits.
pub async fn enqueue(tx: &mut Tx, new: NewJob<'_>, now: Timestamp) -> Result<bool> {
    let payload = Json(new.payload);
    let fresh = insert(
        tx,
        Uuid::now_v7(),
        new.kind,
        new.subject,
        &payload,
        new.dedupe_key,
        new.due_at,
        now,
    )
    .await?;
    tx.enqueued |= fresh;
    Ok(fresh)
}

/// Gives the dead jobs of a kind all their attempts back. Returns how many there were.
pub async fn revive(tx: &mut Tx, kind: &str, now: Timestamp) -> Result<u64> {
    let revived = revive_dead(tx, kind, now).await?;
    tx.enqueued = true;
    Ok(revived)
}

/// Leases up to `n` due jobs until `until`.
pub async fn claim(
    db: &Db,
    worker: &str,
    now: Timestamp,
    until: Timestamp,
    n: i64,
) -> Result<Vec<Job>> {
    let mut tx = db.begin().await?;
    expire_leases(&mut tx, now).await?;
    match lease(&mut tx, worker, now, until, n).await {
        Ok(jobs) => {
            tx.commit().await?;
            Ok(jobs)
        }
        // Another instance leased a job of the same subject in the same moment; it wakes us when it is done.
        Err(e) if e.is_unique_violation() => Ok(vec![]),
        Err(e) => Err(e),
    }
}

/// When the next job falls due. One that is due and still waits, waits for another of its subject,
/// whose end is heard of.
pub async fn next_due_at(db: &Db, now: Timestamp) -> Result<Option<Timestamp>> {
    Ok(next_due(db, now).await?.map(|(at,)| at))
}

impl Db {
    /// Has the workers of this process look for jobs now.
    pub fn wake_workers(&self) {
        self.bell.ring_here();
    }
}

/// Returns when a job was committed in this process since the last call.
pub async fn rung(db: &Db) {
    db.bell.rung().await;
}

/// Hears of jobs that other instances commit.
pub struct Listener(PgListener);

impl Listener {
    /// `None` where there is nothing to hear: SQLite has one instance, and `LISTEN` does not work through
    /// a pooler in transaction mode, unless `direct` leads past it. Polling covers both.
    pub async fn open(db: &Db, direct: &DatabaseUrl) -> Result<Option<Self>> {
        let mut listener = match (&db.engine, direct) {
            (Engine::Postgres { pool, pooling, .. }, _) if *pooling == Pooling::Direct => {
                PgListener::connect_with(pool).await?
            }
            (Engine::Postgres { .. }, DatabaseUrl::Postgres(url)) => {
                let alone = PgPoolOptions::new().max_connections(1);
                let pool = alone.connect(url.as_str()).await?;
                if pooler::inspect(&pool.connect_options()).await? != Pooling::Direct {
                    return Ok(None);
                }
                PgListener::connect_with(&pool).await?
            }
            _ => return Ok(None),
        };
        listener.listen("plinth_jobs").await?;
        Ok(Some(Self(listener)))
    }

    /// Returns when a job was committed somewhere. Reconnects by itself.
    pub async fn heard(&mut self) -> Result<()> {
        self.0.recv().await?;
        Ok(())
    }
}
