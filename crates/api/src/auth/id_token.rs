//! Tokens of others: what has to hold before one is believed. OpenID Connect Core 1.0, section
//! 3.1.3.7, and RFC 8725.
use super::{
    access::points_elsewhere,
    normalise_email,
    providers::{Authority, Provider},
};
use crate::{App, Error, Result};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use db::{Timestamp, Tx};
use jsonwebtoken::{DecodingKey, Header, Validation};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::time::Duration;
use subtle::ConstantTimeEq;

/// Another's clock may be so far ahead of ours.
const SKEW: i64 = 60;
/// No provider's are longer, and each costs us a verification.
const MAX_BYTES: usize = 8 * 1024;
const MAX_NAME_CHARS: usize = 200;

/// Who somebody is, in the words of a provider whom we asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    pub provider: &'static str,
    /// With `subject` the only key of an identity.
    pub issuer: String,
    pub subject: String,
    /// Which of our clients it was made for.
    pub audience: String,
    /// Normalised.
    pub email: Option<String>,
    pub email_verified: bool,
    /// Whether the provider's word on this address is as good as a mail to it.
    pub authoritative: bool,
    pub name: Option<String>,
    pub picture: Option<String>,
    /// Supabase's and Firebase's users without an address.
    pub is_anonymous: bool,
    pub expires_at: Timestamp,
    /// When they last proved to the provider who they are, where it says so.
    pub authenticated_at: Option<Timestamp>,
    /// Which of their sign-ins at the provider it is of, as far as it tells.
    pub session: Option<String>,
}

impl Claims {
    /// With what the provider's userinfo says besides. OpenID Connect Core 1.0, section 5.3.2: what it
    /// says of somebody else is not theirs.
    pub fn besides(self, provider: &Provider, userinfo: &Value) -> Self {
        if userinfo["sub"] != self.subject.as_str() {
            return self;
        }
        let (subject, audience) = (&self.subject, self.audience.clone());
        let times = (self.expires_at, self.expires_at);
        let more = read(userinfo, provider, subject, audience, times);
        Self {
            email: more.email,
            email_verified: more.email_verified,
            authoritative: more.authoritative,
            name: self.name.or(more.name),
            picture: self.picture.or(more.picture),
            ..self
        }
    }
}

/// Why a token is not believed: for the log, not for who sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("it is not a JWT")]
    Malformed,
    #[error("its algorithm is not this issuer's")]
    Algorithm,
    #[error("its header points elsewhere")]
    Header,
    #[error("its signature is wrong, or its key unknown")]
    Signature,
    #[error("it is of another issuer")]
    Issuer,
    #[error("it is for another client")]
    Audience,
    #[error("it has expired")]
    Expired,
    #[error("it was issued too long ago, or in the future")]
    IssuedAt,
    #[error("it names nobody")]
    Subject,
    #[error("its nonce is another, or missing")]
    Nonce,
    #[error("it is not of the access token that came with it")]
    AccessToken,
    #[error("it is not a user's")]
    Role,
}

/// What the client says besides the token.
#[derive(Debug, Clone, Copy, Default)]
pub struct Besides<'a> {
    /// As the client made it; the provider may have been given its SHA-256 in hex.
    pub nonce: Option<&'a str>,
    /// The provider's own, to be checked against `at_hash`.
    pub access_token: Option<&'a str>,
    /// A bearer proves itself anew each time, and was made with nonces that are not ours to know.
    pub is_bearer: bool,
}

/// The header, without any trust in it.
pub fn header(token: &str) -> Result<Header, Refused> {
    if token.len() > MAX_BYTES {
        return Err(Refused::Malformed);
    }
    jsonwebtoken::decode_header(token).map_err(|_| Refused::Malformed)
}

