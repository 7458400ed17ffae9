use super::page::Numbered;
use crate::{
    App, Result,
    auth::session::UserBody,
    extract::{Admin, Json, Query},
};
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

const PATH: &str = "/auth/v1/admin/users";

#[derive(Deserialize, IntoParams)]
pub struct Filter {
    /// A part of the address.
    #[serde(default)]
    filter: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct Users {
    users: Vec<UserBody>,
    aud: &'static str,
}

/// The users, newest first.
#[utoipa::path(get, path = "/auth/v1/admin/users", tag = "admin", params(Numbered, Filter),
    responses((status = 200, body = Users, headers(("X-Total-Count" = i64), ("Link" = String)))))]
pub async fn list(
    State(app): State<App>,
    _: Admin,
    Query(page): Query<Numbered>,
    Query(filter): Query<Filter>,
) -> Result<Response> {
    let rows = page.rows()?;
    let part = filter.filter.map(|part| part.trim().to_lowercase());
    let part = part.as_deref().filter(|part| !part.is_empty());

    let total = db::users::count(&app.db, part).await?.0;
    let users = db::users::numbered(&app.db, part, rows.limit, rows.offset).await?;
    let identities =
        db::users::identities_of_numbered(&app.db, part, rows.limit, rows.offset).await?;

    let mut of_user: HashMap<Uuid, Vec<_>> = HashMap::new();
    for identity in identities {
        of_user.entry(identity.user_id).or_default().push(identity);
    }
    let body = |user: db::users::User| {
        let identities = of_user.remove(&user.id).unwrap_or_default();
        UserBody::new(user, identities)
    };
    let users = users.into_iter().map(body).collect();
    let aud = "authenticated";
    Ok((rows.headers(PATH, total), Json(Users { users, aud })).into_response())
}
