//! PostgreSQL is restarted under load (13): it ends every session, and comes back.
use super::{case::Case, scene::Scene, traffic::Traffic};
use anyhow::Result;
use std::time::{Duration, Instant};

const AWAY: Duration = Duration::from_secs(3);
const HEALED_WITHIN: Duration = Duration::from_secs(5);

pub async fn run(scene: &Scene<'_>, case: &mut Case) -> Result<()> {
    let server = scene.serve(&[]).await?;
    let traffic = Traffic::begin(scene, &[&server], false).await?;
    tokio::time::sleep(AWAY).await;
    for mode in ["fast", "immediate"] {
        scene.postgres()?.down(mode)?;
        let ready = server.get("/health/ready", "").await;
        case.check(
            format!("not ready while PostgreSQL is away ({mode})"),
            ready.status == 503,
            ready.brief(),
        );
        tokio::time::sleep(AWAY).await;
        scene.postgres()?.up()?;
        tokio::time::sleep(HEALED_WITHIN).await;
        let ready = server.get("/health/ready", "").await;
        case.check(
            format!("ready again within 5 s ({mode})"),
            ready.status == 200,
            ready.brief(),
        );
    }
    let over = Instant::now()
        .checked_sub(HEALED_WITHIN)
        .unwrap_or_else(Instant::now);
    traffic.end(case, &server, over).await
}
