//! The job that applies one event of the inbox: what the provider's API knows of it is asked first; then
//! it is read, reduced and noted in one transaction, so that it happens once however often it is tried.
use super::{revenuecat, stripe};
use crate::App;
use anyhow::Context;
use db::{
    Json, Timestamp, Tx,
    billing::{Grant, Subscription, timeline},
};
use serde_json::{Value, json};
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

/// Why something changes.
#[derive(Debug, Clone, Copy)]
pub struct Cause<'a> {
    /// The provider's id of the event; `read` when somebody looked.
    pub event: &'a str,
    /// The provider's word for it.
    pub kind: &'a str,
    /// When it happened, says the provider.
    pub at: Timestamp,
}

impl Cause<'static> {
    /// Somebody asked the API, at this time.
    pub fn read(at: Timestamp) -> Self {
        Self {
            event: "read",
            kind: "read",
            at,
        }
    }
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
    let is_stripe = event.provider == "stripe";
    let (mut of_stripe, mut of_revenuecat, mut refused) = (None, None, None);
    // Before the transaction: nobody waits for another's API with rows in hand.
    if is_stripe {
        match stripe::read(app, &event.body, event.received_at).await? {
            Ok(reading) => of_stripe = Some(reading),
            Err(outcome) => refused = Some(outcome),
        }
    } else {
        match revenuecat::read(app, &event.body).await? {
            Ok(reading) => of_revenuecat = Some(reading),
            Err(outcome) => refused = Some(outcome),
        }
    }
    let mut tx = app.db.begin().await?;
    let outcome = match (of_stripe, of_revenuecat, refused) {
        (Some(reading), ..) => stripe::apply(app, &mut tx, &reading).await?,
        (_, Some(reading), _) => revenuecat::apply(app, &mut tx, &reading, Some(id)).await?,
        (.., refused) => refused.context("nothing was read")?,
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

/// What is kept of a change, for whoever asks why somebody has what they have.
pub struct Receipt<'a> {
    pub provider: &'a str,
    pub mode: &'a str,
    pub object: &'a str,
    pub user: Option<Uuid>,
    pub rule: &'a str,
    pub before: Value,
    pub after: Value,
}

/// Keeps a receipt.
pub async fn note(
    tx: &mut Tx,
    receipt: Receipt<'_>,
    by: &Cause<'_>,
    now: Timestamp,
) -> db::Result<()> {
    if let Some(user) = receipt.user {
        timeline::claim(tx, receipt.object, user).await?;
    }
    let row = timeline::Receipt {
        id: Uuid::now_v7(),
        user_id: receipt.user,
        provider: receipt.provider.into(),
        mode: receipt.mode.into(),
        object: receipt.object.into(),
        event: by.event.into(),
        kind: by.kind.into(),
        rule: receipt.rule.into(),
        before: Json(receipt.before),
        after: Json(receipt.after),
        occurred_at: by.at,
        created_at: now,
    };
    timeline::note(tx, row).await
}

/// What a receipt shows of a subscription, and of what it opens.
pub fn view(subscription: Option<&Subscription>, grants: &[Grant]) -> Value {
    let grant = |g: &Grant| {
        json!({
            "entitlement": g.entitlement, "ends_at": g.ends_at, "revoked_at": g.revoked_at, "reason": g.reason,
            "in_grace": g.in_grace,
        })
    };
    let grants: Vec<_> = grants.iter().map(grant).collect();
    match subscription {
        None => json!({"grants": grants}),
        Some(s) => json!({
            "status": s.status, "plan": s.plan, "quantity": s.quantity, "will_renew": s.will_renew,
            "period_end": s.period_end, "trial_end": s.trial_end, "cancel_at": s.cancel_at,
            "ended_at": s.ended_at, "user_id": s.user_id, "grants": grants,
        }),
    }
}
