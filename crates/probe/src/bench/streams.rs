//! Open answers: what they weigh, and what the way through the server adds to the first token.
use super::{
    Bench,
    load::{Connection, connect, explained},
    process::{Process, open_files_limit},
    report::{Figure, Report},
    server::{Server, User},
    stats::{Spread, percentile},
};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures_util::future::try_join_all;
use http_body_util::{BodyExt, Full};
use hyper::{Request, body::Incoming, header};
use serde_json::json;
use std::time::{Duration, Instant};
use url::Url;

const OPEN: usize = 1000;
/// Each costs us one, and the server two or three: it asks the model, which may be inside it.
const FILES: u64 = 4 * OPEN as u64;
const AT_ONCE: usize = 64;
/// One token a second for 200 seconds: all are open together.
const LONG: &str = "sim-gap-1000-tokens-200";
/// 20 tokens in 0.4 s: many beginnings, and a machine that is not busy with the rest.
const SHORT: &str = "sim-gap-20-tokens-20";
const PATIENCE: Duration = Duration::from_secs(60);
const MIB: f64 = 1024.0 * 1024.0;

pub async fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let world = match &bench.world {
        Some(_) => Some(World::start(bench).await?),
        None => {
            report.skip("streams, added time to the first token: needs the simulated world in a process of its own, --world PATH (cargo build --release -p sim --example world)");
            None
        }
    };
    let provider = world.as_ref().map(|world| {
        [
            ("OPENAI_BASE_URL", world.url.as_str()),
            ("OPENAI_API_KEY", "sk-simulated"),
        ]
    });
    let environment = provider.as_ref().map_or(&[][..], |provider| &provider[..]);
    let server = Server::start(bench, "streams", None, &[], environment).await?;
    let user = server.sign_up().await?;
    server.make_pro(&user).await?;

    memory(report, &server, &user, world.is_none()).await?;
    match &world {
        Some(world) => first_token(bench, report, &server, &user, world).await,
        None => Ok(()),
    }
}

/// The simulated world outside the server.
pub struct World {
    _process: Process,
    /// Of its language model, as an OpenAI base URL.
    pub url: String,
    port: u16,
}

