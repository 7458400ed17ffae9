//! SIGTERM under load, with answers being streamed (67).
use super::{case::Case, llm::ended_badly, scene::Scene, two_instances::no_stuck_answer};
use anyhow::Result;
use serde_json::json;
use std::time::{Duration, Instant};

const STREAMS: usize = 20;
const GRACE_S: u64 = 8;

pub async fn run(scene: &Scene<'_>, case: &mut Case) -> Result<()> {
    let mut server = scene
        .serve(&[
            ("SHUTDOWN_TIMEOUT", &GRACE_S.to_string()),
            ("CHAT_TITLES", "false"),
        ])
        .await?;
    let user = server.sign_up().await?;
    let ask = |message: &str| {
        let body = json!({"message": message, "stream": true});
        let request = server
            .request(reqwest::Method::POST, "/api/chat", &user.token)
            .json(&body);
        tokio::spawn(crate::answer::send(request))
    };
    // Half of them end in time, half do not.
    let streams: Vec<_> = (0..STREAMS)
        .map(|n| {
            ask([
                "/sim-gap-50-tokens-60 Of the sea.",
                "/sim-gap-500-tokens-200 Of the land.",
            ][n % 2])
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let short = short_requests(&server.url("/auth/v1/user"), &user.token, &scene.client);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let told = Instant::now();
    server.signal("TERM")?;
    let ended = server.ended(Duration::from_secs(GRACE_S + 10)).await;
    let took = told.elapsed();
    case.check(
        "it ends with 0",
        ended.is_some_and(|status| status.success()),
        format!("{ended:?} after {} ms", took.as_millis()),
    );
    case.check(
        "within SHUTDOWN_TIMEOUT",
        took < Duration::from_secs(GRACE_S + 2),
        format!("{} ms of {GRACE_S} s", took.as_millis()),
    );
    let (mut wrong, mut whole) = (vec![], 0);
    for stream in streams {
        let answer = stream.await?;
        whole += usize::from(
            answer.text.contains("event: finish") || answer.text.contains("event:finish"),
        );
        if answer.status != 200 {
            wrong.push(answer.brief());
        } else if let Some(why) = ended_badly(answer.status, &answer.text) {
            wrong.push(why);
        }
    }
    case.none("every stream ends with a word", &wrong);
    case.check(
        "answers that are short enough are heard to their end",
        whole >= STREAMS / 2,
        format!("{whole} of {STREAMS}"),
    );
    short.abort();
    let failed = short.await.unwrap_or_default();
    case.none("no short request fails but for want of a server", &failed);
    server.kill().await?;
    case.recovered(server.start().await?);
    let settled = no_stuck_answer(&server, &user.token, Duration::from_secs(80)).await;
    case.check(
        "nothing stays set aside",
        settled.is_ok(),
        settled.unwrap_or_else(|why| why),
    );
    Ok(())
}

/// One after the other, until nobody takes them any more.
fn short_requests(
    url: &str,
    token: &str,
    client: &reqwest::Client,
) -> tokio::task::JoinHandle<Vec<String>> {
    let (url, token, client) = (url.to_owned(), token.to_owned(), client.clone());
    tokio::spawn(async move {
        let mut failed = vec![];
        loop {
            let answer = crate::answer::send(client.get(&url).bearer_auth(&token)).await;
            match answer.status {
                200 => tokio::time::sleep(Duration::from_millis(5)).await,
                // Nobody listens any more: a load balancer went elsewhere long before.
                0 if answer.text.contains("refused") => return failed,
                _ => {
                    failed.push(answer.brief());
                    if failed.len() > 20 {
                        return failed;
                    }
                }
            }
        }
    })
}
