use super::providers::Provider;
use crate::{App, extract::Json};
use axum::extract::State;
use serde_json::{Value, json};
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(settings))
        .routes(routes!(health))
}

/// What a sign-in page may offer.
#[utoipa::path(get, path = "/auth/v1/settings", tag = "sign-in", security(()), responses((status = 200, body = Value)))]
async fn settings(State(app): State<App>) -> Json<Value> {
    let auth = &app.config.auth;
    let mut external =
        json!({"email": true, "phone": false, "anonymous_users": auth.auth_anonymous});
    for name in ["google", "apple", "github", "oidc"] {
        external[name] = app.issuers.named(name).is_some().into();
    }
    let issuer = app.issuers.named("replit");
    external["replit"] = issuer.is_some_and(is_replit).into();
    Json(json!({
        "external": external,
        "disable_signup": !auth.auth_signup,
        "mailer_autoconfirm": auth.autoconfirms(app.config.is_production()),
        "phone_autoconfirm": false,
        "sms_provider": "",
        "saml_enabled": false,
    }))
}

/// Whether the issuer that is configured is Replit, or stands in for it.
fn is_replit(issuer: &Provider) -> bool {
    issuer.issuer().contains("replit")
}

/// That sign-in answers, in GoTrue's words.
#[utoipa::path(get, path = "/auth/v1/health", tag = "sign-in", security(()), responses((status = 200, body = Value)))]
async fn health(State(app): State<App>) -> Json<Value> {
    Json(
        json!({"name": "GoTrue", "version": app.config.core.app_version, "description": "Plinth speaks GoTrue's API"}),
    )
}
