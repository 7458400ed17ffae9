//! The server is killed while it migrates (65).
use super::{case::Case, dice::Dice, scene::Scene};
use anyhow::Result;
use std::time::{Duration, Instant};

const KILLS: usize = 10;

pub async fn run(scene: &Scene<'_>, case: &mut Case) -> Result<()> {
    // How long it takes undisturbed, somewhere else.
    let mut dice = Dice::new(u64::from(std::process::id()));
    let mut server = scene.server("one", &[])?;
    let mut whole = Duration::from_millis(1500);
    let mut wrong = vec![];
    for n in 0..KILLS {
        let begun = Instant::now();
        server.launch()?;
        // Later each time: some die before the lock, some at the commit.
        let share = (n + 1) as u32;
        tokio::time::sleep(
            whole * share / (KILLS as u32) + Duration::from_millis(dice.below(30) as u64),
        )
        .await;
        let was_ready = server.get("/health/ready", "").await.status == 200;
        server.kill().await?;
        if was_ready {
            whole = begun.elapsed() / 2;
        }
    }
    match server.start().await {
        Ok(took) => case.recovered(took),
        Err(error) => wrong.push(format!("{error:#}")),
    }
    case.none(format!("it gets ready after {KILLS} deaths"), &wrong);
    if wrong.is_empty() {
        let status = server.command(&["migrate", "status"]).await?;
        let said = String::from_utf8_lossy(&status.stdout).to_lowercase();
        let pending = said
            .lines()
            .filter(|line| line.starts_with("pending"))
            .count();
        case.check(
            "no migration is half done or missing",
            status.status.success() && pending == 0,
            format!("{pending} pending"),
        );
        let user = server.sign_up().await?;
        let seen = server.get("/auth/v1/user", &user.token).await;
        case.check("it works", seen.status == 200, seen.brief());
    }
    Ok(())
}
