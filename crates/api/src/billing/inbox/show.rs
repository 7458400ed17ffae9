use super::Event;
use crate::{
    App, Error, Result,
    extract::{Admin, Json, Path},
};
use axum::extract::State;
use db::inbox::Headline;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

/// An event with what it says.
#[derive(Serialize, ToSchema)]
#[schema(as = WholeWebhookEvent)]
pub struct Whole {
    #[serde(flatten)]
    event: Event,
    /// As it came, but for who and where a person is. `plinth webhooks show` prints it whole.
    body: Value,
}

/// A webhook event, with what it says.
#[utoipa::path(get, path = "/api/admin/webhooks/{id}", tag = "admin", params(("id" = Uuid, Path)),
    responses((status = 200, body = Whole), (status = 404)))]
pub async fn show(State(app): State<App>, _: Admin, Path(id): Path<Uuid>) -> Result<Json<Whole>> {
    whole(&app, id).await
}

pub async fn whole(app: &App, id: Uuid) -> Result<Json<Whole>> {
    let row = db::inbox::by_id(&app.db, id)
        .await?
        .ok_or(Error::NotFound)?;
    // Only what could be read was kept.
    let mut body = serde_json::from_slice(&row.body).unwrap_or_default();
    redact(&mut body);
    let event = Headline {
        id: row.id,
        provider: row.provider,
        mode: row.mode,
        external_id: row.external_id,
        kind: row.kind,
        subject: row.subject,
        occurred_at: row.occurred_at,
        received_at: row.received_at,
        key_id: row.key_id,
        status: row.status,
        reason: row.reason,
        processed_at: row.processed_at,
    };
    Ok(Json(Whole {
        event: event.into(),
        body,
    }))
}

/// Members that tell who a person is, or where.
const PERSONAL: [&str; 8] = [
    "email",
    "name",
    "phone",
    "address",
    "shipping",
    "tax_ids",
    "ip",
    "subscriber_attributes",
];

/// Puts `…` for what is personal, also of `customer_email` and the like.
fn redact(value: &mut Value) {
    let personal = |member: &str| {
        PERSONAL.iter().any(|word| {
            member == *word
                || member
                    .strip_suffix(word)
                    .is_some_and(|rest| rest.ends_with('_'))
        })
    };
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                if personal(name) && !value.is_null() {
                    *value = "…".into();
                } else {
                    redact(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        _ => {}
    }
}
