//! What is kept here, made what Stripe and RevenueCat say. Every change comes of an answer that says so: one
//! that did not come, or came from somewhere else, changes nothing.
use super::{
    drift::{self, Drift, Kept},
    stripe,
    stripe_api::{Failure, Stripe},
};
use crate::App;
use anyhow::Context;
use db::{Timestamp, Tx, billing::Subscription, jobs::NewJob};
use serde::Serialize;
use serde_json::{Value, json};
use std::time::Duration;
use utoipa::ToSchema;
use uuid::Uuid;

/// The kind of job that compares, a part at a time.
pub const KIND: &str = "compare_billing";
pub const EVERY: Duration = Duration::from_secs(24 * 3600);

const SOURCE: &str = "stripe";
/// Read one by one in one job.
const AT_ONCE: i64 = 50;
const SECOND: Duration = Duration::from_secs(1);

/// What was found.
#[derive(Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct Report {
    /// Subscriptions that were compared.
    pub compared: u64,
    /// What could not be read; nothing was concluded of it.
    pub failed: u64,
    pub drift: Vec<Drift>,
    /// Nothing was written.
    pub dry_run: bool,
}

impl Report {
    pub fn of(dry_run: bool) -> Self {
        Self {
            dry_run,
            ..Self::default()
        }
    }

    pub fn add(&mut self, drift: Vec<Drift>) {
        self.compared += 1;
        for Drift {
            subscription,
            field,
            ..
        } in &drift
        {
            metrics::counter!("billing_drift_total", "field" => *field).increment(1);
            tracing::warn!(
                subscription,
                field,
                dry_run = self.dry_run,
                "what was kept of a subscription is not what its provider says"
            );
        }
        self.drift.extend(drift);
    }

    pub fn fail(&mut self, id: &str, failure: &dyn std::fmt::Display) {
        self.failed += 1;
        tracing::warn!(subscription = id, %failure, "a subscription could not be compared");
    }
}

/// One pass over everything, in parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// What is open here, read there.
    Ours,
    /// What is there, where nothing is kept of it here, or that it had ended.
    Theirs,
}

impl Pass {
    pub const ALL: [Self; 2] = [Self::Ours, Self::Theirs];

    fn word(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Theirs => "theirs",
        }
    }
}

/// Does one part of the nightly comparison, and plans the next. What cannot be read just now is tried again
/// with the job.
pub async fn run(app: &App, payload: &Value) -> anyhow::Result<()> {
    let Some(api) = &app.stripe else {
        return Ok(());
    };
    let day = app.now().unix() / EVERY.as_secs() as i64;
    let named = payload["pass"].as_str();
    let Some(pass) = Pass::ALL
        .into_iter()
        .find(|pass| named == Some(pass.word()))
    else {
        let mut tx = app.db.begin().await?;
        for pass in Pass::ALL {
            plan(app, &mut tx, pass, day, "").await?;
        }
        return Ok(tx.commit().await?);
    };
    let day = payload["day"].as_i64().unwrap_or(day);
    let after = payload["after"].as_str().unwrap_or_default();
    let mut report = Report::of(false);
    let next = part(app, api, pass, after, &mut report).await?;
    tracing::info!(
        pass = pass.word(),
        compared = report.compared,
        failed = report.failed,
        drift = report.drift.len(),
        "subscriptions were compared with Stripe's"
    );
    if let Some(next) = next {
        let mut tx = app.db.begin().await?;
        plan(app, &mut tx, pass, day, &next).await?;
        tx.commit().await?;
    }
    Ok(())
}

async fn plan(app: &App, tx: &mut Tx, pass: Pass, day: i64, after: &str) -> db::Result<()> {
    let word = pass.word();
    // A part that is done again does not double what follows it.
    let key = format!("{KIND}:{day}:{word}:{after}");
    let job = NewJob {
        kind: KIND,
        subject: Some(&format!("{KIND}:{word}")),
        payload: json!({"pass": word, "day": day, "after": after}),
        dedupe_key: Some(&key),
        due_at: app.now(),
    };
    db::jobs::enqueue(tx, job, app.now()).await?;
    Ok(())
}

