use super::{audit, cookies::Cookies, refresh, session::Client};
use crate::{
    App, Error, Result,
    error::Dialect,
    extract::{Auth, Query, SignedIn},
};
use axum::{extract::State, http::StatusCode};
use db::{Tx, sessions::Session};
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(logout))
}

#[derive(Deserialize, IntoParams)]
struct Scope {
    /// `global` (every session), `local` (this one) or `others`.
    #[serde(default)]
    scope: Option<String>,
}

/// Sign out. Counts at once, on every instance, also for access tokens that are still in time. Takes a
/// browser's cookies away.
#[utoipa::path(post, path = "/auth/v1/logout", tag = "sign-in", params(Scope), responses((status = 204)))]
async fn logout(
    State(app): State<App>,
    auth: Result<SignedIn>,
    cookies: Cookies,
    client: Client,
    Query(scope): Query<Scope>,
) -> Result<StatusCode> {
    let now = app.now();
    let mut tx = app.db.begin().await?;
    let (user, session) = who(&app, &mut tx, auth.map(|SignedIn(auth)| auth), &cookies).await?;
    match scope.scope.as_deref() {
        None | Some("global") => {
            db::sessions::revoke_of_user(&mut tx, user, None, "logout", now).await?;
        }
        Some("others") => {
            db::sessions::revoke_of_user(&mut tx, user, Some(session), "logout", now).await?;
        }
        Some("local") => {
            db::sessions::revoke(&mut tx, session, "logout", now).await?;
        }
        Some(_) => return Err(Error::invalid("scope", "has to be global, local or others")),
    }
    let detail = json!({"scope": scope.scope.as_deref().unwrap_or("global"), "session": session});
    audit::succeeded(&mut tx, &client, "logout", user, detail, now).await?;
    tx.commit().await?;

    if scope.scope.as_deref() != Some("others") {
        cookies.end();
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Whose session it is that ends. A browser whose access token has expired signs out by its refresh
/// token, and one whose session is over already still loses its cookies.
async fn who(
    app: &App,
    tx: &mut Tx,
    auth: Result<Auth>,
    cookies: &Cookies,
) -> Result<(Uuid, Uuid)> {
    let refresh_token = cookies.refresh()?;
    let refusal = match (auth, refresh_token) {
        (Ok(auth), _) => return Ok((auth.user, auth.session)),
        (Err(refusal), None) => refusal,
        (Err(_), Some(token)) => match by_refresh_token(app, tx, token).await {
            Ok(session) => return Ok((session.user_id, session.id)),
            Err(refusal) => refusal,
        },
    };
    if refusal.status(Dialect::GoTrue).is_client_error() {
        cookies.end();
    }
    Err(refusal)
}

async fn by_refresh_token(app: &App, tx: &mut Tx, token: &str) -> Result<Session> {
    let presented = refresh::present(app, token)?;
    refresh::session_of(app, tx, &presented).await
}
