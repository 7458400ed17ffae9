//! A provider that tells of events.
use super::{
    plinth::Plinth,
    scene::Scene,
    story::{Event, Provider},
};
use crate::{
    answer::Answer,
    events::{self, Purchase},
    person::User,
};
use anyhow::Result;
use reqwest::{Client, RequestBuilder};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Sends to `base`.
pub struct Sender {
    client: Client,
    pub base: String,
    stripe: String,
    revenuecat: String,
}

impl Sender {
    pub fn new(scene: &Scene<'_>, base: &str) -> Self {
        Self {
            client: scene.client.clone(),
            base: base.to_owned(),
            stripe: scene.stripe_secret.clone(),
            revenuecat: scene.revenuecat_secret.clone(),
        }
    }

    /// One attempt, signed now.
    pub fn delivery(&self, event: &Event) -> RequestBuilder {
        let request = match event.provider {
            Provider::Stripe => {
                let body = event.body.as_bytes();
                let signature = webhooks::stripe::sign(body, &self.stripe, events::now());
                let request = self.client.post(format!("{}/webhooks/stripe", self.base));
                request.header(webhooks::stripe::SIGNATURE_HEADER, signature)
            }
            Provider::RevenueCat => {
                let request = self
                    .client
                    .post(format!("{}/webhooks/revenuecat", self.base));
                request.bearer_auth(&self.revenuecat)
            }
        };
        request
            .header("content-type", "application/json")
            .body(event.body.clone())
    }
}

pub fn is_acknowledged(answer: &Answer) -> bool {
    answer.status == 200 && answer.body["received"] == true
}

/// Waits until nothing that was received waits any more.
pub async fn settled(server: &Plinth, key: &str, within: Duration) -> Result<(), String> {
    let started = Instant::now();
    loop {
        let stats = server.get("/api/admin/webhooks/stats", key).await;
        let counts = stats.body["counts"].as_array().cloned().unwrap_or_default();
        let waiting: i64 = counts
            .iter()
            .filter(|count| count["status"] == "received")
            .filter_map(|count| count["events"].as_i64())
            .sum();
        if stats.status == 200 && waiting == 0 {
            return Ok(());
        }
        if started.elapsed() > within {
            return Err(format!("{waiting} still wait; {}", stats.brief()));
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// A subscription that nobody told of before.
pub fn sold(user: &str) -> Event {
    let key = Uuid::new_v4().simple().to_string();
    let bought = Purchase {
        key: &key[..24],
        user,
        price: "price_pro",
    };
    let body = events::subscription(&bought, events::now()).to_string();
    Event {
        provider: Provider::Stripe,
        id: format!("evt_{}", bought.key),
        body,
    }
}

/// Sells the plan `pro`, and returns when it is open: its quota holds for a thousand questions.
pub async fn make_pro(scene: &Scene<'_>, server: &Plinth, user: &User) -> Result<()> {
    let sender = Sender::new(scene, &server.url(""));
    crate::person::ask(sender.delivery(&sold(&user.id))).await?;
    let sent = Instant::now();
    while server.get("/api/entitlements", &user.token).await.body["plan"] != "pro" {
        anyhow::ensure!(
            sent.elapsed() < Duration::from_secs(20),
            "a subscription does not open the plan pro"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
