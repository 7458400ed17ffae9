//! Providers deliver late, twice and out of order. Whatever they do, the same story leaves the same state.
use super::*;
use crate::{
    billing::{revenuecat, stripe},
    testing::both_engines,
};
use db::billing::{Grant, Subscription};
use proptest::{
    strategy::{Just, Strategy, ValueTree},
    test_runner::TestRunner,
};
use serde_json::json;

/// What a story leaves behind.
#[derive(Debug, Clone, PartialEq)]
struct Left {
    subscriptions: Vec<Subscription>,
    grants: Vec<Grant>,
}

impl Left {
    fn status(&self) -> &str {
        &self.subscriptions[0].status
    }

    /// Of the only grant.
    fn ends_at(&self) -> Option<Timestamp> {
        assert_eq!(self.grants.len(), 1, "{:?}", self.grants);
        self.grants[0].ends_at
    }
}

impl Shop {
    /// Applies the events in this order, and takes it all back after a look.
    async fn left_by(&self, events: impl IntoIterator<Item = &Value> + Clone) -> Left {
        let mut tx = self.app.db.begin().await.unwrap();
        for event in events.clone() {
            let body = event.to_string();
            let (body, now) = (body.as_bytes(), self.app.now());
            if event.get("event").is_some() {
                if let Ok(reading) = revenuecat::read(&self.app, body).await.unwrap() {
                    let applied = revenuecat::apply(&self.app, &mut tx, &reading, None).await;
                    applied.unwrap();
                }
            } else if let Ok(reading) = stripe::read(&self.app, body, now).await.unwrap() {
                stripe::apply(&self.app, &mut tx, &reading).await.unwrap();
            }
        }
        let mut objects: Vec<_> = events.into_iter().flat_map(objects).collect();
        objects.sort();
        objects.dedup();
        let mut left = Left {
            subscriptions: vec![],
            grants: vec![],
        };
        for id in objects {
            for (provider, mode) in [
                ("stripe", "test"),
                ("revenuecat", "test"),
                ("revenuecat", "live"),
            ] {
                let found = db::billing::subscription(&mut tx, provider, mode, &id)
                    .await
                    .unwrap();
                // Which of two equal tellings came first is of no account.
                left.subscriptions.extend(found.map(|s| Subscription {
                    basis_event: String::new(),
                    ..s
                }));
            }
            for (source, source_ref) in [
                ("stripe", id.clone()),
                ("revenuecat", format!("test:{id}")),
                ("revenuecat", format!("live:{id}")),
            ] {
                left.grants.extend(
                    db::billing::grants_of_source(&mut tx, source, &source_ref)
                        .await
                        .unwrap(),
                );
            }
        }
        left
    }

    /// What a story leaves in every order, even when all of it is told again from its end.
    async fn always_left_by(&self, story: &[Value]) -> Left {
        let expected = self.left_by(story).await;
        for order in orders(story.len()) {
            let told = order.iter().map(|i| &story[*i]);
            assert_eq!(
                self.left_by(told.clone()).await,
                expected,
                "in the order {order:?}"
            );
            assert_eq!(
                self.left_by(told.clone().chain(told.rev())).await,
                expected,
                "in the order {order:?}, and again from its end"
            );
        }
        expected
    }

    /// Moves an event to so many seconds from now.
    fn after_s(&self, seconds: i64, kind: &str, change: impl FnOnce(&mut Stripe)) -> Value {
        self.event(kind, |e| {
            e.happened_at = Some(self.app.now().unix() + seconds);
            e.period_start = Some(self.app.now().unix());
            change(e);
        })
    }
}

/// Ids of what an event is about, by which its effects are found.
fn objects(event: &Value) -> Vec<String> {
    [
        "/data/object/id",
        "/data/object/payment_intent",
        "/event/original_transaction_id",
    ]
    .iter()
    .filter_map(|pointer| event.pointer(pointer)?.as_str().map(ToOwned::to_owned))
    .collect()
}

/// Every order of so many things.
fn orders(n: usize) -> Vec<Vec<usize>> {
    if n == 0 {
        return vec![vec![]];
    }
    let mut all = vec![];
    for shorter in orders(n - 1) {
        for at in 0..n {
            let mut order = shorter.clone();
            order.insert(at, n - 1);
            all.push(order);
        }
    }
    all
}

