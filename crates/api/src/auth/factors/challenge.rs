use super::CHALLENGE_TTL;
use crate::{
    App, Result,
    auth::{audit, session::Client},
    extract::{Auth, Json, Path},
    limit::Action,
};
use axum::extract::State;
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

#[derive(Serialize, ToSchema)]
#[schema(as = FactorChallenge)]
pub struct Challenge {
    id: Uuid,
    r#type: String,
    /// Seconds since 1970.
    expires_at: i64,
}

/// Ask for a second factor. The answer goes to verify, from the same session.
#[utoipa::path(post, path = "/auth/v1/factors/{id}/challenge", tag = "second factors", params(("id" = Uuid, Path)), responses((status = 200, body = Challenge), (status = 404)))]
pub async fn challenge(
    State(app): State<App>,
    auth: Auth,
    client: Client,
    Path(id): Path<Uuid>,
) -> Result<Json<Challenge>> {
    app.limits
        .check(Action::SecondFactor, &auth.user.to_string())
        .await?;
    let now = app.now();
    let mut tx = app.db.begin().await?;
    let factor = super::locked(&mut tx, id, &auth, now).await?;
    super::may_prove(&app, &auth, &factor)?;
    let expires_at = now + CHALLENGE_TTL;
    let challenge = db::factors::challenge(&mut tx, id, auth.session, expires_at, now).await?;
    let detail = json!({"factor": id, "challenge": challenge});
    audit::succeeded(
        &mut tx,
        &client,
        "challenge_created",
        auth.user,
        detail,
        now,
    )
    .await?;
    tx.commit().await?;

    Ok(Json(Challenge {
        id: challenge,
        r#type: factor.factor_type,
        expires_at: expires_at.unix(),
    }))
}
