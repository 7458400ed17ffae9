//! pgbench, which asks PostgreSQL as directly as can be.
use super::{load::Turn, process::Process};
use anyhow::{Context, Result, bail};
use std::{
    path::Path,
    time::{Duration, Instant},
};
use url::Url;

/// Runs `script.sql` of the folder for so long.
pub async fn run(folder: &Path, database: &Url, clients: usize, turn: Duration) -> Result<Turn> {
    let logs = bench_logs(folder)?;
    for log in logs {
        std::fs::remove_file(log)?;
    }
    let (clients, seconds) = (clients.to_string(), turn.as_secs().max(1).to_string());
    let started = Instant::now();
    let mut process = Process::start(Path::new("pgbench"), folder, |command| {
        command
            .args([
                "-n",
                "-c",
                &clients,
                "-j",
                "2",
                "-T",
                &seconds,
                "-f",
                "script.sql",
                "-l",
            ])
            .arg(database.as_str());
    })?;
    while !process.has_ended() {
        if started.elapsed() > turn + Duration::from_secs(60) {
            bail!("pgbench does not end");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (said, latencies) = (process.last_words(), latencies(folder)?);
    let rate = tps(&said).filter(|_| !latencies.is_empty());
    let rate = rate.with_context(|| format!("pgbench did nothing. It said:\n{said}"))?;
    Ok(Turn {
        // By its own count, without the time to connect.
        elapsed: Duration::from_secs_f64(latencies.len() as f64 / rate.max(f64::EPSILON)),
        latencies,
        cpu: None,
        rss: None,
    })
}

/// Transactions a second, says pgbench.
fn tps(said: &str) -> Option<f64> {
    let line = said.lines().find_map(|line| line.strip_prefix("tps = "))?;
    line.split_whitespace().next()?.parse().ok()
}

fn bench_logs(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    let files = std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path()));
    let files: Vec<_> = files.collect::<Result<_, _>>()?;
    let is_log = |file: &std::path::PathBuf| {
        file.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("pgbench_log."))
    };
    Ok(files.into_iter().filter(is_log).collect())
}

/// The third field of each line: <https://www.postgresql.org/docs/15/pgbench.html#id-1.9.4.11.9.8>.
fn latencies(folder: &Path) -> Result<Vec<u32>> {
    let mut latencies = vec![];
    for log in bench_logs(folder)? {
        let text = std::fs::read_to_string(log)?;
        latencies.extend(
            text.lines()
                .filter_map(|line| line.split_whitespace().nth(2)?.parse::<u32>().ok()),
        );
    }
    Ok(latencies)
}

#[cfg(test)]
mod tests {
    use super::tps;

    #[test]
    fn pgbench_is_understood() {
        let said =
            "latency average = 4.2 ms\ntps = 1943.331853 (without initial connection time)\n";
        assert_eq!(tps(said), Some(1943.331853));
        assert_eq!(tps("connection refused"), None);
    }
}
