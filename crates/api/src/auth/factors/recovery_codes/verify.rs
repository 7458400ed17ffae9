use super::hash;
use crate::{
    App, Error, Result,
    auth::{
        audit,
        factors::{failed, proved},
        session::{self, Client},
    },
    extract::{Auth, Json},
    limit::Action,
    mail::{self, Mail},
};
use axum::extract::State;
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;

/// How `amr` calls it.
const METHOD: &str = "mfa/recovery_code";

#[derive(Deserialize, ToSchema)]
#[schema(as = RecoveryCodeVerification)]
pub struct Verification {
    /// However it is written: spaces, hyphens and capitals do not matter.
    code: String,
}

/// Use a recovery code up: a session at aal2 takes the place of this one, and the user's sessions that
/// saw no second factor end. The user is told by mail.
#[utoipa::path(post, path = "/auth/v1/factors/recovery-codes/verify", tag = "second factors", request_body = Verification, responses((status = 200, body = session::Response)))]
pub async fn verify(
    State(app): State<App>,
    auth: Auth,
    client: Client,
    Json(given): Json<Verification>,
) -> Result<session::Response> {
    let code = plain(&given.code);
    if code.is_empty() {
        return Err(Error::invalid("code", "is missing"));
    }
    app.limits
        .check(Action::SecondFactor, &auth.user.to_string())
        .await?;
    let now = app.now();
    let mut tx = app.db.begin().await?;
    // Before the factor, as whatever else changes factors does it.
    db::users::locked(&mut tx, auth.user).await?;
    let factor = db::factors::recovery_codes_locked(&mut tx, auth.user).await?;
    let Some(factor) = factor else {
        // Reads the same as a wrong code.
        let (user, detail) = (Some(auth.user), json!({"type": db::factors::RECOVERY_CODE}));
        audit::refused(
            &mut tx,
            &client,
            "verification_attempted",
            user,
            detail,
            now,
        )
        .await?;
        tx.commit().await?;
        return Err(Error::MfaVerificationFailed);
    };
    if let Some(until) = factor.locked_until.filter(|until| *until > now) {
        let retry_after = until.since(now);
        return Err(Error::RecoveryCodesLocked { retry_after });
    }
    let hash = hash(factor.id, &code);
    if !db::recovery_codes::consume(&mut tx, factor.id, &hash, now).await? {
        let refusal = Error::MfaVerificationFailed;
        failed(&mut tx, &client, &factor, &refusal, now).await?;
        tx.commit().await?;
        return Err(refusal);
    }
    let (remaining,) = db::recovery_codes::left(&mut tx, factor.id).await?;
    let proof = (METHOD, None);
    let (user, session) = proved(&app, &mut tx, &auth, &client, &factor, proof, now).await?;
    let used = |to| Mail::RecoveryCodeUsed { to, remaining };
    mail::tell(&mut tx, &user, used, now).await?;
    tx.commit().await?;

    session::respond(&app, user, session).await
}

/// As it was made, however it was written down.
fn plain(code: &str) -> String {
    let is_part = |c: &char| !c.is_whitespace() && *c != '-';
    code.to_lowercase().chars().filter(is_part).collect()
}
