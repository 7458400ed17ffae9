//! What is left when something breaks. Each fault is a file: it breaks one thing and says what has to hold.
mod case;
mod dice;
mod disconnects;
mod disk_full;
mod drain;
mod few_files;
mod file_deleted;
mod half_open;
mod hostile_requests;
mod late_database;
mod llm;
mod log_pipe;
mod mailbox;
mod migration_killed;
mod migrations_together;
mod plinth;
mod postgres;
mod postgres_full;
mod postgres_hangs;
mod postgres_restarts;
mod raw;
mod redis;
mod redis_gone;
mod rotation;
mod scene;
mod sender;
mod slow_readers;
mod slow_requests;
mod storm;
mod story;
mod stripe_down;
mod traffic;
mod two_instances;
mod wire;

use crate::process::Scratch;
use anyhow::{Result, bail};
use case::Case;
use clap::ValueEnum;
use postgres::Postgres;
use redis::Redis;
use scene::Scene;
use serde::Serialize;
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

/// Breaks what a server stands on, and looks from outside at what must hold all the same.
///
/// Starts the server, PostgreSQL and Redis itself, on free loopback ports, in a folder that is removed in
/// the end. Exit code 1 when anything did not hold.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to break; everything when nothing is named.
    #[arg(value_name = "NAME", value_enum)]
    pub faults: Vec<Fault>,

    /// The server's binary. Default: `plinth` beside this one.
    #[arg(long, value_name = "PATH")]
    pub server: Option<PathBuf>,

    /// Where PostgreSQL's programs are. Default: the newest that is installed.
    #[arg(long, value_name = "DIR")]
    pub postgres_bin: Option<PathBuf>,

    /// On this engine alone.
    #[arg(long, value_enum)]
    pub engine: Option<Engine>,

    /// Deliveries of `storm`.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    pub events: u32,

    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    Sqlite,
    Postgres,
}

impl std::fmt::Display for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    /// 10,000 deliveries of Stripe and RevenueCat, 30 % of them repeated, shuffled, while the
    /// server is killed twelve times.
    Storm,
    /// Stripe's API cannot be reached, or never answers.
    StripeDown,
    /// PostgreSQL is restarted under load, then crashes.
    PostgresRestarts,
    /// PostgreSQL stands still for 12 s.
    PostgresHangs,
    /// Others use up PostgreSQL's connections.
    PostgresFull,
    /// The connections to PostgreSQL are open, and nothing comes through.
    HalfOpen,
    /// PostgreSQL comes up 50 s after the server.
    LateDatabase,
    /// Redis is away at the start, hangs, forgets everything, goes and comes back.
    RedisGone,
    /// The disk is full.
    DiskFull,
    /// SQLite's file is deleted.
    FileDeleted,
    /// The language model fails in 29 ways.
    Llm,
    /// Clients leave in the middle of an answer, 1,000 times.
    Disconnects,
    /// Clients ask for answers that they do not read.
    SlowReaders,
    /// Headers and bodies of a byte a second.
    SlowRequests,
    /// Request smuggling, and headers without end.
    HostileRequests,
    /// SIGTERM while answers are streamed.
    Drain,
    /// One of two instances is killed.
    TwoInstances,
    /// Four instances start at once on an empty database.
    MigrationsTogether,
    /// The server is killed while it migrates, ten times.
    MigrationKilled,
    /// Signing keys and JWT_SECRET are replaced under load.
    Rotation,
    /// More connections than the process may open files.
    FewFiles,
    /// Nobody reads the log; then it is closed.
    LogPipe,
}

/// What all faults share.
pub struct Setup {
    plinth: PathBuf,
    postgres: Option<PathBuf>,
    redis: Option<PathBuf>,
    events: usize,
    scratch: Scratch,
}

/// For one fault: what takes longer is stuck.
const PATIENCE: Duration = Duration::from_secs(1800);

