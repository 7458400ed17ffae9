//! Whoever reads the log stops reading, then goes away (70).
use super::{case::Case, scene::Scene};
use anyhow::Result;
use serde_json::json;
use std::time::Duration;

/// Each writes some lines: more than any pipe holds.
const REQUESTS: usize = 1500;
const ANSWERED_WITHIN: Duration = Duration::from_secs(2);

pub async fn run(scene: &Scene<'_>, case: &mut Case) -> Result<()> {
    let mut server = scene.server("one", &[("LOG_LEVEL", "debug")])?;
    server.log_to_a_pipe();
    server.start().await?;
    let user = server.sign_up().await?;
    for state in ["is not read", "is closed"] {
        if state == "is closed" {
            server.close_pipe()?;
        }
        let (mut slowest, mut wrong) = (Duration::ZERO, vec![]);
        for _ in 0..REQUESTS {
            let request = server.request(reqwest::Method::POST, "/api/conversations", &user.token);
            let request = request
                .json(&json!({"title": "Of the sea"}))
                .timeout(Duration::from_secs(10));
            let answer = super::plinth::heard(&scene.seen, request).await;
            slowest = slowest.max(answer.took);
            if answer.status != 201 {
                wrong.push(answer.brief());
                if wrong.len() > 3 {
                    break;
                }
            }
        }
        case.none(
            format!("requests are answered while the log {state}"),
            &wrong,
        );
        case.check(
            format!("none waits for the log that {state}"),
            slowest < ANSWERED_WITHIN,
            format!("the slowest took {} ms", slowest.as_millis()),
        );
    }
    let alive = server.ended(Duration::from_millis(10)).await;
    case.check("it lives", alive.is_none(), format!("{alive:?}"));
    Ok(())
}
