//! Open answers: what they weigh, how evenly they flow, and what the way through the server adds to the
//! first token and to each. What it is compared with is the provider itself, and a bare proxy to it: on
//! a small machine all of them share the cores, and the proxy tells what that alone comes to.
use super::{
    Bench,
    load::connect,
    process::open_files_limit,
    report::{Figure, Report},
    server::Server,
    stats::{Spread, percentile},
    stream::{Stream, ask, first_of},
    world::{Proxy, World},
};
use crate::person::User;
use anyhow::{Context, Result};
use bytes::Bytes;
use futures_util::{StreamExt, future::try_join_all, stream::FuturesUnordered};
use http_body_util::Full;
use hyper::Request;
use std::time::{Duration, Instant};

type Ask = Request<Full<Bytes>>;

/// So many at a time.
const OPEN: [usize; 2] = [1_000, 5_000];
/// Each costs us one file, and the server two.
const FILES_EACH: u64 = 3;
const AT_ONCE: usize = 64;
/// One token a second for longer than it takes to open and watch them all.
const PACE: Duration = Duration::from_secs(1);
const LONG: &str = "sim-gap-1000-tokens-200";
/// Tokens of each that are waited for.
const WATCHED: usize = 10;
/// 20 tokens in 0.4 s: many beginnings, and a machine that is not busy with the rest.
const SHORT: &str = "sim-gap-20-tokens-20";
/// Without a pause: what each takes is all there is.
const BURST: &str = "sim-gap-0-tokens-1000";
const BURST_TOKENS: f64 = 1000.0;
const BURSTS: usize = 20;
const PATIENCE: Duration = Duration::from_secs(60);
const MIB: f64 = 1024.0 * 1024.0;

pub async fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let world = match &bench.world {
        Some(_) => Some(World::start(bench).await?),
        None => {
            report.skip("streams, what is added to tokens: needs the simulated world in a process of its own, --world PATH (cargo build --release -p sim --example world)");
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
    for open in OPEN {
        // Memory that others took before would be counted with it.
        let server = Server::start(bench, "streams", None, &[], environment).await?;
        let user = server.sign_up().await?;
        server.make_pro(&user).await?;
        many(report, &server, &user, open, world.is_none()).await?;
    }

    let Some(world) = &world else { return Ok(()) };
    let server = Server::start(bench, "streams", None, &[], environment).await?;
    let user = server.sign_up().await?;
    server.make_pro(&user).await?;
    let proxy = Proxy::start(bench, world).await?;
    let ways = Ways {
        ours: (server.port, user.token.as_str()),
        proxy: (proxy.port, "sk-simulated"),
        direct: (world.port, "sk-simulated"),
    };
    first_token(bench, report, &ways).await?;
    each_token(bench, report, &ways).await
}

fn figure(what: String, unit: &'static str, samples: usize, value: Spread) -> Figure {
    Figure {
        scenario: "streams",
        what,
        unit,
        value,
        samples,
        aim: None,
    }
}

async fn many(
    report: &mut Report,
    server: &Server,
    user: &User,
    count: usize,
    has_model: bool,
) -> Result<()> {
    let files = FILES_EACH * count as u64 + if has_model { 2 * count as u64 } else { 100 };
    if open_files_limit() < files {
        report.skip(format!(
            "streams, {count} at a time: needs {files} open files (ulimit -n {files})"
        ));
        return Ok(());
    }
    let request = ask(LONG, &user.token)?;
    // Not all in one moment: what they weigh is asked, not how they are taken in.
    let mut open = vec![];
    first_of(server.port, &request).await?;
    let before = server.process.rss()?;
    for _ in 0..count / 50 {
        let some = try_join_all((0..50).map(|_| first_of(server.port, &request))).await?;
        open.extend(some);
    }
    let mut reading: FuturesUnordered<_> = open.iter_mut().map(watch).collect();
    let (mut late, mut samples) = (vec![], vec![]);
    let watched = async {
        let mut looked = tokio::time::interval(PACE);
        loop {
            tokio::select! {
                gaps = reading.next() => match gaps {
                    Some(gaps) => late.extend(gaps?),
                    None => return Ok(()),
                },
                _ = looked.tick() => samples.push(server.process.rss()? as f64),
            }
        }
    };
    let watched: Result<Result<()>, _> = tokio::time::timeout(PATIENCE, watched).await;
    watched.context("a stream fell silent")??;

    let inside = if has_model { ", model included" } else { "" };
    let rss = Spread::of(samples.iter().map(|sample| sample / MIB));
    let what = format!("RSS with {count} open{inside}");
    report.figure(figure(what, "MiB", samples.len(), rss));
    let each = |sample: &f64| (sample - before as f64) / 1024.0 / count as f64;
    let each = Spread::of(samples.iter().map(each));
    let what = format!("of it for each of {count}{inside}");
    report.figure(figure(what, "KiB", samples.len(), each));
    late.sort_unstable();
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        let value = Spread::of([f64::from(percentile(&late, share)) / 1000.0]);
        let what = format!("off a token's time, {name}, {count} open, one a second each");
        report.figure(figure(what, "ms", late.len(), value));
    }
    Ok(())
}