/// `true`: whatever could be tried held.
pub async fn run(args: Args) -> Result<bool> {
    let beside = std::env::current_exe()?.with_file_name("plinth");
    let setup = Setup {
        plinth: args.server.unwrap_or(beside),
        postgres: args.postgres_bin.or_else(Postgres::installed),
        redis: Redis::installed(),
        events: args.events as usize,
        scratch: Scratch::new(None)?,
    };
    if !setup.plinth.is_file() {
        bail!(
            "there is no server at {}: build it, or say --server PATH",
            setup.plinth.display()
        );
    }
    let faults = match &*args.faults {
        [] => Fault::value_variants(),
        named => named,
    };
    let mut cases = vec![];
    let all = async {
        for fault in faults {
            for engine in fault.engines() {
                if args.engine.is_none_or(|only| only == *engine) {
                    cases.push(fault.happen(&setup, *engine).await);
                }
            }
        }
    };
    let stopped = tokio::select! {
        () = all => None,
        // Dropping the fault ends its processes.
        signal = crate::process::stopped() => Some(signal),
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&cases)?);
    } else {
        case::print(&cases);
    }
    if let Some(signal) = stopped {
        bail!("stopped by {signal}");
    }
    Ok(cases.iter().all(Case::held))
}

impl Fault {
    fn engines(self) -> &'static [Engine] {
        match self {
            Self::PostgresRestarts
            | Self::PostgresHangs
            | Self::PostgresFull
            | Self::HalfOpen
            | Self::LateDatabase
            | Self::TwoInstances
            | Self::MigrationsTogether => &[Engine::Postgres],
            // What breaks in front of the database, or is a file.
            Self::DiskFull
            | Self::FileDeleted
            | Self::SlowReaders
            | Self::SlowRequests
            | Self::HostileRequests
            | Self::FewFiles
            | Self::LogPipe => &[Engine::Sqlite],
            _ => &[Engine::Sqlite, Engine::Postgres],
        }
    }

    /// Of PostgreSQL's configuration.
    fn settings(self) -> &'static [&'static str] {
        match self {
            Self::PostgresFull => postgres_full::SETTINGS,
            _ => &[],
        }
    }

    async fn happen(self, setup: &Setup, engine: Engine) -> Case {
        let name = self
            .to_possible_value()
            .map(|name| name.get_name().to_owned());
        let (started, mut case) = (Instant::now(), Case::new(name.unwrap_or_default(), engine));
        eprintln!("{}, {engine}", case.fault);
        let tried = tokio::time::timeout(PATIENCE, self.try_on(setup, engine, &mut case)).await;
        match tried {
            Ok(Ok(())) => {}
            Ok(Err(error)) => case.check("it can be tried", false, format!("{error:#}")),
            Err(_) => case.check("it comes to an end", false, "it is stuck"),
        }
        case.took_ms = started.elapsed().as_millis();
        case
    }

    async fn try_on(self, setup: &Setup, engine: Engine, case: &mut Case) -> Result<()> {
        if engine == Engine::Postgres && setup.postgres.is_none() {
            case.skip("needs PostgreSQL: --postgres-bin DIR");
            return Ok(());
        }
        let scene = Scene::set(setup, engine, self.settings()).await?;
        let tried = match self {
            Self::Storm => storm::run(&scene, case).await,
            Self::StripeDown => stripe_down::run(&scene, case).await,
            Self::PostgresRestarts => postgres_restarts::run(&scene, case).await,
            Self::PostgresHangs => postgres_hangs::run(&scene, case).await,
            Self::PostgresFull => postgres_full::run(&scene, case).await,
            Self::HalfOpen => half_open::run(&scene, case).await,
            Self::LateDatabase => late_database::run(&scene, case).await,
            Self::RedisGone => redis_gone::run(&scene, case).await,
            Self::DiskFull => disk_full::run(&scene, case).await,
            Self::FileDeleted => file_deleted::run(&scene, case).await,
            Self::Llm => llm::run(&scene, case).await,
            Self::Disconnects => disconnects::run(&scene, case).await,
            Self::SlowReaders => slow_readers::run(&scene, case).await,
            Self::SlowRequests => slow_requests::run(&scene, case).await,
            Self::HostileRequests => hostile_requests::run(&scene, case).await,
            Self::Drain => drain::run(&scene, case).await,
            Self::TwoInstances => two_instances::run(&scene, case).await,
            Self::MigrationsTogether => migrations_together::run(&scene, case).await,
            Self::MigrationKilled => migration_killed::run(&scene, case).await,
            Self::Rotation => rotation::run(&scene, case).await,
            Self::FewFiles => few_files::run(&scene, case).await,
            Self::LogPipe => log_pipe::run(&scene, case).await,
        };
        scene.look_back(case);
        tried
    }
}
