//! Stripe's API, as far as selling needs it: forms in, JSON out, in the one version that is pinned
//! here. What is read stays JSON: a version that moves a member must not keep us from reading the
//! rest. <https://docs.stripe.com/api>
use super::Config;
use crate::{Error, config::Secret, http};
use axum::http::{HeaderMap, Method, StatusCode, header};
use serde_json::Value;
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;
use url::{Url, form_urlencoded};

/// The version of every request and of the endpoint that `plinth billing setup-stripe` makes.
pub const VERSION: &str = "2026-10-28.endive";

/// What Stripe is to tell, and is asked for when it did not: everything that bears on what a customer may
/// use, or has to hear of.
pub const EVENTS: [&str; 26] = [
    "checkout.session.completed",
    "checkout.session.async_payment_succeeded",
    "checkout.session.async_payment_failed",
    "checkout.session.expired",
    "customer.subscription.created",
    "customer.subscription.updated",
    "customer.subscription.deleted",
    "customer.subscription.paused",
    "customer.subscription.resumed",
    "customer.subscription.trial_will_end",
    "customer.subscription.pending_update_applied",
    "customer.subscription.pending_update_expired",
    "customer.updated",
    "customer.deleted",
    "invoice.paid",
    "invoice.payment_failed",
    "invoice.payment_action_required",
    "invoice.finalization_failed",
    "invoice_payment.paid",
    "charge.refunded",
    "charge.dispute.created",
    "charge.dispute.closed",
    "refund.created",
    "refund.updated",
    "refund.failed",
    "charge.refund.updated",
];

const ATTEMPTS: u32 = 3;
/// For one attempt.
const TIMEOUT: Duration = Duration::from_secs(15);
/// For all of them: someone waits for the answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Before an attempt that follows a failed one: half of it to all of it, and twice as much each time.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// When Stripe wants a longer pause, whoever waits is told to come back.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Said where Stripe says nothing of it.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// When nothing answered, nobody asks for so long, and then one for all: a thousand events that wait to be
/// read anew must not keep mails and other providers' events waiting behind them.
const LEFT_ALONE: Duration = Duration::from_secs(10);

/// An account of Stripe's.
pub struct Stripe {
    http: http::Client,
    base: String,
    key: Secret,
    /// Until when nobody asks.
    left_alone: Mutex<Option<Instant>>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Stripe says that there is no such object. A 404 that is not Stripe's own does not say so.
    #[error("Stripe has no such object")]
    NotFound,
    /// It will not do this, however often it is asked.
    #[error("Stripe refuses with {status} {code}{}", of_param(.param.as_deref()))]
    Refused {
        status: u16,
        /// Stripe's `code`, or its `type` where it has none.
        code: String,
        param: Option<String>,
        /// Stripe's words, which may name a person: for that person, never for a log.
        message: String,
    },
    /// The fault is Stripe's, the network's or our key's. It says nothing about any object.
    #[error("Stripe cannot be asked: {why}")]
    Unavailable { why: String, retry_after: Duration },
}

fn of_param(param: Option<&str>) -> String {
    param.map_or_else(String::new, |param| format!(" of {param}"))
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotFound => Self::NotFound,
            // Its words are meant for whoever holds the card.
            Failure::Refused {
                status: 402,
                message,
                ..
            } => Self::PaymentFailed(message),
            Failure::Refused { .. } => Self::BillingRefused,
            Failure::Unavailable { retry_after, .. } => Self::BillingUnavailable { retry_after },
        }
    }
}

/// What an answer holds.
pub struct Written {
    pub object: Value,
    /// It was said before, in answer to the same key: the object may have changed since.
    pub replayed: bool,
}

/// Part of a list.
pub struct Page {
    pub data: Vec<Value>,
    /// What the next page begins after.
    pub next: Option<String>,
}

/// One request, which may take several attempts.
struct Call<'a> {
    method: Method,
    path: &'a str,
    /// In the URL, or the body of a POST.
    form: String,
    idempotency_key: Option<&'a str>,
}

/// How an attempt failed, and how long to wait before the next, where that is of use.
struct Failed {
    failure: Failure,
    pause: Option<Duration>,
    /// Nothing came back at all.
    unanswered: bool,
}

impl Stripe {
    /// `None` without a key.
    pub fn new(config: &Config, http: http::Client) -> Option<Self> {
        Some(Self {
            http,
            base: config
                .stripe_api_base
                .as_str()
                .trim_end_matches('/')
                .to_owned(),
            key: config.stripe_secret_key.clone()?,
            left_alone: Mutex::default(),
        })
    }

