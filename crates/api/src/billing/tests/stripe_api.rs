//! What the client asks of Stripe, and what it makes of the answers.
use super::super::stripe_api::{Failure, Stripe, VERSION};
use crate::{Config, Error, error::Dialect, http::Client};
use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, Method, Uri},
    response::Response,
};
use serde_json::{Value, json};
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

const KEY: &str = "sk_test_that_nobody_may_see";

/// One answer: status, headers, body.
type Canned = (u16, Vec<(&'static str, &'static str)>, String);

/// A request as it came.
struct Asked {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: String,
}

impl Asked {
    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

/// Someone who answers with what it is told, in order, and the last for ever.
#[derive(Clone, Default)]
struct Stub {
    answers: Arc<Mutex<VecDeque<Canned>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Stub {
    async fn start(answers: impl IntoIterator<Item = Canned>) -> (Self, Stripe) {
        let stub = Self::default();
        stub.answers.lock().unwrap().extend(answers);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback({
            let stub = stub.clone();
            async move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| {
                let body = String::from_utf8(body.to_vec()).unwrap();
                stub.asked.lock().unwrap().push(Asked {
                    method,
                    uri,
                    headers,
                    body,
                });
                stub.answer()
            }
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        (stub, stripe(&base))
    }

    fn answer(&self) -> Response {
        let mut answers = self.answers.lock().unwrap();
        let (status, headers, body) = match answers.len() {
            1 => answers[0].clone(),
            _ => answers.pop_front().unwrap(),
        };
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(name, value);
        }
        response.body(body.into()).unwrap()
    }

    fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

fn stripe(base: &str) -> Stripe {
    let env: HashMap<_, _> = [("STRIPE_SECRET_KEY", KEY), ("STRIPE_API_BASE", base)]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let config = Config::from_env(&env).unwrap().config;
    Stripe::new(&config.billing, Client::default()).unwrap()
}

fn done() -> Canned {
    (200, vec![], json!({"id": "cus_1"}).to_string())
}

fn refused(status: u16, error: Value) -> Canned {
    (status, vec![], json!({"error": error}).to_string())
}

#[tokio::test]
async fn a_request_names_its_version_its_key_and_what_makes_it_the_same_one() {
    let (stub, stripe) = Stub::start([done()]).await;

    stripe
        .post(
            "/v1/customers",
            &[("metadata[user_id]", "u 1"), ("email", "ann+x@example.com")],
            "cust:1",
        )
        .await
        .unwrap();
    stripe
        .get("/v1/events", &[("types[]", "invoice.paid"), ("limit", "2")])
        .await
        .unwrap();
    stripe.delete("/v1/subscriptions/sub_1", &[]).await.unwrap();

    let asked = stub.asked();
    let post = &asked[0];
    assert_eq!(post.header("authorization"), format!("Bearer {KEY}"));
    assert_eq!(post.header("stripe-version"), VERSION);
    assert_eq!(post.header("idempotency-key"), "cust:1");
    assert_eq!(
        post.body,
        "metadata%5Buser_id%5D=u+1&email=ann%2Bx%40example.com"
    );
    assert_eq!(asked[1].uri, "/v1/events?types%5B%5D=invoice.paid&limit=2");
    assert_eq!(asked[2].method, Method::DELETE);
    assert_eq!(asked[2].uri, "/v1/subscriptions/sub_1");
    // Only what writes is to be done once.
    assert_eq!(asked[1].header("idempotency-key"), "");
    assert!(asked[1].body.is_empty());
}

#[tokio::test]
async fn what_may_pass_is_asked_again_with_the_same_key() {
    let lock = json!({"type": "invalid_request_error", "code": "lock_timeout"});
    let in_use = json!({"type": "idempotency_error", "code": "idempotency_key_in_use"});
    for passing in [
        refused(409, in_use),
        refused(429, lock),
        refused(500, json!({"type": "api_error"})),
        (503, vec![], "<html>".into()),
        (400, vec![("stripe-should-retry", "true")], "{}".into()),
        (200, vec![], "not json".into()),
    ] {
        let (stub, stripe) = Stub::start([passing.clone(), done()]).await;

        let answer = stripe.post("/v1/customers", &[("a", "b")], "key").await;

        assert_eq!(answer, Ok(json!({"id": "cus_1"})), "{passing:?}");
        let asked = stub.asked();
        assert_eq!(asked.len(), 2, "{passing:?}");
        assert!(
            asked
                .iter()
                .all(|asked| asked.header("idempotency-key") == "key")
        );
    }
}

#[tokio::test]
async fn what_will_not_pass_is_asked_once() {
    let refusal = json!({"type": "invalid_request_error", "code": "parameter_unknown", "param": "pirce", "message": "Received unknown parameter: pirce"});
    let told_not_to = vec![("stripe-should-retry", "false")];
    for (answer, code) in [
        (refused(400, refusal), "parameter_unknown"),
        (
            refused(400, json!({"type": "idempotency_error"})),
            "idempotency_error",
        ),
        (
            (
                409,
                told_not_to,
                json!({"error": {"code": "x"}}).to_string(),
            ),
            "x",
        ),
        (
            (302, vec![("location", "http://127.0.0.1:9")], String::new()),
            "302",
        ),
    ] {
        let (stub, stripe) = Stub::start([answer]).await;

        let failure = stripe.get("/v1/prices/p", &[]).await.unwrap_err();

        assert!(failure.to_string().contains(code), "{failure}");
        assert_eq!(stub.asked().len(), 1);
    }
}

#[tokio::test]
async fn stripe_is_asked_three_times_at_most_and_not_before_it_wants_to_be() {
    let busy = |after| (429, vec![("retry-after", after)], "{}".to_owned());

    let (stub, stripe) = Stub::start([busy("0")]).await;
    let failure = stripe.get("/v1/prices/p", &[]).await.unwrap_err();
    assert!(matches!(failure, Failure::Unavailable { .. }), "{failure}");
    assert_eq!(stub.asked().len(), 3);

    let (stub, stripe) = Stub::start([busy("60")]).await;
    let failure = stripe.get("/v1/prices/p", &[]).await.unwrap_err();
    assert_eq!(stub.asked().len(), 1);
    let Failure::Unavailable { retry_after, .. } = failure else {
        panic!("{failure}");
    };
    assert_eq!(retry_after.as_secs(), 60);
}

#[tokio::test]
async fn inv_51_only_stripes_own_word_says_that_there_is_no_such_object() {
    let missing =
        json!({"type": "invalid_request_error", "code": "resource_missing", "param": "id"});
    let (_, stripe) = Stub::start([refused(404, missing)]).await;
    assert_eq!(
        stripe.get("/v1/subscriptions/sub_1", &[]).await,
        Err(Failure::NotFound)
    );

    for other in [
        (404, vec![], "<h1>Not Found</h1>".to_owned()),
        (404, vec![], "{}".into()),
        refused(
            404,
            json!({"type": "invalid_request_error", "message": "Unrecognized request URL"}),
        ),
        refused(401, json!({"code": "resource_missing"})),
    ] {
        let (_, stripe) = Stub::start([other.clone()]).await;
        let failure = stripe
            .get("/v1/subscriptions/sub_1", &[])
            .await
            .unwrap_err();
        assert_ne!(failure, Failure::NotFound, "{other:?}");
    }
}

#[tokio::test]
async fn that_our_key_is_refused_is_no_fault_of_who_asks() {
    let invalid = json!({"type": "invalid_request_error", "message": format!("Invalid API Key provided: {KEY}")});
    for status in [401, 403] {
        let (stub, stripe) = Stub::start([refused(status, invalid.clone())]).await;

        let failure = stripe.get("/v1/customers/cus_1", &[]).await.unwrap_err();

        assert_eq!(stub.asked().len(), 1);
        assert!(!failure.to_string().contains(KEY), "{failure}");
        assert!(!format!("{failure:?}").contains(KEY), "{failure:?}");
        let error = Error::from(failure);
        assert_eq!(error.status(Dialect::Problem), 503);
        assert_eq!(error.code(Dialect::Problem), "billing_unavailable");
    }
}

#[tokio::test]
async fn inv_8_a_declined_card_is_told_to_who_holds_it_and_to_no_log() {
    let declined = json!({"type": "card_error", "code": "card_declined", "message": "Ann's card was declined."});
    let (_, stripe) = Stub::start([refused(402, declined)]).await;

    let failure = stripe
        .post("/v1/subscriptions/sub_1", &[("a", "b")], "key")
        .await
        .unwrap_err();

    assert_eq!(failure.to_string(), "Stripe refuses with 402 card_declined");
    let error = Error::from(failure);
    assert_eq!(error.code(Dialect::Problem), "payment_failed");
    assert_eq!(error.to_string(), "Ann's card was declined.");
}

#[tokio::test]
async fn inv_51_who_does_not_answer_says_nothing_of_any_object() {
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);

    let failure = stripe(&base).get("/v1/prices/p", &[]).await.unwrap_err();

    assert!(matches!(failure, Failure::Unavailable { .. }), "{failure}");
}

#[tokio::test]
async fn who_does_not_answer_is_left_alone_and_then_asked_by_one_for_all() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stripe = stripe(&format!("http://{}", silent.local_addr().unwrap()));
    let met = Arc::new(AtomicUsize::new(0));
    tokio::spawn({
        let met = met.clone();
        async move {
            while silent.accept().await.is_ok() {
                met.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let ask = async || stripe.get("/v1/prices/p", &[]).await.unwrap_err();

    ask().await;
    let attempts = met.load(Ordering::Relaxed);
    let failure = ask().await;
    assert!(failure.to_string().contains("a moment ago"), "{failure}");
    assert_eq!(met.load(Ordering::Relaxed), attempts);

    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_secs(10)).await;
    tokio::time::resume();
    let (one, other) = tokio::join!(ask(), ask());
    assert!(!one.to_string().contains("a moment ago"), "{one}");
    assert!(other.to_string().contains("a moment ago"), "{other}");
    assert_eq!(met.load(Ordering::Relaxed), attempts * 2);
}

#[test]
fn production_asks_nobody_but_stripe() {
    let faults = |base: &str, key: &str| {
        let env: HashMap<_, _> = [
            ("APP_ENV", "production"),
            ("STRIPE_API_BASE", base),
            ("STRIPE_SECRET_KEY", key),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let problems = Config::from_env(&env).unwrap_err();
        let about = problems
            .into_iter()
            .filter(|p| p.variable == "STRIPE_API_BASE");
        about.map(|p| p.fault).collect::<Vec<_>>().join("; ")
    };
    let live = "sk_live_0123456789";

    assert_eq!(faults("https://api.stripe.com", live), "");
    assert!(faults("http://127.0.0.1:8025", live).contains("simulated"));
    assert!(faults("https://localhost:8025", live).contains("simulated"));
    assert!(faults("https://api.stripe.com", "sk_test_simulated").contains("simulated"));
    assert!(faults("http://stripe.example.com", live).contains("not https"));
}

#[test]
fn a_place_for_the_checkouts_id_survives_in_the_url_that_browsers_come_back_to() {
    let url = "https://app.example.com/done?session_id={CHECKOUT_SESSION_ID}";
    let env: HashMap<_, _> = [("STRIPE_SUCCESS_URL".to_owned(), url.to_owned())].into();

    let config = Config::from_env(&env).unwrap().config;

    assert_eq!(config.billing.stripe_success_url.unwrap().as_str(), url);
}
