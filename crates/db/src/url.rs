//! `DATABASE_URL` as every provider and framework writes it.
use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// Which database, and how it is reached. `Display` never shows a password.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// A file on a volume of this machine.
    Sqlite(PathBuf),
    /// A normalised `postgres://` URL.
    Postgres(url::Url),
}

impl DatabaseUrl {
    /// Reads `sqlite:PATH`, `sqlite://PATH` (three slashes before an absolute path), a bare path,
    /// `postgres://`, `postgresql://`, and either with a driver behind a plus
    /// (`postgresql+asyncpg://`), as SQLAlchemy writes it; asyncpg's `ssl=` becomes `sslmode=`.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        let Some((scheme, rest)) = text.split_once(':').filter(|(scheme, _)| scheme.len() > 1)
        else {
            return Self::sqlite(text);
        };
        match scheme.split('+').next().unwrap_or_default() {
            "sqlite" => Self::sqlite(rest.strip_prefix("//").unwrap_or(rest)),
            "postgres" | "postgresql" => Self::postgres(&format!("postgres:{rest}")),
            other => Err(Error::Refused(format!(
                "{other}: is not a database Plinth speaks; write sqlite://data/plinth.db or postgres://user:password@host/name"
            ))),
        }
    }

    fn sqlite(path: &str) -> Result<Self> {
        let path = path.split('?').next().unwrap_or_default();
        if path.is_empty() || path.contains(":memory:") {
            return Err(Error::Refused(
                "a SQLite database needs a file, for example sqlite://data/plinth.db (one in memory would forget everything)".into(),
            ));
        }
        Ok(Self::Sqlite(path.into()))
    }

    fn postgres(text: &str) -> Result<Self> {
        let mut url = url::Url::parse(text)
            .map_err(|e| Error::Refused(format!("not a URL ({e}); write postgres://user:password@host:5432/name, with special characters of the password percent-encoded")))?;
        let ssl = url
            .query_pairs()
            .find(|(name, _)| name == "ssl")
            .map(|(_, value)| value.into_owned());
        if let Some(ssl) = ssl {
            let kept: Vec<_> = url
                .query_pairs()
                .into_owned()
                .filter(|(name, _)| name != "ssl")
                .collect();
            let mode = if ssl == "true" { "require" } else { &ssl };
            url.query_pairs_mut()
                .clear()
                .extend_pairs(kept)
                .append_pair("sslmode", mode);
        }
        Ok(Self::Postgres(url))
    }

    /// The file, for SQLite.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Sqlite(path) => Some(path),
            Self::Postgres(_) => None,
        }
    }

    /// Whether the connection crosses a network and may be in the clear: sqlx's default
    /// `sslmode=prefer` falls back to plain text without a word.
    pub fn may_be_plaintext(&self) -> bool {
        let Self::Postgres(url) = self else {
            return false;
        };
        let mode = url
            .query_pairs()
            .find(|(name, _)| name == "sslmode" || name == "ssl-mode");
        let near = match url.host() {
            Some(url::Host::Domain(host)) => host == "localhost" || host.is_empty(),
            Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
            Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
            None => true,
        };
        !near && mode.is_none_or(|(_, mode)| matches!(&*mode, "prefer" | "allow" | "disable"))
    }
}

impl std::fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
            Self::Postgres(url) => {
                let host = url.host_str().unwrap_or("localhost");
                write!(
                    f,
                    "postgres://{host}:{}{}",
                    url.port().unwrap_or(5432),
                    url.path()
                )
            }
        }
    }
}

impl std::fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl std::str::FromStr for DatabaseUrl {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}
