//! What RevenueCat's events open.
use super::*;
use crate::{App, app::Simulated, testing::both_engines};
use serde_json::json;

/// How purchases are known there.
const PURCHASE: &str = "2000000912345678";

impl Shop {
    /// Turned to shortly after a recorded event happened.
    async fn told_recorded(&self, name: &str) -> String {
        self.told_purchase(&self.recorded_purchase(name)).await
    }
}

both_engines! {
    async fn a_purchase_opens_what_it_names_until_a_day_after_it_ends(engine: Engine) {
        let shop = Shop::new(engine).await;

        assert_eq!(shop.told_purchase(&shop.purchase("INITIAL_PURCHASE", |_| {})).await, "processed");

        let entitlement = shop.entitlement().await;
        assert_eq!((&entitlement["entitlement"], &entitlement["source"], &entitlement["will_renew"]), (&"pro".into(), &"revenuecat".into(), &true.into()));
        assert_eq!(entitlement["expires_at"], time(shop.app.now() + 31 * DAY));
        shop.later(31 * DAY);
        assert_eq!(shop.standing().await, [""; 0]);
    }

    async fn inv_27_production_ignores_the_sandbox(engine: Engine) {
        let mut shop = Shop::new(engine).await;
        let mut config = shop.app.config.clone();
        config.core.app_env = crate::config::AppEnv::Production;
        shop.test.app = App::new(config, shop.app.db.clone(), Simulated::default(), shop.app.clock.clone()).await.unwrap();
        shop.test.router = crate::router(&shop.app);

        assert_eq!(shop.told_recorded("INITIAL_PURCHASE--sandbox").await, "ignored: sandbox");
        assert_eq!(shop.told_purchase(&shop.purchase("INITIAL_PURCHASE", |e| e.environment = "PLAYGROUND".into())).await, "ignored: sandbox");
        assert_eq!(shop.everything().await, (vec![], vec![]));

        assert_eq!(shop.told_recorded("INITIAL_PURCHASE--normal").await, "processed");
        assert_eq!(shop.standing().await, ["pro"]);
    }

    async fn inv_44_who_cancels_keeps_what_is_paid_for(engine: Engine) {
        for reason in ["unsubscribe", "developer", "price-increase", "unknown"] {
            let shop = Shop::new(engine).await;
            shop.told_recorded("INITIAL_PURCHASE--normal").await;

            assert_eq!(shop.told_recorded(&format!("CANCELLATION--{reason}")).await, "processed", "{reason}");

            let entitlement = shop.entitlement().await;
            assert_eq!((&entitlement["expires_at"], &entitlement["will_renew"]), (&at(1_796_592_000), &false.into()), "{reason}");
            assert_eq!(shop.subscription().await["cancel_at"], at(1_796_592_000));
        }
    }

    async fn who_comes_back_renews(engine: Engine) {
        let shop = Shop::new(engine).await;
        for name in ["INITIAL_PURCHASE--normal", "CANCELLATION--unsubscribe", "UNCANCELLATION"] {
            shop.told_recorded(name).await;
        }
        assert_eq!(shop.entitlement().await["will_renew"], true);
        assert_eq!(shop.subscription().await["cancel_at"], Value::Null);

        assert_eq!(shop.told_recorded("RENEWAL--normal").await, "processed");
        assert_eq!(shop.everything().await.1[0].ends_at, Some(Timestamp::from_unix(1_799_184_000) + DAY));
    }

    async fn a_refund_ends_it_now(engine: Engine) {
        let shop = Shop::new(engine).await;
        for (bought, refunded) in [("INITIAL_PURCHASE--normal", "CANCELLATION--refund"), ("NON_RENEWING_PURCHASE--lifetime", "CANCELLATION--one-time-refund")] {
            shop.told_recorded(bought).await;
            assert_eq!(shop.plan().await, "pro");
            shop.told_recorded(refunded).await;
            assert_eq!(shop.plan().await, "free", "{refunded}");
        }
        assert!(shop.everything().await.1.iter().all(|grant| grant.reason.as_deref() == Some("refund")));
    }

    async fn inv_45_a_pause_keeps_access_until_it_begins(engine: Engine) {
        let shop = Shop::new(engine).await;
        shop.told_recorded("INITIAL_PURCHASE--play-store").await;
        let known = shop.everything().await;

        assert_eq!(shop.told_recorded("SUBSCRIPTION_PAUSED").await, "ignored: no_effect");
        assert_eq!(shop.everything().await, known);

        shop.later(30 * DAY);
        shop.told_recorded("EXPIRATION--paused").await;
        assert_eq!(shop.standing().await, [""; 0]);
    }

    async fn inv_45_a_late_expiration_does_not_end_what_was_renewed(engine: Engine) {
        let shop = Shop::new(engine).await;
        shop.told_recorded("INITIAL_PURCHASE--normal").await;
        shop.told_recorded("RENEWAL--normal").await;
        let (_, grants) = shop.everything().await;

        assert_eq!(shop.told_recorded("EXPIRATION--unsubscribe").await, "ignored: stale");

        assert_eq!(shop.everything().await.1, grants);
        let subscription = shop.subscription().await;
        assert_eq!((&subscription["status"], &subscription["ended_at"]), (&"active".into(), &Value::Null));
    }

    async fn an_expiration_ends_the_period_it_names(engine: Engine) {
        let shop = Shop::new(engine).await;
        shop.told_recorded("INITIAL_PURCHASE--normal").await;
        shop.later(17 * DAY);
        assert_eq!(shop.standing().await, ["pro"], "within the leeway");

        assert_eq!(shop.told_recorded("EXPIRATION--unsubscribe").await, "processed");

        assert_eq!(shop.standing().await, [""; 0]);
        let (subscriptions, grants) = shop.everything().await;
        assert_eq!((subscriptions[0].status.as_str(), subscriptions[0].will_renew, grants[0].will_renew), ("expired", false, false));
        assert_eq!(subscriptions[0].ended_at, Some(Timestamp::from_unix(1_796_592_000)));
    }

    async fn inv_45_an_expiration_that_names_no_entitlement_ends_its_own_purchase_alone(engine: Engine) {
        let shop = Shop::new(engine).await;
        shop.told_recorded("INITIAL_PURCHASE--normal").await;
        shop.told_recorded("NON_RENEWING_PURCHASE--lifetime").await;
        let mut expired = shop.recorded_purchase("EXPIRATION--unsubscribe");
        expired["event"]["entitlement_ids"] = Value::Null;

        shop.told_purchase(&expired).await;

        let (_, grants) = shop.everything().await;
        let ends: Vec<_> = grants.iter().map(|grant| (grant.source_ref.as_str(), grant.ends_at)).collect();
        assert_eq!(ends, [("live:2000000912345678", Some(Timestamp::from_unix(1_796_592_000))), ("live:2000000955550000", None)]);
        assert_eq!(shop.plan().await, "pro");
    }

    async fn an_event_without_entitlements_neither_opens_nor_closes_any(engine: Engine) {
        let shop = Shop::new(engine).await;
        assert_eq!(shop.told_recorded("INITIAL_PURCHASE--no-entitlement").await, "parked: no_entitlement");
        assert_eq!(shop.told_recorded("NON_RENEWING_PURCHASE--consumable").await, "parked: no_entitlement");
        assert_eq!(shop.plan().await, "free");

        let other = Shop::new(engine).await;
        other.told_recorded("INITIAL_PURCHASE--two-entitlements").await;
        let mut renewed = other.recorded_purchase("RENEWAL--normal");
        renewed["event"]["entitlement_ids"] = Value::Null;
        assert_eq!(other.told_purchase(&renewed).await, "processed");
        let (_, grants) = other.everything().await;
        let open: Vec<_> = grants.iter().map(|grant| (grant.entitlement.as_str(), grant.ends_at)).collect();
        assert_eq!(open, ["pro", "standard"].map(|entitlement| (entitlement, Some(Timestamp::from_unix(1_799_184_000) + DAY))));
    }

    async fn a_purchase_without_renewal_ends_with_its_period(engine: Engine) {
        let shop = Shop::new(engine).await;

        shop.told_recorded("INITIAL_PURCHASE--prepaid").await;

        let entitlement = shop.entitlement().await;
        assert_eq!((&entitlement["will_renew"], &entitlement["expires_at"]), (&false.into(), &at(1_796_592_000)));
    }

    async fn a_user_is_found_under_any_of_their_names(engine: Engine) {
        let shop = Shop::new(engine).await;

        assert_eq!(shop.told_recorded("INITIAL_PURCHASE--user-only-in-aliases").await, "processed");

        assert_eq!(shop.plan().await, "pro");
    }

    async fn a_purchase_of_nobody_is_parked(engine: Engine) {
        let shop = Shop::new(engine).await;

        assert_eq!(shop.told_recorded("INITIAL_PURCHASE--anonymous-only").await, "parked: unlinked");

        assert_eq!(shop.everything().await, (vec![], vec![]));
        assert_eq!(shop.waiting().await, 0);
    }

    async fn a_purchase_that_names_two_users_is_parked_and_opens_for_neither(engine: Engine) {
        let shop = Shop::new(engine).await;
        let bob = shop.sign_up("bob@example.com").await;
        let mut event = shop.purchase("INITIAL_PURCHASE", |_| {});
        event["event"]["aliases"] = json!([shop.ann.id, bob.id]);

        assert_eq!(shop.told_purchase(&event).await, "parked: ambiguous");

        assert_eq!(shop.plan().await, "free");
        assert_eq!(shop.get(&bob.token, "/api/entitlements").await.json()["plan"], "free");
    }

    async fn news_that_is_about_no_purchase_changes_nothing(engine: Engine) {
        let shop = Shop::new(engine).await;
        shop.told_recorded("INITIAL_PURCHASE--normal").await;
        let known = shop.everything().await;

        for name in ["TEST", "EXPERIMENT_ENROLLMENT", "INVOICE_ISSUANCE", "PAYWALL_IMPRESSION", "PRICE_INCREASE_CONSENT_REQUIRED", "PRICE_INCREASE_CONSENT_APPROVED", "PRODUCT_CHANGE--immediate", "TEMPORARY_ENTITLEMENT_GRANT", "CANCELLATION--billing-error"] {
            assert_eq!(shop.told_recorded(name).await, "ignored: no_effect", "{name}");
        }
        assert_eq!(shop.everything().await, known);
    }

    async fn sandbox_and_production_are_two_purchases(engine: Engine) {
        let shop = Shop::new(engine).await;
        shop.told_recorded("INITIAL_PURCHASE--normal").await;
        shop.told_recorded("INITIAL_PURCHASE--sandbox").await;
        let mut refund = shop.recorded_purchase("CANCELLATION--refund");
        refund["event"]["environment"] = "SANDBOX".into();

        shop.told_purchase(&refund).await;

        assert_eq!(shop.plan().await, "pro");
        assert_eq!(shop.everything().await.0.iter().filter(|subscription| subscription.external_id == PURCHASE).count(), 2);
    }
}
