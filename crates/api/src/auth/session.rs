//! Sessions and users as GoTrue's clients read them.
use super::{access, audit, cookies::Cookies, password::WeakPassword, refresh};
use crate::{
    App, Error, Result,
    extract::Time,
    http::{ClientAddress, RequestId, Uncompressed},
    mail::Locale,
};
use axum::{
    extract::FromRequestParts,
    http::{StatusCode, header, request::Parts},
    response::IntoResponse,
};
use db::{
    Db, Timestamp, Tx,
    factors::Factor,
    sessions::{NewSession, Session},
    users::{Identity, User},
};
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

/// What a sign-in gives.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Session)]
pub struct Response {
    /// ES256 JWT.
    pub access_token: String,
    /// `bearer`.
    pub token_type: &'static str,
    /// Seconds from now.
    pub expires_in: u64,
    /// Seconds since 1970.
    pub expires_at: i64,
    pub refresh_token: String,
    pub user: UserBody,
    /// For the provider's own API, once, after a sign-in with OAuth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_refresh_token: Option<String>,
    /// Of a sign-in with an ID token: whether it made the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_new: Option<bool>,
    /// After a sign-in with a password that would not be taken for a new one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weak_password: Option<WeakPassword>,
    /// What the access token says.
    #[serde(skip)]
    pub claims: access::Claims,
    /// Until when the refresh token is good.
    #[serde(skip)]
    pub refreshable_until: Timestamp,
}

/// Carried out of a handler by an otherwise empty answer; the layer that knows the request writes it
/// into the body, or into cookies.
#[derive(Clone)]
pub struct SignedIn(pub Arc<Response>);

impl IntoResponse for Response {
    fn into_response(self) -> axum::response::Response {
        let mut response = StatusCode::OK.into_response();
        let extensions = response.extensions_mut();
        extensions.insert(Uncompressed);
        extensions.insert(SignedIn(Arc::new(self)));
        response
    }
}

/// A user.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = User)]
pub struct UserBody {
    pub id: Uuid,
    pub aud: &'static str,
    pub role: String,
    pub email: String,
    /// What the address will be once it is confirmed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_email: Option<String>,
    pub email_confirmed_at: Option<Time>,
    pub phone: &'static str,
    pub confirmation_sent_at: Option<Time>,
    pub confirmed_at: Option<Time>,
    pub last_sign_in_at: Option<Time>,
    pub app_metadata: Value,
    pub user_metadata: Value,
    pub identities: Vec<IdentityBody>,
    pub created_at: Time,
    pub updated_at: Time,
    pub is_anonymous: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub banned_until: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<Time>,
    /// Second factors; left out where there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub factors: Vec<FactorBody>,
}

/// What a user can prove besides the first proof.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Factor)]
pub struct FactorBody {
    pub id: Uuid,
    pub friendly_name: String,
    /// `totp`, `webauthn` or `recovery_code`.
    pub factor_type: String,
    /// `unverified` until it was proved once.
    pub status: String,
    pub created_at: Time,
    pub updated_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_challenged_at: Option<Time>,
}

/// How a provider knows a user.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Identity)]
pub struct IdentityBody {
    pub identity_id: Uuid,
    /// The provider's subject.
    pub id: String,
    pub user_id: Uuid,
    pub identity_data: Value,
    pub provider: String,
    pub last_sign_in_at: Option<Time>,
    pub created_at: Time,
    pub updated_at: Time,
    pub email: Option<String>,
}

impl UserBody {
    pub fn new(user: User, identities: Vec<Identity>) -> Self {
        let confirmed = user.email_confirmed_at.map(Into::into);
        Self {
            id: user.id,
            aud: "authenticated",
            role: user.role,
            email: user.email.unwrap_or_default(),
            new_email: None,
            email_confirmed_at: confirmed,
            phone: "",
            confirmation_sent_at: None,
            confirmed_at: confirmed,
            last_sign_in_at: user.last_sign_in_at.map(Into::into),
            app_metadata: user.app_metadata.0,
            user_metadata: user.user_metadata.0,
            identities: identities.into_iter().map(Into::into).collect(),
            created_at: user.created_at.into(),
            updated_at: user.updated_at.into(),
            is_anonymous: user.is_anonymous,
            banned_until: user.banned_until.map(Into::into),
            deleted_at: user.deleted_at.map(Into::into),
            factors: vec![],
        }
    }

