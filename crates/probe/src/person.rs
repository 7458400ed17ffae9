//! Who the product is walked through as.
use anyhow::{Context, Result, bail};
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use uuid::Uuid;

/// A signed-in user.
#[derive(Debug, Clone)]
pub struct User {
    pub id: String,
    pub email: String,
    pub password: String,
    pub token: String,
    pub refresh_token: String,
}

impl User {
    pub async fn sign_up(client: &Client, base: &str) -> Result<Self> {
        let name = Uuid::new_v4().simple().to_string();
        let (email, password) = (format!("probe-{name}@example.com"), format!("Probe {name}"));
        let body = json!({"email": email, "password": password});
        let session = ask(client.post(format!("{base}/auth/v1/signup")).json(&body)).await?;
        let text = |pointer: &str| {
            session
                .pointer(pointer)
                .and_then(Value::as_str)
                .map(ToOwned::to_owned)
        };
        let member = |pointer: &str| text(pointer).context("signing up gave no session");
        Ok(Self {
            id: member("/user/id")?,
            token: member("/access_token")?,
            refresh_token: member("/refresh_token")?,
            email,
            password,
        })
    }
}

/// Sends what has to be answered with success.
pub async fn ask(request: RequestBuilder) -> Result<Value> {
    let response = request.send().await?;
    let (status, url) = (response.status(), response.url().path().to_owned());
    let text = response.text().await?;
    if !status.is_success() {
        bail!(
            "{url} answered {status}: {}",
            text.chars().take(300).collect::<String>()
        );
    }
    Ok(serde_json::from_str(&text)?)
}
