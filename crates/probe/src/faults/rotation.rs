//! Signing keys and JWT_SECRET are replaced under load (58).
use super::{case::Case, scene::Scene, traffic::Traffic};
use anyhow::Result;
use std::time::{Duration, Instant};
use uuid::Uuid;

pub async fn run(scene: &Scene<'_>, case: &mut Case) -> Result<()> {
    let mut server = scene.serve(&[]).await?;
    let before = server.sign_up().await?;
    let traffic = Traffic::begin(scene, &[&server], true).await?;
    for _ in 0..4 {
        let rotated = server.command(&["keys", "rotate", "--force"]).await?;
        case.check(
            "the key is rotated",
            rotated.status.success(),
            String::from_utf8_lossy(&rotated.stderr).trim(),
        );
        tokio::time::sleep(Duration::from_millis(1500)).await;
    }
    // The three steps of docs/operating.md, each a restart.
    let variable = "JWT_SECRET";
    let old = scene.variables.iter().find(|(name, _)| name == variable);
    let old = old.map(|(_, value)| value.clone()).unwrap_or_default();
    let new = Uuid::new_v4().simple().to_string() + &Uuid::new_v4().simple().to_string();
    scene.seen.note(|records| records.secrets.push(new.clone()));
    for secrets in [format!("{old},{new}"), format!("{new},{old}"), new.clone()] {
        server.signal("TERM")?;
        let ended = server.ended(Duration::from_secs(40)).await;
        case.check(
            "it stops when it is told to",
            ended.is_some_and(|status| status.success()),
            format!("{ended:?}"),
        );
        server.kill().await?;
        server.tell(variable, &secrets);
        case.recovered(server.start().await?);
        let seen = server.get("/auth/v1/user", &before.token).await;
        case.check(
            "a token from before is good",
            seen.status == 200,
            seen.brief(),
        );
    }
    traffic.end(case, &server, Instant::now()).await
}
