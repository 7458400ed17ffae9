//! RevenueCat's webhooks: purchases in the app stores.
//! <https://www.revenuecat.com/docs/integrations/webhooks>

mod event;
mod kind;
mod subscriber;

pub use event::{Adjustment, Event, read, without_renewal_count};
pub use kind::Kind;
pub use subscriber::{Purchase, Subscriber, read_subscriber};

pub use crate::signature::sign;

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::Refused;
use crate::signature::{self, all_blank, find_secret};

/// Carries the signature of a delivery, when signing is switched on in the dashboard.
pub const SIGNATURE_HEADER: &str = "x-revenuecat-webhook-signature";
/// RevenueCat's advice for how far a signature's time may be off, in seconds.
pub const TOLERANCE_S: i64 = 300;

/// What to verify deliveries with: either way alone, or both. Lists, so that a secret can be
/// replaced while deliveries with the old one are still on their way.
///
/// An empty list switches its check off. A list of nothing but blank secrets does not: it was
/// meant to check something, so it refuses all deliveries.
#[derive(Clone, Copy)]
pub struct Secrets<'a, S = String> {
    /// Values of the `Authorization` header as set in the dashboard, with or without `Bearer `.
    pub authorization: &'a [S],
    /// Signing secrets of the integration.
    pub signing: &'a [S],
}

/// Checks a delivery in every way that is configured.
///
/// Returns the index of the secret that matched: in `secrets.signing` when that is configured,
/// else in `secrets.authorization`. `authorization` and `signature` are the two headers, `now` is
/// in unix seconds, and `tolerance_s` is for the signature.
pub fn verify<S: AsRef<str>>(
    body: &[u8],
    authorization: Option<&str>,
    signature: Option<&str>,
    secrets: &Secrets<'_, S>,
    now: i64,
    tolerance_s: i64,
) -> Result<usize, Refused> {
    // Both checks run before either is looked at, so the time taken does not tell which one failed.
    let authorized = verify_authorization(authorization, secrets.authorization);
    let signed = signature::verify(body, signature, secrets.signing, now, tolerance_s);

    match (secrets.authorization, secrets.signing) {
        ([], []) => Err(Refused::NotConfigured),
        (_, []) => authorized,
        ([], _) => signed,
        _ => authorized.and(signed),
    }
}

fn verify_authorization<S: AsRef<str>>(
    header: Option<&str>,
    secrets: &[S],
) -> Result<usize, Refused> {
    if all_blank(secrets) {
        return Err(Refused::NotConfigured);
    }
    let header = header.ok_or(Refused::MissingHeader)?;
    let token = bearer_token(header).unwrap_or(header);

    find_secret(secrets, |secret| {
        same_text(secret, header) | same_text(secret, token)
    })
    .ok_or(Refused::WrongAuthorization)
}

/// RevenueCat sends the dashboard's value as it is; people enter it with and without the scheme.
fn bearer_token(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim_start())
}

/// Compares digests: the time taken does not tell where, or by how much in length, two texts differ.
fn same_text(a: &str, b: &str) -> Choice {
    Sha256::digest(a)
        .as_slice()
        .ct_eq(Sha256::digest(b).as_slice())
}
