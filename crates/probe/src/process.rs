//! Child processes that end with us, and what the kernel says of them.
use anyhow::{Context, Result};
use std::{
    fs::File,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::process::{Child, Command};

/// What Linux counts CPU time in for `/proc`, whatever its own clock (USER_HZ).
const TICKS_PER_S: u64 = 100;

/// A folder that goes away with this.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(parent: Option<&Path>) -> Result<Self> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        let folder = parent.join(format!("probe-{}", std::process::id()));
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self(folder.canonicalize()?))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A folder in it; empty, whatever was there.
    pub fn fresh(&self, name: &str) -> Result<PathBuf> {
        let folder = self.0.join(name);
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::create_dir(&folder)?;
        Ok(folder)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A running program; killed when dropped.
pub struct Process {
    child: Child,
    pid: u32,
    output: PathBuf,
}

impl Process {
    /// Starts it in `folder`, where what it says is kept too. Of our environment it sees the PATH alone.
    pub fn start(program: &Path, folder: &Path, set_up: impl FnOnce(&mut Command)) -> Result<Self> {
        let output = folder.join("output.txt");
        // What an earlier run said must not be taken for what this one says.
        let _ = std::fs::remove_file(&output);
        let file = File::options().create(true).append(true).open(&output)?;
        let mut command = Command::new(program);
        command
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| name == "PATH" || name == "HOME"))
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .kill_on_drop(true);
        set_up(&mut command);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let pid = child.id().context("it ended at once")?;
        Ok(Self { child, pid, output })
    }

    /// The server as an operator starts it, with no more than where it listens and what is given; it
    /// does not listen yet when this returns.
    pub fn serve<'a>(
        plinth: &Path,
        folder: &Path,
        port: u16,
        environment: impl IntoIterator<Item = (&'a str, &'a str)>,
        set_up: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        let plinth = plinth.canonicalize()?;
        Self::start(&plinth, folder, |command| {
            command.envs([
                ("APP_ENV", "development"),
                ("HOST", "127.0.0.1"),
                ("PORT", &port.to_string()),
            ]);
            command.envs(environment);
            set_up(command);
        })
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Everything it said.
    pub fn said(&self) -> String {
        let said = std::fs::read(&self.output).unwrap_or_default();
        String::from_utf8_lossy(&said).into_owned()
    }

    /// The end of what it said, for who must explain why it does not work.
    pub fn last_words(&self) -> String {
        let said = self.said();
        let lines: Vec<_> = said.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Kills it, and returns when it is gone.
    pub async fn stop(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Where its output goes into pipes, nobody hears it from here on.
    pub fn close_pipes(&mut self) {
        drop((self.child.stdout.take(), self.child.stderr.take()));
    }

    /// Waits until it ends by itself.
    pub async fn ended(&mut self, within: Duration) -> Option<ExitStatus> {
        let ended = tokio::time::timeout(within, self.child.wait()).await;
        ended.ok().and_then(Result::ok)
    }

    /// CPU time of all its threads so far.
    pub fn cpu(&self) -> Result<Duration> {
        cpu_of(&self.pid.to_string())
    }

    /// Bytes of memory that are resident.
    pub fn rss(&self) -> Result<u64> {
        rss_of(&self.pid.to_string())
    }
}

/// Sends a signal, `TERM` or the like, to processes.
pub fn signal(name: &str, pids: impl IntoIterator<Item = u32>) -> Result<()> {
    let mut kill = std::process::Command::new("kill");
    kill.arg(format!("-{name}"));
    kill.args(pids.into_iter().map(|pid| pid.to_string()));
    // One that has ended meanwhile needs no signal.
    let output = kill.output().context("there is no `kill`")?;
    if !output.status.success() && name != "KILL" {
        let said = String::from_utf8_lossy(&output.stderr);
        anyhow::bail!("kill -{name}: {}", said.trim());
    }
    Ok(())
}

/// Returns when somebody wants this program to stop.
pub async fn stopped() -> &'static str {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => "Ctrl-C",
        _ = terminate.recv() => "SIGTERM",
    }
}

/// CPU time of a process, or of `self`, in user and kernel mode: proc_pid_stat(5), fields 14 and 15.
pub fn cpu_of(pid: &str) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let ticks = ticks(&stat).context("/proc/PID/stat cannot be read")?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_S))
}

fn ticks(stat: &str) -> Option<u64> {
    // The second field is a name in parentheses that may hold anything.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

pub fn rss_of(pid: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    resident(&status).context("/proc/PID/status cannot be read")
}

fn resident(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// How many files this process, and those that it starts, may have open.
pub fn open_files_limit() -> u64 {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().nth(3));
    soft.map_or(1024, |soft| soft.parse().unwrap_or(u64::MAX))
}

/// A port that nobody listens on.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

/// A port that nobody listens on, and that the kernel gives to nobody who connects: who listens there can
/// go away for a moment and come back.
pub fn steady_port() -> Result<u16> {
    for _ in 0..100 {
        let (random, _) = uuid::Uuid::new_v4().as_u64_pair();
        let port = 20_000 + u16::try_from(random % 10_000)?;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    anyhow::bail!("no port is free")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_behind_any_name() {
        let stat = "42 (a) name (b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 4 0";
        assert_eq!(ticks(stat), Some(200));
        assert_eq!(ticks("nonsense"), None);
    }

    #[test]
    fn resident_memory_is_in_bytes() {
        assert_eq!(
            resident("Name:\tx\nVmRSS:\t   12 kB\nThreads:\t1\n"),
            Some(12 * 1024)
        );
        assert_eq!(resident("Name:\tx\n"), None);
    }

    #[test]
    fn our_own_figures_can_be_read() {
        assert!(rss_of("self").unwrap() > 100_000);
        assert!(cpu_of("self").is_ok());
        assert!(open_files_limit() > 0);
    }
}
