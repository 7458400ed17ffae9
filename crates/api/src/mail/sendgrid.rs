//! SendGrid over HTTP: <https://www.twilio.com/docs/sendgrid/api-reference/mail-send/mail-send>.
use super::{TIMEOUT, mailer::Post};
use crate::{config::Secret, http, jobs::Hopeless};
use anyhow::{Context, bail};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

pub struct Api {
    http: http::Client,
    base: String,
    key: Secret,
}

impl Api {
    pub fn new(base: &Url, key: Secret, http: http::Client) -> Self {
        let base = base.as_str().trim_end_matches('/').to_owned();
        Self { http, base, key }
    }

    /// Whether the key may send mail.
    pub async fn test(&self) -> anyhow::Result<()> {
        #[derive(Deserialize)]
        struct Allowed {
            scopes: Vec<String>,
        }
        let asked = self.http.get()?.get(format!("{}/v3/scopes", self.base));
        let allowed: Allowed = self.ask(asked).await?.json().await?;
        if !allowed.scopes.iter().any(|scope| scope == "mail.send") {
            bail!("the key may not send mail")
        }
        Ok(())
    }

    pub async fn send(&self, post: Post<'_>) -> anyhow::Result<()> {
        let url = format!("{}/v3/mail/send", self.base);
        self.ask(self.http.get()?.post(url).json(&body(&post)))
            .await?;
        Ok(())
    }

    /// Refusals that another attempt would meet again are told apart from bad moments.
    async fn ask(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let asked = request
            .bearer_auth(self.key.expose())
            .timeout(TIMEOUT)
            .send();
        let answer = asked.await.context("SendGrid does not answer")?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let refusal = answer.json().await.unwrap_or_default();
        let error = anyhow::anyhow!("SendGrid answers {status}: {}", reasons(&refusal));
        let passing = [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT];
        match status.is_client_error() && !passing.contains(&status) {
            true => Err(error.context(Hopeless)),
            false => Err(error),
        }
    }
}

fn body(post: &Post<'_>) -> Value {
    let off = json!({"enable": false});
    let mut from = json!({"email": post.from.email.to_string()});
    if let Some(name) = &post.from.name {
        from["name"] = name.as_str().into();
    }
    json!({
        "personalizations": [{"to": [{"email": post.to.to_string()}]}],
        "from": from,
        "subject": post.letter.subject,
        "content": [
            {"type": "text/plain", "value": post.letter.text},
            {"type": "text/html", "value": post.letter.html},
        ],
        "headers": {
            "Message-ID": post.message_id(),
            "Auto-Submitted": "auto-generated",
            "Content-Language": post.locale.tag(),
        },
        "categories": [post.kind],
        "custom_args": {"job": post.id},
        // Links hold secrets: they lead to us and nowhere else first.
        "tracking_settings": {
            "click_tracking": {"enable": false, "enable_text": false},
            "open_tracking": off,
            "subscription_tracking": off,
        },
    })
}

/// What SendGrid says was wrong.
fn reasons(refusal: &Value) -> String {
    let errors = refusal["errors"].as_array();
    let said = errors.into_iter().flatten();
    let said = said.filter_map(|error| error["message"].as_str());
    said.collect::<Vec<_>>()
        .join("; ")
        .chars()
        .take(300)
        .collect()
}
