use crate::{
    App, Error, Result,
    auth::{
        audit,
        deletion::{self, Leaves},
        session::Client,
        step_up,
    },
    extract::{self, Admin, Json, Path},
};
use axum::extract::{Request, State};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

#[derive(Default, Deserialize, ToSchema)]
pub struct Deletion {
    /// Leaves the id, and what the product has under it; nothing that says whose it was.
    #[serde(default)]
    should_soft_delete: bool,
}

/// Delete a user with everything that is theirs. Counts at once, on every instance. A person who administers
/// needs a sign-in of the last minutes.
#[utoipa::path(delete, path = "/auth/v1/admin/users/{id}", tag = "admin", params(("id" = Uuid, Path)),
    request_body(content = Deletion, description = "May be absent."),
    responses((status = 200, description = "`{}`"), (status = 404)))]
pub async fn delete(
    State(app): State<App>,
    admin: Admin,
    client: Client,
    Path(id): Path<Uuid>,
    request: Request,
) -> Result<Json<Value>> {
    let deletion: Deletion = extract::json_or_default(request, &app).await?;
    let leaves = match deletion.should_soft_delete {
        true => Leaves::Id,
        false => Leaves::Nothing,
    };

    let (action, now) = ("user_deleted", app.now());
    step_up::demand_of_admin(&app, &admin, &client, action, Some(id)).await?;
    let mut tx = app.db.begin().await?;
    db::users::locked(&mut tx, id)
        .await?
        .ok_or(Error::UserNotFound)?;
    let detail = json!({"soft": deletion.should_soft_delete});
    audit::by_admin(&mut tx, &client, action, &admin, Some(id), detail, now).await?;
    deletion::delete(&mut tx, id, leaves, now).await?;
    tx.commit().await?;

    Ok(Json(json!({})))
}
