use super::{
    address, audit,
    code::{self, Back, LeadingTo, Purpose},
    password, session,
};
use crate::{
    App, Error, Result,
    extract::{Json, Query},
    mail::{self, Locale, Mail},
};
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use db::{
    Timestamp, Tx,
    users::{Identity, NewUser, User},
};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

/// What a user may keep about themself.
const MAX_METADATA_BYTES: usize = 4096;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(signup))
}

#[derive(Deserialize, ToSchema)]
struct Signup {
    /// Without an address: an anonymous user.
    #[serde(default)]
    email: Option<String>,
    /// Refused: nobody signs up with a number.
    #[serde(default)]
    phone: Option<String>,
    #[serde(default)]
    password: Option<String>,
    /// What the user says of themself: `user_metadata`.
    #[serde(default)]
    data: Option<Value>,
    #[serde(default)]
    code_challenge: Option<String>,
    /// `s256`.
    #[serde(default)]
    code_challenge_method: Option<String>,
}

/// Sign up. A session where sign-ups count as confirmed at once; else the user, and a mail with a
/// code: the same for an address that is known and for one that is not.
#[utoipa::path(post, path = "/auth/v1/signup", tag = "sign-in", security(()), params(LeadingTo), request_body = Signup,
    responses((status = 200, description = "A session, or a user who has to confirm their address", body = session::Response)))]
async fn signup(
    State(app): State<App>,
    client: session::Client,
    Query(to): Query<LeadingTo>,
    Json(new): Json<Signup>,
) -> Result<Response> {
    let data = metadata(new.data)?;
    let (challenge, method) = (new.code_challenge, new.code_challenge_method);
    let back = Back::of(&app, to, challenge.as_deref(), method.as_deref())?;
    if !app.config.auth.auth_signup {
        return Err(Error::SignupDisabled);
    }
    let some = |text: &String| !text.trim().is_empty();
    let Some(email) = new.email.filter(some) else {
        // Whoever wanted to be known by their number must not find themself nobody.
        if new.phone.filter(some).is_some() {
            return Err(Error::PhoneDisabled);
        }
        return anonymous(&app, data, &client).await;
    };
    let email = address(&email)?;
    let password = new
        .password
        .ok_or_else(|| Error::invalid("password", "is missing"))?;
    password::check(
        &password,
        Some(&email),
        app.config.auth.auth_min_password_length,
    )?;
    let hash = app.passwords.hash(&password).await?;

    let (id, identity) = (Uuid::now_v7(), Uuid::now_v7());
    let new = |confirmed_at| NewUser {
        id,
        identity,
        email: Some(&email),
        confirmed_at,
        password_hash: Some(&hash),
        role: "authenticated",
        user_metadata: data.clone(),
    };
    let now = app.now();
    if app.config.auth.autoconfirms(app.config.is_production()) {
        return signed_in(&app, new(Some(now)), "password", &client, now).await;
    }
    // Counted alike for an address that is known, one that is not, and whoever asks.
    app.limits.check_mail(&email).await?;
    let earlier = own_pending(&app, &email, &password).await?;
    let mut tx = app.db.begin().await?;
    if let Some(earlier) = earlier {
        db::users::delete_pending(&mut tx, earlier).await?;
    }
    match db::users::create(&mut tx, new(None), now).await? {
        Some(user) => {
            db::users::spoke(&mut tx, user.id, client.language.map(Locale::tag)).await?;
            code::send(&app, &mut tx, Purpose::Signup, user.id, &email, &back, now).await?;
            let detail = json!({"method": "password"});
            audit::succeeded(&mut tx, &client, "user_signedup", user.id, detail, now).await?;
        }
        None => {
            tell_owner(&app, &mut tx, &email).await?;
            let nobody = json!({"reason": "address_taken"});
            audit::refused(&mut tx, &client, "user_repeated_signup", None, nobody, now).await?;
        }
    }
    tx.commit().await?;

    Ok(Json(pending(new(None), now)).into_response())
}

