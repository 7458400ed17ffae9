//! A firewall forgets the connections to PostgreSQL (17): they stay open, and nothing comes through.
use super::{case::Case, scene::Scene, traffic::Traffic, wire::Wire};
use anyhow::Result;
use std::time::{Duration, Instant};

/// A statement is given up 5 s after DATABASE_STATEMENT_TIMEOUT.
const HEALED_WITHIN: Duration = Duration::from_secs(25);
const TIMEOUT_S: &str = "10";

pub async fn run(scene: &Scene<'_>, case: &mut Case) -> Result<()> {
    let cluster = scene.postgres()?;
    let wire = Wire::to(cluster.port()).await?;
    let url = cluster.url(wire.port, "postgres");
    let server = scene
        .serve(&[
            ("DATABASE_URL", &url),
            ("DATABASE_STATEMENT_TIMEOUT", TIMEOUT_S),
        ])
        .await?;
    let traffic = Traffic::begin(scene, &[&server], false).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    wire.forget();
    let over = Instant::now();
    tokio::time::sleep(HEALED_WITHIN).await;
    let ready = server.get("/health/ready", "").await;
    case.check("ready within 25 s", ready.status == 200, ready.brief());
    traffic.end(case, &server, over).await
}
