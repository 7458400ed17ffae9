//! The API as servers ask it, and what happens on phones.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::life::Act;
use super::project::Project;
use crate::payments::faults::ApiFault;
use crate::payments::outbox::Outbox;

pub fn routes(project: Project, outbox: Outbox) -> Router {
    Router::new()
        .route("/v1/subscribers/{id}", get(subscriber))
        .route("/revenuecat/subscribers/{id}", post(act))
        .with_state((project, outbox))
}

type Both = State<(Project, Outbox)>;

/// Makes a customer of whoever is asked for, as RevenueCat does.
async fn subscriber(
    State((project, outbox)): Both,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let said = headers
        .get(header::AUTHORIZATION)
        .and_then(|said| said.to_str().ok());
    let key = said
        .and_then(|said| said.strip_prefix("Bearer "))
        .unwrap_or_default();
    if !key.starts_with("sk_") {
        return refuse(
            StatusCode::UNAUTHORIZED,
            json!({"code": 7243, "message": "Invalid API key"}),
        );
    }
    match outbox.strike() {
        Some(ApiFault::ServerError) => refuse(
            StatusCode::INTERNAL_SERVER_ERROR,
            json!({"code": 7110, "message": "Internal server error."}),
        ),
        Some(ApiFault::RateLimited) => {
            let said = json!({"code": 7638, "message": "Rate limit exceeded", "backoff_ms": 1000});
            (
                [(header::RETRY_AFTER, "1")],
                refuse(StatusCode::TOO_MANY_REQUESTS, said),
            )
                .into_response()
        }
        Some(ApiFault::Timeout) => std::future::pending().await,
        None => {
            let (known, shown) = project.subscriber(&id);
            let status = if known {
                StatusCode::OK
            } else {
                StatusCode::CREATED
            };
            (status, Json(shown)).into_response()
        }
    }
}

/// `{"act":"purchase","product":"com.example.pro.monthly"}`, and what they hold from then on.
async fn act(State((project, _)): Both, Path(id): Path<String>, Json(act): Json<Act>) -> Response {
    match project.act(&id, act) {
        Ok(()) => Json(project.subscriber(&id).1).into_response(),
        Err(why) => refuse(
            StatusCode::CONFLICT,
            json!({"error": {"code": "not_now", "message": why}}),
        ),
    }
}

fn refuse(status: StatusCode, body: Value) -> Response {
    (status, Json(body)).into_response()
}