/// Makes a user who need not prove anything first.
async fn signed_in(
    app: &App,
    new: NewUser<'_>,
    method: &str,
    client: &session::Client,
    now: Timestamp,
) -> Result<Response> {
    let mut tx = app.db.begin().await?;
    let user = db::users::create(&mut tx, new, now)
        .await?
        .ok_or(Error::UserAlreadyExists)?;
    let detail = json!({"method": method});
    audit::succeeded(&mut tx, client, "user_signedup", user.id, detail, now).await?;
    let (user, session) = session::open(app, &mut tx, user, method, client, now).await?;
    tx.commit().await?;
    Ok(session::respond(app, user, session).await?.into_response())
}

/// The sign-up that the same person left unconfirmed: who knows its password starts over with a new
/// code; anyone else's stands beside it. Takes as long when there is none.
async fn own_pending(app: &App, email: &str, password: &str) -> Result<Option<Uuid>> {
    let pending = db::users::by_email(&app.db, email).await?;
    let pending = pending.filter(|user| user.email_confirmed_at.is_none());
    let hash = pending
        .as_ref()
        .and_then(|user| user.password_hash.as_deref());
    let own = app.passwords.verify(password, hash).await?;
    Ok(pending.filter(|_| own).map(|user| user.id))
}

async fn anonymous(app: &App, data: Value, client: &session::Client) -> Result<Response> {
    if !app.config.auth.auth_anonymous {
        return Err(Error::AnonymousDisabled);
    }
    let new = NewUser {
        id: Uuid::now_v7(),
        identity: Uuid::now_v7(),
        email: None,
        confirmed_at: None,
        password_hash: None,
        role: "authenticated",
        user_metadata: data,
    };
    signed_in(app, new, "anonymous", client, app.now()).await
}

/// Metadata is an object, or absent.
pub fn metadata(data: Option<Value>) -> Result<Value> {
    match data {
        None | Some(Value::Null) => Ok(json!({})),
        Some(data @ Value::Object(_)) => within_limit(data),
        Some(_) => Err(Error::invalid("data", "has to be an object")),
    }
}

/// It travels in every access token, and servers on the way refuse headers that are too long.
pub fn within_limit(metadata: Value) -> Result<Value> {
    if metadata.to_string().len() > MAX_METADATA_BYTES {
        let problem = format!("has to be at most {MAX_METADATA_BYTES} bytes of JSON in all");
        return Err(Error::invalid("data", problem));
    }
    Ok(metadata)
}

/// What a sign-up that waits for its code is answered with, whether there is one or the address was
/// taken: made of the request alone, so that not even the spelling of a number tells.
fn pending(new: NewUser<'_>, now: Timestamp) -> session::UserBody {
    let email = new.email.unwrap_or_default();
    let user = User {
        id: new.id,
        email: Some(email.to_owned()),
        email_confirmed_at: None,
        password_hash: None,
        role: new.role.into(),
        app_metadata: db::Json(json!({"provider": "email", "providers": ["email"]})),
        user_metadata: db::Json(new.user_metadata),
        is_anonymous: false,
        banned_until: None,
        last_sign_in_at: None,
        created_at: now,
        updated_at: now,
        deleted_at: None,
        password_expired_at: None,
    };
    let identity = Identity {
        id: new.identity,
        user_id: new.id,
        provider: "email".into(),
        issuer: "email".into(),
        subject: new.id.to_string(),
        profile: db::Json(json!({"sub": new.id, "email": email, "email_verified": false})),
        last_sign_in_at: Some(now),
        created_at: now,
        updated_at: now,
    };
    session::UserBody {
        confirmation_sent_at: Some(now.into()),
        ..session::UserBody::new(user, vec![identity])
    }
}

/// Someone signs up with an address that is in use: its owner hears of it, nobody else.
async fn tell_owner(app: &App, tx: &mut Tx, email: &str) -> Result<()> {
    let to = email.to_owned();
    let owner = db::users::by_email(&app.db, email).await?;
    if let Some(owner) = owner {
        mail::enqueue(tx, owner.id, &Mail::AlreadyRegistered { to }, app.now()).await?;
    }
    Ok(())
}
