//! What is bought, and what is refused.
use super::{Args, account::Session, is_loopback, walk::Walk};
use crate::{
    answer::{Answer, send},
    events::{self, REVENUECAT_SECRET, STRIPE_SECRET},
};
use reqwest::Method;
use serde_json::json;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// From a verified event to what it opens.
const APPLIED_WITHIN: Duration = Duration::from_secs(5);

impl Walk {
    /// With a session: what the signed event opens is looked at too.
    pub async fn payments(&mut self, args: &Args, session: Option<&Session>) {
        let unsigned = self
            .request(Method::POST, "/webhooks/stripe")
            .header(webhooks::stripe::SIGNATURE_HEADER, "test")
            .header("content-type", "application/json")
            .body(r#"{"type":"test"}"#);
        let answer = send(unsigned).await;
        let right = answer.is_refused(400, "invalid_signature");
        let expected = "400 invalid_signature";
        self.note("Stripe, no signature", expected, &answer, right);
        self.checkout(session).await;
        self.stripe(args, session).await;

        let given = args.revenuecat_secret.as_deref();
        let (step, expected) = ("RevenueCat TEST", "200");
        let answer = self.revenuecat(given.unwrap_or(REVENUECAT_SECRET)).await;
        if answer.status == 401 && given.is_none() && !is_loopback(&args.url) {
            self.skip(step, expected, "needs --revenuecat-secret");
        } else {
            self.note(step, expected, &answer, answer.status == 200);
        }
        let answer = self.revenuecat("not the secret").await;
        let right = answer.status == 401;
        self.note("RevenueCat, wrong secret", "401", &answer, right);
    }

    async fn checkout(&mut self, session: Option<&Session>) {
        let (step, expected) = ("POST checkout", "200, a page to pay on");
        let health = self.get("/api/health", "").await;
        let Some(session) = session else {
            return self.skip(step, expected, "needs a session");
        };
        if health.text_at("/services/stripe") == "off" {
            return self.skip(step, expected, "Stripe is not configured");
        }
        let body = json!({"plan": "pro"});
        let answer = self
            .post("/api/billing/checkout", &session.access, &body)
            .await;
        let right = answer.status == 200
            && answer.has_text(&["/id", "/expires_at"])
            && url::Url::parse(answer.text_at("/url")).is_ok();
        self.note(step, expected, &answer, right);
    }

    async fn stripe(&mut self, args: &Args, session: Option<&Session>) {
        let (step, expected) = ("Stripe, signed subscription", "200 {\"received\":true}");
        let (seen, opens) = ("GET /api/entitlements", "plan pro within 5 s");
        let key = Uuid::new_v4().simple().to_string();
        let bought = events::Purchase {
            key: &key[..24],
            user: session.map_or("nobody", |session| &session.user),
            price: &args.stripe_price,
        };
        let body = events::subscription(&bought, events::now()).to_string();
        let secret = args.stripe_secret.as_deref().unwrap_or(STRIPE_SECRET);
        let signature = webhooks::stripe::sign(body.as_bytes(), secret, events::now());
        let request = self
            .request(Method::POST, "/webhooks/stripe")
            .header(webhooks::stripe::SIGNATURE_HEADER, signature)
            .header("content-type", "application/json")
            .body(body);
        let answer = send(request).await;
        if answer.status == 400 && args.stripe_secret.is_none() && !is_loopback(&args.url) {
            self.skip(step, expected, "needs --stripe-secret");
            self.skip(seen, opens, "needs --stripe-secret");
            return;
        }
        let right = answer.status == 200 && answer.body == json!({"received": true});
        self.note(step, expected, &answer, right);

        let Some(session) = session else {
            return self.skip(seen, opens, "needs a session");
        };
        if !right {
            return self.skip(seen, opens, "the event was not taken");
        }
        let sent = Instant::now();
        loop {
            let mut answer = self.get("/api/entitlements", &session.access).await;
            let opened = answer.text_at("/plan") == "pro";
            if opened || sent.elapsed() > APPLIED_WITHIN {
                answer.took = sent.elapsed();
                if answer.status == 200 {
                    answer.text = format!("plan {}", answer.text_at("/plan"));
                }
                return self.note(seen, opens, &answer, opened && answer.status == 200);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn revenuecat(&self, secret: &str) -> Answer {
        let event = events::revenuecat_test(&Uuid::new_v4().to_string(), events::now());
        let request = self
            .request(Method::POST, "/webhooks/revenuecat")
            .json(&event);
        send(request.bearer_auth(secret)).await
    }
}
