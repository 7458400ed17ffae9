use super::{Event, Which};
use crate::{
    App, Result,
    extract::{Admin, Json, List, Page, Query},
};
use axum::extract::State;
use uuid::Uuid;

/// The webhook events that came, newest first.
#[utoipa::path(get, path = "/api/admin/webhooks", tag = "admin", params(Which, Page), responses((status = 200, body = List<Event>)))]
pub async fn list(
    State(app): State<App>,
    _: Admin,
    Query(which): Query<Which>,
    Query(page): Query<Page>,
) -> Result<Json<List<Event>>> {
    let (limit, before) = (page.limit()?, page.cursor()?.unwrap_or(Uuid::max()));
    let rows = db::inbox::page(&app.db, &which.filter()?, before, limit + 1).await?;
    Ok(Json(List::of(rows, limit, |row| row.id, Into::into)))
}
