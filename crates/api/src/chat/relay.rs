//! What other instances know of an answer that is being made: its events in Redis, where there is
//! one, and what is on disk of it in any case.
//!
//! A Redis stream takes events by numbers of ours, `{seq}-0`, and refuses one that is not above the
//! last: a producer that was given up for dead cannot write into what came after it.
use super::{
    answer::Answer,
    generation,
    llm::{Failure, Usage},
    stream::{Event, Log, Reader},
    sweep,
};
use crate::{App, Result, config::Secret};
use anyhow::Context;
use db::generations::Generation;
use redis::{
    aio::{ConnectionManager, ConnectionManagerConfig},
    streams::StreamRangeReply,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

/// Redis is waited for no longer; the database knows too, if later.
const PATIENCE: Duration = Duration::from_millis(250);
/// Events are forgotten after so long without another; after the last one sooner.
const KEPT_RUNNING: Duration = Duration::from_secs(3600);
const KEPT_OVER: Duration = Duration::from_secs(15 * 60);
/// Events written at once.
const BATCH: usize = 64;
/// How often a reader's instance looks for more, in Redis and on disk.
const GLANCE: Duration = Duration::from_millis(50);
const LOOK: Duration = Duration::from_millis(250);
/// An answer that is followed is put on disk as often for so long; readers renew it.
const FOLLOWED: Duration = Duration::from_secs(10);

/// Events, shared through Redis.
#[derive(Clone)]
pub struct Relay(ConnectionManager);

/// An event as it is written there.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Written {
    Delta(Map<String, Value>),
    Finish {
        reason: String,
        input: i64,
        output: i64,
    },
    Error(String),
}

impl Written {
    fn of(event: &Event) -> Option<Self> {
        Some(match event {
            Event::Delta(delta) => Self::Delta(delta.clone()),
            Event::Finish { reason, usage } => Self::Finish {
                reason: reason.clone(),
                input: usage.input,
                output: usage.output,
            },
            Event::Error(failure) => Self::Error(failure.code().into()),
            Event::Snapshot(_) => return None,
        })
    }

    fn event(self) -> Event {
        match self {
            Self::Delta(delta) => Event::Delta(delta),
            Self::Finish {
                reason,
                input,
                output,
            } => Event::Finish {
                reason,
                usage: Usage {
                    input,
                    output,
                    ..Usage::default()
                },
            },
            Self::Error(code) => Event::Error(Failure::of(&code)),
        }
    }
}

impl Relay {
    /// The connection is made when it is needed, and made again whenever it breaks.
    pub fn connect(url: &Secret) -> anyhow::Result<Self> {
        let client = redis::Client::open(url.expose()).context("REDIS_URL cannot be read")?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(2)))
            .set_response_timeout(Some(PATIENCE))
            .set_number_of_retries(1);
        let connection = ConnectionManager::new_lazy_with_config(client, config);
        Ok(Self(connection.context("REDIS_URL cannot be used")?))
    }

    /// Writes what a log gets, until its end or the first failure: a gap would be worse than an end.
    pub async fn carry(self, mut reader: Reader) {
        let name = key(reader.log().generation);
        while let Some(first) = reader.next().await {
            let mut events = vec![first];
            while events.len() < BATCH
                && let Some(next) = reader.here()
            {
                events.push(next);
            }
            let over = events.last().is_some_and(|(_, event)| event.is_last());
            if let Err(error) = self.write(&name, &events, over).await {
                metrics::counter!("redis_failures_total").increment(1);
                tracing::debug!(%error, "readers elsewhere go on from the database");
                return;
            }
        }
    }

    async fn write(
        &self,
        name: &str,
        events: &[(u64, Arc<Event>)],
        over: bool,
    ) -> anyhow::Result<()> {
        let mut pipe = redis::pipe();
        for (seq, event) in events {
            let written = Written::of(event).context("a producer falls behind nobody")?;
            let json = serde_json::to_string(&written)?;
            pipe.cmd("XADD")
                .arg(name)
                .arg(format!("{seq}-0"))
                .arg("e")
                .arg(json)
                .ignore();
        }
        let kept = if over { KEPT_OVER } else { KEPT_RUNNING };
        pipe.pexpire(name, kept.as_millis() as i64).ignore();
        let mut connection = self.0.clone();
        tokio::time::timeout(PATIENCE, pipe.query_async::<()>(&mut connection)).await??;
        Ok(())
    }

    /// Events after this one, as far as they follow each other. `None` when they do not, or when Redis
    /// does not answer.
    async fn read(&self, generation: Uuid, after: u64) -> Option<Vec<(u64, Event)>> {
        let mut read = redis::cmd("XRANGE");
        read.arg(key(generation))
            .arg(format!("({after}-0"))
            .arg("+");
        let mut connection = self.0.clone();
        let reply = read.query_async::<StreamRangeReply>(&mut connection);
        let reply = tokio::time::timeout(PATIENCE, reply).await.ok()?.ok()?;
        let mut events = Vec::with_capacity(reply.ids.len());
        for (entry, expected) in reply.ids.iter().zip(after + 1..) {
            let seq: u64 = entry.id.split('-').next()?.parse().ok()?;
            let written: Written = serde_json::from_str(&entry.get::<String>("e")?).ok()?;
            let event = written.event();
            if seq != expected && !event.is_last() {
                return None;
            }
            events.push((seq, event));
        }
        Some(events)
    }

    /// All that a dead producer said.
    pub async fn said(&self, generation: Uuid) -> Option<(Answer, u64)> {
        let (mut answer, mut said) = (Answer::default(), 0);
        for (seq, event) in self.read(generation, 0).await? {
            if let Event::Delta(delta) = event {
                answer.take(&delta);
                said = seq;
            }
        }
        Some((answer, said))
    }

    /// Ends what a dead producer left open.
    pub async fn end(&self, generation: Uuid, seq: u64, event: Event) {
        // Who follows hears it from the database otherwise.
        let _ = self
            .write(&key(generation), &[(seq, Arc::new(event))], true)
            .await;
    }
}

