use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::{Value, json};
use sim::revenuecat::RevenueCat;
use sim::stripe::Stripe;
use sim::{Options, WebhookTarget, World};
use tokio::sync::mpsc;

use crate::{http, soon, world};

const NOW: i64 = 1_794_000_000;

/// A world and a backend that keeps what it is sent.
async fn with_backend() -> (World, mpsc::UnboundedReceiver<(HeaderMap, Bytes)>) {
    let (sender, received) = mpsc::unbounded_channel();
    let receive = async move |headers: HeaderMap, body: Bytes| {
        sender.send((headers, body)).unwrap();
        (StatusCode::ACCEPTED, r#"{"received":true}"#)
    };
    let router = Router::new()
        .route("/webhooks/stripe", post(receive.clone()))
        .route("/webhooks/revenuecat", post(receive));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, router).await });

    let options = Options {
        webhooks: Some(WebhookTarget {
            base_url,
            stripe_secret: "whsec_development".to_owned(),
            revenuecat_secret: "rc_development".to_owned(),
        }),
        ..Options::default()
    };
    (sim::start(options).await.unwrap(), received)
}

async fn send(world: &World, path: &str, body: Value) -> (u16, Value) {
    let response = http()
        .post(format!("{}{path}", world.home_url()))
        .json(&body)
        .send()
        .await
        .unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (
        status,
        serde_json::from_str(&text).unwrap_or(Value::String(text)),
    )
}

#[tokio::test]
async fn a_stripe_event_is_signed_and_sent_and_its_answer_shown() {
    let (world, mut received) = with_backend().await;

    let body = json!({"type": "customer.subscription.updated", "user_id": "u1", "price": "price_x", "status": "past_due"});
    let (status, shown) = send(&world, "stripe/events", body).await;

    let (headers, raw) = soon(received.recv()).await.unwrap();
    let sent: Value = serde_json::from_slice(&raw).unwrap();
    assert_eq!(
        (status, &shown["status"], &shown["answer"]),
        (200, &json!(202), &json!({"received": true}))
    );
    assert_eq!(shown["sent"], sent);
    assert_eq!(sent["data"]["object"]["status"], "past_due");
    assert_eq!(
        sent["data"]["previous_attributes"],
        json!({"status": "active"})
    );
    let signature = headers["stripe-signature"].to_str().unwrap();
    let at: i64 = signature.split([',', '=']).nth(1).unwrap().parse().unwrap();
    assert_eq!(
        signature,
        webhooks::signature::sign(&raw, "whsec_development", at)
    );
    assert_eq!(sent["created"], at);
}

#[tokio::test]
async fn a_revenuecat_event_carries_the_secret() {
    let (world, mut received) = with_backend().await;

    let body = json!({"type": "EXPIRATION", "user_id": "u1", "reason": "BILLING_ERROR"});
    let (status, shown) = send(&world, "revenuecat/events", body).await;

    let (headers, _) = soon(received.recv()).await.unwrap();
    assert_eq!(
        (status, &headers["authorization"]),
        (200, &"Bearer rc_development".parse().unwrap())
    );
    assert_eq!(shown["sent"]["event"]["expiration_reason"], "BILLING_ERROR");
}

/// Whether it is open by the API's account, who holds it, and whether it will renew.
async fn held(world: &World, id: &str) -> Option<(String, bool)> {
    let url = format!("{}/v1/subscribers/{id}", world.revenuecat_url());
    let answer = http().get(url).bearer_auth("sk_any").send().await.unwrap();
    let shown: Value = answer.json().await.unwrap();
    let product = &shown["subscriber"]["subscriptions"]["com.example.pro.monthly"];
    let ends = product["expires_date"].as_str()?.to_owned();
    Some((ends, product["unsubscribe_detected_at"].is_null()))
}

