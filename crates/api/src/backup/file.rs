//! Files that backups are made of: their names, their sums, and what is half done.
use anyhow::Context;
use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use db::Timestamp;
use sha2::{Digest, Sha256};
use std::{
    fs::{File, OpenOptions},
    io::{self, BufReader, Read, Write},
    num::NonZeroU32,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

const BEGINNING: &str = "plinth-";
pub const SQLITE: &str = ".sqlite3.gz";
pub const POSTGRES: &str = ".dump";
/// What is kept whatever its age: a clock that jumped, or months without a backup, leave something.
const ALWAYS: usize = 7;

/// A backup's name says when it was taken, and of what.
pub fn name(now: Timestamp, sqlite: bool) -> String {
    let at = DateTime::from_timestamp(now.unix(), 0).unwrap_or_default();
    let end = if sqlite { SQLITE } else { POSTGRES };
    format!("{BEGINNING}{}{end}", at.format("%Y%m%dT%H%M%SZ"))
}

/// `None` for what is no backup of ours.
pub fn taken_at(name: &str) -> Option<DateTime<Utc>> {
    let rest = name.strip_prefix(BEGINNING)?;
    let at = [SQLITE, POSTGRES]
        .iter()
        .find_map(|end| rest.strip_suffix(end))?;
    let at = NaiveDateTime::parse_from_str(at, "%Y%m%dT%H%M%SZ").ok()?;
    Some(at.and_utc())
}

/// Those that may go, of names from the newest to the oldest.
pub fn outdated(names: &[String], now: Timestamp, keep_days: NonZeroU32) -> Vec<&String> {
    let now = DateTime::from_timestamp(now.unix(), 0).unwrap_or_default();
    let oldest = now - TimeDelta::days(keep_days.get().into());
    names
        .iter()
        .skip(ALWAYS)
        .filter(|name| taken_at(name).is_some_and(|at| at < oldest))
        .collect()
}

pub fn checksum_of(name: &str) -> String {
    format!("{name}.sha256")
}

/// As `sha256sum` writes it, so that `sha256sum --check` reads it.
pub fn checksum_line(sha256: &str, name: &str) -> String {
    format!("{sha256}  {name}\n")
}

pub fn read_checksum(line: &str) -> Option<String> {
    let sha256 = line.split_whitespace().next()?.to_lowercase();
    (sha256.len() == 64).then_some(sha256)
}

/// A file that is removed unless it is kept: what was cut off leaves nothing that looks like a backup.
pub struct Unfinished(Option<PathBuf>);

impl Unfinished {
    /// A hidden name beside `path`. What is left of one that was killed is from another second, or wiped.
    pub fn beside(path: &Path, ending: &str) -> io::Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let unfinished = path.with_file_name(format!(".{name}.{ending}"));
        match std::fs::remove_file(&unfinished) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(Self(Some(unfinished))),
        }
    }

    pub fn path(&self) -> &Path {
        self.0.as_deref().unwrap_or(Path::new(""))
    }

    /// Nobody else on this machine may read it: it holds everybody's data.
    pub fn create(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.path())
    }

    /// It becomes `to`, and is there after a power cut too.
    pub fn keep_as(mut self, to: &Path) -> io::Result<()> {
        let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(self.path())?.sync_all()?;
        std::fs::rename(self.path(), to)?;
        self.0 = None;
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

const CHUNK: usize = 256 * 1024;

/// What a file's sum is now.
pub fn sha256(path: &Path) -> anyhow::Result<String> {
    let mut file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; CHUNK]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(hash.finalize())),
            n => hash.update(&buffer[..n]),
        }
    }
}

/// What is in a file, by how it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Sqlite,
    SqliteGzip,
    Postgres,
}

impl Form {
    pub fn of(path: &Path) -> anyhow::Result<Self> {
        let mut first = [0; 16];
        let mut file =
            File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        let n = file.read(&mut first)?;
        Ok(match &first[..n] {
            [0x1f, 0x8b, ..] => Self::SqliteGzip,
            first if first.starts_with(b"SQLite format 3\0") => Self::Sqlite,
            first if first.starts_with(b"PGDMP") => Self::Postgres,
            _ => anyhow::bail!(
                "{} is no backup: neither a SQLite file ({SQLITE}) nor pg_dump's custom format ({POSTGRES})",
                path.display()
            ),
        })
    }
}

/// Packs a file, giving the pieces to `give` until it takes no more.
pub fn pack(path: &Path, give: impl FnMut(Vec<u8>) -> io::Result<()>) -> io::Result<()> {
    let mut from = File::open(path)?;
    let pieces = Pieces {
        give,
        piece: Vec::with_capacity(CHUNK),
    };
    // Level 3 packs twice as fast as the usual 6, into a tenth more.
    let mut gzip = flate2::write::GzEncoder::new(pieces, flate2::Compression::new(3));
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer)? {
            0 => break,
            n => gzip.write_all(&buffer[..n])?,
        }
    }
    gzip.finish()?.flush()
}

/// Takes a file out of its packing. A cut or changed one is an error: gzip has a sum of its own.
pub fn unpack(path: &Path, mut to: impl Write) -> io::Result<u64> {
    let from = BufReader::with_capacity(CHUNK, File::open(path)?);
    let mut gzip = flate2::bufread::MultiGzDecoder::new(from);
    let mut buffer = vec![0; CHUNK];
    let mut bytes = 0;
    loop {
        match gzip.read(&mut buffer)? {
            0 => break,
            n => {
                to.write_all(&buffer[..n])?;
                bytes += n as u64;
            }
        }
    }
    to.flush()?;
    Ok(bytes)
}

struct Pieces<F> {
    give: F,
    piece: Vec<u8>,
}

impl<F: FnMut(Vec<u8>) -> io::Result<()>> Write for Pieces<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let next = Vec::with_capacity(CHUNK);
        match std::mem::replace(&mut self.piece, next) {
            piece if piece.is_empty() => Ok(()),
            piece => (self.give)(piece),
        }
    }
}
