//! What users are told by mail, once each, and receipts of everything that changes.
use super::*;
use crate::testing::both_engines;
use serde_json::json;

impl Shop {
    /// Subjects of the mails that Ann got.
    async fn subjects(&self) -> Vec<String> {
        self.work().await;
        let mails = self.test.world.mailbox().to("ann@example.com");
        mails.into_iter().map(|mail| mail.subject).collect()
    }

    /// A recorded event as if it happened now.
    fn now(&self, name: &str) -> Value {
        let mut event = self.recorded(&format!("endive--{name}"));
        event["created"] = self.app.now().unix().into();
        event
    }

    /// The same under another id: one change that Stripe tells twice.
    fn twin(event: &Value) -> Value {
        let mut twin = event.clone();
        twin["id"] = format!("{}_twin", event["id"].as_str().unwrap()).into();
        twin
    }

    /// Ann's subscription, taken out now.
    async fn subscribed(&self) -> Value {
        let mut event = self.now("customer.subscription.created--active");
        event["data"]["object"]["created"] = event["created"].clone();
        self.told(&event).await;
        event
    }
}

both_engines! {
    async fn inv_25_a_subscription_is_confirmed_once_however_often_it_is_told(engine: Engine) {
        let shop = Shop::new(engine).await;

        let event = shop.subscribed().await;
        shop.told(&Shop::twin(&event)).await;
        shop.told(&shop.now("invoice.paid--subscription_create")).await;
        shop.told(&shop.now("invoice.payment_succeeded")).await;

        assert_eq!(shop.subjects().await, ["Pro is yours"]);
    }

    async fn an_old_subscription_that_is_told_of_late_is_no_news(engine: Engine) {
        let shop = Shop::new(engine).await;

        shop.told(&shop.recorded("endive--customer.subscription.created--active")).await;

        assert_eq!(shop.plan().await, "pro");
        assert_eq!(shop.subjects().await, [""; 0]);
    }

    async fn inv_25_a_failed_renewal_is_told_once_and_until_when_it_is_forgiven(engine: Engine) {
        let shop = Shop::new(engine).await;
        shop.told(&shop.recorded("endive--customer.subscription.created--active")).await;
        shop.told(&shop.now("customer.subscription.updated--past_due")).await;
        let failed = shop.now("invoice.payment_failed--first-attempt");

        shop.told(&failed).await;
        shop.told(&Shop::twin(&failed)).await;
        shop.later(DAY);
        let mut second = Shop::twin(&shop.now("invoice.payment_failed--first-attempt"));
        second["id"] = "evt_second_attempt".into();
        second["data"]["object"]["attempt_count"] = 2.into();
        shop.told(&second).await;

        assert_eq!(shop.subjects().await, ["Your payment did not go through"]);
        let mail = shop.test.world.mailbox().to("ann@example.com").remove(0);
        assert!(mail.text.contains("Until 27 November 2026"), "{}", mail.text);
        assert!(mail.text.contains("https://invoice.stripe.com/i/acct_demo/in_5xq1o2U6DlwwmQzj2UWI5T18"), "{}", mail.text);
    }

    async fn a_first_payment_that_fails_writes_no_mail(engine: Engine) {
        let shop = Shop::new(engine).await;
        shop.told(&shop.now("customer.subscription.created--incomplete")).await;
        shop.told(&shop.now("invoice.payment_failed--initial")).await;

        assert_eq!(shop.subjects().await, [""; 0]);
    }

    async fn a_failure_that_is_known_to_be_paid_is_no_news(engine: Engine) {
        let shop = Shop::new(engine).await;
        shop.told(&shop.recorded("endive--customer.subscription.created--active")).await;
        shop.told(&shop.now("invoice.paid--subscription_cycle")).await;

        shop.told(&shop.now("invoice.payment_failed--first-attempt")).await;

        assert_eq!(shop.subjects().await, [""; 0]);
    }

    async fn a_bank_that_wants_a_confirmation_is_told_instead_of_the_failure(engine: Engine) {
        let shop = Shop::new(engine).await;
        shop.told(&shop.recorded("endive--customer.subscription.created--active")).await;
        let asked = shop.now("invoice.payment_action_required");

        shop.told(&asked).await;
        shop.told(&Shop::twin(&asked)).await;
        shop.told(&shop.now("invoice.payment_failed--first-attempt")).await;

        assert_eq!(shop.subjects().await, ["Confirm your payment"]);
    }

    async fn a_trial_that_ends_is_told_of_before_and_never_after(engine: Engine) {
        let shop = Shop::new(engine).await;
        let trial = |ends: i64| {
            let mut event = shop.now("customer.subscription.trial_will_end");
            event["id"] = format!("evt_trial_{ends}").into();
            event["data"]["object"]["status"] = "trialing".into();
            event["data"]["object"]["trial_end"] = (shop.app.now().unix() + ends).into();
            event
        };

        shop.told(&trial(0)).await;
        assert_eq!(shop.subjects().await, [""; 0], "it was ended at once");
        shop.later(Duration::from_secs(1));
        let ends = trial(3 * 86_400);
        shop.told(&ends).await;
        shop.told(&Shop::twin(&ends)).await;

        assert_eq!(shop.subjects().await, ["Your trial ends on 23 November 2026"]);
        let mail = shop.test.world.mailbox().to("ann@example.com").remove(0);
        assert!(mail.text.contains("From then on Pro is charged."), "{}", mail.text);
    }

    async fn the_end_of_a_subscription_is_told_once(engine: Engine) {
        let shop = Shop::new(engine).await;
        shop.told(&shop.recorded("endive--customer.subscription.created--active")).await;
        let mut ended = shop.now("customer.subscription.deleted--immediately");
        ended["data"]["object"]["ended_at"] = ended["created"].clone();

        shop.told(&ended).await;
        shop.told(&Shop::twin(&ended)).await;
        shop.told(&shop.now("customer.deleted")).await;

        assert_eq!(shop.subjects().await, ["Pro has ended"]);
    }

    async fn mails_are_in_the_language_of_their_reader(engine: Engine) {
        let shop = Shop::new(engine).await;
        let told = shop.call(http::Method::PUT, &shop.ann.token, "/auth/v1/user", json!({"data": {"locale": "de"}})).await;
        assert_eq!(told.status, 200);
        shop.told(&shop.recorded("endive--customer.subscription.created--active")).await;
        shop.told(&shop.now("customer.subscription.updated--past_due")).await;

        shop.told(&shop.now("invoice.payment_failed--first-attempt")).await;

        assert_eq!(shop.subjects().await, ["Deine Zahlung ging nicht durch"]);
        let mail = shop.test.world.mailbox().to("ann@example.com").remove(0);
        assert!(mail.text.contains("Bis zum 27. November 2026"), "{}", mail.text);
    }

    async fn who_pays_twice_is_told_once_and_who_only_changed_plans_never(engine: Engine) {
        let shop = Shop::new(engine).await;
        shop.told(&shop.event("customer.subscription.created", |_| {})).await;
        let seen = async || shop.get(&shop.ann.token, "/api/billing").await.json()["duplicate_subscriptions"].clone();
        assert_eq!(seen().await, false);

        shop.told_purchase(&shop.purchase("INITIAL_PURCHASE", |_| {})).await;
        assert_eq!(seen().await, true);
        shop.later(Duration::from_secs(60));
        shop.told_purchase(&shop.purchase("CANCELLATION", |_| {})).await;
        assert_eq!(seen().await, false);
        shop.later(HOUR / 3);
        assert!(!shop.subjects().await.iter().any(|subject| subject.contains("two subscriptions")));

        shop.told_purchase(&shop.purchase("UNCANCELLATION", |_| {})).await;
        shop.later(HOUR / 3);
        shop.work().await;
        shop.told_purchase(&shop.purchase("RENEWAL", |_| {})).await;
        shop.later(HOUR / 3);

        let told = shop.subjects().await;
        assert_eq!(told.iter().filter(|subject| *subject == "You pay for two subscriptions").count(), 1, "{told:?}");
    }

    async fn an_admin_sees_by_which_event_and_rule_it_came_to_be_as_it_is(engine: Engine) {
        let shop = Shop::new(engine).await;
        let boss = shop.sign_up_admin("boss@example.com").await;
        let event = shop.event("customer.subscription.created", |_| {});
        shop.told(&event).await;
        let older = shop.event("customer.subscription.updated", |e| { e.happened_at = Some(shop.app.now().unix() - 9); e.status = Some("past_due".into()) });
        shop.told(&older).await;

        let path = format!("/api/admin/billing/users/{}", shop.ann.id);
        let account = shop.get(&boss.token, &path).await.json();

        assert_eq!(account["plan"], "pro");
        let receipts = account["timeline"]["data"].as_array().unwrap();
        let told: Vec<_> = receipts.iter().map(|r| (r["event"].clone(), r["rule"].clone())).collect();
        assert!(told.contains(&(older["id"].clone(), "stale".into())), "{told:?}");
        assert!(told.contains(&(event["id"].clone(), "told".into())), "{told:?}");
        let first = receipts.iter().find(|r| r["rule"] == "told").unwrap();
        assert_eq!(first["before"], json!({"grants": []}));
        assert_eq!((&first["after"]["status"], &first["after"]["grants"][0]["entitlement"]), (&json!("active"), &json!("pro")));
        assert_eq!(account["customers"][0]["provider"], "stripe");
        assert_eq!(shop.get(&shop.ann.token, &path).await.status, 403);
        assert_eq!(shop.get(&boss.token, "/api/admin/billing/users/0190a8c0-0000-7000-8000-000000000000").await.status, 404);
    }

    async fn inv_42_what_an_admin_gave_no_provider_takes_and_only_an_admin_gives(engine: Engine) {
        let shop = Shop::new(engine).await;
        let boss = shop.sign_up_admin("boss@example.com").await;
        let new = |expires_at: Value| json!({"user_id": shop.ann.id, "entitlement": "pro", "reason": "a friend of the house", "expires_at": expires_at});
        assert_eq!(shop.post(&shop.ann.token, "/api/admin/entitlements", new(Value::Null)).await.status, 403);
        for wrong in [json!({"user_id": shop.ann.id, "entitlement": "pro", "reason": " "}), json!({"user_id": shop.ann.id, "entitlement": "p/o", "reason": "x"}), new("2020-01-01T00:00:00Z".into()), new("tomorrow".into())] {
            assert_eq!(shop.post(&boss.token, "/api/admin/entitlements", wrong.clone()).await.status, 400, "{wrong}");
        }
        assert_eq!(shop.plan().await, "free");

        let given = shop.post(&boss.token, "/api/admin/entitlements", new(time(shop.app.now() + DAY))).await;
        assert_eq!(given.status, 201, "{}", given.text());
        let given = given.json();
        shop.told(&shop.event("customer.subscription.created", |_| {})).await;
        shop.later(Duration::from_secs(1));
        shop.told(&shop.event("customer.subscription.deleted", |_| {})).await;
        assert_eq!(shop.entitlement().await["source"], "manual");

        let path = format!("/api/admin/entitlements/{}", given["source_ref"].as_str().unwrap());
        assert_eq!(shop.call(http::Method::DELETE, &boss.token, &path, json!({})).await.status, 200);
        assert_eq!(shop.plan().await, "free");
        assert_eq!(shop.call(http::Method::DELETE, &boss.token, &path, json!({})).await.status, 404);
        let log = db::audit::of_subject(&shop.app.db, shop.ann.id.parse().unwrap(), None, 2).await.unwrap();
        let log: Vec<_> = log.iter().map(|event| (event.action.as_str(), event.actor_id.map(|id| id.to_string()))).collect();
        assert_eq!(log, [("entitlement_revoked", Some(boss.id.clone())), ("entitlement_granted", Some(boss.id.clone()))]);
    }

    async fn a_grant_by_hand_ends_by_the_clock(engine: Engine) {
        let shop = Shop::new(engine).await;
        let boss = shop.sign_up_admin("boss@example.com").await;
        let new = json!({"user_id": shop.ann.id, "entitlement": "pro", "reason": "a week to try", "expires_at": time(shop.app.now() + 7 * DAY)});

        assert_eq!(shop.post(&boss.token, "/api/admin/entitlements", new).await.status, 201);

        shop.later(7 * DAY - Duration::from_micros(1));
        assert_eq!(shop.standing().await, ["pro"]);
        shop.later(Duration::from_micros(1));
        assert_eq!(shop.standing().await, [""; 0]);
    }

    async fn entitlements_are_sent_again_only_when_they_differ(engine: Engine) {
        let shop = Shop::new(engine).await;
        let ask = async |known: &str| {
            let request = crate::testing::request(http::Method::GET, &shop.ann.token, "/api/entitlements").header("if-none-match", known);
            shop.send(request.body(axum::body::Body::empty()).unwrap()).await
        };
        let first = ask("").await;
        let tag = first.header("etag").to_owned();
        assert_eq!((first.status.as_u16(), tag.trim_matches('"')), (200, first.json()["version"].as_str().unwrap()));

        for known in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".into()] {
            let again = ask(&known).await;
            assert_eq!((again.status.as_u16(), again.bytes.len(), again.header("etag")), (304, 0, tag.as_str()), "{known}");
        }
        let beside = shop.test.beside(&[]).await;
        assert_eq!(beside.get(&shop.ann.token, "/api/entitlements").await.header("etag"), tag);

        shop.told(&shop.event("customer.subscription.created", |e| e.period_end = Some(shop.app.now().unix() + 60))).await;
        let bought = ask(&tag).await;
        assert_eq!((bought.status.as_u16(), bought.json()["plan"].clone()), (200, "pro".into()));
        let tag = bought.header("etag").to_owned();
        assert_eq!(ask(&tag).await.status, 304);
    }
}
