//! What handlers take in, refused in our shape when it is not as it should be.
use crate::{
    App, Error, Result,
    auth::{access, api_keys, audit, cookies::Cookies, service_role, session::Client, step_up},
    error::Invalid,
    http::SeenBy,
};
use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Request, path::ErrorKind, rejection::PathRejection},
    http::{HeaderMap, header, request::Parts},
    response::{IntoResponse, Response},
};
use db::Timestamp;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use uuid::Uuid;

/// A JSON body in, or out.
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<App> for Json<T> {
    type Rejection = Error;
    async fn from_request(request: Request, app: &App) -> Result<Self> {
        json(request, app).await
    }
}

/// A JSON body, where only the handler knows its type.
pub async fn json<T: DeserializeOwned>(request: Request, app: &App) -> Result<Json<T>> {
    if !is_json(request.headers()) {
        return Err(Error::UnsupportedMediaType);
    }
    parse(&body(request, app).await?).map(Json)
}

/// A JSON body that may be absent.
pub async fn json_or_default<T: DeserializeOwned + Default>(
    request: Request,
    app: &App,
) -> Result<T> {
    let says_json = is_json(request.headers());
    let bytes = body(request, app).await?;
    match bytes.is_empty() {
        true => Ok(T::default()),
        false if says_json => {
            // Where nothing has to be there, what is has to make sense all the same.
            parse::<Value>(&bytes)?;
            parse(&bytes)
        }
        false => Err(Error::UnsupportedMediaType),
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

/// The whole body, within the route's limit.
pub async fn body(request: Request, app: &App) -> Result<Bytes> {
    Bytes::from_request(request, app)
        .await
        .map_err(|rejection| match rejection.status().as_u16() {
            413 => Error::BodyTooLarge,
            408 => Error::RequestTimeout,
            _ => Error::MalformedJson("The body could not be read to its end.".into()),
        })
}

/// Whether a body says that it is JSON.
pub fn is_json(headers: &HeaderMap) -> bool {
    let Some(content_type) = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
    else {
        return false;
    };
    let essence = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// Tells malformed JSON, with its place, from JSON of the wrong shape, with its member.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let (path, error) = (error.path().to_string(), error.into_inner());
        if error.is_data() {
            let text = error.to_string();
            let problem = text.split(" at line ").next().unwrap_or_default();
            // A missing or doubled member is named by the text itself; the path is its parent's.
            let field = problem
                .split('`')
                .nth(1)
                .filter(|_| problem.contains("field `"))
                .map(ToOwned::to_owned);
            Error::Invalid(vec![Invalid::new(&field.unwrap_or(path), problem)])
        } else {
            Error::MalformedJson(format!("The body is not JSON: {error}."))
        }
    })?;
    deserializer
        .end()
        .map_err(|error| Error::MalformedJson(format!("The body is not JSON: {error}.")))?;
    // What is read into named members would take a list of them too, in their order.
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(Error::invalid("body", "has to be an object"));
    }
    if escapes_nul(bytes)
        && let Some(member) = serde_json::from_slice(bytes)
            .ok()
            .and_then(|body| with_nul(&body))
    {
        return Err(Error::invalid(&member, "holds the character U+0000"));
    }
    Ok(parsed)
}

/// Whether JSON escapes the one character that PostgreSQL's text cannot hold.
fn escapes_nul(json: &[u8]) -> bool {
    let mut rest = json;
    while let Some(backslash) = rest.iter().position(|byte| *byte == b'\\') {
        rest = &rest[backslash + 1..];
        if rest.starts_with(b"u0000") {
            return true;
        }
        // What is escaped may be a backslash itself.
        rest = rest.get(1..).unwrap_or_default();
    }
    false
}

/// Members that are hashed, never kept: a password may be any text.
const HASHED: [&str; 2] = ["password", "current_password"];

