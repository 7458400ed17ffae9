use crate::{
    App, Error, Result,
    extract::{Auth, Json},
};
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

#[derive(Serialize, ToSchema)]
#[schema(as = RecoveryCodesStatus)]
pub struct Status {
    id: Uuid,
    r#type: &'static str,
    total: i64,
    /// How many were not used yet.
    remaining: i64,
}

/// How many of the user's recovery codes are left.
#[utoipa::path(get, path = "/auth/v1/factors/recovery-codes", tag = "second factors", responses((status = 200, body = Status), (status = 404)))]
pub async fn status(State(app): State<App>, auth: Auth) -> Result<Json<Status>> {
    let factors = db::factors::of_user(&app.db, auth.user).await?;
    let codes = factors.iter().find(|factor| factor.is_recovery_codes());
    let id = codes.ok_or(Error::FactorNotFound)?.id;
    let (total, remaining) = db::recovery_codes::count(&app.db, id).await?;

    Ok(Json(Status {
        id,
        r#type: db::factors::RECOVERY_CODE,
        total,
        remaining,
    }))
}
