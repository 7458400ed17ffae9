//! Whose events count, and for whom.
use super::*;
use crate::testing::both_engines;
use serde_json::json;

both_engines! {
    async fn inv_26_live_events_change_nothing_where_test_events_do(engine: Engine) {
        let api = Api::start().await;
        let shop = Shop::with(engine, &[("STRIPE_SECRET_KEY", "sk_test_0123456789"), ("STRIPE_API_BASE", &api.base)]).await;

        assert_eq!(shop.told(&shop.recorded("endive--customer.subscription.updated--livemode-true")).await, "ignored: other_mode");
        assert_eq!(shop.everything().await, (vec![], vec![]));
        let ours = shop.event("customer.subscription.created", |_| {});
        api.knows(&ours);
        assert_eq!(shop.told(&ours).await, "processed");
    }

    async fn inv_26_test_events_change_nothing_where_live_events_do(engine: Engine) {
        let api = Api::start().await;
        let shop = Shop::with(engine, &[("STRIPE_SECRET_KEY", "sk_live_0123456789"), ("STRIPE_API_BASE", &api.base)]).await;

        assert_eq!(shop.told(&shop.event("customer.subscription.created", |_| {})).await, "ignored: other_mode");
        assert_eq!(shop.told(&shop.event("checkout.session.completed", |_| {})).await, "ignored: other_mode");
        assert_eq!(shop.everything().await, (vec![], vec![]));
        let ours = shop.event("customer.subscription.created", |e| e.livemode = true);
        api.knows(&ours);
        assert_eq!(shop.told(&ours).await, "processed");
        assert_eq!(shop.plan().await, "pro");
    }

    async fn inv_28_an_event_of_a_connected_account_is_none_of_ours(engine: Engine) {
        let shop = Shop::new(engine).await;
        for member in ["account", "context"] {
            let mut event = shop.event("customer.subscription.created", |_| {});
            event[member] = "acct_1Other".into();

            assert_eq!(shop.told(&event).await, "ignored: connected_account");
        }
        assert_eq!(shop.everything().await, (vec![], vec![]));
    }

    async fn a_subscription_nobody_is_named_in_is_parked_and_opens_once_the_checkout_names_its_user(engine: Engine) {
        let shop = Shop::new(engine).await;
        let bob = shop.sign_up("bob@example.com").await;
        let mut event = shop.event("customer.subscription.created", |_| {});
        event["data"]["object"]["metadata"] = json!({});

        assert_eq!(shop.told(&event).await, "parked: unlinked");
        assert_eq!(shop.everything().await, (vec![], vec![]));
        assert_eq!(shop.told(&shop.event("checkout.session.completed", |_| {})).await, "processed");

        assert_eq!(shop.plan().await, "pro");
        assert_eq!(shop.get(&bob.token, "/api/billing").await.json()["subscriptions"], json!([]));
    }

    async fn a_customer_stays_with_the_user_they_were_first_tied_to(engine: Engine) {
        let shop = Shop::new(engine).await;
        let bob = shop.sign_up("bob@example.com").await;
        let ours = |e: &mut Stripe| { e.customer = Some("cus_Ours".into()); e.subscription = Some("sub_Ours".into()) };
        shop.told(&shop.event("customer.subscription.created", ours)).await;
        shop.later(Duration::from_secs(1));

        shop.told(&shop.event("checkout.session.completed", |e| { ours(e); e.user_id = Some(bob.id.clone()) })).await;
        shop.told(&shop.event("customer.subscription.updated", |e| { ours(e); e.user_id = Some(bob.id.clone()) })).await;

        assert_eq!(shop.plan().await, "pro");
        assert_eq!(shop.get(&bob.token, "/api/entitlements").await.json()["plan"], "free");
    }

    async fn a_user_who_does_not_exist_is_nobody(engine: Engine) {
        let shop = Shop::new(engine).await;
        for stranger in ["00000000-0000-7000-8000-000000000000", "ann@example.com", "' or true --"] {
            let of = |e: &mut Stripe| e.user_id = Some(stranger.into());
            assert_eq!(shop.told(&shop.event("customer.subscription.created", of)).await, "parked: unlinked");
            assert_eq!(shop.told(&shop.event("checkout.session.completed", of)).await, "parked: unlinked");
        }
        assert_eq!(shop.told(&shop.recorded("endive--customer.subscription.updated--unknown-customer")).await, "parked: unlinked");
        assert_eq!(shop.told(&shop.recorded("endive--checkout.session.completed--subscription-no-reference")).await, "parked: unlinked");
        assert_eq!(shop.everything().await, (vec![], vec![]));
    }

    async fn a_checkout_that_was_left_sells_nothing_and_waits_for_nobody(engine: Engine) {
        let shop = Shop::new(engine).await;
        for kind in ["checkout.session.expired", "checkout.session.async_payment_failed"] {
            let mut event = shop.event(kind, |e| e.user_id = None);
            event["data"]["object"]["customer"] = Value::Null;
            event["data"]["object"]["payment_status"] = "unpaid".into();

            assert_eq!(shop.told(&event).await, "ignored: no_effect");
        }
        assert_eq!(shop.everything().await, (vec![], vec![]));
    }

    async fn a_price_that_is_no_plan_is_parked_and_opens_nothing(engine: Engine) {
        let shop = Shop::new(engine).await;

        assert_eq!(shop.told(&shop.event("customer.subscription.created", |e| e.price = "price_of_something".into())).await, "parked: unknown_price");

        assert_eq!(shop.plan().await, "free");
        assert_eq!(shop.subscription().await["plan"], Value::Null);
    }

    async fn inv_41_an_unpaid_checkout_opens_nothing_until_the_payment_has_come(engine: Engine) {
        let shop = Shop::new(engine).await;

        assert_eq!(shop.told(&shop.recorded("endive--checkout.session.completed--payment-async-unpaid")).await, "processed");
        assert_eq!(shop.plan().await, "free");
        assert_eq!(shop.told(&shop.recorded("endive--checkout.session.async_payment_failed")).await, "ignored: no_effect");
        assert_eq!(shop.plan().await, "free");

        shop.told(&shop.recorded("endive--checkout.session.async_payment_succeeded")).await;
        let entitlement = shop.entitlement().await;
        assert_eq!((&entitlement["entitlement"], &entitlement["expires_at"]), (&"pro".into(), &Value::Null));
    }

    async fn a_checkout_of_a_subscription_opens_nothing_by_itself(engine: Engine) {
        let shop = Shop::new(engine).await;

        for name in ["subscription-paid", "subscription-async-unpaid", "subscription-trial", "setup"] {
            assert_eq!(shop.told(&shop.recorded(&format!("endive--checkout.session.completed--{name}"))).await, "processed", "{name}");
        }

        assert_eq!(shop.everything().await, (vec![], vec![]));
    }

    async fn inv_38_what_is_bought_once_outlives_every_subscription(engine: Engine) {
        let shop = Shop::new(engine).await;
        shop.told(&shop.recorded("endive--checkout.session.completed--payment-lifetime")).await;
        let lifetime = shop.entitlement().await;
        assert_eq!(lifetime["expires_at"], Value::Null);

        for name in ["created--active", "updated--plan-downgrade", "updated--past_due", "updated--unpaid", "deleted--payment-failed"] {
            shop.told(&shop.recorded(&format!("endive--customer.subscription.{name}"))).await;
            assert_eq!(shop.plan().await, "pro", "{name}");
        }
        shop.told(&shop.recorded("endive--customer.deleted")).await;

        assert_eq!(shop.entitlement().await, lifetime);
        shop.later(4_000 * DAY);
        assert_eq!(shop.standing().await, ["pro"]);
    }

    async fn inv_20_an_older_event_changes_nothing_and_says_so(engine: Engine) {
        let shop = Shop::new(engine).await;
        shop.told(&shop.event("customer.subscription.updated", |_| {})).await;
        let known = shop.everything().await;
        let second_before = shop.app.now().unix() - 1;

        let older = shop.event("customer.subscription.updated", |e| { e.happened_at = Some(second_before); e.status = Some("past_due".into()); e.price = "price_standard".into() });

        assert_eq!(shop.told(&older).await, "ignored: stale");
        let (subscriptions, grants) = shop.everything().await;
        assert_eq!((&subscriptions[0].status, &subscriptions[0].plan, &grants), (&known.0[0].status, &known.0[0].plan, &known.1));
    }

    async fn inv_21_a_cancelled_subscription_is_never_revived(engine: Engine) {
        let shop = Shop::new(engine).await;
        shop.told(&shop.event("customer.subscription.deleted", |_| {})).await;
        let known = shop.everything().await;
        shop.later(HOUR / 4);

        for kind in ["customer.subscription.created", "customer.subscription.updated", "customer.subscription.resumed"] {
            assert_eq!(shop.told(&shop.event(kind, |_| {})).await, "ignored: terminal");
        }
        let (subscriptions, grants) = shop.everything().await;
        assert_eq!((subscriptions[0].status.as_str(), &grants), ("canceled", &known.1));

        assert_eq!(shop.told(&shop.event("customer.subscription.created", |e| e.subscription = Some("sub_another".into()))).await, "processed");
        assert_eq!(shop.plan().await, "pro");
    }

    async fn inv_36_a_change_of_plan_never_shows_neither_plan(engine: Engine) {
        let shop = Shop::new(engine).await;
        shop.told(&shop.event("customer.subscription.created", |e| e.price = "price_standard".into())).await;
        shop.later(Duration::from_secs(1));
        shop.stripe(&shop.event("customer.subscription.updated", |_| {})).await;

        let done = std::sync::atomic::AtomicBool::new(false);
        let reader = async {
            let mut seen = vec![];
            while !done.load(std::sync::atomic::Ordering::SeqCst) {
                seen.push(shop.standing().await);
            }
            seen
        };
        let writer = async { shop.work().await; done.store(true, std::sync::atomic::Ordering::SeqCst) };
        let (seen, ()) = tokio::join!(reader, writer);

        assert!(seen.iter().all(|standing| standing == &["standard"] || standing == &["pro"]), "{seen:?}");
        assert_eq!(shop.standing().await, ["pro"]);
    }

    async fn inv_12_an_event_that_was_applied_changes_nothing_when_its_job_runs_again(engine: Engine) {
        let shop = Shop::new(engine).await;
        let event = shop.event("customer.subscription.created", |_| {});
        shop.told(&event).await;
        shop.later(HOUR / 8);
        // Applied again, the first would be called stale.
        shop.told(&shop.event("customer.subscription.updated", |e| e.cancel_at_period_end = true)).await;
        let (known, kept) = (shop.everything().await, shop.kept("stripe", &event).await.unwrap());
        shop.later(HOUR / 8);

        let mut tx = shop.app.db.begin().await.unwrap();
        let again = db::jobs::NewJob { kind: db::inbox::APPLY, subject: None, payload: json!({"event": kept.id}), dedupe_key: None, due_at: shop.app.now() };
        db::jobs::enqueue(&mut tx, again, shop.app.now()).await.unwrap();
        tx.commit().await.unwrap();
        shop.work().await;

        assert_eq!(shop.everything().await, known);
        assert_eq!(shop.kept("stripe", &event).await, Some(kept));
        assert_eq!(shop.waiting().await, 0);
    }
}
