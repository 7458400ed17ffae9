//! From exec to ready, the size of the binary, and memory at rest.
use super::{
    Bench,
    process::free_port,
    report::{Figure, Report},
    server::{self, Server},
    stats::Spread,
};
use anyhow::{Result, bail};
use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    time::{Duration, Instant},
};

const STARTS: usize = 15;
const AIM_MS: f64 = 100.0;
const AIM_MIB: f64 = 30.0;
const MIB: f64 = 1024.0 * 1024.0;
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks: bounds what measuring adds.
const LOOK_EVERY: Duration = Duration::from_micros(200);

pub async fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let mut times = vec![];
    for number in 0..=STARTS {
        let folder = bench.scratch.fresh("start")?;
        let port = free_port()?;
        let started = Instant::now();
        let process = server::launch(bench, &folder, port, None, &[], &[])?;
        let ready = tokio::task::spawn_blocking(move || ready(port, started)).await?;
        let Some(took) = ready else {
            bail!(
                "plinth does not get ready. It said:\n{}",
                process.last_words()
            );
        };
        process.stop().await?;
        // The first one reads the binary from disk.
        if number > 0 {
            times.push(took.as_secs_f64() * 1000.0);
        }
    }
    let figure = |what: &str, unit, value, samples, aim| Figure {
        scenario: "start",
        what: what.into(),
        unit,
        value,
        samples,
        aim,
    };
    let value = Spread::of(times);
    report.figure(figure(
        "exec to ready, no data yet",
        "ms",
        value,
        STARTS,
        Some(AIM_MS),
    ));

    let size = std::fs::metadata(&bench.plinth)?.len() as f64 / MIB;
    report.figure(figure(
        "size of the binary",
        "MiB",
        Spread::of([size]),
        1,
        None,
    ));

    let server = Server::start(bench, "start", None, &[], &[]).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let idle = server.process.rss()? as f64 / MIB;
    report.figure(figure(
        "RSS at rest, 2 s after",
        "MiB",
        Spread::of([idle]),
        1,
        Some(AIM_MIB),
    ));
    Ok(())
}

/// When the first 200 came. Blocks: tokio's timers are too coarse for this.
fn ready(port: u16, started: Instant) -> Option<Duration> {
    while started.elapsed() < PATIENCE {
        if is_ready(port).unwrap_or(false) {
            return Some(started.elapsed());
        }
        std::thread::sleep(LOOK_EVERY);
    }
    None
}

fn is_ready(port: u16) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream
        .write_all(b"GET /health/ready HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    Ok(&status == b"HTTP/1.1 200")
}