/// Microseconds by which each token comes sooner or later after the last than its pace.
async fn watch(stream: &mut Stream) -> Result<Vec<u32>> {
    stream.read_on().await?;
    let (mut last, mut off) = (Instant::now(), vec![]);
    for _ in 0..WATCHED {
        stream.read_on().await?;
        let gap = last.elapsed();
        last = Instant::now();
        off.push(u32::try_from(gap.abs_diff(PACE).as_micros()).unwrap_or(u32::MAX));
    }
    Ok(off)
}

/// Port and key of each way to the same words.
struct Ways<'a> {
    ours: (u16, &'a str),
    proxy: (u16, &'a str),
    direct: (u16, &'a str),
}

impl Ways<'_> {
    /// What `measure` finds on each way: through the server, through the proxy, and straight.
    async fn each(
        &self,
        model: &str,
        measure: impl AsyncFn(u16, &Ask) -> Result<Vec<u32>>,
    ) -> Result<[Vec<u32>; 3]> {
        let mut found = [vec![], vec![], vec![]];
        let ways = [self.ours, self.proxy, self.direct];
        let names = ["through the server", "through the proxy", "straight"];
        for (found, ((port, key), name)) in found.iter_mut().zip(ways.into_iter().zip(names)) {
            let request = ask(model, key)?;
            *found = measure(port, &request).await.context(name)?;
            found.sort_unstable();
        }
        Ok(found)
    }
}

/// In turns on each way.
async fn first_token(bench: &Bench, report: &mut Report, ways: &Ways<'_>) -> Result<()> {
    let warm_up = Duration::from_secs(1);
    let warm = async |port, request: &Ask| turn(port, request, warm_up).await;
    ways.each(SHORT, warm).await?;
    let (mut direct, mut proxy, mut added, mut tails) = (vec![], vec![], vec![], vec![]);
    for round in 0..bench.rounds {
        let measure = async |port, request: &Ask| turn(port, request, bench.turn).await;
        let [ours, proxied, straight] = ways.each(SHORT, measure).await?;
        let at = |times: &[u32], share| f64::from(percentile(times, share)) / 1000.0;
        direct.push(at(&straight, 0.5));
        proxy.push(at(&proxied, 0.5) - at(&straight, 0.5));
        added.push(at(&ours, 0.5) - at(&straight, 0.5));
        tails.push(at(&ours, 0.95) - at(&straight, 0.95));
        eprintln!(
            "streams: round {} of {}: {:.2} ms added to the first token, {:.2} ms by a bare proxy",
            round + 1,
            bench.rounds,
            added[added.len() - 1],
            proxy[proxy.len() - 1],
        );
    }
    for (what, values) in [
        ("provider's time to the first token", direct),
        ("added to it by a bare proxy, p50", proxy),
        ("added to it, p50", added),
        ("added to it, p95", tails),
    ] {
        let (what, samples) = (format!("{what}, {AT_ONCE} streams"), values.len());
        report.figure(figure(what, "ms", samples, Spread::of(values)));
    }
    Ok(())
}

/// One stream at a time, as fast as it comes: what each token takes on its way.
async fn each_token(bench: &Bench, report: &mut Report, ways: &Ways<'_>) -> Result<()> {
    let (mut direct, mut proxy, mut ours) = (vec![], vec![], vec![]);
    for _ in 0..bench.rounds {
        let measure = async |port, request: &Ask| burst(port, request).await;
        let found = ways.each(BURST, measure).await?;
        let [through, proxied, straight] =
            found.map(|times| f64::from(percentile(&times, 0.5)) / BURST_TOKENS);
        direct.push(straight);
        proxy.push(proxied - straight);
        ours.push(through - straight);
    }
    for (what, values) in [
        ("a token of the provider's, of 1,000 at once", direct),
        ("added to each by a bare proxy", proxy),
        ("added to each", ours),
    ] {
        let samples = values.len();
        report.figure(figure(what.into(), "µs", samples, Spread::of(values)));
    }
    Ok(())
}

/// Microseconds from the first token to the last, of one stream after the other.
async fn burst(port: u16, request: &Ask) -> Result<Vec<u32>> {
    let mut connection = connect(port).await?;
    let mut times = vec![];
    for _ in 0..BURSTS {
        let mut stream = Stream::open(&mut connection, request).await?;
        let first = Instant::now();
        let last = stream.drain().await?;
        times.push(u32::try_from((last - first).as_micros()).unwrap_or(u32::MAX));
    }
    Ok(times)
}

/// Streams one after the other on so many connections; microseconds to each first token.
async fn turn(port: u16, request: &Ask, turn: Duration) -> Result<Vec<u32>> {
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
    Ok(times.context("a stream does not end")??.concat())
}
