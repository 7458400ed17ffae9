//! A Redis of our own, to be broken.
use crate::process::{Process, Scratch, signal};
use anyhow::{Context, Result, bail};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

pub struct Redis {
    program: PathBuf,
    folder: PathBuf,
    port: u16,
    process: Option<Process>,
}

impl Redis {
    pub fn installed() -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let names = ["redis-server", "valkey-server"];
        std::env::split_paths(&path)
            .flat_map(|folder| names.map(|name| folder.join(name)))
            .find(|program| program.is_file())
    }

    /// One that is not started yet.
    pub fn new(program: &Path, scratch: &Scratch, port: u16) -> Result<Self> {
        Ok(Self {
            program: program.to_owned(),
            folder: scratch.fresh("redis")?,
            port,
            process: None,
        })
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Starts it, and returns when it answers.
    pub async fn up(&mut self) -> Result<()> {
        let port = self.port.to_string();
        let process = Process::start(&self.program, &self.folder, |command| {
            command.args(["--bind", "127.0.0.1", "--port", &port]);
            command.args(["--save", "", "--appendonly", "no"]);
        })?;
        self.process = Some(process);
        for _ in 0..200 {
            if self
                .say("PING")
                .await
                .is_ok_and(|said| said.starts_with("+PONG"))
            {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        bail!("Redis does not start");
    }

    pub async fn down(&mut self) -> Result<()> {
        match self.process.take() {
            Some(process) => process.stop().await,
            None => Ok(()),
        }
    }

    pub fn freeze(&self) -> Result<()> {
        signal("STOP", self.process.as_ref().map(Process::pid))
    }

    pub fn thaw(&self) -> Result<()> {
        signal("CONT", self.process.as_ref().map(Process::pid))
    }

    /// An inline command, and its answer as it comes:
    /// <https://redis.io/docs/latest/develop/reference/protocol-spec/#inline-commands>.
    pub async fn say(&self, command: &str) -> Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        stream
            .write_all(format!("{command}\r\n").as_bytes())
            .await?;
        let mut answer = [0; 4096];
        let read = stream.read(&mut answer);
        let length = tokio::time::timeout(Duration::from_secs(2), read).await;
        let length = length.context("Redis does not answer")??;
        Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
    }
}
