//! What SendGrid tells became of mails: an address that bounces, and one whose owner calls us spam, are not
//! written to any more. Whoever writes on there is soon taken for a spammer everywhere.
use crate::{
    App, Error, Result,
    billing::webhook::refuse,
    extract::{self, Json},
    http::ClientAddress,
};
use axum::{
    extract::{DefaultBodyLimit, Request, State},
    http::HeaderMap,
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use webhooks::sendgrid;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(told))
        .layer(DefaultBodyLimit::max(1024 * 1024))
}

#[derive(Serialize, ToSchema)]
#[schema(as = MailEventsReceived)]
struct Received {
    received: bool,
}

/// SendGrid's signed events. 200 once addresses that are not to be written to are on disk.
#[utoipa::path(post, path = "/webhooks/sendgrid", tag = "webhooks", security(()), request_body = Value,
    params(("X-Twilio-Email-Event-Webhook-Signature" = String, Header), ("X-Twilio-Email-Event-Webhook-Timestamp" = String, Header)),
    responses((status = 200, body = Received), (status = 400), (status = 503)))]
async fn told(
    State(app): State<App>,
    address: ClientAddress,
    request: Request,
) -> Result<Json<Received>> {
    let signature = header_of(request.headers(), sendgrid::SIGNATURE_HEADER);
    let timestamp = header_of(request.headers(), sendgrid::TIMESTAMP_HEADER);
    let body = extract::body(request, &app).await?;
    let now = app.now();
    let verified = sendgrid::verify(
        &body,
        signature.as_deref(),
        timestamp.as_deref(),
        &app.config.mail.sendgrid_webhook_key,
        now.unix(),
        sendgrid::TOLERANCE_S,
    );
    if let Err(refused) = verified {
        return Err(refuse(&app, "sendgrid", address, refused, Error::InvalidSignature).await);
    }
    let events = sendgrid::read(&body).map_err(|e| Error::UnreadableEvent(e.to_string()))?;

    let mut tx = app.db.begin().await?;
    for event in events {
        metrics::counter!("email_events_total", "event" => word(&event.kind)).increment(1);
        if event.ends_it() && !event.email.contains('\0') {
            db::muted_addresses::mute(&mut tx, &event.email.to_lowercase(), now).await?;
        }
    }
    tx.commit().await?;

    Ok(Json(Received { received: true }))
}

/// Words that nobody knows are one in metrics: their number has no bound.
fn word(kind: &sendgrid::Kind) -> String {
    match kind {
        sendgrid::Kind::Unknown(_) => "other".into(),
        known => known.as_str().to_owned(),
    }
}

fn header_of(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}
