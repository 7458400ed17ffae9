//! Personal API keys: what a user's own programs ask models with. A key opens chat alone: neither the
//! account nor, where its user administers, anybody else's.
use super::{audit, session::Client, step_up};
use crate::{
    App, Error, Result,
    error::Invalid,
    extract::{Auth, Json, Path, Reach, Time},
    mail::{self, Mail},
};
use axum::{
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use db::{Timestamp, api_keys::ApiKey};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::time::Duration;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

/// What every key begins with, so that people and scanners of leaked secrets know it for one.
const PREFIX: &str = "pl_";
/// Keys that a user has at most.
const MAX_KEYS: i64 = 20;
const MAX_NAME_CHARS: usize = 120;
/// Characters that are kept to tell keys apart by: the prefix, and 30 of 256 random bits.
const HINT_CHARS: usize = 8;
/// A use is noted so often at most: what reads should not write each time.
const NOTED: Duration = Duration::from_secs(60);

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(remove))
}

/// A personal API key, without its secret.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ApiKey)]
pub struct KeyBody {
    id: Uuid,
    name: String,
    /// Its first characters.
    hint: String,
    created_at: Time,
    /// When it ends; null is never.
    expires_at: Option<Time>,
    /// To the minute; null is never.
    last_used_at: Option<Time>,
}

impl From<ApiKey> for KeyBody {
    fn from(key: ApiKey) -> Self {
        Self {
            id: key.id,
            name: key.name,
            hint: key.hint,
            created_at: key.created_at.into(),
            expires_at: key.expires_at.map(Into::into),
            last_used_at: key.last_used_at.map(Into::into),
        }
    }
}

#[derive(Serialize, ToSchema)]
struct Keys {
    data: Vec<KeyBody>,
}

/// The signed-in user's API keys, oldest first.
#[utoipa::path(get, path = "/api/keys", tag = "sign-in", responses((status = 200, body = Keys)))]
async fn list(State(app): State<App>, auth: Auth) -> Result<Json<Keys>> {
    let keys = db::api_keys::of_user(&app.db, auth.user).await?;
    let data = keys.into_iter().map(Into::into).collect();
    Ok(Json(Keys { data }))
}

