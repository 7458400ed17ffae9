//! What is sold opens, and only that: whatever order events come in, and however often.
use crate::testing::{Answer, Engine, Person, Test};
use db::{Timestamp, inbox::Event};
use serde_json::{Value, json};
use sim::{revenuecat::RevenueCat, stripe::Stripe};
use std::{
    collections::HashMap,
    ops::Deref,
    sync::{Arc, Mutex},
    time::Duration,
};

mod convergence;
mod desk;
mod holding;
mod inbox;
mod money;
mod moving;
mod news;
mod phones;
mod reconciling;
mod reread;
mod selling;
mod slow_money;
mod sold;
mod standing;
mod statuses;
mod stripe;
mod stripe_api;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// An instance with one customer.
struct Shop {
    test: Test,
    ann: Person,
}

impl Deref for Shop {
    type Target = Test;
    fn deref(&self) -> &Test {
        &self.test
    }
}

impl Shop {
    async fn new(engine: Engine) -> Self {
        Self::with(engine, &[]).await
    }

    async fn with(engine: Engine, variables: &[(&str, &str)]) -> Self {
        let test = Test::with(engine, variables).await;
        let ann = test.sign_up("ann@example.com").await;
        Self { test, ann }
    }

    /// An event about Ann's subscription, now.
    fn event(&self, kind: &str, change: impl FnOnce(&mut Stripe)) -> Value {
        let mut spec = Stripe {
            kind: kind.into(),
            user_id: Some(self.ann.id.clone()),
            ..Stripe::default()
        };
        change(&mut spec);
        sim::stripe::event(&spec, self.app.now().unix())
    }

    /// An event about Ann's purchase on her phone, now.
    fn purchase(&self, kind: &str, change: impl FnOnce(&mut RevenueCat)) -> Value {
        let mut spec = RevenueCat {
            kind: kind.into(),
            user_id: self.ann.id.clone(),
            ..RevenueCat::default()
        };
        change(&mut spec);
        sim::revenuecat::event(&spec, self.app.now().unix())
    }

    /// A recorded event of Stripe, about Ann.
    fn recorded(&self, name: &str) -> Value {
        recorded(&format!("stripe/{name}"), &self.ann.id)
    }

    /// A recorded event of RevenueCat, about Ann.
    fn recorded_purchase(&self, name: &str) -> Value {
        recorded(&format!("revenuecat/{name}"), &self.ann.id)
    }

    /// Delivers an event of Stripe and does what follows from it; gives what became of it.
    async fn told(&self, event: &Value) -> String {
        let answer = self.stripe(event).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        self.work().await;
        verdict(&self.kept("stripe", event).await.unwrap())
    }

    /// The same for an event of RevenueCat.
    async fn told_purchase(&self, event: &Value) -> String {
        let answer = self.revenuecat(event).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        self.work().await;
        verdict(&self.kept("revenuecat", event).await.unwrap())
    }

    /// The inbox's row of an event.
    async fn kept(&self, provider: &str, event: &Value) -> Option<Event> {
        let id = event["id"].as_str().or(event["event"]["id"].as_str());
        let id = id.unwrap();
        for mode in ["live", "test"] {
            let kept = db::inbox::by_external_id(&self.app.db, provider, mode, id).await;
            if let Some(event) = kept.unwrap() {
                return Some(event);
            }
        }
        None
    }

    /// How many events wait to be applied.
    async fn waiting(&self) -> usize {
        let jobs = db::jobs::unfinished(&self.app.db, db::inbox::APPLY).await;
        jobs.unwrap().len()
    }

    /// Ann's plan, as she sees it.
    async fn plan(&self) -> String {
        let body = self.get(&self.ann.token, "/api/entitlements").await.json();
        body["plan"].as_str().unwrap().to_owned()
    }

    /// What Ann's grants open by the clock, whether or not she is signed in.
    async fn standing(&self) -> Vec<String> {
        let (_, grants) = self.everything().await;
        super::entitlements::standing(&grants, self.app.now())
            .into_iter()
            .map(|standing| standing.entitlement)
            .collect()
    }

