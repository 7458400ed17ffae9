//! RevenueCat's API, for the one question that there is: what does this customer hold.
//! <https://www.revenuecat.com/docs/api-v1#tag/customers/operation/subscribers>
use super::Config;
use crate::{Error, config::Secret, http};
use axum::http::{StatusCode, header};
use serde_json::Value;
use std::time::Duration;
use url::Url;

const TIMEOUT: Duration = Duration::from_secs(10);
/// When RevenueCat wants a longer pause, whoever waits is told to come back.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Before another attempt, where RevenueCat says nothing of it.
const PAUSE: Duration = Duration::from_secs(1);

/// A project of RevenueCat's.
pub struct RevenueCat {
    http: http::Client,
    base: Url,
    key: Secret,
}

/// Why there is no answer. None of them says anything about what a customer holds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("RevenueCat refuses with {status}")]
    Refused { status: u16 },
    #[error("RevenueCat cannot be asked: {why}")]
    Unavailable { why: String, retry_after: Duration },
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused { .. } => Self::BillingRefused,
            Failure::Unavailable { retry_after, .. } => Self::BillingUnavailable { retry_after },
        }
    }
}

impl RevenueCat {
    /// `None` without a key.
    pub fn new(config: &Config, http: http::Client) -> Option<Self> {
        Some(Self {
            http,
            base: config.revenuecat_api_base.clone(),
            key: config.revenuecat_api_key.clone()?,
        })
    }

    /// What a customer holds. Asked for somebody it does not know, RevenueCat makes a customer of them: ask
    /// for our own users alone, whom it named first.
    pub async fn subscriber(&self, app_user_id: &str) -> Result<Value, Failure> {
        match self.ask(app_user_id).await {
            Err(Failure::Unavailable { retry_after, .. }) if retry_after <= LONGEST_PAUSE => {
                tokio::time::sleep(retry_after).await;
                self.ask(app_user_id).await
            }
            answered => answered,
        }
    }

    async fn ask(&self, app_user_id: &str) -> Result<Value, Failure> {
        let answered = self.send(app_user_id).await;
        let outcome = match &answered {
            Ok(_) => "answered",
            Err(Failure::Refused { .. }) => "refused",
            Err(Failure::Unavailable { .. }) => "unavailable",
        };
        metrics::counter!("revenuecat_requests_total", "outcome" => outcome).increment(1);
        if let Err(failure) = &answered {
            tracing::warn!(%failure, "RevenueCat did not answer a question");
        }
        answered
    }

    async fn send(&self, app_user_id: &str) -> Result<Value, Failure> {
        let unavailable = |why: String, retry_after| Failure::Unavailable { why, retry_after };
        let broken = |error: reqwest::Error| unavailable(error.without_url().to_string(), PAUSE);
        let mut url = self.base.clone();
        // A segment at a time: an id with a slash in it asks for nobody else.
        match url.path_segments_mut() {
            Ok(mut path) => drop(
                path.pop_if_empty()
                    .extend(["v1", "subscribers", app_user_id]),
            ),
            Err(()) => return Err(unavailable("its address has no path".into(), PAUSE)),
        }
        let client = self.http.get().map_err(broken)?;
        let request = client
            .get(url)
            .timeout(TIMEOUT)
            .bearer_auth(self.key.expose());
        let response = request.send().await.map_err(broken)?;
        let status = response.status();
        let asked_for = response.headers().get(header::RETRY_AFTER);
        let asked_for = asked_for.and_then(|seconds| seconds.to_str().ok()?.parse().ok());
        let retry_after = asked_for.map_or(PAUSE, Duration::from_secs);
        match status {
            status if status.is_success() => response.json().await.map_err(broken),
            // A wrong key is ours to mend, and says nothing about anybody.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(unavailable(
                format!("it does not accept REVENUECAT_API_KEY ({status})"),
                LONGEST_PAUSE * 12,
            )),
            StatusCode::TOO_MANY_REQUESTS => {
                Err(unavailable("it is asked too often".into(), retry_after))
            }
            status if status.is_server_error() => {
                Err(unavailable(format!("it answers {status}"), retry_after))
            }
            status => Err(Failure::Refused {
                status: status.as_u16(),
            }),
        }
    }
}