/// One part of a pass; gives what the next part begins after.
pub async fn part(
    app: &App,
    api: &Stripe,
    pass: Pass,
    after: &str,
    report: &mut Report,
) -> anyhow::Result<Option<String>> {
    match pass {
        Pass::Ours => ours(app, api, after, report).await,
        Pass::Theirs => theirs(app, api, after, report).await,
    }
}

/// Every part of every pass.
pub async fn everything(
    app: &App,
    api: &Stripe,
    report: &mut Report,
    mut tell: impl FnMut(&Report),
) -> anyhow::Result<()> {
    for pass in Pass::ALL {
        let mut after = String::new();
        while let Some(next) = part(app, api, pass, &after, report).await? {
            after = next;
            tell(report);
        }
    }
    Ok(())
}

async fn ours(
    app: &App,
    api: &Stripe,
    after: &str,
    report: &mut Report,
) -> anyhow::Result<Option<String>> {
    let mode = mode(app);
    let open = db::reconciling::open_subscriptions(&app.db, SOURCE, mode, after, AT_ONCE).await?;
    for kept in &open {
        subscription(app, api, &kept.external_id, report).await?;
    }
    let last = open.last().filter(|_| open.len() as i64 == AT_ONCE);
    Ok(last.map(|last| last.external_id.clone()))
}

async fn theirs(
    app: &App,
    api: &Stripe,
    after: &str,
    report: &mut Report,
) -> anyhow::Result<Option<String>> {
    let (mode, asked_at) = (mode(app), app.now());
    let after = Some(after).filter(|after| !after.is_empty());
    let page = api
        .page("/v1/subscriptions", &[("status", "all")], after)
        .await?;
    for object in &page.data {
        let id = object["id"].as_str().unwrap_or_default();
        let kept = db::reconciling::subscription(&app.db, SOURCE, mode, id).await?;
        let goes_on = !is_over(object["status"].as_str().unwrap_or_default());
        // What is open here is read one by one, in the other pass.
        if kept.is_none_or(|kept| is_over(&kept.status) && goes_on) {
            settle(app, object, asked_at, report).await?;
        }
    }
    Ok(page.next)
}

/// Everything that Stripe has of one user's customers, and everything that is kept of theirs.
pub async fn user(app: &App, api: &Stripe, user: Uuid, report: &mut Report) -> anyhow::Result<()> {
    let (mode, mut seen) = (mode(app), vec![]);
    for customer in db::billing::customers_of_user(&app.db, user).await? {
        if customer.provider != SOURCE || customer.mode != mode {
            continue;
        }
        let asked_at = app.now();
        let query = [
            ("customer", customer.external_id.as_str()),
            ("status", "all"),
        ];
        match api.list("/v1/subscriptions", &query).await {
            Ok(subscriptions) => {
                for object in subscriptions {
                    settle(app, &object, asked_at, report).await?;
                    seen.extend(object["id"].as_str().map(ToOwned::to_owned));
                }
            }
            Err(failure @ Failure::Unavailable { .. }) => return Err(failure.into()),
            Err(failure) => report.fail(&customer.external_id, &failure),
        }
    }
    for kept in db::billing::subscriptions_of_user(&app.db, user).await? {
        let is_there = kept.provider == SOURCE && kept.mode == mode;
        if is_there && !seen.contains(&kept.external_id) {
            subscription(app, api, &kept.external_id, report).await?;
        }
    }
    Ok(())
}

/// One subscription that is kept here, read anew.
async fn subscription(
    app: &App,
    api: &Stripe,
    id: &str,
    report: &mut Report,
) -> anyhow::Result<()> {
    let asked_at = app.now();
    match api.get(&format!("/v1/subscriptions/{id}"), &[]).await {
        Ok(object) => settle(app, &object, asked_at, report).await,
        Err(Failure::NotFound) => missing(app, api, id, asked_at, report).await,
        // What holds for one holds for all that follow: later.
        Err(failure @ Failure::Unavailable { .. }) => Err(failure.into()),
        Err(failure @ Failure::Refused { .. }) => {
            report.fail(id, &failure);
            Ok(())
        }
    }
}

