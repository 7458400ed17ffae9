use super::{
    address, audit,
    code::{self, Back, LeadingTo, Purpose},
    email_change,
    session::Client,
    signup,
};
use crate::{
    App, Error, Result,
    extract::{Json, Query},
    mail::Locale,
};
use axum::extract::State;
use db::{
    Timestamp, Tx,
    users::{NewUser, User},
};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(otp))
        .routes(routes!(magiclink))
        .routes(routes!(recover))
        .routes(routes!(resend))
}

#[derive(Deserialize, ToSchema)]
struct Otp {
    email: String,
    /// Make a user of an address that is not known: true unless said otherwise.
    #[serde(default)]
    create_user: Option<bool>,
    /// What a new user says of themself: `user_metadata`.
    #[serde(default)]
    data: Option<Value>,
    #[serde(default)]
    code_challenge: Option<String>,
    /// `s256`.
    #[serde(default)]
    code_challenge_method: Option<String>,
}

/// Mail a code that signs in. The answer is the same for every address, known or not.
#[utoipa::path(post, path = "/auth/v1/otp", tag = "sign-in", security(()), params(LeadingTo), request_body = Otp, responses((status = 200, description = "Nothing", body = Value)))]
async fn otp(
    State(app): State<App>,
    client: Client,
    Query(to): Query<LeadingTo>,
    Json(asked): Json<Otp>,
) -> Result<Json<Value>> {
    let data = signup::metadata(asked.data)?;
    let email = addressee(&app, &asked.email).await?;
    let (challenge, method) = (asked.code_challenge, asked.code_challenge_method);
    let back = Back::of(&app, to, challenge.as_deref(), method.as_deref())?;

    let now = app.now();
    let owner = db::users::by_email(&app.db, &email).await?;
    let owner = owner.filter(|user| user.email_confirmed_at.is_some());
    let takes_new = asked.create_user.unwrap_or(true) && app.config.auth.auth_signup;
    let claimant = db::users::claimant(&app.db, &email).await?;
    let mut tx = app.db.begin().await?;
    let user = match owner {
        None if takes_new => Some(newcomer(&mut tx, &client, &email, claimant, data, now).await?),
        owner => owner,
    };
    answer(&app, &mut tx, &client, Purpose::MagicLink, user, &back, now).await?;
    tx.commit().await?;

    Ok(Json(json!({})))
}

/// What older clients call `otp`.
#[utoipa::path(post, path = "/auth/v1/magiclink", tag = "sign-in", security(()), params(LeadingTo), request_body = Otp, responses((status = 200, description = "Nothing", body = Value)))]
async fn magiclink(
    app: State<App>,
    client: Client,
    to: Query<LeadingTo>,
    asked: Json<Otp>,
) -> Result<Json<Value>> {
    otp(app, client, to, asked).await
}

#[derive(Deserialize, ToSchema)]
struct Recover {
    email: String,
    #[serde(default)]
    code_challenge: Option<String>,
    /// `s256`.
    #[serde(default)]
    code_challenge_method: Option<String>,
}

/// Mail a code that signs in who forgot their password, to set another. The answer is the same for
/// every address, known or not.
#[utoipa::path(post, path = "/auth/v1/recover", tag = "sign-in", security(()), params(LeadingTo), request_body = Recover, responses((status = 200, description = "Nothing", body = Value)))]
async fn recover(
    State(app): State<App>,
    client: Client,
    Query(to): Query<LeadingTo>,
    Json(asked): Json<Recover>,
) -> Result<Json<Value>> {
    let email = addressee(&app, &asked.email).await?;
    let (challenge, method) = (asked.code_challenge, asked.code_challenge_method);
    let back = Back::of(&app, to, challenge.as_deref(), method.as_deref())?;

    let user = db::users::by_email(&app.db, &email).await?;
    let mut tx = app.db.begin().await?;
    answer(
        &app,
        &mut tx,
        &client,
        Purpose::Recovery,
        user,
        &back,
        app.now(),
    )
    .await?;
    tx.commit().await?;

    Ok(Json(json!({})))
}

#[derive(Deserialize, ToSchema)]
struct Resend {
    /// `signup`, or `email_change` with the address of now.
    r#type: String,
    email: String,
}