    /// Reads. The path begins with `/v1/` or `/v2/`.
    pub async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, Failure> {
        let call = Call {
            method: Method::GET,
            path,
            form: form(query),
            idempotency_key: None,
        };
        Ok(self.ask(call).await?.object)
    }

    /// Reads a list to its end.
    pub async fn list(&self, path: &str, query: &[(&str, &str)]) -> Result<Vec<Value>, Failure> {
        let mut all = vec![];
        let mut after = None;
        loop {
            let page = self.page(path, query, after.as_deref()).await?;
            all.extend(page.data);
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(all),
            }
        }
    }

    /// Reads one page of a list, as large as pages are unless the query says otherwise.
    pub async fn page(
        &self,
        path: &str,
        query: &[(&str, &str)],
        after: Option<&str>,
    ) -> Result<Page, Failure> {
        let mut query = query.to_vec();
        if !query.iter().any(|(name, _)| *name == "limit") {
            query.push(("limit", "100"));
        }
        query.extend(after.map(|after| ("starting_after", after)));
        let mut list = self.get(path, &query).await?;
        let more = list["has_more"] == true;
        let Value::Array(data) = list["data"].take() else {
            return Err(Failure::Unavailable {
                why: format!("{path} gives no list"),
                retry_after: RETRY_AFTER,
            });
        };
        let last = data.last().and_then(|last| last["id"].as_str());
        let next = last.filter(|_| more).map(ToOwned::to_owned);
        Ok(Page { data, next })
    }

    /// Writes. The same key with the same form is done once, however often it is sent; nested members
    /// are named as `items[0][price]`.
    pub async fn post<N: AsRef<str>, V: AsRef<str>>(
        &self,
        path: &str,
        fields: &[(N, V)],
        idempotency_key: &str,
    ) -> Result<Value, Failure> {
        Ok(self.write(path, fields, idempotency_key).await?.object)
    }

    /// The same, and whether it was done before.
    pub async fn write<N: AsRef<str>, V: AsRef<str>>(
        &self,
        path: &str,
        fields: &[(N, V)],
        idempotency_key: &str,
    ) -> Result<Written, Failure> {
        self.ask(Call {
            method: Method::POST,
            path,
            form: form(fields),
            idempotency_key: Some(idempotency_key),
        })
        .await
    }

    /// Ends an object; doing so twice is of no harm.
    pub async fn delete(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, Failure> {
        let call = Call {
            method: Method::DELETE,
            path,
            form: form(query),
            idempotency_key: None,
        };
        Ok(self.ask(call).await?.object)
    }

    async fn ask(&self, call: Call<'_>) -> Result<Written, Failure> {
        self.admit()?;
        let asked = self.insist(call).await;
        let unanswered = asked.as_ref().is_err_and(|failed| failed.unanswered);
        *self.left_alone() = unanswered.then(|| Instant::now() + LEFT_ALONE);
        asked.map_err(|failed| failed.failure)
    }

    /// Whether it may be asked now. Who is the first after a silence finds out for all.
    fn admit(&self) -> Result<(), Failure> {
        let mut left_alone = self.left_alone();
        match *left_alone {
            Some(until) if Instant::now() < until => Err(Failure::Unavailable {
                why: "it did not answer a moment ago".into(),
                retry_after: RETRY_AFTER,
            }),
            Some(_) => {
                *left_alone = Some(Instant::now() + PATIENCE);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn left_alone(&self) -> MutexGuard<'_, Option<Instant>> {
        self.left_alone
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn insist(&self, call: Call<'_>) -> Result<Written, Failed> {
        let begun = Instant::now();
        let mut attempt = 1;
        loop {
            let left = PATIENCE.saturating_sub(begun.elapsed());
            let failed = match self.attempt(&call, left.min(TIMEOUT)).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            let asked_for = failed.pause.map(|pause| pause.max(usual_pause(attempt)));
            let pause = asked_for.filter(|pause| {
                attempt < ATTEMPTS && *pause <= LONGEST_PAUSE && begun.elapsed() + *pause < PATIENCE
            });
            let Some(pause) = pause else {
                return Err(failed);
            };
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    async fn attempt(&self, call: &Call<'_>, timeout: Duration) -> Result<Written, Failed> {
        let begun = Instant::now();
        let answered = self.send(call, timeout).await;
        let outcome = match &answered {
            Ok(_) => "answered",
            Err(failed) => match failed.failure {
                Failure::NotFound => "not_found",
                Failure::Refused { .. } => "refused",
                Failure::Unavailable { .. } => "unavailable",
            },
        };
        metrics::counter!("stripe_requests_total", "outcome" => outcome).increment(1);
        metrics::histogram!("stripe_request_seconds").record(begun.elapsed().as_secs_f64());
        answered
    }

    async fn send(&self, call: &Call<'_>, timeout: Duration) -> Result<Written, Failed> {
        let Call {
            method, path, form, ..
        } = call;
        let client = self
            .http
            .get()
            .map_err(|e| Failed::unavailable(e.to_string()))?;
        let in_url = *method != Method::POST && !form.is_empty();
        let query = if in_url {
            format!("?{form}")
        } else {
            String::new()
        };
        let mut request = client
            .request(method.clone(), format!("{}{path}{query}", self.base))
            .timeout(timeout)
            .bearer_auth(self.key.expose())
            .header("stripe-version", VERSION);
        if *method == Method::POST {
            request = request
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(form.clone());
        }
        if let Some(key) = call.idempotency_key {
            request = request.header("idempotency-key", key);
        }
        let broken = |error: reqwest::Error| {
            let error = error.without_url();
            tracing::warn!(%method, path, %error, "Stripe does not answer");
            Failed::unavailable(error.to_string())
        };
        let response = request.send().await.map_err(broken)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes().await.map_err(broken)?;
        let body: Option<Value> = serde_json::from_slice(&body).ok();
        if status.is_success() {
            let replayed = text(&headers, "idempotent-replayed") == Some("true");
            let object = body.ok_or_else(|| Failed {
                unanswered: false,
                ..Failed::unavailable("its answer is no JSON".into())
            })?;
            return Ok(Written { object, replayed });
        }
        let error = body.map(|mut body| body["error"].take());
        let failed = Failed::told(status, &headers, &error.unwrap_or_default());
        // Not Stripe's words: they may name a person.
        tracing::warn!(%method, path, %status, failure = %failed.failure, stripe_request = text(&headers, "request-id"), "Stripe refused a request");
        Err(failed)
    }
}

impl Failed {
    /// Something on the way broke. With its key, the same request may be sent again.
    fn unavailable(why: String) -> Self {
        Self {
            failure: Failure::Unavailable {
                why,
                retry_after: RETRY_AFTER,
            },
            pause: Some(Duration::ZERO),
            unanswered: true,
        }
    }

    /// <https://docs.stripe.com/api/errors>, <https://docs.stripe.com/error-low-level>
    fn told(status: StatusCode, headers: &HeaderMap, error: &Value) -> Self {
        let word = |name: &str| error[name].as_str().map(ToOwned::to_owned);
        let asked_for = text(headers, "retry-after").and_then(|seconds| seconds.parse().ok());
        let asked_for = asked_for.map(Duration::from_secs);
        let passing = match text(headers, "stripe-should-retry") {
            Some("true") => true,
            Some("false") => false,
            _ => {
                let busy = [StatusCode::CONFLICT, StatusCode::TOO_MANY_REQUESTS];
                status.is_server_error() || busy.contains(&status)
            }
        };
        let is_ours = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status);
        let failure = match word("code") {
            Some(code) if status == StatusCode::NOT_FOUND && code == "resource_missing" => {
                Failure::NotFound
            }
            code if status.is_client_error() && !passing && !is_ours => Failure::Refused {
                status: status.as_u16(),
                code: code
                    .or_else(|| word("type"))
                    .unwrap_or_else(|| "unknown".into()),
                param: word("param"),
                message: word("message").unwrap_or_default(),
            },
            _ => Failure::Unavailable {
                why: match is_ours {
                    true => format!("it does not accept STRIPE_SECRET_KEY for this ({status})"),
                    false => format!("it answers {status}"),
                },
                retry_after: asked_for.unwrap_or(RETRY_AFTER),
            },
        };
        Self {
            failure,
            pause: passing.then(|| asked_for.unwrap_or_default()),
            unanswered: false,
        }
    }
}

/// Of the failed attempts so far, jittered so that what failed together is not tried again together.
fn usual_pause(attempts: u32) -> Duration {
    let whole = FIRST_PAUSE * 2u32.pow(attempts - 1);
    whole.mul_f64(0.5 + 0.5 * rand::random::<f64>())
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn form<N: AsRef<str>, V: AsRef<str>>(fields: &[(N, V)]) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(fields)
        .finish()
}

/// Whether requests with the key may go there.
pub fn may_be_asked(base: &Url) -> bool {
    base.scheme() == "https" || http::is_loopback(base)
}
