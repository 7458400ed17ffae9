//! Webhooks of Stripe, RevenueCat and SendGrid: from bytes, headers, secrets and the time to a verified,
//! read event.
//!
//! Two steps, in this order. `verify` takes the raw body exactly as it came and says whether the
//! provider signed it; only then does `read` parse it. Nothing here does I/O, knows the time or
//! decides what an event means for a customer.
//!
//! ```
//! use webhooks::stripe;
//!
//! let body = br#"{"id":"evt_1","object":"event","type":"ping","created":1794999995,
//!                 "livemode":false,"data":{"object":{}}}"#;
//! let header = stripe::sign(body, "whsec_example", 1_795_000_000);
//!
//! stripe::verify(body, Some(&header), &["whsec_example"], 1_795_000_004, stripe::TOLERANCE_S)?;
//! assert_eq!(stripe::read(body)?.kind, "ping");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![deny(missing_docs)]

mod json;
mod open_enum;
pub mod revenuecat;
pub mod sendgrid;
pub mod signature;
pub mod stripe;

use sha2::{Digest, Sha256};

/// Why a delivery was refused. Says nothing of the body or of a secret, so it can be logged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no secret to verify with: without one, nothing is ever accepted.
    #[error("no webhook secret is configured: set one before receiving deliveries")]
    NotConfigured,
    /// A header that a configured check needs did not come.
    #[error(
        "a header to verify is missing: check that the provider sends it and no proxy drops it"
    )]
    MissingHeader,
    /// The signature header does not follow the grammar of [`signature`]; the text says how.
    #[error("the signature header cannot be read ({0}): check that no proxy rewrites it")]
    MalformedHeader(&'static str),
    /// The signature is genuine and older than the tolerance: a replay, or a wrong clock.
    #[error("the signature is {age_s} s old: check this machine's clock, or have it sent again")]
    TooOld {
        /// Seconds since the provider signed.
        age_s: i64,
    },
    /// The signature is genuine and further ahead than the tolerance: a wrong clock.
    #[error("the signature is {ahead_s} s ahead: check this machine's clock")]
    FromTheFuture {
        /// Seconds until the time the provider signed.
        ahead_s: i64,
    },
    /// No configured secret made any of the signatures.
    #[error(
        "no configured secret signed this body: check the secret, and that the body is verified as the bytes that came"
    )]
    WrongSignature,
    /// The `Authorization` header carries none of the configured values.
    #[error(
        "the Authorization header is not a configured value: copy it from the provider's dashboard"
    )]
    WrongAuthorization,
}

/// What a secret is called where it may not be shown: 8 hex digits of its SHA-256.
#[must_use]
pub fn key_id(secret: &str) -> String {
    hex::encode(&Sha256::digest(secret)[..4])
}

impl Refused {
    /// A stable word for metrics and scripts.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotConfigured => "not_configured",
            Self::MissingHeader => "missing_header",
            Self::MalformedHeader(_) => "malformed_header",
            Self::TooOld { .. } => "too_old",
            Self::FromTheFuture { .. } => "from_the_future",
            Self::WrongSignature => "wrong_signature",
            Self::WrongAuthorization => "wrong_authorization",
        }
    }
}

/// A verified body that is not an event we can read, and which member is wrong. Names members,
/// never their values. Sending it again cannot help: answer 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the body is not an event that can be read: {0}")]
pub struct Unreadable(pub String);
