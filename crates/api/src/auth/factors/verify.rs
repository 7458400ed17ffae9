use super::{totp, webauthn};
use crate::{
    App, Error, Result,
    auth::session::{self, Client},
    extract::{Auth, Json, Path},
    limit::Action,
};
use axum::extract::State;
use db::{Timestamp, factors::Factor};
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

#[derive(Deserialize, ToSchema)]
#[schema(as = FactorVerification)]
pub struct Verification {
    challenge_id: Uuid,
    /// What the authenticator app shows.
    #[serde(default)]
    code: Option<String>,
    /// What the browser did.
    #[serde(default)]
    webauthn: Option<webauthn::Answer>,
}

/// Prove a second factor: a session at aal2 takes the place of this one, and the user's sessions that
/// saw no second factor end. The first time it makes the factor count.
#[utoipa::path(post, path = "/auth/v1/factors/{id}/verify", tag = "second factors", params(("id" = Uuid, Path)), request_body = Verification, responses((status = 200, body = session::Response), (status = 404)))]
pub async fn verify(
    State(app): State<App>,
    auth: Auth,
    client: Client,
    Path(id): Path<Uuid>,
    Json(given): Json<Verification>,
) -> Result<session::Response> {
    app.limits
        .check(Action::SecondFactor, &auth.user.to_string())
        .await?;
    let now = app.now();
    let mut tx = app.db.begin().await?;
    // Before the factor, as whatever else changes factors does it.
    db::users::locked(&mut tx, auth.user).await?;
    let factor = super::locked(&mut tx, id, &auth, now).await?;
    super::may_prove(&app, &auth, &factor)?;
    let challenge = given.challenge_id;
    let (to_sign,) = db::factors::open(&mut tx, challenge, id, auth.session, now)
        .await?
        .ok_or(Error::ChallengeExpired)?;
    let judged = match to_sign {
        Some(to_sign) => {
            let answer = given.webauthn.ok_or_else(|| missing("webauthn"))?;
            // A signature counts once, right or wrong; codes may be mistyped.
            db::factors::answered(&mut tx, challenge, now).await?;
            let judged = webauthn::judge(&app, &mut tx, &factor, &to_sign, answer, now).await?;
            judged
                .map(|()| (webauthn::METHOD, None))
                .map_err(Error::WebauthnRefused)
        }
        None => {
            let code = given.code.ok_or_else(|| missing("code"))?;
            let step = fresh_step(&app, &factor, &code, now)?;
            step.map(|step| ("totp", Some(step)))
                .ok_or(Error::MfaVerificationFailed)
        }
    };
    let proof = match judged {
        Ok(proof) => proof,
        Err(refusal) => {
            super::failed(&mut tx, &client, &factor, &refusal, now).await?;
            tx.commit().await?;
            return Err(refusal);
        }
    };
    db::factors::answered(&mut tx, challenge, now).await?;
    let (user, session) = super::proved(&app, &mut tx, &auth, &client, &factor, proof, now).await?;
    tx.commit().await?;

    session::respond(&app, user, session).await
}

fn missing(member: &str) -> Error {
    Error::invalid(member, "is missing")
}

/// The step of a right code that is newer than every one that was taken.
fn fresh_step(app: &App, factor: &Factor, code: &str, now: Timestamp) -> Result<Option<i64>> {
    let sealed = factor.secret_sealed.as_deref();
    let sealed = sealed.ok_or(Error::FactorNotFound)?;
    let secret = app.keys.unseal(factor.id.as_bytes(), sealed);
    let secret = secret.ok_or_else(|| anyhow::anyhow!("a TOTP secret does not open"))?;
    let step = totp::step_of(&secret, code.trim(), now);
    Ok(step.filter(|step| factor.last_used_step.is_none_or(|last| *step > last)))
}
