use super::{Decision, Which, decide, show};
use crate::{
    App, Error, Result,
    auth::{audit, session::Client},
    extract::{Admin, Json, Path},
};
use axum::{extract::State, http::StatusCode};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

/// Events of one call; the next call takes the next.
const AT_ONCE: i64 = 500;

/// Apply an event once more: after a fix, or when what it waited for is known. One that counted changes
/// nothing.
#[utoipa::path(post, path = "/api/admin/webhooks/{id}/replay", tag = "admin", params(("id" = Uuid, Path)),
    responses((status = 202, body = show::Whole), (status = 404)))]
pub async fn replay(
    State(app): State<App>,
    admin: Admin,
    client: Client,
    Path(id): Path<Uuid>,
) -> Result<(StatusCode, Json<show::Whole>)> {
    let event = decide(&app, &admin, &client, id, Decision::Replay).await?;
    Ok((StatusCode::ACCEPTED, event))
}

#[derive(Serialize, ToSchema)]
pub struct Replayed {
    /// How many will be applied once more.
    replayed: usize,
    /// Whether there are others like them: ask again, with `until` the time of the oldest.
    more: bool,
}

/// Apply every event once more that is meant, the newest 500 of them.
#[utoipa::path(post, path = "/api/admin/webhooks/replay", tag = "admin", request_body = Which, responses((status = 202, body = Replayed)))]
pub async fn replay_all(
    State(app): State<App>,
    admin: Admin,
    client: Client,
    Json(which): Json<Which>,
) -> Result<(StatusCode, Json<Replayed>)> {
    if which.is_any() {
        return Err(Error::invalid(
            "status",
            "has to be given, or what else tells which events are meant",
        ));
    }
    let mut events = db::inbox::page(&app.db, &which.filter()?, Uuid::max(), AT_ONCE + 1).await?;
    let more = events.len() as i64 > AT_ONCE;
    events.truncate(AT_ONCE as usize);

    let now = app.now();
    let mut tx = app.db.begin().await?;
    for event in &events {
        db::inbox::replay(&mut tx, event.id, now).await?;
    }
    let detail = json!({"which": which, "events": events.len()});
    audit::by_admin(
        &mut tx,
        &client,
        "webhooks_replayed",
        &admin,
        None,
        detail,
        now,
    )
    .await?;
    tx.commit().await?;

    let replayed = Replayed {
        replayed: events.len(),
        more,
    };
    Ok((StatusCode::ACCEPTED, Json(replayed)))
}
