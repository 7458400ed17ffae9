use serde_json::Value;
use serde_json::json;
use webhooks::stripe::{
    Change, Event, Item, Status, Subscription, read, read_subscription, with_object,
};

use super::{CUSTOMER, INVOICE, SUBSCRIPTION, USER, event, reread};
use crate::fixtures;

const PRO: &str = "price_ssBo1WFvXFtP6tow57y4zGfu";
const PERIOD_START: i64 = 1_794_000_000;
const PERIOD_END: i64 = 1_796_592_000;

fn subscription_of(event: Event) -> Subscription {
    match event.change {
        Change::Subscription(subscription) => subscription,
        other => panic!("{other:?}"),
    }
}

fn subscription(variant: &str) -> Subscription {
    subscription_of(event(&format!("endive--customer.subscription.{variant}")))
}

#[test]
fn a_subscription_says_who_what_and_until_when() {
    let event = event("endive--customer.subscription.updated--cancel-at-period-end");

    assert_eq!(event.object_id.as_deref(), Some(SUBSCRIPTION));
    assert_eq!(event.customer.as_deref(), Some(CUSTOMER));
    assert!(!event.livemode);
    assert_eq!(event.account, None);
    assert_eq!(
        event.change,
        Change::Subscription(Subscription {
            id: SUBSCRIPTION.into(),
            customer: Some(CUSTOMER.into()),
            status: Status::Active,
            deleted: false,
            user_id: Some(USER.into()),
            items: vec![Item {
                price: PRO.into(),
                product: Some("prod_H6YnjA6GeRYEsc".into()),
                quantity: 1,
                lookup_key: Some("pro_month".into()),
                entitlements: vec!["pro_access".into()],
            }],
            created: Some(1_794_000_000),
            period_start: Some(PERIOD_START),
            period_end: Some(PERIOD_END),
            trial_end: None,
            cancel_at: Some(PERIOD_END),
            cancel_at_period_end: true,
            canceled_at: Some(1_794_777_600),
            ended_at: None,
            cancellation_reason: Some("cancellation_requested".into()),
            pause_collection: None,
            latest_invoice: Some(INVOICE.into()),
            previous_status: None,
        })
    );
}

#[test]
fn each_change_of_a_subscription_shows() {
    assert_eq!(
        subscription("created--incomplete").status,
        Status::Incomplete
    );
    assert_eq!(
        subscription("created--trialing").trial_end,
        Some(1_794_604_800)
    );
    assert_eq!(subscription("updated--quantity").items[0].quantity, 5);
    assert_eq!(
        subscription("updated--past_due").previous_status.as_deref(),
        Some("active")
    );
    assert_eq!(subscription("updated--unknown-customer").user_id, None);
    assert_eq!(
        subscription("updated--pause-collection")
            .pause_collection
            .as_deref(),
        Some("void")
    );
    assert_eq!(
        subscription("paused--pause-endpoint").status,
        Status::Paused
    );

    let ended = subscription("deleted--payment-failed");
    assert!(ended.deleted);
    assert_eq!(ended.status, Status::Canceled);
    assert_eq!(ended.ended_at, Some(1_798_406_400));
    assert_eq!(ended.cancellation_reason.as_deref(), Some("payment_failed"));
}

#[test]
fn a_pending_update_does_not_show_until_it_is_applied() {
    assert_eq!(subscription("updated--pending-update").items[0].price, PRO);
    assert_eq!(
        subscription("pending_update_applied").items[0].price,
        "price_PQieLk3mwKBOxnog9DxmOLWX"
    );
}

#[test]
fn the_item_that_runs_longest_sets_the_period() {
    let mut body = fixtures::json("stripe/endive--customer.subscription.created--active.json");
    // What an older version would have sent is not asked when the items know.
    body["data"]["object"]["current_period_end"] = json!(PERIOD_END + 2);
    let monthly = body["data"]["object"]["items"]["data"][0].clone();
    let mut yearly = monthly.clone();
    yearly["current_period_start"] = json!(PERIOD_START + 1);
    yearly["current_period_end"] = json!(PERIOD_END + 1);

    for in_order in [[&monthly, &yearly], [&yearly, &monthly]] {
        body["data"]["object"]["items"]["data"] = json!(in_order);
        let subscription = subscription_of(reread(&body));

        assert_eq!(subscription.period_start, Some(PERIOD_START + 1));
        assert_eq!(subscription.period_end, Some(PERIOD_END + 1));
        assert_eq!(subscription.items.len(), 2);
    }
}