    /// With everything that other tables have of them.
    pub async fn load(db: &Db, user: User) -> Result<Self> {
        let identities = db::users::identities(db, user.id).await?;
        let factors = db::factors::of_user(db, user.id).await?;
        Ok(Self {
            factors: factors.into_iter().map(Into::into).collect(),
            ..Self::new(user, identities)
        })
    }
}

impl From<Factor> for FactorBody {
    fn from(factor: Factor) -> Self {
        Self {
            id: factor.id,
            friendly_name: factor.friendly_name,
            factor_type: factor.factor_type,
            status: factor.status,
            created_at: factor.created_at.into(),
            updated_at: factor.updated_at.into(),
            last_challenged_at: factor.last_challenged_at.map(Into::into),
        }
    }
}

impl From<Identity> for IdentityBody {
    fn from(identity: Identity) -> Self {
        let email = identity
            .profile
            .get("email")
            .and_then(Value::as_str)
            .map(ToOwned::to_owned);
        Self {
            identity_id: identity.id,
            id: identity.subject,
            user_id: identity.user_id,
            identity_data: identity.profile.0,
            provider: identity.provider,
            last_sign_in_at: identity.last_sign_in_at.map(Into::into),
            created_at: identity.created_at.into(),
            updated_at: identity.updated_at.into(),
            email,
        }
    }
}

/// Where a request comes from, as sessions and the audit log keep it. Whoever signs in has to say it.
#[derive(Debug, Clone)]
pub struct Client {
    pub address: String,
    pub agent: Option<String>,
    /// What it reads of what we write.
    pub language: Option<Locale>,
    pub request_id: String,
}

impl FromRequestParts<App> for Client {
    type Rejection = Error;
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        if let Some(cookies) = parts.extensions.get::<Cookies>() {
            cookies.wanted()?;
        }
        Ok(Self::of(parts, app).await)
    }
}

impl Client {
    /// What of its address is counted together.
    pub fn bucket(&self) -> String {
        let address = self.address.parse().map(ClientAddress);
        address.map_or_else(
            |_| self.address.clone(),
            |address| address.bucket().to_string(),
        )
    }

    /// The same of a request that asks for no session.
    pub async fn of(parts: &mut Parts, app: &App) -> Self {
        let Ok(address) = ClientAddress::from_request_parts(parts, app).await;
        let agent = parts.headers.get(header::USER_AGENT);
        let agent = agent.and_then(|value| value.to_str().ok());
        let language = parts.headers.get(header::ACCEPT_LANGUAGE);
        let language = language.and_then(|value| value.to_str().ok());
        let request_id = parts.extensions.get::<RequestId>();
        Self {
            address: address.0.to_string(),
            agent: agent.map(|agent| agent.chars().take(200).collect()),
            language: language.and_then(Locale::accepted),
            request_id: request_id.map_or_else(String::new, |RequestId(id)| id.clone()),
        }
    }
}

/// Signs a user in: a new session, whatever they brought with them, and its line in the audit log.
/// Gives the user as the row reads then.
pub async fn open(
    app: &App,
    tx: &mut Tx,
    user: User,
    method: &str,
    client: &Client,
    now: Timestamp,
) -> Result<(User, Session)> {
    let config = &app.config.auth;
    let absolute_expires_at = now + config.auth_session_absolute;
    let new = NewSession {
        user: user.id,
        refresh_secret: &rand::random::<[u8; 32]>(),
        method,
        ip: Some(&client.address),
        user_agent: client.agent.as_deref(),
        idle_expires_at: (now + config.auth_session_idle).min(absolute_expires_at),
        absolute_expires_at,
    };
    db::users::signed_in(tx, user.id, client.language.map(Locale::tag), now).await?;
    let session = db::sessions::create(tx, new, now).await?;
    let detail = json!({"method": method, "session": session.id});
    audit::succeeded(tx, client, "login", user.id, detail, now).await?;
    let user = User {
        last_sign_in_at: Some(now),
        ..user
    };
    Ok((user, session))
}