impl World {
    pub async fn start(bench: &Bench) -> Result<Self> {
        let world = bench.world.as_deref().context("no world")?.canonicalize()?;
        let folder = bench.scratch.fresh("world")?;
        let mut process = Process::start(&world, &folder, |_| {})?;
        let started = Instant::now();
        loop {
            let said = process.last_words();
            let url = said
                .lines()
                .find(|line| line.ends_with("/v1"))
                .map(ToOwned::to_owned);
            if let Some(url) = url {
                let port = Url::parse(&url)?.port().context("the world has no port")?;
                return Ok(Self {
                    _process: process,
                    url,
                    port,
                });
            }
            if process.has_ended() || started.elapsed() > PATIENCE {
                bail!("the simulated world does not start. It said:\n{said}");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn memory(report: &mut Report, server: &Server, user: &User, has_model: bool) -> Result<()> {
    if open_files_limit() < FILES {
        report.skip(format!(
            "streams, memory: needs {FILES} open files (ulimit -n {FILES})"
        ));
        return Ok(());
    }
    let request = ask(LONG, &user.token)?;
    // Not all in one moment: what they weigh is asked, not how they are taken in.
    let mut open = vec![];
    first_of(server.port, &request).await?;
    let before = server.process.rss()?;
    for _ in 0..OPEN / 50 {
        let some = try_join_all((0..50).map(|_| first_of(server.port, &request))).await?;
        open.extend(some);
    }
    let mut samples = vec![];
    for _ in 0..5 {
        // They are read on, as clients do.
        let reading = try_join_all(open.iter_mut().map(|stream| stream.read_on()));
        tokio::time::timeout(PATIENCE, reading)
            .await
            .context("a stream fell silent")??;
        samples.push(server.process.rss()?);
    }
    let inside = if has_model { ", model included" } else { "" };
    let figure = |what: String, unit, value| Figure {
        scenario: "streams",
        what,
        unit,
        value,
        samples: 5,
        aim: None,
    };
    let bytes = |sample: &u64| *sample as f64;
    let all = Spread::of(samples.iter().map(|sample| bytes(sample) / MIB));
    report.figure(figure(format!("RSS with {OPEN} open{inside}"), "MiB", all));
    let each = Spread::of(
        samples
            .iter()
            .map(|sample| (bytes(sample) - bytes(&before)) / 1024.0 / OPEN as f64),
    );
    report.figure(figure(
        format!("of it for each stream{inside}"),
        "KiB",
        each,
    ));
    Ok(())
}

/// In turns, through the server and straight to the provider.
async fn first_token(
    bench: &Bench,
    report: &mut Report,
    server: &Server,
    user: &User,
    world: &World,
) -> Result<()> {
    let (ours, direct) = (ask(SHORT, &user.token)?, ask(SHORT, "sk-simulated")?);
    let warm_up = Duration::from_secs(1);
    turn(server.port, &ours, warm_up).await?;
    turn(world.port, &direct, warm_up).await?;
    let (mut medians, mut tails, mut bare) = (vec![], vec![], vec![]);
    for round in 0..bench.rounds {
        let through = turn(server.port, &ours, bench.turn)
            .await
            .context("through the server")?;
        let straight = turn(world.port, &direct, bench.turn)
            .await
            .context("the provider")?;
        let at = |share| {
            let (through, straight) = (percentile(&through, share), percentile(&straight, share));
            (f64::from(through) - f64::from(straight)) / 1000.0
        };
        eprintln!(
            "streams: round {} of {}: {:.2} ms added to the first token",
            round + 1,
            bench.rounds,
            at(0.5)
        );
        medians.push(at(0.5));
        tails.push(at(0.95));
        bare.push(f64::from(percentile(&straight, 0.5)) / 1000.0);
    }
    let samples = medians.len();
    let figure = |what: &str, values: Vec<f64>| Figure {
        scenario: "streams",
        what: format!("{what}, {AT_ONCE} streams"),
        unit: "ms",
        value: Spread::of(values),
        samples,
        aim: None,
    };
    report.figure(figure("provider's time to the first token", bare));
    report.figure(figure("added to it, p50", medians));
    report.figure(figure("added to it, p95", tails));
    Ok(())
}

/// Streams one after the other on so many connections; microseconds to each first token, sorted.
async fn turn(port: u16, request: &Request<Full<Bytes>>, turn: Duration) -> Result<Vec<u32>> {
    let deadline = Instant::now() + turn;
    let loops = (0..AT_ONCE).map(async |_| {
        let mut connection = connect(port).await?;
        let mut times = vec![];
        while Instant::now() < deadline {
            let sent = Instant::now();
            let mut stream = Stream::open(&mut connection, request).await?;
            times.push(u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX));
            stream.drain().await?;
        }
        Ok::<_, anyhow::Error>(times)
    });
    let times = tokio::time::timeout(turn + PATIENCE, try_join_all(loops)).await;
    let mut times = times.context("a stream does not end")??.concat();
    times.sort_unstable();
    Ok(times)
}

/// An answer on a connection of its own, up to its first token.
async fn first_of(port: u16, request: &Request<Full<Bytes>>) -> Result<Stream> {
    let mut connection = connect(port).await?;
    let mut stream = tokio::time::timeout(PATIENCE, Stream::open(&mut connection, request))
        .await
        .context("no first token")??;
    stream.connection = Some(connection);
    Ok(stream)
}

struct Stream {
    body: Incoming,
    /// Kept open by whoever keeps the stream.
    connection: Option<Connection>,
}

impl Stream {
    /// Returns with the first token.
    async fn open(connection: &mut Connection, request: &Request<Full<Bytes>>) -> Result<Self> {
        connection.ready().await?;
        let response = connection.send_request(request.clone()).await?;
        if response.status() != 200 {
            bail!("answered {}", explained(response).await);
        }
        let mut stream = Self {
            body: response.into_body(),
            connection: None,
        };
        let mut read = vec![];
        while !has_token(&read) {
            let frame = stream
                .body
                .frame()
                .await
                .context("the answer ended before its first token")??;
            read.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        }
        Ok(stream)
    }

    async fn read_on(&mut self) -> Result<()> {
        self.body
            .frame()
            .await
            .context("the answer ended early")??;
        Ok(())
    }

    async fn drain(&mut self) -> Result<()> {
        while let Some(frame) = self.body.frame().await {
            frame?;
        }
        Ok(())
    }
}

/// A chunk whose text is not empty: the first one may hold the role alone.
fn has_token(read: &[u8]) -> bool {
    const TEXT: &[u8] = b"\"content\":\"";
    read.windows(TEXT.len() + 1)
        .any(|window| window.starts_with(TEXT) && window[TEXT.len()] != b'"')
}

fn ask(model: &str, token: &str) -> Result<Request<Full<Bytes>>> {
    let body = json!({"model": model, "stream": true, "messages": [{"role": "user", "content": "Tell me of the sea."}]});
    let request = Request::post("/v1/chat/completions")
        .header(header::HOST, "127.0.0.1")
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::AUTHORIZATION, format!("Bearer {token}"));
    Ok(request.body(Full::from(body.to_string()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_no_token() {
        let role = br#"data: {"choices":[{"delta":{"role":"assistant","content":""}}]}"#;
        let token = br#"data: {"choices":[{"delta":{"content":"The"}}]}"#;
        assert!(!has_token(b": open\n\n"));
        assert!(!has_token(role));
        assert!(has_token(&[role.as_slice(), token].concat()));
    }
}
