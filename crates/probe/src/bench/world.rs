//! Whom the server asks, and the way to it without the server, each in a process of its own.
use super::{
    Bench, load,
    process::{Process, free_port},
};
use anyhow::{Context, Result, bail};
use std::time::{Duration, Instant};
use url::Url;

const PATIENCE: Duration = Duration::from_secs(60);

/// The simulated world outside the server.
pub struct World {
    _process: Process,
    /// Of its language model, as an OpenAI base URL.
    pub url: String,
    pub port: u16,
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

/// The bare way to the provider.
pub struct Proxy {
    pub process: Process,
    pub port: u16,
}

impl Proxy {
    pub async fn start(bench: &Bench, world: &World) -> Result<Self> {
        let (folder, port) = (bench.scratch.fresh("proxy")?, free_port()?);
        let mut process = Process::start(&std::env::current_exe()?, &folder, |command| {
            command.args(["bare", "proxy", &port.to_string(), &world.url]);
        })?;
        let started = Instant::now();
        while load::connect(port).await.is_err() {
            if process.has_ended() || started.elapsed() > PATIENCE {
                let said = process.last_words();
                bail!("the bare proxy does not start. It said:\n{said}");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(Self { process, port })
    }
}
