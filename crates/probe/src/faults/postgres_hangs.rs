//! PostgreSQL stands still with every socket open (14).
use super::{case::Case, scene::Scene, traffic::Traffic};
use anyhow::Result;
use std::time::{Duration, Instant};

const FROZEN: Duration = Duration::from_secs(12);
/// DATABASE_MAX_CONNECTIONS: who holds one waits with it.
const CONNECTIONS: usize = 10;

pub async fn run(scene: &Scene<'_>, case: &mut Case) -> Result<()> {
    let server = scene.serve(&[]).await?;
    let traffic = Traffic::begin(scene, &[&server], false).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let postgres = scene.postgres()?;
    postgres.freeze()?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let asked = Instant::now();
    let ready = server.get("/health/ready", "").await;
    let took = asked.elapsed();
    case.check(
        "/health/ready says so within 5 s",
        ready.status == 503 && took < Duration::from_secs(5),
        format!("{} after {} ms", ready.brief(), took.as_millis()),
    );
    tokio::time::sleep(FROZEN.saturating_sub(Duration::from_secs(4) + took)).await;
    postgres.thaw()?;
    let over = Instant::now();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let long = traffic.long();
    case.check(
        "no more wait long than there are connections; the others hear 503 within 5 s",
        long <= CONNECTIONS,
        format!("{long}, the slowest {} ms", traffic.slowest().as_millis()),
    );
    traffic.end(case, &server, over).await
}
