//! The process may open few files, and more connections come than that (68).
use super::{case::Case, disconnects::open_files, scene::Scene};
use anyhow::Result;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

const FILES: u64 = 64;
const CONNECTIONS: usize = 200;

pub async fn run(scene: &Scene<'_>, case: &mut Case) -> Result<()> {
    let server = scene.serve(&[]).await?;
    let user = server.sign_up().await?;
    let pid = server.process()?.pid();
    let limit = std::process::Command::new("prlimit")
        .args([format!("--pid={pid}"), format!("--nofile={FILES}:{FILES}")])
        .status();
    if !limit.is_ok_and(|status| status.success()) {
        case.skip("needs prlimit (util-linux)");
        return Ok(());
    }
    let mut open = vec![];
    for _ in 0..CONNECTIONS {
        let connecting = TcpStream::connect(("127.0.0.1", server.port));
        if let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_secs(1), connecting).await {
            open.push(stream);
        }
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    case.note(format!(
        "{} connections, {} files open of {FILES}",
        open.len(),
        open_files(pid)
    ));
    let (cpu, began) = (server.process()?.cpu()?, Instant::now());
    tokio::time::sleep(Duration::from_secs(3)).await;
    let spent =
        server.process()?.cpu()?.saturating_sub(cpu).as_secs_f64() / began.elapsed().as_secs_f64();
    case.check(
        "it does not turn in circles",
        spent < 0.3,
        format!("{:.0} % of a core", spent * 100.0),
    );
    drop(open);
    let over = Instant::now();
    let mut answer = server.get("/auth/v1/user", &user.token).await;
    while answer.status != 200 && over.elapsed() < Duration::from_secs(20) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        answer = server.get("/auth/v1/user", &user.token).await;
    }
    case.recovered(over.elapsed());
    case.check(
        "it serves again once there is room",
        answer.status == 200,
        answer.brief(),
    );
    Ok(())
}
