//! What an admin sees of the inbox and does with it.
use super::*;
use crate::testing::both_engines;
use http::Method;
use serde_json::json;

const WEBHOOKS: &str = "/api/admin/webhooks";

/// A shop and who minds it.
async fn minded(engine: Engine) -> (Shop, Person) {
    let shop = Shop::new(engine).await;
    let eve = shop.sign_up_admin("eve@example.com").await;
    (shop, eve)
}

/// An event of a subscription whose customer nobody knows.
fn strange(shop: &Shop, id: &str) -> Value {
    shop.event("customer.subscription.created", |event| {
        event.id = Some(id.into());
        event.user_id = None;
        event.customer = Some(format!("cus_{id}"));
        event.subscription = Some(format!("sub_{id}"));
    })
}

fn ids(list: &Value) -> Vec<&str> {
    let events = list["data"].as_array().unwrap().iter();
    events
        .map(|event| event["external_id"].as_str().unwrap())
        .collect()
}

both_engines! {
    async fn an_admin_finds_events_by_what_is_known_of_them_page_by_page(engine: Engine) {
        let (shop, eve) = minded(engine).await;
        let bought = shop.event("customer.subscription.created", |event| event.id = Some("evt_bought".into()));
        shop.told(&bought).await;
        for id in ["one", "two", "three"] {
            assert_eq!(shop.told(&strange(&shop, id)).await, "parked: unlinked");
        }

        let parked = shop.get(&eve.token, &format!("{WEBHOOKS}?status=parked&provider=stripe&limit=2")).await.json();
        assert_eq!(ids(&parked), ["three", "two"]);
        let cursor = parked["next_cursor"].as_str().unwrap();
        let rest = shop.get(&eve.token, &format!("{WEBHOOKS}?status=parked&limit=2&cursor={cursor}")).await.json();
        assert_eq!((ids(&rest), &rest["next_cursor"]), (vec!["one"], &Value::Null));
        let of_one = shop.get(&eve.token, &format!("{WEBHOOKS}?subject=stripe:cus_two")).await.json();
        assert_eq!(ids(&of_one), ["two"]);
        let later = shop.get(&eve.token, &format!("{WEBHOOKS}?since={}", time(shop.app.now() + DAY).as_str().unwrap())).await.json();
        assert_eq!(ids(&later), Vec::<&str>::new());
        let processed = shop.get(&eve.token, &format!("{WEBHOOKS}?type=customer.subscription.created&status=processed")).await.json();
        assert_eq!(ids(&processed), ["evt_bought"]);

        for wrong in ["status=seen", "provider=paddle", "since=yesterday", "limit=0"] {
            let answer = shop.get(&eve.token, &format!("{WEBHOOKS}?{wrong}")).await;
            assert_eq!(answer.status.as_u16() / 100, 4, "{wrong}");
        }
    }

    async fn inv_8_what_is_shown_of_an_event_tells_nothing_of_a_person(engine: Engine) {
        let (shop, eve) = minded(engine).await;
        let paid = shop.event("invoice.paid", |event| event.email = "secret.person@example.com".into());
        shop.told(&paid).await;
        let list = shop.get(&eve.token, WEBHOOKS).await.json();
        let id = list["data"][0]["id"].as_str().unwrap();

        let shown = shop.get(&eve.token, &format!("{WEBHOOKS}/{id}")).await;

        let body = shown.json()["body"].clone();
        assert_eq!(body["data"]["object"]["customer_email"], "…");
        assert_eq!(body["data"]["object"]["customer_phone"], Value::Null);
        assert_eq!((&body["id"], &body["data"]["object"]["amount_due"]), (&paid["id"], &paid["data"]["object"]["amount_due"]));
        assert!(!shown.text().contains("secret.person") && !shown.text().contains("Ann Example"), "{}", shown.text());
    }

    async fn inv_15_a_replay_of_what_counted_changes_nothing_and_one_of_what_waited_applies_it(engine: Engine) {
        let (shop, eve) = minded(engine).await;
        let bought = shop.event("customer.subscription.created", |_| {});
        shop.told(&bought).await;
        let before = shop.everything().await;
        let id = shop.kept("stripe", &bought).await.unwrap().id;

        let answer = shop.post(&eve.token, &format!("{WEBHOOKS}/{id}/replay"), json!({})).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["status"]), (202, &json!("received")));
        shop.work().await;
        assert_eq!(shop.everything().await, before);
        assert_eq!(verdict(&shop.kept("stripe", &bought).await.unwrap()), "processed");

        // Whose customer it is becomes known.
        let waiting = strange(&shop, "waiting");
        assert_eq!(shop.told(&waiting).await, "parked: unlinked");
        let mut tx = shop.app.db.begin().await.unwrap();
        let ann = shop.ann.id.parse().unwrap();
        db::billing::link_customer(&mut tx, "stripe", "test", "cus_waiting", ann, shop.app.now()).await.unwrap();
        tx.commit().await.unwrap();
        let answer = shop.post(&eve.token, &format!("{WEBHOOKS}/replay"), json!({"status": "parked"})).await;
        assert_eq!((answer.status.as_u16(), answer.json()), (202, json!({"replayed": 1, "more": false})));
        shop.work().await;
        assert_eq!(verdict(&shop.kept("stripe", &waiting).await.unwrap()), "processed");
        assert_eq!(shop.everything().await.0.len(), 2);

        let nobodys = shop.post(&eve.token, &format!("{WEBHOOKS}/0190a8c0-0000-7000-8000-000000000000/replay"), json!({})).await;
        assert_eq!(nobodys.status, 404);
        let all = shop.post(&eve.token, &format!("{WEBHOOKS}/replay"), json!({})).await;
        assert_eq!(all.status, 400, "all there is has to be meant expressly: {}", all.text());
        assert_eq!(shop.waiting().await, 0);
    }

    async fn what_is_put_aside_is_not_applied_and_what_counted_cannot_be(engine: Engine) {
        let (shop, eve) = minded(engine).await;
        let (waiting, bought) = (strange(&shop, "waiting"), shop.event("customer.subscription.created", |_| {}));
        let late = shop.event("customer.subscription.deleted", |event| event.id = Some("evt_late".into()));
        shop.told(&waiting).await;
        shop.told(&bought).await;
        shop.stripe(&late).await;
        let path = async |event: &Value, verb: &str| format!("{WEBHOOKS}/{}/{verb}", shop.kept("stripe", event).await.unwrap().id);

        for event in [&waiting, &late] {
            let answer = shop.post(&eve.token, &path(event, "discard").await, json!({})).await;
            assert_eq!((answer.status.as_u16(), &answer.json()["reason"]), (200, &json!("discarded")));
        }
        let counted = shop.post(&eve.token, &path(&bought, "discard").await, json!({})).await;
        assert_eq!(counted.refusal(), (409, "event_settled".into()));

        shop.work().await;
        assert_eq!((shop.plan().await, shop.waiting().await), ("pro".into(), 0));
        let log = db::audit::page(&shop.app.db, None, 10).await.unwrap();
        let discarded = log.iter().filter(|entry| entry.action == "webhook_discarded");
        assert_eq!(discarded.count(), 2);
    }

    async fn of_each_secret_it_is_known_when_it_was_last_used(engine: Engine) {
        let secrets = "whsec_the_new_one_0123456789, whsec_the_old_one_0123456789";
        let shop = Shop::with(engine, &[("STRIPE_WEBHOOK_SECRET", secrets)]).await;
        let eve = shop.sign_up_admin("eve@example.com").await;
        let used = async |path_of: &Shop| {
            let stats = path_of.get(&eve.token, &format!("{WEBHOOKS}/stats")).await.json();
            let of = |secret: &str| {
                let all = stats["secrets"].as_array().unwrap().iter();
                let mut ours = all.filter(|use_of| use_of["key_id"] == webhooks::key_id(secret));
                ours.next().map(|use_of| (use_of["configured"].clone(), use_of["last_used_at"].clone()))
            };
            (of("whsec_the_new_one_0123456789"), of("whsec_the_old_one_0123456789"))
        };
        let signed = async |id: &str, secret: &str| {
            let body = shop.event("invoice.paid", |event| event.id = Some(id.into())).to_string();
            let signature = webhooks::stripe::sign(body.as_bytes(), secret, shop.app.now().unix());
            let request = crate::testing::request(Method::POST, "", "/webhooks/stripe").header("stripe-signature", signature);
            assert_eq!(shop.send(request.body(body.into()).unwrap()).await.status, 200);
            shop.work().await;
        };
        assert_eq!(used(&shop).await, (Some((json!(true), Value::Null)), Some((json!(true), Value::Null))));

        let first = shop.app.now();
        signed("evt_1", "whsec_the_old_one_0123456789").await;
        shop.later(HOUR / 6);
        let second = shop.app.now();
        signed("evt_2", "whsec_the_new_one_0123456789").await;

        assert_eq!(used(&shop).await, (Some((json!(true), time(second))), Some((json!(true), time(first)))));
        let retired = Shop { test: shop.beside(&[("STRIPE_WEBHOOK_SECRET", "whsec_the_new_one_0123456789")]).await, ann: shop.ann.clone() };
        assert_eq!(used(&retired).await.1, Some((json!(false), time(first))));
        let stats = shop.get(&eve.token, &format!("{WEBHOOKS}/stats")).await;
        assert!(!stats.text().contains("whsec_"));
        assert_eq!(stats.json()["counts"][0]["events"], 2);
    }

    async fn what_counted_is_forgotten_after_90_days_and_what_waits_after_400(engine: Engine) {
        let (shop, _) = minded(engine).await;
        let (bought, waiting) = (shop.event("customer.subscription.created", |_| {}), strange(&shop, "waiting"));
        shop.told(&bought).await;
        shop.told(&waiting).await;
        let kept = async || (shop.kept("stripe", &bought).await.is_some(), shop.kept("stripe", &waiting).await.is_some());

        for (days, expected) in [(89, (true, true)), (2, (false, true)), (308, (false, true)), (2, (false, false))] {
            shop.later(DAY * days);
            crate::jobs::purge(&shop.app).await.unwrap();
            assert_eq!(kept().await, expected);
        }
        assert_eq!(shop.everything().await.0.len(), 1, "what it said stays");
    }
}