/// Makes what is kept of a subscription what Stripe says, or rolls that back where it is not to be, or
/// changes nothing.
async fn settle(
    app: &App,
    object: &Value,
    asked_at: Timestamp,
    report: &mut Report,
) -> anyhow::Result<()> {
    let id = object["id"].as_str().context("a subscription has an id")?;
    let mut tx = app.db.begin().await?;
    let before = kept(app, &mut tx, id).await?;
    if let Some(row) = &before.subscription {
        mend(app, &mut tx, row, object, asked_at).await?;
    }
    stripe::apply_subscription(app, &mut tx, object, asked_at).await?;
    let after = kept(app, &mut tx, id).await?;
    finish(app, tx, id, &before, &after, report).await
}

/// Stripe has no such subscription. That means something only where it is the account that we sold it in:
/// another key would find nothing of anyone.
async fn missing(
    app: &App,
    api: &Stripe,
    id: &str,
    asked_at: Timestamp,
    report: &mut Report,
) -> anyhow::Result<()> {
    let row = db::reconciling::subscription(&app.db, SOURCE, mode(app), id).await?;
    let customer = row.and_then(|row| row.customer);
    let is_ours = match &customer {
        None => false,
        Some(customer) => match api.get(&format!("/v1/customers/{customer}"), &[]).await {
            Ok(_) => true,
            Err(Failure::NotFound) => false,
            Err(failure) => return Err(failure.into()),
        },
    };
    let mut tx = app.db.begin().await?;
    let before = kept(app, &mut tx, id).await?;
    if is_ours {
        stripe::gone(app, &mut tx, id, asked_at).await?;
        let after = kept(app, &mut tx, id).await?;
        return finish(app, tx, id, &before, &after, report).await;
    }
    drop(tx);
    report.add(drift::between(id, &before, &Kept::default(), app.now()));
    Ok(())
}

async fn finish(
    app: &App,
    tx: Tx,
    id: &str,
    before: &Kept,
    after: &Kept,
    report: &mut Report,
) -> anyhow::Result<()> {
    let drift = drift::between(id, before, after, app.now());
    if !drift.is_empty() && !report.dry_run {
        tx.commit().await?;
    }
    report.add(drift);
    Ok(())
}

async fn kept(app: &App, tx: &mut Tx, id: &str) -> db::Result<Kept> {
    Ok(Kept {
        subscription: db::billing::subscription(tx, SOURCE, mode(app), id).await?,
        grants: db::billing::grants_of_source(tx, SOURCE, id).await?,
    })
}

/// What would keep the truth from being applied: an end that never was, a state that claims to be newer than
/// now, and an owner who is not the customer's.
async fn mend(
    app: &App,
    tx: &mut Tx,
    row: &Subscription,
    object: &Value,
    asked_at: Timestamp,
) -> anyhow::Result<()> {
    let customer = object["customer"]["id"].as_str();
    let customer = customer.or(object["customer"].as_str());
    let owner = match customer {
        Some(customer) => db::billing::user_of_customer(tx, SOURCE, mode(app), customer).await?,
        None => None,
    };
    let mended = Subscription {
        user_id: owner.or(row.user_id),
        status: object["status"].as_str().unwrap_or(&row.status).to_owned(),
        basis_at: row.basis_at.min(asked_at - SECOND),
        ..row.clone()
    };
    if mended != *row {
        db::billing::save_subscription(tx, &mended, app.now()).await?;
    }
    Ok(())
}

fn is_over(status: &str) -> bool {
    ["canceled", "incomplete_expired"].contains(&status)
}

fn mode(app: &App) -> &'static str {
    app.config.billing.mode(app.config.is_production())
}
