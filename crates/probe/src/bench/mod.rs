//! The server beside what the machine allows: each scenario is measured together with its bare
//! limit, in turns, so that a noisy machine is noisy to both.
pub mod bare;
mod chat;
mod ingest;
mod load;
mod machine;
mod pgbench;
mod reads;
mod refreshes;
mod report;
mod sales;
mod server;
mod sign_ins;
mod start;
mod stats;
mod stream;
mod streams;
mod world;

use crate::process;
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use report::Report;
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};
use url::Url;

/// Measures the server beside the bare limit of each scenario, on this machine alone.
///
/// Starts everything itself on free loopback ports, in a folder that is removed in the end. Server
/// and limit take turns in each round, after a warm-up; the ratio is the median of the rounds'.
/// Measure a release build, on a machine that does nothing else.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to measure; everything when none is named.
    #[arg(value_name = "SCENARIO", value_enum)]
    pub scenarios: Vec<Scenario>,

    /// The server's binary. Default: `plinth` beside this one.
    #[arg(long, value_name = "PATH")]
    pub plinth: Option<PathBuf>,

    /// The simulated world's binary (cargo build --release -p sim --example world), for `chat`
    /// and `streams`. Default: `examples/world` beside this one.
    #[arg(long, value_name = "PATH")]
    pub world: Option<PathBuf>,

    /// Turns that each side takes.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,

    /// Seconds for a turn.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,

    /// Connections of `health` and `user`, each with one request at a time.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub connections: u32,

    /// Measure on this PostgreSQL too: postgres://USER@127.0.0.1:5432/DB. Makes a database of its
    /// own there and drops it; wants pgbench in the PATH.
    #[arg(long, value_name = "URL", value_parser = loopback_postgres)]
    pub postgres: Option<Url>,

    /// Resume over this Redis too: redis://127.0.0.1:6379.
    #[arg(long, value_name = "URL", value_parser = loopback_redis)]
    pub redis: Option<Url>,

    /// Fail where a figure misses its aim by more than so many percent.
    #[arg(long, value_name = "PERCENT")]
    pub within: Option<u32>,

    /// A variable of the server's environment, for experiments. May be given several times.
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment)]
    pub set: Vec<(String, String)>,

    /// Where the databases are made: the disk decides much. Default: the folder for temporary files.
    #[arg(long, value_name = "FOLDER")]
    pub dir: Option<PathBuf>,

    /// Write the results here as JSON too.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// GET /health/live, against an axum server that does nothing else.
    Health,
    /// GET /auth/v1/user with a token, against axum with the same check and the same three reads.
    User,
    /// Sign-ins with a password, against Argon2id alone on all cores; what a flood of them does to the
    /// rest; and what it costs to know who asks.
    SignIns,
    /// Refreshes, against pgbench doing the same to the same rows.
    Refreshes,
    /// POST /webhooks/stripe, signed and unique, until it is on disk; against the bare database.
    Ingest,
    /// From exec to ready with nothing there yet; size; memory at rest.
    Start,
    /// From a signed event to the entitlement that it opens.
    Sales,
    /// CPU of an answer, plain and streamed, beside a bare proxy; how soon a stream begins, and how soon
    /// who comes back hears it on.
    Chat,
    /// Memory and pace of 1,000 and 5,000 open answers; what is added to the first token and to each.
    Streams,
}

fn assignment(text: &str) -> Result<(String, String), &'static str> {
    let assignment = text.split_once('=').filter(|(name, _)| !name.is_empty());
    assignment
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or("has to be NAME=VALUE")
}

fn loopback_postgres(text: &str) -> Result<Url, String> {
    loopback(text, &["postgres", "postgresql"])
}

fn loopback_redis(text: &str) -> Result<Url, String> {
    loopback(text, &["redis"])
}

fn loopback(text: &str, schemes: &[&str]) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    if !schemes.contains(&url.scheme()) {
        return Err(format!("has to start with {}://", schemes[0]));
    }
    // Of a scheme that is not the web's, the host is not parsed further.
    let local = url
        .host_str()
        .is_some_and(|host| matches!(host, "localhost" | "127.0.0.1" | "[::1]"));
    if local {
        Ok(url)
    } else {
        Err("has to be on this machine: 127.0.0.1".into())
    }
}

/// What every scenario is given.
struct Bench {
    plinth: PathBuf,
    world: Option<PathBuf>,
    rounds: u32,
    turn: Duration,
    connections: usize,
    postgres: Option<Url>,
    redis: Option<Url>,
    /// Of the server's environment.
    set: Vec<(String, String)>,
    scratch: process::Scratch,
}

