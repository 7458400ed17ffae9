//! Whether this instance lives, is ready, and what it stands on.
use crate::{App, Error, Result, error::Dialect, extract::Time, http::ClientAddress, telemetry};
use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use std::time::Duration;
use subtle::ConstantTimeEq;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

#[cfg(test)]
mod tests;

/// A health check is answered within this, whatever hangs.
const PATIENCE: Duration = Duration::from_secs(2);

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(health))
        .routes(routes!(ready))
        .routes(routes!(live))
        .routes(routes!(services))
        .routes(routes!(metrics))
}

#[derive(Serialize, ToSchema)]
struct Health {
    /// `healthy` or `unhealthy`.
    status: &'static str,
    version: String,
    /// `connected` or `disconnected`.
    database: &'static str,
}

/// Whether the product works: this instance and its database.
#[utoipa::path(get, path = "/health", tag = "health", security(()), responses((status = 200, body = Health), (status = 503, body = Health)))]
async fn health(State(app): State<App>) -> (StatusCode, Json<Health>) {
    let version = app.config.core.app_version.clone();
    match database_answers(&app).await {
        true => (
            StatusCode::OK,
            Json(Health {
                status: "healthy",
                version,
                database: "connected",
            }),
        ),
        false => (
            StatusCode::SERVICE_UNAVAILABLE,
            Json(Health {
                status: "unhealthy",
                version,
                database: "disconnected",
            }),
        ),
    }
}

#[derive(Serialize, ToSchema)]
struct Ready {
    ready: bool,
}

/// Whether this instance should get requests: not while it starts or drains, nor without its database.
#[utoipa::path(get, path = "/health/ready", tag = "health", security(()), responses((status = 200, body = Ready), (status = 503, body = Ready)))]
async fn ready(State(app): State<App>) -> (StatusCode, Json<Ready>) {
    let ready = !app.not_ready.is_cancelled() && database_answers(&app).await;
    (
        if ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        },
        Json(Ready { ready }),
    )
}

#[derive(Serialize, ToSchema)]
struct Live {
    live: bool,
}

/// Whether the process answers at all. Touches nothing.
#[utoipa::path(get, path = "/health/live", tag = "health", security(()), responses((status = 200, body = Live)))]
async fn live() -> Json<Live> {
    Json(Live { live: true })
}

/// What is answered until there is a database: this process lives, and is not ready.
pub fn starting(version: String) -> Router {
    let away = StatusCode::SERVICE_UNAVAILABLE;
    Router::new()
        .route("/health/live", get(live))
        .route(
            "/health/ready",
            get(move || async move { (away, Json(Ready { ready: false })) }),
        )
        .route(
            "/health",
            get(move || async move {
                let health = Health {
                    status: "unhealthy",
                    version,
                    database: "disconnected",
                };
                (away, Json(health))
            }),
        )
        .fallback(async |uri: Uri| {
            let id = uuid::Uuid::new_v4().to_string();
            Error::DatabaseUnavailable.render(Dialect::of(uri.path()), &id)
        })
}

#[derive(Serialize, ToSchema)]
struct Services {
    /// `healthy` or `unhealthy`.
    status: &'static str,
    version: String,
    timestamp: Time,
    services: ServiceStates,
}

/// Each `ok`, `degraded`, `off` or `simulated`.
#[derive(Serialize, ToSchema)]
struct ServiceStates {
    database: &'static str,
    redis: &'static str,
    llm: &'static str,
    stripe: &'static str,
    revenuecat: &'static str,
    mail: &'static str,
}

/// Health, and the state of each service it stands on. Spends no money to find out.
#[utoipa::path(get, path = "/api/health", tag = "health", security(()), responses((status = 200, body = Services), (status = 503, body = Services)))]
async fn services(State(app): State<App>) -> (StatusCode, Json<Services>) {
    let (database, redis) = tokio::join!(
        database_answers(&app),
        tokio::time::timeout(PATIENCE, app.limits.redis_answers())
    );
    let billing = &app.config.billing;
    let configured = |on: bool, simulated: bool| match (on, simulated) {
        (_, true) => "simulated",
        (true, false) => "ok",
        (false, false) => "off",
    };
    let services = ServiceStates {
        database: if database { "ok" } else { "degraded" },
        redis: match redis {
            Ok(None) => "off",
            Ok(Some(true)) => "ok",
            Ok(Some(false)) | Err(_) => "degraded",
        },
        llm: match app.llm.is_degraded(app.now()) {
            true => "degraded",
            false => configured(true, app.simulated.llm),
        },
        stripe: configured(
            !billing.stripe_webhook_secret.is_empty(),
            app.simulated.payments,
        ),
        revenuecat: configured(billing.takes_revenuecat(), app.simulated.payments),
        mail: configured(app.mailer.is_configured(), app.simulated.mail),
    };
    let (code, status) = if database {
        (StatusCode::OK, "healthy")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "unhealthy")
    };
    (
        code,
        Json(Services {
            status,
            version: app.config.core.app_version.clone(),
            timestamp: app.now().into(),
            services,
        }),
    )
}

async fn database_answers(app: &App) -> bool {
    matches!(
        tokio::time::timeout(PATIENCE, app.db.ping()).await,
        Ok(Ok(()))
    )
}

/// Prometheus metrics. With `METRICS_TOKEN` for who bears it, else for loopback alone.
#[utoipa::path(get, path = "/metrics", tag = "health", security(()), responses((status = 200, body = String, content_type = "text/plain"), (status = 401), (status = 403)))]
async fn metrics(
    State(app): State<App>,
    address: ClientAddress,
    headers: HeaderMap,
) -> Result<Response> {
    match &app.config.telemetry.metrics_token {
        Some(token) => {
            let expected = format!("Bearer {}", token.expose());
            let given = headers.get(header::AUTHORIZATION).ok_or(Error::NoToken)?;
            if !bool::from(given.as_bytes().ct_eq(expected.as_bytes())) {
                return Err(Error::InvalidToken);
            }
        }
        None if !address.0.is_loopback() || was_forwarded(&headers) => {
            return Err(Error::Forbidden);
        }
        None => {}
    }
    let content_type = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    Ok((content_type, telemetry::render(&app).await).into_response())
}

/// Whether a proxy stands between, which on this machine would look like a neighbour.
fn was_forwarded(headers: &HeaderMap) -> bool {
    ["x-forwarded-for", "forwarded", "via", "x-real-ip"]
        .iter()
        .any(|name| headers.contains_key(*name))
}
