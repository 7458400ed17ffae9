use super::Passkey;
use crate::{
    App, Error, Result,
    auth::{audit, session::Client, step_up},
    extract::{Auth, Json, Path},
    mail::{self, Mail},
};
use axum::{extract::State, http::StatusCode};
use db::{Tx, users::User};
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

const MAX_NAME_CHARS: usize = 120;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(rename, remove))
}

/// The signed-in user's passkeys, oldest first.
#[utoipa::path(get, path = "/auth/v1/passkeys", tag = "sign-in", responses((status = 200, body = Vec<Passkey>)))]
async fn list(State(app): State<App>, auth: Auth) -> Result<Json<Vec<Passkey>>> {
    let passkeys = db::passkeys::of_user(&app.db, auth.user).await?;
    Ok(Json(passkeys.into_iter().map(Into::into).collect()))
}

#[derive(Deserialize, ToSchema)]
#[schema(as = PasskeyName)]
struct Name {
    /// 1 to 120 characters.
    friendly_name: String,
}

/// Give a passkey a name.
#[utoipa::path(patch, path = "/auth/v1/passkeys/{id}", tag = "sign-in", params(("id" = Uuid, Path)), request_body = Name, responses((status = 200, body = Passkey)))]
async fn rename(
    State(app): State<App>,
    auth: Auth,
    client: Client,
    Path(id): Path<Uuid>,
    Json(given): Json<Name>,
) -> Result<Json<Passkey>> {
    let name = given.friendly_name.trim();
    if name.is_empty() || name.chars().count() > MAX_NAME_CHARS {
        return Err(Error::invalid(
            "friendly_name",
            "has to be 1 to 120 characters",
        ));
    }

    let now = app.now();
    let mut tx = app.db.begin().await?;
    let passkey = db::passkeys::rename(&mut tx, id, auth.user, name, now)
        .await?
        .ok_or(Error::WebauthnCredentialNotFound)?;
    let detail = json!({"passkey": id});
    audit::succeeded(&mut tx, &client, "passkey_updated", auth.user, detail, now).await?;
    tx.commit().await?;

    Ok(Json(passkey.into()))
}

/// Remove a passkey; not the last way in. Needs a sign-in of the last minutes. The user is told by mail.
#[utoipa::path(delete, path = "/auth/v1/passkeys/{id}", tag = "sign-in", params(("id" = Uuid, Path)), responses((status = 204)))]
async fn remove(
    State(app): State<App>,
    auth: Auth,
    client: Client,
    Path(id): Path<Uuid>,
) -> Result<StatusCode> {
    step_up::demand(&app, &auth, &client, "passkey_deleted").await?;
    let now = app.now();

    let mut tx = app.db.begin().await?;
    let user = db::users::locked(&mut tx, auth.user)
        .await?
        .ok_or(Error::SessionEnded)?;
    if !db::passkeys::delete(&mut tx, id, user.id).await? {
        return Err(Error::WebauthnCredentialNotFound);
    }
    let detail = json!({"passkey": id});
    if !has_way_in(&mut tx, &user).await? {
        drop(tx);
        let mut tx = app.db.begin().await?;
        let user = Some(user.id);
        audit::refused(&mut tx, &client, "passkey_deleted", user, detail, now).await?;
        tx.commit().await?;
        return Err(Error::LastCredential);
    }
    audit::succeeded(&mut tx, &client, "passkey_deleted", user.id, detail, now).await?;
    mail::tell(&mut tx, &user, |to| Mail::PasskeyRemoved { to }, now).await?;
    tx.commit().await?;

    Ok(StatusCode::NO_CONTENT)
}

/// Whether anything lets this user in; who reads the mail of a confirmed address has a code sent there.
async fn has_way_in(tx: &mut Tx, user: &User) -> Result<bool> {
    Ok(user.password_hash.is_some()
        || user.email_confirmed_at.is_some()
        || db::users::count_foreign_identities(tx, user.id).await?.0 > 0
        || db::passkeys::count(tx, user.id).await?.0 > 0)
}
