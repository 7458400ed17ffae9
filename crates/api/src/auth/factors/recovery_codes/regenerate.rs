use super::RecoveryCodes;
use crate::{
    App, Error, Result,
    auth::{audit, session::Client, step_up},
    extract::{Auth, Json},
    limit::Action,
    mail::{self, Mail},
};
use axum::extract::State;
use serde_json::json;

/// Make ten other recovery codes; the earlier are worthless from then on. Asks for a fresh session at
/// aal2. The user is told by mail.
#[utoipa::path(post, path = "/auth/v1/factors/recovery-codes/regenerate", tag = "second factors", responses((status = 200, body = RecoveryCodes), (status = 404)))]
pub async fn regenerate(
    State(app): State<App>,
    auth: Auth,
    client: Client,
) -> Result<Json<RecoveryCodes>> {
    step_up::demand(&app, &auth, &client, "recovery_codes_regenerated").await?;
    app.limits
        .check(Action::SecondFactor, &auth.user.to_string())
        .await?;

    let now = app.now();
    let mut tx = app.db.begin().await?;
    let user = db::users::locked(&mut tx, auth.user).await?;
    let user = user.ok_or(Error::SessionEnded)?;
    let factor = super::held(&mut tx, &auth).await?;
    db::recovery_codes::delete_of_factor(&mut tx, factor.id).await?;
    let codes = super::make(&mut tx, factor.id, now).await?;
    // Whoever guessed at the earlier ones begins anew.
    db::factors::unlock(&mut tx, factor.id, now).await?;
    let detail = json!({"factor": factor.id, "count": codes.len()});
    let action = "recovery_codes_regenerated";
    audit::succeeded(&mut tx, &client, action, user.id, detail, now).await?;
    mail::tell(&mut tx, &user, |to| Mail::RecoveryCodesMade { to }, now).await?;
    tx.commit().await?;

    Ok(Json(RecoveryCodes::new(
        factor.id,
        factor.friendly_name,
        codes,
    )))
}
