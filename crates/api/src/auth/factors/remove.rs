use crate::{
    App, Error, Result,
    auth::{audit, session, session::Client, step_up},
    extract::{Auth, Json, Path},
    mail::{self, Mail},
};
use axum::extract::State;
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

#[derive(Serialize, ToSchema)]
#[schema(as = RemovedFactor)]
pub struct Removed {
    id: Uuid,
}

/// Remove a second factor. One that counts asks for a fresh session at aal2, ends every other session,
/// and leaves this one at aal1.
#[utoipa::path(delete, path = "/auth/v1/factors/{id}", tag = "second factors", params(("id" = Uuid, Path)), responses((status = 200, body = Removed), (status = 404)))]
pub async fn remove(
    State(app): State<App>,
    auth: Auth,
    client: Client,
    Path(id): Path<Uuid>,
) -> Result<Json<Removed>> {
    let now = app.now();
    let mut tx = app.db.begin().await?;
    let user = db::users::locked(&mut tx, auth.user).await?;
    let user = user.ok_or(Error::SessionEnded)?;
    let factor = db::factors::locked(&mut tx, id, user.id).await?;
    let factor = factor.ok_or(Error::FactorNotFound)?;
    if factor.is_verified() {
        if let Err(refusal) = step_up::require(&app, &auth) {
            drop(tx);
            let action = "factor_unenrolled";
            return Err(audit::refuse(&app, &client, action, user.id, refusal).await);
        }
        session::step_down(&mut tx, auth.session).await?;
        let (keep, reason) = (Some(auth.session), "factor_removed");
        db::sessions::revoke_of_user(&mut tx, user.id, keep, reason, now).await?;
        mail::tell(&mut tx, &user, |to| Mail::FactorRemoved { to }, now).await?;
    }
    db::factors::delete(&mut tx, id).await?;
    let detail = json!({"factor": id, "type": factor.factor_type, "status": factor.status});
    audit::succeeded(&mut tx, &client, "factor_unenrolled", user.id, detail, now).await?;
    tx.commit().await?;

    Ok(Json(Removed { id }))
}
