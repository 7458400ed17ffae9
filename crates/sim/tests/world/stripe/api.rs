//! The API: forms in, things out, in either shape.
use std::collections::HashSet;

use super::*;

/// An object of a recorded event.
fn recorded(file: &str) -> Value {
    let path = format!(
        "{}/../webhooks/tests/fixtures/stripe/{file}.json",
        env!("CARGO_MANIFEST_DIR")
    );
    let event: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    event["data"]["object"].clone()
}

#[tokio::test]
async fn things_have_the_members_that_stripe_s_have_in_either_version() {
    let bank = Bank::new().await;
    let subscription = bank.subscriber("pm_card_visa", &[]).await;
    let invoice = words(&subscription["latest_invoice"]).to_owned();
    let payment = bank
        .get(&format!("invoice_payments?invoice={invoice}"))
        .await["data"][0]
        .clone();
    bank.post(
        "refunds",
        &[(
            "payment_intent",
            words(&payment["payment"]["payment_intent"]),
        )],
    )
    .await;
    let session = id(&bank.post("checkout/sessions", &session_form()).await);
    bank.world
        .stripe()
        .pay(&session, "4242 4242 4242 4242")
        .unwrap();
    let of_type = async |kind: &str, version: &str| {
        let (_, events) = bank.try_get(&format!("events?type={kind}"), version).await;
        events["data"][0]["data"]["object"].clone()
    };

    for (train, version) in [("legacy", "2024-06-20"), ("endive", "2026-10-28.endive")] {
        for (kind, variant) in [
            ("customer.created", ""),
            ("checkout.session.completed", "--subscription-paid"),
            ("customer.subscription.created", "--active"),
            ("invoice.paid", "--subscription_create"),
            ("charge.refunded", "--full"),
            ("refund.created", "--pending"),
        ] {
            let recorded = recorded(&format!("{train}--{kind}{variant}"));
            let shown = of_type(kind, version).await;
            assert_eq!(names(&shown), names(&recorded), "{train} {kind}");
            for within in ["items", "lines"] {
                if let Some(recorded) = recorded.pointer(&format!("/{within}/data/0")) {
                    assert_eq!(
                        names(&shown[within]["data"][0]),
                        names(recorded),
                        "{train} {kind} {within}"
                    );
                }
            }
        }
    }
    assert_eq!(
        names(&of_type("invoice_payment.paid", "").await),
        names(&recorded("endive--invoice_payment.paid"))
    );
}

#[tokio::test]
async fn the_period_moves_to_the_items_with_the_version() {
    let bank = Bank::new().await;
    let path = format!(
        "subscriptions/{}",
        id(&bank.subscriber("pm_card_visa", &[]).await)
    );

    let (_, old) = bank.try_get(&path, "2024-06-20").await;
    let (_, new) = bank.try_get(&path, "2026-10-28.endive").await;
    let (unknown, _) = bank.try_get(&path, "tomorrow").await;

    let end = &new["items"]["data"][0]["current_period_end"];
    assert_eq!(
        (&old["current_period_end"], new.get("current_period_end")),
        (end, None)
    );
    assert_eq!(old["items"]["data"][0].get("current_period_end"), None);
    assert_eq!(unknown, 400);
}

#[tokio::test]
async fn a_key_is_asked_for_and_only_a_test_key_taken() {
    let bank = Bank::new().await;
    let url = format!("{}/v1/customers", bank.world.stripe_url());
    let status =
        async |request: reqwest::RequestBuilder| request.send().await.unwrap().status().as_u16();

    assert_eq!(status(http().get(&url)).await, 401);
    assert_eq!(status(http().get(&url).bearer_auth("sk_live_1")).await, 401);
    assert_eq!(
        status(http().get(&url).basic_auth("sk_test_1", Some(""))).await,
        200
    );
}

