//! The relying party's half of WebAuthn: whether what a browser brings was made by an authenticator,
//! for this site, just now. Pure: bytes in, a verdict out.
//! <https://www.w3.org/TR/webauthn-3/>, sections 7.1 and 7.2.
//!
//! Attestation, what an authenticator says of its maker, is neither asked for nor believed: its
//! statement is read over, whatever its format. The key is trusted because of who registers it.
use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use subtle::ConstantTimeEq;

mod authenticator_data;
mod cose;

use authenticator_data::AuthenticatorData;
pub use cose::{ALGORITHMS, Key};

/// Longest that any part may be. Some attestation statements hold chains of certificates.
const MAX_BYTES: usize = 16 * 1024;

/// Whose credentials these are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelyingParty {
    /// A domain: credentials are bound to it, and work on it and below.
    pub id: String,
    /// Where they may be used, as browsers write origins.
    pub origins: Vec<String>,
}

/// What a ceremony has to match.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    pub party: &'a RelyingParty,
    /// As it was given out.
    pub challenge: &'a [u8],
    /// Whether the authenticator has to have checked who is there (a finger, a face, a PIN), not only that someone is.
    pub user_verified: bool,
}

/// A new credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    pub credential_id: Vec<u8>,
    /// COSE, as it came.
    pub public_key: Vec<u8>,
    pub sign_count: u32,
    /// The model of the authenticator, as far as that can be believed; often zero.
    pub aaguid: [u8; 16],
    pub user_verified: bool,
    /// Whether it can be on several devices.
    pub backup_eligible: bool,
    /// Whether it is.
    pub backed_up: bool,
}

/// What the use of a credential says besides that it is the one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asserted {
    pub sign_count: u32,
    pub user_verified: bool,
    pub backup_eligible: bool,
    pub backed_up: bool,
}

/// Why a ceremony counts for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("clientDataJSON cannot be read")]
    ClientData,
    #[error("this is the answer to another kind of request")]
    Type,
    #[error("this is the answer to another challenge")]
    Challenge,
    #[error("the origin is not one of AUTH_PASSKEY_ORIGINS")]
    Origin,
    #[error("it was made in a frame of another site")]
    CrossOrigin,
    #[error("the attestation object cannot be read")]
    Attestation,
    #[error("the authenticator's data cannot be read")]
    AuthenticatorData,
    #[error("it belongs to another site than AUTH_PASSKEY_RP_ID")]
    RelyingPartyId,
    #[error("nobody was there")]
    UserAbsent,
    #[error("the authenticator did not check who is there")]
    UserNotVerified,
    #[error("a credential that cannot be backed up cannot be")]
    Backup,
    #[error("its key is of no kind that is taken here")]
    Key,
    #[error("the signature is not by this credential")]
    Signature,
    #[error("no such credential is registered here")]
    Unknown,
    #[error("the credential is not of the user that was meant")]
    User,
    #[error("its counter fell back: it may have been copied")]
    Counter,
}

/// Judges the answer to `navigator.credentials.create()`.
pub fn register(
    expected: Expected<'_>,
    client_data: &[u8],
    attestation_object: &[u8],
) -> Result<Registered, Refused> {
    check_client_data(expected, "webauthn.create", client_data)?;
    let data = attested_data(attestation_object).ok_or(Refused::Attestation)?;
    let data = AuthenticatorData::parse(data).ok_or(Refused::AuthenticatorData)?;
    check_authenticator(expected, &data)?;
    let credential = data.credential.ok_or(Refused::AuthenticatorData)?;
    Key::parse(credential.public_key).ok_or(Refused::Key)?;
    Ok(Registered {
        credential_id: credential.id.to_vec(),
        public_key: credential.public_key.to_vec(),
        sign_count: data.sign_count,
        aaguid: credential.aaguid,
        user_verified: data.user_verified,
        backup_eligible: data.backup_eligible,
        backed_up: data.backed_up,
    })
}

/// Judges the answer to `navigator.credentials.get()` by the public key that was registered.
pub fn assert(
    expected: Expected<'_>,
    client_data: &[u8],
    authenticator_data: &[u8],
    signature: &[u8],
    public_key: &[u8],
) -> Result<Asserted, Refused> {
    check_client_data(expected, "webauthn.get", client_data)?;
    if authenticator_data.len() > MAX_BYTES {
        return Err(Refused::AuthenticatorData);
    }
    let data = AuthenticatorData::parse(authenticator_data).ok_or(Refused::AuthenticatorData)?;
    check_authenticator(expected, &data)?;
    let key = Key::parse(public_key).ok_or(Refused::Key)?;
    let signed = [authenticator_data, digest(&SHA256, client_data).as_ref()].concat();
    if !key.verify(&signed, signature) {
        return Err(Refused::Signature);
    }
    Ok(Asserted {
        sign_count: data.sign_count,
        user_verified: data.user_verified,
        backup_eligible: data.backup_eligible,
        backed_up: data.backed_up,
    })
}

/// What the browser saw. Members that are not known are let be, as section 5.8.1 wants it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClientData {
    r#type: String,
    challenge: String,
    origin: String,
    #[serde(default)]
    cross_origin: Option<bool>,
    #[serde(default)]
    top_origin: Option<String>,
}

fn check_client_data(expected: Expected<'_>, kind: &str, json: &[u8]) -> Result<(), Refused> {
    if json.len() > MAX_BYTES {
        return Err(Refused::ClientData);
    }
    let data: ClientData = serde_json::from_slice(json).map_err(|_| Refused::ClientData)?;
    if data.r#type != kind {
        return Err(Refused::Type);
    }
    let challenge = URL_SAFE_NO_PAD.encode(expected.challenge);
    if !bool::from(challenge.as_bytes().ct_eq(data.challenge.as_bytes())) {
        return Err(Refused::Challenge);
    }
    if !expected.party.origins.contains(&data.origin) {
        return Err(Refused::Origin);
    }
    if data.cross_origin == Some(true) || data.top_origin.is_some() {
        return Err(Refused::CrossOrigin);
    }
    Ok(())
}

fn check_authenticator(
    expected: Expected<'_>,
    data: &AuthenticatorData<'_>,
) -> Result<(), Refused> {
    if data.rp_id_hash != digest(&SHA256, expected.party.id.as_bytes()).as_ref() {
        return Err(Refused::RelyingPartyId);
    }
    if !data.user_present {
        return Err(Refused::UserAbsent);
    }
    if expected.user_verified && !data.user_verified {
        return Err(Refused::UserNotVerified);
    }
    if data.backed_up && !data.backup_eligible {
        return Err(Refused::Backup);
    }
    Ok(())
}

/// The authenticator's data of an attestation object, section 6.5.4.
fn attested_data(object: &[u8]) -> Option<&[u8]> {
    if object.len() > MAX_BYTES {
        return None;
    }
    let mut cbor = minicbor::Decoder::new(object);
    let mut data = None;
    for _ in 0..cbor.map().ok()?? {
        if cbor.str().ok()? == "authData" {
            if data.replace(cbor.bytes().ok()?).is_some() {
                return None;
            }
        } else {
            cbor.skip().ok()?;
        }
    }
    data.filter(|_| cbor.position() == object.len())
}
