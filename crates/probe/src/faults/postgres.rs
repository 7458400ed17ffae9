//! A PostgreSQL of our own, to be broken.
use crate::process::{Scratch, signal};
use anyhow::{Context, Result, bail};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// A cluster in a folder of its own; stopped when dropped.
pub struct Postgres {
    bin: PathBuf,
    data: PathBuf,
    port: u16,
    settings: String,
}

/// In the URL, and nowhere else: it must not turn up in a log.
pub const PASSWORD: &str = "postgres-password-of-the-probe";

impl Postgres {
    /// The newest version that is installed where Debian puts it, or the one in the PATH.
    pub fn installed() -> Option<PathBuf> {
        let mut versions: Vec<_> = std::fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
            .chain(std::env::split_paths(
                &std::env::var_os("PATH").unwrap_or_default(),
            ))
            .filter(|bin| bin.join("initdb").is_file())
            .collect();
        versions.sort();
        versions.pop()
    }

    /// `settings` are postgresql.conf's, as `max_connections=20`.
    pub fn start(bin: &Path, scratch: &Scratch, port: u16, settings: &[&str]) -> Result<Self> {
        let data = scratch.fresh("postgres")?;
        let mut all = vec![
            format!("port={port}"),
            "listen_addresses=127.0.0.1".to_owned(),
            "unix_socket_directories=".to_owned(),
        ];
        all.extend(settings.iter().map(ToString::to_string));
        let settings = all
            .iter()
            .map(|setting| format!("-c {setting}"))
            .collect::<Vec<_>>();
        let cluster = Self {
            bin: bin.to_owned(),
            data,
            port,
            settings: settings.join(" "),
        };
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(&cluster.data))?;
        }
        let words = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"];
        run(cluster.command("initdb").args(words))?;
        cluster.up()?;
        Ok(cluster)
    }

    pub fn url(&self, port: u16, database: &str) -> String {
        format!("postgres://postgres:{PASSWORD}@127.0.0.1:{port}/{database}")
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Starts it, and returns when it takes connections.
    pub fn up(&self) -> Result<()> {
        let log = self.data.join("log");
        run(self
            .command("pg_ctl")
            .args(["-w", "-t", "60", "-o", &self.settings, "-l"])
            .arg(log)
            .arg("start"))
    }

    /// Stops it: `fast` ends every session with a word, `immediate` is a crash.
    pub fn down(&self, mode: &str) -> Result<()> {
        run(self.command("pg_ctl").args(["-w", "-m", mode, "stop"]))
    }

    /// Every process of it stands still, with every socket open.
    pub fn freeze(&self) -> Result<()> {
        signal("STOP", self.processes()?)
    }

    pub fn thaw(&self) -> Result<()> {
        signal("CONT", self.processes()?)
    }

    fn processes(&self) -> Result<Vec<u32>> {
        let file = std::fs::read_to_string(self.data.join("postmaster.pid"))?;
        let first = file.lines().next().context("postmaster.pid is empty")?;
        let postmaster: u32 = first.trim().parse()?;
        let children = format!("/proc/{postmaster}/task/{postmaster}/children");
        let children = std::fs::read_to_string(children)?;
        let children = children.split_whitespace().map(str::parse);
        Ok([Ok(postmaster)]
            .into_iter()
            .chain(children)
            .collect::<Result<_, _>>()?)
    }

    /// PostgreSQL refuses to run as root.
    fn command(&self, program: &str) -> Command {
        let program = self.bin.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.arg("-D").arg(&self.data).current_dir("/");
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = self.thaw();
        let _ = self.down("immediate");
    }
}

pub fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    line.and_then(|ids| ids.split_whitespace().next()) == Some("0")
}

/// Runs it to its end, which has to be a good one.
pub fn run(command: &mut Command) -> Result<()> {
    // A server that stays inherits what it is given: a pipe would never end.
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .with_context(|| format!("cannot run {name}"))?;
    if !status.success() {
        bail!("{name} ended with {status}");
    }
    Ok(())
}