#[tokio::test]
async fn what_a_made_up_event_says_is_what_the_api_says_from_then_on() {
    let (world, _received) = with_backend().await;
    let tell = async |kind: &str, at: i64, more: Value| {
        let mut body = json!({"type": kind, "user_id": "u1", "happened_at": at});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        assert_eq!(send(&world, "revenuecat/events", body).await.0, 200);
    };
    let now = unix_now();
    let day = 24 * 60 * 60;

    tell("INITIAL_PURCHASE", now - 40 * day, json!({})).await;
    tell("RENEWAL", now - 10 * day, json!({})).await;
    let renewed = held(&world, "u1").await.unwrap();
    // Told late, of the period before.
    tell("EXPIRATION", now - 10 * day, json!({})).await;
    tell("CANCELLATION", now - 20 * day, json!({})).await;
    assert_eq!(held(&world, "u1").await.unwrap(), renewed);
    assert!(renewed.1);
    tell("CANCELLATION", now - day, json!({"expires_in_s": 21 * day})).await;
    assert_eq!(
        held(&world, "u1").await.unwrap(),
        (renewed.0.clone(), false)
    );

    tell("TRANSFER", now, json!({"to_user_id": "u2"})).await;
    assert_eq!(held(&world, "u1").await, None);
    assert_eq!(held(&world, "u2").await.unwrap(), (renewed.0, false));
    tell("TEST", now, json!({"user_id": "u3"})).await;
    assert_eq!(held(&world, "u3").await, None);
}

fn unix_now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_secs()).unwrap()
}

#[tokio::test]
async fn a_sender_says_why_it_cannot_send() {
    let nowhere = world().await;
    let (world, _received) = with_backend().await;

    let (no_target, _) = send(&nowhere, "stripe/events", json!({})).await;
    nowhere.send_events_to(WebhookTarget {
        base_url: "http://127.0.0.1:1".to_owned(),
        stripe_secret: "s".to_owned(),
        revenuecat_secret: "s".to_owned(),
    });
    let (unknown_type, why) = send(
        &world,
        "stripe/events",
        json!({"type": "customer.frobnicated"}),
    )
    .await;
    let (unknown_field, _) = send(&world, "revenuecat/events", json!({"usr_id": "u1"})).await;
    let (no_backend, _) = send(&nowhere, "revenuecat/events", json!({})).await;

    assert_eq!(
        (no_target, unknown_type, unknown_field, no_backend),
        (409, 400, 422, 502)
    );
    assert!(
        why["error"]["message"]
            .as_str()
            .unwrap()
            .contains("invoice.paid")
    );
}

#[test]
fn events_of_one_user_belong_together() {
    let of = |kind: &str| {
        let spec = Stripe {
            kind: kind.to_owned(),
            user_id: Some("u1".to_owned()),
            ..Stripe::default()
        };
        sim::stripe::event(&spec, NOW)
    };

    let created = of("customer.subscription.created");
    let session = of("checkout.session.completed");
    let invoice = of("invoice.paid");

    let subscription = &created["data"]["object"]["id"];
    assert_ne!(created["id"], session["id"]);
    assert_eq!(&session["data"]["object"]["subscription"], subscription);
    assert_eq!(
        &invoice["data"]["object"]["parent"]["subscription_details"]["subscription"],
        subscription
    );
    assert_eq!(
        created["data"]["object"]["customer"],
        invoice["data"]["object"]["customer"]
    );
    assert_eq!(session["data"]["object"]["client_reference_id"], "u1");
    assert_eq!(
        session["data"]["object"]["invoice"],
        invoice["data"]["object"]["id"]
    );
}

#[test]
fn a_given_id_and_clock_make_the_same_event_again() {
    let spec = Stripe {
        id: Some("evt_1".to_owned()),
        ..Stripe::default()
    };
    let purchase = RevenueCat {
        id: Some("1".to_owned()),
        ..RevenueCat::default()
    };

    assert_eq!(
        sim::stripe::event(&spec, NOW),
        sim::stripe::event(&spec, NOW)
    );
    assert_eq!(
        sim::revenuecat::event(&purchase, NOW),
        sim::revenuecat::event(&purchase, NOW)
    );
}

