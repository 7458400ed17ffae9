use super::{normalise_email, password, session, verify};
use crate::{
    App, Error, Result,
    extract::Json,
    http::ClientAddress,
    mail::{self, Mail},
};
use axum::{
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use db::{
    Tx,
    users::{NewUser, User},
};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(signup))
}

#[derive(Deserialize, ToSchema)]
struct Signup {
    /// Without an address: an anonymous user.
    #[serde(default)]
    email: Option<String>,
    #[serde(default)]
    password: Option<String>,
    /// What the user says of themself: `user_metadata`.
    #[serde(default)]
    data: Option<Value>,
}

/// Sign up. A session where sign-ups count as confirmed at once; else the user, and a mail with a
/// code: the same for an address that is known and for one that is not.
#[utoipa::path(post, path = "/auth/v1/signup", tag = "sign-in", security(()), request_body = Signup,
    responses((status = 200, description = "A session, or a user who has to confirm their address", body = session::Response)))]
async fn signup(
    State(app): State<App>,
    address: ClientAddress,
    headers: HeaderMap,
    Json(new): Json<Signup>,
) -> Result<Response> {
    let client = session::Client::new(address, &headers);
    let data = metadata(new.data)?;
    let Some(email) = new.email.filter(|email| !email.trim().is_empty()) else {
        return anonymous(&app, data, &client).await;
    };
    if !app.config.auth.auth_signup {
        return Err(Error::SignupDisabled);
    }
    let email = normalise_email(&email)
        .ok_or_else(|| Error::invalid("email", "is not an e-mail address"))?;
    let password = new
        .password
        .ok_or_else(|| Error::invalid("password", "is missing"))?;
    password::check(
        &password,
        Some(&email),
        app.config.auth.auth_min_password_length,
    )?;
    let hash = app.passwords.hash(&password).await?;

    let now = app.now();
    let autoconfirm = app.config.auth.autoconfirms(app.config.is_production());
    let mut tx = app.db.begin().await?;
    let new = NewUser {
        email: Some(&email),
        confirmed_at: autoconfirm.then_some(now),
        password_hash: Some(&hash),
        role: "authenticated",
        user_metadata: data.clone(),
    };
    match (db::users::create(&mut tx, new, now).await?, autoconfirm) {
        (Some(user), true) => {
            let session = session::open(&app, &mut tx, &user, "password", &client).await?;
            tx.commit().await?;
            let user = session::noted(user, now);
            Ok(Json(session::respond(&app, user, session).await?).into_response())
        }
        (None, true) => Err(Error::UserAlreadyExists),
        (Some(user), false) => {
            verify::send_code(&app, &mut tx, &user, &email).await?;
            tx.commit().await?;
            awaiting(&app, user).await
        }
        (None, false) => {
            tell_owner(&app, &mut tx, &email).await?;
            tx.commit().await?;
            Ok(Json(look_alike(&app, &email, data)).into_response())
        }
    }
}

async fn anonymous(app: &App, data: Value, client: &session::Client) -> Result<Response> {
    if !app.config.auth.auth_anonymous {
        return Err(Error::AnonymousDisabled);
    }
    let now = app.now();
    let mut tx = app.db.begin().await?;
    let new = NewUser {
        email: None,
        confirmed_at: None,
        password_hash: None,
        role: "authenticated",
        user_metadata: data,
    };
    let user = db::users::create(&mut tx, new, now)
        .await?
        .ok_or(Error::UserAlreadyExists)?;
    let session = session::open(app, &mut tx, &user, "anonymous", client).await?;
    tx.commit().await?;
    Ok(Json(session::respond(app, session::noted(user, now), session).await?).into_response())
}

/// Metadata is an object, or absent.
pub fn metadata(data: Option<Value>) -> Result<Value> {
    match data {
        None | Some(Value::Null) => Ok(json!({})),
        Some(data @ Value::Object(_)) => Ok(data),
        Some(_) => Err(Error::invalid("data", "has to be an object")),
    }
}

async fn awaiting(app: &App, user: User) -> Result<Response> {
    let identities = db::users::identities(&app.db, user.id).await?;
    let body = session::UserBody {
        confirmation_sent_at: Some(app.now().into()),
        ..session::UserBody::new(user, identities)
    };
    Ok(Json(body).into_response())
}

/// What an unknown address would have been answered, member for member; nothing of it exists.
fn look_alike(app: &App, email: &str, data: Value) -> session::UserBody {
    let now = app.now();
    let id = uuid::Uuid::now_v7();
    let user = User {
        id,
        email: Some(email.to_owned()),
        email_confirmed_at: None,
        password_hash: None,
        role: "authenticated".into(),
        app_metadata: db::Json(json!({"provider": "email", "providers": ["email"]})),
        user_metadata: db::Json(data),
        is_anonymous: false,
        banned_until: None,
        last_sign_in_at: None,
        created_at: now,
        updated_at: now,
    };
    let identity = db::users::Identity {
        id: uuid::Uuid::now_v7(),
        user_id: id,
        provider: "email".into(),
        issuer: "email".into(),
        subject: id.to_string(),
        profile: db::Json(json!({"sub": id, "email": email, "email_verified": false})),
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
    Ok(mail::enqueue(
        tx,
        &Mail::AlreadyRegistered {
            to: email.to_owned(),
        },
        app.now(),
    )
    .await?)
}
