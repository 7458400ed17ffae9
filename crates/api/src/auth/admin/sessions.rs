use crate::{
    App, Error, Result,
    auth::{audit, session::Client, sessions::OpenSession},
    extract::{Admin, Json, List, Page, Path, Query},
};
use axum::{extract::State, http::StatusCode};
use serde_json::json;
use uuid::Uuid;

/// Where a user is signed in, newest first.
#[utoipa::path(get, path = "/api/admin/users/{id}/sessions", tag = "admin", params(("id" = Uuid, Path), Page),
    responses((status = 200, body = List<OpenSession>), (status = 404)))]
pub async fn list(
    State(app): State<App>,
    admin: Admin,
    Path(id): Path<Uuid>,
    Query(page): Query<Page>,
) -> Result<Json<List<OpenSession>>> {
    let (limit, before) = (page.limit()?, page.cursor()?);
    let user = db::users::by_id(&app.db, id).await?;
    let user = user.ok_or(Error::UserNotFound)?;
    let rows = db::sessions::of_user(&app.db, user.id, before, limit + 1, app.now()).await?;
    let own = admin.session.map(|auth| auth.session);
    let open = |session| OpenSession::new(session, own);
    Ok(Json(List::of(rows, limit, |session| session.id, open)))
}

/// End one of them. Counts at once, on every instance.
#[utoipa::path(delete, path = "/api/admin/users/{id}/sessions/{session}", tag = "admin",
    params(("id" = Uuid, Path), ("session" = Uuid, Path)),
    responses((status = 204), (status = 404)))]
pub async fn end(
    State(app): State<App>,
    admin: Admin,
    client: Client,
    Path((id, session)): Path<(Uuid, Uuid)>,
) -> Result<StatusCode> {
    let (action, now) = ("session_ended", app.now());
    let mut tx = app.db.begin().await?;
    let ended = db::sessions::revoke_own(&mut tx, id, session, "ended_by_admin", now).await?;
    let detail = json!({"session": session});
    if !ended {
        drop(tx);
        let (subject, refusal) = (Some(id), Error::NotFound);
        return Err(
            audit::refuse_admin(&app, &client, action, &admin, subject, detail, refusal).await,
        );
    }
    audit::by_admin(&mut tx, &client, action, &admin, Some(id), detail, now).await?;
    tx.commit().await?;

    Ok(StatusCode::NO_CONTENT)
}