/// Whether everything was measured, and no figure is further from its aim than `--within` allows.
pub async fn run(args: Args) -> Result<bool> {
    let beside = std::env::current_exe()?.with_file_name("");
    let bench = Bench {
        plinth: args.plinth.clone().unwrap_or_else(|| beside.join("plinth")),
        world: Some(
            args.world
                .clone()
                .unwrap_or_else(|| beside.join("examples/world")),
        )
        .filter(|world| world.is_file()),
        rounds: args.rounds,
        turn: Duration::from_secs(args.seconds),
        connections: args.connections as usize,
        postgres: args.postgres.clone(),
        redis: args.redis.clone(),
        set: args.set.clone(),
        scratch: process::Scratch::new(args.dir.as_deref())?,
    };
    if !bench.plinth.is_file() {
        bail!(
            "there is no server at {}: build it, or say --plinth PATH",
            bench.plinth.display()
        );
    }
    if args.world.is_some() && bench.world.is_none() {
        bail!("there is no simulated world at the path of --world");
    }

    let mut report = Report::new(machine::Machine::of(bench.scratch.path()));
    let finished = tokio::select! {
        measured = bench.measure(&args.scenarios, &mut report) => measured,
        // Dropping the scenario ends its processes.
        signal = process::stopped() => Err(anyhow::anyhow!("stopped by {signal}")),
    };
    if let Some(postgres) = &bench.postgres {
        server::drop_databases(postgres).await?;
    }
    // What was measured before something broke is still worth reading.
    print!("{report}");
    if let Some(file) = &args.json {
        let json = serde_json::to_string_pretty(&report)?;
        std::fs::write(file, json + "\n")
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    finished?;
    let far = args
        .within
        .map_or(vec![], |percent| report.missed_by(percent));
    for what in &far {
        eprintln!("too far from its aim: {what}");
    }
    Ok(far.is_empty())
}

impl Bench {
    async fn measure(&self, scenarios: &[Scenario], report: &mut Report) -> Result<()> {
        let scenarios = if scenarios.is_empty() {
            Scenario::value_variants()
        } else {
            scenarios
        };
        for scenario in scenarios {
            let started = Instant::now();
            match scenario {
                Scenario::Health => reads::health(self, report).await.context("health")?,
                Scenario::User => reads::user(self, report).await.context("user")?,
                Scenario::SignIns => sign_ins::run(self, report).await.context("sign-ins")?,
                Scenario::Refreshes => refreshes::run(self, report).await.context("refreshes")?,
                Scenario::Ingest => ingest::run(self, report).await.context("ingest")?,
                Scenario::Start => start::run(self, report).await.context("start")?,
                Scenario::Sales => sales::run(self, report).await.context("sales")?,
                Scenario::Chat => chat::run(self, report).await.context("chat")?,
                Scenario::Streams => streams::run(self, report).await.context("streams")?,
            }
            eprintln!("{scenario:?} took {} s", started.elapsed().as_secs());
        }
        Ok(())
    }

    /// Lets both take turns, first a warm-up that does not count. Who begins alternates.
    async fn compare(
        &self,
        scenario: &str,
        mut ours: impl AsyncFnMut(Duration) -> Result<load::Turn>,
        mut bare: impl AsyncFnMut(Duration) -> Result<load::Turn>,
    ) -> Result<(Vec<load::Turn>, Vec<load::Turn>)> {
        eprintln!("{scenario}: warm-up");
        let warm_up = self.turn.min(Duration::from_secs(1));
        ours(warm_up).await.context("the server")?;
        bare(warm_up).await.context("the bare limit")?;

        let mut turns = (vec![], vec![]);
        for round in 0..self.rounds {
            if round % 2 == 0 {
                turns.0.push(ours(self.turn).await.context("the server")?);
                turns
                    .1
                    .push(bare(self.turn).await.context("the bare limit")?);
            } else {
                turns
                    .1
                    .push(bare(self.turn).await.context("the bare limit")?);
                turns.0.push(ours(self.turn).await.context("the server")?);
            }
            let rate = |turns: &[load::Turn]| turns.last().map_or(0.0, load::Turn::per_second);
            let (ours, bare) = (rate(&turns.0), rate(&turns.1));
            eprintln!(
                "{scenario}: round {} of {}: {ours:.0}/s, bare {bare:.0}/s, ratio {:.2}",
                round + 1,
                self.rounds,
                ours / bare
            );
        }
        Ok(turns)
    }
}
