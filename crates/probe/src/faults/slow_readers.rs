//! Clients that ask for long answers and never read them (38).
use super::{
    case::Case, disconnects::ends, scene::Scene, sender::make_pro, traffic::percentile,
    two_instances::no_stuck_answer,
};
use crate::answer::send;
use anyhow::Result;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::{io::AsyncWriteExt, net::TcpSocket};

const READERS: usize = 100;
const MIB: u64 = 1024 * 1024;
/// All of them together.
const MOST: u64 = 100 * MIB;

pub async fn run(scene: &Scene<'_>, case: &mut Case) -> Result<()> {
    let server = scene.serve(&[("CHAT_TITLES", "false")]).await?;
    let user = server.sign_up().await?;
    make_pro(scene, &server, &user).await?;
    let before = server.process()?.rss()?;
    // The same question from the same person joins the answer that is being made: each asks its own.
    let request = |n: usize| {
        let question = format!("/sim-gap-5-tokens-1000 Tell me of sea number {n}.");
        let body = json!({"message": question, "stream": true}).to_string();
        format!(
            "POST /api/chat HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            user.token,
            body.len(),
        )
    };
    let mut readers = vec![];
    for n in 0..READERS {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(2048)?;
        let mut stream = socket.connect(([127, 0, 0, 1], server.port).into()).await?;
        stream.write_all(request(n).as_bytes()).await?;
        readers.push(stream);
    }
    let mut times = vec![];
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(10) {
        let answer = send(server.request(reqwest::Method::GET, "/auth/v1/user", &user.token)).await;
        if answer.status == 200 {
            times.push(answer.took);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    times.sort_unstable();
    let p99 = percentile(&times, 0.99);
    case.check(
        "others are served meanwhile",
        p99 < Duration::from_millis(500),
        format!(
            "p99 {:.1} ms of {}",
            p99.as_secs_f64() * 1000.0,
            times.len()
        ),
    );
    let settled = no_stuck_answer(&server, &user.token, Duration::from_secs(60)).await;
    case.check(
        "their answers are finished without them",
        settled.is_ok(),
        settled.unwrap_or_else(|why| why),
    );
    let usage = server.get("/api/usage", &user.token).await;
    let used = usage.body["messages"]["used"].as_u64().unwrap_or(0);
    // On a busy machine some are refused, which they do not read either.
    let (made, others) = ends(&server, &user.token).await;
    case.check(
        "each that was made is counted once",
        made > 0 && others.is_empty() && used == made as u64,
        format!("{used} of {made}; {others:?}"),
    );
    let grown = server.process()?.rss()?.saturating_sub(before);
    case.check(
        "they cost little memory",
        grown < MOST,
        format!("{} MiB for {READERS}", grown / MIB),
    );
    drop(readers);
    Ok(())
}
