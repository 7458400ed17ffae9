//! Where backups are.
use super::{
    Config,
    file::{self, Unfinished},
    s3::{self, Bucket},
};
use anyhow::Context;
use bytes::Bytes;
use db::Timestamp;
use std::{
    cmp::Reverse,
    fmt, io,
    num::NonZeroU32,
    path::{Path, PathBuf},
    str::FromStr,
    time::{Duration, SystemTime},
};
use tokio::{fs::File, io::AsyncWriteExt};

/// As BACKUP_URL writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlaceUrl {
    Folder(PathBuf),
    /// The prefix is empty or ends with a slash.
    S3 {
        bucket: String,
        prefix: String,
    },
}

impl FromStr for PlaceUrl {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Ok(Self::Folder(text.into()));
        };
        match scheme {
            "file" => Ok(Self::Folder(rest.into())),
            "s3" => {
                let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                let prefix = prefix.trim_matches('/');
                if bucket.is_empty() {
                    return Err("s3://bucket/prefix: the bucket is missing".into());
                }
                Ok(Self::S3 {
                    bucket: bucket.to_owned(),
                    prefix: match prefix {
                        "" => String::new(),
                        prefix => format!("{prefix}/"),
                    },
                })
            }
            _ => Err("a folder, or s3://bucket/prefix".into()),
        }
    }
}

impl fmt::Display for PlaceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => write!(f, "{}", folder.display()),
            Self::S3 { bucket, prefix } => {
                write!(f, "s3://{bucket}/{}", prefix.trim_end_matches('/'))
            }
        }
    }
}

/// A place that can be asked.
pub enum Place {
    Folder(PathBuf),
    S3(Box<Bucket>),
}

/// A backup that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub name: String,
    pub bytes: u64,
}

/// What is left of one that was killed is removed by the next, after so long.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

impl Place {
    pub fn open(url: &PlaceUrl, config: &Config) -> anyhow::Result<Self> {
        Ok(match url {
            PlaceUrl::Folder(folder) => Self::Folder(folder.clone()),
            PlaceUrl::S3 { bucket, prefix } => {
                Self::S3(Box::new(Bucket::open(bucket, prefix, config)?))
            }
        })
    }

    /// Backups, the newest first.
    pub async fn list(&self) -> anyhow::Result<Vec<Found>> {
        let mut found = match self {
            Self::Folder(folder) => in_folder(folder)
                .with_context(|| format!("cannot look into {}", folder.display()))?,
            Self::S3(bucket) => bucket.list().await?,
        };
        found.retain(|found| file::taken_at(&found.name).is_some());
        found.sort_by_key(|found| Reverse(file::taken_at(&found.name)));
        Ok(found)
    }

    /// Whether a backup could be written here now.
    pub async fn test(&self) -> anyhow::Result<()> {
        const NAME: &str = ".plinth-doctor";
        let written = Upload::begin(self, NAME).await?.finish("").await;
        self.remove(NAME).await?;
        written
    }

    /// Removes what is older than so many days. Gives what it removed.
    pub async fn prune(&self, now: Timestamp, keep: NonZeroU32) -> anyhow::Result<Vec<String>> {
        let names: Vec<_> = self
            .list()
            .await?
            .into_iter()
            .map(|found| found.name)
            .collect();
        let outdated = file::outdated(&names, now, keep);
        for name in &outdated {
            self.remove(name).await?;
        }
        if let Self::Folder(folder) = self {
            sweep(folder);
        }
        Ok(outdated.into_iter().cloned().collect())
    }

    /// The sum goes last: a backup never stands without it.
    async fn remove(&self, name: &str) -> anyhow::Result<()> {
        for name in [name.to_owned(), file::checksum_of(name)] {
            match self {
                Self::Folder(folder) => match std::fs::remove_file(folder.join(&name)) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => {
                        return Err(e).with_context(|| format!("cannot remove {name}"));
                    }
                    _ => {}
                },
                Self::S3(bucket) => bucket.remove(&name).await?,
            }
        }
        Ok(())
    }
}

fn in_folder(folder: &Path) -> io::Result<Vec<Found>> {
    let entries = match std::fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        entries => entries?,
    };
    let found = entries.map(|entry| {
        let entry = entry?;
        Ok(Found {
            name: entry.file_name().to_string_lossy().into_owned(),
            bytes: entry.metadata()?.len(),
        })
    });
    found.collect()
}

/// Removes what killed processes left half done.
pub fn sweep(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let half = [".part", ".snapshot", ".restoring"];
        let ours = name.starts_with(".plinth-") && half.iter().any(|end| name.ends_with(end));
        let age = entry.metadata().and_then(|meta| meta.modified());
        let age = age.map(|at| SystemTime::now().duration_since(at).unwrap_or_default());
        if ours && age.is_ok_and(|age| age > ABANDONED) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// A backup on its way. Dropped before it is finished, there is none.
pub enum Upload {
    Folder {
        file: File,
        part: Unfinished,
        to: PathBuf,
    },
    S3(s3::Upload),
}

impl Upload {
    pub async fn begin(place: &Place, name: &str) -> anyhow::Result<Self> {
        Ok(match place {
            Place::Folder(folder) => {
                let cannot = || format!("cannot write into {}", folder.display());
                std::fs::create_dir_all(folder).with_context(cannot)?;
                let to = folder.join(name);
                let part = Unfinished::beside(&to, "part").with_context(cannot)?;
                let file = File::from_std(part.create().with_context(cannot)?);
                Self::Folder { file, part, to }
            }
            Place::S3(bucket) => Self::S3(s3::Upload::begin(Bucket::clone(bucket), name)),
        })
    }

    pub async fn write(&mut self, piece: Bytes) -> anyhow::Result<()> {
        match self {
            Self::Folder { file, part, .. } => file
                .write_all(&piece)
                .await
                .with_context(|| format!("cannot write {}", part.path().display())),
            Self::S3(upload) => upload.write(piece).await,
        }
    }

    /// It is complete. The sum is there before the backup is.
    pub async fn finish(self, sha256: &str) -> anyhow::Result<()> {
        match self {
            Self::Folder { mut file, part, to } => {
                let name = to.file_name().unwrap_or_default().to_string_lossy();
                let sum = to.with_file_name(file::checksum_of(&name));
                let finish = async {
                    file.flush().await?;
                    drop(file);
                    let half = Unfinished::beside(&sum, "part")?;
                    let mut written = half.create()?;
                    io::Write::write_all(
                        &mut written,
                        file::checksum_line(sha256, &name).as_bytes(),
                    )?;
                    half.keep_as(&sum)?;
                    part.keep_as(&to)
                };
                finish
                    .await
                    .with_context(|| format!("cannot write {}", to.display()))
            }
            Self::S3(upload) => upload.finish(sha256).await,
        }
    }

    /// It will not be.
    pub async fn give_up(self) {
        if let Self::S3(upload) = self {
            upload.give_up().await;
        }
    }
}
