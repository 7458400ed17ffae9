//! Money that comes later, goes back, or is not asked for yet: at the simulated Stripe.
use super::{
    selling::{CHECKOUT, text},
    *,
};
use crate::testing::{SELLING, both_engines};
use serde_json::json;

/// A bank account that has the money, and one that is none; both are known days later.
const ACCOUNT: &str = "000123456789";
const NO_ACCOUNT: &str = "000111111116";
/// Cards whose owners ask for the money back: at once, and at first just for an explanation.
const DISPUTED: &str = "4000000000000259";
const INQUIRED: &str = "4000000000001976";
const VISA: &str = "4242424242424242";

impl Shop {
    /// Ann pays for Pro, and comes back; gives how her checkout stands.
    async fn pays_for_pro(&self, with: &str) -> Value {
        let begun = self.checkout(json!({"plan": "pro"})).await.json();
        self.pays(&text(&begun["id"]), with);
        self.stands(&begun["id"]).await
    }

    async fn stands(&self, checkout: &Value) -> Value {
        let path = format!("{CHECKOUT}/{}", text(checkout));
        self.get(&self.ann.token, &path).await.json()
    }

    async fn hears_of_it(&self) {
        self.deliver().await;
        self.work().await;
    }

    /// The bank decides about the only dispute there is.
    async fn decides(&self, evidence: &str) {
        let dispute = self.listed("/v1/disputes", &[]).await.remove(0);
        let path = format!("/v1/disputes/{}", text(&dispute["id"]));
        let evidence = [("evidence[uncategorized_text]", evidence)];
        self.api()
            .post(&path, &evidence, evidence[0].1)
            .await
            .unwrap();
        self.hears_of_it().await;
    }
}

both_engines! {
    async fn inv_41_what_is_debited_opens_when_the_bank_has_paid(engine: Engine) {
        let mut shop = Shop::selling(engine).await;

        let stands = shop.pays_for_pro(ACCOUNT).await;
        shop.hears_of_it().await;

        assert_eq!((&stands["status"], &stands["payment_status"]), (&json!("complete"), &json!("unpaid")));
        assert_eq!(shop.plan().await, "free");
        shop.later(3 * DAY);
        shop.hears_of_it().await;
        assert_eq!(shop.standing().await, [""; 0], "the bank is slow");
        shop.comes_back(DAY).await;
        shop.hears_of_it().await;
        assert_eq!(shop.standing().await, ["pro"]);
        assert_eq!(shop.stands(&stands["id"]).await["payment_status"], "paid");
    }

    async fn inv_41_what_no_bank_pays_never_opens(engine: Engine) {
        let shop = Shop::selling(engine).await;
        shop.pays_for_pro(NO_ACCOUNT).await;

        for _ in 0..6 {
            shop.later(DAY);
            shop.hears_of_it().await;
            assert_eq!(shop.standing().await, [""; 0]);
        }

        let (subscriptions, _) = shop.everything().await;
        assert_eq!(subscriptions[0].status, "incomplete_expired");
        let failed = db::inbox::Filter { kind: Some("checkout.session.async_payment_failed"), ..Default::default() };
        assert_eq!(db::inbox::page(&shop.app.db, &failed, uuid::Uuid::max(), 9).await.unwrap().len(), 1);
    }

    async fn inv_40_what_is_disputed_is_closed_until_the_bank_decides_for_us(engine: Engine) {
        for (evidence, open) in [("winning_evidence", true), ("losing_evidence", false)] {
            let shop = Shop::selling(engine).await;
            shop.pays_for_pro(DISPUTED).await;
            shop.hears_of_it().await;
            assert_eq!(shop.standing().await, [""; 0], "{evidence}");
            assert_eq!(shop.everything().await.1[0].reason.as_deref(), Some("dispute"));
            shop.later(HOUR);

            shop.decides(evidence).await;

            assert_eq!(shop.standing().await == ["pro"], open, "{evidence}");
        }
    }

    async fn inv_40_who_only_asks_for_an_explanation_takes_nothing(engine: Engine) {
        let shop = Shop::selling(engine).await;
        shop.pays_for_pro(INQUIRED).await;
        shop.hears_of_it().await;
        assert_eq!(shop.standing().await, ["pro"]);
        shop.later(HOUR);

        shop.decides("winning_evidence").await;

        assert_eq!(shop.standing().await, ["pro"]);
    }

    async fn what_stripe_says_now_counts_and_not_what_a_late_event_said_then(engine: Engine) {
        let shop = Shop::selling(engine).await;
        let bought = shop.pays_for_pro(VISA).await;
        let said_then = shop.world.letters();
        shop.later(HOUR / 60);
        let path = format!("/v1/subscriptions/{}", text(&bought["subscription"]));
        shop.api().delete(&path, &[]).await.unwrap();
        // What is said of the end is lost; what was said of the beginning comes now.
        shop.world.letters();

        for (letter, headers) in said_then {
            shop.hand_over(letter, headers).await;
        }
        shop.work().await;

        assert_eq!(shop.standing().await, [""; 0]);
        assert_eq!(shop.subscription().await["status"], "canceled");
    }

    async fn a_plan_may_begin_with_days_for_nothing_for_who_never_had_one(engine: Engine) {
        let plans = include_str!("../../../plans.toml").replace("title = \"Pro\"", "title = \"Pro\"\ntrial_days = 14");
        let file = std::env::temp_dir().join(format!("{}.toml", uuid::Uuid::new_v4()));
        std::fs::write(&file, plans).unwrap();
        let shop = Shop::with(engine, &[SELLING[0], SELLING[1], ("PLANS_FILE", file.to_str().unwrap())]).await;
        std::fs::remove_file(&file).unwrap();

        let plans = shop.get("", "/api/billing/plans").await.json();
        assert_eq!((&plans["data"][1]["trial_days"], &plans["data"][2]["trial_days"]), (&json!(0), &json!(14)));
        let stands = shop.pays_for_pro(VISA).await;

        assert_eq!((&stands["status"], &stands["payment_status"]), (&json!("complete"), &json!("no_payment_required")));
        assert_eq!(shop.entitlement().await["expires_at"], time(shop.app.now() + 14 * DAY));
        let subscription = shop.subscription().await;
        assert_eq!(subscription["status"], "trialing");
        let path = format!("/api/billing/subscriptions/{}/cancel", text(&subscription["id"]));
        assert_eq!(shop.post(&shop.ann.token, &path, json!({"at": "now"})).await.status, 200);
        assert_eq!(shop.plan().await, "free");
        // Once is enough.
        let stands = shop.pays_for_pro(VISA).await;
        assert_eq!(stands["payment_status"], "paid");
        assert_eq!(shop.entitlement().await["will_renew"], true);
    }
}