#[test]
fn the_period_is_on_the_subscription_s_items() {
    let spec = Stripe {
        period_end: Some(NOW + 86_400),
        cancel_at_period_end: true,
        ..Stripe::default()
    };

    let event = sim::stripe::event(&spec, NOW);

    let subscription = &event["data"]["object"];
    assert_eq!(event["api_version"], "2026-10-28.endive");
    assert_eq!(
        subscription["items"]["data"][0]["current_period_end"],
        NOW + 86_400
    );
    assert_eq!(subscription.get("current_period_end"), None);
    assert_eq!(
        (&subscription["cancel_at"], &subscription["canceled_at"]),
        (&json!(NOW + 86_400), &json!(NOW))
    );
}

#[test]
fn a_deleted_subscription_and_a_failed_invoice_say_so() {
    let of = |kind: &str| {
        sim::stripe::event(
            &Stripe {
                kind: kind.to_owned(),
                ..Stripe::default()
            },
            NOW,
        )
    };

    let deleted = of("customer.subscription.deleted");
    let failed = of("invoice.payment_failed");
    let paid = of("invoice.paid");

    let deleted = &deleted["data"]["object"];
    assert_eq!(
        (&deleted["status"], &deleted["ended_at"]),
        (&json!("canceled"), &json!(NOW))
    );
    let (failed, paid) = (&failed["data"]["object"], &paid["data"]["object"]);
    assert_eq!(
        (&failed["status"], &failed["amount_paid"]),
        (&json!("open"), &json!(0))
    );
    assert_eq!(
        (&paid["status"], &paid["amount_remaining"]),
        (&json!("paid"), &json!(0))
    );
}

#[test]
fn revenuecat_s_types_have_their_own_fields() {
    let of = |kind: &str| {
        let spec = RevenueCat {
            kind: kind.to_owned(),
            user_id: "u1".to_owned(),
            expires_in_s: Some(60),
            ..RevenueCat::default()
        };
        sim::revenuecat::event(&spec, NOW)["event"].clone()
    };

    assert_eq!(
        of("INITIAL_PURCHASE")["expiration_at_ms"],
        (NOW + 60) * 1000
    );
    assert_eq!(
        of("INITIAL_PURCHASE")["entitlement_ids"],
        json!(["pro_access"])
    );
    assert_eq!(of("RENEWAL")["is_trial_conversion"], false);
    assert_eq!(of("CANCELLATION")["cancel_reason"], "UNSUBSCRIBE");
    assert_eq!(
        of("BILLING_ISSUE")["grace_period_expiration_at_ms"],
        (NOW + 16 * 86_400) * 1000
    );
    assert_eq!(of("TRANSFER")["transferred_from"], json!(["u1"]));
    assert_eq!(of("TRANSFER").get("app_user_id"), None);
    for kind in sim::revenuecat::TYPES {
        assert_eq!(of(kind)["type"], *kind);
    }
}

#[test]
fn the_backend_reads_what_is_built() {
    use webhooks::stripe::Change;
    let user = Some("u1".to_owned());

    for kind in sim::stripe::TYPES {
        let spec = Stripe {
            kind: kind.to_string(),
            user_id: user.clone(),
            ..Stripe::default()
        };
        let body = sim::stripe::event(&spec, NOW).to_string();

        let event = webhooks::stripe::read(body.as_bytes()).unwrap();

        let named = match event.change {
            Change::Subscription(subscription) => {
                assert_eq!(subscription.period_end, Some(NOW + 30 * 86_400));
                subscription.user_id
            }
            Change::Checkout(checkout) => checkout.user_id,
            Change::Invoice(invoice) => {
                assert!(invoice.subscription.is_some());
                invoice.user_id
            }
            other => panic!("{kind}: {other:?}"),
        };
        assert_eq!((named, event.created), (user.clone(), NOW), "{kind}");
    }
    for kind in sim::revenuecat::TYPES {
        let spec = RevenueCat {
            kind: kind.to_string(),
            user_id: "u1".to_owned(),
            ..RevenueCat::default()
        };
        let body = sim::revenuecat::event(&spec, NOW).to_string();

        let event = webhooks::revenuecat::read(body.as_bytes()).unwrap();

        let ids = if *kind == "TRANSFER" {
            event.transferred_from
        } else {
            event.app_user_ids
        };
        assert_eq!(
            (ids[0].as_str(), event.at_ms, event.sandbox),
            ("u1", NOW * 1000, true),
            "{kind}"
        );
    }
}
