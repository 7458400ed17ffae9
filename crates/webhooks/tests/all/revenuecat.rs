use webhooks::Refused;
use webhooks::revenuecat::{
    Adjustment, Event, Kind, SIGNATURE_HEADER, Secrets, Subscriber, TOLERANCE_S, read,
    read_subscriber, sign, verify,
};

use crate::fixtures;

const NOW: i64 = 1_795_000_000;
const BODY: &[u8] = br#"{"event":{"type":"TEST"}}"#;
const USER: &str = "8c1d1d7e-5f0a-4a53-9b5e-0c2a7a4f3b11";
const ANONYMOUS: &str = "$RCAnonymousID:5d1f0c0e8b0b4e1c9a7d2b6f4e3a1c90";

fn event(fixture: &str) -> Event {
    read(&fixtures::body(&format!("revenuecat/{fixture}.json"))).unwrap()
}

fn problem(body: &[u8]) -> String {
    read(body).unwrap_err().0
}

/// Verifies an `Authorization` header against these values, with signing off.
fn authorize(header: &str, values: &[&str]) -> Result<usize, Refused> {
    let secrets = Secrets {
        authorization: values,
        signing: &[],
    };
    verify(BODY, Some(header), None, &secrets, NOW, TOLERANCE_S)
}

#[test]
fn every_vector_is_decided_as_expected() {
    let vectors = fixtures::json("revenuecat-signatures.json");
    for vector in vectors["vectors"].as_array().unwrap() {
        let body = match vector["body_file"].as_str() {
            Some(file) => fixtures::body(&format!("revenuecat/{file}")),
            None => fixtures::text(vector, "body_utf8").into(),
        };
        let header = |name: &str| {
            let headers = vector["headers"].as_object().unwrap();
            let found = headers
                .iter()
                .find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.and_then(|(_, value)| value.as_str())
        };
        let configured = |key: &str| Vec::from_iter(vector[key].as_str());

        let verified = verify(
            &body,
            header("authorization"),
            header(SIGNATURE_HEADER),
            &Secrets {
                authorization: &configured("authorization_secret"),
                signing: &configured("signing_secret"),
            },
            vector["now"].as_i64().unwrap(),
            TOLERANCE_S,
        );
        let verdict = match verified {
            Ok(_) => "accept",
            Err(Refused::NotConfigured) => "reject-503",
            Err(_) => "reject",
        };

        assert_eq!(
            verdict,
            fixtures::text(vector, "expect"),
            "{}",
            vector["id"]
        );
    }
}

#[test]
fn the_authorization_value_may_be_set_with_or_without_its_scheme() {
    assert_eq!(authorize("Bearer abc", &["abc"]), Ok(0));
    assert_eq!(authorize("Bearer abc", &["Bearer abc"]), Ok(0));
    assert_eq!(authorize("abc", &["abc"]), Ok(0));

    assert_eq!(
        authorize("Basic abc", &["abc"]),
        Err(Refused::WrongAuthorization)
    );
    assert_eq!(authorize("abc", &["ABC"]), Err(Refused::WrongAuthorization));
}

#[test]
fn any_of_several_authorization_values_will_do() {
    assert_eq!(authorize("Bearer old", &["new", " ", "old"]), Ok(2));
    assert_eq!(
        authorize("Bearer  ", &["new", " "]),
        Err(Refused::WrongAuthorization)
    );
}

#[test]
fn the_index_is_that_of_the_signing_secret_when_both_are_configured() {
    let secrets = Secrets {
        authorization: &["abc"],
        signing: &["new", "old"],
    };
    let signature = sign(BODY, "old", NOW);

    assert_eq!(
        verify(
            BODY,
            Some("abc"),
            Some(&signature),
            &secrets,
            NOW,
            TOLERANCE_S
        ),
        Ok(1)
    );
}

#[test]
fn a_check_with_only_blank_secrets_refuses_instead_of_being_skipped() {
    let signature = sign(BODY, "key", NOW);
    let blank_authorization = Secrets {
        authorization: &[" "],
        signing: &["key"],
    };
    let blank_signing = Secrets {
        authorization: &["abc"],
        signing: &[""],
    };

    for secrets in [blank_authorization, blank_signing] {
        let verified = verify(
            BODY,
            Some("abc"),
            Some(&signature),
            &secrets,
            NOW,
            TOLERANCE_S,
        );
        assert_eq!(verified, Err(Refused::NotConfigured));
    }
}

#[test]
fn every_fixture_reads_as_what_the_index_says() {
    let mut read_events = 0;
    for entry in fixtures::index("revenuecat") {
        let Some(id) = entry["id"].as_str() else {
            continue;
        };
        let event = read(&fixtures::body(fixtures::text(&entry, "file"))).unwrap();

        assert_eq!(event.id, id);
        assert_eq!(event.kind.as_str(), fixtures::text(&entry, "type"));
        assert_eq!(event.at_ms, entry["event_timestamp_ms"].as_i64().unwrap());
        let is_new = fixtures::text(&entry, "file").contains("UNKNOWN_FUTURE_TYPE");
        assert_eq!(matches!(event.kind, Kind::Unknown(_)), is_new, "{id}");
        read_events += 1;
    }
    assert_eq!(read_events, 48);
}

