//! Plinth: sign-in, chat through a language model, and subscriptions, behind one binary.
//!
//! A request goes `lib.rs` (routes) → `<feature>/<endpoint>.rs` → `db::<feature>`, and nothing between.

mod app;
mod auth;
mod backup;
mod billing;
mod chat;
pub mod commands;
pub mod config;
mod docs;
mod error;
mod extract;
mod features;
mod health;
mod http;
mod idempotency;
mod jobs;
mod limit;
mod mail;
#[cfg(test)]
mod surface;
mod telemetry;
#[cfg(test)]
mod testing;

pub use app::App;
pub use config::Config;
pub use error::{Error, Result};

use utoipa_axum::router::OpenApiRouter;

/// The features, one line each.
fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(docs::description())
        .merge(health::routes())
        .merge(auth::routes())
        .merge(chat::routes())
        .merge(features::routes())
        .merge(billing::routes())
        .merge(mail::events::routes())
        .merge(telemetry::routes())
        .merge(docs::routes())
}

/// Everything this instance answers, layers and all.
pub fn router(app: &App) -> axum::Router {
    let (routes, _) = routes().split_for_parts();
    http::layers(app, routes)
}

/// What a process that does jobs alone answers: whether it lives.
pub fn worker_router(app: &App) -> axum::Router {
    let (routes, _) = OpenApiRouter::new()
        .merge(health::routes())
        .split_for_parts();
    http::layers(app, routes)
}
