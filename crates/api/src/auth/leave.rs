use super::{
    audit,
    deletion::{self, Leaves},
    session::Client,
    step_up,
};
use crate::{
    App, Error, Result,
    extract::Auth,
    mail::{self, Mail},
};
use axum::{extract::State, http::StatusCode};
use serde_json::json;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(leave))
}

/// Delete one's own account with everything that is in it, for good. Needs a sign-in of the last
/// minutes. Subscriptions that would renew are noted for cancelling.
#[utoipa::path(delete, path = "/auth/v1/user", tag = "sign-in", responses((status = 204)))]
async fn leave(State(app): State<App>, auth: Auth, client: Client) -> Result<StatusCode> {
    step_up::demand(&app, &auth, &client, "user_deleted").await?;
    let now = app.now();
    let mut tx = app.db.begin().await?;
    let user = db::users::locked(&mut tx, auth.user)
        .await?
        .ok_or(Error::SessionEnded)?;
    audit::succeeded(&mut tx, &client, "user_deleted", user.id, json!({}), now).await?;
    mail::tell(&mut tx, &user, |to| Mail::AccountDeleted { to }, now).await?;
    deletion::delete(&mut tx, user.id, Leaves::Nothing, now).await?;
    tx.commit().await?;

    Ok(StatusCode::NO_CONTENT)
}
