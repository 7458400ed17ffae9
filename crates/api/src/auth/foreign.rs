//! Access tokens of other issuers, taken as our own: Supabase's, Firebase's, and those of the issuer of
//! `ISSUER_URL`. Who bears one is a user of ours from the first request on, and each of their sign-ins
//! there is a session here, without tokens of ours: it is listed and ended as any other, on every
//! instance, however long the issuer goes on making tokens of it.
use super::{
    access, audit, federation,
    id_token::{self, Besides, Claims},
    providers::Provider,
    session::Client,
};
use crate::{
    App, Error, Result,
    extract::{Auth, Reach},
    mail::Locale,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use db::{
    Timestamp,
    sessions::{self, ForeignStanding, NewForeign},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::time::Duration;
use uuid::Uuid;

/// That a session is in use is noted so often.
const NOTED: Duration = Duration::from_secs(3600);
const NEVER: Timestamp = Timestamp::from_unix(0);

/// Whose token this says it is, where we take bearers of theirs. Nothing of it is believed yet.
pub fn issuer<'a>(app: &'a App, token: &str) -> Option<&'a Provider> {
    if !app.issuers.providers.iter().any(Provider::makes_bearers) {
        return None;
    }
    let header = id_token::header(token).ok()?;
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&payload).ok()?;
    let issuer = claims["iss"].as_str()?;
    if issuer == access::issuer(app) {
        return None;
    }
    let provider = app.issuers.issuing(issuer, header.alg);
    provider.filter(|provider| provider.makes_bearers())
}

/// Who bears it, if it is good and their sign-in there was not ended here.
pub async fn authenticate(
    app: &App,
    token: &str,
    provider: &Provider,
    client: &Client,
) -> Result<Auth> {
    let claims = believed(app, token, provider).await?;
    let now = app.now();
    let mut standing = standing(app, &claims).await?;
    if standing.as_ref().is_none_or(|old| is_anew(&claims, old)) {
        begin(app, &claims, client, now).await?;
        standing = self::standing(app, &claims).await?;
    }
    let standing = standing.filter(|standing| standing.revoked_at.is_none());
    let standing = standing.ok_or(Error::SessionEnded)?;
    if standing.banned_until.is_some_and(|until| until > now) {
        return Err(Error::UserBanned);
    }
    if now.since(standing.last_seen_at) > NOTED {
        note(app, &claims, now).await?;
    }
    Ok(Auth {
        user: standing.user_id,
        session: session(&claims),
        // Where the token does not say, it is too long ago for anything dangerous.
        authenticated_at: claims.authenticated_at.unwrap_or(NEVER),
        // A second factor that was proved there is none of ours.
        aal2: false,
        second_factor: standing.second_factor,
        reach: Reach::Full,
    })
}

async fn believed(app: &App, token: &str, provider: &Provider) -> Result<Claims> {
    let besides = Besides {
        is_bearer: true,
        ..Besides::default()
    };
    let checked = id_token::check(app, token, provider, besides).await;
    checked.map_err(|refusal| match refusal {
        Error::InvalidIdToken => Error::InvalidToken,
        other => other,
    })
}

async fn standing(app: &App, claims: &Claims) -> db::Result<Option<ForeignStanding>> {
    let (issuer, subject) = (&claims.issuer, &claims.subject);
    sessions::foreign_standing(&app.db, session(claims), issuer, subject).await
}

/// Whether they proved who they are after the session was ended.
fn is_anew(claims: &Claims, standing: &ForeignStanding) -> bool {
    let ended = standing.revoked_at;
    ended.is_some_and(|ended| claims.authenticated_at.is_some_and(|proved| proved > ended))
}

/// A sign-in there is a session here under an id of its own. Who was anonymous and is not any more,
/// in the same sign-in, is looked at anew.
fn session(claims: &Claims) -> Uuid {
    let names = json!([
        claims.issuer,
        claims.subject,
        claims.session,
        claims.is_anonymous
    ]);
    let hash = Sha256::digest(names.to_string());
    let mut id = [0; 16];
    id.copy_from_slice(&hash[..16]);
    uuid::Builder::from_custom_bytes(id).into_uuid()
}

/// The first request of a sign-in there, and at the first of them all a user.
async fn begin(app: &App, claims: &Claims, client: &Client, now: Timestamp) -> Result<()> {
    let config = &app.config.auth;
    let mut tx = app.db.begin().await?;
    let of_who_left = db::seen_tokens::known(&mut tx, session(claims).as_bytes()).await?;
    if of_who_left.is_some() {
        return Err(Error::SessionEnded);
    }
    let user = match federation::bear(app, &mut tx, claims, client, now).await? {
        Ok(arrived) => arrived.user,
        Err(refusal) => {
            tx.commit().await?;
            return Err(refusal);
        }
    };
    let proved_at = claims.authenticated_at.unwrap_or(NEVER);
    let id = session(claims);
    let new = NewForeign {
        id,
        user: user.id,
        issuer: &claims.issuer,
        // Of refresh tokens that nobody is given.
        refresh_secret: &rand::random::<[u8; 32]>(),
        ip: Some(&client.address),
        user_agent: client.agent.as_deref(),
        authenticated_at: proved_at,
        idle_expires_at: now + config.auth_session_idle,
        absolute_expires_at: now + config.auth_session_absolute,
    };
    if sessions::begin_foreign(&mut tx, new, now).await? {
        db::users::signed_in(&mut tx, user.id, client.language.map(Locale::tag), now).await?;
        let detail = json!({"method": claims.provider, "session": id});
        audit::succeeded(&mut tx, client, "login", user.id, detail, now).await?;
    } else {
        // Another request of the same moment began it, or it is of who gave this identity up: then
        // nobody is made of a sign-in that was theirs.
        let begun = sessions::locked(&mut tx, id).await?;
        begun
            .filter(|session| session.user_id == user.id)
            .ok_or(Error::SessionEnded)?;
    }
    Ok(tx.commit().await?)
}

async fn note(app: &App, claims: &Claims, now: Timestamp) -> Result<()> {
    let config = &app.config.auth;
    let (idle, absolute) = (config.auth_session_idle, config.auth_session_absolute);
    let mut tx = app.db.begin().await?;
    sessions::seen(&mut tx, session(claims), now + idle, now + absolute, now).await?;
    Ok(tx.commit().await?)
}