/// Mail another code to who signed up, or asked for another address, and has not confirmed; it makes
/// the earlier worthless. The answer is the same for every address, known or not.
#[utoipa::path(post, path = "/auth/v1/resend", tag = "sign-in", security(()), params(LeadingTo), request_body = Resend, responses((status = 200, description = "Nothing", body = Value)))]
async fn resend(
    State(app): State<App>,
    client: Client,
    Query(to): Query<LeadingTo>,
    Json(asked): Json<Resend>,
) -> Result<Json<Value>> {
    let purpose = match asked.r#type.as_str() {
        "signup" => Purpose::Signup,
        "email_change" => Purpose::EmailChange,
        _ => return Err(Error::invalid("type", "has to be signup or email_change")),
    };
    let email = addressee(&app, &asked.email).await?;

    let back = Back::of(&app, to, None, None)?;
    let (user, now) = (db::users::by_email(&app.db, &email).await?, app.now());
    let waiting = match &user {
        Some(user) => db::users::own(&app.db, user.id, Purpose::EmailChange.word(), now).await?,
        None => None,
    };
    let waiting = waiting.and_then(|own| Some((own.user, own.new_email?)));
    let mut tx = app.db.begin().await?;
    if purpose == Purpose::EmailChange {
        answer_change(&app, &mut tx, &client, waiting, &back, now).await?;
    } else {
        let user = user.filter(|user| user.email_confirmed_at.is_none());
        answer(&app, &mut tx, &client, purpose, user, &back, now).await?;
    }
    tx.commit().await?;

    Ok(Json(json!({})))
}

/// Who is to be written to, counted alike whether they are known or not.
async fn addressee(app: &App, email: &str) -> Result<String> {
    let email = address(email)?;
    app.limits.check_mail(&email).await?;
    Ok(email)
}

/// Mails a code to who may have one, and says nothing of it.
async fn answer(
    app: &App,
    tx: &mut Tx,
    client: &Client,
    purpose: Purpose,
    user: Option<User>,
    back: &Back,
    now: Timestamp,
) -> Result<()> {
    let action = purpose.requested();
    let mut detail = json!({"method": purpose.word()});
    match user {
        Some(User {
            id,
            email: Some(email),
            banned_until,
            ..
        }) if banned_until.is_none_or(|until| until <= now) => {
            code::send(app, tx, purpose, id, &email, back, now).await?;
            audit::succeeded(tx, client, action, id, detail, now).await?;
        }
        other => {
            let reason = if other.is_some() {
                "user_banned"
            } else {
                "no_user"
            };
            detail["reason"] = json!(reason);
            audit::refused(tx, client, action, other.map(|user| user.id), detail, now).await?;
        }
    }
    Ok(())
}

/// The same for who waits to have another address, which has two sides.
async fn answer_change(
    app: &App,
    tx: &mut Tx,
    client: &Client,
    waiting: Option<(User, String)>,
    back: &Back,
    now: Timestamp,
) -> Result<()> {
    let purpose = Purpose::EmailChange;
    match waiting {
        Some((user, new)) if !user.is_banned(now) => {
            email_change::ask_again(app, tx, &user, &new, back, now).await?;
            let (action, detail) = (purpose.requested(), json!({"method": purpose.word()}));
            Ok(audit::succeeded(tx, client, action, user.id, detail, now).await?)
        }
        other => {
            let user = other.map(|(user, _)| user);
            answer(app, tx, client, purpose, user, back, now).await
        }
    }
}

/// The user that a code will confirm: the one of an earlier request that said the same, else another
/// beside it, since nobody knows yet whose the address is.
pub async fn newcomer(
    tx: &mut Tx,
    client: &Client,
    email: &str,
    claimant: Option<User>,
    data: Value,
    now: Timestamp,
) -> Result<User> {
    if let Some(claimant) = claimant.filter(|claimant| claimant.user_metadata.0 == data) {
        return Ok(claimant);
    }
    let new = NewUser {
        id: Uuid::now_v7(),
        identity: Uuid::now_v7(),
        email: Some(email),
        confirmed_at: None,
        password_hash: None,
        role: "authenticated",
        user_metadata: data,
    };
    let user = db::users::create(tx, new, now).await?;
    // Only when its owner confirmed it a moment ago: the next request finds them.
    let user = user.ok_or(Error::Busy)?;
    db::users::spoke(tx, user.id, client.language.map(Locale::tag)).await?;
    let detail = json!({"method": "otp"});
    audit::succeeded(tx, client, "user_signedup", user.id, detail, now).await?;
    Ok(user)
}
