use super::{
    audit, cookies::Cookies, guesses, known_device::Device, native, native::IdTokenGrant,
    normalise_email, password, pkce, refresh, session,
};
use crate::{
    App, Error, Result,
    extract::{self, Auth, Json, Query},
    http::ClientAddress,
};
use axum::extract::{FromRequestParts, Request, State};
use db::{Timestamp, Tx, users::User};
use serde::Deserialize;
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(token))
}

#[derive(Deserialize, IntoParams)]
struct Grant {
    /// `password`, `refresh_token`, `id_token` or `pkce`.
    #[serde(default)]
    grant_type: String,
}

#[derive(Deserialize, ToSchema)]
struct PasswordGrant {
    email: String,
    password: String,
}

#[derive(Default, Deserialize, ToSchema)]
struct RefreshTokenGrant {
    /// Left out where it is in a cookie.
    #[serde(default)]
    refresh_token: Option<String>,
}

#[derive(Deserialize, ToSchema)]
struct PkceGrant {
    /// The `code` that the redirect brought.
    auth_code: String,
    /// What `code_challenge` was the hash of.
    code_verifier: String,
}

#[derive(ToSchema)]
#[schema(as = TokenGrant)]
#[expect(dead_code, reason = "for the description alone")]
enum AnyGrant {
    #[schema(title = "password")]
    Password(PasswordGrant),
    #[schema(title = "refresh_token")]
    RefreshToken(RefreshTokenGrant),
    #[schema(title = "id_token")]
    IdToken(IdTokenGrant),
    #[schema(title = "pkce")]
    Pkce(PkceGrant),
}

/// Sign in, with a provider's ID token too, refresh, or exchange the code of a redirect. A refresh token is good for one use; used twice at the same moment, or when
/// the answer was lost, it gives the same new one.
#[utoipa::path(post, path = "/auth/v1/token", tag = "sign-in", security(()), params(
    Grant,
    ("X-Session-Transport" = Option<String>, Header, description = "`cookie`: the tokens go into cookies, and are left out of the answer. As with every answer that is a session"),
    ("X-Device-Token" = Option<String>, Header, description = "What the last session on this device came with: strangers who guess do not lock its user out here"),
), request_body = AnyGrant, responses((status = 200, body = session::Response)))]
async fn token(
    State(app): State<App>,
    client: session::Client,
    cookies: Cookies,
    device: Device,
    address: ClientAddress,
    Query(grant): Query<Grant>,
    request: Request,
) -> Result<session::Response> {
    match grant.grant_type.as_str() {
        "password" => {
            let Json(given) = extract::json(request, &app).await?;
            password(&app, given, &client, &device, address).await
        }
        "refresh_token" => {
            let given: RefreshTokenGrant = extract::json_or_default(request, &app).await?;
            let token = given.refresh_token.as_deref();
            let token = token.map_or_else(|| cookies.refresh(), |token| Ok(Some(token)))?;
            let token = token.ok_or_else(|| Error::invalid("refresh_token", "is missing"))?;
            refresh::refresh(&app, token, &client).await
        }
        "id_token" => id_token(&app, request, &client).await,
        "pkce" => {
            let Json::<PkceGrant>(given) = extract::json(request, &app).await?;
            pkce::exchange(&app, &given.auth_code, &given.code_verifier, &client).await
        }
        _ => Err(Error::UnsupportedGrantType),
    }
}

/// Who links it shows besides who they are; of who signs in, no token is looked at.
async fn id_token(
    app: &App,
    request: Request,
    client: &session::Client,
) -> Result<session::Response> {
    let (parts, body) = request.into_parts();
    let mut asking = parts.clone();
    let request = Request::from_parts(parts, body);
    let Json::<IdTokenGrant>(grant) = extract::json(request, app).await?;
    if !grant.links() {
        return native::sign_in(app, &grant, client).await;
    }
    let auth = Auth::from_request_parts(&mut asking, app).await?;
    native::link(app, &grant, &auth, client).await
}

/// An unknown address, a wrong password and a user without one read alike and take as long.
async fn password(
    app: &App,
    given: PasswordGrant,
    client: &session::Client,
    device: &Device,
    address: ClientAddress,
) -> Result<session::Response> {
    let email = normalise_email(&given.email);
    let guess = guesses::begin(app, email.as_deref().unwrap_or("-"), device, address).await?;
    let user = match &email {
        Some(email) => db::users::by_email(&app.db, email).await?,
        None => None,
    };
    let hash = user.as_ref().and_then(|user| user.password_hash.as_deref());
    let right = app.passwords.verify(&given.password, hash).await?;
    let renewed = match hash {
        Some(hash) if right => app.passwords.renewed(&given.password, hash).await?,
        _ => None,
    };
    if right {
        guess.forget(app).await;
    }
    let outcome = if right { "succeeded" } else { "failed" };
    metrics::counter!("auth_events_total", "kind" => "password", "outcome" => outcome).increment(1);
    let now = app.now();
    let mut tx = app.db.begin().await?;
    let refusal = match &user {
        Some(user) if right && guess.counts(&mut tx, user.id).await? => standing(user, now),
        Some(user) if !right && hash.is_some() => {
            guess.was_wrong(&mut tx, user, now).await?;
            Some(Error::InvalidCredentials)
        }
        _ => Some(Error::InvalidCredentials),
    };
    let detail = json!({"method": "password"});
    let refusal = match (&user, refusal) {
        (Some(user), None) if !is_good(&mut tx, user, now).await? => {
            Some(Error::InvalidCredentials)
        }
        (_, refusal) => refusal,
    };
    if let Some(refusal) = refusal {
        let user = user.map(|user| user.id);
        audit::refused(&mut tx, client, "login", user, detail, now).await?;
        tx.commit().await?;
        return Err(refusal);
    }
    let user = user.ok_or(Error::InvalidCredentials)?;
    if let (Some(from), Some(to)) = (&user.password_hash, renewed) {
        db::users::renew_password_hash(&mut tx, user.id, from, &to).await?;
    }
    let (user, session) = session::open(app, &mut tx, user, "password", client, now).await?;
    tx.commit().await?;

    let least = app.config.auth.auth_min_password_length;
    Ok(session::Response {
        weak_password: password::weakness(&given.password, email.as_deref(), least),
        ..session::respond(app, user, session).await?
    })
}

/// Why somebody whose password is right may not come in.
fn standing(user: &User, now: Timestamp) -> Option<Error> {
    if user.email_confirmed_at.is_none() {
        return Some(Error::EmailNotConfirmed);
    }
    user.is_banned(now).then_some(Error::UserBanned)
}

/// Whether the right password signs in: one that was handed over by others does once.
async fn is_good(tx: &mut Tx, user: &User, now: Timestamp) -> Result<bool> {
    match (user.password_expired_at, &user.password_hash) {
        (Some(_), Some(hash)) => Ok(db::users::use_up_password(tx, user.id, hash, now).await?),
        _ => Ok(true),
    }
}
