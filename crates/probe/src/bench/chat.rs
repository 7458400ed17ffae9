//! What a question costs the server, and how soon an answer is heard on by who comes back to it.
use super::{
    Bench,
    load::{Connection, Load, Turn, connect, explained},
    report::{Figure, Report},
    server::{self, Server, create_database},
    stats::{Spread, percentile},
    stream::Stream,
    world::{Proxy, World},
};
use crate::person::User;
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures_util::future::try_join_all;
use http_body_util::{BodyExt, Full};
use hyper::{Request, header};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use url::Url;
use uuid::Uuid;

/// 20 tokens without a pause between them.
const MODEL: &str = "sim-gap-0-tokens-20";
/// Silent for long enough that what comes before its first word is not its doing.
const SLOW: &str = "sim-slow-100-gap-0-tokens-2";
/// Still being made while it is looked for again.
const LONG: &str = "/sim-gap-200-tokens-200 Tell me of the sea.";
const CONNECTIONS: usize = 8;
const RESUMED: usize = 50;
const PATIENCE: Duration = Duration::from_secs(30);

pub async fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    if bench.world.is_none() {
        report.skip("chat: needs the simulated world in a process of its own, --world PATH (cargo build --release -p sim --example world)");
        return Ok(());
    }
    let world = World::start(bench).await?;
    let secret = "0123456789abcdef".repeat(4);
    let environment = [
        ("OPENAI_BASE_URL", world.url.as_str()),
        ("OPENAI_API_KEY", "sk-simulated"),
        ("JWT_SECRET", secret.as_str()),
        // What tokens name as their issuer, wherever they are asked with.
        ("PUBLIC_URL", "http://localhost:8080"),
    ];
    let server = Server::start(bench, "chat", None, &[], &environment).await?;
    let proxy = Proxy::start(bench, &world).await?;
    for (what, streamed, aim) in [
        ("CPU of a plain request, SQLite", false, 0.6),
        ("CPU of a 22-event stream, SQLite", true, 1.2),
    ] {
        // Each measurement has a quota of its own.
        let user = server.sign_up().await?;
        server.make_pro(&user).await?;
        let (ours, bare) = cpu(bench, &server, &user, &proxy, streamed).await?;
        let ratio = Spread::of_ratios(&ours, &bare);
        let samples = ours.len();
        report.figure(figure(what, "ms", ours, Some(aim)));
        report.figure(figure("of a bare proxy for the same", "ms", bare, None));
        report.figure(Figure {
            scenario: "chat",
            what: format!("{what}, to that of a bare proxy"),
            unit: "times",
            samples,
            value: ratio,
            aim: None,
        });
    }
    let user = server.sign_up().await?;
    server.make_pro(&user).await?;
    let (middle, late) = first_bytes(bench, &server, &user).await?;
    let what = "first byte of a stream, p50, 8 at a time";
    report.figure(figure(what, "ms", middle, None));
    let what = "first byte of a stream, p99, 8 at a time";
    report.figure(figure(what, "ms", late, Some(10.0)));
    let user = server.sign_up().await?;
    let same = resumed(&server, &server, &user).await?;
    let what = "resume to the first byte, same instance, SQLite";
    report.figure(figure(what, "ms", same, Some(20.0)));

    let Some(postgres) = &bench.postgres else {
        report.skip("chat, resume at another instance: needs --postgres");
        return Ok(());
    };
    elsewhere(bench, report, postgres, &environment, None).await?;
    match &bench.redis {
        Some(redis) => elsewhere(bench, report, postgres, &environment, Some(redis)).await,
        None => {
            report.skip("chat, resume over Redis: needs --redis");
            Ok(())
        }
    }
}

/// Resumes where the answer is made, and at another instance.
async fn elsewhere(
    bench: &Bench,
    report: &mut Report,
    postgres: &Url,
    environment: &[(&str, &str)],
    redis: Option<&Url>,
) -> Result<()> {
    let (name, with) = match redis {
        Some(_) => ("chat_redis", "PostgreSQL and Redis"),
        None => ("chat", "PostgreSQL"),
    };
    let database = create_database(postgres, name).await?;
    let redis = redis.map(|redis| ("REDIS_URL", redis.as_str()));
    let environment: Vec<_> = environment.iter().copied().chain(redis).collect();
    let start =
        async |name| Server::start(bench, name, Some(database.as_str()), &[], &environment).await;
    let (here, there) = (start("chat-here").await?, start("chat-there").await?);
    let user = here.sign_up().await?;
    for (instance, at, aim) in [("same", &here, 20.0), ("another", &there, 50.0)] {
        let times = resumed(&here, at, &user).await?;
        let what = format!("resume to the first byte, {instance} instance, {with}");
        report.figure(figure(&what, "ms", times, Some(aim)));
    }
    Ok(())
}

fn figure(what: &str, unit: &'static str, values: Vec<f64>, aim: Option<f64>) -> Figure {
    Figure {
        scenario: "chat",
        what: what.into(),
        unit,
        samples: values.len(),
        value: Spread::of(values),
        aim,
    }
}

