use super::{
    adopt, audit,
    code::{self, MAX_ATTEMPTS, Purpose},
    email_change::{self, Change},
    link, normalise_email, session,
};
use crate::{
    App, Error, Result,
    extract::{self, Json},
};
use axum::{
    extract::{Request, State},
    http::header,
    response::{IntoResponse, Response},
};
use db::{Timestamp, Tx, one_time_tokens::OneTimeToken, users::User};
use serde::Deserialize;
use serde_json::json;
use subtle::ConstantTimeEq;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

/// Signs nobody in, and is no code to type: a link alone.
const UNDO: Purpose = Purpose::EmailChangeUndo;
/// GoTrue's words where one of two addresses has confirmed.
pub const HALFWAY: &str =
    "Confirmation link accepted. Please proceed to confirm link sent to the other email";
/// How the button of a link's page posts.
const FORM: &[u8] = b"application/x-www-form-urlencoded";

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(verify))
}

#[derive(Deserialize, ToSchema)]
struct Verify {
    /// `signup`, `magiclink`, `recovery`, `invite`, `email_change`; or `email`: whichever of the first two was mailed last.
    r#type: String,
    /// Beside `token`.
    #[serde(default)]
    email: Option<String>,
    /// The code of the mail.
    #[serde(default)]
    token: Option<String>,
    /// Instead of both: the `token` of the mail's link.
    #[serde(default)]
    token_hash: Option<String>,
}

/// What becomes of a code or link that is used up.
pub enum Redeemed {
    /// It is this user.
    By(Box<User>),
    /// Another address of this user has to confirm as well, and nobody is signed in.
    Halfway(Uuid),
}

