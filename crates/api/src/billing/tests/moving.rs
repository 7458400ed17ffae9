//! Whose a purchase in a store is: names, aliases, transfers, and what waits until somebody is known.
use super::*;
use crate::testing::both_engines;
use serde_json::json;

/// The other user in the recordings, and an anonymous id.
const RECORDED_OTHER: &str = "2f6b2f0e-7d57-4b7a-8a3c-51c0d7a9e902";
const ANOTHER: &str = "$RCAnonymousID:9b7e6d5c4f3a2b1c0d9e8f7a6b5c4d3e";

/// Two people, and what each of them has.
struct Two {
    shop: Shop,
    bob: Person,
}

impl Deref for Two {
    type Target = Shop;
    fn deref(&self) -> &Shop {
        &self.shop
    }
}

impl Two {
    async fn new(engine: Engine) -> Self {
        let shop = Shop::new(engine).await;
        let bob = shop.sign_up("bob@example.com").await;
        Self { shop, bob }
    }

    /// A recorded event, about these two.
    fn between(&self, name: &str) -> Value {
        let event = self.recorded_purchase(name).to_string();
        serde_json::from_str(&event.replace(RECORDED_OTHER, &self.bob.id)).unwrap()
    }

    async fn told_between(&self, name: &str) -> String {
        self.told_purchase(&self.between(name)).await
    }

    /// Says that Ann has another name.
    fn alias(&self) -> Value {
        let mut event = self.between("SUBSCRIBER_ALIAS");
        event["event"]["original_app_user_id"] = ANOTHER.into();
        event["event"]["aliases"] = json!([ANOTHER, self.shop.ann.id]);
        event
    }

    async fn held_by(&self, person: &Person) -> Vec<(String, String)> {
        let grants = db::billing::grants(&self.app.db, person.id.parse().unwrap()).await;
        let held = grants.unwrap().into_iter();
        held.map(|g| (g.source_ref, g.entitlement)).collect()
    }

    /// What Ann holds, and what Bob does.
    async fn both(&self) -> (usize, usize) {
        (
            self.held_by(&self.shop.ann).await.len(),
            self.held_by(&self.bob).await.len(),
        )
    }
}

