use crate::{
    App, Error, Result,
    auth::{
        audit,
        session::{Client, FactorBody},
        step_up,
    },
    extract::{Admin, Json, Path},
    mail::{self, Mail},
};
use axum::extract::State;
use serde_json::json;
use uuid::Uuid;

/// A user's second factors, without their secrets.
#[utoipa::path(get, path = "/auth/v1/admin/users/{id}/factors", tag = "admin", params(("id" = Uuid, Path)),
    responses((status = 200, body = Vec<FactorBody>), (status = 404)))]
pub async fn list(
    State(app): State<App>,
    _: Admin,
    Path(id): Path<Uuid>,
) -> Result<Json<Vec<FactorBody>>> {
    let user = db::users::by_id(&app.db, id).await?;
    let user = user.ok_or(Error::UserNotFound)?;
    let factors = db::factors::of_user(&app.db, user.id).await?;
    Ok(Json(factors.into_iter().map(Into::into).collect()))
}

/// Remove a second factor of who lost it. One that counted ends their sessions, and they hear of it by mail.
/// A person who administers needs a sign-in of the last minutes.
#[utoipa::path(delete, path = "/auth/v1/admin/users/{id}/factors/{factor}", tag = "admin",
    params(("id" = Uuid, Path), ("factor" = Uuid, Path)),
    responses((status = 200, body = FactorBody), (status = 404)))]
pub async fn delete(
    State(app): State<App>,
    admin: Admin,
    client: Client,
    Path((id, factor)): Path<(Uuid, Uuid)>,
) -> Result<Json<FactorBody>> {
    let (action, now) = ("factor_deleted", app.now());
    step_up::demand_of_admin(&app, &admin, &client, action, Some(id)).await?;
    let mut tx = app.db.begin().await?;
    let user = db::users::locked(&mut tx, id).await?;
    let user = user.ok_or(Error::UserNotFound)?;
    let factor = db::factors::locked(&mut tx, factor, user.id).await?;
    let factor = factor.ok_or(Error::FactorNotFound)?;
    db::factors::delete(&mut tx, factor.id).await?;
    if factor.is_verified() {
        db::sessions::revoke_of_user(&mut tx, user.id, None, "factor_removed", now).await?;
        mail::tell(&mut tx, &user, |to| Mail::FactorRemoved { to }, now).await?;
    }
    let detail = json!({"factor": factor.id, "type": factor.factor_type, "status": factor.status});
    audit::by_admin(&mut tx, &client, action, &admin, Some(id), detail, now).await?;
    tx.commit().await?;

    Ok(Json(factor.into()))
}
