use super::{ban, show};
use crate::{
    App, Error, Result,
    auth::{
        address, audit, password,
        session::{Client, UserBody},
        signup, step_up, user,
    },
    extract::{Admin, Json},
};
use axum::extract::State;
use db::users::NewUser;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

#[derive(Deserialize, ToSchema)]
#[schema(as = AdminNewUser)]
pub struct New {
    email: String,
    /// Counts as confirmed. Else it has to be confirmed like any other.
    #[serde(default)]
    email_confirm: bool,
    #[serde(default)]
    password: Option<String>,
    /// In place of a password: its hash, taken over from elsewhere: argon2, bcrypt, scrypt, `$pbkdf2-sha256$` or Firebase's as `$fbscrypt$`. The first sign-in replaces it by ours.
    #[serde(default)]
    password_hash: Option<String>,
    /// `authenticated` or `admin`.
    #[serde(default)]
    role: Option<String>,
    #[serde(default)]
    user_metadata: Option<Value>,
    /// What the user cannot change, and every access token says.
    #[serde(default)]
    app_metadata: Option<Value>,
    /// Hours, minutes, seconds: `24h`, `1h30m`; `none`.
    #[serde(default)]
    ban_duration: Option<String>,
    /// Theirs from elsewhere.
    #[serde(default)]
    id: Option<Uuid>,
}

/// Make a user. Nothing is mailed. A person who administers needs a sign-in of the last minutes.
#[utoipa::path(post, path = "/auth/v1/admin/users", tag = "admin", request_body = New, responses((status = 200, body = UserBody)))]
pub async fn create(
    State(app): State<App>,
    admin: Admin,
    client: Client,
    Json(new): Json<New>,
) -> Result<Json<UserBody>> {
    let action = "user_signedup";
    let email = address(&new.email)?;
    let role = role(new.role.as_deref())?.unwrap_or("authenticated");
    let user_metadata = metadata("user_metadata", new.user_metadata)?;
    let app_metadata = metadata("app_metadata", new.app_metadata)?;
    let ban = new.ban_duration.as_deref().map(ban::duration).transpose()?;
    step_up::demand_of_admin(&app, &admin, &client, action, None).await?;
    let hash = match (&new.password, new.password_hash) {
        (Some(_), Some(_)) => {
            return Err(Error::invalid(
                "password_hash",
                "cannot stand beside a password",
            ));
        }
        (Some(password), None) if !password.is_empty() => {
            let min_chars = app.config.auth.auth_min_password_length;
            password::check(password, Some(&email), min_chars)?;
            Some(app.passwords.hash(password).await?)
        }
        (_, None) => None,
        (None, Some(hash)) if password::is_importable(&hash) => Some(hash),
        (None, Some(_)) => {
            return Err(Error::invalid(
                "password_hash",
                "is of no kind that is understood",
            ));
        }
    };

    let now = app.now();
    let id = new.id.unwrap_or_else(Uuid::now_v7);
    let mut tx = app.db.begin().await?;
    if db::users::locked(&mut tx, id).await?.is_some() {
        return Err(Error::UserAlreadyExists);
    }
    let created = NewUser {
        id,
        identity: Uuid::now_v7(),
        email: Some(&email),
        confirmed_at: new.email_confirm.then_some(now),
        password_hash: hash.as_deref(),
        role,
        user_metadata: user::merged(json!({}), user_metadata),
    };
    let created = db::users::create(&mut tx, created, now).await?;
    let created = created.ok_or(Error::EmailExists)?;
    if new.email_confirm {
        db::users::delete_rivals(&mut tx, &email, id).await?;
    }
    let app_metadata = db::Json(user::merged(created.app_metadata.0, app_metadata));
    db::users::set_app_metadata(&mut tx, id, &app_metadata, now).await?;
    if let Some(Some(ban)) = ban {
        db::users::set_banned_until(&mut tx, id, Some(now + ban), now).await?;
    }
    let detail = json!({"role": role, "email_confirm": new.email_confirm, "banned": matches!(ban, Some(Some(_)))});
    audit::by_admin(&mut tx, &client, action, &admin, Some(id), detail, now).await?;
    tx.commit().await?;

    show::body(&app, id).await.map(Json)
}

/// A role that there is.
pub fn role(role: Option<&str>) -> Result<Option<&str>> {
    match role {
        None | Some("") => Ok(None),
        Some(role @ ("authenticated" | "admin")) => Ok(Some(role)),
        Some(_) => Err(Error::invalid("role", "has to be authenticated or admin")),
    }
}

/// What goes into either metadata: an object, or absent.
pub fn metadata(member: &str, given: Option<Value>) -> Result<Value> {
    match given {
        None | Some(Value::Null) => Ok(json!({})),
        Some(given @ Value::Object(_)) => signup::within_limit(given),
        Some(_) => Err(Error::invalid(member, "has to be an object")),
    }
}