fn key(generation: Uuid) -> String {
    format!("plinth:generation:{generation}")
}

/// Reads a generation from after an event, wherever and whenever it is made or was: the log of this
/// instance, that of another, or what is on disk. It never starts one.
pub async fn attach(app: &App, generation: &Generation, after: u64) -> Result<Reader> {
    if let Some(log) = app.streams.made_here(generation.id) {
        return Ok(log.read(after));
    }
    if generation.finished_at.is_some() {
        let log = Log::new(generation.id);
        let reader = log.read(after);
        bring_to_end(app, generation, &log).await?;
        return Ok(reader);
    }
    let (reader, is_new) = app.streams.follow(generation.id, after);
    if is_new {
        tokio::spawn(feed(app.clone(), reader.log().clone()));
    }
    Ok(reader)
}

/// Feeds a log with what another instance makes, for as long as somebody reads.
async fn feed(app: App, log: Arc<Log>) {
    let mut relay = app.streams.relay.clone();
    let mut looked = None;
    loop {
        if let Some(redis) = &relay {
            match redis.read(log.generation, log.seq()).await {
                Some(events) => events
                    .into_iter()
                    .for_each(|(seq, event)| _ = log.push_at(seq, event)),
                None => relay = None,
            }
        }
        // Redis may have lost it all, or never had it: what the database says holds.
        let interval = if relay.is_some() { LOOK * 4 } else { LOOK };
        if looked.is_none_or(|at: tokio::time::Instant| at.elapsed() >= interval) {
            looked = Some(tokio::time::Instant::now());
            if let Err(error) = look(&app, &log, relay.is_none()).await {
                tracing::debug!(%error, "an answer made elsewhere cannot be followed just now");
            }
        }
        if app.streams.unfollow(&log) {
            return;
        }
        tokio::time::sleep(if relay.is_some() { GLANCE } else { LOOK }).await;
    }
}

/// Looks at what is on disk of an answer that another instance makes.
async fn look(app: &App, log: &Log, alone: bool) -> Result<()> {
    let Some(generation) = db::generations::by_id(&app.db, log.generation).await? else {
        log.push_at(log.seq() + 1, Event::Error(Failure::Interrupted));
        return Ok(());
    };
    if generation.finished_at.is_some() {
        return bring_to_end(app, &generation, log).await;
    }
    if generation.lease_until < app.now() {
        sweep::settle(app, &generation).await?;
        return Ok(());
    }
    if alone {
        let mut tx = app.db.begin().await?;
        db::generations::follow(&mut tx, generation.id, app.now() + FOLLOWED).await?;
        tx.commit().await?;
    }
    // Also where Redis answers: it may never have had the events, or lost them. One that was settled in
    // the meantime counts its last event with what was said: the next look brings it to its end.
    if let Some(kept) = kept(app, &generation).await?
        && kept.is_being_made
    {
        log.catch_up(kept.answer, kept.seq);
    }
    Ok(())
}

/// What is on disk of an answer.
#[derive(Default)]
pub struct Kept {
    pub answer: Answer,
    /// The number of the event that it reaches to; of a settled answer, of its last.
    pub seq: u64,
    is_being_made: bool,
}

/// `None` of one that is not kept.
pub async fn kept(app: &App, generation: &Generation) -> Result<Option<Kept>> {
    let message = match generation.message_id {
        Some(message) => db::conversations::message(&app.db, message).await?,
        None => None,
    };
    Ok(message.map(|message| Kept {
        answer: Answer::of_text(message.content),
        seq: message.seq.max(0) as u64,
        is_being_made: message.status == "streaming",
    }))
}

/// Gives a log what it has not heard of a settled answer, and its end.
async fn bring_to_end(app: &App, generation: &Generation, log: &Log) -> Result<()> {
    let (answer, last) = match kept(app, generation).await? {
        Some(kept) => (kept.answer, kept.seq),
        None => (Answer::default(), log.seq() + 1),
    };
    log.catch_up(answer, last.saturating_sub(1));
    let charge = db::usage::charged(&app.db, generation.id).await?;
    let usage = charge.map_or(Usage::default(), |charge| Usage {
        input: charge.input_tokens,
        output: charge.output_tokens,
        cached: charge.cached_tokens,
        reasoning: charge.reasoning_tokens,
    });
    log.push_at(
        last.max(log.seq() + 1),
        generation::ended(generation, usage),
    );
    Ok(())
}
