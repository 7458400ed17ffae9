//! Sign-ins with a password: how many, what a flood of them does to everybody else, and what it costs
//! to know who asks.
use super::{
    Bench, bare,
    load::{self, Load, Turn},
    report::{Figure, Report},
    server::Server,
    stats::{Spread, percentile},
};
use crate::person::User;
use anyhow::{Result, bail};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, header};
use serde_json::json;
use std::{process::Stdio, time::Duration};
use tokio::process::Command;

/// More than there are cores, so that none of them rests.
const CLIENTS: usize = 16;
const AIM: f64 = 0.95;
/// Of the value at rest.
const AIM_OF_THE_REST: f64 = 2.0;
/// Who looks on asks so often, which is no load.
const LOOK_EVERY: Duration = Duration::from_millis(5);

pub async fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let server = Server::start(bench, "sign-ins", None, &[], &[]).await?;
    let user = server.sign_up().await?;
    rate(bench, report, &server, &user).await?;
    for (what, request) in [
        ("/health/live", get("/health/live", None)?),
        ("an authenticated GET", get("/auth/v1/user", Some(&user))?),
    ] {
        beside_a_flood(bench, report, &server, &user, what, &request).await?;
    }
    knowing_who(bench, report, &server, &user).await
}

async fn rate(bench: &Bench, report: &mut Report, server: &Server, user: &User) -> Result<()> {
    let mut flood = Load::open(server.port, CLIENTS).await?;
    let request = sign_in(user)?;
    let turns = bench.compare(
        "sign-ins",
        async |turn| server.measured(flood.run(turn, |_| request.clone())).await,
        async |turn| argon2(turn).await,
    );
    report.compare("sign-ins", "Argon2id", AIM, &turns.await?);
    Ok(())
}

async fn argon2(turn: Duration) -> Result<Turn> {
    let mut probe = Command::new(std::env::current_exe()?);
    probe
        .args(["bare", "argon2"])
        .arg(turn.as_millis().to_string());
    let output = probe.kill_on_drop(true).stderr(Stdio::inherit()).output();
    let output = output.await?;
    if !output.status.success() {
        bail!("the bare loop failed");
    }
    Ok(serde_json::from_slice::<bare::Stored>(&output.stdout)?.into())
}

/// How long a request takes at rest, and during a flood of sign-ins, in turns.
async fn beside_a_flood(
    bench: &Bench,
    report: &mut Report,
    server: &Server,
    user: &User,
    what: &str,
    request: &Request<Full<Bytes>>,
) -> Result<()> {
    let mut flood = Load::open(server.port, CLIENTS).await?;
    let mut looks_on = load::connect(server.port).await?;
    let sign_in = sign_in(user)?;
    let (mut ratios, mut at_rest, mut in_flood) = (vec![], vec![], vec![]);
    for _ in 0..bench.rounds {
        let rest = load::paced(&mut looks_on, LOOK_EVERY, bench.turn, request).await?;
        let (beside, _) = tokio::try_join!(
            load::paced(&mut looks_on, LOOK_EVERY, bench.turn, request),
            flood.run(bench.turn, |_| sign_in.clone()),
        )?;
        let (rest, beside) = (p99_ms(rest), p99_ms(beside));
        ratios.push(beside / rest.max(f64::EPSILON));
        at_rest.push(rest);
        in_flood.push(beside);
    }
    let mut figure = |of: &str, unit, values: Vec<f64>, aim| {
        report.figure(Figure {
            scenario: "sign-ins",
            what: format!("p99 of {what} {of}"),
            unit,
            samples: values.len(),
            value: Spread::of(values),
            aim,
        });
    };
    figure("at rest", "ms", at_rest, None);
    figure("during a flood of sign-ins", "ms", in_flood, None);
    figure(
        "during the flood, of that at rest",
        "×",
        ratios,
        Some(AIM_OF_THE_REST),
    );
    Ok(())
}

fn p99_ms(turn: Turn) -> f64 {
    let mut latencies = turn.latencies;
    latencies.sort_unstable();
    f64::from(percentile(&latencies, 0.99)) / 1000.0
}

/// What a request takes more of the CPU because it has to be known who asks: the signature of the
/// token, and its session in the database.
async fn knowing_who(
    bench: &Bench,
    report: &mut Report,
    server: &Server,
    user: &User,
) -> Result<()> {
    let mut load = Load::open(server.port, bench.connections).await?;
    let (anyone, known) = (
        get("/health/live", None)?,
        get("/api/assistants", Some(user))?,
    );
    let mut costs = vec![];
    for _ in 0..bench.rounds {
        let of_anyone = server
            .measured(load.run(bench.turn, |_| anyone.clone()))
            .await?;
        let of_known = server
            .measured(load.run(bench.turn, |_| known.clone()))
            .await?;
        costs.push(cpu_us(&of_known) - cpu_us(&of_anyone));
    }
    report.figure(Figure {
        scenario: "sign-ins",
        what: "CPU of a request more, to know who asks".into(),
        unit: "µs",
        samples: costs.len(),
        value: Spread::of(costs),
        aim: None,
    });
    Ok(())
}

/// CPU time of one request.
fn cpu_us(turn: &Turn) -> f64 {
    let cpu = turn.cpu.unwrap_or_default();
    cpu.as_secs_f64() * 1e6 / turn.latencies.len().max(1) as f64
}

fn sign_in(user: &User) -> Result<Request<Full<Bytes>>> {
    let body = json!({"email": user.email, "password": user.password}).to_string();
    let request = Request::post("/auth/v1/token?grant_type=password")
        .header(header::HOST, "127.0.0.1")
        .header(header::CONTENT_TYPE, "application/json");
    Ok(request.body(body.into())?)
}

fn get(path: &str, user: Option<&User>) -> Result<Request<Full<Bytes>>> {
    let mut request = Request::get(path).header(header::HOST, "127.0.0.1");
    if let Some(user) = user {
        request = request.header(header::AUTHORIZATION, format!("Bearer {}", user.token));
    }
    Ok(request.body(Full::default())?)
}
