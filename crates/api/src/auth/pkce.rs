//! Proof Key for Code Exchange: a redirect carries a code, and the code is worth nothing without the
//! verifier that stayed with the client. RFC 7636; `S256` alone, as RFC 9700 wants it.
use super::{audit, pending_link::PendingLink, session};
use crate::{App, Error, Result};
use anyhow::Context;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use db::{Timestamp, Tx, auth_codes::AuthCode};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::time::Duration;
use subtle::ConstantTimeEq;
use uuid::Uuid;

/// From the redirect to the exchange; browsers do it at once.
const LIFE: Duration = Duration::from_secs(60);
/// What the hashes of codes, and the seals of what hangs on them, are bound to.
const AUTH_CODE: &[u8] = b"auth code";

/// A `code_challenge` that can be answered: the SHA-256 of a verifier, base64url.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge(String);

impl Challenge {
    /// Of a request; `None` when its client does not do PKCE.
    pub fn of(challenge: Option<&str>, method: Option<&str>) -> Result<Option<Self>> {
        let some = |text: Option<&str>| text.is_some_and(|text| !text.is_empty());
        if !some(challenge) && !some(method) {
            return Ok(None);
        }
        // RFC 7636 means `plain` where none is named.
        if !method.is_some_and(|method| method.eq_ignore_ascii_case("s256")) {
            return Err(Error::invalid("code_challenge_method", "has to be s256"));
        }
        let challenge = challenge.unwrap_or_default();
        match URL_SAFE_NO_PAD.decode(challenge) {
            Ok(hash) if hash.len() == 32 => Ok(Some(Self(challenge.to_owned()))),
            _ => Err(Error::invalid(
                "code_challenge",
                "has to be a SHA-256, base64url without padding",
            )),
        }
    }

    /// As it was kept.
    pub fn kept(challenge: String) -> Self {
        Self(challenge)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn is_answered_by(&self, verifier: &str) -> bool {
        let answer = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier));
        answer.as_bytes().ct_eq(self.0.as_bytes()).into()
    }
}

/// What an OAuth provider gave for its own API, for the session that its sign-in opens.
#[derive(Default)]
pub struct ProviderTokens {
    pub access: Option<String>,
    pub refresh: Option<String>,
}

/// A code that signs this user in, for who can answer the challenge. `method` becomes the session's `amr`.
pub async fn issue(
    app: &App,
    tx: &mut Tx,
    user: Uuid,
    challenge: &Challenge,
    method: &str,
    provider: &ProviderTokens,
    now: Timestamp,
) -> Result<String> {
    keep(app, tx, user, challenge, method, provider, None, now).await
}

/// The same, which also links what a provider said, sealed.
pub async fn issue_link(
    app: &App,
    tx: &mut Tx,
    user: Uuid,
    challenge: &Challenge,
    link: &[u8],
    provider: &ProviderTokens,
    now: Timestamp,
) -> Result<String> {
    let link = Some(link);
    keep(app, tx, user, challenge, "oauth", provider, link, now).await
}

async fn keep(
    app: &App,
    tx: &mut Tx,
    user: Uuid,
    challenge: &Challenge,
    method: &str,
    provider: &ProviderTokens,
    link: Option<&[u8]>,
    now: Timestamp,
) -> Result<String> {
    let code = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
    let seal = |token: &Option<String>| {
        let sealed = |token: &String| app.keys.seal(AUTH_CODE, token.as_bytes());
        token.as_ref().map(sealed).transpose()
    };
    let (access, refresh) = (seal(&provider.access)?, seal(&provider.refresh)?);
    let new = db::auth_codes::NewAuthCode {
        user,
        code_hash: &app.keys.otp_mac(&[AUTH_CODE, code.as_bytes()]),
        challenge: challenge.as_str(),
        method,
        provider_token: access.as_deref(),
        provider_refresh_token: refresh.as_deref(),
        link,
        expires_at: now + LIFE,
    };
    db::auth_codes::create(tx, new, now).await?;
    Ok(code)
}

/// `grant_type=pkce`.
pub async fn exchange(
    app: &App,
    code: &str,
    verifier: &str,
    client: &session::Client,
) -> Result<session::Response> {
    let now = app.now();
    let mut tx = app.db.begin().await?;
    let code = find(app, &mut tx, code)
        .await?
        .ok_or(Error::FlowStateNotFound)?;
    let refusal = if !db::auth_codes::consume(&mut tx, code.id, now).await? {
        // Two have it: whoever was first may be the one who should not. RFC 6749, section 4.1.2.
        if let Some(session) = code.session_id {
            db::sessions::revoke(&mut tx, session, "auth_code_reused", now).await?;
        }
        Some((Error::FlowStateNotFound, "auth_code_reused"))
    } else if code.expires_at <= now {
        Some((Error::FlowStateExpired, "auth_code_expired"))
    } else if !Challenge::kept(code.challenge.clone()).is_answered_by(verifier) {
        Some((Error::BadCodeVerifier, "bad_code_verifier"))
    } else {
        None
    };
    let user = db::users::locked(&mut tx, code.user_id)
        .await?
        .ok_or(Error::FlowStateNotFound)?;
    let refusal = refusal.or_else(|| {
        let banned = user.is_banned(now);
        banned.then_some((Error::UserBanned, "user_banned"))
    });
    if let Some((refusal, reason)) = refusal {
        let detail = json!({"method": code.method, "reason": reason});
        audit::refused(&mut tx, client, "login", Some(user.id), detail, now).await?;
        tx.commit().await?;
        return Err(refusal);
    }
    let linked = match &code.link {
        Some(link) => {
            let link = PendingLink::unseal(app, link)?;
            link.link(app, &mut tx, user.id, client, now).await?
        }
        None => Ok(user),
    };
    let user = match linked {
        Ok(user) => user,
        Err(refusal) => {
            tx.commit().await?;
            return Err(refusal);
        }
    };
    let (user, session) = session::open(app, &mut tx, user, &code.method, client, now).await?;
    db::auth_codes::opened(&mut tx, code.id, session.id).await?;
    tx.commit().await?;

    Ok(session::Response {
        provider_token: unsealed(app, code.provider_token.as_deref())?,
        provider_refresh_token: unsealed(app, code.provider_refresh_token.as_deref())?,
        ..session::respond(app, user, session).await?
    })
}

async fn find(app: &App, tx: &mut Tx, code: &str) -> db::Result<Option<AuthCode>> {
    for hash in app.keys.otp_macs(&[AUTH_CODE, code.as_bytes()]) {
        if let Some(code) = db::auth_codes::locked(tx, &hash).await? {
            return Ok(Some(code));
        }
    }
    Ok(None)
}

fn unsealed(app: &App, sealed: Option<&[u8]>) -> Result<Option<String>> {
    let Some(sealed) = sealed else {
        return Ok(None);
    };
    let token = app
        .keys
        .unseal(AUTH_CODE, sealed)
        .context("a provider's token was sealed under another JWT_SECRET")?;
    let token = String::from_utf8(token).context("a provider's token is text")?;
    Ok(Some(token))
}
