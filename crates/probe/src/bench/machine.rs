//! Where it was measured: figures without their machine say nothing.
use serde::Serialize;
use std::{path::Path, time::SystemTime};

#[derive(Debug, Serialize)]
pub struct Machine {
    pub cores: usize,
    pub cpu: String,
    pub kernel: String,
    /// Of the folder with the databases.
    pub filesystem: String,
    /// RFC 3339, UTC.
    pub date: String,
    /// As typed, without passwords.
    pub command: String,
}

impl Machine {
    pub fn of(folder: &Path) -> Self {
        let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
        let now = chrono::DateTime::<chrono::Utc>::from(SystemTime::now());
        let arguments = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned());
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            cpu: model(&read("/proc/cpuinfo"))
                .unwrap_or("unknown")
                .to_owned(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            filesystem: filesystem(&read("/proc/self/mounts"), folder)
                .unwrap_or("unknown")
                .to_owned(),
            date: now.format("%Y-%m-%dT%H:%M:%SZ").to_string(),
            command: arguments
                .map(|argument| without_password(&argument))
                .collect::<Vec<_>>()
                .join(" "),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            cores,
            cpu,
            kernel,
            filesystem,
            date,
            command,
        } = self;
        writeln!(
            f,
            "{cores} cores, {cpu}, Linux {kernel}, {filesystem}, {date}\n{command}"
        )
    }
}

fn model(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo
        .lines()
        .find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim())
}

/// The type of the mount that holds `folder`: a memory file system would make every disk look fast.
fn filesystem<'a>(mounts: &'a str, folder: &Path) -> Option<&'a str> {
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        Some((Path::new(fields.next()?), fields.next()?))
    });
    let holding = mounts.filter(|(point, _)| folder.starts_with(point));
    Some(
        holding
            .max_by_key(|(point, _)| point.components().count())?
            .1,
    )
}

fn without_password(argument: &str) -> String {
    match url::Url::parse(argument) {
        Ok(mut url) if url.password().is_some() => {
            let _ = url.set_password(Some("***"));
            url.into()
        }
        _ => argument.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_counts() {
        let mounts = "/dev/vda / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n";
        let of = |folder| filesystem(mounts, Path::new(folder));
        assert_eq!(of("/tmp/x"), Some("tmpfs"));
        assert_eq!(of("/tmpfiles"), Some("ext4"));
    }

    #[test]
    fn passwords_are_not_reported() {
        let shown = without_password("postgres://ann:secret@127.0.0.1/test");
        assert_eq!(shown, "postgres://ann:***@127.0.0.1/test");
        assert_eq!(without_password("--rounds"), "--rounds");
    }
}
