//! The simulated RevenueCat, as a server and a phone meet it.
use std::time::Duration;

use serde_json::{Value, json};
use sim::revenuecat::{Act, Bought};
use sim::{ApiFault, Faults, Options, World};

use crate::http;

const START: i64 = 1_795_167_000;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

async fn world() -> World {
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
    world
}

async fn subscriber(world: &World, id: &str) -> (u16, Value) {
    let url = format!("{}/v1/subscribers/{id}", world.revenuecat_url());
    let answer = http().get(url).bearer_auth("sk_any").send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// What was told since the last time, and taken.
fn told(world: &World) -> Vec<Value> {
    let letters = world.letters().into_iter();
    letters
        .map(|(letter, _)| {
            let event: Value = serde_json::from_str(&letter.body).unwrap();
            world.answered(letter, 200);
            event["event"].clone()
        })
        .collect()
}

fn types(told: &[Value]) -> Vec<&str> {
    told.iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect()
}

fn bought() -> Act {
    Act::Purchase(Bought::default())
}

#[tokio::test]
async fn whoever_is_asked_for_is_known_from_then_on() {
    let world = world().await;

    let (first, nothing) = subscriber(&world, "u1").await;
    let (second, _) = subscriber(&world, "u1").await;
    let refused = http()
        .get(format!("{}/v1/subscribers/u1", world.revenuecat_url()))
        .bearer_auth("appl_public")
        .send()
        .await
        .unwrap();

    assert_eq!((first, second, refused.status().as_u16()), (201, 200, 401));
    assert_eq!(nothing["subscriber"]["entitlements"], json!({}));
}

#[tokio::test]
async fn what_is_bought_is_shown_as_revenuecat_shows_it() {
    let world = world().await;
    world.revenuecat().act("u1", bought()).unwrap();
    let lifetime = Bought {
        product: "com.example.lifetime".to_owned(),
        entitlement: Some("standard_access".to_owned()),
        once: true,
        ..Bought::default()
    };
    world
        .revenuecat()
        .act("u1", Act::Purchase(lifetime))
        .unwrap();

    let (_, shown) = subscriber(&world, "u1").await;

    let names = |of: &Value| {
        of.as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
            .join(" ")
    };
    let product = &shown["subscriber"]["subscriptions"]["com.example.pro.monthly"];
    let once = &shown["subscriber"]["non_subscriptions"]["com.example.lifetime"][0];
    assert_eq!(
        [names(&shown["subscriber"]), names(product), names(once)],
        [
            "entitlements first_seen last_seen management_url non_subscriptions original_app_user_id original_application_version original_purchase_date other_purchases subscriber_attributes subscriptions",
            "auto_resume_date billing_issues_detected_at display_name expires_date grace_period_expires_date is_sandbox original_purchase_date ownership_type period_type price purchase_date refunded_at store store_transaction_id unsubscribe_detected_at",
            "display_name id is_sandbox price purchase_date store store_transaction_id",
        ]
    );
    let entitlements = &shown["subscriber"]["entitlements"];
    assert_eq!(
        entitlements["pro_access"]["expires_date"],
        "2026-12-20T09:30:00Z"
    );
    assert_eq!(entitlements["standard_access"]["expires_date"], Value::Null);
    assert_eq!(
        types(&told(&world)),
        ["INITIAL_PURCHASE", "NON_RENEWING_PURCHASE"]
    );
}

#[tokio::test]
async fn it_renews_by_itself_until_it_is_cancelled() {
    let world = world().await;
    world.revenuecat().act("u1", bought()).unwrap();
    world.stripe().advance(DAY * 61);
    let renewed = told(&world);
    world.revenuecat().act("u1", Act::Cancel).unwrap();
    let (_, leaving) = subscriber(&world, "u1").await;

    world.stripe().advance(DAY * 30);
    let ended = told(&world);

    assert_eq!(types(&renewed), ["INITIAL_PURCHASE", "RENEWAL", "RENEWAL"]);
    assert_eq!(
        renewed[1]["event_timestamp_ms"],
        (START + 30 * 86_400) * 1000
    );
    assert_ne!(renewed[1]["transaction_id"], renewed[2]["transaction_id"]);
    let product = &leaving["subscriber"]["subscriptions"]["com.example.pro.monthly"];
    assert!(product["unsubscribe_detected_at"].is_string());
    assert_eq!(types(&ended), ["CANCELLATION", "EXPIRATION"]);
    assert_eq!(
        (&ended[0]["cancel_reason"], &ended[1]["expiration_reason"]),
        (&json!("UNSUBSCRIBE"), &json!("UNSUBSCRIBE"))
    );
    world.stripe().advance(DAY * 300);
    assert!(told(&world).is_empty());
}

#[tokio::test]
async fn what_cannot_be_charged_ends_after_its_grace_unless_it_is_renewed() {
    let world = world().await;
    for id in ["loses", "recovers"] {
        world.revenuecat().act(id, bought()).unwrap();
    }
    world.stripe().advance(DAY * 29);
    for id in ["loses", "recovers"] {
        world
            .revenuecat()
            .act(
                id,
                Act::BillingIssue {
                    grace_days: Some(6),
                },
            )
            .unwrap();
    }
    world.stripe().advance(DAY * 3);
    let within_grace = told(&world);
    world.revenuecat().act("recovers", Act::Renew).unwrap();

    world.stripe().advance(DAY * 4);

    assert!(!types(&within_grace).contains(&"EXPIRATION"));
    let after = told(&world);
    assert_eq!(types(&after), ["RENEWAL", "EXPIRATION"]);
    assert_eq!(
        (&after[1]["app_user_id"], &after[1]["expiration_reason"]),
        (&json!("loses"), &json!("BILLING_ERROR"))
    );
    let (_, recovered) = subscriber(&world, "recovers").await;
    assert_eq!(
        recovered["subscriber"]["subscriptions"]["com.example.pro.monthly"]["billing_issues_detected_at"],
        Value::Null
    );
}

#[tokio::test]
async fn a_transfer_moves_everything_and_a_refund_ends_it() {
    let world = world().await;
    world
        .revenuecat()
        .act("$RCAnonymousID:1", bought())
        .unwrap();
    world
        .revenuecat()
        .act(
            "$RCAnonymousID:1",
            Act::Alias {
                id: "u1".to_owned(),
            },
        )
        .unwrap();
    world
        .revenuecat()
        .act(
            "u1",
            Act::Transfer {
                to: "u2".to_owned(),
            },
        )
        .unwrap();
    world.revenuecat().act("u2", Act::Refund).unwrap();

    let told = told(&world);
    let (_, one) = subscriber(&world, "u1").await;
    let (_, two) = subscriber(&world, "u2").await;

    assert_eq!(
        types(&told),
        ["INITIAL_PURCHASE", "TRANSFER", "CANCELLATION", "EXPIRATION"]
    );
    assert_eq!(
        (&told[1]["transferred_from"], &told[1]["transferred_to"]),
        (&json!(["$RCAnonymousID:1", "u1"]), &json!(["u2"]))
    );
    assert_eq!(told[2]["cancel_reason"], "CUSTOMER_SUPPORT");
    assert_eq!(one["subscriber"]["subscriptions"], json!({}));
    assert!(
        two["subscriber"]["subscriptions"]["com.example.pro.monthly"]["refunded_at"].is_string()
    );
    assert!(world.revenuecat().act("u1", Act::Cancel).is_err());
}

#[tokio::test]
async fn a_phone_can_be_played_over_http_and_a_wrong_wish_is_told() {
    let world = world().await;
    let act = async |act: Value| {
        let url = format!("{}/revenuecat/subscribers/u1", world.revenuecat_url());
        let answer = http().post(url).json(&act).send().await.unwrap();
        (
            answer.status().as_u16(),
            answer.json::<Value>().await.unwrap_or_default(),
        )
    };

    let (early, _) = act(json!({"act": "cancel"})).await;
    let (done, shown) = act(json!({"act": "purchase", "store": "PLAY_STORE", "trial": true})).await;
    let (again, _) = act(json!({"act": "purchase"})).await;
    let (unknown, _) = act(json!({"act": "steal"})).await;

    assert_eq!((early, done, again, unknown), (409, 200, 409, 422));
    assert_eq!(
        shown["subscriber"]["subscriptions"]["com.example.pro.monthly"]["period_type"],
        "trial"
    );
}

#[tokio::test]
async fn its_events_carry_the_secret_and_a_signature_where_signing_is_on() {
    let world = world().await;
    world.revenuecat().sign_with("signs");
    world.revenuecat().act("u1", bought()).unwrap();

    let (letter, headers) = world.letters().remove(0);

    let signature = webhooks::signature::sign(letter.body.as_bytes(), "signs", START);
    assert_eq!(
        headers,
        [
            ("authorization", "Bearer rc_ours".to_owned()),
            ("x-revenuecat-webhook-signature", signature)
        ]
    );
    // Nothing but 200 counts.
    world.answered(letter, 204);
    world.stripe().advance(Duration::from_secs(300));
    assert_eq!(world.letters().len(), 1);
}

#[tokio::test]
async fn its_api_fails_when_it_is_told_to() {
    let world = world().await;

    world.set_faults(Faults {
        api: Some(ApiFault::RateLimited),
        api_times: Some(1),
        ..Faults::default()
    });
    let (limited, said) = subscriber(&world, "u1").await;
    let (after, _) = subscriber(&world, "u1").await;

    assert_eq!((limited, &said["code"], after), (429, &json!(7638), 201));
}

#[tokio::test]
async fn another_product_takes_the_place_of_the_first_in_one_subscription() {
    let world = world().await;
    world.revenuecat().act("u1", bought()).unwrap();
    world.stripe().advance(DAY * 10);
    let standard = Act::ChangeProduct {
        product: "com.example.standard.monthly".to_owned(),
        entitlement: Some("standard_access".to_owned()),
        later: false,
    };
    world.revenuecat().act("u1", standard).unwrap();
    world.stripe().advance(DAY * 31);

    let told = told(&world);

    assert_eq!(
        types(&told),
        ["INITIAL_PURCHASE", "PRODUCT_CHANGE", "RENEWAL", "RENEWAL"]
    );
    assert_eq!(told[1]["new_product_id"], "com.example.standard.monthly");
    assert_eq!(told[2]["product_id"], "com.example.standard.monthly");
    let first = |event: &Value| event["original_transaction_id"].clone();
    assert!(told.iter().all(|event| first(event) == first(&told[0])));
    let (_, shown) = subscriber(&world, "u1").await;
    let ends =
        |product: &str| shown["subscriber"]["subscriptions"][product]["expires_date"].clone();
    assert_eq!(ends("com.example.pro.monthly"), "2026-11-30T09:30:00Z");
    assert_eq!(ends("com.example.standard.monthly"), "2027-01-29T09:30:00Z");
}

#[tokio::test]
async fn a_pause_begins_with_the_next_period_and_ends_by_itself() {
    let world = world().await;
    world.revenuecat().act("u1", bought()).unwrap();
    world
        .revenuecat()
        .act("u1", Act::Pause { days: 10 })
        .unwrap();
    let (_, pausing) = subscriber(&world, "u1").await;
    world.stripe().advance(DAY * 31);
    let paused = told(&world);
    world.stripe().advance(DAY * 10);

    let resumed = told(&world);

    let product = &pausing["subscriber"]["subscriptions"]["com.example.pro.monthly"];
    assert_eq!(product["auto_resume_date"], "2026-12-30T09:30:00Z");
    assert_eq!(
        types(&paused),
        ["INITIAL_PURCHASE", "SUBSCRIPTION_PAUSED", "EXPIRATION"]
    );
    assert_eq!(paused[2]["expiration_reason"], "SUBSCRIPTION_PAUSED");
    assert_eq!(types(&resumed), ["RENEWAL"]);
}
