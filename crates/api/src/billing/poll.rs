//! Events that nobody delivered: Stripe keeps each for 30 days, and tells of those again that are asked for.
use super::stripe_api::{EVENTS, Stripe};
use crate::App;
use db::{Timestamp, inbox::Arrival};
use serde_json::Value;
use std::time::Duration;

/// The kind of job that looks.
pub const KIND: &str = "poll_stripe_events";
pub const EVERY: Duration = Duration::from_secs(10 * 60);

/// Events come into Stripe's list late, and clocks differ.
const OVERLAP: Duration = Duration::from_secs(3600);
/// For so long Stripe tries to deliver by itself.
const DELIVERED_WITHIN: Duration = Duration::from_secs(3 * 24 * 3600);
/// Types of one question at most.
const TYPES: usize = 20;

/// How much there was.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    pub events: u64,
    /// Which no webhook had told.
    pub missed: u64,
}

/// Looks for what happened since the last look, and what Stripe could not deliver.
pub async fn run(app: &App) -> anyhow::Result<()> {
    let Some(api) = &app.stripe else {
        return Ok(());
    };
    let now = app.now();
    let cursor = format!(
        "stripe:{}",
        app.config.billing.mode(app.config.is_production())
    );
    let read_to = db::reconciling::read_to(&app.db, &cursor)
        .await?
        .unwrap_or(now);
    let mut found = Found::default();
    look(app, api, read_to - OVERLAP, None, &mut found, |_| {}).await?;
    let since = now - DELIVERED_WITHIN;
    look(app, api, since, Some("false"), &mut found, |_| {}).await?;

    let mut tx = app.db.begin().await?;
    db::reconciling::move_cursor(&mut tx, &cursor, now).await?;
    tx.commit().await?;
    if found.missed > 0 {
        tracing::warn!(
            events = found.events,
            missed = found.missed,
            "Stripe had events that no webhook told"
        );
    }
    Ok(())
}

/// Takes into the inbox what happened since then.
pub async fn backfill(
    app: &App,
    api: &Stripe,
    since: Timestamp,
    tell: impl FnMut(Found),
) -> anyhow::Result<Found> {
    let mut found = Found::default();
    look(app, api, since, None, &mut found, tell).await?;
    Ok(found)
}

async fn look(
    app: &App,
    api: &Stripe,
    since: Timestamp,
    delivered: Option<&str>,
    found: &mut Found,
    mut tell: impl FnMut(Found),
) -> anyhow::Result<()> {
    let since = since.unix().to_string();
    for types in EVENTS.chunks(TYPES) {
        let mut query: Vec<_> = types.iter().map(|kind| ("types[]", *kind)).collect();
        query.push(("created[gte]", &since));
        query.extend(delivered.map(|delivered| ("delivery_success", delivered)));
        let mut after: Option<String> = None;
        loop {
            let page = api.page("/v1/events", &query, after.as_deref()).await?;
            for event in &page.data {
                found.events += 1;
                found.missed += u64::from(take(app, event).await?);
            }
            tell(*found);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
    }
    Ok(())
}

/// As if it had been delivered. `false` when it was. One that cannot be read is no reason to stop at.
async fn take(app: &App, event: &Value) -> anyhow::Result<bool> {
    let body = event.to_string().into_bytes();
    let read = match webhooks::stripe::read(&body) {
        Ok(read) => read,
        Err(error) => {
            tracing::warn!(event = event["id"].as_str(), %error, "an event of Stripe's list cannot be read");
            return Ok(false);
        }
    };
    let subject = super::webhook::subject(&read);
    let arrival = Arrival {
        provider: "stripe",
        mode: if read.livemode { "live" } else { "test" },
        external_id: &read.id,
        kind: &read.kind,
        api_version: read.api_version.as_deref(),
        subject: &subject,
        occurred_at: Timestamp::from_unix(read.created),
        source: "poll",
        key_id: None,
        body: &body,
    };
    let fresh = db::inbox::ingest(&app.db, arrival, app.now()).await?;
    if fresh {
        metrics::counter!("webhook_events_missed_total", "provider" => "stripe").increment(1);
    }
    Ok(fresh)
}
