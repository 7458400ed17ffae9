//! Verified against the raw bytes, committed to the inbox, then answered 200. What an event means is
//! found out later, by a job that was committed with it.
use crate::{
    App, Error, Result,
    extract::{self, Json},
    http::ClientAddress,
    limit::Action,
};
use axum::{
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderMap, header},
};
use db::{Timestamp, inbox::Arrival};
use serde::Serialize;

use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use webhooks::{Refused, revenuecat, stripe};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(stripe))
        .routes(routes!(stripe_alias))
        .routes(routes!(revenuecat))
        .layer(DefaultBodyLimit::max(1024 * 1024))
}

#[derive(Serialize, ToSchema)]
struct Received {
    received: bool,
    /// It was here before, and changes nothing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
}

/// Stripe's events. 200 once the event is on disk; Stripe sends it again otherwise.
#[utoipa::path(post, path = "/webhooks/stripe", tag = "webhooks", security(()), request_body = Value,
    params(("Stripe-Signature" = String, Header)), responses((status = 200, body = Received), (status = 400), (status = 503)))]
async fn stripe(
    State(app): State<App>,
    address: ClientAddress,
    request: Request,
) -> Result<Json<Received>> {
    let signature = header_of(request.headers(), stripe::SIGNATURE_HEADER);
    let body = extract::body(request, &app).await?;
    let secrets = &app.config.billing.stripe_webhook_secret;
    let verified = stripe::verify(
        &body,
        signature.as_deref(),
        secrets,
        app.now().unix(),
        stripe::TOLERANCE_S,
    );
    let key = match verified {
        Ok(key) => key,
        Err(refused) => {
            return Err(refuse(&app, "stripe", address, refused, Error::InvalidSignature).await);
        }
    };
    let event = stripe::read(&body).map_err(|e| unreadable("stripe", &e))?;

    let mode = if event.livemode { "live" } else { "test" };
    let arrival = Arrival {
        provider: "stripe",
        mode,
        external_id: &event.id,
        kind: &event.kind,
        api_version: event.api_version.as_deref(),
        subject: &subject(&event),
        occurred_at: Timestamp::from_unix(event.created),
        source: "hook",
        key_id: Some(&webhooks::key_id(secrets[key].expose())),
        body: &body,
    };
    ingest(&app, arrival).await
}

/// Whose events are applied one at a time.
pub fn subject(event: &stripe::Event) -> String {
    let customer = event.customer.as_deref();
    let subject = customer.or(event.object_id.as_deref());
    format!("stripe:{}", subject.unwrap_or(&event.id))
}

/// The same at the path that Flask apps had.
#[utoipa::path(post, path = "/stripe-webhook", tag = "webhooks", security(()), request_body = Value,
    params(("Stripe-Signature" = String, Header)), responses((status = 200, body = Received), (status = 400), (status = 503)))]
async fn stripe_alias(
    app: State<App>,
    address: ClientAddress,
    request: Request,
) -> Result<Json<Received>> {
    stripe(app, address, request).await
}

/// RevenueCat's events. 200 once the event is on disk.
#[utoipa::path(post, path = "/webhooks/revenuecat", tag = "webhooks", security(()), request_body = Value,
    params(("Authorization" = String, Header)), responses((status = 200, body = Received), (status = 400), (status = 401), (status = 503)))]
async fn revenuecat(
    State(app): State<App>,
    address: ClientAddress,
    request: Request,
) -> Result<Json<Received>> {
    let authorization = header_of(request.headers(), header::AUTHORIZATION.as_str());
    let signature = header_of(request.headers(), revenuecat::SIGNATURE_HEADER);
    let body = extract::body(request, &app).await?;
    let billing = &app.config.billing;
    let secrets = revenuecat::Secrets {
        authorization: &billing.revenuecat_webhook_secret,
        signing: &billing.revenuecat_signing_secret,
    };
    let now = app.now();
    let verified = revenuecat::verify(
        &body,
        authorization.as_deref(),
        signature.as_deref(),
        &secrets,
        now.unix(),
        revenuecat::TOLERANCE_S,
    );
    let key = match verified {
        Ok(key) => key,
        Err(refused) => {
            return Err(refuse(
                &app,
                "revenuecat",
                address,
                refused,
                Error::InvalidAuthorization,
            )
            .await);
        }
    };
    let signed_with = match secrets.signing {
        [] => secrets.authorization,
        signing => signing,
    };
    let event = revenuecat::read(&body).map_err(|e| unreadable("revenuecat", &e))?;

    // What is known is known of a purchase, and its user has more than one name.
    let subject = event
        .original_transaction_id
        .as_ref()
        .or(event.transaction_id.as_ref())
        .or(event.app_user_ids.first())
        .unwrap_or(&event.id);
    let arrival = Arrival {
        provider: "revenuecat",
        mode: if event.sandbox { "test" } else { "live" },
        external_id: &event.id,
        kind: event.kind.as_str(),
        api_version: None,
        subject: &format!("revenuecat:{subject}"),
        occurred_at: Timestamp::from_millis(event.at_ms),
        source: "hook",
        key_id: Some(&webhooks::key_id(signed_with[key].expose())),
        body: &body,
    };
    ingest(&app, arrival).await
}

async fn ingest(app: &App, arrival: Arrival<'_>) -> Result<Json<Received>> {
    // The body is kept as bytes; what is looked up by is text, which in PostgreSQL holds no NUL.
    if [arrival.external_id, arrival.kind, arrival.subject]
        .concat()
        .contains('\0')
    {
        return Err(Error::UnreadableEvent(
            "The event's id, type or subject holds the character U+0000.".into(),
        ));
    }
    let (provider, kind) = (arrival.provider.to_owned(), arrival.kind.to_owned());
    let fresh = db::inbox::ingest(&app.db, arrival, app.now()).await?;
    let outcome = if fresh { "received" } else { "duplicate" };
    count(&provider, outcome);
    tracing::info!(provider, kind, outcome, "a webhook event");
    Ok(Json(Received {
        received: true,
        duplicate: !fresh,
    }))
}

/// Headers that are not text are as good as wrong ones.
fn header_of(headers: &HeaderMap, name: &str) -> Option<String> {
    headers
        .get(name)
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// Refusals alone are limited by address: a storm of genuine events never is.
pub async fn refuse(
    app: &App,
    provider: &'static str,
    address: ClientAddress,
    refused: Refused,
    error: impl FnOnce(Refused) -> Error,
) -> Error {
    if refused == Refused::NotConfigured {
        return Error::WebhookNotConfigured;
    }
    metrics::counter!("webhook_refused_total", "provider" => provider, "reason" => refused.code())
        .increment(1);
    tracing::warn!(
        provider,
        reason = refused.code(),
        "a webhook delivery was refused"
    );
    match app
        .limits
        .check(Action::WebhookRefused, &address.bucket().to_string())
        .await
    {
        Ok(()) => error(refused),
        Err(limited) => limited,
    }
}

fn unreadable(provider: &'static str, unreadable: &webhooks::Unreadable) -> Error {
    count(provider, "unreadable");
    Error::UnreadableEvent(unreadable.to_string())
}

fn count(provider: &str, outcome: &'static str) {
    metrics::counter!("webhook_events_total", "provider" => provider.to_owned(), "outcome" => outcome).increment(1);
}
