use super::{adopt, audit, normalise_email, session};
use crate::{
    App, Error, Result,
    extract::Json,
    mail::{self, Mail},
};
use axum::extract::State;
use db::{Tx, users::User};
use serde::Deserialize;
use serde_json::json;
use subtle::ConstantTimeEq;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

/// Guesses at a code, the right one included.
const MAX_ATTEMPTS: i64 = 5;
const SIGNUP: &str = "signup";

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(verify))
}

#[derive(Deserialize, ToSchema)]
struct Verify {
    /// `signup`, or `email`, which means the same for a code.
    r#type: String,
    email: String,
    /// The code of the mail.
    token: String,
}

/// Confirm an address with the code that was mailed to it, and be signed in.
#[utoipa::path(post, path = "/auth/v1/verify", tag = "sign-in", security(()), request_body = Verify, responses((status = 200, body = session::Response)))]
async fn verify(
    State(app): State<App>,
    client: session::Client,
    Json(given): Json<Verify>,
) -> Result<session::Response> {
    if ![SIGNUP, "email"].contains(&given.r#type.as_str()) {
        return Err(Error::invalid("type", "has to be signup or email"));
    }
    let email = normalise_email(&given.email).ok_or(Error::OtpExpired)?;
    let now = app.now();

    let mut tx = app.db.begin().await?;
    let token = db::one_time_tokens::guess(&mut tx, &email, SIGNUP, MAX_ATTEMPTS, now).await?;
    let right = token.filter(|token| {
        app.keys
            .otp_macs(&[token.id.as_bytes(), given.token.trim().as_bytes()])
            .any(|mac| mac.ct_eq(token.secret_hash.as_slice()).into())
    });
    let Some(token) = right else {
        // The guess counts, and is on disk before it is answered.
        let detail = json!({"method": "otp"});
        audit::refused(&mut tx, &client, "login", None, detail, now).await?;
        tx.commit().await?;
        return Err(Error::OtpExpired);
    };
    let confirmed = db::one_time_tokens::consume(&mut tx, token.id, now).await?
        && db::users::confirm_email(&mut tx, token.user_id, &email, now).await?;
    if !confirmed {
        return Err(Error::OtpExpired);
    }
    if db::users::delete_rivals(&mut tx, &email, token.user_id).await? > 0 {
        // Someone else signed up with this address too, and who reads its mail cannot tell whose
        // code came last: they get the account, but nothing that only a sign-up said.
        adopt::wipe(&mut tx, token.user_id, now).await?;
    }
    let user = db::users::locked(&mut tx, token.user_id)
        .await?
        .ok_or(Error::OtpExpired)?;
    if user.is_banned(now) {
        return Err(Error::UserBanned);
    }
    let (user, session) = session::open(&app, &mut tx, user, "otp", &client, now).await?;
    tx.commit().await?;

    session::respond(&app, user, session).await
}

/// Makes a code for this user's address and mails it, in the transaction that made the user.
pub async fn send_code(app: &App, tx: &mut Tx, user: &User, email: &str) -> Result<()> {
    let now = app.now();
    let digits = u32::from(app.config.auth.auth_otp_length);
    let code = format!(
        "{:0width$}",
        rand::random_range(0..10_u64.pow(digits)),
        width = digits as usize
    );
    let id = Uuid::now_v7();
    let expires_at = now + app.config.auth.auth_otp_ttl;
    db::one_time_tokens::create(
        tx,
        id,
        user.id,
        SIGNUP,
        email,
        // A code alone is short enough to be guessed from a plain hash; this needs our key.
        &app.keys.otp_mac(&[id.as_bytes(), code.as_bytes()]),
        expires_at,
        now,
    )
    .await?;
    let minutes = app.config.auth.auth_otp_ttl.as_secs().div_ceil(60);
    mail::enqueue(
        tx,
        &Mail::ConfirmSignup {
            to: email.to_owned(),
            code,
            minutes,
        },
        now,
    )
    .await?;
    Ok(())
}
