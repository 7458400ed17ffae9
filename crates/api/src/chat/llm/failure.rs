//! What a provider's failure is to a client, and what may be tried after it.
use super::{decoder, refusal};
use crate::Error;
use serde_json::Value;
use std::time::Duration;

/// Said where a provider says nothing of it.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why there is no answer, or no more of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Its fault or the network's.
    Unavailable { retry_after: Duration },
    /// Silent for too long.
    TimedOut,
    /// It will not have this request; its words, for the user.
    Refused(String),
    /// It ended without saying that it had finished.
    Truncated,
    /// Not its doing: this process is told to end.
    Draining,
    /// Nor this: the answer was taken for abandoned, and settled as such.
    Interrupted,
}

impl Failure {
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "llm_unavailable",
            Self::TimedOut => "llm_timeout",
            Self::Refused(_) => "llm_refused",
            Self::Truncated => "llm_truncated",
            Self::Draining => "server_draining",
            Self::Interrupted => "interrupted",
        }
    }

    /// The failure of this code.
    pub fn of(code: &str) -> Self {
        match code {
            "llm_timeout" => Self::TimedOut,
            "llm_refused" => Self::Refused("The language model refused the request.".into()),
            "llm_truncated" => Self::Truncated,
            "server_draining" => Self::Draining,
            "interrupted" => Self::Interrupted,
            _ => Self::unavailable(),
        }
    }

    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::Refused(_))
    }

    pub fn unavailable() -> Self {
        Self::Unavailable {
            retry_after: RETRY_AFTER,
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unavailable { retry_after } => Self::LlmUnavailable { retry_after },
            Failure::TimedOut => Self::LlmTimeout,
            Failure::Refused(why) => Self::LlmRefused(why),
            Failure::Truncated | Failure::Draining | Failure::Interrupted => Self::LlmUnavailable {
                retry_after: RETRY_AFTER,
            },
        }
    }
}

/// An attempt that came to nothing.
#[derive(Debug, Clone)]
pub struct Failed {
    pub failure: Failure,
    pub outcome: &'static str,
    /// Whether others would fare the same: one user's odd request must not cost them theirs.
    pub is_fault: bool,
    pub next: Next,
}

/// What may be tried after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nobody would answer this.
    Nothing,
    OtherRoute,
    /// This one is refused or used up.
    OtherKey,
    /// The same again, after a pause.
    Again(Duration),
}

/// A stream that broke.
#[derive(Debug)]
pub struct Broken {
    pub failure: Failure,
    pub outcome: &'static str,
}

impl Broken {
    /// It ended, or might as well have.
    pub fn cut(outcome: &'static str) -> Self {
        Self {
            failure: Failure::Truncated,
            outcome,
        }
    }

    /// It said so itself, in the midst of its answer.
    pub fn said(error: &Value) -> Self {
        tracing::warn!(
            code = refusal::code(error),
            "a language model failed within its answer"
        );
        Self {
            failure: Failure::unavailable(),
            outcome: "error_event",
        }
    }
}

impl From<decoder::TooLarge> for Broken {
    fn from(_: decoder::TooLarge) -> Self {
        Self::cut("too_large")
    }
}
