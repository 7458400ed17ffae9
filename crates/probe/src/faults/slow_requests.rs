//! Hundreds of connections send a byte a second: headers (44), bodies (45).
use super::{case::Case, raw, scene::Scene, traffic::percentile};
use crate::answer::send;
use anyhow::Result;
use futures_util::future::join_all;
use std::time::{Duration, Instant};
use tokio::{io::AsyncWriteExt, net::TcpStream};

const SLOW: usize = 400;
/// Headers have to be there within 10 s.
const CLOSED_WITHIN: Duration = Duration::from_secs(20);
const TIMEOUT_S: u64 = 8;
const OTHERS_P99: Duration = Duration::from_millis(250);

pub async fn run(scene: &Scene<'_>, case: &mut Case) -> Result<()> {
    let server = scene
        .serve(&[("REQUEST_TIMEOUT", &TIMEOUT_S.to_string())])
        .await?;
    let user = server.sign_up().await?;
    let body = "POST /auth/v1/signup HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{";
    let slow = [
        ("headers", "GET /health/live HTTP/1.1\r\nHost: x\r\nX-A: "),
        ("bodies", body),
    ];
    for (what, beginning) in slow {
        let began = Instant::now();
        let dripping = join_all((0..SLOW).map(|_| drip(server.port, beginning)));
        let others = async {
            let mut times = vec![];
            while began.elapsed() < Duration::from_secs(6) {
                let answer =
                    send(server.request(reqwest::Method::GET, "/auth/v1/user", &user.token)).await;
                if answer.status == 200 {
                    times.push(answer.took);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            times.sort_unstable();
            times
        };
        let (ends, times) = tokio::join!(dripping, others);
        let open: Vec<_> = ends
            .iter()
            .filter(|(_, closed)| !closed)
            .map(|_| "left open".to_owned())
            .collect();
        case.none(format!("{SLOW} slow {what} are ended within 20 s"), &open);
        let wrong: Vec<_> = ends
            .iter()
            .flat_map(|(heard, _)| raw::statuses(heard))
            .filter(|status| *status != 408)
            .map(|status| status.to_string())
            .collect();
        case.none(format!("slow {what} hear 408 or nothing"), &wrong);
        let p99 = percentile(&times, 0.99);
        case.check(
            format!("others are served meanwhile ({what})"),
            !times.is_empty() && p99 < OTHERS_P99,
            format!(
                "p99 {:.1} ms of {}",
                p99.as_secs_f64() * 1000.0,
                times.len()
            ),
        );
    }
    Ok(())
}

/// What came back, and whether the server ended it.
async fn drip(port: u16, beginning: &str) -> (String, bool) {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else {
        return (String::new(), true);
    };
    let began = Instant::now();
    let mut heard = String::new();
    let _ = stream.write_all(beginning.as_bytes()).await;
    while began.elapsed() < CLOSED_WITHIN {
        let (part, closed) = raw::hear(&mut stream, Duration::from_secs(1)).await;
        heard += &part;
        if closed || stream.write_all(b"a").await.is_err() {
            return (heard, true);
        }
    }
    (heard, false)
}
