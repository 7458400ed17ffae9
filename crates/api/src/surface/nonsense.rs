//! That no route fails at what makes no sense: bodies that are no JSON or another's, paths and queries
//! out of place.
use super::{Operation, operations, speaks};
use crate::testing::{
    Answer, Engine, Person, SELLING, START, STRIPE_SECRET, Test, both_engines, request,
};
use axum::body::Body;
use http::header;
use serde_json::json;

/// An admin who is signed in, and signs in anew after being signed out.
struct Someone(Option<Person>);

impl Someone {
    async fn token(&mut self, test: &Test) -> String {
        let person = match self.0.take() {
            None => test.sign_up_admin("ann@example.com").await,
            Some(person) if test.get(&person.token, "/auth/v1/user").await.status == 200 => person,
            Some(_) => {
                test.sign_up_admin(&format!("{}@example.com", uuid::Uuid::new_v4()))
                    .await
            }
        };
        self.0.insert(person).token.clone()
    }
}

/// Invariant 79.
#[tokio::test]
async fn no_route_fails_at_a_body_that_is_not_json() {
    let test = Test::with(Engine::Sqlite, &SELLING).await;
    let ann = test.sign_up_admin("ann@example.com").await.token;

    for operation in operations().iter().filter(|operation| operation.takes_body) {
        for (name, body) in malformed() {
            // It would go on to do what was asked.
            let does = ["/auth/v1/user", "/api/billing/portal", "/api/conversations"];
            let does = does.contains(&operation.route.as_str());
            if does && !operation.needs_body && body.is_empty() {
                continue;
            }
            for answer in [
                post(&test, &ann, operation, "application/json", body.clone()).await,
                post_signed(&test, operation, body).await,
            ] {
                let status = answer.status.as_u16();
                assert!(
                    (400..500).contains(&status),
                    "{} {}: {name}: {status} {}",
                    operation.method,
                    operation.route,
                    answer.text()
                );
                speaks(&answer, &operation.path);
            }
        }
    }
}

both_engines! {
    /// Invariant 79.
    async fn no_route_fails_at_json_of_another_shape(engine: Engine) {
        let test = Test::with(engine, &SELLING).await;

        let mut ann = Someone(None);

        for operation in operations().iter().filter(|operation| operation.takes_body) {
            let ann = ann.token(&test).await;
            for body in misshapen(&operation.members) {
                for answer in [post(&test, &ann, operation, "application/json", body.clone().into()).await, post_signed(&test, operation, body.clone().into()).await] {
                    assert!(answer.status.as_u16() < 500, "{} {}: {}: {}", operation.method, operation.route, &body[..body.len().min(200)], answer.text());
                    if answer.status.is_client_error() {
                        speaks(&answer, &operation.path);
                    }
                }
            }
        }
    }

    async fn no_route_fails_at_a_path_or_query_that_makes_no_sense(engine: Engine) {
        let test = Test::with(engine, &SELLING).await;

        let mut ann = Someone(None);

        for operation in operations().iter() {
            let ann = ann.token(&test).await;
            let strange = ["%00", "%ff%fe", "..%2f..%2fetc%2fpasswd", "%c0%af", "0", "%F0%9F%92%A9", "'%20or%201=1--"];
            for word in strange {
                let query = format!("?limit={word}&cursor={word}&q={word}&grant_type={word}&scope={word}&{word}");
                let paths = [format!("{}{query}", operation.path), operation.path.replace("0190a8c0-0000-7000-8000-000000000000", word)];
                for path in paths {
                    let answer = test.call(operation.method.clone(), &ann, &path, json!({})).await;
                    assert!(answer.status.as_u16() < 500, "{} {path}: {}", operation.method, answer.text());
                }
            }
        }
    }
}

/// Invariant 79.
#[tokio::test]
async fn every_route_that_reads_json_refuses_what_does_not_say_it_is() {
    let test = Test::with(Engine::Sqlite, &SELLING).await;
    let ann = test.sign_up_admin("ann@example.com").await.token;

    let reads_json =
        |operation: &&Operation| operation.takes_body && !operation.route.contains("webhook");
    for operation in operations().iter().filter(reads_json) {
        let path = format!("{}?grant_type=password", operation.path);
        for content_type in [
            "",
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/jsonp",
            "\u{1}",
        ] {
            // The button on the page of a mailed link, and the one that Apple's page presses itself.
            let takes_forms = ["/auth/v1/verify", "/auth/v1/callback"];
            if takes_forms.contains(&&*operation.route) && content_type.ends_with("urlencoded") {
                continue;
            }
            let mut request = request(operation.method.clone(), &ann, &path);
            if let Ok(value) = header::HeaderValue::from_str(content_type)
                && !value.is_empty()
            {
                request = request.header(header::CONTENT_TYPE, value);
            }
            let answer = test.send(request.body(Body::from("{}")).unwrap()).await;
            assert_eq!(answer.status, 415, "{} {content_type}", operation.path);
            speaks(&answer, &operation.path);
        }
    }
}

