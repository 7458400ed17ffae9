//! Answers as things of their own: how one stands, its events from any place on, and its stop.
use super::{
    encode::{Listener, native},
    generation, relay, sse,
};
use crate::{
    App, Error, Result,
    extract::{Asker, Auth, Json, List, Page, Path, Query, Time},
};
use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

/// A long poll waits so long at most.
const MAX_WAIT: u64 = 30;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(events))
        .routes(routes!(stop))
}

/// One answer.
#[derive(Serialize, ToSchema)]
struct Generation {
    id: Uuid,
    /// `running`, `finished`, `stopped`, `truncated` or `failed`.
    state: &'static str,
    /// The conversation and the message it is kept in; null when it is not.
    conversation_id: Option<Uuid>,
    message_id: Option<Uuid>,
    model: String,
    /// Why it ended: `stop`, `length`, `tool_calls`, `content_filter`, `stopped`, `truncated`, …
    finish_reason: Option<String>,
    error_code: Option<String>,
    created_at: Time,
    finished_at: Option<Time>,
}

impl From<db::generations::Generation> for Generation {
    fn from(row: db::generations::Generation) -> Self {
        let state = match (
            row.finished_at,
            &row.error_code,
            row.finish_reason.as_deref(),
        ) {
            (None, ..) => "running",
            (_, Some(_), _) => "failed",
            (.., Some("stopped")) => "stopped",
            (.., Some("truncated")) => "truncated",
            _ => "finished",
        };
        Self {
            id: row.id,
            state,
            conversation_id: row.conversation_id,
            message_id: row.message_id,
            model: row.model,
            finish_reason: row.finish_reason,
            error_code: row.error_code,
            created_at: row.created_at.into(),
            finished_at: row.finished_at.map(Into::into),
        }
    }
}

#[derive(Deserialize, utoipa::IntoParams)]
struct Which {
    /// `1` lists those alone that are being made: another device may go on with them.
    #[serde(default)]
    active: Option<u8>,
}

/// The user's answers, newest first.
#[utoipa::path(get, path = "/api/generations", tag = "chat", params(Which, Page), responses((status = 200, body = List<Generation>)))]
async fn list(
    State(app): State<App>,
    Asker(auth): Asker,
    Query(which): Query<Which>,
    Query(page): Query<Page>,
) -> Result<Json<List<Generation>>> {
    let (limit, before) = (page.limit()?, page.cursor()?.unwrap_or(Uuid::max()));
    let active = which.active == Some(1);
    let rows = db::generations::page(&app.db, auth.user, active, before, limit + 1).await?;
    Ok(Json(List::of(rows, limit, |row| row.id, Into::into)))
}

/// How an answer stands.
#[utoipa::path(get, path = "/api/generations/{id}", tag = "chat", params(("id" = Uuid, Path)), responses((status = 200, body = Generation), (status = 404)))]
async fn show(
    State(app): State<App>,
    Asker(auth): Asker,
    Path(id): Path<Uuid>,
) -> Result<Json<Generation>> {
    Ok(Json(of_user(&app, &auth, id).await?.into()))
}

/// Another's is as absent as none.
async fn of_user(app: &App, auth: &Auth, id: Uuid) -> Result<db::generations::Generation> {
    let row = db::generations::of_user(&app.db, auth.user, id).await?;
    row.ok_or(Error::NotFound)
}

#[derive(Deserialize, utoipa::IntoParams)]
struct Place {
    /// The number of the last event that the client has; 0, or absent, is the beginning.
    #[serde(default)]
    after: Option<u64>,
    /// Answer as JSON, at the latest after so many seconds, 30 at most: for clients that cannot stream.
    #[serde(default)]
    wait: Option<u64>,
}

/// What a long poll is answered.
#[derive(Serialize, ToSchema)]
struct Events {
    data: Vec<EventOf>,
    /// Where to go on: the next request's `after`.
    next: u64,
    /// Whether there is nothing more to come.
    done: bool,
}

#[derive(Serialize, ToSchema)]
struct EventOf {
    seq: u64,
    event: &'static str,
    data: serde_json::Value,
}

