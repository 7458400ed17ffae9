//! Clients leave in the middle of an answer, 1,000 times (37).
use super::{
    case::Case, plinth::Plinth, scene::Scene, sender::make_pro, two_instances::no_stuck_answer,
};
use anyhow::Result;
use futures_util::future::join_all;
use serde_json::json;
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

const TIMES: usize = 1000;
const AT_ONCE: usize = 20;
/// Memory that half of them may leave behind.
const MIB: u64 = 1024 * 1024;
const LEFT_BEHIND: u64 = 48 * MIB;

pub async fn run(scene: &Scene<'_>, case: &mut Case) -> Result<()> {
    let server = scene.serve(&[("CHAT_TITLES", "false")]).await?;
    let user = server.sign_up().await?;
    make_pro(scene, &server, &user).await?;
    let asked = AtomicUsize::new(0);
    // The same question from the same person joins the answer that is being made.
    let ask = async || {
        let n = asked.fetch_add(1, Ordering::Relaxed);
        let question = format!("/sim-gap-5-tokens-100 Tell me of sea number {n}.");
        let body = json!({"message": question, "stream": true});
        let request = server
            .request(reqwest::Method::POST, "/api/chat", &user.token)
            .json(&body);
        // A client of its own each: leaving closes the connection.
        let Ok(mut answer) = request.send().await else {
            return 0;
        };
        let status = answer.status().as_u16();
        let _ = answer.chunk().await;
        status
    };
    let (mut wrong, mut left) = (vec![], vec![]);
    // Twice: what the first half makes once is no leak.
    for _ in 0..2 {
        for _ in 0..TIMES / 2 / AT_ONCE {
            let statuses = join_all((0..AT_ONCE).map(|_| ask())).await;
            let refused = statuses.into_iter().filter(|status| *status != 200);
            wrong.extend(refused.map(|status| status.to_string()));
        }
        let settled = no_stuck_answer(&server, &user.token, Duration::from_secs(120)).await;
        case.check(
            "no answer is stuck, nothing stays set aside",
            settled.is_ok(),
            settled.unwrap_or_else(|why| why),
        );
        let process = server.process()?;
        left.push((open_files(process.pid()), process.rss()?));
    }
    case.none(format!("{TIMES} questions are taken"), &wrong);
    let (complete, others) = ends(&server, &user.token).await;
    case.check(
        "every answer is made to its end",
        complete == TIMES,
        format!("{complete}; {others:?}"),
    );
    let usage = server.get("/api/usage", &user.token).await;
    let used = usage.body["messages"]["used"].as_u64().unwrap_or(0);
    case.check("each is counted once", used == complete as u64, used);
    let (half, all) = (left[0], left[1]);
    case.check(
        "no file stays open",
        all.0 <= half.0 + AT_ONCE,
        format!("{} after half of them, {} after all", half.0, all.0),
    );
    let grown = all.1.saturating_sub(half.1);
    case.check(
        "no memory stays behind",
        grown < LEFT_BEHIND,
        format!("{} MiB more after the second half", grown / MIB),
    );
    Ok(())
}

/// How many answers were made to their end, and what became of the others.
pub async fn ends(server: &Plinth, token: &str) -> (usize, BTreeMap<String, usize>) {
    let (mut complete, mut others, mut cursor) = (0, BTreeMap::new(), String::new());
    loop {
        let path = format!("/api/generations?limit=100{cursor}");
        let page = server.get(&path, token).await;
        for one in page.body["data"].as_array().into_iter().flatten() {
            match one["state"].as_str().unwrap_or_default() {
                "finished" => complete += 1,
                _ => {
                    let why = format!("{} {}", one["state"], one["error_code"]);
                    *others.entry(why).or_default() += 1;
                }
            }
        }
        match page.body["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return (complete, others),
        }
    }
}

pub fn open_files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}
