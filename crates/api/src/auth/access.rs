//! Access tokens: JWTs, ES256 unless the operator brings RSA keys, that anyone can verify offline through the JWKS, and that we check
//! against their session besides, so that a sign-out counts at once.
use super::{api_keys, foreign, session::Client};
use crate::{
    App, Error, Result,
    extract::{Auth, Reach},
};
use anyhow::Context;
use db::{Timestamp, sessions::Standing, users::User};
use jsonwebtoken::{Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// RFC 9068, section 2.1: no other JWT of ours has this type.
pub const TYPE: &str = "at+jwt";
/// What GoTrue writes, and its clients expect.
pub const AUDIENCE: &str = "authenticated";

/// GoTrue's claims, and `rtc`: the refresh counter this token was issued with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Claims {
    pub iss: String,
    pub aud: String,
    pub sub: Uuid,
    pub exp: i64,
    pub iat: i64,
    /// Ours have none; one that is there holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<i64>,
    pub jti: Uuid,
    pub role: String,
    pub aal: String,
    pub amr: Value,
    pub session_id: Uuid,
    pub rtc: i64,
    pub email: String,
    pub phone: String,
    pub app_metadata: Value,
    pub user_metadata: Value,
    pub is_anonymous: bool,
    /// Who looks as this user: RFC 8693, section 4.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<Act>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Act {
    pub sub: Uuid,
}

pub fn issuer(app: &App) -> String {
    format!("{}/auth/v1", app.public_url())
}

/// What a token says of a session as it stands.
pub fn claims(app: &App, user: &User, session: &db::sessions::Session) -> Claims {
    let now = app.now();
    // A session that rests or ends sooner takes its tokens with it.
    let exp = (now + app.config.auth.auth_access_ttl)
        .min(session.idle_expires_at)
        .min(session.absolute_expires_at)
        .unix();
    Claims {
        iss: issuer(app),
        aud: AUDIENCE.into(),
        sub: user.id,
        exp,
        iat: now.unix(),
        nbf: None,
        jti: Uuid::new_v4(),
        role: user.role.clone(),
        aal: session.aal.clone(),
        amr: session.amr.0.clone(),
        session_id: session.id,
        rtc: session.refresh_counter,
        email: user.email.clone().unwrap_or_default(),
        phone: String::new(),
        app_metadata: user.app_metadata.0.clone(),
        user_metadata: user.user_metadata.0.clone(),
        is_anonymous: user.is_anonymous,
        act: None,
    }
}

impl Claims {
    /// The same without what users and admins write: browsers drop a cookie of more than 4 KiB without a
    /// word, and nobody reads it there but us.
    pub fn for_a_cookie(&self) -> Self {
        let none = || Value::Object(serde_json::Map::new());
        Self {
            app_metadata: none(),
            user_metadata: none(),
            ..self.clone()
        }
    }
}

pub fn sign(app: &App, claims: &Claims) -> Result<String> {
    let ring = app.keys.ring();
    let header = Header {
        typ: Some(TYPE.into()),
        kid: Some(ring.active_kid.clone()),
        ..Header::new(ring.alg)
    };
    let token =
        jsonwebtoken::encode(&header, claims, &ring.signing).context("signing an access token")?;
    Ok(token)
}

/// Who bears this token, if it is ours or an issuer's whom we trust, in time, and its session stands.
pub async fn authenticate(app: &App, token: &str, client: &Client) -> Result<Auth> {
    if let Some(provider) = foreign::issuer(app, token) {
        return foreign::authenticate(app, token, provider, client).await;
    }
    let now = app.now();
    app.keys.keep_fresh(&app.db, now).await;
    let mut claims = verify(app, token);
    if claims.is_none() && app.keys.learn(&app.db, token, now).await {
        claims = verify(app, token);
    }
    let claims = claims.ok_or(Error::InvalidToken)?;
    let standing = db::sessions::standing(&app.db, claims.session_id).await?;
    let standing = standing
        .filter(|s| s.user_id == claims.sub)
        .ok_or(Error::SessionEnded)?;
    if standing.revoked_at.is_some() || standing.absolute_expires_at <= now {
        return Err(Error::SessionEnded);
    }
    if standing.banned_until.is_some_and(|until| until > now) {
        return Err(Error::UserBanned);
    }
    let reach = reach(app, &claims, &standing, now).await?;
    if claims.rtc > standing.acked_counter
        && let Err(error) = acknowledge(app, &claims, now).await
    {
        // The next request says it again: a full disk keeps nobody from reading.
        tracing::warn!(%error, "it could not be noted that a refresh token has arrived");
    }
    Ok(Auth {
        user: claims.sub,
        session: claims.session_id,
        authenticated_at: standing.authenticated_at,
        // What the token says too: one of before the second factor was proved does not climb with it.
        aal2: standing.aal == "aal2" && claims.aal == "aal2",
        second_factor: standing.second_factor,
        reach,
    })
}

