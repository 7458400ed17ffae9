use sqlx::error::ErrorKind;

/// What a database function gives.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The database failed. Rows that are absent or taken are values (`Option`, `bool`), not errors.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A statement failed; names the function that holds it.
    #[error("{statement}: {source}")]
    Statement {
        /// `module::function` of the statement.
        statement: &'static str,
        /// What the engine said.
        source: sqlx::Error,
    },
    /// Connecting, beginning or committing failed.
    #[error(transparent)]
    Connection(#[from] sqlx::Error),
    /// The statement that a caller's work was part of failed.
    #[error(transparent)]
    Shared(std::sync::Arc<Error>),
    /// The database cannot be opened or used as it is; the text says what to do.
    #[error("{0}")]
    Refused(String),
}

impl Error {
    /// Whether the database could not be reached or could not take the work just now: the caller
    /// did nothing wrong and may try again.
    pub fn is_unavailable(&self) -> bool {
        let source = match self {
            Self::Statement { source, .. } | Self::Connection(source) => source,
            Self::Shared(error) => return error.is_unavailable(),
            Self::Refused(_) => return false,
        };
        match source {
            sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::Io(_)
            // A connection that broke in the middle of a message, or of a beginning.
            | sqlx::Error::Protocol(_)
            | sqlx::Error::BeginFailed
            | sqlx::Error::Tls(_)
            | sqlx::Error::WorkerCrashed => true,
            // Class 08 connection, 53 resources, 57 shutdown and cancel, 25006 read only
            // (https://www.postgresql.org/docs/15/errcodes-appendix.html); SQLITE_BUSY 5,
            // READONLY 8, IOERR 10, FULL 13, CANTOPEN 14 with their extended codes in the high bytes.
            sqlx::Error::Database(e) => e.code().is_some_and(|code| match code.parse::<u32>() {
                Ok(n) if code.len() < 5 => matches!(n & 0xff, 5 | 8 | 10 | 13 | 14),
                _ => matches!(code.get(..2), Some("08" | "53" | "57")) || code == "25006",
            }),
            _ => false,
        }
    }

    /// Whether a unique index said no. For a race that the database itself decides; ordinary
    /// «already there» is `on conflict do nothing returning`, an `Option`.
    pub(crate) fn is_unique_violation(&self) -> bool {
        match self {
            Self::Statement { source, .. } => source
                .as_database_error()
                .is_some_and(|e| matches!(e.kind(), ErrorKind::UniqueViolation)),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_broke_is_a_database_that_is_away() {
        let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        for source in [
            sqlx::Error::Io(reset),
            sqlx::Error::Protocol("unexpected message".into()),
            sqlx::Error::BeginFailed,
        ] {
            assert!(Error::from(source).is_unavailable());
        }
        assert!(!Error::from(sqlx::Error::RowNotFound).is_unavailable());
    }
}
