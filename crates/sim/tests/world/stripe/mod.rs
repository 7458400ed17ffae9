//! The simulated Stripe, as applications and customers meet it.
mod api;
mod change;
mod life;
mod pages;
mod post;

use std::time::Duration;

use serde_json::{Value, json};
use sim::{Options, World};

use crate::http;

/// In unix seconds: 2026-11-20, 09:30 UTC.
const START: i64 = 1_795_167_000;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A world whose clock is turned by hand, and whose post is fetched.
struct Bank {
    world: World,
}

impl Bank {
    async fn new() -> Self {
        let options = Options {
            by_hand: true,
            ..Options::default()
        };
        let world = sim::start(options).await.unwrap();
        world.tell_payments_time(|| START);
        world.send_events_to(sim::WebhookTarget {
            base_url: "http://127.0.0.1:1".to_owned(),
            stripe_secret: "whsec_ours".to_owned(),
            revenuecat_secret: "rc_ours".to_owned(),
        });
        Self { world }
    }

    async fn ask(&self, request: reqwest::RequestBuilder) -> (u16, Value) {
        let answer = request.bearer_auth("sk_test_any").send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap())
    }

    /// Refused or not; `version` may be empty.
    async fn try_get(&self, path: &str, version: &str) -> (u16, Value) {
        let mut request = http().get(format!("{}/v1/{path}", self.world.stripe_url()));
        if !version.is_empty() {
            request = request.header("stripe-version", version);
        }
        self.ask(request).await
    }

    async fn get(&self, path: &str) -> Value {
        let (status, shown) = self.try_get(path, "").await;
        assert_eq!(status, 200, "{shown}");
        shown
    }

    async fn try_post(&self, path: &str, form: &[(&str, &str)]) -> (u16, Value) {
        let url = format!("{}/v1/{path}", self.world.stripe_url());
        let form = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .finish();
        let request = http()
            .post(url)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form);
        self.ask(request).await
    }

    async fn post(&self, path: &str, form: &[(&str, &str)]) -> Value {
        let (status, shown) = self.try_post(path, form).await;
        assert_eq!(status, 200, "{shown}");
        shown
    }

    /// A customer who pays with this card.
    async fn customer(&self, card: &str) -> String {
        let form = [
            ("email", "ann@example.com"),
            ("invoice_settings[default_payment_method]", card),
        ];
        id(&self.post("customers", &form).await)
    }

    /// A customer who has subscribed to Pro with this card.
    async fn subscriber(&self, card: &str, more: &[(&str, &str)]) -> Value {
        let customer = self.customer(card).await;
        let form = [
            &[
                ("customer", customer.as_str()),
                ("items[0][price]", "price_pro"),
            ],
            more,
        ]
        .concat();
        self.post("subscriptions", &form).await
    }

    async fn subscription(&self, of: &Value) -> Value {
        self.get(&format!("subscriptions/{}", id(of))).await
    }

    fn later(&self, by: Duration) {
        self.world.stripe().advance(by);
    }

    /// What was told of these since the last time, oldest first, as it was delivered.
    fn told(&self) -> Vec<Value> {
        let letters = self.world.letters().into_iter();
        letters
            .map(|(letter, _)| {
                let event = serde_json::from_str(&letter.body).unwrap();
                self.world.answered(letter, 200);
                event
            })
            .collect()
    }

    fn told_types(&self) -> Vec<String> {
        let types = self
            .told()
            .into_iter()
            .map(|event| event["type"].as_str().unwrap().to_owned());
        types.collect()
    }
}

fn id(of: &Value) -> String {
    of["id"].as_str().unwrap().to_owned()
}

fn words(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// The names of its members, in order.
fn names(of: &Value) -> Vec<&str> {
    let mut names: Vec<_> = of.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

fn session_form() -> Vec<(&'static str, &'static str)> {
    vec![
        ("mode", "subscription"),
        (
            "success_url",
            "http://app.example/done?session_id={CHECKOUT_SESSION_ID}",
        ),
        ("cancel_url", "http://app.example/back"),
        ("client_reference_id", "u1"),
        ("line_items[0][price]", "price_pro"),
        ("line_items[0][quantity]", "1"),
        ("subscription_data[metadata][user_id]", "u1"),
        ("allow_promotion_codes", "true"),
    ]
}

fn error(refused: &Value) -> Value {
    let error = &refused["error"];
    json!([error["type"], error["code"], error["param"]])
}
