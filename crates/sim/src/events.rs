//! `POST /stripe/events` and `POST /revenuecat/events`: builds an event, signs it as the provider
//! would, and sends it to the backend.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::WebhookTarget;
use crate::revenuecat::{self, Project, RevenueCat};
use crate::stripe::{self, Stripe};

/// Stripe waits about as long.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Where events go, which may become known after the world has started.
pub type Target = Arc<Mutex<Option<WebhookTarget>>>;

pub fn routes(target: Target, account: stripe::Account, project: Project) -> Router {
    let sender = Sender {
        target,
        account,
        project,
        http: Arc::default(),
    };
    Router::new()
        .route("/stripe/events", post(stripe_event))
        .route("/revenuecat/events", post(revenuecat_event))
        .with_state(sender)
}

pub fn current(target: &Target) -> Option<WebhookTarget> {
    target
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}

pub fn set(target: &Target, new: WebhookTarget) {
    *target.lock().unwrap_or_else(PoisonError::into_inner) = Some(new);
}

#[derive(Clone)]
struct Sender {
    target: Target,
    account: stripe::Account,
    project: Project,
    /// Made for the first event: it reads the machine's certificates, which takes longer than to start
    /// everything else.
    http: Arc<OnceLock<reqwest::Client>>,
}

async fn stripe_event(State(sender): State<Sender>, Json(spec): Json<Stripe>) -> Response {
    let Some(target) = current(&sender.target) else {
        return nowhere();
    };
    if !stripe::builds(&spec.kind) {
        return unknown(&spec.kind, stripe::TYPES);
    }

    sender.account.know(&spec);
    let event = stripe::event(&spec, crate::now());
    let body = event.to_string();
    let signed_at = crate::now();
    let signature = webhooks::signature::sign(body.as_bytes(), &target.stripe_secret, signed_at);
    let request = sender.post(&target, "/webhooks/stripe", body);
    deliver(request.header("stripe-signature", signature), event).await
}

async fn revenuecat_event(State(sender): State<Sender>, Json(spec): Json<RevenueCat>) -> Response {
    let Some(target) = current(&sender.target) else {
        return nowhere();
    };

    sender.project.know(&spec);
    let event = revenuecat::event(&spec, crate::now());
    let request = sender.post(&target, "/webhooks/revenuecat", event.to_string());
    deliver(request.bearer_auth(target.revenuecat_secret), event).await
}

impl Sender {
    fn post(&self, target: &WebhookTarget, path: &str, body: String) -> RequestBuilder {
        let url = format!("{}{path}", target.base_url.trim_end_matches('/'));
        let request = self.http.get_or_init(client).post(url).body(body);
        request.header(header::CONTENT_TYPE, "application/json")
    }
}

/// Loopback only: a proxy from the environment would not find it.
fn client() -> reqwest::Client {
    let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT);
    client.build().unwrap_or_default()
}

/// What was sent, and how the backend answered.
async fn deliver(request: RequestBuilder, event: Value) -> Response {
    let answer = async {
        let response = request.send().await?;
        Ok((response.status().as_u16(), response.text().await?))
    };
    let answer: reqwest::Result<_> = answer.await;
    match answer {
        Ok((status, text)) => {
            let answer = serde_json::from_str(&text).unwrap_or(Value::String(text));
            Json(json!({"sent": event, "status": status, "answer": answer})).into_response()
        }
        Err(error) => {
            let why = format!("the backend does not answer: {error}");
            refuse(StatusCode::BAD_GATEWAY, "unreachable", &why)
        }
    }
}

fn nowhere() -> Response {
    let why = "this simulation knows no backend to send events to";
    refuse(StatusCode::CONFLICT, "no_target", why)
}

fn unknown(kind: &str, types: &[&str]) -> Response {
    let why = format!("no event of type {kind}; there are {}", types.join(", "));
    refuse(StatusCode::BAD_REQUEST, "unknown_type", &why)
}

fn refuse(status: StatusCode, code: &str, message: &str) -> Response {
    (
        status,
        Json(json!({"error": {"code": code, "message": message}})),
    )
        .into_response()
}
