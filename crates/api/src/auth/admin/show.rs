use crate::{
    App, Error, Result,
    auth::session::UserBody,
    extract::{Admin, Json, Path},
};
use axum::extract::State;
use uuid::Uuid;

/// One user.
#[utoipa::path(get, path = "/auth/v1/admin/users/{id}", tag = "admin", params(("id" = Uuid, Path)),
    responses((status = 200, body = UserBody), (status = 404)))]
pub async fn show(
    State(app): State<App>,
    _: Admin,
    Path(id): Path<Uuid>,
) -> Result<Json<UserBody>> {
    body(&app, id).await.map(Json)
}

/// A user as an admin sees them: as they see themself. What they sign in with is seen by nobody.
pub async fn body(app: &App, id: Uuid) -> Result<UserBody> {
    let user = db::users::by_id(&app.db, id)
        .await?
        .ok_or(Error::UserNotFound)?;
    UserBody::load(&app.db, user).await
}
