//! What is measured when it is asked for, and not when it changes.
use crate::App;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{LazyLock, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

/// Sets them all to what is so now.
pub async fn measure(app: &App) {
    let pool = app.db.pool_state();
    for (state, n) in [
        ("idle", pool.idle),
        ("used", pool.open.saturating_sub(pool.idle)),
        ("max", pool.max),
    ] {
        metrics::gauge!("db_pool_connections", "state" => state).set(n);
    }
    metrics::gauge!("app_build_info", "version" => app.config.core.app_version.clone()).set(1);
    jobs(app).await;
    crate::backup::measure(app).await;
    metrics::gauge!("llm_open_streams").set(app.streams.count() as f64);
    process();
}

async fn jobs(app: &App) {
    static SEEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if let Ok(rows) = db::jobs::backlog(&app.db, app.now()).await {
        let rows = rows.into_iter().map(|row| {
            let overdue_s = app.now().since(row.oldest_due_at).as_secs_f64();
            (row.kind, (row.waiting as f64, overdue_s))
        });
        let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
        for (kind, (waiting, overdue_s)) in with_those_that_are_done(&mut seen, rows.collect()) {
            metrics::gauge!("jobs_waiting", "kind" => kind.clone()).set(waiting);
            metrics::gauge!("jobs_oldest_due_seconds", "kind" => kind).set(overdue_s);
        }
    }
    if let Ok((dead,)) = db::jobs::count_dead(&app.db).await {
        metrics::gauge!("jobs_dead").set(dead as f64);
    }
}

/// The backlog by kind, and nothing of each kind that had one and has none any more: a gauge stays at
/// what it was last told.
fn with_those_that_are_done(
    seen: &mut BTreeSet<String>,
    mut backlog: BTreeMap<String, (f64, f64)>,
) -> BTreeMap<String, (f64, f64)> {
    for kind in seen.iter() {
        backlog.entry(kind.clone()).or_insert((0.0, 0.0));
    }
    seen.extend(backlog.keys().cloned());
    backlog
}

/// When this process began, as far as is known here.
static BEGAN: LazyLock<f64> = LazyLock::new(|| {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
});

/// At the start, so that it is the start's time that is told.
pub fn begin() {
    LazyLock::force(&BEGAN);
}

/// By the names that Prometheus' own clients use. Where there is no `/proc`, only when it began.
fn process() {
    metrics::gauge!("process_start_time_seconds").set(*BEGAN);
    let resident = std::fs::read_to_string("/proc/self/smaps_rollup").ok();
    if let Some(bytes) = resident.as_deref().and_then(resident_bytes) {
        metrics::gauge!("process_resident_memory_bytes").set(bytes);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        metrics::gauge!("process_open_fds").set(open.count() as f64);
    }
}

fn resident_bytes(rollup: &str) -> Option<f64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_of_jobs_that_are_all_done_is_told_as_none() {
        let mut seen = BTreeSet::new();
        let of = |rows: &[(&str, f64)]| -> BTreeMap<_, _> {
            let row = |(kind, waiting): &(&str, f64)| ((*kind).to_owned(), (*waiting, 60.0));
            rows.iter().map(row).collect()
        };

        let first = with_those_that_are_done(&mut seen, of(&[("mail", 3.0), ("purge", 1.0)]));
        let then = with_those_that_are_done(&mut seen, of(&[("purge", 2.0)]));

        assert_eq!(first["mail"], (3.0, 60.0));
        assert_eq!(then["mail"], (0.0, 0.0));
        assert_eq!(then["purge"], (2.0, 60.0));
    }

    #[test]
    fn memory_is_read_as_linux_writes_it() {
        let rollup =
            "55d0-7ffd ---p 00000000 00:00 0 [rollup]\nRss:               31616 kB\nPss: 1 kB\n";
        assert_eq!(resident_bytes(rollup), Some(31_616.0 * 1024.0));
        assert_eq!(resident_bytes(""), None);
    }
}
