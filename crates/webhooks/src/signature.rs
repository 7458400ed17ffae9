//! Timestamped HMAC-SHA256 in one header, `t=<unix seconds>,v1=<hex>[,v1=<hex>…]`, as Stripe
//! (<https://docs.stripe.com/webhooks#verify-manually>) and RevenueCat
//! (<https://www.revenuecat.com/docs/integrations/webhooks#webhook-signature-verification-hmac>)
//! send it.
//!
//! The signature is `HMAC-SHA256(secret, "<t>.<raw body>")` in lower-case hex, with the whole
//! secret text as the key. There is one `v1` for each secret that is active while one is rotated.
//!
//! The official SDKs disagree about odd headers, so this accepts only what all of them do: parts
//! of one `key=value` each without blanks, exactly one `t` of 1 to 12 digits, and at least one
//! `v1` of 64 hex digits. Unknown keys are skipped: Stripe sends a fake `v0` in test mode. Unlike
//! the SDKs it bounds `t` in the future too.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq};

use crate::Refused;

/// A genuine header is about 80 bytes for each active secret.
const MAX_HEADER_BYTES: usize = 4096;
/// Bounds the comparisons a stranger can ask for.
const MAX_SIGNATURES: usize = 32;
const SIGNATURE_HEX_DIGITS: usize = 64;

/// Which of `secrets` signed `body` within `tolerance_s` seconds of `now`, before or after.
///
/// `header` is the signature header, `now` in unix seconds. A blank secret never matches; when
/// there is no other, nothing is configured.
pub fn verify(
    body: &[u8],
    header: Option<&str>,
    secrets: &[impl AsRef<str>],
    now: i64,
    tolerance_s: i64,
) -> Result<usize, Refused> {
    if all_blank(secrets) {
        return Err(Refused::NotConfigured);
    }
    let header = Header::parse(header.ok_or(Refused::MissingHeader)?)?;
    let secret = find_secret(secrets, |secret| header.is_signed_with(secret, body))
        .ok_or(Refused::WrongSignature)?;

    // The age comes last: it then only ever reports a genuine signature, which makes it a sign of
    // a replay or of a clock that is off rather than of noise.
    let age_s = now.saturating_sub(header.signed_at);
    let ahead_s = header.signed_at.saturating_sub(now);
    if age_s > tolerance_s {
        Err(Refused::TooOld { age_s })
    } else if ahead_s > tolerance_s {
        Err(Refused::FromTheFuture { ahead_s })
    } else {
        Ok(secret)
    }
}

/// The header that a provider with this `secret` sends with `body` at `at` (unix seconds).
pub fn sign(body: &[u8], secret: &str, at: i64) -> String {
    format!("t={at},v1={}", hex_hmac(secret, at, body))
}

/// Whether there is nothing in `secrets` to verify with.
pub(crate) fn all_blank(secrets: &[impl AsRef<str>]) -> bool {
    secrets.iter().all(|secret| is_blank(secret.as_ref()))
}

/// The first of `secrets` that `is_match` confirms. A blank one is never it.
///
/// Every secret is tried before anyone looks at a result, so the time this takes does not tell
/// how close a guess came.
pub(crate) fn find_secret(
    secrets: &[impl AsRef<str>],
    is_match: impl Fn(&str) -> Choice,
) -> Option<usize> {
    let matches: Vec<Choice> = secrets
        .iter()
        .map(AsRef::as_ref)
        .map(|secret| is_match(secret) & Choice::from(u8::from(!is_blank(secret))))
        .collect();
    matches.into_iter().position(bool::from)
}

/// Left empty in a configuration: anyone can sign with it.
fn is_blank(secret: &str) -> bool {
    secret.trim().is_empty()
}

/// What a well-formed header says.
struct Header<'a> {
    signed_at: i64,
    /// The `v1` values that can be signatures at all, as sent.
    signatures: Vec<&'a str>,
}

impl<'a> Header<'a> {
    fn parse(header: &'a str) -> Result<Self, Refused> {
        if header.len() > MAX_HEADER_BYTES {
            return Err(Refused::MalformedHeader("longer than 4 KiB"));
        }

        let mut signed_at = None;
        let mut signatures = Vec::new();
        for part in header.split(',') {
            match part.split_once('=') {
                Some((_, value)) if value.contains('=') => {
                    return Err(Refused::MalformedHeader("a part with more than one ="));
                }
                Some(("t", _)) if signed_at.is_some() => {
                    return Err(Refused::MalformedHeader("more than one t"));
                }
                Some(("t", digits)) => signed_at = Some(unix_seconds(digits)?),
                Some(("v1", signature)) => signatures.push(signature),
                Some(_) => {}
                None => return Err(Refused::MalformedHeader("a part without =")),
            }
        }
        if signatures.len() > MAX_SIGNATURES {
            return Err(Refused::MalformedHeader("more than 32 v1"));
        }
        // Junk beside a good signature is no harm: every SDK lets it pass.
        signatures.retain(|signature| is_signature(signature));
        if signatures.is_empty() {
            return Err(Refused::MalformedHeader(
                "no v1 of 64 lower-case hex digits",
            ));
        }

        Ok(Self {
            signed_at: signed_at.ok_or(Refused::MalformedHeader("no t"))?,
            signatures,
        })
    }

    fn is_signed_with(&self, secret: &str, body: &[u8]) -> Choice {
        let expected = hex_hmac(secret, self.signed_at, body);
        self.signatures
            .iter()
            .map(|signature| signature.as_bytes().ct_eq(expected.as_bytes()))
            .fold(Choice::from(0), |any, matches| any | matches)
    }
}

/// A sign, a leading zero or a fraction would be signed as other text than the number we check.
fn unix_seconds(digits: &str) -> Result<i64, Refused> {
    let canonical = matches!(digits.len(), 1..=12)
        && digits.bytes().all(|b| b.is_ascii_digit())
        && (digits == "0" || !digits.starts_with('0'));
    digits
        .parse()
        .ok()
        .filter(|_| canonical)
        .ok_or(Refused::MalformedHeader("t is not 1 to 12 digits"))
}

fn is_signature(value: &str) -> bool {
    value.len() == SIGNATURE_HEX_DIGITS
        && value
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn hex_hmac(secret: &str, at: i64, body: &[u8]) -> String {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(at.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}