/// Whoever uses the newest access token has received the refresh token that came with it.
async fn acknowledge(app: &App, claims: &Claims, now: Timestamp) -> db::Result<()> {
    let mut tx = app.db.begin().await?;
    db::sessions::acknowledge(&mut tx, claims.session_id, claims.rtc, now).await?;
    tx.commit().await
}

/// How far a session that stands reaches. An admin's look ends with the session they came from.
async fn reach(app: &App, claims: &Claims, standing: &Standing, now: Timestamp) -> Result<Reach> {
    let (act, from) = match (&claims.act, standing.actor_session_id) {
        (Some(act), Some(from)) => (act, from),
        (None, None) if standing.password_expired => return Ok(Reach::ChoosingPassword),
        (None, None) => return Ok(Reach::Full),
        _ => return Err(Error::InvalidToken),
    };
    let own = db::sessions::standing(&app.db, from).await?;
    let stands = own.is_some_and(|own| {
        own.user_id == act.sub
            && own.revoked_at.is_none()
            && own.absolute_expires_at > now
            && own.banned_until.is_none_or(|until| until <= now)
    });
    let admin = db::users::by_id(&app.db, act.sub).await?;
    match admin.filter(|admin| stands && admin.role == "admin") {
        Some(admin) => Ok(Reach::Looking { by: admin.id }),
        None => Err(Error::SessionEnded),
    }
}

/// Whether who was let in still would be: looked at again while a stream is open. A database that does
/// not answer ends nothing.
pub async fn stands(app: &App, auth: &Auth) -> bool {
    let now = app.now();
    if let Reach::Asking { key } = auth.reach {
        return api_keys::stands(app, key).await;
    }
    match db::sessions::standing(&app.db, auth.session).await {
        Ok(Some(session)) => {
            session.revoked_at.is_none()
                && session.absolute_expires_at > now
                && session.banned_until.is_none_or(|until| until <= now)
        }
        Ok(None) => false,
        Err(_) => true,
    }
}

/// RFC 8725: our key by its id alone, its one algorithm, every claim checked, and nothing that would point elsewhere.
fn verify(app: &App, token: &str) -> Option<Claims> {
    let header = jsonwebtoken::decode_header(token).ok()?;
    if header.typ.as_deref() != Some(TYPE) || points_elsewhere(&header) {
        return None;
    }
    let ring = app.keys.ring();
    let key = ring.verifying(&header)?;
    let mut validation = Validation::new(header.alg);
    validation.set_audience(&[AUDIENCE]);
    validation.set_issuer(&[issuer(app)]);
    // By our clock, which tests turn, without leeway.
    validation.validate_exp = false;
    let claims = jsonwebtoken::decode::<Claims>(token, key, &validation)
        .ok()?
        .claims;
    let now = app.now().unix();
    let begun = claims.iat.max(claims.nbf.unwrap_or(i64::MIN)) <= now + 60;
    (claims.exp > now && begun).then_some(claims)
}

/// Whether a header names a key that is not known by its id alone, or wants what we do not do.
pub fn points_elsewhere(header: &Header) -> bool {
    header.jku.is_some()
        || header.jwk.is_some()
        || header.x5u.is_some()
        || header.x5c.is_some()
        || header.crit.is_some()
}
