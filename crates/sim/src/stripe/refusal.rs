//! Errors as Stripe words them: <https://docs.stripe.com/api/errors>.

use axum::http::StatusCode;
use serde_json::{Value, json};

pub type Result<T, E = Refusal> = std::result::Result<T, E>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub status: StatusCode,
    kind: &'static str,
    pub code: Option<&'static str>,
    pub message: String,
    param: Option<String>,
    decline_code: Option<&'static str>,
}

impl Refusal {
    fn new(
        status: StatusCode,
        kind: &'static str,
        code: Option<&'static str>,
        message: String,
    ) -> Self {
        Self {
            status,
            kind,
            code,
            message,
            param: None,
            decline_code: None,
        }
    }

    fn of(mut self, param: &str) -> Self {
        self.param = Some(param.to_owned());
        self
    }

    pub fn missing(param: &str) -> Self {
        let message = format!("Missing required param: {param}.");
        Self::new(
            StatusCode::BAD_REQUEST,
            INVALID,
            Some("parameter_missing"),
            message,
        )
        .of(param)
    }

    pub fn unknown(param: &str) -> Self {
        let message = format!("Received unknown parameter: {param}");
        Self::new(
            StatusCode::BAD_REQUEST,
            INVALID,
            Some("parameter_unknown"),
            message,
        )
        .of(param)
    }

    pub fn invalid(param: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, INVALID, None, message.into()).of(param)
    }

    pub fn not_now(code: Option<&'static str>, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, INVALID, code, message.into())
    }

    /// 404 for what a path names, 400 for what a parameter does.
    pub fn no_such(kind: &str, id: &str, param: &str) -> Self {
        let status = if param == "id" {
            StatusCode::NOT_FOUND
        } else {
            StatusCode::BAD_REQUEST
        };
        let message = format!("No such {}: '{id}'", kind.replace('.', " "));
        Self::new(status, INVALID, Some("resource_missing"), message).of(param)
    }

    pub fn no_key() -> Self {
        let message = "You did not provide an API key. You need to provide your API key in the Authorization header, using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY').";
        Self::new(StatusCode::UNAUTHORIZED, INVALID, None, message.to_owned())
    }

    pub fn wrong_key(key: &str) -> Self {
        let shown: String = key.chars().take(8).collect();
        let message = format!("Invalid API Key provided: {shown}****");
        Self::new(StatusCode::UNAUTHORIZED, INVALID, None, message)
    }

    pub fn key_used_otherwise(key: &str) -> Self {
        let message = format!(
            "Keys for idempotent requests can only be used with the same parameters they were first used with. Try using a key other than '{key}' if you meant to execute a different request."
        );
        Self::new(StatusCode::BAD_REQUEST, "idempotency_error", None, message)
    }

    pub fn card(code: &'static str, decline_code: Option<&'static str>, message: &str) -> Self {
        let mut refusal = Self::new(
            StatusCode::PAYMENT_REQUIRED,
            "card_error",
            Some(code),
            message.to_owned(),
        );
        refusal.decline_code = decline_code;
        refusal
    }

    pub fn rate_limited() -> Self {
        let message = "Request rate limit exceeded. You can learn more about rate limits here https://docs.stripe.com/rate-limits.";
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            INVALID,
            Some("rate_limit"),
            message.to_owned(),
        )
    }

    pub fn server_error() -> Self {
        let message = "An unknown error occurred (simulated)".to_owned();
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "api_error",
            None,
            message,
        )
    }

    /// Whether the answer to an idempotency key is kept: what is refused before anything was done is
    /// not.
    pub fn is_kept(&self) -> bool {
        self.status == StatusCode::PAYMENT_REQUIRED
    }

    pub fn body(&self, request_id: &str) -> Value {
        let mut error = json!({
            "message": self.message,
            "request_log_url": format!("https://dashboard.stripe.com/test/logs/{request_id}"),
            "type": self.kind,
        });
        if let Some(code) = self.code {
            error["code"] = code.into();
            error["doc_url"] = format!(
                "https://docs.stripe.com/error-codes/{}",
                code.replace('_', "-")
            )
            .into();
        }
        if let Some(param) = &self.param {
            error["param"] = param.as_str().into();
        }
        if let Some(decline_code) = self.decline_code {
            error["decline_code"] = decline_code.into();
        }
        json!({ "error": error })
    }
}

const INVALID: &str = "invalid_request_error";