/// The member that has this character somewhere it would be kept.
fn with_nul(body: &Value) -> Option<String> {
    let Value::Object(members) = body else {
        return holds_nul(body).then(|| "body".into());
    };
    let kept = |name: &str| !HASHED.contains(&name);
    let member = members
        .iter()
        .find(|(name, value)| name.contains('\0') || (kept(name) && holds_nul(value)));
    member.map(|(name, _)| name.replace('\0', ""))
}

fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(holds_nul),
        Value::Object(members) => members
            .iter()
            .any(|(name, value)| name.contains('\0') || holds_nul(value)),
        _ => false,
    }
}

/// A query string.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<App> for Query<T> {
    type Rejection = Error;
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        let query = axum::extract::Query::<T>::from_request_parts(parts, app).await;
        query
            .map(|axum::extract::Query(query)| Self(query))
            .map_err(|e| Error::invalid("query", e.body_text()))
    }
}

/// A part of the path. One that cannot be an id names nothing.
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<App> for Path<T> {
    type Rejection = Error;
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        match axum::extract::Path::<T>::from_request_parts(parts, app).await {
            Ok(axum::extract::Path(path)) => Ok(Self(path)),
            Err(PathRejection::FailedToDeserializePathParams(e))
                if !matches!(e.kind(), ErrorKind::WrongNumberOfParameters { .. }) =>
            {
                Err(Error::NotFound)
            }
            Err(e) => Err(Error::Internal(anyhow::anyhow!("{e}"))),
        }
    }
}

/// Who asks: a user whose session stands, and who may do what users do.
#[derive(Debug, Clone)]
pub struct Auth {
    pub user: Uuid,
    pub session: Uuid,
    /// When they last proved who they are.
    pub authenticated_at: Timestamp,
    /// Whether they proved a second factor in this session.
    pub aal2: bool,
    /// Whether they have one that they could prove.
    pub second_factor: bool,
    pub reach: Reach,
}

/// How much of what is theirs a user's session opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    Full,
    /// They signed in with a password that others know, and have to choose one of their own.
    ChoosingPassword,
    /// It is an admin who looks, and changes nothing.
    Looking {
        by: Uuid,
    },
    /// It is a program with a personal API key, that asks and reads in their name. No session is open:
    /// what an [`Auth`] says of one is nobody's.
    Asking {
        key: Uuid,
    },
}

impl FromRequestParts<App> for Auth {
    type Rejection = Error;
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        let SignedIn(auth) = SignedIn::from_request_parts(parts, app).await?;
        match auth.reach {
            Reach::Full | Reach::Looking { .. } => Ok(auth),
            Reach::ChoosingPassword => Err(Error::PasswordExpired),
            Reach::Asking { .. } => Err(Error::Forbidden),
        }
    }
}

/// Who asks a model, or reads what it answered: a user, as [`Auth`], or a program of theirs with a
/// personal API key.
pub struct Asker(pub Auth);

impl FromRequestParts<App> for Asker {
    type Rejection = Error;
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        match bearer(&parts.headers).filter(|token| api_keys::is_one(token)) {
            Some(key) => api_keys::authenticate(app, key).await.map(Self),
            None => Auth::from_request_parts(parts, app).await.map(Self),
        }
    }
}

/// Who asks, also where they have to choose a password before they do anything else.
pub struct SignedIn(pub Auth);

impl FromRequestParts<App> for SignedIn {
    type Rejection = Error;
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        let client = Client::of(parts, app).await;
        let token = token(parts)?.ok_or(Error::NoToken)?;
        let auth = access::authenticate(app, token, &client).await?;
        if let Reach::Looking { by } = auth.reach {
            if let Some(seen_by) = parts.extensions.get::<SeenBy>() {
                seen_by.tell(by);
            }
            if !parts.method.is_safe() {
                return Err(Error::Forbidden);
            }
        }
        Ok(Self(auth))
    }
}

