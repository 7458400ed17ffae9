//! The job that applies one event of the inbox: read, reduced and noted in one transaction, so that
//! it happens once however often it is tried.
use super::{revenuecat, stripe};
use crate::App;
use anyhow::Context;
use db::{Timestamp, Tx};
use serde_json::Value;
use uuid::Uuid;

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It counted.
    Processed,
    /// It says nothing that changes anything, and why.
    Ignored(&'static str),
    /// It cannot be applied until something else is known, and what.
    Parked(&'static str),
}

fn event_of(payload: &Value) -> anyhow::Result<Uuid> {
    let id = payload.get("event").and_then(Value::as_str);
    Ok(id.context("the job names no event")?.parse()?)
}

/// Notes that an event could not be applied, and why: it waits for a human.
pub async fn bury(tx: &mut Tx, payload: &Value, error: &str, now: Timestamp) -> db::Result<()> {
    match event_of(payload) {
        Ok(id) => db::inbox::settle(tx, id, "dead", Some(error), now).await,
        Err(_) => Ok(()),
    }
}

pub async fn run(app: &App, payload: &Value) -> anyhow::Result<()> {
    let id = event_of(payload)?;
    let event = db::inbox::by_id(&app.db, id)
        .await?
        .context("the event is gone")?;
    if event.status != "received" {
        return Ok(());
    }
    let mut tx = app.db.begin().await?;
    let outcome = match event.provider.as_str() {
        "stripe" => stripe::apply(app, &mut tx, &event.body).await?,
        _ => revenuecat::apply(app, &mut tx, &event.body).await?,
    };
    let (status, reason) = match outcome {
        Outcome::Processed => ("processed", None),
        Outcome::Ignored(why) => ("ignored", Some(why)),
        Outcome::Parked(why) => ("parked", Some(why)),
    };
    db::inbox::settle(&mut tx, id, status, reason, app.now()).await?;
    if let Some(key_id) = &event.key_id {
        db::inbox::note_key(&mut tx, &event.provider, key_id, event.received_at).await?;
    }
    tx.commit().await?;
    metrics::counter!("webhook_applied_total", "provider" => event.provider.clone(), "outcome" => status).increment(1);
    metrics::histogram!("webhook_lag_seconds")
        .record(app.now().since(event.received_at).as_secs_f64());
    tracing::info!(
        provider = event.provider,
        kind = event.kind,
        status,
        reason,
        "a webhook event was applied"
    );
    Ok(())
}

/// The user of ours that an id names, if it names one.
pub async fn user(tx: &mut Tx, id: &str) -> db::Result<Option<Uuid>> {
    match Uuid::try_parse(id) {
        Ok(id) => Ok(db::billing::user_named(tx, id).await?.map(|(id,)| id)),
        Err(_) => Ok(None),
    }
}
