use super::{
    audit, password,
    session::{Client, UserBody},
    signup, step_up,
};
use crate::{
    App, Error, Result,
    extract::{Auth, Json},
    limit::Action,
};
use axum::extract::State;
use db::users::User;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get, put))
}

/// The signed-in user.
#[utoipa::path(get, path = "/auth/v1/user", tag = "sign-in", responses((status = 200, body = UserBody)))]
async fn get(State(app): State<App>, auth: Auth) -> Result<Json<UserBody>> {
    let user = db::users::by_id(&app.db, auth.user)
        .await?
        .ok_or(Error::SessionEnded)?;
    Ok(Json(UserBody::load(&app.db, user).await?))
}

#[derive(Deserialize, ToSchema)]
#[schema(as = UserUpdate)]
struct Update {
    /// Merged into `user_metadata`; a null removes a member.
    #[serde(default)]
    data: Option<Value>,
    /// The new password; ends every other session.
    #[serde(default)]
    password: Option<String>,
    /// The old password, where the sign-in is not of the last minutes (`AUTH_STEP_UP_TTL`).
    #[serde(default)]
    current_password: Option<String>,
    /// An address cannot be changed here: the new one would have to be proved first.
    #[serde(default)]
    email: Option<String>,
}

/// Change what the user says of themself, or the password.
#[utoipa::path(put, path = "/auth/v1/user", tag = "sign-in", request_body = Update, responses((status = 200, body = UserBody)))]
async fn put(
    State(app): State<App>,
    auth: Auth,
    client: Client,
    Json(update): Json<Update>,
) -> Result<Json<UserBody>> {
    let user = db::users::by_id(&app.db, auth.user)
        .await?
        .ok_or(Error::SessionEnded)?;
    if update
        .email
        .is_some_and(|email| user.email.as_deref() != Some(email.trim().to_lowercase().as_str()))
    {
        return Err(Error::invalid("email", "cannot be changed"));
    }
    let data = signup::metadata(update.data)?;
    let hash = match &update.password {
        Some(new) => {
            Some(new_hash(&app, &auth, &user, new, update.current_password.as_deref()).await?)
        }
        None => None,
    };

    let now = app.now();
    let mut tx = app.db.begin().await?;
    let user = db::users::locked(&mut tx, user.id)
        .await?
        .ok_or(Error::SessionEnded)?;
    let metadata = signup::within_limit(merged(user.user_metadata.0, data))?;
    db::users::set_user_metadata(&mut tx, user.id, &db::Json(metadata), now).await?;
    let changed = json!({"password": hash.is_some()});
    audit::succeeded(&mut tx, &client, "user_modified", user.id, changed, now).await?;
    if let Some(hash) = hash {
        db::users::set_password_hash(&mut tx, user.id, Some(&hash), now).await?;
        db::sessions::revoke_of_user(
            &mut tx,
            user.id,
            Some(auth.session),
            "password_changed",
            now,
        )
        .await?;
    }
    tx.commit().await?;

    get(State(app), auth).await
}

/// Whoever holds an open session is not yet whoever knows the password: one that signed in just now
/// is, or one that says the old password.
async fn new_hash(
    app: &App,
    auth: &Auth,
    user: &User,
    new: &str,
    current: Option<&str>,
) -> Result<String> {
    if user.is_anonymous {
        return Err(Error::invalid("password", "needs an e-mail address first"));
    }
    step_up::require_second_factor(app, auth)?;
    if let Some(hash) = user.password_hash.as_deref() {
        // A session that was stolen is not a place to guess the password from.
        app.limits
            .check(Action::SignInAccount, user.email.as_deref().unwrap_or("-"))
            .await?;
        match current {
            Some(current) if !app.passwords.verify(current, Some(hash)).await? => {
                return Err(Error::InvalidCredentials);
            }
            Some(_) => {}
            None => step_up::require(app, auth)?,
        }
        if app.passwords.verify(new, Some(hash)).await? {
            return Err(Error::SamePassword);
        }
    }
    password::check(
        new,
        user.email.as_deref(),
        app.config.auth.auth_min_password_length,
    )?;
    app.passwords.hash(new).await
}

/// What was there with what is new; a null removes a member.
pub fn merged(mut old: Value, new: Value) -> Value {
    if let (Value::Object(old), Value::Object(new)) = (&mut old, new) {
        for (name, value) in new {
            match value {
                Value::Null => old.remove(&name),
                value => old.insert(name, value),
            };
        }
    }
    old
}
