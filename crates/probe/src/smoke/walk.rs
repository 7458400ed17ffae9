//! One step after another, and what came of each.
use super::report::{Outcome, Step};
use crate::answer::{Answer, send};
use anyhow::Result;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;
use std::time::Duration;

/// A walk through the product, and the steps that were taken.
pub struct Walk {
    client: Client,
    base: String,
    pub steps: Vec<Step>,
}

impl Walk {
    pub fn new(base: &url::Url, timeout: Duration) -> Result<Self> {
        Ok(Self {
            client: Client::builder()
                .timeout(timeout)
                .redirect(reqwest::redirect::Policy::none())
                .tls_info(true)
                .build()?,
            base: base.as_str().trim_end_matches('/').to_owned(),
            steps: vec![],
        })
    }

    /// Of a path of the server's, or of a whole URL.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = match path.starts_with('/') {
            true => format!("{}{path}", self.base),
            false => path.to_owned(),
        };
        self.client.request(method, url)
    }

    pub async fn get(&self, path: &str, token: &str) -> Answer {
        send(authorized(self.request(Method::GET, path), token)).await
    }

    pub async fn post(&self, path: &str, token: &str, body: &Value) -> Answer {
        send(authorized(self.request(Method::POST, path), token).json(body)).await
    }

    pub async fn delete(&self, path: &str, token: &str) -> Answer {
        send(authorized(self.request(Method::DELETE, path), token)).await
    }

    pub fn note(
        &mut self,
        step: &'static str,
        expected: &'static str,
        answer: &Answer,
        right: bool,
    ) {
        let outcome = match right {
            true => Outcome::Passed,
            false => Outcome::Failed,
        };
        let (got, ms) = (answer.brief(), answer.took.as_millis());
        self.steps.push(Step {
            step,
            expected,
            got,
            ms,
            outcome,
        });
    }

    pub fn skip(&mut self, step: &'static str, expected: &'static str, why: &str) {
        self.steps.push(Step {
            step,
            expected,
            got: why.to_owned(),
            ms: 0,
            outcome: Outcome::Skipped,
        });
    }
}

/// With no token the request is nobody's.
fn authorized(request: RequestBuilder, token: &str) -> RequestBuilder {
    match token {
        "" => request,
        token => request.bearer_auth(token),
    }
}