#[tokio::test]
async fn a_refusal_says_what_and_which_parameter() {
    let bank = Bank::new().await;

    let (unknown, no_customer) = bank.try_get("customers/cus_none", "").await;
    let (named, no_price) = bank
        .try_post(
            "subscriptions",
            &[
                ("customer", &bank.customer("pm_card_visa").await),
                ("items[0][price]", "price_none"),
            ],
        )
        .await;
    let (_, missing) = bank
        .try_post("checkout/sessions", &[("mode", "subscription")])
        .await;
    let (_, gone) = bank
        .try_post(
            "checkout/sessions",
            &[session_form(), vec![("payment_method_types[0]", "card")]].concat(),
        )
        .await;
    let (declined, card) = bank
        .try_post(
            "subscriptions",
            &[
                (
                    "customer",
                    &bank.customer("pm_card_visa_chargeDeclined").await,
                ),
                ("items[0][price]", "price_pro"),
                ("payment_behavior", "error_if_incomplete"),
            ],
        )
        .await;

    assert_eq!(
        (unknown, error(&no_customer)),
        (
            404,
            json!(["invalid_request_error", "resource_missing", "id"])
        )
    );
    assert_eq!(
        (named, error(&no_price)),
        (
            400,
            json!([
                "invalid_request_error",
                "resource_missing",
                "items[0][price]"
            ])
        )
    );
    assert_eq!(
        error(&missing),
        json!(["invalid_request_error", "parameter_missing", "success_url"])
    );
    assert_eq!(
        error(&gone),
        json!([
            "invalid_request_error",
            "parameter_unknown",
            "payment_method_types"
        ])
    );
    assert_eq!(
        (declined, error(&card)),
        (402, json!(["card_error", "card_declined", null]))
    );
    assert_eq!(card["error"]["decline_code"], "generic_decline");
}

