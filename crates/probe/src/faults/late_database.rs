//! PostgreSQL comes up long after the server (80).
use super::{case::Case, scene::Scene};
use anyhow::Result;
use std::time::Duration;

/// As far as a test has patience.
const LATE: Duration = Duration::from_secs(45);

pub async fn run(scene: &Scene<'_>, case: &mut Case) -> Result<()> {
    scene.postgres()?.down("fast")?;
    let mut server = scene.server("one", &[])?;
    server.launch()?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let live = server
        .request(reqwest::Method::GET, "/health/live", "")
        .timeout(Duration::from_secs(5));
    let live = super::plinth::heard(&scene.seen, live).await;
    case.check(
        "/health/live 200 while it waits",
        live.status == 200,
        live.brief(),
    );
    let ready = server
        .request(reqwest::Method::GET, "/health/ready", "")
        .timeout(Duration::from_secs(5));
    let ready = super::plinth::heard(&scene.seen, ready).await;
    case.check(
        "/health/ready 503 while it waits",
        ready.status == 503,
        ready.brief(),
    );
    tokio::time::sleep(LATE).await;
    let said = server.said().lines().count();
    case.check(
        "it says so in a few lines",
        said < 30,
        format!("{said} lines"),
    );
    let ended = server.ended(Duration::from_millis(10)).await;
    case.check("it waits", ended.is_none(), format!("{ended:?}"));
    scene.postgres()?.up()?;
    if ended.is_none() {
        let took = server.ready(Duration::from_secs(30)).await?;
        case.recovered(took);
        case.check(
            "ready within 5 s",
            took < Duration::from_secs(5),
            format!("{} ms", took.as_millis()),
        );
    }
    Ok(())
}
