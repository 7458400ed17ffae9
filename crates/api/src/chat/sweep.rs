//! Settles what producers left behind that are gone: the process was killed, the machine lost.
use super::{
    answer::Answer,
    generation::{self, Ended},
    llm::Failure,
    relay,
    stream::Event,
};
use crate::{App, Result};
use db::generations::Generation;

pub const KIND: &str = "sweep_generations";
const AT_ONCE: i64 = 100;
/// Events that a client may have heard which never reached the disk: the end comes after them.
const UNHEARD_OF: u64 = 100_000;

pub async fn run(app: &App) -> anyhow::Result<()> {
    for abandoned in db::generations::expired(&app.db, app.now(), AT_ONCE).await? {
        settle(app, &abandoned).await?;
    }
    Ok(())
}

/// What reached the disk, or Redis, of an answer is kept and said to be cut off; one of which nothing
/// did has failed, and costs the user nothing. Of several who sweep, one does.
pub async fn settle(app: &App, abandoned: &Generation) -> Result<()> {
    let (answer, said) = said(app, abandoned).await?;
    let status = if answer.is_empty() {
        "failed"
    } else {
        "truncated"
    };
    let ended = Ended {
        answer,
        status,
        usage: None,
        by: None,
        was_asked: true,
        seq: said + UNHEARD_OF,
    };
    let mut tx = app.db.begin().await?;
    let (id, why) = (abandoned.id, "interrupted");
    let settled = db::generations::finish(&mut tx, id, why, Some(why), false, app.now()).await?;
    if let Some(generation) = &settled {
        generation::close(app, &mut tx, generation, &ended).await?;
    }
    tx.commit().await?;
    if settled.is_some() {
        tracing::warn!(generation = %id, status, "an abandoned answer was settled");
        if let Some(relay) = &app.streams.relay {
            relay
                .end(id, ended.seq, Event::Error(Failure::Interrupted))
                .await;
        }
    }
    Ok(())
}

/// All that is known of what it said.
async fn said(app: &App, abandoned: &Generation) -> Result<(Answer, u64)> {
    let kept = relay::kept(app, abandoned).await?.unwrap_or_default();
    let shared = match &app.streams.relay {
        Some(relay) => relay.said(abandoned.id).await,
        None => None,
    };
    Ok(match shared {
        Some((answer, said)) if said > kept.seq => (answer, said),
        _ => (kept.answer, kept.seq),
    })
}