#[test]
fn a_status_of_the_future_keeps_its_name() {
    let mut body = fixtures::json("stripe/endive--customer.subscription.created--active.json");
    body["data"]["object"]["status"] = json!("hibernating");

    let status = subscription_of(reread(&body)).status;

    assert_eq!(status, Status::Unknown("hibernating".into()));
    assert_eq!(status.as_str(), "hibernating");
    assert_eq!(Status::PastDue.as_str(), "past_due");
}

#[test]
fn an_id_may_come_as_the_object_that_has_it() {
    let file = "stripe/endive--customer.subscription.created--active.json";
    let mut body = fixtures::json(file);
    let object = &mut body["data"]["object"];
    object["customer"] = json!({ "id": CUSTOMER, "object": "customer", "deleted": true });
    object["latest_invoice"] = json!({ "id": INVOICE, "object": "invoice" });
    let item = &mut object["items"]["data"][0];
    item["price"]["product"] = json!({ "id": "prod_H6YnjA6GeRYEsc", "object": "product" });

    assert_eq!(reread(&body), read(&fixtures::body(file)).unwrap());
}

#[test]
fn an_item_from_before_prices_is_known_by_its_plan() {
    let file = "stripe/legacy--customer.subscription.created--active.json";
    let mut body = fixtures::json(file);
    let item = &mut body["data"]["object"]["items"]["data"][0];
    item["plan"]["lookup_key"] = item["price"]["lookup_key"].clone();
    item["plan"]["metadata"] = item["price"]["metadata"].clone();
    item.as_object_mut().unwrap().remove("price");

    assert_eq!(reread(&body), read(&fixtures::body(file)).unwrap());
}

#[test]
fn a_fetched_subscription_reads_like_the_one_in_an_event() {
    for shape in ["legacy", "endive"] {
        let file = format!("{shape}--customer.subscription.created--active");
        let object = &fixtures::json(&format!("stripe/{file}.json"))["data"]["object"];

        let fetched = read_subscription(object).unwrap();

        assert_eq!(fetched, subscription_of(event(&file)));
    }
}

/// Invariant 24.
#[test]
fn inv_24_a_thin_event_with_its_object_reads_like_the_snapshot() {
    let mut thin = fixtures::json("stripe/thin--v1.customer.subscription.updated.json");
    for kind in [
        "v1.customer.subscription.updated",
        "v1.customer.subscription.past_due",
    ] {
        thin["type"] = kind.into();
        let event = read(thin.to_string().as_bytes()).unwrap();
        let snapshot =
            fixtures::json("stripe/endive--customer.subscription.updated--quantity.json");

        let told = with_object(event.clone(), &snapshot["data"]["object"]).unwrap();

        assert_eq!(
            told.change,
            Change::Subscription(subscription("updated--quantity"))
        );
        assert_eq!(told.kind, kind.trim_start_matches("v1."));
        assert_eq!((told.id, told.created), (event.id, event.created));
        assert_eq!(told.customer.as_deref(), Some(CUSTOMER));
    }
}

#[test]
fn a_price_says_by_name_and_in_its_metadata_what_it_opens() {
    let mut body = fixtures::json("stripe/endive--customer.subscription.created--active.json");
    let price = &mut body["data"]["object"]["items"]["data"][0]["price"];
    price["metadata"] = serde_json::json!({"entitlement": "pro, support ,", "plan": "ignored"});
    let item = |body: &Value| subscription_of(reread(body)).items.remove(0);
    assert_eq!(item(&body).entitlements, ["pro", "support"]);
    body["data"]["object"]["items"]["data"][0]["price"]["metadata"] =
        serde_json::json!({"plan": "pro"});
    assert_eq!(item(&body).entitlements, ["pro"]);
    body["data"]["object"]["items"]["data"][0]["price"]["metadata"] = serde_json::json!({});
    assert_eq!(item(&body).entitlements, [""; 0]);
}
