//! The worker: claims due jobs under a lease and does them, again with a growing pause when they
//! fail, until they are done or dead. The list of recurring work is at the end.
use crate::{App, auth, backup, billing, chat, error::explain, http::Flow, mail, telemetry};
use anyhow::{Context, anyhow};
use db::{Timestamp, jobs::Job};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::sync::Semaphore;

#[cfg(test)]
mod tests;

/// Jobs at once, of one instance.
const CONCURRENCY: usize = 8;
/// A job not heard of for so long is taken over by another instance.
const LEASE: Duration = Duration::from_secs(60);
/// A job may take so long.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long at most until a worker looks again by itself.
const POLL: Duration = Duration::from_secs(5);

/// The context of a failure that another attempt would meet again: the job is dead at once.
#[derive(Debug)]
pub struct Hopeless;

impl std::fmt::Display for Hopeless {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("trying again is of no use")
    }
}

/// Pauses between attempts; after the last the job is dead.
const BACK_OFF: [Duration; 8] = [
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(5 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(2 * 3600),
    Duration::from_secs(6 * 3600),
    Duration::from_secs(12 * 3600),
    Duration::from_secs(24 * 3600),
];

/// Works until the instance drains, then gives back what it has not finished.
pub async fn work(app: App) {
    let places = Arc::new(Semaphore::new(CONCURRENCY));
    let listener = tokio::spawn(listen(app.clone()));
    let mut ticks = Ticks::default();
    while !app.draining.is_cancelled() {
        match turn(&app, &places, &mut ticks).await {
            Ok(true) => {}
            Ok(false) => wait(&app).await,
            Err(error) => {
                tracing::warn!(error = explain(&error), "cannot look for jobs");
                tokio::time::sleep(POLL).await;
            }
        }
    }
    listener.abort();
    let all = places.acquire_many(CONCURRENCY as u32);
    if tokio::time::timeout(app.config.core.shutdown_timeout, all)
        .await
        .is_err()
    {
        tracing::warn!("jobs were cut at the end of SHUTDOWN_TIMEOUT; others will do them");
    }
    if let Err(error) = give_back(&app).await {
        tracing::warn!(%error, "leases run out by themselves");
    }
}

/// One look: recurring work that is due, then whatever waits. `false` when nothing did.
async fn turn(app: &App, places: &Arc<Semaphore>, ticks: &mut Ticks) -> anyhow::Result<bool> {
    tick(app, ticks).await.context("planning recurring work")?;
    let free = places.available_permits() as i64;
    if free == 0 {
        return Ok(false);
    }
    let now = app.now();
    let jobs = db::jobs::claim(&app.db, &app.instance, now, now + LEASE, free).await?;
    if app.draining.is_cancelled() {
        // Claimed in the same moment: not begun, and given back with the rest.
        return Ok(false);
    }
    let any = !jobs.is_empty();
    for job in jobs {
        let Ok(place) = places.clone().acquire_owned().await else {
            break;
        };
        let app = app.clone();
        tokio::spawn(async move {
            run(&app, job).await;
            drop(place);
            // A job of the same subject may have waited for this one.
            app.db.wake_workers();
        });
    }
    Ok(any)
}

async fn wait(app: &App) {
    let next = db::jobs::next_due_at(&app.db, app.now())
        .await
        .ok()
        .flatten();
    let pause = next.map_or(POLL, |due| {
        due.since(app.now()).clamp(Duration::from_millis(20), POLL)
    });
    tokio::select! {
        () = db::jobs::rung(&app.db) => {}
        () = tokio::time::sleep(pause) => {}
        () = app.draining.cancelled() => {}
    }
}

/// Rings here when another instance commits a job.
async fn listen(app: App) {
    loop {
        let direct = app.config.core.direct_url();
        match db::jobs::Listener::open(&app.db, direct).await {
            Ok(None) => return,
            Ok(Some(mut listener)) => {
                while listener.heard().await.is_ok() {
                    app.db.wake_workers();
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot listen for jobs of other instances; polling finds them")
            }
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Does one job, keeps its lease alive meanwhile, and notes how it went.
pub async fn run(app: &App, job: Job) {
    let doing = tokio::spawn({
        let (app, job) = (app.clone(), job.clone());
        async move {
            let patience = patience(&job.kind);
            tokio::time::timeout(patience, perform(&app, &job))
                .await
                .unwrap_or_else(|_| Err(anyhow!("took longer than {patience:?}")))
        }
    });
    let abort = doing.abort_handle();
    let outcome = tokio::select! {
        done = doing => done.unwrap_or_else(|panic| Err(anyhow!("panicked: {panic}"))),
        () = keep_lease(app, &job) => {
            // Another instance does it now.
            abort.abort();
            return;
        }
    };
    let kind = job.kind.clone();
    let label = match &outcome {
        Ok(()) => "done",
        Err(error) if error.is::<Hopeless>() || job.attempts as usize > BACK_OFF.len() => "dead",
        Err(_) => "failed",
    };
    metrics::counter!("jobs_total", "kind" => kind, "outcome" => label).increment(1);
    if let Err(error) = settle(app, &job, outcome).await {
        tracing::warn!(
            error = explain(&error),
            kind = job.kind,
            "a job's end could not be noted; it will be done again"
        );
    }
}

async fn keep_lease(app: &App, job: &Job) {
    loop {
        tokio::time::sleep(LEASE / 3).await;
        let extended = async {
            let mut tx = app.db.begin().await?;
            let held = db::jobs::extend(&mut tx, job.id, &app.instance, app.now() + LEASE).await?;
            tx.commit().await?;
            Ok::<_, db::Error>(held)
        };
        // A database that does not answer decides nothing; the lease does, when it runs out.
        if matches!(extended.await, Ok(false)) {
            return;
        }
    }
}

async fn settle(app: &App, job: &Job, outcome: anyhow::Result<()>) -> anyhow::Result<()> {
    let now = app.now();
    let mut tx = app.db.begin().await?;
    match outcome {
        Ok(()) => {
            db::jobs::finish(&mut tx, job.id, &app.instance, now).await?;
        }
        Err(error) => {
            let text: String = explain(&error).chars().take(1_000).collect();
            let pause = BACK_OFF.get(job.attempts.max(1) as usize - 1);
            match pause.filter(|_| !error.is::<Hopeless>()) {
                Some(pause) => {
                    tracing::warn!(
                        kind = job.kind,
                        attempt = job.attempts,
                        error = text,
                        "a job failed and will be tried again"
                    );
                    db::jobs::retry(
                        &mut tx,
                        job.id,
                        &app.instance,
                        now + jittered(*pause),
                        &text,
                    )
                    .await?;
                }
                None => {
                    telemetry::report(
                        &error.context(format!("job {} is dead", job.kind)),
                        Flow::Other,
                    );
                    let buried = db::jobs::bury(&mut tx, job.id, &app.instance, now, &text).await?;
                    if buried && job.kind == db::inbox::APPLY {
                        billing::apply::bury(&mut tx, &job.payload, &text, now).await?;
                    }
                }
            }
        }
    }
    tx.commit().await?;
    Ok(())
}

/// ± 20 %, so that what failed together is not tried again together.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.8 + 0.4 * rand::random::<f64>())
}

async fn give_back(app: &App) -> db::Result<()> {
    let mut tx = app.db.begin().await?;
    db::jobs::give_back(&mut tx, &app.instance).await?;
    tx.commit().await
}

fn patience(kind: &str) -> Duration {
    match kind {
        backup::KIND => backup::PATIENCE,
        _ => PATIENCE,
    }
}

/// Which handler does which kind.
async fn perform(app: &App, job: &Job) -> anyhow::Result<()> {
    match job.kind.as_str() {
        db::inbox::APPLY => billing::apply::run(app, &job.payload).await,
        billing::poll::KIND => billing::poll::run(app).await,
        billing::reconcile::KIND => billing::reconcile::run(app, &job.payload).await,
        billing::phones::KIND => billing::phones::run(app, &job.payload).await,
        billing::endings::KIND => billing::endings::run(app).await,
        billing::notices::DUPLICATES => billing::notices::run(app, job).await,
        mail::SEND => mail::send(app, job).await,
        auth::apple::REVOKE => auth::apple::revoke(app, &job.payload).await,
        chat::sweep::KIND => chat::sweep::run(app).await,
        chat::titles::KIND => chat::titles::run(app, job).await,
        auth::chain::KIND => auth::chain::seal(app).await,
        backup::KIND => backup::run(app).await,
        PURGE => purge(app).await,
        #[cfg(test)]
        tests::KIND => tests::perform(app, &job.payload).await,
        other => Err(anyhow!("no handler for jobs of kind {other}")),
    }
}

/// Work that comes again wherever Plinth runs, and how often. A tick is a job whose key is its time, so that several
/// instances do it once.
const RECURRING: [(&str, Duration); 7] = [
    (chat::sweep::KIND, Duration::from_secs(15)),
    (auth::chain::KIND, Duration::from_secs(60)),
    (billing::poll::KIND, billing::poll::EVERY),
    (billing::endings::KIND, billing::endings::EVERY),
    (billing::reconcile::KIND, billing::reconcile::EVERY),
    (billing::phones::KIND, billing::phones::EVERY),
    (PURGE, Duration::from_secs(3600)),
];

const PURGE: &str = "purge";

/// And what this configuration adds.
fn recurring(app: &App) -> impl Iterator<Item = (&'static str, Duration)> {
    let backup = app.config.backup.every().map(|every| (backup::KIND, every));
    RECURRING.into_iter().chain(backup)
}

/// The tick of each recurring work that was last planned here.
type Ticks = HashMap<&'static str, i64>;

async fn tick(app: &App, ticks: &mut Ticks) -> db::Result<()> {
    let now = app.now();
    for (kind, every) in recurring(app) {
        let tick = now.as_micros() / every.as_micros() as i64;
        if ticks.get(kind) == Some(&tick) {
            continue;
        }
        let key = format!("{kind}:{tick}");
        let payload = serde_json::json!({});
        let job = db::jobs::NewJob {
            kind,
            subject: Some(kind),
            payload,
            dedupe_key: Some(&key),
            due_at: now,
        };
        let mut tx = app.db.begin().await?;
        db::jobs::enqueue(&mut tx, job, now).await?;
        tx.commit().await?;
        ticks.insert(kind, tick);
    }
    Ok(())
}

/// Plans recurring work as an instance does that has just started.
#[cfg(test)]
pub async fn plan(app: &App) -> db::Result<()> {
    tick(app, &mut Ticks::default()).await
}

/// Forgets what nobody needs any more.
pub async fn purge(app: &App) -> anyhow::Result<()> {
    let now = app.now();
    let days = |n: u64| -> Timestamp { now - Duration::from_secs(n * 86_400) };
    let mut tx = app.db.begin().await?;
    db::jobs::delete_done(&mut tx, days(7)).await?;
    db::idempotency::delete_expired(&mut tx, now).await?;
    db::sessions::delete_expired(&mut tx, days(30)).await?;
    db::one_time_tokens::delete_expired(&mut tx, days(1)).await?;
    db::factors::delete_expired_challenges(&mut tx, days(1)).await?;
    db::factors::delete_unproved(&mut tx, days(1)).await?;
    db::auth_codes::delete_expired(&mut tx, days(1)).await?;
    db::seen_tokens::delete_expired(&mut tx, days(1)).await?;
    db::oauth_flows::delete_expired(&mut tx, days(1)).await?;
    db::passkeys::delete_expired(&mut tx, days(1)).await?;
    db::inbox::delete_settled(&mut tx, days(90)).await?;
    db::inbox::delete_left(&mut tx, days(400)).await?;
    db::checkouts::delete_expired(&mut tx, days(30)).await?;
    db::billing::timeline::delete_before(&mut tx, first_id_of(days(400))).await?;
    db::backups::delete_before(&mut tx, days(400)).await?;
    db::users::delete_unconfirmed(&mut tx, now - auth::UNCONFIRMED_KEPT).await?;
    db::users::delete_anonymous(&mut tx, now - app.config.auth.auth_anonymous_kept).await?;
    tx.commit().await?;
    Ok(())
}

/// Ids tell the time: what was made before this time has a smaller one.
fn first_id_of(at: Timestamp) -> uuid::Uuid {
    let millis = u64::try_from(at.as_micros() / 1_000).unwrap_or_default();
    uuid::Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid()
}
