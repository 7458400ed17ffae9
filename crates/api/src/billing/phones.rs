//! What was bought on phones, made what RevenueCat says: of those of whom something ends these days.
use super::{
    drift::{self, Kept},
    reconcile::Report,
    revenuecat,
    revenuecat_api::{Failure, RevenueCat},
};
use crate::App;
use db::{Tx, jobs::NewJob};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};
use uuid::Uuid;

/// The kind of job that compares, a part at a time.
pub const KIND: &str = "compare_purchases";
pub const EVERY: Duration = Duration::from_secs(24 * 3600);

const SOURCE: &str = "revenuecat";
const HOUR: Duration = Duration::from_secs(3600);
/// Read in one job, one a second: RevenueCat is asked by everyone else too.
const AT_ONCE: i64 = 50;
const PAUSE: Duration = Duration::from_secs(1);

pub async fn run(app: &App, payload: &Value) -> anyhow::Result<()> {
    let Some(api) = &app.revenuecat else {
        return Ok(());
    };
    let now = app.now();
    let after = payload["after"].as_str();
    let after = after
        .and_then(|after| after.parse().ok())
        .unwrap_or(Uuid::nil());
    let (from, to) = (now - 48 * HOUR, now + 24 * HOUR);
    let users = db::reconciling::users_with_ends(&app.db, SOURCE, from, to, after, AT_ONCE).await?;
    let mut report = Report::of(false);
    for (n, (id,)) in users.iter().enumerate() {
        if n > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        user(app, api, *id, &mut report).await?;
    }
    if let Some((last,)) = users.last().filter(|_| users.len() as i64 == AT_ONCE) {
        let key = format!("{KIND}:{}:{last}", now.unix() / EVERY.as_secs() as i64);
        let job = NewJob {
            kind: KIND,
            subject: Some(KIND),
            payload: json!({"after": last}),
            dedupe_key: Some(&key),
            due_at: now,
        };
        let mut tx = app.db.begin().await?;
        db::jobs::enqueue(&mut tx, job, now).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// One user's, read anew.
pub async fn user(
    app: &App,
    api: &RevenueCat,
    user: Uuid,
    report: &mut Report,
) -> anyhow::Result<()> {
    let asked_at = app.now();
    let subscriber = match api.subscriber(&user.to_string()).await {
        Ok(subscriber) => subscriber,
        Err(failure @ Failure::Unavailable { .. }) => return Err(failure.into()),
        Err(failure) => {
            report.fail(&user.to_string(), &failure);
            return Ok(());
        }
    };
    let mut tx = app.db.begin().await?;
    let before = kept(&mut tx, user).await?;
    revenuecat::apply_subscriber(app, &mut tx, user, &subscriber, asked_at).await?;
    let after = kept(&mut tx, user).await?;

    let none = Kept::default();
    let ids: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let compared: Vec<_> = ids
        .into_iter()
        .map(|id| {
            let was = before.get(id).unwrap_or(&none);
            drift::between(id, was, after.get(id).unwrap_or(&none), app.now())
        })
        .collect();
    if compared.iter().any(|drift| !drift.is_empty()) && !report.dry_run {
        tx.commit().await?;
    }
    for drift in compared {
        report.add(drift);
    }
    Ok(())
}

async fn kept(tx: &mut Tx, user: Uuid) -> db::Result<BTreeMap<String, Kept>> {
    let mut all = BTreeMap::new();
    for subscription in db::reconciling::subscriptions_of(tx, SOURCE, user).await? {
        let source_ref = format!("{}:{}", subscription.mode, subscription.external_id);
        let kept = Kept {
            grants: db::billing::grants_of_source(tx, SOURCE, &source_ref).await?,
            subscription: Some(subscription),
        };
        let id = kept.subscription.as_ref().map(|s| s.external_id.clone());
        all.insert(id.unwrap_or_default(), kept);
    }
    Ok(all)
}
