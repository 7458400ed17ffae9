use crate::{
    App, Result,
    extract::{Auth, Json, List, Page, Query, Time},
};
use axum::extract::State;
use db::audit::Entry;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(history))
}

/// What was decided about an account.
#[derive(Serialize, ToSchema)]
#[schema(as = AccountEvent)]
pub struct Event {
    id: Uuid,
    /// `login`, `logout`, `user_modified`, …
    action: String,
    /// `succeeded` or `refused`.
    outcome: String,
    /// Who acted: `user`, `admin` or `system`.
    by: String,
    /// Further facts; of what an admin did, none.
    detail: Value,
    /// Where from; of what an admin did, not said.
    ip: Option<String>,
    user_agent: Option<String>,
    created_at: Time,
}

impl From<Entry> for Event {
    fn from(entry: Entry) -> Self {
        let theirs = entry.actor_kind == "user";
        Self {
            id: entry.id,
            action: entry.action,
            outcome: entry.outcome,
            by: entry.actor_kind,
            detail: Some(entry.detail.0).filter(|_| theirs).unwrap_or_default(),
            ip: entry.ip.filter(|_| theirs),
            user_agent: entry.user_agent.filter(|_| theirs),
            created_at: entry.created_at.into(),
        }
    }
}

/// What was decided about one's own account, newest first.
#[utoipa::path(get, path = "/auth/v1/audit", tag = "sign-in", params(Page), responses((status = 200, body = List<Event>)))]
async fn history(
    State(app): State<App>,
    auth: Auth,
    Query(page): Query<Page>,
) -> Result<Json<List<Event>>> {
    let (limit, before) = (page.limit()?, page.cursor()?);
    let rows = db::audit::page_of_subject(&app.db, auth.user, before, limit + 1).await?;
    Ok(Json(List::of(rows, limit, |row| row.id, Into::into)))
}
