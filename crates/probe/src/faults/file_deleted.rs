//! SQLite's file is deleted under the server (22).
use super::{case::Case, scene::Scene};
use anyhow::Result;
use std::time::{Duration, Instant};

const SEEN_WITHIN: Duration = Duration::from_secs(15);

pub async fn run(scene: &Scene<'_>, case: &mut Case) -> Result<()> {
    let mut server = scene.serve(&[]).await?;
    let user = server.sign_up().await?;
    for ending in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(scene.folder().join(format!("plinth.db{ending}")));
    }
    let deleted = Instant::now();
    // It may end rather than write into what nobody can find.
    server.look_away();
    let mut gone = false;
    while !gone && deleted.elapsed() < SEEN_WITHIN {
        let ready = server.get("/health/ready", "").await;
        gone = ready.status != 200;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    case.check(
        "it is not ready any more, or ends, within 15 s",
        gone,
        format!("after {} ms", deleted.elapsed().as_millis()),
    );
    let write = server
        .post(
            "/api/conversations",
            &user.token,
            &serde_json::json!({"title": "Of the sea"}),
        )
        .await;
    case.check(
        "nothing is acknowledged that nobody can find",
        !(200..300).contains(&write.status),
        write.brief(),
    );
    Ok(())
}
