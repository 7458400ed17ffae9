//! Bodies that no provider sends. They may be signed all the same: a secret leaks, a proxy breaks.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};
use webhooks::{revenuecat, stripe};

use crate::fixtures;

fn refused_by_both(body: &[u8]) -> (String, String) {
    (
        stripe::read(body).unwrap_err().0,
        revenuecat::read(body).unwrap_err().0,
    )
}

#[test]
fn a_body_that_is_not_an_object_is_refused() {
    for body in [
        "",
        "null",
        "[]",
        "\"hello\"",
        "1",
        "{}{}",
        "{",
        "\u{feff}{}",
        "{'a':1}",
    ] {
        refused_by_both(body.as_bytes());
    }
    refused_by_both(b"{\"id\":\"\xff\"}");
}

#[test]
fn a_key_given_twice_is_refused_at_any_depth() {
    let top = r#"{"id":"evt_1","id":"evt_2"}"#;
    let deep = r#"{"event":{"a":[{"type":"TEST","type":"RENEWAL"}]}}"#;
    // An escape does not make it another key.
    let escaped = r#"{"id":1,"\u0069d":2}"#;

    for body in [top, deep, escaped] {
        let (stripe, revenuecat) = refused_by_both(body.as_bytes());
        assert!(stripe.contains("twice"), "{stripe}");
        assert!(revenuecat.contains("twice"), "{revenuecat}");
    }
}

#[test]
fn bottomless_nesting_is_refused() {
    for (open, close) in [("[", "]"), (r#"{"event":"#, "}")] {
        let body = format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
        refused_by_both(body.as_bytes());
    }
}

#[test]
fn inv_8_a_refusal_never_repeats_the_body() {
    let secret = "alice@example.com";
    let bodies = [
        secret.to_owned(),
        format!(r#"{{"{secret}":1,"{secret}":2}}"#),
        format!(r#"{{"id":"{secret}","event":"{secret}","data":"{secret}"}}"#),
        format!(r#"{{"event":{{"type":"{secret}","id":["{secret}"]}},"object":["{secret}"]}}"#),
    ];

    for body in bodies {
        let (stripe, revenuecat) = refused_by_both(body.as_bytes());
        assert!(!stripe.contains(secret), "{stripe}");
        assert!(!revenuecat.contains(secret), "{revenuecat}");
    }
}

/// All places in a JSON value.
fn pointers(value: &Value) -> Vec<String> {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(members) => members
            .iter()
            .map(|(key, value)| (key.replace('~', "~0").replace('/', "~1"), value))
            .collect(),
        Value::Array(values) => values
            .iter()
            .enumerate()
            .map(|(i, value)| (i.to_string(), value))
            .collect(),
        _ => vec![],
    };
    let below = children.into_iter().flat_map(|(key, value)| {
        pointers(value)
            .into_iter()
            .map(move |pointer| format!("/{key}{pointer}"))
    });
    std::iter::once(String::new()).chain(below).collect()
}

fn any_fixture() -> impl Strategy<Value = Value> {
    let files: Vec<String> = ["stripe", "revenuecat"]
        .into_iter()
        .flat_map(fixtures::index)
        .map(|entry| fixtures::text(&entry, "file").to_owned())
        .collect();
    select(files).prop_map(|file| fixtures::json(&file))
}

fn odd_value() -> impl Strategy<Value = Value> {
    select(vec![
        json!(null),
        json!(true),
        json!(-1),
        json!(1e300),
        json!(u64::MAX),
        json!(""),
        json!("soon"),
        json!([]),
        json!([null]),
        json!({}),
        json!({ "id": null }),
        json!({ "data": [1] }),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn no_bytes_panic(body: Vec<u8>) {
        let _ = stripe::read(&body);
        let _ = revenuecat::read(&body);
    }

    #[test]
    fn no_member_of_another_type_panics(
        mut body in any_fixture(),
        at: Index,
        odd in odd_value(),
    ) {
        let pointers = pointers(&body);
        *body.pointer_mut(&pointers[at.index(pointers.len())]).unwrap() = odd;
        let _ = stripe::read_subscription(&body);
        let _ = stripe::read_checkout(&body);
        let _ = revenuecat::read_subscriber(&body);
        if let Ok(thin) = stripe::read(&fixtures::body("stripe/thin--v1.customer.subscription.updated.json")) {
            let _ = stripe::with_object(thin, &body["data"]["object"]);
        }
        let body = body.to_string();

        let _ = stripe::read(body.as_bytes());
        let _ = revenuecat::read(body.as_bytes());
    }

    #[test]
    fn no_cut_off_body_is_read(body in any_fixture(), at: Index) {
        let body = body.to_string();
        let cut = &body.as_bytes()[..at.index(body.len())];

        prop_assert!(stripe::read(cut).is_err());
        prop_assert!(revenuecat::read(cut).is_err());
    }
}
