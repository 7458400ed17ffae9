use super::show as one;
use crate::{
    App, Result,
    auth::session::UserBody,
    extract::{Admin, Json, List, Page, Path, Query},
};
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

#[derive(Deserialize, IntoParams)]
pub struct Search {
    /// A part of the address.
    #[serde(default)]
    q: Option<String>,
}

/// The users, newest first, without their identities.
#[utoipa::path(get, path = "/api/admin/users", tag = "admin", params(Search, Page), responses((status = 200, body = List<UserBody>)))]
pub async fn search(
    State(app): State<App>,
    _: Admin,
    Query(search): Query<Search>,
    Query(page): Query<Page>,
) -> Result<Json<List<UserBody>>> {
    let (limit, before) = (page.limit()?, page.cursor()?);
    let part = search.q.map(|part| part.trim().to_lowercase());
    let part = part.as_deref().filter(|part| !part.is_empty());

    let rows = db::users::page(&app.db, part, before, limit + 1).await?;
    let body = |user| UserBody::new(user, vec![]);
    Ok(Json(List::of(rows, limit, |row| row.id, body)))
}

/// One user.
#[utoipa::path(get, path = "/api/admin/users/{id}", tag = "admin", params(("id" = Uuid, Path)),
    responses((status = 200, body = UserBody), (status = 404)))]
pub async fn show(
    State(app): State<App>,
    _: Admin,
    Path(id): Path<Uuid>,
) -> Result<Json<UserBody>> {
    one::body(&app, id).await.map(Json)
}
