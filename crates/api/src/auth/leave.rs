use super::{
    apple, audit,
    cookies::Cookies,
    deletion::{self, Leaves},
    session::Client,
    step_up,
};
use crate::{
    App, Error, Result,
    extract::{self, Auth},
    mail::{self, Mail},
};
use axum::{
    extract::{Request, State},
    http::StatusCode,
};
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(leave))
}

#[derive(Default, Deserialize, ToSchema)]
struct Leaving {
    /// Of a sign-in with Apple just now: what Apple gave us for it is given back. Not needed where the
    /// sign-in itself brought one.
    #[serde(default)]
    authorization_code: Option<String>,
}

/// Delete one's own account with everything that is in it, for good. Needs a sign-in of the last
/// minutes. Subscriptions that would renew are noted for cancelling. Takes a browser's cookies away.
#[utoipa::path(delete, path = "/auth/v1/user", tag = "sign-in", request_body = Option<Leaving>, responses((status = 204)))]
async fn leave(
    State(app): State<App>,
    auth: Auth,
    cookies: Cookies,
    client: Client,
    request: Request,
) -> Result<StatusCode> {
    let leaving: Leaving = extract::json_or_default(request, &app).await?;
    step_up::demand(&app, &auth, &client, "user_deleted").await?;
    let theirs = match &leaving.authorization_code {
        Some(code) => apple::redeem_to_leave(&app, auth.user, code).await?,
        None => None,
    };
    let now = app.now();
    let mut tx = app.db.begin().await?;
    let user = db::users::locked(&mut tx, auth.user)
        .await?
        .ok_or(Error::SessionEnded)?;
    audit::succeeded(&mut tx, &client, "user_deleted", user.id, json!({}), now).await?;
    mail::tell(&mut tx, &user, |to| Mail::AccountDeleted { to }, now).await?;
    if let Some(theirs) = theirs {
        apple::give_back(&mut tx, theirs, now).await?;
    }
    deletion::delete(&mut tx, user.id, Leaves::Nothing, now).await?;
    tx.commit().await?;

    cookies.end();
    Ok(StatusCode::NO_CONTENT)
}