#[test]
fn a_renewal_says_who_what_and_until_when() {
    let renewal = event("RENEWAL--normal");

    assert_eq!(
        renewal,
        Event {
            id: "4E1AAD69-93D7-5EA8-CD5B-4311AD74EBB1".into(),
            kind: Kind::Renewal,
            at_ms: 1_796_592_001_500,
            app_user_ids: vec![USER.into(), ANONYMOUS.into()],
            sandbox: false,
            store: Some("APP_STORE".into()),
            product_id: Some("com.demo.app.pro.monthly".into()),
            new_product_id: None,
            entitlement_ids: Some(vec!["pro_access".into()]),
            period_type: Some("NORMAL".into()),
            purchased_at_ms: Some(1_796_592_000_000),
            expiration_at_ms: Some(1_799_184_000_000),
            grace_period_expiration_at_ms: None,
            auto_resume_at_ms: None,
            cancel_reason: None,
            expiration_reason: None,
            transaction_id: Some("2000000912349999".into()),
            original_transaction_id: Some("2000000912345678".into()),
            is_family_share: false,
            is_trial_conversion: false,
            transferred_from: vec![],
            transferred_to: vec![],
            price: Some(9.99),
            price_in_purchased_currency: Some(9.99),
            currency: Some("USD".into()),
            virtual_currency_transaction_id: None,
            adjustments: vec![],
        }
    );
}

#[test]
fn each_kind_brings_its_own_members() {
    assert!(event("RENEWAL--trial-conversion").is_trial_conversion);
    assert_eq!(
        event("BILLING_ISSUE--grace").grace_period_expiration_at_ms,
        Some(1_797_974_400_000)
    );
    assert_eq!(
        event("SUBSCRIPTION_PAUSED").auto_resume_at_ms,
        Some(1_799_184_000_000)
    );
    assert_eq!(
        event("PRODUCT_CHANGE--immediate").new_product_id.as_deref(),
        Some("com.demo.app.pro.monthly")
    );
    assert_eq!(
        event("EXPIRATION--paused").expiration_reason.as_deref(),
        Some("SUBSCRIPTION_PAUSED")
    );

    let credits = event("VIRTUAL_CURRENCY_TRANSACTION");
    assert_eq!(
        credits.virtual_currency_transaction_id.as_deref(),
        Some("vctx_demo_0001")
    );
    assert_eq!(
        credits.adjustments,
        [Adjustment {
            code: "CRD".into(),
            amount: 100
        }]
    );
}

#[test]
fn a_refund_is_a_cancellation_with_a_negative_price() {
    let refund = event("CANCELLATION--refund");

    assert_eq!(refund.kind, Kind::Cancellation);
    assert_eq!(refund.cancel_reason.as_deref(), Some("CUSTOMER_SUPPORT"));
    assert_eq!(refund.price, Some(-9.99));
}

#[test]
fn a_purchase_for_ever_has_no_expiration() {
    assert_eq!(
        event("NON_RENEWING_PURCHASE--lifetime").expiration_at_ms,
        None
    );
}

#[test]
fn an_unmapped_product_unlocks_nothing_known_rather_than_an_empty_list() {
    assert_eq!(
        event("INITIAL_PURCHASE--no-entitlement").entitlement_ids,
        None
    );
}

#[test]
fn a_transfer_names_both_sides_and_no_customer() {
    let transfer = event("TRANSFER--many");

    assert_eq!(
        transfer.transferred_from,
        [USER, ANONYMOUS, "legacy-user-7"]
    );
    assert_eq!(transfer.transferred_to.len(), 2);
    assert_eq!(transfer.app_user_ids, [""; 0]);
}

#[test]
fn ids_come_once_each_and_the_last_seen_first() {
    let body = br#"{"event":{"type":"RENEWAL","id":"1","event_timestamp_ms":1,
        "app_user_id":"b","original_app_user_id":"a","aliases":["a","","c","b","c"]}}"#;

    assert_eq!(read(body).unwrap().app_user_ids, ["b", "a", "c"]);
}

