//! Where a user is signed in, for them to see and to end: what GoTrue's clients have asked for in vain.
use super::{audit, cookies::Cookies, device, session::Client};
use crate::{
    App, Error, Result,
    extract::{Auth, Json, List, Page, Path, Query, Time},
};
use axum::{extract::State, http::StatusCode};
use db::sessions::Session;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(end))
}

/// One place where the user is signed in.
#[derive(Debug, Serialize, ToSchema)]
pub struct OpenSession {
    /// The `session_id` of its access tokens.
    id: Uuid,
    /// Whether it is the one that asks.
    current: bool,
    created_at: Time,
    /// When its tokens were last made anew.
    refreshed_at: Time,
    /// When it was last heard of; between two refreshes not every request counts.
    last_seen_at: Time,
    /// When it ends, unless it is refreshed before.
    expires_at: Time,
    /// In a person's words, where the user agent tells: `Firefox on Windows`.
    device: Option<String>,
    user_agent: Option<String>,
    /// Where it was opened from.
    ip: Option<String>,
    aal: String,
    /// How the user proved who they are: `[{method, timestamp}]`; `impersonation` where it is an admin who looks.
    amr: Value,
}

impl OpenSession {
    pub fn new(session: Session, current: Option<Uuid>) -> Self {
        let expires_at = session.idle_expires_at.min(session.absolute_expires_at);
        Self {
            id: session.id,
            current: Some(session.id) == current,
            created_at: session.created_at.into(),
            refreshed_at: session.rotated_at.into(),
            last_seen_at: session.last_seen_at.into(),
            expires_at: expires_at.into(),
            device: session.user_agent.as_deref().and_then(device::describe),
            user_agent: session.user_agent,
            ip: session.ip,
            aal: session.aal,
            amr: session.amr.0,
        }
    }
}

/// Where the user is signed in, newest first.
#[utoipa::path(get, path = "/auth/v1/sessions", tag = "sign-in", params(Page), responses((status = 200, body = List<OpenSession>)))]
async fn list(
    State(app): State<App>,
    auth: Auth,
    Query(page): Query<Page>,
) -> Result<Json<List<OpenSession>>> {
    let limit = page.limit()?;
    let rows =
        db::sessions::of_user(&app.db, auth.user, page.cursor()?, limit + 1, app.now()).await?;
    let open = |session| OpenSession::new(session, Some(auth.session));
    Ok(Json(List::of(rows, limit, |session| session.id, open)))
}

/// End one of them. Counts at once, on every instance, also for access tokens that are still in time. One's
/// own takes a browser's cookies away.
#[utoipa::path(delete, path = "/auth/v1/sessions/{id}", tag = "sign-in", params(("id" = Uuid, Path)), responses((status = 204), (status = 404)))]
async fn end(
    State(app): State<App>,
    auth: Auth,
    cookies: Cookies,
    client: Client,
    Path(id): Path<Uuid>,
) -> Result<StatusCode> {
    let now = app.now();
    let mut tx = app.db.begin().await?;
    let ended = db::sessions::revoke_own(&mut tx, auth.user, id, "ended_by_user", now).await?;
    let detail = json!({"session": id, "by": auth.session});
    if !ended {
        let user = Some(auth.user);
        audit::refused(&mut tx, &client, "session_ended", user, detail, now).await?;
        tx.commit().await?;
        return Err(Error::NotFound);
    }
    audit::succeeded(&mut tx, &client, "session_ended", auth.user, detail, now).await?;
    tx.commit().await?;

    if id == auth.session {
        cookies.end();
    }
    Ok(StatusCode::NO_CONTENT)
}