#[derive(Deserialize, ToSchema)]
struct NewApiKey {
    /// What it is for, 1 to 120 characters.
    name: String,
    /// RFC 3339, in the future; absent or null is never.
    #[serde(default)]
    expires_at: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct MadeApiKey {
    /// The bearer of its requests. It is never shown again.
    key: String,
    #[serde(flatten)]
    body: KeyBody,
}

/// Make an API key for a program of one's own. Needs a sign-in of the last minutes. The user is told by
/// mail.
#[utoipa::path(post, path = "/api/keys", tag = "sign-in", request_body = NewApiKey, responses((status = 201, body = MadeApiKey)))]
async fn create(
    State(app): State<App>,
    auth: Auth,
    client: Client,
    Json(new): Json<NewApiKey>,
) -> Result<Response> {
    let now = app.now();
    let (name, expires_at) = new.check(now)?;
    step_up::demand(&app, &auth, &client, "api_key_created").await?;

    let key = format!(
        "{PREFIX}{}",
        URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
    );
    let mut tx = app.db.begin().await?;
    // Held, so that two at once are counted one after the other.
    let user = db::users::locked(&mut tx, auth.user)
        .await?
        .ok_or(Error::SessionEnded)?;
    if db::api_keys::count(&mut tx, user.id).await?.0 >= MAX_KEYS {
        drop(tx);
        let refusal = Error::TooManyApiKeys;
        return Err(audit::refuse(&app, &client, "api_key_created", user.id, refusal).await);
    }
    let (id, hint) = (Uuid::now_v7(), &key[..HINT_CHARS]);
    let made = db::api_keys::create(
        &mut tx,
        id,
        user.id,
        &name,
        &hash(&key),
        hint,
        expires_at,
        now,
    )
    .await?;
    let detail = json!({"key": id});
    audit::succeeded(&mut tx, &client, "api_key_created", user.id, detail, now).await?;
    mail::tell(&mut tx, &user, |to| Mail::ApiKeyMade { to }, now).await?;
    tx.commit().await?;

    let body = made.into();
    let no_store = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Ok((
        StatusCode::CREATED,
        no_store,
        Json(MadeApiKey { key, body }),
    )
        .into_response())
}

impl NewApiKey {
    fn check(self, now: Timestamp) -> Result<(String, Option<Timestamp>)> {
        let mut faults = vec![];
        let name = self.name.trim().to_owned();
        if name.is_empty() || name.chars().count() > MAX_NAME_CHARS {
            faults.push(Invalid::new("name", "has to be 1 to 120 characters"));
        }
        let expires_at = self.expires_at.as_deref().map(|text| {
            let at = chrono::DateTime::parse_from_rfc3339(text).ok()?;
            Some(Timestamp::from_micros(at.timestamp_micros())).filter(|at| *at > now)
        });
        if expires_at == Some(None) {
            let problem = "has to be a time in the future, as RFC 3339 writes it";
            faults.push(Invalid::new("expires_at", problem));
        }
        match faults.is_empty() {
            true => Ok((name, expires_at.flatten())),
            false => Err(Error::Invalid(faults)),
        }
    }
}

/// Take an API key away. Counts at once, on every instance, and ends its open streams within seconds.
#[utoipa::path(delete, path = "/api/keys/{id}", tag = "sign-in", params(("id" = Uuid, Path)), responses((status = 204), (status = 404)))]
async fn remove(
    State(app): State<App>,
    auth: Auth,
    client: Client,
    Path(id): Path<Uuid>,
) -> Result<StatusCode> {
    let (now, detail) = (app.now(), json!({"key": id}));
    let mut tx = app.db.begin().await?;
    if !db::api_keys::delete(&mut tx, auth.user, id).await? {
        let user = Some(auth.user);
        audit::refused(&mut tx, &client, "api_key_deleted", user, detail, now).await?;
        tx.commit().await?;
        return Err(Error::NotFound);
    }
    audit::succeeded(&mut tx, &client, "api_key_deleted", auth.user, detail, now).await?;
    tx.commit().await?;

    Ok(StatusCode::NO_CONTENT)
}

/// Whether a bearer looks like a key, and so can be no access token.
pub fn is_one(bearer: &str) -> bool {
    bearer.starts_with(PREFIX)
}

fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key).into()
}

/// Whose program has this key.
pub async fn authenticate(app: &App, key: &str) -> Result<Auth> {
    let now = app.now();
    let standing = db::api_keys::by_hash(&app.db, &hash(key)).await?;
    let standing = standing.ok_or(Error::InvalidToken)?;
    if standing.expires_at.is_some_and(|at| at <= now) {
        return Err(Error::InvalidToken);
    }
    if standing.banned_until.is_some_and(|until| until > now) {
        return Err(Error::UserBanned);
    }
    let before = now - NOTED;
    if standing.last_used_at.is_none_or(|at| at <= before) {
        let mut tx = app.db.begin().await?;
        db::api_keys::used(&mut tx, standing.id, before, now).await?;
        tx.commit().await?;
    }
    Ok(Auth {
        user: standing.user_id,
        // No session has the id of a key, and nobody proved who they are.
        session: standing.id,
        authenticated_at: Timestamp::from_unix(0),
        aal2: false,
        second_factor: false,
        reach: Reach::Asking { key: standing.id },
    })
}

/// Whether a key that was let in still would be. A database that does not answer ends nothing.
pub async fn stands(app: &App, key: Uuid) -> bool {
    let now = app.now();
    match db::api_keys::standing(&app.db, key).await {
        Ok(Some(standing)) => {
            standing.expires_at.is_none_or(|at| at > now)
                && standing.banned_until.is_none_or(|until| until <= now)
        }
        Ok(None) => false,
        Err(_) => true,
    }
}
