use super::{ban as how_long, show};
use crate::{
    App, Error, Result,
    auth::{
        audit,
        session::{Client, UserBody},
    },
    extract::{Admin, Json, Path},
};
use axum::extract::State;
use db::Timestamp;
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;
use utoipa::ToSchema;
use uuid::Uuid;

/// Nobody outlives it.
const FOR_EVER: Duration = Duration::from_secs(876_000 * 3600);

#[derive(Deserialize, ToSchema)]
pub struct Ban {
    /// Why: for the audit log, up to 500 characters.
    reason: String,
    /// Hours, minutes, seconds: `24h`, `1h30m`. Without it, for ever.
    #[serde(default)]
    duration: Option<String>,
}

/// Keep a user out. Counts at once, on every instance, also for tokens that are still in time.
#[utoipa::path(post, path = "/api/admin/users/{id}/ban", tag = "admin", params(("id" = Uuid, Path)), request_body = Ban,
    responses((status = 200, body = UserBody), (status = 404)))]
pub async fn ban(
    State(app): State<App>,
    admin: Admin,
    client: Client,
    Path(id): Path<Uuid>,
    Json(ban): Json<Ban>,
) -> Result<Json<UserBody>> {
    let reason = reason(&ban.reason)?;
    let duration = match ban.duration.as_deref() {
        None | Some("") => FOR_EVER,
        Some(text) => how_long::duration(text)?
            .ok_or_else(|| Error::invalid("duration", "has to be longer than nothing"))?,
    };

    let until = app.now() + duration;
    let detail = json!({"reason": reason, "banned_until": until});
    decide(&app, &admin, &client, id, Some(until), detail).await
}

/// Let a user in again.
#[utoipa::path(post, path = "/api/admin/users/{id}/unban", tag = "admin", params(("id" = Uuid, Path)),
    responses((status = 200, body = UserBody), (status = 404)))]
pub async fn unban(
    State(app): State<App>,
    admin: Admin,
    client: Client,
    Path(id): Path<Uuid>,
) -> Result<Json<UserBody>> {
    decide(&app, &admin, &client, id, None, json!({})).await
}

async fn decide(
    app: &App,
    admin: &Admin,
    client: &Client,
    id: Uuid,
    until: Option<Timestamp>,
    detail: serde_json::Value,
) -> Result<Json<UserBody>> {
    let action = match until {
        Some(_) => "user_banned",
        None => "user_unbanned",
    };
    let now = app.now();
    let mut tx = app.db.begin().await?;
    db::users::locked(&mut tx, id)
        .await?
        .ok_or(Error::UserNotFound)?;
    db::users::set_banned_until(&mut tx, id, until, now).await?;
    audit::by_admin(&mut tx, client, action, admin, Some(id), detail, now).await?;
    tx.commit().await?;

    show::body(app, id).await.map(Json)
}

/// Why an admin does what they do.
pub fn reason(text: &str) -> Result<&str> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > 500 {
        return Err(Error::invalid("reason", "has to be 1 to 500 characters"));
    }
    Ok(text)
}
