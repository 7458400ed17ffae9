//! One of two instances is killed (2 of 3 in production): the other goes on with everything.
use super::{case::Case, scene::Scene, traffic::Traffic};
use anyhow::Result;
use serde_json::json;
use std::time::{Duration, Instant};

/// Until what the dead one had begun is settled by the other: its lease, and a look.
const SETTLED_WITHIN: Duration = Duration::from_secs(80);

pub async fn run(scene: &Scene<'_>, case: &mut Case) -> Result<()> {
    let mut dies = scene.server("dies", &[])?;
    dies.start().await?;
    let mut stays = scene.server("stays", &[])?;
    stays.start().await?;
    let user = stays.sign_up().await?;
    let question =
        json!({"message": "/sim-gap-500-tokens-100 Tell me of the sea.", "stream": true});
    let mut answer = dies
        .request(reqwest::Method::POST, "/api/chat", &user.token)
        .json(&question)
        .send()
        .await?;
    answer.chunk().await?;
    let traffic = Traffic::begin(scene, &[&dies, &stays], true).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    dies.kill().await?;
    let over = Instant::now();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let settled = no_stuck_answer(&stays, &user.token, SETTLED_WITHIN).await;
    case.check(
        "the dead one's answer is settled by the other",
        settled.is_ok(),
        settled.unwrap_or_else(|why| why),
    );
    traffic.end(case, &stays, over).await
}

/// Waits until no answer is being made and nothing is set aside for one.
pub async fn no_stuck_answer(
    server: &super::plinth::Plinth,
    token: &str,
    within: Duration,
) -> Result<String, String> {
    let began = Instant::now();
    loop {
        let active = server.get("/api/generations?active=1", token).await;
        let usage = server.get("/api/usage", token).await;
        let is_none = active.body["data"].as_array().is_some_and(Vec::is_empty);
        let reserved = (
            &usage.body["messages"]["reserved"],
            &usage.body["tokens"]["reserved"],
        );
        if is_none && reserved == (&json!(0), &json!(0)) {
            return Ok(format!("after {} ms", began.elapsed().as_millis()));
        }
        if began.elapsed() > within {
            return Err(format!(
                "{} active, reserved {} messages and {} tokens",
                active.body["data"].as_array().map_or(0, Vec::len),
                reserved.0,
                reserved.1
            ));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
