//! What was bought on phones, made what RevenueCat says: of those of whom something ends these days.
use super::{
    drift::{self, Kept},
    reconcile::Report,
    revenuecat,
    revenuecat_api::{Failure, RevenueCat},
};
use crate::App;
use db::{Timestamp, Tx, billing::Subscription, jobs::NewJob};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use uuid::Uuid;

/// The kind of job that compares, a part at a time.
pub const KIND: &str = "compare_purchases";
pub const EVERY: Duration = Duration::from_secs(24 * 3600);

const SOURCE: &str = "revenuecat";
const HOUR: Duration = Duration::from_secs(3600);
/// Read in one job, one a second: RevenueCat is asked by everyone else too.
const AT_ONCE: i64 = 50;
const PAUSE: Duration = Duration::from_secs(1);
const SECOND: Duration = Duration::from_secs(1);

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

/// Everyone's who has something from a phone, one a second.
pub async fn everyone(
    app: &App,
    api: &RevenueCat,
    report: &mut Report,
    mut tell: impl FnMut(&Report),
) -> anyhow::Result<()> {
    let (since, mut after) = (app.now() - 48 * HOUR, Uuid::nil());
    loop {
        let users =
            db::reconciling::users_of_source(&app.db, SOURCE, since, after, AT_ONCE).await?;
        for (id,) in &users {
            if after != Uuid::nil() {
                tokio::time::sleep(PAUSE).await;
            }
            user(app, api, *id, report).await?;
            (after, ()) = (*id, tell(report));
        }
        if users.is_empty() {
            return Ok(());
        }
    }
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
    let taken = revenuecat::apply_subscriber(app, &mut tx, user, &subscriber, asked_at).await?;
    if mend(app, &mut tx, &before, &taken.named, asked_at).await? {
        revenuecat::apply_subscriber(app, &mut tx, user, &subscriber, asked_at).await?;
    }
    let after = kept(&mut tx, user).await?;

    let none = Kept::default();
    let refs: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let compared: Vec<_> = refs
        .into_iter()
        .map(|name| {
            let was = before.get(name).unwrap_or(&none);
            // What RevenueCat does not know, as after a reset of its sandbox, is told of and left alone.
            let is_unknown = !taken.named.contains(name) && was.is_open(asked_at);
            let is = after.get(name).filter(|_| !is_unknown).unwrap_or(&none);
            let id = name.split_once(':').map_or(name.as_str(), |(_, id)| id);
            drift::between(id, was, is, app.now())
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

/// What would keep the truth from being applied: a state that claims to be newer than now, and an end that
/// has not been yet.
async fn mend(
    app: &App,
    tx: &mut Tx,
    kept: &BTreeMap<String, Kept>,
    named: &[String],
    asked_at: Timestamp,
) -> db::Result<bool> {
    let mut mends = false;
    let rows = named.iter().filter_map(|name| kept.get(name));
    for row in rows.filter_map(|kept| kept.subscription.as_ref()) {
        let end = row.ended_at.filter(|end| *end <= asked_at);
        if row.basis_at <= asked_at && end == row.ended_at {
            continue;
        }
        let mended = Subscription {
            basis_at: row.basis_at.min(asked_at - SECOND),
            ended_at: end,
            ..row.clone()
        };
        db::billing::save_subscription(tx, &mended, app.now()).await?;
        mends = true;
    }
    Ok(mends)
}

/// By the names of their grants.
async fn kept(tx: &mut Tx, user: Uuid) -> db::Result<BTreeMap<String, Kept>> {
    let mut all = BTreeMap::new();
    for subscription in db::reconciling::subscriptions_of(tx, SOURCE, user).await? {
        let source_ref = format!("{}:{}", subscription.mode, subscription.external_id);
        let kept = Kept {
            grants: db::billing::grants_of_source(tx, SOURCE, &source_ref).await?,
            subscription: Some(subscription),
        };
        all.insert(source_ref, kept);
    }
    Ok(all)
}
