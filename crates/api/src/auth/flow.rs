//! A sign-in on its way to a provider and back: what goes with it, what stays with us, and what stays
//! with the browser, so that it ends in the browser where it began. RFC 9700, section 4.7.
use super::{
    cookies::{is_https, sent},
    pkce::Challenge,
};
use crate::{App, Error, Result};
use anyhow::Context;
use axum::http::{HeaderMap, HeaderValue};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use db::{Timestamp, Tx, oauth_flows::OauthFlow};
use sha2::{Digest, Sha256};
use std::time::Duration;
use subtle::ConstantTimeEq;
use url::Url;
use uuid::Uuid;

/// To find a password, a phone and a code.
const LIFE: Duration = Duration::from_secs(600);
/// What hashes and seals are bound to.
const STATE: &[u8] = b"oauth state";
const BINDING: &[u8] = b"oauth browser";
const VERIFIER: &[u8] = b"oauth verifier";

/// Where somebody goes, and what has to be known of them when they are back.
pub struct Going<'a> {
    /// GoTrue's word for it.
    pub provider: &'a str,
    /// Where it ends; already allowed.
    pub redirect_to: &'a Url,
    /// What our own code at the end is good for.
    pub challenge: &'a Challenge,
    /// Who links what comes back; `None` is a sign-in.
    pub link_user: Option<Uuid>,
    /// The provider comes back with a POST from its own site (Apple's `form_post`).
    pub comes_back_posted: bool,
}

/// What a provider's URL and the browser are given.
pub struct Gone {
    pub state: String,
    pub nonce: String,
    /// S256, of a verifier that stays here.
    pub challenge: String,
    /// `Set-Cookie`.
    pub cookie: HeaderValue,
}

/// Who came back, in the browser that went.
pub struct Back {
    pub provider: String,
    pub verifier: String,
    pub nonce: String,
    pub redirect_to: Url,
    pub challenge: Challenge,
    pub link_user: Option<Uuid>,
    /// `Set-Cookie`: it is of no more use.
    pub cookie: HeaderValue,
}

pub async fn begin(app: &App, tx: &mut Tx, going: Going<'_>, now: Timestamp) -> Result<Gone> {
    let (state, nonce, verifier, binding) = (random(), random(), random(), random());
    let new = db::oauth_flows::NewOauthFlow {
        state_hash: &app.keys.otp_mac(&[STATE, state.as_bytes()]),
        provider: going.provider,
        verifier: &app.keys.seal(VERIFIER, verifier.as_bytes())?,
        nonce: &nonce,
        redirect_to: going.redirect_to.as_str(),
        challenge: going.challenge.as_str(),
        link_user: going.link_user,
        binding_hash: &app.keys.otp_mac(&[BINDING, binding.as_bytes()]),
        expires_at: now + LIFE,
    };
    db::oauth_flows::create(tx, new, now).await?;
    Ok(Gone {
        cookie: cookie(app, &state, &binding, LIFE, going.comes_back_posted)?,
        challenge: URL_SAFE_NO_PAD.encode(Sha256::digest(verifier)),
        state,
        nonce,
    })
}

/// Takes a flow that came back, once. One in another browser is used up all the same: somebody has
/// its state who should not. Commit also when it is refused.
pub async fn take(
    app: &App,
    tx: &mut Tx,
    state: &str,
    headers: &HeaderMap,
    now: Timestamp,
) -> Result<Back> {
    let flow = find(app, tx, state, now)
        .await?
        .ok_or(Error::BadOauthState)?;
    let binding = sent(headers, &cookie_name(app, state)).unwrap_or_default();
    let bound = [BINDING, binding.as_bytes()];
    let mut known = app.keys.otp_macs(&bound);
    if !known.any(|hash| hash.as_slice().ct_eq(&flow.binding_hash).into()) {
        return Err(Error::BadOauthState);
    }
    if flow.expires_at <= now {
        return Err(Error::FlowStateExpired);
    }
    let verifier = app
        .keys
        .unseal(VERIFIER, &flow.verifier)
        .context("a verifier was sealed under another JWT_SECRET")?;
    Ok(Back {
        provider: flow.provider,
        verifier: String::from_utf8(verifier).context("a verifier is text")?,
        nonce: flow.nonce,
        redirect_to: Url::parse(&flow.redirect_to).context("it was a URL when it went")?,
        challenge: Challenge::kept(flow.challenge),
        link_user: flow.link_user_id,
        cookie: cookie(app, state, "", Duration::ZERO, false)?,
    })
}

async fn find(
    app: &App,
    tx: &mut Tx,
    state: &str,
    now: Timestamp,
) -> db::Result<Option<OauthFlow>> {
    for hash in app.keys.otp_macs(&[STATE, state.as_bytes()]) {
        if let Some(flow) = db::oauth_flows::take(tx, &hash, now).await? {
            return Ok(Some(flow));
        }
    }
    Ok(None)
}

fn random() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

/// One a flow, so that two tabs do not put each other out.
fn cookie_name(app: &App, state: &str) -> String {
    let prefix = if is_https(app) { "__Host-" } else { "" };
    let of_state = Sha256::digest(state);
    format!("{prefix}plinth-oauth-{}", hex::encode(&of_state[..8]))
}

/// A POST from another site carries no cookie but of `SameSite=None`, which has to be `Secure`. Over
/// http there is nothing but development, whose provider is on the same site: 127.0.0.1.
fn cookie(
    app: &App,
    state: &str,
    value: &str,
    life: Duration,
    comes_back_posted: bool,
) -> Result<HeaderValue> {
    let site = match (is_https(app), comes_back_posted) {
        (true, true) => "SameSite=None; Secure",
        (true, false) => "SameSite=Lax; Secure",
        (false, _) => "SameSite=Lax",
    };
    let (name, age) = (cookie_name(app, state), life.as_secs());
    let cookie = format!("{name}={value}; Path=/; Max-Age={age}; HttpOnly; {site}");
    Ok(HeaderValue::from_str(&cookie).context("a cookie of our own letters")?)
}