/// A second factor was proved in session `from`: another one takes its place, at aal2, and the user's
/// sessions that saw none end. `method` is GoTrue's word: `totp`, `mfa/webauthn`, `mfa/recovery_code`.
pub async fn step_up(
    app: &App,
    tx: &mut Tx,
    from: Uuid,
    method: &str,
    client: &Client,
    now: Timestamp,
) -> Result<(User, Session)> {
    let old = db::sessions::locked(tx, from).await?;
    let old = old
        .filter(|old| old.revoked_at.is_none())
        .ok_or(Error::SessionEnded)?;
    let user = db::users::locked(tx, old.user_id).await?;
    let user = user.ok_or(Error::SessionEnded)?;
    let mut amr = without(&old.amr.0, method);
    amr.insert(0, json!({"method": method, "timestamp": now.unix()}));
    let idle = (now + app.config.auth.auth_session_idle).min(old.absolute_expires_at);
    let session = db::sessions::stepped_up(
        tx,
        from,
        Uuid::now_v7(),
        &rand::random::<[u8; 32]>(),
        &db::Json(amr.into()),
        Some(&client.address),
        client.agent.as_deref(),
        idle,
        now,
    )
    .await?;
    db::sessions::revoke(tx, from, "stepped_up", now).await?;
    db::sessions::revoke_at_aal1(tx, user.id, "second_factor_proved", now).await?;
    Ok((user, session))
}

/// The second factors that this session saw do not count any more.
pub async fn step_down(tx: &mut Tx, id: Uuid) -> Result<()> {
    let session = db::sessions::locked(tx, id).await?;
    let session = session.ok_or(Error::SessionEnded)?;
    let mut left = session.amr.0;
    for method in SECOND_FACTORS {
        left = without(&left, method).into();
    }
    Ok(db::sessions::step_down(tx, id, &db::Json(left)).await?)
}

/// Recovery codes do not count any more. Of the user's sessions this one stays, at aal1 where it saw
/// nothing better.
pub async fn forget_recovery_codes(
    tx: &mut Tx,
    user: Uuid,
    own: Uuid,
    now: Timestamp,
) -> Result<()> {
    db::sessions::revoke_by_recovery_code(tx, user, own, "recovery_codes_deleted", now).await?;
    let session = db::sessions::locked(tx, own).await?;
    let session = session.ok_or(Error::SessionEnded)?;
    let all = session.amr.0.as_array().into_iter().flatten();
    let mut methods = all.filter_map(|proof| proof["method"].as_str());
    if !methods.any(|method| matches!(method, "totp" | "mfa/webauthn")) {
        step_down(tx, own).await?;
    }
    Ok(())
}

/// How `amr` calls second factors.
const SECOND_FACTORS: [&str; 3] = ["totp", "mfa/webauthn", "mfa/recovery_code"];

/// What an `amr` says of other methods.
fn without(amr: &Value, method: &str) -> Vec<Value> {
    let all = amr.as_array().into_iter().flatten();
    all.filter(|proof| proof["method"] != method)
        .cloned()
        .collect()
}

/// The tokens of a session as it stands.
pub async fn respond(app: &App, user: User, session: Session) -> Result<Response> {
    app.keys.keep_fresh(&app.db, app.now()).await;
    let claims = access::claims(app, &user, &session);
    let expires_at = claims.exp;
    Ok(Response {
        access_token: access::sign(app, &claims)?,
        token_type: "bearer",
        expires_in: expires_at.saturating_sub(app.now().unix()).max(0) as u64,
        expires_at,
        refresh_token: refresh::encode(&app.keys, &session, session.refresh_counter),
        user: UserBody::load(&app.db, user).await?,
        provider_token: None,
        provider_refresh_token: None,
        is_new: None,
        weak_password: None,
        claims,
        refreshable_until: session.idle_expires_at.min(session.absolute_expires_at),
    })
}