/// Be signed in by the code or the link that was mailed, which confirms the address too. Where another
/// address has to confirm as well, `{msg, code}` says so instead.
#[utoipa::path(post, path = "/auth/v1/verify", tag = "sign-in", security(()), request_body = Verify, responses((status = 200, body = session::Response)))]
async fn verify(
    State(app): State<App>,
    client: session::Client,
    request: Request,
) -> Result<Response> {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    if content_type.is_some_and(|kind| kind.as_bytes().starts_with(FORM)) {
        let form = extract::body(request, &app).await?;
        return link::pressed(&app, &client, &form).await;
    }
    let Json::<Verify>(given) = extract::json(request, &app).await?;
    let now = app.now();

    let mut tx = app.db.begin().await?;
    let found = find(&app, &mut tx, &given, now).await?;
    let owner = found.as_ref().map(|token| token.user_id);
    let redeemed = match &found {
        Some(token) => redeem(&app, &mut tx, token, now).await?,
        None => Err(Error::OtpExpired),
    };
    let user = match redeemed {
        Ok(Redeemed::By(user)) => *user,
        Ok(Redeemed::Halfway(user)) => {
            let detail = json!({"method": "otp", "type": given.r#type});
            audit::succeeded(&mut tx, &client, "user_confirmed", user, detail, now).await?;
            tx.commit().await?;
            return Ok(Json(json!({"msg": HALFWAY, "code": "200"})).into_response());
        }
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

    Ok(session::respond(&app, user, session).await?.into_response())
}

/// What was mailed, if this is it. A wrong code counts as a guess at it.
async fn find(
    app: &App,
    tx: &mut Tx,
    given: &Verify,
    now: Timestamp,
) -> Result<Option<OneTimeToken>> {
    let (one, other) = purposes(&given.r#type)?;
    if let Some(secret) = &given.token_hash {
        return find_link(app, tx, &given.r#type, secret, now).await;
    }
    let (Some(email), Some(code)) = (&given.email, &given.token) else {
        let problem = "is missing: send email and token, or token_hash";
        return Err(Error::invalid("token", problem));
    };
    let Some(email) = normalise_email(email) else {
        return Ok(None);
    };
    let (one, other) = (one.word(), other.word());
    let token = db::one_time_tokens::guess(tx, &email, one, other, MAX_ATTEMPTS, now).await?;
    Ok(token.filter(|token| is_code(app, token, code)))
}

/// Whether this is the code that was mailed.
pub fn is_code(app: &App, token: &OneTimeToken, code: &str) -> bool {
    app.keys
        .otp_macs(&[token.id.as_bytes(), code.trim().as_bytes()])
        .any(|mac| mac.ct_eq(token.secret_hash.as_slice()).into())
}

/// What the link of this secret was mailed for, if it was for this.
pub async fn find_link(
    app: &App,
    tx: &mut Tx,
    r#type: &str,
    secret: &str,
    now: Timestamp,
) -> Result<Option<OneTimeToken>> {
    let (one, other) = match purposes(r#type) {
        Ok(purposes) => purposes,
        Err(_) if r#type == UNDO.word() => (UNDO, UNDO),
        Err(_) => return Ok(None),
    };
    for hash in code::link_hashes(app, secret) {
        if let Some(token) = db::one_time_tokens::by_link(tx, &hash, now).await? {
            let meant = [one.word(), other.word()].contains(&token.kind.as_str());
            return Ok(meant.then_some(token));
        }
    }
    Ok(None)
}

/// What a code may have been mailed for, to do for this type.
fn purposes(r#type: &str) -> Result<(Purpose, Purpose)> {
    // An app that asked with `otp` need not know whether the address was new.
    if r#type == "email" {
        return Ok((Purpose::Signup, Purpose::MagicLink));
    }
    if r#type == Purpose::EmailChange.word() {
        return Ok((Purpose::EmailChange, Purpose::EmailChangeCurrent));
    }
    let purpose = Purpose::of(r#type).ok_or_else(|| {
        let problem = "has to be signup, magiclink, recovery, invite, email_change or email";
        Error::invalid("type", problem)
    })?;
    Ok((purpose, purpose))
}

/// Uses a code or link up, for the user it names: who reads the mail of the address has it now.
pub async fn redeem(
    app: &App,
    tx: &mut Tx,
    token: &OneTimeToken,
    now: Timestamp,
) -> Result<Result<Redeemed>> {
    let email = token.email.as_str();
    let consumed = db::one_time_tokens::consume(tx, token.id, now).await?;
    let user = db::users::locked(tx, token.user_id).await?;
    let user = user.filter(|_| consumed);
    let Some(user) = user else {
        return Ok(Err(Error::OtpExpired));
    };
    if user.is_banned(now) {
        return Ok(Err(Error::UserBanned));
    }
    let kind = token.kind.as_str();
    let change = [Purpose::EmailChange, Purpose::EmailChangeCurrent].map(Purpose::word);
    if change.contains(&kind) {
        let changed = email_change::confirm(app, tx, user, token, now).await?;
        let changed = changed.map(|change| match change {
            Change::Done(user) => Redeemed::By(user),
            Change::Halfway => Redeemed::Halfway(token.user_id),
        });
        return Ok(changed.ok_or(Error::OtpExpired));
    }
    let user = if kind == UNDO.word() {
        let back = email_change::undo(tx, user, email, token.created_at, now).await?;
        back.ok_or(Error::OtpExpired)
    } else {
        prove(tx, token, user, now).await?
    };
    Ok(user.map(|user| Redeemed::By(Box::new(user))))
}

/// Whoever reads the mail of this user's address is this user.
async fn prove(
    tx: &mut Tx,
    token: &OneTimeToken,
    user: User,
    now: Timestamp,
) -> Result<Result<User>> {
    let email = token.email.as_str();
    if user.email.as_deref() != Some(email) {
        return Ok(Err(Error::OtpExpired));
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
    // Whom an admin made, nobody else said anything of.
    let invited = token.kind == Purpose::Invite.word();
    let of_sign_up = token.kind == Purpose::Signup.word();
    if !invited && (rivals > 0 || (!of_sign_up && user.password_hash.is_some())) {
        adopt::wipe(tx, user.id, now).await?;
    }
    let user = db::users::locked(tx, user.id).await?;
    Ok(user.ok_or(Error::OtpExpired))
}
