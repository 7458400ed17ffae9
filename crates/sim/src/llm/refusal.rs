//! OpenAI's errors: <https://platform.openai.com/docs/guides/error-codes>.

use axum::Json;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use serde_json::{Value, json};

use super::messages::Dialect;
use super::wire;
use crate::faults::Refusal;

/// All four keys are always there.
#[derive(Debug)]
pub struct Error {
    pub status: u16,
    pub message: String,
    pub kind: &'static str,
    pub param: Option<&'static str>,
    pub code: Option<&'static str>,
}

impl Error {
    pub fn invalid(param: &'static str, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: 400,
            message: message.into(),
            kind: "invalid_request_error",
            param: Some(param),
            code: Some(code),
        }
    }

    pub fn unknown_model(model: &str) -> Self {
        Self {
            status: 404,
            message: format!("The model `{model}` does not exist or you do not have access to it."),
            kind: "invalid_request_error",
            param: None,
            code: Some("model_not_found"),
        }
    }

    fn new(status: u16, kind: &'static str, code: Option<&'static str>, message: &str) -> Self {
        Self {
            status,
            message: message.to_owned(),
            kind,
            param: None,
            code,
        }
    }

    pub fn body(&self) -> Value {
        json!({"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}})
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, wire::headers(), Json(self.body())).into_response()
    }
}

impl Refusal {
    pub fn error(self) -> Error {
        match self {
            Self::RateLimited(_) => Error::new(
                429,
                "requests",
                Some("rate_limit_exceeded"),
                "Rate limit reached for requests per min (RPM): Limit 3, Used 3, Requested 1. Please try again in 1s.",
            ),
            Self::Quota => Error::new(
                429,
                "insufficient_quota",
                Some("insufficient_quota"),
                "You exceeded your current quota, please check your plan and billing details.",
            ),
            Self::BadKey => Error::new(
                401,
                "invalid_request_error",
                Some("invalid_api_key"),
                "Incorrect API key provided: sk-sim***. You can find your API key at the simulation's home page.",
            ),
            Self::Unpaid => Error::new(
                402,
                "billing_error",
                Some("billing_not_active"),
                "Your account is not active, please check your billing details.",
            ),
            Self::Forbidden => Error::new(
                403,
                "permission_error",
                Some("unsupported_country_region_territory"),
                "Country, region, or territory not supported.",
            ),
            Self::NoModel => Error::unknown_model("sim-404"),
            Self::TooLarge => Error::new(
                413,
                "request_too_large",
                None,
                "Request exceeds the maximum size.",
            ),
            Self::GatewayTimeout => Error::new(504, "timeout_error", None, "Gateway timeout"),
            Self::BadRequest => Error::invalid(
                "messages",
                "invalid_value",
                "Invalid value: this model accepts nothing.",
            ),
            Self::ServerError => Error::new(
                500,
                "server_error",
                None,
                "The server had an error while processing your request. Sorry about that!",
            ),
            Self::Unavailable => Error::new(
                503,
                "server_error",
                Some("server_is_overloaded"),
                "The engine is currently overloaded, please try again later.",
            ),
            Self::Overloaded => Error::new(529, "overloaded_error", None, "Overloaded"),
            Self::BadGateway => Error::new(502, "server_error", None, "Bad gateway"),
        }
    }

    pub fn response(self, dialect: Dialect) -> Response {
        if self == Self::BadGateway {
            let page = "<html>\n<head><title>502 Bad Gateway</title></head>\n<body>\n<center><h1>502 Bad Gateway</h1></center>\n<hr><center>nginx</center>\n</body>\n</html>\n";
            return (StatusCode::BAD_GATEWAY, Html(page)).into_response();
        }
        let mut response = dialect.refusal(&self.error());
        if let Self::RateLimited(seconds) = self {
            let retry_after = HeaderValue::from(seconds);
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, retry_after);
            let limits = [
                (HeaderName::from_static("x-ratelimit-limit-requests"), "3"),
                (
                    HeaderName::from_static("x-ratelimit-remaining-requests"),
                    "0",
                ),
                (HeaderName::from_static("x-ratelimit-reset-requests"), "1s"),
            ];
            let limits = limits.map(|(name, value)| (name, HeaderValue::from_static(value)));
            response.headers_mut().extend(limits);
        }
        response
    }
}

/// Any key will do, but there has to be one.
pub fn key(headers: &HeaderMap) -> Result<String, Error> {
    let header = |name: &str| headers.get(name)?.to_str().ok();
    let bearer = header("authorization").and_then(|key| key.strip_prefix("Bearer "));
    match bearer.or_else(|| header("x-api-key")).map(str::trim) {
        Some(key) if !key.is_empty() => Ok(key.to_owned()),
        _ => Err(Error::new(
            401,
            "invalid_request_error",
            None,
            "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY).",
        )),
    }
}

pub async fn unknown_url(request: Request) -> Error {
    let url = format!(
        "Invalid URL ({} /v1{})",
        request.method(),
        request.uri().path()
    );
    Error::new(404, "invalid_request_error", None, &url)
}