#[tokio::test]
async fn a_page_begins_where_the_last_one_ended_in_either_direction() {
    let bank = Bank::new().await;
    for number in 0..5 {
        bank.post("customers", &[("name", &number.to_string())])
            .await;
    }
    let list = async |query: &str| bank.get(&format!("customers?limit=2{query}")).await;
    let of = |page: &Value| {
        page["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| words(&c["name"]).to_owned())
            .collect::<Vec<_>>()
    };

    let first = list("").await;
    let second = list(&format!(
        "&starting_after={}",
        words(&first["data"][1]["id"])
    ))
    .await;
    let third = list(&format!(
        "&starting_after={}",
        words(&second["data"][1]["id"])
    ))
    .await;
    let back = list(&format!(
        "&ending_before={}",
        words(&third["data"][0]["id"])
    ))
    .await;

    assert_eq!(
        (of(&first), of(&second), of(&third)),
        (
            vec!["4".into(), "3".into()],
            vec!["2".into(), "1".into()],
            vec!["0".to_owned()]
        )
    );
    assert_eq!(
        (&first["has_more"], &second["has_more"], &third["has_more"]),
        (&json!(true), &json!(true), &json!(false))
    );
    assert_eq!((of(&back), &back["has_more"]), (of(&second), &json!(true)));
    assert_eq!(bank.try_get("customers?limit=101", "").await.0, 400);
    assert_eq!(
        bank.try_get("customers?starting_after=cus_none", "")
            .await
            .0,
        400
    );
}

#[tokio::test]
async fn an_idempotency_key_does_it_once() {
    let bank = Bank::new().await;
    let post = async |key: &'static str, form: &'static str| {
        let url = format!("{}/v1/customers", bank.world.stripe_url());
        let request = http()
            .post(url)
            .bearer_auth("sk_test_1")
            .header("idempotency-key", key);
        let answer = request
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form)
            .send()
            .await
            .unwrap();
        let replayed = answer.headers().contains_key("idempotent-replayed");
        let request_id = answer.headers()["request-id"].clone();
        (
            answer.status().as_u16(),
            replayed,
            request_id,
            answer.json::<Value>().await.unwrap(),
        )
    };

    let (_, first_replayed, first_request, first) = post("k1", "email=a@example.com").await;
    let (_, again_replayed, again_request, again) = post("k1", "email=a@example.com").await;
    let (other, _, _, refused) = post("k1", "email=b@example.com").await;
    let (bad, ..) = post("k2", "email=nobody").await;
    let (mended, mended_replayed, ..) = post("k2", "email=c@example.com").await;

    assert_eq!((first_replayed, again_replayed), (false, true));
    assert_eq!(first, again);
    assert_ne!(first_request, again_request);
    assert_eq!(
        (other, &refused["error"]["type"]),
        (400, &json!("idempotency_error"))
    );
    // What was refused before anything was done is not kept.
    assert_eq!((bad, mended, mended_replayed), (400, 200, false));
    assert_eq!(
        bank.get("customers").await["data"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

#[tokio::test]
async fn ids_are_expanded_as_deep_as_four_levels() {
    let bank = Bank::new().await;
    let subscription = bank.subscriber("pm_card_visa", &[]).await;
    let path = format!("subscriptions/{}", id(&subscription));

    let shown = bank
        .get(&format!(
            "{path}?expand[]=customer&expand[]=latest_invoice.payments.data.payment.payment_intent"
        ))
        .await;
    let list = bank.get("subscriptions?expand[]=data.latest_invoice").await;
    let (wrong, refused) = bank
        .try_get(
            &format!("{path}?expand[]=latest_invoice.payment_intent"),
            "",
        )
        .await;
    let (_, old) = bank
        .try_get(
            &format!("{path}?expand[]=latest_invoice.payment_intent"),
            "2024-06-20",
        )
        .await;

    assert_eq!(shown["customer"]["email"], "ann@example.com");
    assert_eq!(
        shown["latest_invoice"]["payments"]["data"][0]["payment"]["payment_intent"]["status"],
        "succeeded"
    );
    assert_eq!(list["data"][0]["latest_invoice"]["object"], "invoice");
    assert_eq!((wrong, &refused["error"]["param"]), (400, &json!("expand")));
    assert_eq!(
        old["latest_invoice"]["payment_intent"]["status"],
        "succeeded"
    );
}

#[tokio::test]
async fn prices_are_found_by_their_lookup_key_which_only_one_has() {
    let bank = Bank::new().await;
    let new = [
        ("currency", "usd"),
        ("unit_amount", "100"),
        ("product", "prod_pro"),
        ("recurring[interval]", "month"),
        ("lookup_key", "pro_month"),
    ];

    let found = bank
        .get("prices?lookup_keys[]=pro_month&lookup_keys[]=none")
        .await;
    let (taken, _) = bank.try_post("prices", &new).await;
    bank.post(
        "prices",
        &[&new[..], &[("transfer_lookup_key", "true")]].concat(),
    )
    .await;
    let moved = bank.get("prices?lookup_keys[]=pro_month").await;

    assert_eq!(
        (
            found["data"].as_array().unwrap().len(),
            &found["data"][0]["id"]
        ),
        (1, &json!("price_pro"))
    );
    assert_eq!(taken, 400);
    assert_eq!(
        (
            moved["data"].as_array().unwrap().len(),
            &moved["data"][0]["unit_amount"]
        ),
        (1, &json!(100))
    );
}

#[tokio::test]
async fn an_endpoint_s_secret_is_told_once() {
    let bank = Bank::new().await;

    let made = bank
        .post(
            "webhook_endpoints",
            &[
                ("url", "https://app.example/hook"),
                ("enabled_events[]", "invoice.paid"),
                ("api_version", "2024-06-20"),
            ],
        )
        .await;
    let shown = bank.get(&format!("webhook_endpoints/{}", id(&made))).await;

    assert!(words(&made["secret"]).starts_with("whsec_"));
    assert_eq!(shown.get("secret"), None);
    assert_eq!(shown["api_version"], "2024-06-20");
}

#[tokio::test]
async fn no_two_things_have_one_id() {
    let bank = Bank::new().await;
    bank.subscriber("pm_card_visa", &[]).await;
    bank.subscriber("pm_card_visa", &[]).await;

    let events = bank.get("events?limit=100").await;
    let ids: Vec<_> = events["data"].as_array().unwrap().iter().map(id).collect();

    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
}
