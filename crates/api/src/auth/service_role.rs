//! The service-role key: a JWT of role `service_role` by which a server, not a person, administers.
//! <https://supabase.com/docs/guides/api/api-keys>. It is good for as long as it says and the key that
//! signed it is kept; nothing in the database stands for it.
use super::access::{self, AUDIENCE, TYPE, points_elsewhere};
use super::keys::Keys;
use crate::App;
use anyhow::Context;
use db::Timestamp;
use jsonwebtoken::{Header, Validation};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// No user has this role: the database takes none.
const ROLE: &str = "service_role";

#[derive(Serialize, Deserialize)]
struct Claims {
    role: String,
    /// Keys that others signed with a key of ours may leave these out; what is there holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iat: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
}

/// A key for so long.
pub fn issue(keys: &Keys, issuer: &str, ttl: Duration, now: Timestamp) -> anyhow::Result<String> {
    let claims = Claims {
        role: ROLE.into(),
        iss: Some(issuer.into()),
        aud: Some(AUDIENCE.into()),
        iat: Some(now.unix()),
        exp: Some((now + ttl).unix()),
    };
    let ring = keys.ring();
    let header = Header {
        kid: Some(ring.active_kid.clone()),
        ..Header::new(ring.alg)
    };
    jsonwebtoken::encode(&header, &claims, &ring.signing).context("signing a service-role key")
}

/// Whether this is a service-role key of ours, in time. What an access token is, is not.
pub fn verify(keys: &Keys, issuer: &str, token: &str, now: Timestamp) -> bool {
    let claims = || {
        let header = jsonwebtoken::decode_header(token).ok()?;
        if header.typ.as_deref() == Some(TYPE) || points_elsewhere(&header) {
            return None;
        }
        let ring = keys.ring();
        let key = ring.verifying(&header)?;
        let mut validation = Validation::new(header.alg);
        validation.required_spec_claims.clear();
        // By our clock and our rules, below.
        (validation.validate_exp, validation.validate_aud) = (false, false);
        let claims = jsonwebtoken::decode::<Claims>(token, key, &validation).ok()?;
        Some(claims.claims)
    };
    claims().is_some_and(|claims| {
        claims.role == ROLE
            && claims.iss.is_none_or(|iss| iss == issuer)
            && claims.aud.is_none_or(|aud| aud == AUDIENCE)
            && claims.iat.is_none_or(|iat| iat <= now.unix() + 60)
            && claims.exp.is_none_or(|exp| exp > now.unix())
    })
}

/// The same of what a request brings, by the keys as they are now. An access token costs nothing here.
pub async fn accepts(app: &App, token: &str) -> bool {
    let header = jsonwebtoken::decode_header(token);
    if header.map_or(true, |header| header.typ.as_deref() == Some(TYPE)) {
        return false;
    }
    let (now, issuer) = (app.now(), access::issuer(app));
    app.keys.keep_fresh(&app.db, now).await;
    app.keys.learn(&app.db, token, now).await;
    verify(&app.keys, &issuer, token, now)
}
