//! Several sources, one truth, and what it changes elsewhere.
use super::*;
use crate::testing::both_engines;
use db::billing::Grant;
use serde_json::json;
use uuid::Uuid;

/// Far from both ends of time.
const NOW: Timestamp = crate::testing::START;

fn grant(source: &str, entitlement: &str, ends_at: Option<Timestamp>) -> Grant {
    Grant {
        user_id: Uuid::nil(),
        entitlement: entitlement.into(),
        source: source.into(),
        source_ref: format!("{source}:{entitlement}"),
        starts_at: NOW,
        ends_at,
        revoked_at: None,
        reason: None,
        in_grace: false,
        will_renew: false,
        kind: "paid".into(),
    }
}

fn open(grants: &[Grant]) -> Vec<(String, Option<Timestamp>, String)> {
    super::super::entitlements::standing(grants, NOW)
        .into_iter()
        .map(|s| (s.entitlement, s.expires_at, s.source))
        .collect()
}

#[test]
fn a_grant_is_open_from_its_start_to_just_before_its_end() {
    let tick = Duration::from_micros(1);
    let starts = |starts_at| Grant {
        starts_at,
        ..grant("stripe", "pro", None)
    };
    let revoked = |at| Grant {
        revoked_at: Some(at),
        ..grant("stripe", "pro", None)
    };

    assert_eq!(open(&[grant("stripe", "pro", Some(NOW + tick))]).len(), 1);
    assert_eq!(open(&[grant("stripe", "pro", Some(NOW))]), []);
    assert_eq!(open(&[starts(NOW)]).len(), 1);
    assert_eq!(open(&[starts(NOW + tick)]), []);
    assert_eq!(open(&[revoked(NOW + tick)]).len(), 1);
    assert_eq!(open(&[revoked(NOW)]), []);
}

#[test]
fn the_furthest_end_is_shown_and_for_ever_is_furthest() {
    let (soon, late) = (Some(NOW + HOUR), Some(NOW + DAY));
    let sources = [
        grant("stripe", "pro", soon),
        grant("revenuecat", "pro", late),
        grant("manual", "standard", soon),
    ];
    assert_eq!(
        open(&sources),
        [
            ("pro".into(), late, "revenuecat".into()),
            ("standard".into(), soon, "manual".into())
        ]
    );

    let owned = [&sources[..], &[grant("purchase", "pro", None)]].concat();
    assert_eq!(open(&owned)[0], ("pro".into(), None, "purchase".into()));
}

#[test]
fn of_two_that_reach_as_far_what_is_paid_for_is_shown_and_of_those_the_newest() {
    let end = Some(NOW + DAY);
    let of = |source: &str, kind: &str, hours: u32| Grant {
        kind: kind.into(),
        starts_at: NOW - HOUR * hours,
        ..grant(source, "pro", end)
    };
    let shown = |grants: &[Grant]| open(grants)[0].2.clone();

    assert_eq!(
        shown(&[of("a", "promo", 0), of("b", "trial", 2), of("c", "paid", 3)]),
        "c"
    );
    assert_eq!(shown(&[of("b", "trial", 2), of("a", "promo", 0)]), "b");
    assert_eq!(shown(&[of("new", "paid", 1), of("old", "paid", 2)]), "new");
    assert_eq!(shown(&[of("old", "paid", 2), of("new", "paid", 1)]), "new");
}

both_engines! {
    async fn inv_37_the_end_of_one_source_takes_nothing_from_another(engine: Engine) {
        let shop = Shop::new(engine).await;
        shop.told(&shop.event("customer.subscription.created", |_| {})).await;
        shop.told_purchase(&shop.purchase("INITIAL_PURCHASE", |_| {})).await;
        shop.told(&shop.event("customer.subscription.created", |e| { e.subscription = Some("sub_second".into()); e.price = "price_standard".into() })).await;
        shop.later(Duration::from_secs(60));

        shop.told(&shop.event("customer.subscription.deleted", |_| {})).await;
        assert_eq!(shop.standing().await, ["pro", "standard"]);
        assert_eq!(shop.get(&shop.ann.token, "/api/entitlements").await.json()["entitlements"][0]["source"], "revenuecat");

        shop.told_purchase(&shop.purchase("CANCELLATION", |e| e.reason = "CUSTOMER_SUPPORT".into())).await;
        assert_eq!(shop.standing().await, ["standard"]);

        shop.told(&shop.event("customer.subscription.deleted", |e| e.subscription = Some("sub_second".into()))).await;
        assert_eq!(shop.standing().await, [""; 0]);
    }

    async fn what_ann_buys_is_hers_alone(engine: Engine) {
        let shop = Shop::new(engine).await;
        let bob = shop.sign_up("bob@example.com").await;

        shop.told(&shop.event("customer.subscription.created", |_| {})).await;
        shop.told_purchase(&shop.purchase("INITIAL_PURCHASE", |_| {})).await;

        let entitlements = shop.get(&bob.token, "/api/entitlements").await.json();
        assert_eq!((&entitlements["plan"], &entitlements["entitlements"]), (&json!("free"), &json!([])));
        assert_eq!(shop.get(&bob.token, "/api/billing").await.json(), json!({"plan": "free", "subscriptions": [], "purchases": [], "duplicate_subscriptions": false, "credits": []}));
        for path in ["/api/entitlements", "/api/billing"] {
            assert_eq!(shop.get("", path).await.status, 401);
        }
    }

    async fn a_plan_changes_the_quota_and_the_models_at_once(engine: Engine) {
        let shop = Shop::new(engine).await;
        let seen = async || {
            let usage = shop.get(&shop.ann.token, "/api/usage").await.json();
            let models = shop.get(&shop.ann.token, "/v1/models").await.json();
            let models: Vec<_> = models["data"].as_array().unwrap().iter().map(|model| model["id"].clone()).collect();
            json!([usage["plan"], usage["messages"]["limit"], usage["messages"]["remaining"], models])
        };
        let ask = async || shop.post(&shop.ann.token, "/v1/chat/completions", json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]})).await;
        assert_eq!(seen().await, json!(["free", 100, 100, ["gpt-4o-mini", "text-embedding-3-small"]]));
        assert_eq!(ask().await.refusal(), (403, "model_not_in_plan".into()));

        shop.told(&shop.event("customer.subscription.created", |_| {})).await;
        assert_eq!(seen().await, json!(["pro", 20_000, 20_000, ["gpt-4o-mini", "gpt-4o", "text-embedding-3-small"]]));
        assert_eq!(ask().await.status, 200);

        shop.later(Duration::from_secs(60));
        shop.told(&shop.event("customer.subscription.deleted", |_| {})).await;
        assert_eq!(seen().await, json!(["free", 100, 99, ["gpt-4o-mini", "text-embedding-3-small"]]));
        assert_eq!(ask().await.refusal(), (403, "model_not_in_plan".into()));
    }
}
