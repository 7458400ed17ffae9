//! What RevenueCat's API says that somebody holds, at the simulated one.
use super::*;
use crate::{
    billing::{phones, reconcile::Report},
    testing::both_engines,
};
use serde_json::json;
use sim::revenuecat::{Act, Bought};

/// With these the simulated RevenueCat can be asked; without, it only tells.
pub(super) const PHONES: [(&str, &str); 2] = [
    ("REVENUECAT_API_KEY", "sk_of_the_tests"),
    ("REVENUECAT_API_BASE", "{stripe}"),
];

impl Shop {
    async fn phoning(engine: Engine) -> Self {
        Self::with(engine, &PHONES).await
    }

    /// Something happens on Ann's phone.
    fn acts(&self, act: Act) {
        self.world.revenuecat().act(&self.ann.id, act).unwrap();
    }

    async fn hears(&self) {
        self.deliver().await;
        self.work().await;
    }

    async fn syncs(&self) -> Value {
        let ann = self.sign_in_again("ann@example.com").await;
        let answer = self.post(&ann.token, "/api/billing/sync", json!({})).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// In what Ann's purchases differed from what RevenueCat says.
    async fn differed(&self) -> Vec<(String, &'static str)> {
        let mut report = Report::of(false);
        let api = self.app.revenuecat.as_ref().unwrap();
        let ann = self.ann.id.parse().unwrap();
        phones::user(&self.app, api, ann, &mut report)
            .await
            .unwrap();
        let drift = report.drift.into_iter();
        drift
            .map(|drift| (drift.subscription, drift.field))
            .collect()
    }

    /// The purchases that open something, by their products.
    async fn open_products(&self) -> Vec<String> {
        let (subscriptions, grants) = self.everything().await;
        let is_open = |s: &&db::billing::Subscription| {
            let of = |g: &&db::billing::Grant| g.source_ref.ends_with(&s.external_id);
            let mut grants = grants.iter().filter(of);
            grants.any(|g| g.ends_at.is_none_or(|end| self.app.now() < end))
        };
        let open = subscriptions.iter().filter(is_open);
        open.filter_map(|s| s.product.clone()).collect()
    }
}

const STANDARD: &str = "com.example.standard.monthly";

fn to_standard(later: bool) -> Act {
    Act::ChangeProduct {
        product: STANDARD.into(),
        entitlement: Some("standard_access".into()),
        later,
    }
}

both_engines! {
    async fn what_was_bought_on_a_phone_is_open_before_anyone_tells_of_it(engine: Engine) {
        let shop = Shop::phoning(engine).await;
        shop.acts(Act::Purchase(Bought::default()));

        assert_eq!(shop.syncs().await["plan"], "pro");

        let before = shop.everything().await.1;
        shop.hears().await;
        assert_eq!(shop.everything().await.1, before);
    }

    async fn what_events_told_and_the_api_does_not_know_is_left_alone(engine: Engine) {
        let shop = Shop::phoning(engine).await;
        assert_eq!(shop.told_purchase(&shop.purchase("INITIAL_PURCHASE", |_| {})).await, "processed");
        let (_, told) = shop.everything().await;

        assert_eq!(shop.syncs().await["plan"], "pro");
        phones::run(&shop.app, &json!({})).await.unwrap();
        let purchase = shop.subscription().await["id"].as_str().unwrap().to_owned();

        assert_eq!(shop.differed().await, [(purchase, "unknown_there")]);
        assert_eq!(shop.everything().await.1, told);
        assert_eq!(shop.told_purchase(&shop.purchase("CANCELLATION", |_| {})).await, "processed");
        assert_eq!(shop.entitlement().await["will_renew"], false);
    }

    async fn another_product_of_one_subscription_takes_the_place_of_the_first(engine: Engine) {
        // The app may ask before RevenueCat tells, and RevenueCat may tell twice and in any order.
        for (asks_first, seed) in [(false, None), (true, None), (false, Some(2)), (true, Some(5))] {
            let shop = Shop::phoning(engine).await;
            shop.world.set_faults(sim::Faults { reorder: seed, duplicate: seed.is_some(), ..Default::default() });
            shop.acts(Act::Purchase(Bought::default()));
            shop.hears().await;
            shop.later(5 * DAY);

            shop.acts(to_standard(false));
            if asks_first {
                shop.syncs().await;
            }
            shop.hears().await;

            assert_eq!(shop.standing().await, ["standard"], "{asks_first} {seed:?}");
            assert_eq!(shop.open_products().await, [STANDARD]);
            for _ in 0..3 {
                shop.later(30 * DAY);
                shop.hears().await;
                assert_eq!(shop.standing().await, ["standard"], "{asks_first} {seed:?}");
                assert_eq!(shop.open_products().await, [STANDARD], "{asks_first} {seed:?}");
                assert_eq!(shop.differed().await, [], "{asks_first} {seed:?}");
            }
            let mails = shop.world.mailbox().to("ann@example.com");
            assert!(mails.iter().all(|mail| !mail.subject.contains("ended")), "{mails:?}");
        }
    }

    async fn a_product_that_is_to_change_changes_with_the_period(engine: Engine) {
        let shop = Shop::phoning(engine).await;
        shop.acts(Act::Purchase(Bought::default()));
        shop.acts(to_standard(true));
        shop.hears().await;
        shop.later(29 * DAY);
        assert_eq!(shop.standing().await, ["pro"]);

        shop.later(2 * DAY);
        shop.hears().await;

        assert_eq!(shop.standing().await, ["standard"]);
        assert_eq!(shop.open_products().await, [STANDARD]);
    }

    async fn a_pause_begins_with_the_next_period_and_ends_by_itself(engine: Engine) {
        let shop = Shop::phoning(engine).await;
        shop.acts(Act::Purchase(Bought { store: "PLAY_STORE".into(), ..Bought::default() }));
        shop.hears().await;
        let until = shop.app.now() + 30 * DAY;
        shop.later(DAY);

        shop.acts(Act::Pause { days: 10 });
        shop.hears().await;

        let (_, grants) = shop.everything().await;
        assert_eq!((grants[0].ends_at, grants[0].will_renew), (Some(until), false));
        shop.later(30 * DAY);
        shop.hears().await;
        assert_eq!(shop.standing().await, [""; 0]);
        shop.later(10 * DAY);
        shop.hears().await;
        assert_eq!(shop.standing().await, ["pro"]);
    }

    async fn inv_46_a_transfer_that_both_sides_are_read_after_leaves_it_with_one(engine: Engine) {
        let shop = Shop::phoning(engine).await;
        let bob = shop.sign_up("bob@example.com").await;
        shop.acts(Act::Purchase(Bought::default()));
        shop.hears().await;
        shop.later(DAY);

        shop.acts(Act::Transfer { to: bob.id.clone() });
        shop.hears().await;

        assert_eq!(shop.standing().await, [""; 0]);
        let bob = shop.sign_in_again("bob@example.com").await;
        assert_eq!(shop.get(&bob.token, "/api/entitlements").await.json()["plan"], "pro");
        shop.later(30 * DAY);
        shop.hears().await;
        assert_eq!(shop.standing().await, [""; 0]);
    }

    async fn inv_51_any_one_row_of_a_phone_that_is_wrong_is_made_right(engine: Engine) {
        let shop = Shop::phoning(engine).await;
        shop.sign_up("ben@example.com").await;
        shop.acts(Act::Purchase(Bought::default()));
        shop.hears().await;
        assert_eq!(shop.differed().await, []);
        let right = shop.kept_state().await;
        let ben = "(select id from users where email = 'ben@example.com')";
        let wrongs = [
            "update billing_subscriptions set status = 'expired', will_renew = false",
            "update billing_subscriptions set status = 'nonsense'",
            "update billing_subscriptions set plan = null",
            "update billing_subscriptions set period_end = period_start",
            "update billing_subscriptions set ended_at = period_end, status = 'expired'",
            "update billing_subscriptions set basis_at = period_end, status = 'refunded'",
            "update billing_subscriptions set product = 'com.example.other'",
            "delete from billing_subscriptions",
            "delete from entitlement_grants",
            "update entitlement_grants set ends_at = starts_at",
            "update entitlement_grants set ends_at = null",
            &format!("update entitlement_grants set user_id = {ben}"),
        ];
        for sql in wrongs {
            db::testing::execute(&shop.app.db, sql).await.unwrap();

            assert_ne!(shop.differed().await, [], "{sql}");

            assert_eq!(shop.kept_state().await, right, "{sql}");
            assert_eq!(shop.differed().await, [], "{sql}: again");
        }
    }
}
