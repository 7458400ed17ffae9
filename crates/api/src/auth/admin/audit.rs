use super::page::Numbered;
use crate::{
    App, Result,
    extract::{Admin, Json, List, Page, Query, Time},
};
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use db::audit::Entry;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

const PATH: &str = "/auth/v1/admin/audit";

/// A decision as GoTrue's dashboard reads it.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditLogEntry)]
pub struct Logged {
    id: Uuid,
    payload: Value,
    created_at: Time,
    ip_address: String,
}

impl From<Entry> for Logged {
    fn from(entry: Entry) -> Self {
        let payload = json!({
            "actor_id": entry.actor_id,
            "actor_username": "",
            "actor_via_sso": false,
            "action": entry.action,
            "log_type": log_type(&entry.action),
            "timestamp": entry.created_at,
            "traits": {"user_id": entry.subject_id, "outcome": entry.outcome, "by": entry.actor_kind, "detail": entry.detail.0},
        });
        Self {
            id: entry.id,
            payload,
            created_at: entry.created_at.into(),
            ip_address: entry.ip.unwrap_or_default(),
        }
    }
}

/// GoTrue's sorts of actions.
fn log_type(action: &str) -> &'static str {
    match action {
        "login" | "logout" | "invite_accepted" => "account",
        "user_signedup" | "user_invited" | "user_deleted" => "team",
        "token_refreshed" | "token_revoked" => "token",
        action if action.contains("factor") => "factor",
        _ => "user",
    }
}

/// Every decision about any account, newest first.
#[utoipa::path(get, path = "/auth/v1/admin/audit", tag = "admin", params(Numbered),
    responses((status = 200, body = Vec<Logged>, headers(("X-Total-Count" = i64), ("Link" = String)))))]
pub async fn numbered(
    State(app): State<App>,
    _: Admin,
    Query(page): Query<Numbered>,
) -> Result<Response> {
    let rows = page.rows()?;
    let total = db::audit::count(&app.db).await?.0;
    let entries = db::audit::numbered(&app.db, rows.limit, rows.offset).await?;
    let entries: Vec<Logged> = entries.into_iter().map(Into::into).collect();
    Ok((rows.headers(PATH, total), Json(entries)).into_response())
}

#[derive(Deserialize, IntoParams)]
pub struct About {
    /// Whose account.
    #[serde(default)]
    user: Option<Uuid>,
}

/// A decision about an account.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditEvent)]
pub struct Event {
    id: Uuid,
    /// Whose account; null where nobody's is known.
    subject_id: Option<Uuid>,
    /// Who did it; null for the service-role key, and for who is not known.
    actor_id: Option<Uuid>,
    /// `user`, `admin` or `system`.
    actor_kind: String,
    action: String,
    /// `succeeded` or `refused`.
    outcome: String,
    request_id: Option<String>,
    detail: Value,
    ip: Option<String>,
    user_agent: Option<String>,
    created_at: Time,
}

impl From<Entry> for Event {
    fn from(entry: Entry) -> Self {
        Self {
            id: entry.id,
            subject_id: entry.subject_id,
            actor_id: entry.actor_id,
            actor_kind: entry.actor_kind,
            action: entry.action,
            outcome: entry.outcome,
            request_id: entry.request_id,
            detail: entry.detail.0,
            ip: entry.ip,
            user_agent: entry.user_agent,
            created_at: entry.created_at.into(),
        }
    }
}

/// Every decision about any account, or one, newest first.
#[utoipa::path(get, path = "/api/admin/audit", tag = "admin", params(About, Page), responses((status = 200, body = List<Event>)))]
pub async fn list(
    State(app): State<App>,
    _: Admin,
    Query(about): Query<About>,
    Query(page): Query<Page>,
) -> Result<Json<List<Event>>> {
    let (limit, before) = (page.limit()?, page.cursor()?);
    let rows = match about.user {
        Some(user) => db::audit::page_of_subject(&app.db, user, before, limit + 1).await?,
        None => db::audit::page(&app.db, before, limit + 1).await?,
    };
    Ok(Json(List::of(rows, limit, |row| row.id, Into::into)))
}