both_engines! {
    async fn inv_46_a_transfer_moves_the_purchases_of_that_store_and_nothing_else(engine: Engine) {
        let two = Two::new(engine).await;
        two.told_between("INITIAL_PURCHASE--normal").await;
        two.told_between("INITIAL_PURCHASE--play-store").await;
        two.told(&two.event("customer.subscription.created", |_| {})).await;
        assert_eq!(two.both().await, (3, 0));

        assert_eq!(two.told_between("TRANSFER--user-to-user").await, "processed");

        assert_eq!(two.held_by(&two.bob).await, [("live:2000000912345678".into(), "pro".into())]);
        let left: Vec<_> = two.held_by(&two.shop.ann).await.into_iter().map(|(source_ref, _)| source_ref).collect();
        assert!(left.iter().any(|r| r.starts_with("live:GPA.")) && left.iter().any(|r| r.starts_with("sub_")), "{left:?}");
        let receipts = db::billing::timeline::of_user(&two.app.db, two.shop.ann.id.parse().unwrap(), None, 50).await.unwrap();
        assert!(receipts.iter().any(|r| r.rule == "moved" && r.before.0["user_id"] == two.shop.ann.id), "who had it before stays known");
    }

    async fn inv_46_events_that_come_before_their_transfer_or_after_it_end_the_same(engine: Engine) {
        let told = ["INITIAL_PURCHASE--normal", "CANCELLATION--unsubscribe", "TRANSFER--user-to-user"];
        for order in [[0, 1, 2], [2, 0, 1], [0, 2, 1], [1, 2, 0], [2, 1, 0], [1, 0, 2]] {
            let two = Two::new(engine).await;
            for i in order {
                two.told_between(told[i]).await;
            }
            assert_eq!(two.both().await, (0, 1), "{order:?}");
        }
    }

    async fn inv_46_what_is_bought_after_a_transfer_stays_with_whoever_bought_it(engine: Engine) {
        let two = Two::new(engine).await;
        two.told_between("TRANSFER--user-to-user").await;
        let mut later = two.between("INITIAL_PURCHASE--normal");
        later["event"]["event_timestamp_ms"] = 1_795_296_000_001_i64.into();

        two.told_purchase(&later).await;

        assert_eq!(two.both().await, (1, 0));
    }

    async fn inv_46_a_transfer_and_one_back_leave_it_where_it_was(engine: Engine) {
        let two = Two::new(engine).await;
        two.told_between("INITIAL_PURCHASE--normal").await;
        let there = two.between("TRANSFER--user-to-user");
        let mut back = there.clone();
        (back["event"]["id"], back["event"]["event_timestamp_ms"]) = ("back".into(), 1_795_296_000_500_i64.into());
        (back["event"]["transferred_from"], back["event"]["transferred_to"]) = (json!([two.bob.id]), json!([two.shop.ann.id]));

        for event in [&back, &there] {
            two.told_purchase(event).await;
        }

        assert_eq!(two.both().await, (1, 0));
    }

    async fn inv_46_a_transfer_to_nobody_takes_it_and_waits_until_somebody_is_known(engine: Engine) {
        let two = Two::new(engine).await;
        two.told_between("INITIAL_PURCHASE--normal").await;
        let transfer = two.between("TRANSFER--user-to-anonymous");

        assert_eq!(two.told_purchase(&transfer).await, "parked: unlinked");
        assert_eq!(two.both().await, (0, 0));

        let mut named = two.between("SUBSCRIBER_ALIAS");
        (named["event"]["app_user_id"], named["event"]["original_app_user_id"]) = (two.bob.id.clone().into(), ANOTHER.into());
        named["event"]["aliases"] = json!([ANOTHER, two.bob.id]);
        assert_eq!(two.told_purchase(&named).await, "processed");

        assert_eq!(two.both().await, (0, 1));
        assert_eq!(verdict(&two.kept("revenuecat", &transfer).await.unwrap()), "processed");
    }

    async fn inv_46_a_transfer_from_nobody_brings_what_waited_under_that_name(engine: Engine) {
        let two = Two::new(engine).await;
        let mut bought = two.between("INITIAL_PURCHASE--anonymous-only");
        bought["event"]["app_user_id"] = ANOTHER.into();
        bought["event"]["original_app_user_id"] = ANOTHER.into();
        bought["event"]["aliases"] = json!([ANOTHER]);
        assert_eq!(two.told_purchase(&bought).await, "parked: unlinked");

        assert_eq!(two.told_between("TRANSFER--anonymous-to-user").await, "processed");

        assert_eq!(two.both().await, (1, 0));
    }

    async fn inv_46_a_transfer_between_names_of_one_user_changes_nothing(engine: Engine) {
        let two = Two::new(engine).await;
        two.told_between("INITIAL_PURCHASE--normal").await;
        let known = two.everything().await;

        assert_eq!(two.told_between("TRANSFER--same-user-both-sides").await, "processed");

        assert_eq!(two.everything().await, known);
    }

    async fn inv_46_any_name_of_a_side_may_be_ours(engine: Engine) {
        let two = Two::new(engine).await;
        two.told_between("INITIAL_PURCHASE--normal").await;

        assert_eq!(two.told_between("TRANSFER--many").await, "processed");

        assert_eq!(two.both().await, (0, 1));
    }

    async fn inv_46_a_transfer_to_two_of_ours_is_ambiguous_and_moves_nothing(engine: Engine) {
        let two = Two::new(engine).await;
        let eve = two.sign_up("eve@example.com").await;
        two.told_between("INITIAL_PURCHASE--normal").await;
        let mut transfer = two.between("TRANSFER--user-to-user");
        transfer["event"]["transferred_to"] = json!([two.bob.id, eve.id]);

        assert_eq!(two.told_purchase(&transfer).await, "parked: ambiguous");

        assert_eq!(two.both().await, (1, 0));
    }

    async fn inv_47_what_was_bought_before_signing_in_is_found_after_it(engine: Engine) {
        let two = Two::new(engine).await;
        let anonymous = two.between("INITIAL_PURCHASE--anonymous-only");
        assert_eq!(two.told_purchase(&anonymous).await, "parked: unlinked");
        assert_eq!(two.both().await, (0, 0));

        assert_eq!(two.told_purchase(&two.alias()).await, "processed");

        assert_eq!(two.plan().await, "pro");
        assert_eq!(verdict(&two.kept("revenuecat", &anonymous).await.unwrap()), "processed");
        let names = db::billing::stores::names_of_user(&two.app.db, two.shop.ann.id.parse().unwrap()).await.unwrap();
        assert_eq!(names, [(ANOTHER.to_owned(),)]);
    }

    async fn inv_47_a_name_stays_with_whom_it_was_first_tied_to(engine: Engine) {
        let two = Two::new(engine).await;
        two.told_purchase(&two.alias()).await;
        let mut taken = two.alias();
        (taken["event"]["id"], taken["event"]["app_user_id"]) = ("another".into(), two.bob.id.clone().into());
        taken["event"]["aliases"] = json!([ANOTHER, two.bob.id]);

        assert_eq!(two.told_purchase(&taken).await, "parked: ambiguous");

        two.told_between("INITIAL_PURCHASE--anonymous-only").await;
        assert_eq!(two.both().await, (1, 0));
    }

    async fn what_apps_send_for_nobody_is_nobodys_name(engine: Engine) {
        let two = Two::new(engine).await;
        let mut event = two.between("SUBSCRIBER_ALIAS");
        event["event"]["aliases"] = json!(["null", "anonymous", "NaN", "a/b", two.shop.ann.id]);
        event["event"]["original_app_user_id"] = "undefined".into();

        assert_eq!(two.told_purchase(&event).await, "processed");

        let names = db::billing::stores::names_of_user(&two.app.db, two.shop.ann.id.parse().unwrap()).await.unwrap();
        assert_eq!(names, []);
    }

    async fn inv_48_what_stripe_sold_is_counted_once(engine: Engine) {
        let two = Two::new(engine).await;
        two.told(&two.event("customer.subscription.created", |_| {})).await;

        assert_eq!(two.told_purchase(&two.purchase("INITIAL_PURCHASE", |e| e.store = "STRIPE".into())).await, "ignored: told_by_stripe");

        assert_eq!(two.both().await, (1, 0));
        assert_eq!(two.get(&two.shop.ann.token, "/api/billing").await.json()["duplicate_subscriptions"], false);
    }

    async fn inv_49_credits_count_once_for_each_transaction_and_go_with_their_money(engine: Engine) {
        let two = Two::new(engine).await;
        let balances = async || two.get(&two.shop.ann.token, "/api/billing").await.json()["credits"].clone();
        let bought = two.between("VIRTUAL_CURRENCY_TRANSACTION");
        assert_eq!(two.told_purchase(&bought).await, "processed");
        let mut again = bought.clone();
        again["event"]["id"] = "told twice".into();
        two.told_purchase(&again).await;
        assert_eq!(balances().await, json!([{"currency": "CRD", "amount": 100}]));

        let mut coins = two.between("NON_RENEWING_PURCHASE--consumable");
        coins["event"]["product_id"] = "com.example.coins.100".into();
        assert_eq!(two.told_purchase(&coins).await, "processed");
        coins["event"]["id"] = "again".into();
        two.told_purchase(&coins).await;
        assert_eq!(balances().await, json!([{"currency": "CRD", "amount": 100}, {"currency": "coins", "amount": 100}]));

        let mut refund = two.between("CANCELLATION--one-time-refund");
        for member in ["product_id", "transaction_id", "original_transaction_id", "entitlement_ids"] {
            refund["event"][member] = coins["event"][member].clone();
        }
        for id in ["refund", "refund told twice"] {
            refund["event"]["id"] = id.into();
            two.told_purchase(&refund).await;
        }
        assert_eq!(balances().await[1], json!({"currency": "coins", "amount": 0}));
        assert_eq!(two.plan().await, "free");
    }

    async fn a_product_that_nobody_mapped_opens_what_the_plan_says_it_does(engine: Engine) {
        let two = Two::new(engine).await;
        let mut event = two.between("INITIAL_PURCHASE--no-entitlement");
        event["event"]["product_id"] = "com.example.pro.monthly:base".into();

        assert_eq!(two.told_purchase(&event).await, "processed");

        assert_eq!(two.plan().await, "pro");
    }

    async fn a_trial_and_a_gift_are_told_from_what_is_paid_for(engine: Engine) {
        let two = Two::new(engine).await;
        two.told_between("INITIAL_PURCHASE--trial").await;
        assert_eq!(two.everything().await.1[0].kind, "trial");
        two.told_between("RENEWAL--trial-conversion").await;
        let (_, grants) = two.everything().await;
        assert_eq!(grants[0].kind, "paid");

        two.told_between("INITIAL_PURCHASE--family-share").await;
        assert_eq!(two.get(&two.shop.ann.token, "/api/billing").await.json()["duplicate_subscriptions"], false);
    }
}
