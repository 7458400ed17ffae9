//! Passkeys: credentials of WebAuthn that say by themselves who signs in. The words are GoTrue's,
//! where they are called experimental: <https://supabase.com/docs/guides/auth>.
use super::webauthn::{self, Expected, RelyingParty};
use crate::{App, Error, Result, config::Problem, extract::Time};
use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use db::{Tx, passkeys::Challenge};
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Value, json};
use std::time::Duration;
use url::{Host, Url};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use uuid::Uuid;

mod authentication;
mod registration;
mod stored;

pub use authentication::Credential;
pub use registration::{NewCredential, creation};

const CHALLENGE_TTL: Duration = Duration::from_secs(300);
const REGISTRATION: &str = "registration";
const AUTHENTICATION: &str = "authentication";

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(registration::routes())
        .merge(authentication::routes())
        .merge(stored::routes())
}

/// Passkeys.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct Config {
    /// The domain that passkeys belong to; they work there and below, and nowhere else, so that another one makes all of them worthless. Default: the host of PUBLIC_URL, or localhost.
    #[arg(long)]
    pub auth_passkey_rp_id: Option<String>,

    /// Origins of the pages that may use passkeys, separated by commas, and `android:apk-key-hash:…` of apps. Default: that of PUBLIC_URL, and those of ALLOWED_ORIGINS within the domain.
    #[arg(long, value_delimiter = ',')]
    pub auth_passkey_origins: Vec<String>,
}

impl Config {
    pub fn check(&self, problems: &mut Vec<Problem>) {
        let id = self.auth_passkey_rp_id.as_deref();
        if id.is_some_and(|id| !is_domain(id)) {
            problems.push(Problem::new(
                "AUTH_PASSKEY_RP_ID",
                "is no domain",
                "Write a domain alone, in small letters: example.com.",
            ));
        }
        for origin in &self.auth_passkey_origins {
            let is_origin = Url::parse(origin)
                .is_ok_and(|url| url.origin().ascii_serialization() == *origin)
                && id.is_none_or(|id| is_within(origin, id));
            if !is_origin && !origin.starts_with("android:apk-key-hash:") {
                problems.push(Problem::new(
                    "AUTH_PASSKEY_ORIGINS",
                    format!("has {origin:?}, which is no origin within AUTH_PASSKEY_RP_ID"),
                    "Write scheme and host, without a path: https://app.example.com.",
                ));
            }
        }
    }
}

fn is_domain(id: &str) -> bool {
    Url::parse(&format!("https://{id}/"))
        .is_ok_and(|url| matches!(url.host(), Some(Host::Domain(host)) if host == id))
}

/// Whether pages of this origin may use passkeys of that domain.
fn is_within(origin: &str, id: &str) -> bool {
    let host = |url: Url| url.host_str().map(ToOwned::to_owned);
    let host = Url::parse(origin).ok().and_then(host);
    host.is_some_and(|host| {
        host == id
            || host
                .strip_suffix(id)
                .is_some_and(|below| below.ends_with('.'))
    })
}

/// Whose passkeys these are.
pub fn party(app: &App) -> RelyingParty {
    let config = &app.config.auth.passkeys;
    let own = own_site(app);
    let host = || own.host_str().unwrap_or_default().to_owned();
    let id = config.auth_passkey_rp_id.clone().unwrap_or_else(host);
    let origins = match config.auth_passkey_origins.as_slice() {
        [] => {
            let allowed = app.config.http.allowed_origins.iter().cloned();
            let within = allowed.filter(|origin| is_within(origin, &id));
            within.chain([own.origin().ascii_serialization()]).collect()
        }
        listed => listed.to_vec(),
    };
    RelyingParty { id, origins }
}

