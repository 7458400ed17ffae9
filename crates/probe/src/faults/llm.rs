//! The language model fails in every way it can (31 to 36).
use super::{case::Case, plinth::Plinth, scene::Scene, two_instances::no_stuck_answer};
use crate::{answer::Answer, person::User};
use anyhow::Result;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A directive of the simulated model (docs/simulated-model.md), and the statuses that are right for a
/// client that waits for JSON. 200 where there is something to say, be it cut off.
const FAULTS: &[(&str, &[u16])] = &[
    ("hang", &[504]),
    ("slow-60000", &[504]),
    ("stall-5", &[200, 504]),
    ("stall-0", &[504, 503]),
    ("cut-5", &[200, 503]),
    ("cut-0", &[503]),
    ("eof-5", &[200, 503]),
    ("eof-0", &[503]),
    ("garbage", &[200, 503]),
    ("error", &[200, 503]),
    ("nofinish", &[200, 503]),
    ("nodone", &[200]),
    ("noise", &[200]),
    ("split-tokens-20", &[200]),
    ("429", &[503]),
    ("retry-30", &[503]),
    ("quota", &[503]),
    ("400", &[400, 502, 503]),
    ("401", &[503]),
    ("402", &[503]),
    ("403", &[503]),
    ("404", &[400, 503]),
    ("413", &[400, 413, 503]),
    ("500", &[503]),
    ("503", &[503]),
    ("504", &[503, 504]),
    ("529", &[503]),
    ("html-502", &[503]),
    ("gap-2500-tokens-50", &[200, 504]),
];
const TIMEOUT_S: u64 = 2;
/// Ten times the timeout in all, and the machine is busy.
const ENDED_WITHIN: Duration = Duration::from_secs(30);

pub async fn run(scene: &Scene<'_>, case: &mut Case) -> Result<()> {
    let (mut statuses, mut streams, mut quotas, mut late) = (vec![], vec![], vec![], vec![]);
    let timeout = TIMEOUT_S.to_string();
    let mut server = scene.server(
        "one",
        &[("LLM_TIMEOUT", &timeout), ("CHAT_TITLES", "false")],
    )?;
    for (directive, right) in FAULTS {
        // Who fails again and again is left alone for a while, and the next fault would not be met.
        server.kill().await?;
        server.start().await?;
        let user = server.sign_up().await?;
        let message = format!("/sim-{directive} Tell me of the sea.");
        let began = Instant::now();
        let answer = ask(&server, &user, &message, false).await;
        if !right.contains(&answer.status) {
            statuses.push(format!("{directive}: {}", answer.brief()));
        }
        let streamed = ask(&server, &user, &message, true).await;
        if let Some(why) = ended_badly(streamed.status, &streamed.text) {
            streams.push(format!("{directive}: {why}"));
        }
        if began.elapsed() > ENDED_WITHIN {
            late.push(format!("{directive}: {} ms", began.elapsed().as_millis()));
        }
        if let Some(why) = unpaid(&server, &user).await {
            quotas.push(format!(
                "{directive}: {why} ({}, {})",
                answer.brief(),
                streamed.status
            ));
        }
    }
    case.none(
        format!("{} faults have the right status", FAULTS.len()),
        &statuses,
    );
    case.none("every stream ends with one finish or error", &streams);
    case.none(
        "what is kept is paid for, and nothing else; nothing stays set aside",
        &quotas,
    );
    case.none("every answer is over within 30 s", &late);
    let user = server.sign_up().await?;
    let over = Instant::now();
    let mut good = ask(&server, &user, "Tell me of the sea.", false).await;
    while good.status != 200 && over.elapsed() < ENDED_WITHIN {
        tokio::time::sleep(Duration::from_millis(200)).await;
        good = ask(&server, &user, "Tell me of the sea.", false).await;
    }
    case.recovered(over.elapsed());
    case.check(
        "then the model answers as ever",
        good.status == 200,
        good.brief(),
    );
    Ok(())
}

async fn ask(server: &Plinth, user: &User, message: &str, stream: bool) -> Answer {
    let body = json!({"message": message, "stream": stream});
    server.post("/api/chat", &user.token, &body).await
}

/// Of server-sent events, the names in order.
fn events(stream: &str) -> impl Iterator<Item = &str> {
    let lines = stream.lines();
    lines.filter_map(|line| line.strip_prefix("event:").map(str::trim))
}

/// A refusal is JSON; else exactly one terminal event, at the end.
pub fn ended_badly(status: u16, stream: &str) -> Option<String> {
    if status != 200 {
        let body: Value = serde_json::from_str(stream).unwrap_or_default();
        return (!body["code"].is_string()).then(|| format!("{status} without a code"));
    }
    let is_end = |name: &&str| ["finish", "error"].contains(name);
    let ends = events(stream).filter(is_end).count();
    let last = events(stream).last();
    let is_last = last.is_some_and(|name| is_end(&name));
    (ends != 1 || !is_last).then(|| format!("{ends} ends, the last event is {last:?}"))
}

/// What does not add up. An answer of which a word is kept is paid for, also when its client was told that
/// the rest did not come.
async fn unpaid(server: &Plinth, user: &User) -> Option<String> {
    if let Err(stuck) = no_stuck_answer(server, &user.token, Duration::from_secs(30)).await {
        return Some(stuck);
    }
    let mut kept = 0;
    let all = server
        .get("/api/conversations?limit=100", &user.token)
        .await;
    for one in all.body["data"].as_array().into_iter().flatten() {
        let id = one["id"].as_str().unwrap_or_default();
        let path = format!("/api/conversations/{id}/messages");
        let messages = server.get(&path, &user.token).await;
        let messages = messages.body["data"].as_array().into_iter().flatten();
        let answers = messages.filter(|message| {
            message["role"] == "assistant"
                && message["content"]
                    .as_str()
                    .is_some_and(|text| !text.is_empty())
        });
        kept += answers.count();
    }
    let usage = server.get("/api/usage", &user.token).await;
    let used = usage.body["messages"]["used"].as_i64().unwrap_or(-1);
    let tokens = usage.body["tokens"]["used"].as_i64().unwrap_or(-1);
    let adds_up = tokens >= 0 && usize::try_from(used) == Ok(kept);
    (!adds_up).then(|| format!("{used} messages and {tokens} tokens counted, {kept} answers kept"))
}
