use super::{audit, session::Client};
use crate::{
    App, Error, Result,
    extract::{Auth, Query},
};
use axum::{extract::State, http::StatusCode};
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(logout))
}

#[derive(Deserialize, IntoParams)]
struct Scope {
    /// `global` (every session), `local` (this one) or `others`.
    #[serde(default)]
    scope: Option<String>,
}

/// Sign out. Counts at once, on every instance, also for access tokens that are still in time.
#[utoipa::path(post, path = "/auth/v1/logout", tag = "sign-in", params(Scope), responses((status = 204)))]
async fn logout(
    State(app): State<App>,
    auth: Auth,
    client: Client,
    Query(scope): Query<Scope>,
) -> Result<StatusCode> {
    let now = app.now();
    let mut tx = app.db.begin().await?;
    match scope.scope.as_deref() {
        None | Some("global") => {
            db::sessions::revoke_of_user(&mut tx, auth.user, None, "logout", now).await?;
        }
        Some("others") => {
            db::sessions::revoke_of_user(&mut tx, auth.user, Some(auth.session), "logout", now)
                .await?;
        }
        Some("local") => {
            db::sessions::revoke(&mut tx, auth.session, "logout", now).await?;
        }
        Some(_) => return Err(Error::invalid("scope", "has to be global, local or others")),
    }
    let detail =
        json!({"scope": scope.scope.as_deref().unwrap_or("global"), "session": auth.session});
    audit::succeeded(&mut tx, &client, "logout", auth.user, detail, now).await?;
    tx.commit().await?;

    Ok(StatusCode::NO_CONTENT)
}
