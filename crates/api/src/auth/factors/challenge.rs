use super::{CHALLENGE_TTL, webauthn};
use crate::{
    App, Error, Result,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    webauthn: Option<webauthn::Question>,
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
    if factor.is_recovery_codes() {
        let problem = "is that of the recovery codes, which ask nothing";
        return Err(Error::invalid("id", problem));
    }
    let to_sign = rand::random::<[u8; 32]>();
    let (webauthn, to_sign) = match factor.factor_type == webauthn::TYPE {
        true => {
            let question = webauthn::ask(&app, &mut tx, &factor, &to_sign).await?;
            (Some(question), Some(to_sign.as_slice()))
        }
        false => (None, None),
    };
    let expires_at = now + CHALLENGE_TTL;
    let (session, until) = (auth.session, expires_at);
    let challenge = db::factors::challenge(&mut tx, id, session, to_sign, until, now).await?;
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
        webauthn,
    }))
}
