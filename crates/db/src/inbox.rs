//! Webhook events as they arrived: verified, committed, then answered 200.
use crate::{jobs, prelude::*};
use std::time::Duration;

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
        pub key_id: Option<String>,
        pub body: Vec<u8>,
        pub status: String,
        pub reason: Option<String>,
        pub processed_at: Option<Timestamp>,
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
        pub key_id: Option<String>,
        pub status: String,
        pub reason: Option<String>,
        pub processed_at: Option<Timestamp>,
    }
}

row! {
    /// How many events of a provider are in a status.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Count {
        pub provider: String,
        pub status: String,
        pub events: i64,
        pub oldest_received_at: Timestamp,
    }
}

row! {
    /// A secret that events came signed with.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Key {
        pub provider: String,
        pub key_id: String,
        /// Exact to five minutes.
        pub last_used_at: Timestamp,
    }
}

/// Which events are meant; what is `None` is any.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter<'a> {
    /// `stripe` or `revenuecat`.
    pub provider: Option<&'a str>,
    /// What became of them.
    pub status: Option<&'a str>,
    /// The provider's word.
    pub kind: Option<&'a str>,
    /// `stripe:cus_…` and the like.
    pub subject: Option<&'a str>,
    /// Received then or later.
    pub since: Option<Timestamp>,
    /// Received before.
    pub until: Option<Timestamp>,
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
    /// `hook`, or `poll` when nobody delivered it and it was found at the provider.
    pub source: &'a str,
    /// Which secret signed it; `None` of what was asked for.
    pub key_id: Option<&'a str>,
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

    fn matching(
        db: &Db, provider: Option<&str>, status: Option<&str>, kind: Option<&str>, subject: Option<&str>,
        since: Option<Timestamp>, until: Option<Timestamp>, before: Uuid, limit: i64,
    ) -> Vec<Headline> {
        "select {columns} from webhook_events
         where id < $before and ($provider is null or provider = $provider) and ($status is null or status = $status)
           and ($kind is null or kind = $kind) and ($subject is null or subject = $subject)
           and ($since is null or received_at >= $since) and ($until is null or received_at < $until)
         order by id desc limit $limit"
    }

    /// How many events there are, by provider and status.
    pub fn count(db: &Db) -> Vec<Count> {
        "select provider, status, count(*) as events, min(received_at) as oldest_received_at from webhook_events
         group by provider, status order by provider, status"
    }

    /// The secrets that events came signed with.
    pub fn keys(db: &Db) -> Vec<Key> {
        "select {columns} from webhook_keys order by provider, last_used_at desc"
    }

    fn key(tx: &mut Tx, provider: &str, key_id: &str) -> Option<Key> {
        "select {columns} from webhook_keys where provider = $provider and key_id = $key_id"
    }

    fn use_key(tx: &mut Tx, provider: &str, key_id: &str, at: Timestamp) {
        "insert into webhook_keys (provider, key_id, last_used_at) values ($provider, $key_id, $at)
         on conflict (provider, key_id) do update set last_used_at = excluded.last_used_at
         where webhook_keys.last_used_at < excluded.last_used_at"
    }

    /// Puts an event aside for good. `false` when it counted, or there is none of this id.
    pub fn discard(tx: &mut Tx, id: Uuid, now: Timestamp) -> bool {
        "update webhook_events set status = 'ignored', reason = 'discarded', processed_at = $now
         where id = $id and status in ('received', 'parked', 'dead')"
    }

    /// Forgets what nobody needs any more and came before `before`.
    pub fn delete_settled(tx: &mut Tx, before: Timestamp) -> u64 {
        "delete from webhook_events where status in ('processed', 'ignored') and received_at < $before"
    }

    /// Forgets what nobody looked after and came before `before`.
    pub fn delete_left(tx: &mut Tx, before: Timestamp) -> u64 {
        "delete from webhook_events where status in ('parked', 'dead') and received_at < $before"
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

/// How exact a secret's last use is.
const KEY_USE_EXACT: Duration = Duration::from_secs(300);

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

/// One page of the events that are meant, newest first; start with `Uuid::max()`, go on with the last id.
pub async fn page(db: &Db, filter: &Filter<'_>, before: Uuid, limit: i64) -> Result<Vec<Headline>> {
    let Filter {
        provider,
        status,
        kind,
        subject,
        since,
        until,
    } = *filter;
    matching(
        db, provider, status, kind, subject, since, until, before, limit,
    )
    .await
}

/// Notes that a secret is in use: rarely, because every event of a provider would wait for the row.
pub async fn note_key(tx: &mut Tx, provider: &str, key_id: &str, at: Timestamp) -> Result<()> {
    let known = key(tx, provider, key_id).await?;
    if known.is_none_or(|key| at.since(key.last_used_at) > KEY_USE_EXACT) {
        use_key(tx, provider, key_id, at).await?;
    }
    Ok(())
}

/// Has an event applied once more, whatever became of it. `false` when there is none of this id.
pub async fn replay(tx: &mut Tx, id: Uuid, now: Timestamp) -> Result<bool> {
    let Some((subject,)) = reopen(tx, id).await? else {
        return Ok(false);
    };
    let job = jobs::NewJob {
        kind: APPLY,
        subject: Some(&subject),
        payload: serde_json::json!({"event": id}),
        dedupe_key: None,
        due_at: now,
    };
    jobs::enqueue(tx, job, now).await?;
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