/// The same event without our user in its object, as when someone else made the subscription.
fn anonymous(mut event: Value) -> Value {
    event["data"]["object"]["metadata"] = json!({});
    event
}

const CREATED: &str = "customer.subscription.created";
const UPDATED: &str = "customer.subscription.updated";
const DELETED: &str = "customer.subscription.deleted";

const MONTH_S: i64 = 30 * 86_400;

fn was(status: &str) -> Option<String> {
    Some(status.into())
}

both_engines! {
    async fn inv_22_a_first_payment_ends_active_though_all_is_told_within_a_second(engine: Engine) {
        let shop = Shop::new(engine).await;
        let story = [
            shop.after_s(0, CREATED, |e| e.status = was("incomplete")),
            shop.after_s(0, UPDATED, |e| e.previous_status = was("incomplete")),
            shop.after_s(0, "invoice.paid", |e| e.billing_reason = "subscription_create".into()),
            shop.after_s(0, "checkout.session.completed", |_| {}),
        ];

        let left = shop.always_left_by(&story).await;

        assert_eq!(left.status(), "active");
        assert_eq!(left.ends_at(), Some(shop.app.now() + 31 * DAY));
    }

    async fn an_update_of_something_else_in_the_second_of_the_payment_does_not_undo_it(engine: Engine) {
        let shop = Shop::new(engine).await;
        let mut card_added = shop.after_s(0, UPDATED, |e| e.status = was("incomplete"));
        card_added["data"]["previous_attributes"] = json!({"default_payment_method": null});
        let paid = shop.after_s(0, UPDATED, |e| e.previous_status = was("incomplete"));

        let left = shop.always_left_by(&[shop.after_s(0, CREATED, |e| e.status = was("incomplete")), card_added, paid]).await;

        assert_eq!(left.status(), "active");
    }

    async fn one_change_told_by_two_events_is_one_change(engine: Engine) {
        let shop = Shop::new(engine).await;
        let twin = || shop.after_s(3, UPDATED, |e| e.previous_status = was("incomplete"));

        let left = shop.always_left_by(&[shop.after_s(0, CREATED, |e| e.status = was("incomplete")), twin(), twin()]).await;

        assert_eq!((left.status(), left.grants.len()), ("active", 1));
    }

    async fn events_that_come_before_the_checkout_that_names_the_user_are_theirs(engine: Engine) {
        let shop = Shop::new(engine).await;
        let story = [
            anonymous(shop.after_s(0, CREATED, |e| e.status = was("incomplete"))),
            anonymous(shop.after_s(0, UPDATED, |e| e.previous_status = was("incomplete"))),
            anonymous(shop.after_s(60, UPDATED, |e| e.cancel_at_period_end = true)),
            shop.after_s(5, "checkout.session.completed", |_| {}),
        ];

        let left = shop.always_left_by(&story).await;

        assert_eq!(left.subscriptions[0].user_id, Some(shop.ann.id.parse().unwrap()));
        assert_eq!(left.ends_at(), Some(shop.app.now() + 30 * DAY));
    }

    async fn whichever_event_names_the_user_names_them_for_all(engine: Engine) {
        let shop = Shop::new(engine).await;
        let story = [
            shop.after_s(0, CREATED, |_| {}),
            anonymous(shop.after_s(60, UPDATED, |e| e.price = "price_standard".into())),
            anonymous(shop.after_s(90, DELETED, |_| {})),
        ];

        let left = shop.always_left_by(&story[..2]).await;
        assert_eq!(left.grants[0].entitlement, "standard");

        let ended = shop.always_left_by(&story).await;
        assert_eq!(ended.ends_at(), Some(shop.app.now() + Duration::from_secs(90)));
    }

    async fn a_failed_renewal_that_is_paid_after_all_is_as_if_it_had_never_failed(engine: Engine) {
        let shop = Shop::new(engine).await;
        let next = |e: &mut Stripe| e.period_start = e.period_start.map(|start| start + MONTH_S);
        let story = [
            shop.after_s(0, CREATED, |_| {}),
            shop.after_s(MONTH_S + 3600, UPDATED, |e| { next(e); e.status = was("past_due"); e.previous_status = was("active") }),
            shop.after_s(MONTH_S + 3600, "invoice.payment_failed", next),
            shop.after_s(MONTH_S + 9999, UPDATED, |e| { next(e); e.previous_status = was("past_due") }),
            shop.after_s(0, "checkout.session.completed", |_| {}),
        ];

        let left = shop.always_left_by(&story).await;

        assert_eq!((left.status(), left.grants[0].in_grace, left.grants[0].will_renew), ("active", false, true));
        assert_eq!(left.ends_at(), Some(shop.app.now() + 61 * DAY));
    }

    async fn who_cancels_and_comes_back_renews(engine: Engine) {
        let shop = Shop::new(engine).await;
        let mut by_the_portal = shop.after_s(20, UPDATED, |_| {});
        by_the_portal["data"]["object"]["cancel_at"] = (shop.app.now().unix() + MONTH_S).into();
        let story = [
            shop.after_s(0, CREATED, |_| {}),
            shop.after_s(10, UPDATED, |e| e.cancel_at_period_end = true),
            by_the_portal,
            shop.after_s(30, UPDATED, |_| {}),
        ];

        let left = shop.always_left_by(&story).await;

        assert_eq!((left.grants[0].will_renew, left.subscriptions[0].cancel_at), (true, None));
        assert_eq!(left.ends_at(), Some(shop.app.now() + 31 * DAY));
    }

    async fn what_is_cancelled_stays_cancelled(engine: Engine) {
        let shop = Shop::new(engine).await;
        let story = [
            shop.after_s(0, CREATED, |_| {}),
            shop.after_s(10, UPDATED, |e| e.cancel_at_period_end = true),
            shop.after_s(50, UPDATED, |_| {}),
            shop.after_s(50, DELETED, |_| {}),
        ];

        let left = shop.always_left_by(&story).await;

        assert_eq!(left.status(), "canceled");
        assert_eq!(left.ends_at(), Some(shop.app.now() + Duration::from_secs(50)));
    }

    async fn the_last_of_several_plan_changes_counts(engine: Engine) {
        let shop = Shop::new(engine).await;
        let mut seats = shop.after_s(30, UPDATED, |_| {});
        seats["data"]["object"]["items"]["data"][0]["quantity"] = 5.into();
        let story = [
            shop.after_s(0, CREATED, |e| e.price = "price_standard".into()),
            shop.after_s(10, UPDATED, |_| {}),
            shop.after_s(20, UPDATED, |e| e.price = "price_standard".into()),
            seats,
        ];

        let left = shop.always_left_by(&story).await;

        assert_eq!(left.grants.iter().map(|grant| &*grant.entitlement).collect::<Vec<_>>(), ["pro"]);
        assert_eq!(left.subscriptions[0].quantity, 5);
    }

    async fn a_customer_who_is_deleted_loses_the_subscription_once(engine: Engine) {
        let shop = Shop::new(engine).await;
        let gone = |seconds: i64| { let mut event = shop.recorded("endive--customer.deleted"); event["created"] = (shop.app.now().unix() + seconds).into(); event["data"]["object"]["id"] = "cus_Pc0fgFWIeL6xwT".into(); event };
        let of_that = |e: &mut Stripe| e.customer = Some("cus_Pc0fgFWIeL6xwT".into());
        let story = |seconds| [shop.after_s(0, CREATED, of_that), shop.after_s(5, UPDATED, of_that), gone(seconds), shop.after_s(60, DELETED, of_that)];

        for seconds in [59, 60, 61] {
            let left = shop.always_left_by(&story(seconds)).await;
            assert_eq!((left.status(), left.ends_at()), ("canceled", Some(shop.app.now() + Duration::from_secs(60))));
        }
    }

    async fn a_trial_that_is_paused_and_resumed_runs_on(engine: Engine) {
        let shop = Shop::new(engine).await;
        let story = ["created--trialing", "trial_will_end", "resumed"].map(|name| shop.recorded(&format!("endive--customer.subscription.{name}")));
        let mut paused = shop.recorded("endive--customer.subscription.paused--pause-endpoint");
        paused["created"] = (story[2]["created"].as_i64().unwrap() - 60).into();
        let story: Vec<_> = story.into_iter().chain([paused]).collect();

        let left = shop.always_left_by(&story).await;

        assert_eq!((left.status(), left.ends_at()), ("active", Some(Timestamp::from_unix(1_797_456_000) + DAY)));
    }

    async fn a_slow_payment_opens_for_ever_and_a_subscription_beside_it_has_no_say(engine: Engine) {
        let shop = Shop::new(engine).await;
        let story = ["checkout.session.completed--payment-async-unpaid", "checkout.session.async_payment_succeeded", "customer.subscription.created--active", "customer.subscription.deleted--immediately"].map(|name| shop.recorded(&format!("endive--{name}")));

        let left = shop.always_left_by(&story).await;

        let lifetime: Vec<_> = left.grants.iter().filter(|grant| grant.ends_at.is_none()).collect();
        assert_eq!((left.grants.len(), lifetime.len()), (2, 1));
    }

    async fn inv_23_both_shapes_of_the_recorded_story_tell_the_same(engine: Engine) {
        let shop = Shop::new(engine).await;
        let stories = [
            ["checkout.session.completed--subscription-paid", "customer.subscription.created--incomplete", "customer.subscription.updated--incomplete-to-active", "customer.subscription.updated--cancel-at-period-end", "customer.subscription.deleted--at-period-end"],
            ["customer.subscription.created--trialing", "customer.subscription.trial_will_end", "customer.subscription.updated--trial-to-active", "customer.subscription.updated--past_due", "customer.subscription.updated--past_due-recovered"],
            ["customer.subscription.created--active", "customer.subscription.updated--plan-downgrade", "customer.subscription.updated--quantity", "customer.subscription.updated--past_due", "customer.subscription.updated--unpaid"],
            ["customer.subscription.created--incomplete", "invoice.payment_failed--initial", "customer.subscription.updated--incomplete_expired", "checkout.session.completed--subscription-async-unpaid", "checkout.session.async_payment_failed"],
        ];
        for (story, status) in stories.into_iter().zip(["canceled", "active", "unpaid", "incomplete_expired"]) {
            let in_shape = |shape: &str| story.map(|name| shop.recorded(&format!("{shape}--{name}")));

            let left = shop.always_left_by(&in_shape("endive")).await;

            assert_eq!(shop.left_by(&in_shape("legacy")).await, left);
            assert_eq!(left.status(), status);
        }
    }

    async fn an_expiration_that_comes_after_the_renewal_and_one_that_comes_before_end_the_same(engine: Engine) {
        let shop = Shop::new(engine).await;
        let story = ["INITIAL_PURCHASE--normal", "CANCELLATION--unsubscribe", "UNCANCELLATION", "RENEWAL--normal", "EXPIRATION--unsubscribe"].map(|name| shop.recorded_purchase(name));
        assert!(story[4]["event"]["event_timestamp_ms"].as_i64() > story[3]["event"]["event_timestamp_ms"].as_i64());

        let left = shop.always_left_by(&story).await;

        assert_eq!(left.status(), "active");
        assert_eq!(left.ends_at(), Some(Timestamp::from_unix(1_799_184_000) + DAY));
    }

    async fn an_expiration_ends_a_shorter_plan_that_followed_a_longer_one(engine: Engine) {
        let shop = Shop::new(engine).await;
        let [mut yearly, monthly, mut expired] = ["INITIAL_PURCHASE--normal", "RENEWAL--normal", "EXPIRATION--unsubscribe"].map(|name| shop.recorded_purchase(name));
        yearly["event"]["expiration_at_ms"] = (1_794_000_000_000_i64 + 365 * 86_400_000).into();
        expired["event"]["expiration_at_ms"] = monthly["event"]["expiration_at_ms"].clone();
        expired["event"]["event_timestamp_ms"] = 1_799_184_060_000_i64.into();

        let left = shop.always_left_by(&[yearly, monthly, expired]).await;

        assert_eq!((left.status(), left.ends_at()), ("expired", Some(Timestamp::from_unix(1_799_184_000))));
    }

    async fn a_billing_issue_keeps_its_grace_though_a_cancellation_is_told_with_it(engine: Engine) {
        let shop = Shop::new(engine).await;
        let story = ["INITIAL_PURCHASE--normal", "CANCELLATION--billing-error", "BILLING_ISSUE--grace"].map(|name| shop.recorded_purchase(name));
        let grace_ends = story[2]["event"]["grace_period_expiration_at_ms"].as_i64().unwrap();

        let left = shop.always_left_by(&story).await;
        assert_eq!((left.grants[0].in_grace, left.ends_at()), (true, Some(Timestamp::from_millis(grace_ends))));

        let recovered = [&story[..], &[shop.recorded_purchase("RENEWAL--after-billing-issue")]].concat();
        let left = shop.always_left_by(&recovered).await;
        assert_eq!((left.status(), left.grants[0].in_grace, left.grants[0].will_renew), ("active", false, true));

        let given_up = [&story[..], &[shop.recorded_purchase("EXPIRATION--billing-error")]].concat();
        let left = shop.always_left_by(&given_up).await;
        assert_eq!((left.status(), left.grants[0].in_grace, left.ends_at()), ("expired", false, Some(Timestamp::from_unix(1_797_974_400))));
    }

    async fn a_refund_that_is_reversed_opens_again(engine: Engine) {
        let shop = Shop::new(engine).await;
        let story = ["INITIAL_PURCHASE--normal", "CANCELLATION--refund", "REFUND_REVERSED"].map(|name| shop.recorded_purchase(name));

        let refunded = shop.always_left_by(&story[..2]).await;
        let reversed = shop.always_left_by(&story).await;

        assert_eq!(refunded.grants[0].reason.as_deref(), Some("refund"));
        assert_eq!((reversed.status(), reversed.grants[0].revoked_at, reversed.grants[0].reason.clone()), ("active", None, None));
    }

    async fn a_pause_ends_with_its_period_and_an_extension_with_its_own(engine: Engine) {
        let shop = Shop::new(engine).await;
        let paused = ["INITIAL_PURCHASE--play-store", "SUBSCRIPTION_PAUSED", "EXPIRATION--paused"].map(|name| shop.recorded_purchase(name));
        let extended = ["INITIAL_PURCHASE--normal", "SUBSCRIPTION_EXTENDED", "CANCELLATION--unsubscribe", "PRODUCT_CHANGE--immediate"].map(|name| shop.recorded_purchase(name));

        assert_eq!(shop.always_left_by(&paused).await.ends_at(), Some(Timestamp::from_unix(1_796_592_000)));
        assert_eq!(shop.always_left_by(&extended).await.ends_at(), Some(Timestamp::from_unix(1_797_196_800) + DAY));
    }

    async fn a_long_story_shuffled_and_repeated_ends_as_it_was_told(engine: Engine) {
        let shop = Shop::new(engine).await;
        let next = |e: &mut Stripe| e.period_start = e.period_start.map(|start| start + MONTH_S);
        let story = vec![
            anonymous(shop.after_s(0, CREATED, |e| e.status = was("incomplete"))),
            shop.after_s(0, UPDATED, |e| e.previous_status = was("incomplete")),
            shop.after_s(2, "checkout.session.completed", |_| {}),
            shop.after_s(3, "invoice.paid", |_| {}),
            shop.after_s(100, UPDATED, |e| e.price = "price_standard".into()),
            shop.after_s(200, UPDATED, |e| e.cancel_at_period_end = true),
            shop.after_s(300, UPDATED, |e| e.price = "price_standard".into()),
            shop.after_s(MONTH_S, UPDATED, |e| { next(e); e.status = was("past_due"); e.previous_status = was("active") }),
            shop.after_s(MONTH_S + 50, UPDATED, |e| { next(e); e.previous_status = was("past_due") }),
            shop.purchase("INITIAL_PURCHASE", |_| {}),
            shop.purchase("CANCELLATION", |e| e.happened_at = Some(shop.app.now().unix() + 40)),
        ];
        let expected = shop.left_by(&story).await;
        let repeated: Vec<_> = story.iter().chain(&story).cloned().collect();
        let mut runner = TestRunner::deterministic();

        for _ in 0..40 {
            let shuffled = Just(repeated.clone()).prop_shuffle().new_tree(&mut runner).unwrap().current();
            assert_eq!(shop.left_by(&shuffled).await, expected, "{:#?}", shuffled.iter().map(|event| event["type"].as_str()).collect::<Vec<_>>());
        }
    }

    async fn what_comes_through_the_door_in_any_order_opens_the_same(engine: Engine) {
        for order in orders(3) {
            let shop = Shop::new(engine).await;
            let story = [shop.after_s(0, CREATED, |e| e.status = was("incomplete")), shop.after_s(0, UPDATED, |e| e.previous_status = was("incomplete")), shop.after_s(9, UPDATED, |e| { e.previous_status = None; e.price = "price_standard".into() })];
            for i in &order {
                shop.told(&story[*i]).await;
            }
            assert_eq!((shop.plan().await, shop.subscription().await["status"].clone()), ("standard".into(), json!("active")), "{order:?}");
        }
    }
}