/// Milliseconds of CPU for each answer, the server's and a bare proxy's, a value a round.
async fn cpu(
    bench: &Bench,
    server: &Server,
    user: &User,
    proxy: &Proxy,
    streamed: bool,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let (ours, bare) = (
        completion(MODEL, &user.token, streamed)?,
        completion(MODEL, "sk-simulated", streamed)?,
    );
    let mut our_load = Load::open(server.port, CONNECTIONS).await?;
    let mut bare_load = Load::open(proxy.port, CONNECTIONS).await?;
    let turns = bench.compare(
        if streamed { "chat, streamed" } else { "chat" },
        async |turn| server::measured(&server.process, our_load.run(turn, |_| ours.clone())).await,
        async |turn| server::measured(&proxy.process, bare_load.run(turn, |_| bare.clone())).await,
    );
    let (ours, bare) = turns.await?;
    let spent = |turns: &[Turn]| {
        let each = |turn: &Turn| {
            let cpu = turn.cpu.context("the CPU time cannot be read")?;
            Ok(cpu.as_secs_f64() * 1000.0 / turn.latencies.len().max(1) as f64)
        };
        turns.iter().map(each).collect::<Result<Vec<f64>>>()
    };
    Ok((spent(&ours)?, spent(&bare)?))
}

/// Milliseconds until a stream's first byte, while the provider is silent: in the middle and at p99, a
/// value a round.
async fn first_bytes(bench: &Bench, server: &Server, user: &User) -> Result<(Vec<f64>, Vec<f64>)> {
    let request = completion(SLOW, &user.token, true)?;
    let (mut middle, mut late) = (vec![], vec![]);
    for _ in 0..bench.rounds {
        let deadline = Instant::now() + bench.turn;
        let loops = (0..CONNECTIONS).map(async |_| {
            let mut connection = connect(server.port).await?;
            let mut times = vec![];
            while Instant::now() < deadline {
                let sent = Instant::now();
                let mut stream = Stream::begin(&mut connection, &request).await?;
                stream.read_on().await?;
                times.push(u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX));
                stream.drain().await?;
            }
            Ok::<_, anyhow::Error>(times)
        });
        let mut times = try_join_all(loops).await?.concat();
        times.sort_unstable();
        middle.push(f64::from(percentile(&times, 0.5)) / 1000.0);
        late.push(f64::from(percentile(&times, 0.99)) / 1000.0);
    }
    Ok((middle, late))
}

fn completion(model: &str, token: &str, streamed: bool) -> Result<Request<Full<Bytes>>> {
    let body = json!({"model": model, "stream": streamed, "messages": [{"role": "user", "content": "Tell me of the sea."}]});
    request("POST", "/v1/chat/completions", token, body.to_string())
}

fn request(method: &str, path: &str, token: &str, body: String) -> Result<Request<Full<Bytes>>> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "127.0.0.1")
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::AUTHORIZATION, format!("Bearer {token}"));
    Ok(request.body(Full::from(body))?)
}

/// Milliseconds until who asks for an answer that is being made hears its first event, at `there`, while
/// `here` makes it.
async fn resumed(here: &Server, there: &Server, user: &User) -> Result<Vec<f64>> {
    // The same question again might be taken for a retry of the first.
    let question = format!("{LONG} ({})", Uuid::new_v4());
    let body = json!({"message": question, "stream": true}).to_string();
    let mut making = connect(here.port).await?;
    let asked = request("POST", "/api/chat", &user.token, body)?;
    let (first, _answer) = event(&mut making, asked).await?;
    let id = first
        .lines()
        .find_map(|line| line.strip_prefix("id: "))
        .and_then(|id| id.split('.').next())
        .context("an event without an id")?;
    let path = format!("/api/generations/{id}/events?after=0");
    let mut times = vec![];
    for _ in 0..RESUMED {
        let mut connection = connect(there.port).await?;
        let asked = request("GET", &path, &user.token, String::new())?;
        let sent = Instant::now();
        drop(event(&mut connection, asked).await?);
        times.push(sent.elapsed().as_secs_f64() * 1000.0);
    }
    let running = here.get("/api/generations?active=1", user).await?;
    if running["data"].as_array().is_none_or(Vec::is_empty) {
        bail!("the answer ended before it was resumed so often: {running}");
    }
    let path = format!("/api/generations/{id}/stop");
    let stop = request("POST", &path, &user.token, Value::Null.to_string())?;
    connect(here.port).await?.send_request(stop).await?;
    Ok(times)
}

/// The first event of an answer, and the answer, which goes on.
async fn event(
    connection: &mut Connection,
    request: Request<Full<Bytes>>,
) -> Result<(String, hyper::body::Incoming)> {
    let heard = async {
        let response = connection.send_request(request).await?;
        if response.status() != 200 {
            bail!("answered {}", explained(response).await);
        }
        let mut body = response.into_body();
        let mut text = String::new();
        while !text.contains("event: ") || !text.contains("id: ") {
            let frame = body.frame().await.context("the answer ended early")??;
            let bytes = frame.data_ref().map_or(&[][..], |data| data);
            text += &String::from_utf8_lossy(bytes);
        }
        Ok((text, body))
    };
    tokio::time::timeout(PATIENCE, heard)
        .await
        .context("no event came")?
}