/// The events of an answer, from any place on, while it is made and after: on whichever instance, and
/// whether or not the one that made it still lives. It starts nothing. Who has heard everything is
/// answered 204, at which an `EventSource` stays away.
#[utoipa::path(get, path = "/api/generations/{id}/events", tag = "chat",
    params(("id" = Uuid, Path), Place, ("Last-Event-ID" = Option<String>, Header, description = "`{generation}.{seq}`, as the events say it; goes before `after`")),
    responses((status = 200, description = "Server-sent events; with `wait`, JSON", content((String = "text/event-stream"), (Events = "application/json"))), (status = 204, description = "Nothing more"), (status = 404)))]
async fn events(
    State(app): State<App>,
    Asker(auth): Asker,
    Path(id): Path<Uuid>,
    Query(from): Query<Place>,
    headers: HeaderMap,
) -> Result<Response> {
    let after = last_event_id(&headers, id)?.or(from.after).unwrap_or(0);
    let row = of_user(&app, &auth, id).await?;
    let mut reader = relay::attach(&app, &row, after).await?;
    let head = generation::Head::from(&row);
    if let Some(seconds) = from.wait {
        let wait = Duration::from_secs(seconds.min(MAX_WAIT));
        let mut next = tokio::time::timeout(wait, reader.next())
            .await
            .ok()
            .flatten();
        let (mut data, mut place) = (vec![], after);
        while let Some((seq, event)) = next {
            let (event, body) = native::event(&head, &event);
            data.push(EventOf {
                seq,
                event,
                data: body,
            });
            place = seq;
            next = reader.here();
        }
        let done = reader.is_at_end();
        return Ok(Json(Events {
            data,
            next: place,
            done,
        })
        .into_response());
    }
    if reader.is_at_end() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let listener = Listener::new(&app, &auth, reader);
    Ok(sse::response(native::events(head, listener, after)))
}

/// The place that a client of server-sent events says it has reached, of this generation.
fn last_event_id(headers: &HeaderMap, generation: Uuid) -> Result<Option<u64>> {
    let Some(id) = headers.get("last-event-id").filter(|id| !id.is_empty()) else {
        return Ok(None);
    };
    let place = id.to_str().ok().and_then(event_id);
    match place {
        Some((of, seq)) if of == generation => Ok(Some(seq)),
        _ => Err(Error::invalid(
            "Last-Event-ID",
            "is not one of this generation's",
        )),
    }
}

/// A generation, and the number of one of its events, as their ids say them.
pub fn event_id(id: &str) -> Option<(Uuid, u64)> {
    let (generation, seq) = id.trim().rsplit_once('.')?;
    Some((Uuid::try_parse(generation).ok()?, seq.parse().ok()?))
}

/// Stop an answer, wherever it is made. What was said stays, and is paid for. One that is over is not
/// changed by it.
#[utoipa::path(post, path = "/api/generations/{id}/stop", tag = "chat", params(("id" = Uuid, Path)), responses((status = 200, description = "It is over, or was", body = Generation), (status = 202, description = "Whoever makes it is told", body = Generation), (status = 404)))]
async fn stop(
    State(app): State<App>,
    Asker(auth): Asker,
    Path(id): Path<Uuid>,
) -> Result<Response> {
    let row = of_user(&app, &auth, id).await?;
    request_stop(&app, &row).await?;
    let row = of_user(&app, &auth, id).await?;
    let status = match row.finished_at {
        Some(_) => StatusCode::OK,
        None => StatusCode::ACCEPTED,
    };
    Ok((status, Json(Generation::from(row))).into_response())
}

/// Tells whoever makes an answer to stop; here at once, elsewhere within a quarter of a second.
pub async fn request_stop(app: &App, row: &db::generations::Generation) -> Result<()> {
    if row.finished_at.is_some() {
        return Ok(());
    }
    let here = app.streams.made_here(row.id);
    let mut tx = app.db.begin().await?;
    db::generations::request_stop(&mut tx, row.id, app.now()).await?;
    tx.commit().await?;
    if let Some(log) = here {
        log.stop.cancel();
    }
    Ok(())
}
