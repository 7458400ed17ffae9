//! From the provider to the inbox: verified, kept once, answered.
use super::*;
use crate::{
    App,
    app::{Clock, Simulated},
    testing::{REVENUECAT_SECRET, STRIPE_SECRET, both_engines, request},
};
use axum::body::{Body, Bytes};
use futures_util::{StreamExt, future::join_all, stream};
use http::Method;
use serde_json::json;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use webhooks::stripe::sign;

const MIB: usize = 1024 * 1024;

impl Shop {
    /// Posts these bytes with this signature.
    async fn posted(&self, path: &str, signature: &str, body: impl Into<Body>) -> Answer {
        let request = request(Method::POST, "", path).header("stripe-signature", signature);
        self.send(request.body(body.into()).unwrap()).await
    }

    fn signed(&self, body: &[u8]) -> String {
        sign(body, STRIPE_SECRET, self.app.now().unix())
    }
}

#[test]
fn inv_3_production_does_not_start_with_a_secret_that_is_none() {
    let faults = |secret: &str| {
        let env = [
            ("APP_ENV", "production"),
            ("STRIPE_SECRET_KEY", "sk_live_0123456789"),
            ("STRIPE_WEBHOOK_SECRET", secret),
        ];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let problems = crate::Config::from_env(&env.into()).unwrap_err();
        let ours = |problem: &&crate::config::Problem| problem.variable == "STRIPE_WEBHOOK_SECRET";
        problems.iter().filter(ours).count()
    };

    for none in [
        "",
        " \t",
        " , ",
        "whsec_development_only",
        "development_only",
        "short",
        "whsec_0123456789abcdef, ",
    ] {
        assert!(faults(none) > 0, "{none:?}");
    }
    assert_eq!(faults("whsec_0123456789abcdef, whsec_fedcba9876543210"), 0);
}

