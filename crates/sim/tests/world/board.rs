//! The board of the payment providers.
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use serde_json::{Value, json};
use sim::{Options, WebhookTarget, World};

use crate::{http, soon, world};

async fn put(world: &World, path: &str, body: Value) -> (u16, Value) {
    let url = format!("{}/{path}", world.payments_url());
    let answer = http().put(url).json(&body).send().await.unwrap();
    (
        answer.status().as_u16(),
        answer.json().await.unwrap_or_default(),
    )
}

async fn form(world: &World, path: &str, form: &'static str) -> (u16, String) {
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none());
    let url = format!("{}/{path}", world.payments_url());
    let request = client
        .build()
        .unwrap()
        .post(url)
        .header("content-type", "application/x-www-form-urlencoded");
    let answer = request.body(form).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

async fn board(world: &World) -> String {
    http()
        .get(world.payments_url())
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap()
}

async fn customer(world: &World) {
    let url = format!("{}/v1/customers", world.stripe_url());
    http()
        .post(url)
        .bearer_auth("sk_test_1")
        .send()
        .await
        .unwrap()
        .error_for_status()
        .unwrap();
}

#[tokio::test]
async fn faults_are_set_as_json_or_ticked() {
    let world = world().await;

    let (_, set) = put(
        &world,
        "faults",
        json!({"reorder": 7, "api": "429", "api_times": 2}),
    )
    .await;
    let (unknown, _) = put(&world, "faults", json!({"explode": true})).await;
    let (ticked, _) = form(
        &world,
        "faults",
        "duplicate=true&drop=true&reorder=&delay_s=30&api=&api_times=",
    )
    .await;
    let now: Value = http()
        .get(format!("{}/faults", world.payments_url()))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();

    assert_eq!(
        (&set["reorder"], &set["api"], &set["api_times"]),
        (&json!(7), &json!("429"), &json!(2))
    );
    assert_eq!((unknown, ticked), (422, 303));
    assert_eq!(
        (
            &now["duplicate"],
            &now["drop"],
            &now["twin"],
            &now["reorder"],
            &now["delay_s"]
        ),
        (
            &json!(true),
            &json!(true),
            &json!(false),
            &Value::Null,
            &json!(30)
        )
    );
    assert!(board(&world).await.contains("checked"));
}

#[tokio::test]
async fn the_clock_turns_forward_alone() {
    let world = world().await;

    let (_, turned) = put(&world, "clock", json!({"by_s": 86_400 * 3})).await;
    form(&world, "clock", "by_s=3600").await;
    let (backward, _) = put(&world, "clock", json!({"by_s": -1})).await;
    let (too_far, _) = put(&world, "clock", json!({"by_s": u64::MAX})).await;

    assert_eq!(turned["turned_s"], 86_400 * 3);
    assert_eq!((backward, too_far), (422, 409));
    assert!(board(&world).await.contains("3 days ahead"));
}

#[tokio::test]
async fn a_phone_buys_and_gives_back_at_the_board() {
    let world = world().await;

    form(
        &world,
        "phones",
        "id=u1&product=com.example.pro.monthly&entitlement=pro_access&store=PLAY_STORE",
    )
    .await;
    let bought = board(&world).await;
    let (again, _) = form(
        &world,
        "phones",
        "id=u1&product=com.example.pro.monthly&entitlement=pro_access&store=PLAY_STORE",
    )
    .await;
    form(&world, "phones/u1", "act=cancel&to=").await;
    let cancelled = board(&world).await;
    form(&world, "phones/u1", "act=transfer&to=u2").await;
    let (nothing, _) = form(&world, "phones/u1", "act=renew&to=").await;

    assert!(bought.contains("PLAY_STORE, until") && !bought.contains(", cancelled"));
    assert!(cancelled.contains(", cancelled"));
    assert_eq!((again, nothing), (409, 409));
    assert!(board(&world).await.contains("<code>u2</code>"));
}

/// What arrived at a backend that refuses the first.
async fn stubborn() -> (World, Arc<Mutex<Vec<String>>>) {
    let arrived: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = arrived.clone();
    let receive = async move |body: Bytes| {
        let event: Value = serde_json::from_slice(&body).unwrap();
        let mut kept = kept.lock().unwrap();
        kept.push(event["id"].as_str().unwrap().to_owned());
        if kept.len() == 1 {
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            StatusCode::OK
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async {
        axum::serve(
            listener,
            Router::new().route("/webhooks/stripe", post(receive)),
        )
        .await
    });
    let webhooks = Some(WebhookTarget {
        base_url,
        stripe_secret: "whsec_1".to_owned(),
        revenuecat_secret: "rc".to_owned(),
    });
    (
        sim::start(Options {
            webhooks,
            ..Options::default()
        })
        .await
        .unwrap(),
        arrived,
    )
}

async fn until(arrived: &Mutex<Vec<String>>, count: usize) {
    soon(async {
        while arrived.lock().unwrap().len() < count {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_was_refused_is_sent_again_when_its_time_comes_and_whenever_someone_wants() {
    let (world, arrived) = stubborn().await;

    customer(&world).await;
    until(&arrived, 1).await;
    put(&world, "clock", json!({"by_s": 60})).await;
    until(&arrived, 2).await;
    let id = arrived.lock().unwrap()[0].clone();
    let url = format!("{}/events/{id}/send", world.payments_url());
    http().post(url).send().await.unwrap();
    until(&arrived, 3).await;

    assert!(arrived.lock().unwrap().iter().all(|arrived| *arrived == id));
    let page = board(&world).await;
    assert!(page.contains("customer.created") && page.contains(">503<") && page.contains(">200<"));
}