    /// The one entitlement that Ann has.
    async fn entitlement(&self) -> Value {
        let mut body = self.get(&self.ann.token, "/api/entitlements").await.json();
        let all = body["entitlements"].as_array_mut().unwrap();
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    /// The one subscription that Ann has.
    async fn subscription(&self) -> Value {
        let mut body = self.get(&self.ann.token, "/api/billing").await.json();
        let all = body["subscriptions"].as_array_mut().unwrap();
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    /// Everything that is kept about Ann, but when it was written.
    async fn everything(&self) -> (Vec<db::billing::Subscription>, Vec<db::billing::Grant>) {
        let ann = self.ann.id.parse().unwrap();
        let subscriptions = db::billing::subscriptions_of_user(&self.app.db, ann);
        let grants = db::billing::grants(&self.app.db, ann);
        (subscriptions.await.unwrap(), grants.await.unwrap())
    }
}

/// An API that answers with the objects it was given, and remembers what it was asked for.
#[derive(Clone)]
struct Api {
    base: String,
    objects: Arc<Mutex<HashMap<String, Value>>>,
    asked: Arc<Mutex<Vec<String>>>,
    /// Every answer has this status.
    broken: Arc<Mutex<Option<u16>>>,
}

impl Api {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = Self {
            base: format!("http://{}", listener.local_addr().unwrap()),
            objects: Arc::default(),
            asked: Arc::default(),
            broken: Arc::default(),
        };
        let answering = api.clone();
        let router = axum::Router::new().fallback(async move |uri: http::Uri| {
            let path = uri.path().to_owned();
            answering.asked.lock().unwrap().push(path.clone());
            if let Some(status) = *answering.broken.lock().unwrap() {
                let status = http::StatusCode::from_u16(status).unwrap();
                return (status, axum::Json(json!({"error": {"type": "api_error"}})));
            }
            match answering.objects.lock().unwrap().get(&path) {
                Some(object) => (http::StatusCode::OK, axum::Json(object.clone())),
                None => (
                    http::StatusCode::NOT_FOUND,
                    axum::Json(json!({"error": {"type": "invalid_request_error", "code": "resource_missing"}})),
                ),
            }
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        api
    }

    fn has(&self, path: &str, object: Value) {
        self.objects.lock().unwrap().insert(path.into(), object);
    }

    /// Has the subscription of an event as the event tells it.
    fn knows(&self, event: &Value) {
        let object = &event["data"]["object"];
        let path = format!("/v1/subscriptions/{}", object["id"].as_str().unwrap());
        self.has(&path, object.clone());
    }

    fn breaks(&self, status: Option<u16>) {
        *self.broken.lock().unwrap() = status;
    }

    /// How often it was asked for paths that begin so.
    fn asked_for(&self, path: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|asked| asked.starts_with(path)).count()
    }
}

/// `processed`, `ignored: stale`, …
fn verdict(event: &Event) -> String {
    match &event.reason {
        Some(reason) => format!("{}: {reason}", event.status),
        None => event.status.clone(),
    }
}

/// The user and the prices in the recordings.
const RECORDED_USER: &str = "8c1d1d7e-5f0a-4a53-9b5e-0c2a7a4f3b11";
const RECORDED_PRO: &str = "price_ssBo1WFvXFtP6tow57y4zGfu";
const RECORDED_STANDARD: &str = "price_Fx5jHf99ISBoKsxGwAxbSkZS";

fn recorded(path: &str, user: &str) -> Value {
    let text = recording(path)
        .replace(RECORDED_USER, user)
        .replace(RECORDED_PRO, "price_pro")
        .replace(RECORDED_STANDARD, "price_standard");
    serde_json::from_str(&text).unwrap()
}

/// The text of a recording of the crate `webhooks`.
fn recording(path: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../webhooks/tests/fixtures");
    std::fs::read_to_string(format!("{folder}/{path}.json"))
        .unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn time(at: Timestamp) -> Value {
    at.to_string().into()
}

fn at(unix: i64) -> Value {
    time(Timestamp::from_unix(unix))
}

fn is_duplicate(answer: &Answer) -> bool {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["received"], true);
    answer.json()["duplicate"] == true
}
