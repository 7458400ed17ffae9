//! Webhook events as they arrived: verified, committed, then answered 200.
use crate::{jobs, prelude::*};

pub(crate) mod together;

row! {
    /// One event.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Event {
        pub id: Uuid,
        pub provider: String,
        pub mode: String,
        pub external_id: String,
        pub kind: String,
        pub subject: String,
        pub occurred_at: Timestamp,
        pub received_at: Timestamp,
        pub body: Vec<u8>,
        pub status: String,
        pub reason: Option<String>,
    }
}

row! {
    /// An event without its body, for lists.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Headline {
        pub id: Uuid,
        pub provider: String,
        pub mode: String,
        pub external_id: String,
        pub kind: String,
        pub subject: String,
        pub occurred_at: Timestamp,
        pub received_at: Timestamp,
        pub status: String,
        pub reason: Option<String>,
    }
}

/// An event that was verified and read.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    /// `stripe` or `revenuecat`.
    pub provider: &'a str,
    /// `live` or `test`.
    pub mode: &'a str,
    /// The provider's id: the same id is the same event.
    pub external_id: &'a str,
    /// The provider's word.
    pub kind: &'a str,
    /// Which API version shaped the body.
    pub api_version: Option<&'a str>,
    /// Events of one subject are applied one at a time.
    pub subject: &'a str,
    /// When it happened, says the provider.
    pub occurred_at: Timestamp,
    /// Which of the configured secrets matched.
    pub key_index: i64,
    /// Exactly what was signed.
    pub body: &'a [u8],
}

sql! {
    /// The event of this id.
    pub fn by_id(db: &Db, id: Uuid) -> Option<Event> {
        "select {columns} from webhook_events where id = $id"
    }

    /// The event that the provider knows by this id.
    pub fn by_external_id(db: &Db, provider: &str, mode: &str, external_id: &str) -> Option<Event> {
        "select {columns} from webhook_events where provider = $provider and mode = $mode and external_id = $external_id"
    }

    /// The newest events, newest first.
    pub fn newest(db: &Db, limit: i64) -> Vec<Headline> {
        "select {columns} from webhook_events order by id desc limit $limit"
    }

    /// The newest events of one status, newest first.
    pub fn newest_of_status(db: &Db, status: &str, limit: i64) -> Vec<Headline> {
        "select {columns} from webhook_events where status = $status order by received_at desc limit $limit"
    }

    fn reopen(tx: &mut Tx, id: Uuid) -> Option<(String,)> {
        "update webhook_events set status = 'received', reason = null, processed_at = null where id = $id returning subject"
    }

    fn reopen_dead(tx: &mut Tx) -> u64 {
        "update webhook_events set status = 'received', reason = null, processed_at = null where status = 'dead'"
    }

    /// Notes what became of it.
    pub fn settle(tx: &mut Tx, id: Uuid, status: &str, reason: Option<&str>, now: Timestamp) {
        "update webhook_events set status = $status, reason = $reason, processed_at = $now where id = $id"
    }
}

/// The job kind that applies an event; its payload is `{"event": id}`.
pub const APPLY: &str = "apply_webhook";

/// Keeps an event with the job that will apply it, and returns once both are on disk. `false`: it was here before.
pub async fn ingest(db: &Db, arrival: Arrival<'_>, now: Timestamp) -> Result<bool> {
    let fresh = together::ingest(db, &arrival, now).await?;
    if fresh {
        db.bell.ring();
    }
    Ok(fresh)
}

/// Has an event applied once more, whatever became of it. `false` when there is none of this id.
pub async fn replay(db: &Db, id: Uuid, now: Timestamp) -> Result<bool> {
    let mut tx = db.begin().await?;
    let Some((subject,)) = reopen(&mut tx, id).await? else {
        return Ok(false);
    };
    let job = jobs::NewJob {
        kind: APPLY,
        subject: Some(&subject),
        payload: serde_json::json!({"event": id}),
        dedupe_key: None,
        due_at: now,
    };
    jobs::enqueue(&mut tx, job, now).await?;
    tx.commit().await?;
    Ok(true)
}

/// Gives every event that could not be applied its attempts back. Returns how many there were.
pub async fn retry_dead(db: &Db, now: Timestamp) -> Result<u64> {
    let mut tx = db.begin().await?;
    let events = reopen_dead(&mut tx).await?;
    jobs::revive(&mut tx, APPLY, now).await?;
    tx.commit().await?;
    Ok(events)
}
