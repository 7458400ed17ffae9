use super::{Decision, decide, show};
use crate::{
    App, Result,
    auth::session::Client,
    extract::{Admin, Json, Path},
};
use axum::extract::State;
use uuid::Uuid;

/// Put an event aside that will never count: it is ignored from then on, and can still be replayed.
#[utoipa::path(post, path = "/api/admin/webhooks/{id}/discard", tag = "admin", params(("id" = Uuid, Path)),
    responses((status = 200, body = show::Whole), (status = 404), (status = 409)))]
pub async fn discard(
    State(app): State<App>,
    admin: Admin,
    client: Client,
    Path(id): Path<Uuid>,
) -> Result<Json<show::Whole>> {
    decide(&app, &admin, &client, id, Decision::Discard).await
}
