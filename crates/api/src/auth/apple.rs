//! What Apple wants besides: a secret that is signed anew each time, and its tokens back when somebody
//! leaves. <https://developer.apple.com/documentation/signinwithapplerestapi>
use super::{
    federation::REFRESH_TOKEN,
    id_token, oauth,
    providers::{Config, Provider},
};
use crate::{App, Error, Result, config::Secret};
use anyhow::{Context, anyhow, bail};
use axum::http::StatusCode;
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use db::{Timestamp, Tx, identities::Kept, jobs::NewJob};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

/// The kind of job that gives one token back.
pub const REVOKE: &str = "revoke_apple_token";
/// Seconds; Apple would take half a year.
const SECRET_LIFE_S: i64 = 300;

/// The key of a .p8 file, also where a variable has its line ends written out.
pub fn signing_key(text: &Secret) -> anyhow::Result<EncodingKey> {
    let pem = text.expose().replace("\\n", "\n");
    EncodingKey::from_ec_pem(pem.trim().as_bytes()).map_err(|_| anyhow!("it is no key of P-256"))
}

/// Whether we can prove to Apple's API who we are.
pub fn is_configured(config: &Config) -> bool {
    config.apple_team_id.is_some()
        && config.apple_key_id.is_some()
        && config.apple_private_key.is_some()
}

/// Whether this provider's tokens are given back.
pub fn revokes(provider: &Provider) -> bool {
    provider.name == "apple"
}

/// Proves that we are this client.
/// <https://developer.apple.com/documentation/accountorganizationaldatasharing/creating-a-client-secret>
pub fn client_secret(app: &App, provider: &Provider, client_id: &str) -> Result<String> {
    let config = &app.config.auth.providers;
    let (Some(team), Some(key_id), Some(key)) = (
        &config.apple_team_id,
        &config.apple_key_id,
        &config.apple_private_key,
    ) else {
        return Err(Error::ProviderDisabled);
    };
    let now = app.now().unix();
    let claims = json!({"iss": team, "sub": client_id, "aud": provider.issuer(), "iat": now, "exp": now + SECRET_LIFE_S});
    let header = Header {
        kid: Some(key_id.clone()),
        ..Header::new(Algorithm::ES256)
    };
    let secret = jsonwebtoken::encode(&header, &claims, &signing_key(key)?);
    Ok(secret.context("signing Apple's client secret")?)
}

/// How somebody is called, as Apple's form says once: text that nobody signed.
pub fn name(user: &str) -> Option<String> {
    let user: Value = serde_json::from_str(user).ok()?;
    let part = |name: &str| user["name"][name].as_str().map(str::trim);
    let parts = [part("firstName"), part("lastName")];
    let whole: Vec<_> = parts.into_iter().flatten().collect();
    id_token::display(&whole.join(" "))
}

/// Exchanges what an app got beside the ID token of this subject; gives what can be given back one
/// day. A sign-in does not fail for want of it.
pub async fn redeem(
    app: &App,
    provider: &Provider,
    code: &str,
    client_id: &str,
    subject: &str,
) -> Option<String> {
    if !revokes(provider) || !is_configured(&app.config.auth.providers) {
        return None;
    }
    let form = [("grant_type", "authorization_code"), ("code", code)];
    let at = oauth::endpoints(app, provider).await.ok()?;
    let exchanged = oauth::exchange(app, provider, &at, client_id, &form).await;
    let tokens = exchanged.ok()?;
    // Straight from Apple over TLS: OpenID Connect Core 1.0, section 3.1.3.7, needs no more.
    let theirs = subject_of(tokens.id_token.as_deref()?)? == subject;
    tokens.refresh_token.filter(|_| theirs)
}

fn subject_of(id_token: &str) -> Option<String> {
    let claims = URL_SAFE_NO_PAD.decode(id_token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    claims["sub"].as_str().map(ToOwned::to_owned)
}

/// The same for who leaves, whose code no ID token came with.
pub async fn redeem_to_leave(app: &App, user: Uuid, code: &str) -> Result<Option<Revocation>> {
    let Some(provider) = app.issuers.named("apple") else {
        return Ok(None);
    };
    for identity in db::identities::of_provider(&app.db, user, provider.name).await? {
        let ours = identity.client_id.as_ref().or(provider.audiences.first());
        let client_id = ours.cloned().unwrap_or_default();
        let token = redeem(app, provider, code, &client_id, &identity.subject).await;
        if let Some(token) = token {
            let sealed = app.keys.seal(REFRESH_TOKEN, token.as_bytes())?;
            return Ok(Some(Revocation::new(client_id, &sealed)));
        }
    }
    Ok(None)
}

/// A token to give back: sealed as it was kept, for it outlives its user in a job.
#[derive(Serialize, Deserialize)]
pub struct Revocation {
    client_id: String,
    token: String,
}

impl Revocation {
    fn new(client_id: String, sealed: &[u8]) -> Self {
        let token = STANDARD.encode(sealed);
        Self { client_id, token }
    }
}

/// Somebody leaves: once that is committed, what Apple gave us for their sign-ins is given back.
pub async fn leave(tx: &mut Tx, user: Uuid, now: Timestamp) -> db::Result<()> {
    db::muted_addresses::forget_of_user(tx, user).await?;
    for identity in db::identities::revocable(tx, user, "apple").await? {
        give_back_kept(tx, identity, now).await?;
    }
    Ok(())
}

/// The same for one identity.
pub async fn unlink(tx: &mut Tx, identity: Uuid, now: Timestamp) -> db::Result<()> {
    match db::identities::kept_of(tx, identity).await? {
        Some(identity) => give_back_kept(tx, identity, now).await,
        None => Ok(()),
    }
}

async fn give_back_kept(tx: &mut Tx, identity: Kept, now: Timestamp) -> db::Result<()> {
    match identity.client_id.zip(identity.refresh_token) {
        Some((client_id, sealed)) => give_back(tx, Revocation::new(client_id, &sealed), now).await,
        None => Ok(()),
    }
}

pub async fn give_back(tx: &mut Tx, what: Revocation, now: Timestamp) -> db::Result<()> {
    let job = NewJob {
        kind: REVOKE,
        subject: None,
        payload: json!(what),
        dedupe_key: None,
        due_at: now,
    };
    db::jobs::enqueue(tx, job, now).await.map(drop)
}

/// Gives one token back; fails when it should be tried again.
/// <https://developer.apple.com/documentation/signinwithapplerestapi/revoke-tokens>
pub async fn revoke(app: &App, payload: &Value) -> anyhow::Result<()> {
    let Revocation { client_id, token } = Deserialize::deserialize(payload)?;
    let provider = app.issuers.named("apple");
    let provider = provider.context("APPLE_CLIENT_ID is not set any more")?;
    let token = STANDARD.decode(token)?;
    let token = app.keys.unseal(REFRESH_TOKEN, &token);
    let token = token.context("a token was sealed under another JWT_SECRET")?;
    let token = std::str::from_utf8(&token)?;
    let at = oauth::endpoints(app, provider).await?;
    let url = at.revocation_endpoint.as_deref().unwrap_or_default();
    let form = [("token", token), ("token_type_hint", "refresh_token")];
    let (status, answer) = oauth::post(app, provider, &at, url, &client_id, &form).await?;
    match (status, answer["error"].as_str()) {
        // Also of a token that was taken back before.
        (StatusCode::OK, _) | (_, Some("invalid_grant")) => Ok(()),
        (status, error) => bail!("Apple answers {status}: {}", error.unwrap_or_default()),
    }
}
