//! Keeps what this instance makes its own, and hears what others want of it.
use super::LEASE;
use crate::App;
use db::Timestamp;
use std::{collections::HashSet, time::Duration};

/// How often others are heard: a stop reaches the provider well within a second.
const GLANCE: Duration = Duration::from_millis(250);
/// Leases are renewed several times before they run out.
const RENEWAL: Duration = Duration::from_secs(LEASE.as_secs() / 6);

/// Watches until the process ends.
pub async fn run(app: App) {
    let mut renewed = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(GLANCE).await;
        app.streams.tidy();
        let looked = async {
            if renewed.elapsed() >= RENEWAL {
                renew(&app).await?;
                renewed = tokio::time::Instant::now();
            }
            listen(&app).await
        };
        if let Err(error) = looked.await {
            tracing::debug!(%error, "what others want of our answers cannot be read just now");
        }
    }
}

/// Does what others want: stops answers, and puts those on disk more often that are read elsewhere.
pub async fn listen(app: &App) -> db::Result<()> {
    let open = app.streams.open_logs();
    if open.is_empty() {
        return Ok(());
    }
    let now = app.now();
    let wishes = db::generations::wishes(&app.db, &app.instance, now).await?;
    for log in open {
        let wish = wishes.iter().find(|wish| wish.id == log.generation);
        let until = |wish: &db::generations::Wish| wish.followed_until;
        let followed = wish.and_then(until).unwrap_or(Timestamp::from_unix(0)) > now;
        log.set_followed(followed);
        if wish.is_some_and(|wish| wish.stop_requested_at.is_some()) {
            log.stop.cancel();
        }
    }
    Ok(())
}

/// Renews the leases of what is made here, and ends what turns out to be another's by now.
pub async fn renew(app: &App) -> db::Result<()> {
    let open = app.streams.open_logs();
    if open.is_empty() {
        return Ok(());
    }
    let mut tx = app.db.begin().await?;
    let ours = db::generations::extend(&mut tx, &app.instance, app.now() + LEASE).await?;
    tx.commit().await?;
    let ours: HashSet<_> = ours.into_iter().map(|row| row.id).collect();
    for log in open {
        // One that was settled in the meantime is over by itself.
        if !ours.contains(&log.generation) {
            log.lost.cancel();
        }
    }
    Ok(())
}
