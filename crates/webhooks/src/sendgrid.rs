//! SendGrid's signed event webhook: what became of mails.
//! <https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/getting-started-event-webhook-security-features>
//!
//! The signature is ECDSA over P-256 and SHA-256, of the timestamp's text followed by the raw body. The
//! key that verifies is public, and shown where signing is switched on.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::json::Object;
use crate::open_enum::open_enum;
use crate::{Refused, Unreadable};

/// Carries the signature of a delivery, in base64.
pub const SIGNATURE_HEADER: &str = "x-twilio-email-event-webhook-signature";
/// Carries the unix seconds that are signed with the body.
pub const TIMESTAMP_HEADER: &str = "x-twilio-email-event-webhook-timestamp";
/// How far a signature's time may be off, in seconds. SendGrid tries for a day to deliver, and does not say
/// that it signs anew each time.
pub const TOLERANCE_S: i64 = 24 * 3600 + 300;

/// What stands before the point in the DER of a public key of P-256: RFC 5480, section 2.
const SPKI_OF_P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Which of `keys` signed `body` within `tolerance_s` seconds of `now`, before or after. A key is the text
/// that SendGrid shows: base64 of its DER.
pub fn verify(
    body: &[u8],
    signature: Option<&str>,
    timestamp: Option<&str>,
    keys: &[impl AsRef<str>],
    now: i64,
    tolerance_s: i64,
) -> Result<usize, Refused> {
    let points: Vec<_> = keys.iter().map(|key| point(key.as_ref())).collect();
    if points.iter().all(Option::is_none) {
        return Err(Refused::NotConfigured);
    }
    let (signature, timestamp) = signature.zip(timestamp).ok_or(Refused::MissingHeader)?;
    let signature = STANDARD
        .decode(signature)
        .map_err(|_| Refused::MalformedHeader("the signature is not base64"))?;
    let is_number =
        matches!(timestamp.len(), 1..=12) && timestamp.bytes().all(|b| b.is_ascii_digit());
    let signed_at: i64 =
        timestamp
            .parse()
            .ok()
            .filter(|_| is_number)
            .ok_or(Refused::MalformedHeader(
                "the timestamp is not 1 to 12 digits",
            ))?;

    let signed = [timestamp.as_bytes(), body].concat();
    let made_by = |point: &Option<Vec<u8>>| {
        let key = point
            .as_ref()
            .map(|point| UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point));
        key.is_some_and(|key| key.verify(&signed, &signature).is_ok())
    };
    let key = points
        .iter()
        .position(made_by)
        .ok_or(Refused::WrongSignature)?;
    let age_s = now.saturating_sub(signed_at);
    if age_s > tolerance_s {
        Err(Refused::TooOld { age_s })
    } else if -age_s > tolerance_s {
        Err(Refused::FromTheFuture { ahead_s: -age_s })
    } else {
        Ok(key)
    }
}

/// Whether this is a key that can verify.
pub fn is_key(key: &str) -> bool {
    point(key).is_some()
}

fn point(key: &str) -> Option<Vec<u8>> {
    let der = STANDARD.decode(key.trim()).ok()?;
    let point = der.strip_prefix(&SPKI_OF_P256)?;
    (point.len() == 65 && point[0] == 4).then(|| point.to_vec())
}

open_enum! {
    /// What became of a mail.
    pub enum Kind {
        /// The address does not exist, or its server will not have it.
        Bounce = "bounce",
        /// The reader called it spam.
        SpamReport = "spamreport",
        /// SendGrid did not send it, because of what became of an earlier one.
        Dropped = "dropped",
        /// The reader wants none any more.
        Unsubscribe = "unsubscribe",
        /// It is there.
        Delivered = "delivered",
        /// Its server did not take it yet.
        Deferred = "deferred",
    }
}

/// One event of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: Kind,
    /// Whom the mail was for.
    pub email: String,
    /// Of a bounce: `bounce` for good, `blocked` for now.
    pub bounce: Option<String>,
}

impl Event {
    /// Whether writing there again can only do harm.
    pub fn ends_it(&self) -> bool {
        match self.kind {
            Kind::Bounce => self.bounce.as_deref() != Some("blocked"),
            Kind::SpamReport => true,
            _ => false,
        }
    }
}

/// Reads a verified body: a list of events. One that names no address is skipped.
pub fn read(body: &[u8]) -> Result<Vec<Event>, Unreadable> {
    let body: Value = crate::json::parse(body)?;
    let events = body
        .as_array()
        .ok_or_else(|| Unreadable("it is not a list".into()))?;
    let mut read = Vec::new();
    for event in events {
        let event = Object::root(event)?;
        let Some(email) = event.text("email")? else {
            continue;
        };
        read.push(Event {
            kind: event.required("event", Object::text)?.into(),
            email,
            bounce: event.text("type")?,
        });
    }
    Ok(read)
}
