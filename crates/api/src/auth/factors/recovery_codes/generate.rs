use super::RecoveryCodes;
use crate::{
    App, Error, Result,
    auth::{
        audit,
        factors::{MAX_FACTORS, counting_beside, short},
        session::Client,
        step_up,
    },
    extract::{Auth, Json, json_or_default},
    limit::Action,
    mail::{self, Mail},
};
use axum::extract::{Request, State};
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

/// What they are called unless somebody says otherwise.
const NAME: &str = "Recovery codes";

#[derive(Default, Deserialize, ToSchema)]
#[schema(as = NewRecoveryCodes)]
struct New {
    /// Up to 100 characters; no two factors of a user have the same.
    #[serde(default)]
    friendly_name: Option<String>,
}

/// Make ten recovery codes, of a user who has another second factor and proved it in the last minutes.
/// The user is told by mail.
#[utoipa::path(post, path = "/auth/v1/factors/recovery-codes", tag = "second factors", request_body = Option<New>, responses((status = 200, body = RecoveryCodes)))]
pub async fn generate(
    State(app): State<App>,
    auth: Auth,
    client: Client,
    request: Request,
) -> Result<Json<RecoveryCodes>> {
    let asked: New = json_or_default(request, &app).await?;
    let mut name = short("friendly_name", asked.friendly_name)?;
    if name.is_empty() {
        name = NAME.into();
    }
    step_up::demand(&app, &auth, &client, "recovery_codes_generated").await?;
    app.limits
        .check(Action::SecondFactor, &auth.user.to_string())
        .await?;

    let (id, now) = (Uuid::now_v7(), app.now());
    let mut tx = app.db.begin().await?;
    let user = db::users::locked(&mut tx, auth.user).await?;
    let user = user.ok_or(Error::SessionEnded)?;
    let factors = db::factors::now_of_user(&mut tx, user.id).await?;
    if factors.iter().any(|factor| factor.is_recovery_codes()) {
        return Err(Error::VerifiedFactorExists);
    }
    if counting_beside(&factors, None) == 0 {
        return Err(Error::RecoveryCodesSoleFactor);
    }
    if factors.len() >= MAX_FACTORS {
        return Err(Error::TooManyFactors);
    }
    let kind = db::factors::RECOVERY_CODE;
    if !db::factors::create(&mut tx, id, user.id, kind, &name, "verified", None, now).await? {
        return Err(Error::FactorNameConflict);
    }
    let codes = super::make(&mut tx, id, now).await?;
    let detail = json!({"factor": id, "count": codes.len()});
    let action = "recovery_codes_generated";
    audit::succeeded(&mut tx, &client, action, user.id, detail, now).await?;
    mail::tell(&mut tx, &user, |to| Mail::RecoveryCodesMade { to }, now).await?;
    tx.commit().await?;

    Ok(Json(RecoveryCodes::new(id, name, codes)))
}
