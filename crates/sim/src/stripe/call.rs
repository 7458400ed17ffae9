//! One question to the API: who asks, in which version, with which parameters, and whether it was
//! asked before.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::{Body, Bytes};
use axum::extract::{RawPathParams, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::Response;
use axum::routing::MethodFilter;
use axum::routing::{MethodRouter, on};
use base64::Engine as _;
use serde_json::Value;

use super::account::Account;
use super::books::Books;
use super::event::Cause;
use super::expand;
use super::params::Params;
use super::refusal::{Refusal, Result};
use super::version::Version;
use crate::payments::faults::ApiFault;

/// What was asked.
pub struct Call {
    pub version: Version,
    /// Of the address and of the form.
    pub params: Params,
    pub path: String,
    ids: Vec<String>,
}

impl Call {
    /// The first that the path names.
    pub fn id(&self) -> &str {
        self.ids.first().map_or("", String::as_str)
    }
}

/// Answers a question by looking into the books, or by changing them.
pub type Answer = fn(&mut Books, &Call) -> Result<Value>;

pub fn get(answer: Answer) -> MethodRouter<Account> {
    route(MethodFilter::GET, answer)
}

pub fn post(answer: Answer) -> MethodRouter<Account> {
    route(MethodFilter::POST, answer)
}

pub fn delete(answer: Answer) -> MethodRouter<Account> {
    route(MethodFilter::DELETE, answer)
}

fn route(method: MethodFilter, answer: Answer) -> MethodRouter<Account> {
    on(
        method,
        async move |State(account): State<Account>, ids: RawPathParams, request: Request| {
            let ids = ids.iter().map(|(_, id)| id.to_owned()).collect();
            respond(&account, answer, ids, request).await
        },
    )
}

/// Answers to idempotency keys.
#[derive(Clone, Default)]
pub struct Answers(Arc<Mutex<HashMap<String, Kept>>>);

#[derive(Clone)]
struct Kept {
    /// Of the request: method, path and form.
    print: String,
    status: StatusCode,
    body: String,
    request_id: String,
}

impl Answers {
    fn of(&self, key: &str) -> Option<Kept> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .cloned()
    }

    fn keep(&self, key: &str, kept: Kept) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key.to_owned(), kept);
    }
}

/// More is no form.
const MAX_FORM_BYTES: usize = 1 << 20;
/// Longer than anyone waits.
const NEVER: std::time::Duration = std::time::Duration::from_secs(600);

async fn respond(
    account: &Account,
    answer: Answer,
    ids: Vec<String>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let text = |name: &str| {
        parts
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    let form = axum::body::to_bytes(body, MAX_FORM_BYTES)
        .await
        .unwrap_or_default();
    let asked = Asked {
        method: parts.method.clone(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        form,
        version: text("stripe-version"),
        key: text("idempotency-key").filter(|_| parts.method == Method::POST),
        request_id: crate::dice::fresh("req", 14),
    };
    let fault = authenticate(&parts.headers).map(|()| account.strike());
    match fault {
        Err(refusal) => asked.refuse(&refusal),
        Ok(Some(ApiFault::ServerError)) => asked.refuse(&Refusal::server_error()),
        Ok(Some(ApiFault::RateLimited)) => asked.refuse(&Refusal::rate_limited()),
        Ok(Some(ApiFault::Timeout)) => {
            tokio::time::sleep(NEVER).await;
            asked.refuse(&Refusal::server_error())
        }
        Ok(None) => asked.answer(account, answer, ids),
    }
}

/// Any test key will do, as a bearer's token or as the name of Basic.
fn authenticate(headers: &HeaderMap) -> Result<()> {
    let said = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let key = said
        .and_then(|said| said.split_once(' '))
        .and_then(|(scheme, said)| {
            if scheme.eq_ignore_ascii_case("bearer") {
                return Some(said.trim().to_owned());
            }
            let pair = base64::engine::general_purpose::STANDARD
                .decode(said.trim())
                .ok()?;
            let pair = String::from_utf8(pair).ok()?;
            Some(pair.split(':').next().unwrap_or_default().to_owned())
        });
    match key.filter(|key| !key.is_empty()) {
        None => Err(Refusal::no_key()),
        Some(key) if key.starts_with("sk_test_") || key.starts_with("rk_test_") => Ok(()),
        Some(key) => Err(Refusal::wrong_key(&key)),
    }
}

struct Asked {
    method: Method,
    path: String,
    query: String,
    form: Bytes,
    version: Option<String>,
    key: Option<String>,
    request_id: String,
}

impl Asked {
    fn answer(&self, account: &Account, answer: Answer, ids: Vec<String>) -> Response {
        let print = format!(
            "{} {}\n{}",
            self.method,
            self.path,
            String::from_utf8_lossy(&self.form)
        );
        if let Some(key) = &self.key
            && let Some(kept) = account.answers().of(key)
        {
            if kept.print != print {
                return self.refuse(&Refusal::key_used_otherwise(key));
            }
            let mut response = self.response(kept.status, kept.body);
            let header = |value: &str| {
                value
                    .parse()
                    .unwrap_or_else(|_| header::HeaderValue::from_static(""))
            };
            response
                .headers_mut()
                .insert("idempotent-replayed", header("true"));
            response
                .headers_mut()
                .insert("original-request", header(&kept.request_id));
            return response;
        }

        let answered = self.version().and_then(|version| {
            let params = Params::parse(self.query.as_bytes()).and(Params::parse(&self.form));
            let call = Call {
                version,
                params,
                path: self.path.clone(),
                ids,
            };
            let cause = Cause {
                request: self.request_id.clone(),
                idempotency_key: self.key.clone(),
            };
            account.with(|books| {
                books.cause = Some(cause);
                let answered = answer(books, &call).and_then(|mut shown| {
                    expand::all(
                        books,
                        &mut shown,
                        &call.params.texts("expand"),
                        &call.version,
                    )?;
                    Ok(shown)
                });
                books.cause = None;
                answered
            })
        });
        let (status, body, keep) = match answered {
            Ok(shown) => (StatusCode::OK, shown.to_string(), true),
            Err(refusal) => (
                refusal.status,
                refusal.body(&self.request_id).to_string(),
                refusal.is_kept(),
            ),
        };
        if let Some(key) = self.key.as_ref().filter(|_| keep) {
            let kept = Kept {
                print,
                status,
                body: body.clone(),
                request_id: self.request_id.clone(),
            };
            account.answers().keep(key, kept);
        }
        self.response(status, body)
    }

    fn version(&self) -> Result<Version> {
        match &self.version {
            None => Ok(Version::newest()),
            Some(name) if Version::is_known(name) => Ok(Version::new(name)),
            Some(name) => Err(Refusal::not_now(
                None,
                format!("Invalid Stripe API version: {name}."),
            )),
        }
    }

    fn refuse(&self, refusal: &Refusal) -> Response {
        self.response(refusal.status, refusal.body(&self.request_id).to_string())
    }

    fn response(&self, status: StatusCode, body: String) -> Response {
        let version = self
            .version
            .clone()
            .unwrap_or_else(|| super::API_VERSION.to_owned());
        let mut response = Response::builder()
            .status(status)
            .header(header::CONTENT_TYPE, "application/json")
            .header("request-id", &self.request_id)
            .header("stripe-version", version);
        if let Some(key) = &self.key {
            response = response.header("idempotency-key", key);
        }
        response.body(Body::from(body)).unwrap_or_default()
    }
}
