//! Stripe's events: what surrounds an object here, the objects in the modules.

mod money;
mod subscription;

use serde_json::{Value, json};
use webhooks::stripe::{Change, Customer, Event, read};

use crate::fixtures;

const USER: &str = "8c1d1d7e-5f0a-4a53-9b5e-0c2a7a4f3b11";
const CUSTOMER: &str = "cus_Pc0fgFWIeL6xwT";
const SUBSCRIPTION: &str = "sub_Cuw0wRIqyrT9o4CaDPqcowjS";
const INVOICE: &str = "in_uMTsHEeqlgTLUFwS9UuHNrUS";

fn event(fixture: &str) -> Event {
    read(&fixtures::body(&format!("stripe/{fixture}.json"))).unwrap()
}

fn reread(body: &Value) -> Event {
    read(body.to_string().as_bytes()).unwrap()
}

fn problem(body: &Value) -> String {
    read(body.to_string().as_bytes()).unwrap_err().0
}

#[test]
fn every_fixture_reads_as_what_the_index_says() {
    let index = fixtures::index("stripe");
    for entry in &index {
        let file = fixtures::text(entry, "file");
        let event = read(&fixtures::body(file)).unwrap_or_else(|e| panic!("{file}: {e}"));

        assert_eq!(event.id, fixtures::text(entry, "event_id"));
        assert_eq!(event.kind, fixtures::text(entry, "type"));
        assert_eq!(event.api_version.as_deref(), entry["api_version"].as_str());
        if let Some(created) = entry["created"].as_i64() {
            assert_eq!(event.created, created, "{file}");
        }
    }
    assert_eq!(index.len(), 129);
}

#[test]
fn both_shapes_of_an_event_tell_the_same() {
    // What one of the shapes has no place for, see the docs of these members.
    fn common(mut event: Event) -> Event {
        event.api_version = None;
        match &mut event.change {
            Change::Invoice(invoice) => invoice.payment_intent = None,
            Change::ChargeRefunded(charge) => charge.invoice = None,
            Change::Refund(_) => event.customer = None,
            _ => {}
        }
        event
    }

    let mut pairs = 0;
    for entry in fixtures::index("stripe") {
        let file = fixtures::text(&entry, "file");
        if !file.contains("legacy--") {
            continue;
        }
        let legacy = read(&fixtures::body(file)).unwrap();
        let endive = read(&fixtures::body(&file.replace("legacy--", "endive--"))).unwrap();

        assert_eq!(common(legacy), common(endive), "{file}");
        pairs += 1;
    }
    assert_eq!(pairs, 61);
}

#[test]
fn the_customer_of_a_customer_event_is_its_object() {
    let updated = event("endive--customer.updated");
    assert_eq!(updated.customer.as_deref(), Some(CUSTOMER));
    assert_eq!(
        updated.change,
        Change::Customer(Customer {
            id: CUSTOMER.into(),
            user_id: Some(USER.into()),
            email: Some("alice@new.example".into()),
        })
    );

    let deleted = event("endive--customer.deleted");
    assert_eq!(deleted.customer.as_deref(), Some(CUSTOMER));
    assert_eq!(deleted.change, Change::CustomerDeleted);
}

#[test]
fn a_thin_event_names_what_to_fetch() {
    let event = event("thin--v1.customer.subscription.updated");

    assert_eq!(
        event,
        Event {
            id: "evt_test_65ThinSubUpdated000001".into(),
            kind: "v1.customer.subscription.updated".into(),
            api_version: None,
            created: 1_793_974_803,
            livemode: false,
            account: None,
            object_id: Some(SUBSCRIPTION.into()),
            customer: None,
            change: Change::Thin {
                object_type: Some("subscription".into())
            },
        }
    );
}

#[test]
fn a_thin_event_may_be_about_no_object() {
    let mut body = fixtures::json("stripe/thin--v2.core.event_destination.ping.json");
    body["related_object"] = json!(null);

    let event = reread(&body);

    assert_eq!(event.object_id, None);
    assert_eq!(event.change, Change::Thin { object_type: None });
}

#[test]
fn an_unknown_type_is_kept_but_not_looked_into() {
    let unknown = event("endive--customer.subscription.frobnicated--unknown-type");
    assert_eq!(unknown.change, Change::Other);
    assert_eq!(unknown.object_id.as_deref(), Some(SUBSCRIPTION));
    assert_eq!(unknown.customer.as_deref(), Some(CUSTOMER));

    let odd = json!({ "id": "evt_1", "object": "event", "type": "quantum.entangled", "created": 1,
        "livemode": true, "data": { "object": { "id": 7, "object": [], "customer": {} } } });
    assert_eq!(reread(&odd).object_id, None);
    assert_eq!(reread(&odd).customer, None);
}

#[test]
fn an_object_that_does_not_belong_to_its_type_is_not_looked_into() {
    let mut body = fixtures::json("stripe/endive--customer.subscription.created--active.json");
    body["data"]["object"] = json!({ "id": CUSTOMER, "object": "customer" });

    let event = reread(&body);

    assert_eq!(event.change, Change::Other);
    assert_eq!(event.customer.as_deref(), Some(CUSTOMER));
}

#[test]
fn an_event_of_another_account_says_so() {
    let mut snapshot = fixtures::json("stripe/endive--customer.deleted.json");
    snapshot["account"] = json!("acct_connected");
    assert_eq!(reread(&snapshot).account.as_deref(), Some("acct_connected"));

    let mut thin = fixtures::json("stripe/thin--v1.customer.subscription.updated.json");
    thin["context"] = json!("acct_connected");
    assert_eq!(reread(&thin).account.as_deref(), Some("acct_connected"));
}

#[test]
fn a_live_event_is_told_from_a_test_one() {
    assert!(event("endive--customer.subscription.updated--livemode-true").livemode);
}

#[test]
fn a_wrong_member_is_refused_by_its_name() {
    let original = fixtures::json("stripe/endive--customer.subscription.created--active.json");
    let cases = [
        ("/id", json!(""), "id is missing"),
        ("/type", json!(null), "type is missing"),
        (
            "/created",
            json!("2026-11-06T14:20:03Z"),
            "created has to be a whole number",
        ),
        ("/livemode", json!(null), "livemode is missing"),
        (
            "/livemode",
            json!("false"),
            "livemode has to be true or false",
        ),
        ("/data", json!(null), "data is missing"),
        ("/data/object", json!([]), "data.object has to be an object"),
        (
            "/data/object/status",
            json!(1),
            "data.object.status has to be a text",
        ),
        (
            "/data/object/items/data/0/quantity",
            json!("1"),
            "data.object.items.data[0].quantity has to be a whole number",
        ),
        (
            "/data/object/items/data/0/price",
            json!({}),
            "data.object.items.data[0].price.id is missing",
        ),
        (
            "/data/object/items/data/0",
            json!("si_1"),
            "data.object.items.data[0] has to be an object",
        ),
    ];
    for (at, wrong, expected) in cases {
        let mut body = original.clone();
        *body.pointer_mut(at).unwrap() = wrong;
        assert_eq!(problem(&body), expected);
    }
}

#[test]
fn a_thin_event_without_a_real_time_is_refused() {
    let mut body = fixtures::json("stripe/thin--v1.customer.subscription.updated.json");
    for wrong in [
        json!(1_794_000_000),
        json!("yesterday"),
        json!("2026-02-30T00:00:00Z"),
    ] {
        body["created"] = wrong;
        assert!(problem(&body).starts_with("created has to be"));
    }
}