/// Verifies a token of this provider under its key for the token's `kid`. Pure: no clock, no network.
pub fn verify(
    token: &str,
    provider: &Provider,
    key: &DecodingKey,
    besides: Besides<'_>,
    now: Timestamp,
) -> Result<Claims, Refused> {
    let header = header(token)?;
    if !provider.algorithms.contains(&header.alg) {
        return Err(Refused::Algorithm);
    }
    if points_elsewhere(&header) {
        return Err(Refused::Header);
    }
    let mut validation = Validation::new(header.alg);
    validation.required_spec_claims.clear();
    // By our clock and our rules, below.
    (validation.validate_exp, validation.validate_aud) = (false, false);
    let claims = jsonwebtoken::decode::<Value>(token, key, &validation);
    let claims = claims.map_err(|_| Refused::Signature)?.claims;

    let issuer = claims["iss"].as_str().ok_or(Refused::Issuer)?;
    if !provider.issuers.iter().any(|known| known == issuer) {
        return Err(Refused::Issuer);
    }
    let audience = audience(&claims, &provider.audiences)?;
    // A bearer is good for as long as it says; what signs in was made for this.
    let max_age = provider.max_age.filter(|_| !besides.is_bearer);
    let times = times(&claims, max_age, now)?;
    if !besides.is_bearer {
        nonce(&claims, besides.nonce)?;
    }
    access_token(&claims, besides.access_token)?;
    if provider.name == "supabase" && claims["role"] != "authenticated" {
        return Err(Refused::Role);
    }
    let subject = claims["sub"].as_str().unwrap_or_default();
    if subject.is_empty() || subject.len() > 255 || subject.chars().any(char::is_control) {
        return Err(Refused::Subject);
    }
    Ok(read(&claims, provider, subject, audience, times))
}

/// `aud` names a client of ours, and `azp`, which asked for the token, is one too.
fn audience(claims: &Value, ours: &[String]) -> Result<String, Refused> {
    let is_ours = |value: &Value| ours.iter().any(|client| value == client.as_str());
    let found = match &claims["aud"] {
        Value::Array(several) => several.iter().find(|one| is_ours(one)),
        one => Some(one).filter(|one| is_ours(one)),
    };
    let asked_by_ours = match &claims["azp"] {
        Value::Null => true,
        azp => is_ours(azp),
    };
    let found = found.filter(|_| asked_by_ours).and_then(Value::as_str);
    found.map(ToOwned::to_owned).ok_or(Refused::Audience)
}

/// Gives when the token was issued, and when it expires.
fn times(
    claims: &Value,
    max_age: Option<Duration>,
    now: Timestamp,
) -> Result<(Timestamp, Timestamp), Refused> {
    let now = now.unix();
    // Some write seconds with a fraction; nobody's token lives beyond what a time can say.
    let seconds = |name: &str| claims[name].as_f64().map(|s| s.clamp(0.0, 1e11) as i64);
    let expires = seconds("exp")
        .filter(|exp| *exp > now)
        .ok_or(Refused::Expired)?;
    let issued = seconds("iat").ok_or(Refused::IssuedAt)?;
    let oldest = max_age.map_or(i64::MIN, |age| now - age.as_secs() as i64);
    let begun = issued.max(seconds("nbf").unwrap_or(0)) <= now + SKEW;
    if issued < oldest || !begun {
        return Err(Refused::IssuedAt);
    }
    Ok((Timestamp::from_unix(issued), Timestamp::from_unix(expires)))
}

/// Raw or hashed, as the client gave it to the provider; one that is in the token has to be known.
fn nonce(claims: &Value, expected: Option<&str>) -> Result<(), Refused> {
    let right = match (
        claims["nonce"].as_str(),
        expected.filter(|nonce| !nonce.is_empty()),
    ) {
        (None, None) => true,
        // Old devices of Apple leave it out, and say so.
        (None, Some(_)) => is_false(&claims["nonce_supported"]),
        (Some(_), None) => false,
        (Some(said), Some(expected)) => {
            let hashed = hex::encode(Sha256::digest(expected));
            bool::from(said.as_bytes().ct_eq(expected.as_bytes()))
                || bool::from(said.as_bytes().ct_eq(hashed.as_bytes()))
        }
    };
    if right { Ok(()) } else { Err(Refused::Nonce) }
}

/// OpenID Connect Core 1.0, section 3.1.3.8.
fn access_token(claims: &Value, token: Option<&str>) -> Result<(), Refused> {
    let (Some(said), Some(token)) = (claims["at_hash"].as_str(), token) else {
        return Ok(());
    };
    let hash = Sha256::digest(token);
    let expected = URL_SAFE_NO_PAD.encode(&hash[..16]);
    if bool::from(said.as_bytes().ct_eq(expected.as_bytes())) {
        Ok(())
    } else {
        Err(Refused::AccessToken)
    }
}

