use super::report;
use crate::{
    App,
    extract::{Admin, Json},
    http::Flow,
};
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(test_error))
}

#[derive(Serialize, ToSchema)]
pub struct TestError {
    /// What to look for in Sentry; null where `SENTRY_DSN` is not set. The event is sent in the background.
    sentry_event_id: Option<Uuid>,
}

/// Report a failure that is none, the way every failure of ours is reported: one line in the log, one
/// event in Sentry. Says that whoever is to be woken is reached.
#[utoipa::path(post, path = "/api/admin/test-error", tag = "admin", responses((status = 202, body = TestError)))]
async fn test_error(_: Admin) -> (StatusCode, Json<TestError>) {
    let error = anyhow::anyhow!("A test error: an admin asked whether it is seen");
    let event = report(&error, Flow::Other);
    let sentry_event_id = (!event.is_nil()).then_some(event);
    (StatusCode::ACCEPTED, Json(TestError { sentry_event_id }))
}
