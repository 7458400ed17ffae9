use crate::{
    App, Error, Result,
    auth::{audit, passkeys::Passkey, session::Client, step_up},
    extract::{Admin, Json, Path},
    mail::{self, Mail},
};
use axum::{extract::State, http::StatusCode};
use serde_json::json;
use uuid::Uuid;

/// A user's passkeys, oldest first.
#[utoipa::path(get, path = "/auth/v1/admin/users/{id}/passkeys", tag = "admin", params(("id" = Uuid, Path)),
    responses((status = 200, body = Vec<Passkey>), (status = 404)))]
pub async fn list(
    State(app): State<App>,
    _: Admin,
    Path(id): Path<Uuid>,
) -> Result<Json<Vec<Passkey>>> {
    let user = db::users::by_id(&app.db, id).await?;
    let user = user.ok_or(Error::UserNotFound)?;
    let passkeys = db::passkeys::of_user(&app.db, user.id).await?;
    Ok(Json(passkeys.into_iter().map(Into::into).collect()))
}

/// Remove a passkey of who lost it, also the last: they hear of it by mail. A person who administers needs a
/// sign-in of the last minutes.
#[utoipa::path(delete, path = "/auth/v1/admin/users/{id}/passkeys/{passkey}", tag = "admin",
    params(("id" = Uuid, Path), ("passkey" = Uuid, Path)),
    responses((status = 204), (status = 404)))]
pub async fn delete(
    State(app): State<App>,
    admin: Admin,
    client: Client,
    Path((id, passkey)): Path<(Uuid, Uuid)>,
) -> Result<StatusCode> {
    let (action, now) = ("passkey_deleted", app.now());
    step_up::demand_of_admin(&app, &admin, &client, action, Some(id)).await?;
    let mut tx = app.db.begin().await?;
    let user = db::users::locked(&mut tx, id).await?;
    let user = user.ok_or(Error::UserNotFound)?;
    if !db::passkeys::delete(&mut tx, passkey, user.id).await? {
        return Err(Error::WebauthnCredentialNotFound);
    }
    mail::tell(&mut tx, &user, |to| Mail::PasskeyRemoved { to }, now).await?;
    let detail = json!({"passkey": passkey});
    audit::by_admin(&mut tx, &client, action, &admin, Some(id), detail, now).await?;
    tx.commit().await?;

    Ok(StatusCode::NO_CONTENT)
}