both_engines! {
    async fn inv_1_the_signature_is_checked_before_the_body_is_read(engine: Engine) {
        let shop = Shop::new(engine).await;
        let nonsense = b"{ this is no event";

        let forged = shop.posted("/webhooks/stripe", &sign(nonsense, "whsec_other", shop.app.now().unix()), &nonsense[..]).await;
        let genuine = shop.posted("/webhooks/stripe", &shop.signed(nonsense), &nonsense[..]).await;

        assert_eq!(forged.refusal(), (400, "invalid_signature".into()));
        assert_eq!(genuine.refusal(), (400, "unreadable_event".into()));
        assert!(!genuine.text().contains("this is no event"));
        assert_eq!(shop.waiting().await, 0);
    }

    async fn inv_1_a_signature_holds_for_the_bytes_that_came_and_no_others(engine: Engine) {
        let shop = Shop::new(engine).await;
        let event = shop.event("customer.subscription.created", |_| {});
        let spaced = format!("\n{event:#}\r\n \t");
        let signature = shop.signed(spaced.as_bytes());

        let rewritten = shop.posted("/webhooks/stripe", &signature, event.to_string()).await;
        assert_eq!(rewritten.refusal(), (400, "invalid_signature".into()));
        assert_eq!(shop.kept("stripe", &event).await, None);

        assert!(!is_duplicate(&shop.posted("/webhooks/stripe", &signature, spaced.clone()).await));
        assert_eq!(shop.kept("stripe", &event).await.unwrap().body, spaced.as_bytes());
    }

    async fn inv_4_any_configured_secret_and_any_signature_will_do_until_the_secret_is_retired(engine: Engine) {
        let shop = Shop::with(engine, &[("STRIPE_WEBHOOK_SECRET", "whsec_the_new_one_0123456789, whsec_the_old_one_0123456789")]).await;
        let retired = shop.beside(&[("STRIPE_WEBHOOK_SECRET", "whsec_the_new_one_0123456789")]).await;
        let now = shop.app.now().unix();
        let body = |id: &str| shop.event("customer.subscription.created", |e| e.id = Some(id.into())).to_string();

        for (id, secret) in [("evt_new", "whsec_the_new_one_0123456789"), ("evt_old", "whsec_the_old_one_0123456789")] {
            let (body, noise) = (body(id), "0".repeat(64));
            let signature = sign(body.as_bytes(), secret, now).replace(",v1=", &format!(",v1={noise},v0=abc,v1="));
            assert!(!is_duplicate(&shop.posted("/webhooks/stripe", &signature, body).await));
        }

        let late = body("evt_late");
        let request = request(Method::POST, "", "/webhooks/stripe").header("stripe-signature", sign(late.as_bytes(), "whsec_the_old_one_0123456789", now));
        assert_eq!(retired.send(request.body(Body::from(late)).unwrap()).await.refusal(), (400, "invalid_signature".into()));
        assert_eq!(shop.waiting().await, 2);
    }

    async fn inv_5_a_clock_may_be_off_by_300_s_either_way_and_no_more(engine: Engine) {
        let shop = Shop::new(engine).await;
        for (off, accepted) in [(-300, true), (300, true), (-301, false), (301, false), (-86_400 * 365, false), (86_400 * 365, false)] {
            let event = shop.event("customer.subscription.created", |_| {});
            let body = event.to_string();

            let answer = shop.posted("/webhooks/stripe", &sign(body.as_bytes(), STRIPE_SECRET, shop.app.now().unix() + off), body).await;

            assert_eq!(answer.status == 200, accepted, "{off} s: {}", answer.text());
            assert_eq!(shop.kept("stripe", &event).await.is_some(), accepted, "{off} s");
            assert!(accepted || answer.refusal() == (400, "invalid_signature".into()));
        }
    }

    async fn inv_6_a_body_may_have_one_mebibyte_and_no_byte_more(engine: Engine) {
        let shop = Shop::new(engine).await;
        let padded = |size: usize| { let mut body = shop.event("customer.subscription.created", |e| e.id = Some(format!("evt_{size}"))).to_string(); body.push_str(&" ".repeat(size - body.len())); body };

        let (fits, exceeds) = (padded(MIB), padded(MIB + 1));
        assert!(!is_duplicate(&shop.posted("/webhooks/stripe", &shop.signed(fits.as_bytes()), fits).await));
        let refused = shop.posted("/webhooks/stripe", &shop.signed(exceeds.as_bytes()), exceeds).await;

        assert_eq!(refused.refusal(), (413, "body_too_large".into()));
        assert_eq!(shop.waiting().await, 1);
    }

    async fn inv_6_a_body_without_an_end_is_not_waited_for(engine: Engine) {
        let shop = Shop::new(engine).await;
        for path in ["/webhooks/stripe", "/stripe-webhook", "/webhooks/revenuecat"] {
            let read = Arc::new(AtomicUsize::new(0));
            let chunk = Bytes::from(vec![b' '; 64 * 1024]);
            let endless = stream::repeat(chunk).map({ let read = read.clone(); move |chunk| { read.fetch_add(chunk.len(), Ordering::SeqCst); Ok::<_, std::io::Error>(chunk) } });

            let refused = shop.posted(path, "t=1,v1=0", Body::from_stream(endless)).await;

            assert_eq!(refused.refusal(), (413, "body_too_large".into()), "{path}");
            assert!(read.load(Ordering::SeqCst) <= MIB + 64 * 1024, "{path} read on");
        }
        assert_eq!(shop.waiting().await, 0);
    }

    async fn inv_7_a_refused_delivery_leaves_neither_row_nor_job(engine: Engine) {
        let shop = Shop::new(engine).await;
        let event = shop.event("customer.subscription.created", |_| {});
        let body = event.to_string();
        let good = shop.signed(body.as_bytes());

        let swapped = body.replace("active", "paused");
        for (signature, body) in [("", &*body), ("test", &*body), (&good.replace("v1", "v0"), &*body), (&good, &*swapped)] {
            assert_eq!(shop.posted("/webhooks/stripe", signature, body.to_owned()).await.refusal(), (400, "invalid_signature".into()), "{signature}");
        }
        let purchase = shop.purchase("INITIAL_PURCHASE", |_| {});
        assert_eq!(shop.post("wrong", "/webhooks/revenuecat", purchase.clone()).await.refusal(), (401, "invalid_authorization".into()));

        assert_eq!((shop.kept("stripe", &event).await, shop.kept("revenuecat", &purchase).await), (None, None));
        assert_eq!(shop.waiting().await, 0);
        shop.work().await;
        assert_eq!(shop.plan().await, "free");
    }

    async fn refusals_are_limited_by_address_and_genuine_events_never(engine: Engine) {
        let shop = Shop::with(engine, &[("RATE_LIMITS", "webhook_refused=3/1m")]).await;

        let mut refused = vec![];
        for _ in 0..5 {
            refused.push(shop.posted("/webhooks/stripe", "t=1,v1=0", "{}").await.status.as_u16());
        }

        assert_eq!(refused, [400, 400, 400, 429, 429]);
        for _ in 0..10 {
            assert!(!is_duplicate(&shop.stripe(&shop.event("customer.subscription.created", |_| {})).await));
        }
    }

    async fn inv_9_an_event_is_kept_with_its_job_before_it_is_answered_and_applied_after(engine: Engine) {
        let shop = Shop::new(engine).await;
        let event = shop.event("customer.subscription.created", |_| {});

        assert!(!is_duplicate(&shop.stripe(&event).await));

        let kept = shop.kept("stripe", &event).await.unwrap();
        assert_eq!((kept.status.as_str(), kept.mode.as_str(), kept.body), ("received", "test", event.to_string().into_bytes()));
        let jobs = db::jobs::unfinished(&shop.app.db, db::inbox::APPLY).await.unwrap();
        assert_eq!(jobs.iter().map(|job| job.payload.0.clone()).collect::<Vec<_>>(), [json!({"event": kept.id})]);
        assert_eq!(shop.plan().await, "free");
        shop.work().await;
        assert_eq!(shop.plan().await, "pro");
    }

    async fn inv_11_a_hundred_deliveries_at_once_are_one_event(engine: Engine) {
        let shop = Shop::new(engine).await;
        let event = shop.event("customer.subscription.created", |_| {});

        let answers = join_all((0..100).map(|_| shop.stripe(&event))).await;

        let duplicates = answers.iter().filter(|answer| is_duplicate(answer)).count();
        assert_eq!(duplicates, 99);
        assert_eq!(shop.waiting().await, 1);
        shop.work().await;
        let (subscriptions, grants) = shop.everything().await;
        assert_eq!((subscriptions.len(), grants.len()), (1, 1));
        assert!(is_duplicate(&shop.stripe(&event).await));
        assert_eq!(shop.waiting().await, 0);
    }

    async fn inv_10_a_database_that_is_away_is_never_answered_200(engine: Engine) {
        let shop = Shop::new(engine).await;
        shop.app.db.close().await;

        for answer in [shop.stripe(&shop.event("customer.subscription.created", |_| {})).await, shop.revenuecat(&shop.purchase("INITIAL_PURCHASE", |_| {})).await] {
            assert_eq!(answer.refusal(), (503, "database_unavailable".into()));
            assert_eq!(answer.header("retry-after"), "1");
        }
    }

    async fn inv_17_types_that_nobody_knows_are_kept_and_ignored(engine: Engine) {
        let shop = Shop::new(engine).await;
        let alive = [shop.recorded("endive--customer.subscription.frobnicated--unknown-type"), shop.recorded("thin--v2.core.event_destination.ping"), shop.event("radar.something.new", |_| {})];

        for event in &alive {
            assert_eq!(shop.told(event).await, "ignored: no_effect");
        }
        assert_eq!(shop.told_purchase(&shop.recorded_purchase("UNKNOWN_FUTURE_TYPE")).await, "ignored: no_effect");

        assert_eq!(shop.everything().await, (vec![], vec![]));
    }

    async fn the_path_of_flask_apps_is_the_same_door(engine: Engine) {
        let shop = Shop::new(engine).await;
        let event = shop.event("customer.subscription.created", |_| {});
        let body = event.to_string();

        assert_eq!(shop.posted("/stripe-webhook", "test", body.clone()).await.refusal(), (400, "invalid_signature".into()));
        assert!(!is_duplicate(&shop.posted("/stripe-webhook", &shop.signed(body.as_bytes()), body.clone()).await));

        assert!(is_duplicate(&shop.stripe(&event).await));
        shop.work().await;
        assert_eq!(shop.plan().await, "pro");
    }

    async fn what_smoke_tests_send_is_answered_as_they_expect(engine: Engine) {
        let shop = Shop::new(engine).await;
        let post = |path: &str| request(Method::POST, "", path).header("content-type", "application/json");
        let test_event = || Body::from(r#"{"event":{"type":"TEST"}}"#);

        let unsigned = shop.send(post("/webhooks/stripe").header("stripe-signature", "test").body(Body::from(r#"{"type":"test"}"#)).unwrap()).await;
        let wrong = shop.send(post("/webhooks/revenuecat").header("authorization", "Bearer invalid").body(test_event()).unwrap()).await;
        let right = shop.send(post("/webhooks/revenuecat").header("authorization", format!("Bearer {REVENUECAT_SECRET}")).body(test_event()).unwrap()).await;

        assert_eq!(unsigned.refusal(), (400, "invalid_signature".into()));
        assert_eq!(wrong.refusal(), (401, "invalid_authorization".into()));
        assert_eq!((right.status.as_u16(), right.json()), (200, json!({"received": true})));
    }

    async fn a_test_without_an_id_is_the_same_test_each_time(engine: Engine) {
        let shop = Shop::new(engine).await;
        let test_event = json!({"event": {"type": "TEST"}});

        assert!(!is_duplicate(&shop.revenuecat(&test_event).await));
        assert!(is_duplicate(&shop.revenuecat(&test_event).await));

        assert_eq!(shop.waiting().await, 1);
        shop.work().await;
        assert_eq!(shop.everything().await, (vec![], vec![]));
    }

    async fn malformed_purchases_are_refused_without_a_row(engine: Engine) {
        let shop = Shop::new(engine).await;
        for name in ["malformed--no-event", "malformed--event-null", "malformed--no-id", "malformed--expiration-string"] {
            let refused = shop.revenuecat(&shop.recorded_purchase(name)).await;
            assert_eq!(refused.refusal(), (400, "unreadable_event".into()), "{name}");
        }
        assert!(!is_duplicate(&shop.revenuecat(&shop.recorded_purchase("malformed--seed-smoke-test")).await));
        assert_eq!(shop.waiting().await, 1);
    }

    async fn inv_43_revenuecat_is_let_in_by_every_check_that_is_configured_and_by_nothing_less(engine: Engine) {
        let mut shop = Shop::new(engine).await;
        let vectors: Value = serde_json::from_str(&recording("revenuecat-signatures")).unwrap();
        for vector in vectors["vectors"].as_array().unwrap() {
            let secrets = |name: &str| vector[name].as_str().map(|secret| secret.to_owned().into()).into_iter().collect::<Vec<_>>();
            let mut config = shop.app.config.clone();
            config.billing.revenuecat_webhook_secret = secrets("authorization_secret");
            config.billing.revenuecat_signing_secret = secrets("signing_secret");
            let clock = Clock::stopped_at(Timestamp::from_unix(vector["now"].as_i64().unwrap()));
            shop.test.app = App::new(config, shop.app.db.clone(), Simulated::default(), clock).await.unwrap();
            shop.test.router = crate::router(&shop.app);
            let body = match vector["body_file"].as_str() {
                Some(file) => recording(&format!("revenuecat/{}", file.trim_end_matches(".json"))),
                None => vector["body_utf8"].as_str().unwrap().to_owned(),
            };
            let mut delivery = request(Method::POST, "", "/webhooks/revenuecat");
            for (name, value) in vector["headers"].as_object().unwrap() {
                delivery = delivery.header(name, value.as_str().unwrap());
            }

            let answer = shop.send(delivery.body(Body::from(body)).unwrap()).await;

            let expected = match vector["expect"].as_str().unwrap() { "accept" => (200, ""), "reject" => (401, "invalid_authorization"), _ => (503, "webhook_not_configured") };
            assert_eq!(answer.refusal(), (expected.0, expected.1.into()), "{}", vector["id"]);
        }
        assert_eq!(shop.waiting().await, 1, "every accepted vector is the same event, and every refused one is none");
    }

    async fn inv_3_without_a_secret_nothing_is_accepted(engine: Engine) {
        let mut shop = Shop::new(engine).await;
        for secrets in [vec![], vec![String::new().into()], vec![" \t".to_owned().into()]] {
            let mut config = shop.app.config.clone();
            config.billing.stripe_webhook_secret = secrets;
            shop.test.app = App::new(config, shop.app.db.clone(), Simulated::default(), shop.app.clock.clone()).await.unwrap();
            shop.test.router = crate::router(&shop.app);
            for secret in ["", " \t", STRIPE_SECRET] {
                let refused = shop.posted("/webhooks/stripe", &sign(b"{}", secret, shop.app.now().unix()), "{}").await;
                assert_eq!(refused.refusal(), (503, "webhook_not_configured".into()));
            }
        }
        assert_eq!(shop.waiting().await, 0);
    }
}