/// Who may administer: a user of role `admin`, or a server that holds the service-role key, as the
/// bearer or in the header `apikey`.
#[derive(Debug, Clone)]
pub struct Admin {
    /// `None` for the key: it is nobody in particular.
    pub user: Option<Uuid>,
    /// The session of who is somebody.
    pub session: Option<Auth>,
}

impl FromRequestParts<App> for Admin {
    type Rejection = Error;
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        let bearer = bearer(&parts.headers);
        let apikey = parts
            .headers
            .get("apikey")
            .and_then(|key| key.to_str().ok());
        for key in [bearer, apikey].into_iter().flatten() {
            if service_role::accepts(app, key).await {
                return Ok(Self {
                    user: None,
                    session: None,
                });
            }
        }
        let auth = Auth::from_request_parts(parts, app).await?;
        // What the row says now, not what the token said when it was made.
        let user = db::users::by_id(&app.db, auth.user).await?;
        let looks = matches!(auth.reach, Reach::Looking { .. });
        let administers = user.is_some_and(|user| user.role == "admin" && !looks);
        let refusal = match step_up::require_second_factor(app, &auth) {
            _ if !administers => Error::NotAdmin,
            Err(refusal) => refusal,
            Ok(()) => {
                return Ok(Self {
                    user: Some(auth.user),
                    session: Some(auth),
                });
            }
        };
        let (client, user) = (Client::of(parts, app).await, Some(auth.user));
        Err(audit::refuse_often(app, &client, "admin_access", user, refusal).await)
    }
}

/// The access token of a request: of its header, else of its cookie.
fn token(parts: &Parts) -> Result<Option<&str>> {
    match (bearer(&parts.headers), parts.extensions.get::<Cookies>()) {
        (None, Some(cookies)) => cookies.access(),
        (bearer, _) => Ok(bearer),
    }
}

/// The token of `Authorization: Bearer …`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .split_once(' ')?;
    Some(token.trim()).filter(|token| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
}

/// `?limit=` and `?cursor=`.
#[derive(Debug, Default, serde::Deserialize, utoipa::IntoParams)]
pub struct Page {
    /// How many at most, 1 to 100.
    #[serde(default)]
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<u32>,
    /// Where the last page ended: its `next_cursor`.
    #[serde(default)]
    cursor: Option<String>,
}

impl Page {
    pub fn limit(&self) -> Result<i64> {
        match self.limit.unwrap_or(20) {
            limit @ 1..=100 => Ok(limit.into()),
            _ => Err(Error::invalid("limit", "has to be 1 to 100")),
        }
    }

    /// Where the page goes on, in words of the list's own.
    pub fn text(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// The id the page goes on from.
    pub fn cursor(&self) -> Result<Option<Uuid>> {
        let parse = |cursor: &String| {
            Uuid::try_parse(cursor).map_err(|_| Error::invalid("cursor", "has to be a next_cursor"))
        };
        self.cursor.as_ref().map(parse).transpose()
    }
}

/// One page of a list.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct List<T> {
    pub data: Vec<T>,
    /// Ask for the next page with it; null on the last.
    pub next_cursor: Option<String>,
}

impl<T> List<T> {
    /// A page that was asked for with one row more than `limit`.
    pub fn of<R>(
        mut rows: Vec<R>,
        limit: i64,
        id: impl Fn(&R) -> Uuid,
        into: impl Fn(R) -> T,
    ) -> Self {
        let more = rows.len() as i64 > limit;
        rows.truncate(limit as usize);
        let next_cursor = rows.last().filter(|_| more).map(|row| id(row).to_string());
        Self {
            data: rows.into_iter().map(into).collect(),
            next_cursor,
        }
    }
}

/// A time as our answers write it.
#[derive(Debug, Clone, Copy, Serialize, utoipa::ToSchema)]
#[schema(value_type = String, format = DateTime, example = "2026-11-20T09:30:00.000000Z")]
#[serde(transparent)]
pub struct Time(pub Timestamp);

impl From<Timestamp> for Time {
    fn from(at: Timestamp) -> Self {
        Self(at)
    }
}
