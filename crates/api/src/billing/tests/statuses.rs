//! What each of Stripe's statuses opens, from the route to the answer.
use super::*;
use crate::testing::both_engines;

both_engines! {
    async fn inv_29_each_status_opens_what_it_says(engine: Engine) {
        let shop = Shop::new(engine).await;
        let table = [
            ("incomplete", "free"), ("incomplete_expired", "free"), ("trialing", "pro"), ("active", "pro"), ("past_due", "pro"),
            ("unpaid", "free"), ("canceled", "free"), ("paused", "free"), ("a_status_of_next_year", "pro"),
        ];
        for (status, plan) in table {
            let event = shop.event("customer.subscription.created", |e| { e.status = Some(status.into()); e.subscription = Some(format!("sub_{status}")) });

            assert_eq!(shop.told(&event).await, "processed", "{status}");

            assert_eq!(shop.plan().await, plan, "{status}");
            shop.told(&shop.event("customer.subscription.deleted", |e| e.subscription = Some(format!("sub_{status}")))).await;
            assert_eq!(shop.plan().await, "free", "{status}, deleted");
        }
    }

    async fn inv_34_an_active_subscription_ends_a_day_after_its_period_by_the_clock_alone(engine: Engine) {
        let shop = Shop::new(engine).await;
        shop.told(&shop.event("customer.subscription.created", |_| {})).await;
        let entitlement = shop.entitlement().await;
        assert_eq!((&entitlement["expires_at"], &entitlement["will_renew"]), (&time(shop.app.now() + 31 * DAY), &true.into()));

        shop.later(31 * DAY - Duration::from_micros(1));
        let ann = shop.get(&shop.ann.token, "/api/entitlements").await;
        // The session has run out meanwhile; what counts is asked of the rows.
        assert_eq!(ann.status, 401);
        assert_eq!(shop.standing().await, ["pro"]);
        shop.later(Duration::from_micros(1));

        assert_eq!(shop.standing().await, [""; 0]);
        assert_eq!(shop.waiting().await, 0);
    }

    async fn inv_35_a_renewal_that_is_told_a_day_late_leaves_no_gap(engine: Engine) {
        let shop = Shop::new(engine).await;
        shop.told(&shop.event("customer.subscription.created", |_| {})).await;
        let period_end = shop.app.now().unix() + 30 * 86_400;

        shop.later(31 * DAY - HOUR);
        assert_eq!(shop.standing().await, ["pro"]);
        shop.told(&shop.event("customer.subscription.updated", |e| { e.period_start = Some(period_end); e.happened_at = Some(period_end) })).await;
        shop.later(2 * HOUR);

        assert_eq!(shop.standing().await, ["pro"]);
    }

    async fn inv_30_an_unpaid_renewal_is_forgiven_for_seven_days_however_often_it_fails(engine: Engine) {
        let shop = Shop::new(engine).await;
        shop.told(&shop.event("customer.subscription.created", |_| {})).await;
        shop.later(30 * DAY);
        let failed_at = shop.app.now();
        let failed = || shop.event("customer.subscription.updated", |e| { e.status = Some("past_due".into()); e.previous_status = Some("active".into()); e.period_start = Some(failed_at.unix()) });

        shop.told(&failed()).await;
        for _ in 0..6 {
            shop.later(DAY);
            assert_eq!(shop.told(&failed()).await, "processed");
            shop.told(&shop.event("invoice.payment_failed", |_| {})).await;
            assert_eq!(shop.standing().await, ["pro"]);
        }
        let grant = &shop.everything().await.1[0];
        assert_eq!((grant.in_grace, grant.ends_at), (true, Some(failed_at + 7 * DAY)));

        shop.later(DAY);
        assert_eq!(shop.standing().await, [""; 0]);
        shop.told(&failed()).await;
        assert_eq!(shop.standing().await, [""; 0], "Stripe may leave it past due for ever");
    }

    async fn a_cancelled_subscription_has_no_grace_beyond_its_end(engine: Engine) {
        let shop = Shop::new(engine).await;
        let mut event = shop.event("customer.subscription.updated", |e| e.status = Some("past_due".into()));
        event["data"]["object"]["cancel_at"] = (shop.app.now().unix() + 3600).into();

        shop.told(&event).await;

        assert_eq!(shop.entitlement().await["expires_at"], time(shop.app.now() + HOUR));
    }

    async fn inv_31_a_payment_after_all_clears_grace_and_cancellation(engine: Engine) {
        let shop = Shop::new(engine).await;
        shop.told(&shop.event("customer.subscription.created", |e| { e.status = Some("past_due".into()); e.cancel_at_period_end = true })).await;
        let before = shop.entitlement().await;
        assert_eq!((&before["in_grace"], &before["will_renew"]), (&true.into(), &false.into()));

        shop.later(HOUR / 2);
        shop.told(&shop.event("customer.subscription.updated", |e| e.previous_status = Some("past_due".into()))).await;

        let after = shop.entitlement().await;
        assert_eq!((&after["in_grace"], &after["will_renew"], &after["expires_at"]), (&false.into(), &true.into(), &time(shop.app.now() + 31 * DAY)));
        assert_eq!(shop.subscription().await["cancel_at"], Value::Null);
    }

    async fn inv_32_a_cancelled_subscription_stays_open_to_its_date_and_not_a_day_longer(engine: Engine) {
        let end = 30 * DAY;
        for by_date_alone in [false, true] {
            let shop = Shop::new(engine).await;
            let mut event = shop.event("customer.subscription.created", |e| e.cancel_at_period_end = !by_date_alone);
            event["data"]["object"]["cancel_at"] = if by_date_alone { (shop.app.now().unix() + end.as_secs() as i64).into() } else { Value::Null };

            shop.told(&event).await;

            let entitlement = shop.entitlement().await;
            assert_eq!((&entitlement["expires_at"], &entitlement["will_renew"]), (&time(shop.app.now() + end), &false.into()));
            assert_eq!(shop.subscription().await["cancel_at"], time(shop.app.now() + end));
            shop.later(end);
            assert_eq!(shop.standing().await, [""; 0]);
        }
    }

    async fn inv_32_resuming_before_the_end_renews_again(engine: Engine) {
        let shop = Shop::new(engine).await;
        shop.told(&shop.event("customer.subscription.created", |e| e.cancel_at_period_end = true)).await;
        shop.later(Duration::from_secs(60));

        shop.told(&shop.event("customer.subscription.updated", |_| {})).await;

        assert_eq!(shop.entitlement().await["will_renew"], true);
        assert_eq!(shop.subscription().await["cancel_at"], Value::Null);
    }

    async fn inv_33_a_cancellation_at_once_ends_now_though_the_period_is_paid(engine: Engine) {
        let shop = Shop::new(engine).await;
        shop.told(&shop.event("customer.subscription.created", |_| {})).await;
        shop.later(HOUR / 4);

        shop.told(&shop.event("customer.subscription.deleted", |_| {})).await;

        assert_eq!(shop.plan().await, "free");
        let subscription = shop.subscription().await;
        assert_eq!((&subscription["status"], &subscription["ended_at"], &subscription["will_renew"]), (&"canceled".into(), &time(shop.app.now()), &false.into()));
    }

    async fn a_request_to_cancel_is_not_the_end(engine: Engine) {
        let shop = Shop::new(engine).await;
        let event = shop.recorded("endive--customer.subscription.updated--cancel-at-period-end");
        assert!(event["data"]["object"]["canceled_at"].is_i64());

        shop.told(&event).await;

        assert_eq!(shop.entitlement().await["expires_at"], at(1_796_592_000));
        assert_eq!(shop.subscription().await["ended_at"], Value::Null);
    }

    async fn a_subscription_whose_period_is_not_told_is_not_open_for_ever(engine: Engine) {
        let shop = Shop::new(engine).await;
        for status in ["active", "trialing", "past_due", "a_status_of_next_year"] {
            let mut event = shop.event("customer.subscription.created", |e| { e.status = Some(status.into()); e.subscription = Some(format!("sub_{status}")) });
            let subscription = event["data"]["object"].as_object_mut().unwrap();
            subscription["trial_end"] = Value::Null;
            for period in ["current_period_start", "current_period_end"] {
                subscription["items"]["data"][0].as_object_mut().unwrap().remove(period);
            }
            shop.told(&event).await;
        }

        let (_, grants) = shop.everything().await;
        assert_eq!(grants.len(), 4);
        assert!(grants.iter().all(|grant| grant.ends_at.is_some_and(|end| end <= shop.app.now() + 7 * DAY)), "{grants:#?}");
    }
}
