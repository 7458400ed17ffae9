use crate::{
    App, Error, Result,
    auth::{audit, factors::Removed, session, session::Client, step_up},
    extract::{Auth, Json},
    mail::{self, Mail},
};
use axum::extract::State;
use serde_json::json;

/// Forget the user's recovery codes. Asks for a fresh session at aal2; sessions that stand on one of
/// them end, and this one, if it does, is left at aal1. The user is told by mail.
#[utoipa::path(delete, path = "/auth/v1/factors/recovery-codes", tag = "second factors", responses((status = 200, body = Removed), (status = 404)))]
pub async fn remove(State(app): State<App>, auth: Auth, client: Client) -> Result<Json<Removed>> {
    step_up::demand(&app, &auth, &client, "recovery_codes_deleted").await?;

    let now = app.now();
    let mut tx = app.db.begin().await?;
    let user = db::users::locked(&mut tx, auth.user).await?;
    let user = user.ok_or(Error::SessionEnded)?;
    let factor = super::held(&mut tx, &auth).await?;
    db::factors::delete(&mut tx, factor.id).await?;
    session::forget_recovery_codes(&mut tx, user.id, auth.session, now).await?;
    let (action, detail) = ("recovery_codes_deleted", json!({"factor": factor.id}));
    audit::succeeded(&mut tx, &client, action, user.id, detail, now).await?;
    mail::tell(&mut tx, &user, |to| Mail::RecoveryCodesRemoved { to }, now).await?;
    tx.commit().await?;

    Ok(Json(Removed { id: factor.id }))
}
