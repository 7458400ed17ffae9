//! How an error reads in the dialect of its route.
use super::{Error, kinds::Kind};
use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use std::time::Duration;

/// Whose error words a path speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// RFC 9457.
    Problem,
    /// RFC 9457 with the statuses and codes of GoTrue: <https://supabase.com/docs/guides/auth/debugging/error-codes>.
    GoTrue,
    /// `{"error": {…}}`: <https://platform.openai.com/docs/guides/error-codes>.
    OpenAi,
}

impl Dialect {
    pub fn of(path: &str) -> Self {
        match path {
            p if p.starts_with("/auth/") => Self::GoTrue,
            p if p.starts_with("/v1/") => Self::OpenAi,
            _ => Self::Problem,
        }
    }
}

impl Error {
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after }
            | Self::MailRateLimited { retry_after }
            | Self::FactorLocked { retry_after }
            | Self::RecoveryCodesLocked { retry_after }
            | Self::BillingUnavailable { retry_after }
            | Self::LlmUnavailable { retry_after }
            | Self::LlmSwitchedOff { retry_after } => Some(*retry_after),
            Self::DatabaseUnavailable
            | Self::Busy
            | Self::ProviderUnavailable
            | Self::IdempotencyInFlight => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    /// Whether the same request may fare better in a moment. OpenAI's SDKs do as they are told, also
    /// where by themselves they would not try again (400, 401) or would (409, every 429).
    fn worth_retrying(&self) -> bool {
        match self {
            Self::RateLimited { .. } | Self::MailRateLimited { .. } | Self::RequestTimeout => true,
            Self::WebhookNotConfigured
            | Self::BillingNotConfigured
            | Self::LlmSwitchedOff { .. } => false,
            _ => self.status(Dialect::OpenAi).is_server_error(),
        }
    }

    /// The answer, in the dialect of the path it was asked on.
    pub fn render(&self, dialect: Dialect, request_id: &str) -> Response {
        let Kind(status, code, title) = self.kind(dialect);
        let detail = self.to_string();
        let (content_type, body) = match dialect {
            Dialect::OpenAi => ("application/json", openai(self, code, &detail)),
            Dialect::Problem | Dialect::GoTrue => (
                "application/problem+json",
                problem(self, status, code, title, &detail, request_id),
            ),
        };
        let mut response = (
            status,
            [(header::CONTENT_TYPE, content_type)],
            body.to_string(),
        )
            .into_response();
        let headers = response.headers_mut();
        if let Some(wait) = self.retry_after() {
            headers.insert(
                header::RETRY_AFTER,
                HeaderValue::from(wait.as_secs() + u64::from(wait.subsec_nanos() > 0)),
            );
        }
        if status == StatusCode::UNAUTHORIZED && !matches!(self, Self::InvalidAuthorization(_)) {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Self::ReauthenticationNeeded { max_age } | Self::InsufficientAal { max_age } = self {
            let acr = match self {
                Self::InsufficientAal { .. } => ", acr_values=\"aal2\"",
                _ => "",
            };
            let challenge = format!(
                "Bearer error=\"insufficient_user_authentication\"{acr}, max_age=\"{}\"",
                max_age.as_secs()
            );
            if let Ok(challenge) = HeaderValue::from_str(&challenge) {
                headers.insert(header::WWW_AUTHENTICATE, challenge);
            }
        }
        if dialect == Dialect::OpenAi {
            headers.insert(
                "x-should-retry",
                HeaderValue::from_static(if self.worth_retrying() {
                    "true"
                } else {
                    "false"
                }),
            );
        }
        if dialect == Dialect::GoTrue {
            headers.insert(
                "x-supabase-api-version",
                HeaderValue::from_static("2024-01-01"),
            );
        }
        if status == StatusCode::PAYLOAD_TOO_LARGE || status == StatusCode::REQUEST_TIMEOUT {
            // What is left of the body is not worth reading.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// RFC 9457, with the members that clients of other shapes read: `error` and `message` at the top, GoTrue's `weak_password`.
fn problem(
    error: &Error,
    status: StatusCode,
    code: &str,
    title: &str,
    detail: &str,
    request_id: &str,
) -> Value {
    let mut body = json!({
        "type": format!("urn:plinth:error:{code}"),
        "title": title,
        "status": status.as_u16(),
        "detail": detail,
        "code": code,
        "message": detail,
        "error": title,
        "request_id": request_id,
    });
    match error {
        Error::Invalid(invalid) => body["errors"] = json!(invalid),
        Error::WeakPassword(reasons) => body["weak_password"] = json!({"reasons": reasons}),
        Error::AccountLinkRequired { provider, email } => {
            body["provider"] = json!(provider);
            body["email"] = json!(email);
        }
        Error::AlreadySubscribed { store, manage_url }
        | Error::ManagedElsewhere { store, manage_url } => {
            body["store"] = json!(store);
            body["manage_url"] = json!(manage_url);
        }
        Error::QuotaExceeded {
            what,
            model,
            resets_at,
        } => {
            body["quota"] = json!(what);
            body["model"] = json!(model);
            body["resets_at"] = json!(resets_at);
        }
        _ => {}
    }
    body
}

fn openai(error: &Error, code: &str, detail: &str) -> Value {
    let kind = match error {
        Error::NoToken | Error::InvalidToken | Error::SessionEnded => "authentication_error",
        Error::Forbidden
        | Error::NotAdmin
        | Error::UserBanned
        | Error::CrossSiteRequest
        | Error::PasswordExpired
        | Error::ModelNotInPlan { .. } => "permission_error",
        Error::RateLimited { .. } => "requests",
        Error::QuotaExceeded { .. } => "insufficient_quota",
        error if error.status(Dialect::OpenAi).is_server_error() => "server_error",
        _ => "invalid_request_error",
    };
    let param = match error {
        Error::Invalid(invalid) => invalid.first().map(|i| i.field.clone()),
        Error::ModelNotFound { .. } | Error::ModelNotInPlan { .. } => Some("model".into()),
        _ => None,
    };
    json!({"error": {"message": detail, "type": kind, "param": param, "code": code}})
}

/// Carried out of a handler by an otherwise empty response; the layer that knows the path and the
/// request id makes the body of it.
#[derive(Clone)]
pub struct Refusal(pub std::sync::Arc<Error>);

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = self.status(Dialect::Problem).into_response();
        response
            .extensions_mut()
            .insert(Refusal(std::sync::Arc::new(self)));
        response
    }
}
