use super::{Removed, counting_beside};
use crate::{
    App, Error, Result,
    auth::{audit, session, session::Client, step_up},
    extract::{Auth, Json, Path},
    mail::{self, Mail},
};
use axum::extract::State;
use db::factors::Factor;
use serde_json::json;
use uuid::Uuid;

/// Remove a second factor. One that counts asks for a fresh session at aal2, ends every other session,
/// and leaves this one at aal1. Recovery codes are never left alone: they go first.
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
    if factor.is_recovery_codes() {
        let problem = "is that of the recovery codes, which have a route of their own";
        return Err(Error::invalid("id", problem));
    }
    if factor.is_verified() {
        if let Err(refusal) = step_up::require(&app, &auth) {
            drop(tx);
            let action = "factor_unenrolled";
            return Err(audit::refuse(&app, &client, action, user.id, refusal).await);
        }
        let factors = db::factors::now_of_user(&mut tx, user.id).await?;
        let has_codes = factors.iter().any(Factor::is_recovery_codes);
        if has_codes && counting_beside(&factors, Some(id)) == 0 {
            return Err(Error::RecoveryCodesSoleFactor);
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
