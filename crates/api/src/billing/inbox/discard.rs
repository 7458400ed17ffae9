use super::show;
use crate::{
    App, Error, Result,
    auth::{audit, session::Client},
    extract::{Admin, Json, Path},
};
use axum::extract::State;
use serde_json::json;
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
    let event = db::inbox::by_id(&app.db, id)
        .await?
        .ok_or(Error::NotFound)?;

    let now = app.now();
    let mut tx = app.db.begin().await?;
    if !db::inbox::discard(&mut tx, id, now).await? {
        return Err(Error::EventSettled);
    }
    let detail =
        json!({"event": event.external_id, "provider": event.provider, "was": event.status});
    audit::by_admin(
        &mut tx,
        &client,
        "webhook_discarded",
        &admin,
        None,
        detail,
        now,
    )
    .await?;
    tx.commit().await?;

    show::whole(&app, id).await
}
