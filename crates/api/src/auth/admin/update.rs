use super::{ban, create, show};
use crate::{
    App, Error, Result,
    auth::{
        address, audit, password,
        session::{Client, UserBody},
        signup, step_up, user,
    },
    extract::{Admin, Json, Path},
};
use axum::extract::State;
use db::{Timestamp, Tx, users::User};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use utoipa::ToSchema;
use uuid::Uuid;

#[derive(Deserialize, ToSchema)]
#[schema(as = AdminUserUpdate)]
pub struct Update {
    /// Their new address, without a proof of theirs: confirmed if the old one was.
    #[serde(default)]
    email: Option<String>,
    /// Counts as confirmed.
    #[serde(default)]
    email_confirm: bool,
    /// By the service-role key alone; ends their sessions.
    #[serde(default)]
    password: Option<String>,
    /// `authenticated` or `admin`; another role ends their sessions.
    #[serde(default)]
    role: Option<String>,
    /// Merged; a null removes a member.
    #[serde(default)]
    user_metadata: Option<Value>,
    /// Merged; a null removes a member.
    #[serde(default)]
    app_metadata: Option<Value>,
    /// Hours, minutes, seconds: `24h`, `1h30m`; `none` lifts it. Counts at once.
    #[serde(default)]
    ban_duration: Option<String>,
}

/// An update that makes sense by itself.
struct Changes {
    email: Option<String>,
    email_confirm: bool,
    password_hash: Option<String>,
    role: Option<String>,
    user_metadata: Value,
    app_metadata: Value,
    ban: Option<Option<Duration>>,
}

/// Change a user. Nothing is mailed. A person who administers needs a sign-in of the last minutes.
#[utoipa::path(put, path = "/auth/v1/admin/users/{id}", tag = "admin", params(("id" = Uuid, Path)), request_body = Update,
    responses((status = 200, body = UserBody), (status = 404)))]
pub async fn update(
    State(app): State<App>,
    admin: Admin,
    client: Client,
    Path(id): Path<Uuid>,
    Json(update): Json<Update>,
) -> Result<Json<UserBody>> {
    let (action, now) = ("user_modified", app.now());
    let password = update.password.as_deref().unwrap_or_default();
    if admin.user.is_some() && !password.is_empty() {
        // Whoever sets a password can sign in as its user: people send a mail to reset it.
        let (why, refusal) = (json!({"reason": "password_by_admin"}), Error::Forbidden);
        let subject = Some(id);
        return Err(
            audit::refuse_admin(&app, &client, action, &admin, subject, why, refusal).await,
        );
    }
    step_up::demand_of_admin(&app, &admin, &client, action, Some(id)).await?;
    let changes = check(&app, id, update).await?;

    let mut tx = app.db.begin().await?;
    let user = db::users::locked(&mut tx, id).await?;
    let user = user
        .filter(|user| user.deleted_at.is_none())
        .ok_or(Error::UserNotFound)?;
    let detail = apply(&mut tx, user, changes, now).await?;
    audit::by_admin(&mut tx, &client, action, &admin, Some(id), detail, now).await?;
    tx.commit().await?;

    show::body(&app, id).await.map(Json)
}

async fn check(app: &App, id: Uuid, update: Update) -> Result<Changes> {
    let email = update.email.filter(|email| !email.trim().is_empty());
    let email = email.as_deref().map(address).transpose()?;
    let password_hash = match update.password.filter(|password| !password.is_empty()) {
        None => None,
        Some(password) => {
            let user = db::users::by_id(&app.db, id).await?;
            let user = user.ok_or(Error::UserNotFound)?;
            let email = email.as_deref().or(user.email.as_deref());
            password::check(&password, email, app.config.auth.auth_min_password_length)?;
            Some(app.passwords.hash(&password).await?)
        }
    };
    let ban = update.ban_duration.filter(|text| !text.is_empty());
    Ok(Changes {
        email,
        email_confirm: update.email_confirm,
        password_hash,
        role: create::role(update.role.as_deref())?.map(Into::into),
        user_metadata: create::metadata("user_metadata", update.user_metadata)?,
        app_metadata: create::metadata("app_metadata", update.app_metadata)?,
        ban: ban.as_deref().map(ban::duration).transpose()?,
    })
}

/// Writes the changes; gives what the audit log says of them.
async fn apply(tx: &mut Tx, user: User, changes: Changes, now: Timestamp) -> Result<Value> {
    let id = user.id;
    let mut said = json!({});
    let email = changes.email.as_deref().or(user.email.as_deref());
    let moved = email != user.email.as_deref();
    let proved = changes.email_confirm && user.email_confirmed_at.is_none();
    if let Some(email) = email.filter(|_| moved || proved) {
        let confirmed_at = user
            .email_confirmed_at
            .or(changes.email_confirm.then_some(now));
        if !db::users::change_email(tx, id, email, confirmed_at, now).await? {
            return Err(Error::EmailExists);
        }
        if confirmed_at.is_some() {
            db::users::delete_rivals(tx, email, id).await?;
        }
        // What was mailed to the old address is for nobody any more.
        db::one_time_tokens::delete_of_user(tx, id).await?;
        said["email"] = json!(moved);
        said["email_confirmed"] = json!(confirmed_at.is_some());
    }
    if let Some(hash) = &changes.password_hash {
        db::users::set_password_hash(tx, id, Some(hash), now).await?;
        db::one_time_tokens::delete_of_user(tx, id).await?;
        db::sessions::revoke_of_user(tx, id, None, "password_changed", now).await?;
        said["password"] = json!(true);
    }
    if let Some(role) = &changes.role
        && db::users::set_role(tx, id, role, now).await?
    {
        db::sessions::revoke_of_user(tx, id, None, "role_changed", now).await?;
        said["role"] = json!(role);
    }
    if let Some(ban) = changes.ban {
        let until = ban.map(|ban| now + ban);
        db::users::set_banned_until(tx, id, until, now).await?;
        said["banned_until"] = json!(until);
    }
    if changes.user_metadata != json!({}) {
        let metadata = user::merged(user.user_metadata.0, changes.user_metadata);
        let metadata = db::Json(signup::within_limit(metadata)?);
        db::users::set_user_metadata(tx, id, &metadata, now).await?;
    }
    let mut metadata = user.app_metadata.0;
    if moved && user.is_anonymous {
        let by_email = json!({"provider": "email", "providers": ["email"]});
        metadata = user::merged(metadata, by_email);
    }
    let metadata = signup::within_limit(user::merged(metadata, changes.app_metadata))?;
    db::users::set_app_metadata(tx, id, &db::Json(metadata), now).await?;
    Ok(said)
}
