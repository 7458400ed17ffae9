use super::{
    adopt, audit,
    code::{MAX_ATTEMPTS, Purpose},
    normalise_email, session,
};
use crate::{App, Error, Result, extract::Json};
use axum::extract::State;
use db::{Timestamp, Tx, one_time_tokens::OneTimeToken, users::User};
use serde::Deserialize;
use serde_json::json;
use subtle::ConstantTimeEq;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(verify))
}

#[derive(Deserialize, ToSchema)]
struct Verify {
    /// `signup`, `magiclink`, `recovery`; or `email`: whichever of the first two was mailed last.
    r#type: String,
    email: String,
    /// The code of the mail.
    token: String,
}

/// Be signed in by the code that was mailed, which confirms the address too.
#[utoipa::path(post, path = "/auth/v1/verify", tag = "sign-in", security(()), request_body = Verify, responses((status = 200, body = session::Response)))]
async fn verify(
    State(app): State<App>,
    client: session::Client,
    Json(given): Json<Verify>,
) -> Result<session::Response> {
    let (one, other) = purposes(&given.r#type)?;
    let email = normalise_email(&given.email).ok_or(Error::OtpExpired)?;
    let now = app.now();

    let mut tx = app.db.begin().await?;
    let (one, other) = (one.word(), other.word());
    let token = db::one_time_tokens::guess(&mut tx, &email, one, other, MAX_ATTEMPTS, now).await?;
    let right = token.filter(|token| {
        app.keys
            .otp_macs(&[token.id.as_bytes(), given.token.trim().as_bytes()])
            .any(|mac| mac.ct_eq(token.secret_hash.as_slice()).into())
    });
    let owner = right.as_ref().map(|token| token.user_id);
    let redeemed = match &right {
        Some(token) => redeem(&mut tx, token, &email, now).await?,
        None => Err(Error::OtpExpired),
    };
    let user = match redeemed {
        Ok(user) => user,
        Err(refusal) => {
            // The guess counts, and is on disk before it is answered.
            let detail = json!({"method": "otp", "type": given.r#type});
            audit::refused(&mut tx, &client, "login", owner, detail, now).await?;
            tx.commit().await?;
            return Err(refusal);
        }
    };
    let (user, session) = session::open(&app, &mut tx, user, "otp", &client, now).await?;
    tx.commit().await?;

    session::respond(&app, user, session).await
}

/// What a code may have been mailed for, to do for this type.
fn purposes(r#type: &str) -> Result<(Purpose, Purpose)> {
    let all = [Purpose::Signup, Purpose::MagicLink, Purpose::Recovery];
    match r#type {
        // An app that asked with `otp` need not know whether the address was new.
        "email" => Ok((Purpose::Signup, Purpose::MagicLink)),
        word => all
            .into_iter()
            .find(|purpose| purpose.word() == word)
            .map(|purpose| (purpose, purpose))
            .ok_or_else(|| {
                Error::invalid("type", "has to be signup, magiclink, recovery or email")
            }),
    }
}

/// Uses a code up, for the user it names: who reads the mail of the address has it now.
async fn redeem(
    tx: &mut Tx,
    token: &OneTimeToken,
    email: &str,
    now: Timestamp,
) -> Result<Result<User>> {
    let consumed = db::one_time_tokens::consume(tx, token.id, now).await?;
    let user = db::users::locked(tx, token.user_id).await?;
    let user = user.filter(|user| consumed && user.email.as_deref() == Some(email));
    let Some(user) = user else {
        return Ok(Err(Error::OtpExpired));
    };
    if user.is_banned(now) {
        return Ok(Err(Error::UserBanned));
    }
    if user.email_confirmed_at.is_some() {
        return Ok(Ok(user));
    }
    if !db::users::confirm_email(tx, user.id, email, now).await? {
        return Ok(Err(Error::OtpExpired));
    }
    // Someone else signed up with this address too, and who reads its mail cannot tell whose code
    // came last; or it is another way in than the sign-up, whose password may be anyone's. They get
    // the account, but nothing that only a sign-up said.
    let rivals = db::users::delete_rivals(tx, email, user.id).await?;
    let of_sign_up = token.kind == Purpose::Signup.word();
    if rivals > 0 || (!of_sign_up && user.password_hash.is_some()) {
        adopt::wipe(tx, user.id, now).await?;
    }
    let user = db::users::locked(tx, user.id).await?;
    Ok(user.ok_or(Error::OtpExpired))
}
