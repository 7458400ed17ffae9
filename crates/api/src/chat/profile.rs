use crate::{
    App, Error, Result,
    extract::{Asker, Json},
};
use axum::extract::State;
use serde_json::{Map, Value};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

/// Bytes of a profile, as JSON.
const MAX_BYTES: usize = 16 * 1024;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(show, put))
}

/// What a user tells assistants of themself.
pub async fn of(app: &App, user: Uuid) -> Result<Map<String, Value>> {
    let profile = db::profiles::of_user(&app.db, user).await?;
    Ok(match profile.map(|profile| profile.data.0) {
        Some(Value::Object(members)) => members,
        _ => Map::new(),
    })
}

/// What assistants may know of the user.
#[utoipa::path(get, path = "/api/profile", tag = "chat", responses((status = 200, body = Object)))]
async fn show(State(app): State<App>, Asker(auth): Asker) -> Result<Json<Map<String, Value>>> {
    Ok(Json(of(&app, auth.user).await?))
}

/// Replace what assistants may know of the user: names and values, 16 KiB at most. An assistant's prompt
/// shows them to the model as information, never as instructions.
#[utoipa::path(put, path = "/api/profile", tag = "chat", request_body = Object, responses((status = 200, body = Object)))]
async fn put(
    State(app): State<App>,
    Asker(auth): Asker,
    Json(profile): Json<Map<String, Value>>,
) -> Result<Json<Map<String, Value>>> {
    let data = Value::Object(profile);
    if data.to_string().len() > MAX_BYTES {
        return Err(Error::invalid("body", "has to be 16 KiB at most"));
    }

    let mut tx = app.db.begin().await?;
    db::profiles::put(&mut tx, auth.user, &db::Json(data), app.now()).await?;
    tx.commit().await?;

    Ok(Json(of(&app, auth.user).await?))
}