fn read(
    claims: &Value,
    provider: &Provider,
    subject: &str,
    audience: String,
    (issued_at, expires_at): (Timestamp, Timestamp),
) -> Claims {
    let word = |name: &str| claims[name].as_str();
    let email = word("email").and_then(normalise_email);
    let email_verified = email.is_some() && is_true(&claims["email_verified"]);
    let speaks_for = |email: &String| authoritative(provider.authority, claims, email);
    let full = match (word("first_name"), word("last_name")) {
        (Some(first), Some(last)) => Some(format!("{first} {last}")),
        (one, other) => one.or(other).map(ToOwned::to_owned),
    };
    let picture = word("picture").or(word("profile_image_url"));
    let authenticated_at = proved_at(claims).map(|at| at.min(issued_at));
    let session = word("session_id").or(word("sid")).map(ToOwned::to_owned);
    let session = session.or(authenticated_at.map(|at| at.unix().to_string()));
    Claims {
        provider: provider.name,
        issuer: provider.issuer().to_owned(),
        subject: subject.to_owned(),
        audience,
        authoritative: email_verified && email.as_ref().is_some_and(speaks_for),
        email,
        email_verified,
        name: word("name")
            .map(ToOwned::to_owned)
            .or(full)
            .and_then(|name| display(&name)),
        picture: picture.filter(|url| url.len() <= 1000).and_then(|url| {
            let url = url::Url::parse(url).ok()?;
            (url.scheme() == "https").then(|| url.into())
        }),
        is_anonymous: is_true(&claims["is_anonymous"])
            || claims["firebase"]["sign_in_provider"] == "anonymous",
        expires_at,
        authenticated_at,
        session: session.or(Some(issued_at.unix().to_string())),
    }
}

/// `auth_time`, or in Supabase's tokens the newest proof of `amr`.
fn proved_at(claims: &Value) -> Option<Timestamp> {
    let proofs = claims["amr"].as_array().into_iter().flatten();
    let proofs = proofs.filter(|proof| proof["method"] != "token_refresh");
    let newest = proofs.filter_map(|proof| proof["timestamp"].as_i64()).max();
    let at = claims["auth_time"].as_i64().or(newest)?;
    (0..100_000_000_000)
        .contains(&at)
        .then(|| Timestamp::from_unix(at))
}

fn authoritative(authority: Authority, claims: &Value, email: &str) -> bool {
    let domain = email.rsplit('@').next().unwrap_or_default();
    match authority {
        Authority::Google => {
            domain == "gmail.com" || claims["hd"].as_str().is_some_and(|hd| hd == domain)
        }
        Authority::Apple => [
            "icloud.com",
            "me.com",
            "mac.com",
            "privaterelay.appleid.com",
        ]
        .contains(&domain),
        Authority::None => false,
    }
}

/// What others say of a name is text for people, and no more than a line.
pub fn display(name: &str) -> Option<String> {
    let name: String = name.chars().filter(|c| !c.is_control()).collect();
    let name: String = name.trim().chars().take(MAX_NAME_CHARS).collect();
    (!name.is_empty()).then_some(name)
}

/// Apple writes truth as text too.
fn is_true(value: &Value) -> bool {
    *value == true || *value == "true"
}

fn is_false(value: &Value) -> bool {
    *value == false || *value == "false"
}

/// Verifies a token against what its issuer publishes now.
pub async fn check(
    app: &App,
    token: &str,
    provider: &Provider,
    besides: Besides<'_>,
) -> Result<Claims> {
    let now = app.now();
    let refused = |refused: Refused| {
        tracing::info!(provider = provider.name, reason = %refused, "an ID token was refused");
        metrics::counter!("auth_events_total", "kind" => "id_token", "outcome" => "failed")
            .increment(1);
        Error::InvalidIdToken
    };
    let header = header(token).map_err(refused)?;
    if !provider.algorithms.contains(&header.alg) {
        return Err(refused(Refused::Algorithm));
    }
    let key = app.issuers.key(provider, header.kid.as_deref(), now).await;
    let key = key.map_err(|_| Error::ProviderUnavailable)?;
    let key = key.ok_or_else(|| refused(Refused::Signature))?;
    verify(token, provider, &key, besides, now).map_err(refused)
}

/// Notes that a token was presented; refuses one that was before, whatever was made of it.
pub async fn once(tx: &mut Tx, token: &str, claims: &Claims) -> Result<()> {
    // The signature can be written in more than one way, what it signs cannot.
    let signed = token.rsplit_once('.').map_or(token, |(signed, _)| signed);
    let fresh = db::seen_tokens::note(tx, &Sha256::digest(signed), claims.expires_at).await?;
    if fresh {
        Ok(())
    } else {
        Err(Error::IdTokenReplayed)
    }
}
