//! Others use up all of PostgreSQL's connections (16).
use super::{case::Case, scene::Scene, traffic::Traffic};
use anyhow::Result;
use sqlx::{Connection, PgConnection};
use std::time::{Duration, Instant};

/// Of PostgreSQL, three of them for its superuser, which all here are.
pub const SETTINGS: &[&str] = &["max_connections=20"];
const LONG: Duration = Duration::from_secs(6);

pub async fn run(scene: &Scene<'_>, case: &mut Case) -> Result<()> {
    let server = scene.serve(&[]).await?;
    let traffic = Traffic::begin(scene, &[&server], false).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let cluster = scene.postgres()?;
    let url = cluster.url(cluster.port(), "postgres");
    // Its sessions are ended, and whoever comes first takes the places.
    let mut first = PgConnection::connect(&url).await?;
    let mut taken = vec![];
    let began = Instant::now();
    while began.elapsed() < LONG {
        sqlx::query("select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and query not like '%held by the probe%' and backend_type = 'client backend'")
            .execute(&mut first)
            .await?;
        while let Ok(mut one) = PgConnection::connect(&url).await {
            sqlx::query("select 1 /* held by the probe */")
                .execute(&mut one)
                .await?;
            taken.push(one);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let refused = server.get("/api/conversations", "").await;
    case.note(format!(
        "{} of 20 connections held; without a token {}",
        taken.len() + 1,
        refused.brief()
    ));
    drop((first, taken));
    let over = Instant::now();
    tokio::time::sleep(Duration::from_secs(5)).await;
    traffic.end(case, &server, over).await
}