/// Where clients reach us. Browsers bind no passkey to the number of this machine, but to its name.
fn own_site(app: &App) -> Url {
    let mut url = Url::parse(&app.public_url()).expect("our own address is a URL");
    let is_here = match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback() || ip.is_unspecified(),
        Some(Host::Ipv6(ip)) => ip.is_loopback() || ip.is_unspecified(),
        _ => false,
    };
    if is_here {
        let _ = url.set_host(Some("localhost"));
    }
    url
}

/// What a browser is to do.
#[derive(Serialize, ToSchema)]
#[schema(as = PasskeyOptions)]
struct Options {
    /// Comes back with the answer.
    challenge_id: Uuid,
    /// For `navigator.credentials`, as JSON has them.
    options: Value,
    /// Seconds since 1970.
    expires_at: i64,
}

/// Keeps a new challenge, for one answer within five minutes, and puts it into the options.
async fn ask(app: &App, kind: &str, user: Option<Uuid>, mut options: Value) -> Result<Options> {
    let (challenge_id, challenge) = (Uuid::now_v7(), rand::random::<[u8; 32]>());
    let now = app.now();
    let expires_at = now + CHALLENGE_TTL;
    let mut tx = app.db.begin().await?;
    db::passkeys::ask(
        &mut tx,
        challenge_id,
        user,
        kind,
        &challenge,
        expires_at,
        now,
    )
    .await?;
    tx.commit().await?;

    to_sign(&mut options, &challenge);
    Ok(Options {
        challenge_id,
        options,
        expires_at: expires_at.unix(),
    })
}

/// Puts into options what the authenticator has to sign, and how long it may take.
pub fn to_sign(options: &mut Value, challenge: &[u8]) {
    options["challenge"] = encode(challenge).into();
    options["timeout"] = (CHALLENGE_TTL.as_secs() * 1000).into();
}

/// How browsers are told of a credential.
/// <https://www.w3.org/TR/webauthn-3/#dictdef-publickeycredentialdescriptor>
pub fn descriptor(credential_id: &[u8], transports: &Value) -> Value {
    json!({"type": "public-key", "id": encode(credential_id), "transports": transports})
}

/// Uses the challenge up: whatever comes of it, it is worth nothing afterwards.
async fn consume(
    app: &App,
    tx: &mut Tx,
    id: Uuid,
    kind: &str,
    user: Option<Uuid>,
) -> db::Result<Result<Challenge>> {
    let challenge = db::passkeys::consume(tx, id, kind, user).await?;
    Ok(match challenge {
        None => Err(Error::WebauthnChallengeNotFound),
        Some(challenge) if challenge.expires_at <= app.now() => {
            Err(Error::WebauthnChallengeExpired)
        }
        Some(challenge) => Ok(challenge),
    })
}

/// A passkey is more than one factor in itself only where its authenticator checks who is there.
fn expected<'a>(party: &'a RelyingParty, challenge: &'a Challenge) -> Expected<'a> {
    Expected {
        party,
        challenge: &challenge.challenge,
        user_verified: true,
    }
}

/// A passkey, as its owner sees it.
#[derive(Serialize, ToSchema)]
pub struct Passkey {
    id: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    friendly_name: Option<String>,
    /// Whether it is on several devices.
    backed_up: bool,
    created_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used_at: Option<Time>,
}

impl From<db::passkeys::Passkey> for Passkey {
    fn from(passkey: db::passkeys::Passkey) -> Self {
        Self {
            id: passkey.id,
            friendly_name: passkey.name,
            backed_up: passkey.backed_up,
            created_at: passkey.created_at.into(),
            last_used_at: passkey.last_used_at.map(Into::into),
        }
    }
}

/// What browsers encode, and some libraries with padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

fn encode(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// Bytes that came as base64url.
#[derive(ToSchema)]
#[schema(value_type = String)]
struct Base64(Vec<u8>);

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        BASE64
            .decode(text.as_bytes())
            .map(Self)
            .map_err(|_| de::Error::custom("has to be base64url"))
    }
}

fn refused(why: webauthn::Refused) -> Error {
    Error::WebauthnRefused(why)
}