/// Bodies that are no JSON, or that nobody can want to read.
fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("nothing", b"".to_vec()),
        ("a word", b"hello".to_vec()),
        ("cut off", br#"{"message": "he"#.to_vec()),
        ("a comma too many", br#"{"message": "hello",}"#.to_vec()),
        (
            "something behind",
            br#"{"email": "a@example.com"} {}"#.to_vec(),
        ),
        ("a raw NUL", b"{\"message\": \"\0\"}".to_vec()),
        (
            "invalid UTF-8",
            b"{\"message\": \"\xff\xfe\", \"password\": \"\xc0\xaf\"}".to_vec(),
        ),
        (
            "half a surrogate pair",
            br#"{"message": "\ud800", "email": "\udc00"}"#.to_vec(),
        ),
        ("a number without an end", b"1e999".to_vec()),
        ("100,000 brackets", "[".repeat(100_000).into_bytes()),
        ("100,000 objects", "{\"a\":".repeat(100_000).into_bytes()),
        (
            "10 MB",
            format!("{{\"message\": \"{}\"}}", "x".repeat(10_000_000)).into_bytes(),
        ),
        ("gzip", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03".to_vec()),
    ]
}

/// JSON, but not what any route wants.
fn misshapen(members: &[String]) -> Vec<String> {
    let mut bodies: Vec<String> = ["null", "true", "1", "\"text\"", "[]", "{}", "[{}]"]
        .map(ToOwned::to_owned)
        .into();
    bodies.push(format!("{{{}}}", vec!["\"a\":1"; 2_000].join(",")));
    let values = [
        "null",
        "true",
        "-1",
        "18446744073709551616",
        "1e308",
        "1e999",
        "[]",
        "[[]]",
        "{}",
        "{\"__proto__\":{}}",
        "\"\"",
        "\"\\u0000\"",
        "\"a\\u0000b@example.com\"",
        "{\"a\\u0000\":\"b\"}",
        "\"\\uffff\\u202e\"",
        "\"0190a8c0-0000-7000-8000-000000000000\"",
    ];
    for member in members {
        bodies.extend(values.map(|value| format!("{{\"{member}\":{value}}}")));
        bodies.push(format!("{{\"{member}\":\"a\",\"{member}\":\"b\"}}"));
    }
    for value in values {
        let all: Vec<_> = members
            .iter()
            .map(|member| format!("\"{member}\":{value}"))
            .collect();
        bodies.push(format!("{{{}}}", all.join(",")));
    }
    // The right shape, with one character that PostgreSQL cannot keep.
    bodies.extend([
        json!({"email": "nul@example.com", "password": "correct horse \u{0} battery", "data": {"name": "\u{0}"}}).to_string(),
        json!({"message": "What\u{0}?", "model": "gpt-4o-mini\u{0}", "title": "\u{0}x", "messages": [{"role": "user", "content": "\u{0}"}]}).to_string(),
        json!({"message": "What?", "conversationHistory": [{"role": "user", "content": "\u{0}"}], "futureSelfProfile": {"\u{0}": "\u{0}"}, "assistant": "\u{0}"}).to_string(),
        json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "\u{0}"}]}).to_string(),
        json!({"type": "signup", "email": "ann@example.com", "token": "\u{0}", "refresh_token": "\u{0}", "token_hash": "\u{0}"}).to_string(),
        json!({"id": "evt_\u{0}", "type": "in\u{0}voice.paid", "object": "event", "created": 1, "livemode": false, "data": {"object": {"id": "in_\u{0}", "object": "invoice", "customer": "cus_\u{0}"}}}).to_string(),
        json!({"api_version": "1.0", "event": {"id": "\u{0}", "type": "INITIAL_PURCHASE\u{0}", "app_user_id": "\u{0}", "event_timestamp_ms": i64::MAX, "environment": "SANDBOX"}}).to_string(),
        json!({"id": "evt_1", "type": "customer.subscription.created", "object": "event", "created": i64::MAX, "livemode": false, "data": {"object": null}}).to_string(),
    ]);
    bodies
}

async fn post(
    test: &Test,
    token: &str,
    operation: &Operation,
    content_type: &str,
    body: Vec<u8>,
) -> Answer {
    let path = format!("{}?grant_type=password", operation.path);
    let request =
        request(operation.method.clone(), token, &path).header(header::CONTENT_TYPE, content_type);
    test.send(request.body(Body::from(body)).unwrap()).await
}

/// As one who knows the secrets of the webhooks; elsewhere as anyone, with the other grant.
async fn post_signed(test: &Test, operation: &Operation, body: Vec<u8>) -> Answer {
    let path = format!("{}?grant_type=refresh_token", operation.path);
    let signature = match operation.route.contains("stripe") {
        true => webhooks::stripe::sign(&body, STRIPE_SECRET, START.unix()),
        false => String::new(),
    };
    let request = request(
        operation.method.clone(),
        crate::testing::REVENUECAT_SECRET,
        &path,
    )
    .header(header::CONTENT_TYPE, "application/json")
    .header("stripe-signature", signature);
    test.send(request.body(Body::from(body)).unwrap()).await
}
