//! SendGrid's way in: <https://www.twilio.com/docs/sendgrid/api-reference/mail-send/mail-send>.
//! Any key will do; what it refuses in the real world it refuses here.

use std::collections::BTreeMap;
use std::time::SystemTime;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use super::{Mailbox, Message};

/// Headers that SendGrid writes itself.
const RESERVED: [&str; 12] = [
    "x-sg-id",
    "x-sg-eid",
    "received",
    "dkim-signature",
    "content-type",
    "content-transfer-encoding",
    "to",
    "from",
    "subject",
    "reply-to",
    "cc",
    "bcc",
];

pub fn routes(mailbox: Mailbox) -> Router {
    Router::new()
        .route("/v3/mail/send", post(send))
        .route("/v3/scopes", get(scopes))
        .with_state(mailbox)
}

#[derive(Deserialize)]
struct Mail {
    personalizations: Vec<Personalization>,
    from: Address,
    subject: String,
    content: Vec<Content>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Personalization {
    to: Vec<Address>,
}

#[derive(Deserialize)]
struct Address {
    email: String,
    #[serde(default)]
    name: Option<String>,
}

#[derive(Deserialize)]
struct Content {
    r#type: String,
    value: String,
}

async fn send(State(mailbox): State<Mailbox>, headers: HeaderMap, body: Bytes) -> Response {
    if !has_key(&headers) {
        return refused(
            StatusCode::UNAUTHORIZED,
            "Permission denied, wrong credentials",
        );
    }
    if let Some(status) = mailbox.refusal() {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        return refused(status, "As you told me to.");
    }
    let mail: Mail = match serde_json::from_slice(&body) {
        Ok(mail) => mail,
        Err(error) => return refused(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    if let Some(fault) = fault(&mail) {
        return refused(StatusCode::BAD_REQUEST, fault);
    }
    let id = mailbox.keep(message(mail, body.to_vec()));
    (StatusCode::ACCEPTED, [("x-message-id", id.to_string())]).into_response()
}

/// What the key may do.
async fn scopes(headers: HeaderMap) -> Response {
    if !has_key(&headers) {
        return refused(
            StatusCode::UNAUTHORIZED,
            "Permission denied, wrong credentials",
        );
    }
    Json(json!({"scopes": ["mail.send"]})).into_response()
}

fn has_key(headers: &HeaderMap) -> bool {
    let given = headers.get(header::AUTHORIZATION);
    let given = given
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    given
        .strip_prefix("Bearer ")
        .is_some_and(|key| !key.is_empty())
}

fn refused(status: StatusCode, message: &str) -> Response {
    let errors = json!({"errors": [{"message": message, "field": null, "help": null}]});
    (status, Json(errors)).into_response()
}

fn fault(mail: &Mail) -> Option<&'static str> {
    let types: Vec<_> = mail
        .content
        .iter()
        .map(|part| part.r#type.as_str())
        .collect();
    let mut to = mail.personalizations.iter().flat_map(|one| &one.to);
    let is_reserved = |name: &String| RESERVED.contains(&name.to_lowercase().as_str());
    if mail.personalizations.iter().all(|one| one.to.is_empty()) {
        return Some(
            "The to array is required for all personalization objects, and must have at least one email object.",
        );
    }
    if !to.all(|address| address.email.contains('@')) || !mail.from.email.contains('@') {
        return Some("Does not contain a valid address.");
    }
    if types.is_empty() || mail.content.iter().any(|part| part.value.is_empty()) {
        return Some("The content value must be a string at least one character in length.");
    }
    if types.iter().skip(1).any(|kind| *kind == "text/plain") {
        return Some("The text/plain content must come first.");
    }
    mail.headers
        .keys()
        .any(is_reserved)
        .then_some("That header may not be set.")
}

fn message(mail: Mail, raw: Vec<u8>) -> Message {
    let part = |kind: &str| {
        let mut parts = mail.content.iter();
        let found = parts.find(|part| part.r#type == kind);
        found.map(|part| part.value.clone())
    };
    let to = mail.personalizations.iter().flat_map(|one| &one.to);
    let to: Vec<_> = to.map(|address| address.email.clone()).collect();
    let from = match &mail.from.name {
        Some(name) => format!("{name} <{}>", mail.from.email),
        None => mail.from.email.clone(),
    };
    let mut headers = vec![
        ("From".to_owned(), from),
        ("To".to_owned(), to.join(", ")),
        ("Subject".to_owned(), mail.subject.clone()),
    ];
    let (text, html) = (part("text/plain"), part("text/html"));
    headers.extend(mail.headers);
    Message {
        id: 0,
        from: mail.from.email,
        to,
        subject: mail.subject,
        text: text.unwrap_or_default(),
        html,
        headers,
        attachments: Vec::new(),
        received_at: SystemTime::now().into(),
        raw,
    }
}