#[test]
fn only_production_is_production() {
    let sandbox = |environment: &str| {
        let body = format!(r#"{{"event":{{"type":"TEST"{environment}}}}}"#);
        read(body.as_bytes()).unwrap().sandbox
    };

    assert!(event("INITIAL_PURCHASE--sandbox").sandbox);
    assert!(sandbox(r#","environment":"SANDBOX""#));
    assert!(sandbox(r#","environment":"staging""#));
    assert!(sandbox(r#","purchase_environment":"SANDBOX""#));
    assert!(!sandbox(r#","environment":"PRODUCTION""#));
    assert!(!sandbox(""));
}

#[test]
fn renewals_on_google_play_keep_the_id_of_the_first_payment() {
    let original = |id: &str| {
        let body = format!(r#"{{"event":{{"type":"TEST","original_transaction_id":"{id}"}}}}"#);
        read(body.as_bytes())
            .unwrap()
            .original_transaction_id
            .unwrap()
    };

    assert_eq!(
        original("GPA.3345-1122-7788-90123..12"),
        "GPA.3345-1122-7788-90123"
    );
    assert_eq!(
        original("GPA.3345-1122-7788-90123"),
        "GPA.3345-1122-7788-90123"
    );
    assert_eq!(original("a..b"), "a..b");
    assert_eq!(original("a.."), "a..");
}

#[test]
fn a_test_without_an_id_is_known_by_its_body() {
    let test = event("malformed--seed-smoke-test");

    assert_eq!(test.kind, Kind::Test);
    assert_eq!(test.at_ms, 0);
    assert_eq!(test.id, event("malformed--seed-smoke-test").id);
    assert_ne!(
        test.id,
        read(br#"{"event":{"type":"TEST","store":"X"}}"#)
            .unwrap()
            .id
    );
}

#[test]
fn a_malformed_event_is_refused_by_the_name_of_the_member() {
    let of = |fixture: &str| problem(&fixtures::body(&format!("revenuecat/{fixture}.json")));

    assert_eq!(of("malformed--no-event"), "event is missing");
    assert_eq!(of("malformed--event-null"), "event is missing");
    assert_eq!(of("malformed--no-id"), "event.id is missing");
    assert_eq!(
        of("malformed--expiration-string"),
        "event.expiration_at_ms has to be a whole number"
    );
}

#[test]
fn all_events_of_a_purchase_name_the_same_purchase() {
    let mut body = fixtures::json("revenuecat/INITIAL_PURCHASE--play-store.json");
    let purchase = |body: &serde_json::Value| {
        let event = read(body.to_string().as_bytes()).unwrap();
        event.purchase().map(str::to_owned)
    };
    body["event"]["original_transaction_id"] = "GPA.3345-1122-7788-90123..4".into();
    assert_eq!(purchase(&body).as_deref(), Some("GPA.3345-1122-7788-90123"));
    body["event"]["original_transaction_id"] = serde_json::Value::Null;
    body["event"]["transaction_id"] = "GPA.3345-1122-7788-90123..5".into();
    assert_eq!(purchase(&body).as_deref(), Some("GPA.3345-1122-7788-90123"));
    body["event"]["transaction_id"] = serde_json::Value::Null;
    assert_eq!(purchase(&body), None);
    assert!(event("INITIAL_PURCHASE--family-share").is_family_share);
}

fn subscriber(state: &str) -> Subscriber {
    read_subscriber(&fixtures::json(&format!(
        "revenuecat/api-v1-subscriber--{state}.json"
    )))
    .unwrap()
}

#[test]
fn a_subscriber_says_what_they_hold_where_and_until_when() {
    let two = subscriber("two-stores");
    let held: Vec<_> = two
        .purchases
        .iter()
        .map(|p| {
            (
                p.product.as_str(),
                p.store.as_str(),
                p.transaction.as_deref(),
                p.expires_at_ms,
            )
        })
        .collect();
    assert_eq!(
        held,
        [
            (
                "com.demo.app.pro.monthly",
                "app_store",
                Some("2000000912345678"),
                Some(1_796_592_000_000)
            ),
            (
                "pro:monthly-base",
                "play_store",
                Some("GPA.3345-1122-7788-90123"),
                Some(1_797_456_000_000)
            ),
        ]
    );
    // RevenueCat names one product for an entitlement; another of the same is told by its own events.
    assert_eq!(two.purchases[1].entitlements, ["pro_access"]);
    assert_eq!(two.purchases[0].entitlements, [""; 0]);

    let lifetime = subscriber("lifetime");
    assert_eq!(lifetime.purchases.len(), 1);
    assert_eq!(
        (
            lifetime.purchases[0].expires_at_ms,
            &*lifetime.purchases[0].entitlements
        ),
        (None, &["pro_access".to_owned()][..])
    );
    assert!(subscriber("refunded").purchases[0].refunded_at_ms.is_some());
    assert!(
        subscriber("grace").purchases[0]
            .grace_expires_at_ms
            .is_some()
    );
    assert!(
        subscriber("cancelled-not-expired").purchases[0]
            .unsubscribed_at_ms
            .is_some()
    );
    assert_eq!(subscriber("unknown-201").purchases, []);
    assert!(read_subscriber(&fixtures::json("revenuecat/api-v1-error-401.json")).is_err());
}
