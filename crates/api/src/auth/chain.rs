//! What makes the audit log tell of a change: every decision has a place in an order, and a hash over itself
//! and everything before it. A job gives them out behind those who decide, so that no decision waits for
//! another. Whoever keeps a hash, and the log of this process does, can tell whether anything up to it
//! was changed since.
use crate::App;
use db::{
    Db,
    audit::{Event, Seal},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{collections::HashMap, time::Duration};
use uuid::Uuid;

/// The kind of job that goes on with the order.
pub const KIND: &str = "seal_audit_log";
/// Decisions that are given their place at once, or looked at.
const PAGE: i64 = 500;
/// A decision may be committed so long after others that were made later: clocks differ.
const LATE: Duration = Duration::from_secs(3600);
/// What the first decision follows.
const GENESIS: [u8; 32] = [0; 32];

/// Gives every decision that has none its place.
pub async fn seal(app: &App) -> anyhow::Result<()> {
    while seal_page(app).await? {}
    Ok(())
}

/// `false` when there was less to do than a page, or another instance does it.
async fn seal_page(app: &App) -> anyhow::Result<bool> {
    let mut tx = app.db.begin().await?;
    let last = db::audit::last_seal(&mut tx).await?;
    let since = last
        .as_ref()
        .map_or(Uuid::nil(), |last| late(last.event_id));
    let events = db::audit::unsealed(&mut tx, since, PAGE).await?;
    let (mut seq, mut hash) = last.map_or((0, GENESIS.to_vec()), |last| (last.seq, last.hash));
    for event in &events {
        (seq, hash) = (seq + 1, follow(&hash, event));
        if !db::audit::seal(&mut tx, seq, event.id, &hash).await? {
            return Ok(false);
        }
    }
    if events.is_empty() {
        return Ok(false);
    }
    tx.commit().await?;
    tracing::info!(
        seq,
        hash = hex::encode(&hash),
        "the audit log is sealed up to here"
    );
    Ok(events.len() as i64 == PAGE)
}

/// From where on, counted from a decision that has its place, others may still lack theirs.
fn late(event: Uuid) -> Uuid {
    let made_ms = event.as_u128() >> 80;
    Uuid::from_u128(made_ms.saturating_sub(LATE.as_millis()) << 80)
}

/// The hash of a decision that follows on others.
fn follow(before: &[u8], event: &Event) -> Vec<u8> {
    let text = json!([
        event.id,
        event.subject_id,
        event.actor_id,
        event.actor_kind,
        event.action,
        event.outcome,
        event.request_id,
        sorted(&event.detail.0),
        event.created_at,
    ]);
    let hash = Sha256::new().chain_update(before);
    hash.chain_update(text.to_string()).finalize().to_vec()
}

/// As pairs in the order of their names: engines keep members of objects in different orders.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut pairs: Vec<_> = members.iter().collect();
            pairs.sort_unstable_by_key(|(name, _)| *name);
            let pair = |(name, value): (&String, &Value)| json!([name, sorted(value)]);
            json!({"object": pairs.into_iter().map(pair).collect::<Vec<_>>()})
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

/// What was found of the whole log.
#[derive(Debug)]
pub struct Found {
    /// Decisions that are as they were sealed.
    pub intact: i64,
    /// Decisions of late, whose place is still to come.
    pub unsealed: i64,
    /// The newest hash.
    pub head: Option<(i64, Vec<u8>)>,
    pub broken: Option<Broken>,
}

/// The first place where the log is not what was sealed.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken {
    /// `None` for one that has no place.
    pub seq: Option<i64>,
    pub event: Option<Uuid>,
    pub why: &'static str,
}

impl Broken {
    fn at(seal: &Seal, why: &'static str) -> Self {
        Self {
            seq: Some(seal.seq),
            event: Some(seal.event_id),
            why,
        }
    }
}

/// Computes every hash anew. `kept` is one that somebody kept elsewhere. `progress` hears how far it is.
pub async fn verify(
    db: &Db,
    kept: Option<(i64, Vec<u8>)>,
    mut progress: impl FnMut(i64),
) -> db::Result<Found> {
    let mut head = None;
    let (mut seq, mut hash, mut newest) = (0, GENESIS.to_vec(), Uuid::nil());
    let mut broken = None;
    'pages: loop {
        let seals = db::audit::seals(db, seq, PAGE).await?;
        if seals.is_empty() {
            break;
        }
        let events = db::audit::sealed(db, seq, PAGE).await?;
        let events: HashMap<_, _> = events.into_iter().map(|event| (event.id, event)).collect();
        for seal in seals {
            let judged = judge(&seal, seq + 1, &hash, events.get(&seal.event_id));
            let other = kept
                .as_ref()
                .is_some_and(|(at, kept)| *at == seal.seq && *kept != seal.hash);
            let judged = judged.or(other.then_some("its hash is not the one that was kept"));
            if let Some(why) = judged {
                broken = Some(Broken::at(&seal, why));
                break 'pages;
            }
            (seq, hash, newest) = (seal.seq, seal.hash, seal.event_id);
            head = Some((seq, hash.clone()));
        }
        progress(seq);
    }
    if broken.is_none() {
        broken = end(db, seq, newest, kept).await?;
    }
    Ok(Found {
        intact: seq,
        unsealed: db::audit::count_unsealed(db).await?.0,
        head,
        broken,
    })
}

/// What is wrong at one place, if anything is.
fn judge(seal: &Seal, expected: i64, before: &[u8], event: Option<&Event>) -> Option<&'static str> {
    match event {
        _ if seal.seq != expected => Some("what was before it is missing"),
        None => Some("it is missing"),
        Some(event) if follow(before, event) != seal.hash => {
            Some("it, or its hash, is not what was sealed")
        }
        Some(_) => None,
    }
}

/// What may be wrong behind the last place: that there were more, or that something was slipped in.
async fn end(
    db: &Db,
    seq: i64,
    newest: Uuid,
    kept: Option<(i64, Vec<u8>)>,
) -> db::Result<Option<Broken>> {
    if kept.is_some_and(|(kept, _)| kept > seq) {
        return Ok(Some(Broken {
            seq: Some(seq + 1),
            event: None,
            why: "the log ends before it, although its hash was kept",
        }));
    }
    let stray = db::audit::stray(db, late(newest)).await?;
    Ok(stray.map(|event| Broken {
        seq: None,
        event: Some(event.id),
        why: "it was never sealed, although later ones are",
    }))
}
