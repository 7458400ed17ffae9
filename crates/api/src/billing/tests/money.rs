//! What failed payments, refunds and disputes do to access, in whatever order they are told.
use super::*;
use crate::testing::both_engines;
use serde_json::json;

const PAYMENT: &str = "pi_v3uJLhiAa941oIBxL5QcZmLd";
const SUBSCRIPTION: &str = "sub_Cuw0wRIqyrT9o4CaDPqcowjS";

impl Shop {
    /// Tells recorded events of one shape, by the names that both shapes share; what only one shape has is
    /// told in that one.
    async fn told_recorded_events(&self, shape: &str, names: &[&str]) {
        for name in names {
            let file = format!("{shape}--{name}");
            if shape == "legacy" && name.starts_with("invoice_payment") {
                continue;
            }
            self.told(&self.recorded(&file)).await;
        }
    }

    async fn grant(&self, source_ref: &str) -> db::billing::Grant {
        let (_, grants) = self.everything().await;
        grants
            .into_iter()
            .find(|grant| grant.source_ref == source_ref)
            .unwrap()
    }

    /// A refund of the recorded payment.
    fn refund(&self, status: &str, amount: i64, seconds: i64) -> Value {
        let mut event = self.recorded("endive--refund.updated");
        event["id"] = format!("evt_{status}{amount}{seconds}").into();
        event["created"] = (1_794_259_200 + seconds).into();
        event["data"]["object"]["id"] = format!("re_{amount}").into();
        event["data"]["object"]["status"] = status.into();
        event["data"]["object"]["amount"] = amount.into();
        event
    }

    fn dispute(&self, status: &str, seconds: i64) -> Value {
        let mut event = self.recorded("endive--charge.dispute.created--needs_response");
        event["id"] = format!("evt_{status}{seconds}").into();
        event["created"] = (1_795_728_000 + seconds).into();
        event["data"]["object"]["status"] = status.into();
        event
    }
}

const PAID: [&str; 3] = [
    "customer.subscription.created--active",
    "invoice.paid--subscription_create",
    "invoice_payment.paid",
];

both_engines! {
    async fn inv_39_a_full_refund_of_the_latest_period_ends_access_in_both_shapes(engine: Engine) {
        for shape in ["endive", "legacy"] {
            let shop = Shop::new(engine).await;
            shop.told_recorded_events(shape, &PAID).await;
            assert_eq!(shop.standing().await, ["pro"]);

            shop.told_recorded_events(shape, &["charge.refunded--partial"]).await;
            assert_eq!(shop.standing().await, ["pro"], "{shape}: a part is no reason");

            shop.told_recorded_events(shape, &["charge.refunded--full"]).await;
            assert_eq!(shop.standing().await, [""; 0], "{shape}");
            assert_eq!(shop.grant(SUBSCRIPTION).await.reason.as_deref(), Some("refund"));
        }
    }

    async fn inv_39_a_refund_counts_whenever_it_comes_to_be_known_what_was_paid(engine: Engine) {
        let refunded_first = ["charge.refunded--full", "invoice_payment.paid", "customer.subscription.created--active", "invoice.paid--subscription_create"];
        let shop = Shop::new(engine).await;

        assert_eq!(shop.told(&shop.recorded("endive--charge.refunded--full")).await, "parked: unknown_payment");
        shop.told_recorded_events("endive", &refunded_first[1..]).await;

        assert_eq!(shop.standing().await, [""; 0]);
    }

    async fn inv_39_a_refund_that_fails_gives_access_back(engine: Engine) {
        let shop = Shop::new(engine).await;
        shop.told_recorded_events("endive", &PAID).await;
        shop.told(&shop.recorded("endive--refund.created--pending")).await;
        assert_eq!(shop.standing().await, ["pro"], "it has not succeeded");
        shop.told(&shop.refund("succeeded", 2_900, 60)).await;
        assert_eq!(shop.standing().await, [""; 0]);

        shop.told(&shop.refund("failed", 2_900, 86_400)).await;

        assert_eq!(shop.standing().await, ["pro"]);
        shop.told(&shop.refund("succeeded", 2_900, 30)).await;
        assert_eq!(shop.standing().await, ["pro"], "what is older counts no more");
    }

    async fn inv_39_refunds_in_parts_end_access_once_they_are_all_of_it(engine: Engine) {
        let shop = Shop::new(engine).await;
        shop.told_recorded_events("endive", &PAID).await;

        shop.told(&shop.refund("succeeded", 1_000, 10)).await;
        assert_eq!(shop.standing().await, ["pro"]);
        shop.told(&shop.refund("succeeded", 1_900, 20)).await;

        assert_eq!(shop.standing().await, [""; 0]);
    }

    async fn inv_39_a_refund_of_an_older_period_takes_nothing_and_the_next_payment_makes_up_for_one(engine: Engine) {
        let shop = Shop::new(engine).await;
        shop.told_recorded_events("endive", &PAID).await;
        shop.told_recorded_events("endive", &["charge.refunded--full"]).await;
        assert_eq!(shop.standing().await, [""; 0]);

        shop.later(17 * DAY);
        shop.told_recorded_events("endive", &["customer.subscription.updated--renewed", "invoice.paid--subscription_cycle"]).await;

        assert_eq!(shop.standing().await, ["pro"]);
        assert_eq!(shop.grant(SUBSCRIPTION).await.reason, None);
    }

    async fn inv_40_a_dispute_suspends_and_winning_it_lifts_that(engine: Engine) {
        for shape in ["endive", "legacy"] {
            let shop = Shop::new(engine).await;
            shop.told_recorded_events(shape, &PAID).await;
            if shape == "legacy" {
                // There, only a charge joins the two.
                shop.told(&shop.recorded("legacy--charge.refunded--partial")).await;
            }

            shop.told_recorded_events(shape, &["charge.dispute.created--inquiry"]).await;
            assert_eq!(shop.standing().await, ["pro"], "{shape}: an inquiry takes no money");

            shop.later(8 * DAY);
            shop.told_recorded_events(shape, &["charge.dispute.created--needs_response"]).await;
            assert_eq!(shop.standing().await, [""; 0], "{shape}");
            assert_eq!(shop.grant(SUBSCRIPTION).await.reason.as_deref(), Some("dispute"));

            let mut won = shop.recorded(&format!("{shape}--charge.dispute.closed--won"));
            won["created"] = shop.app.now().unix().into();
            shop.told(&won).await;
            assert_eq!(shop.standing().await, ["pro"], "{shape}");
        }
    }

    async fn inv_40_a_dispute_that_is_lost_stays_until_the_next_payment(engine: Engine) {
        let shop = Shop::new(engine).await;
        shop.told_recorded_events("endive", &PAID).await;

        shop.later(8 * DAY);
        shop.told(&shop.dispute("lost", 60)).await;
        assert_eq!(shop.standing().await, [""; 0]);
        shop.told(&shop.dispute("needs_response", 0)).await;
        assert_eq!(shop.standing().await, [""; 0]);

        shop.later(17 * DAY);
        shop.told_recorded_events("endive", &["customer.subscription.updated--renewed", "invoice.paid--subscription_cycle"]).await;
        assert_eq!(shop.standing().await, ["pro"]);
    }

    async fn the_operator_may_let_refunded_and_disputed_go_on(engine: Engine) {
        let shop = Shop::with(engine, &[("BILLING_REVOKE_REFUNDED", "false"), ("BILLING_SUSPEND_DISPUTED", "false")]).await;
        shop.told_recorded_events("endive", &PAID).await;

        shop.told_recorded_events("endive", &["charge.refunded--full", "charge.dispute.created--needs_response"]).await;

        assert_eq!(shop.standing().await, ["pro"]);
    }

    async fn what_was_bought_once_goes_with_its_money(engine: Engine) {
        let shop = Shop::new(engine).await;
        shop.told(&shop.recorded("endive--checkout.session.completed--payment-lifetime")).await;
        assert_eq!(shop.standing().await, ["pro"]);
        let mut charge = shop.recorded("endive--charge.refunded--full");
        charge["data"]["object"]["amount"] = 9_900.into();
        charge["data"]["object"]["amount_refunded"] = 9_900.into();

        assert_eq!(shop.told(&charge).await, "processed");

        assert_eq!(shop.standing().await, [""; 0]);
        assert_eq!(shop.grant(PAYMENT).await.reason.as_deref(), Some("refund"));
        let billing = shop.get(&shop.ann.token, "/api/billing").await.json();
        assert_eq!((&billing["purchases"][0]["amount_minor"], &billing["purchases"][0]["currency"]), (&json!(9_900), &json!("USD")));
    }

    async fn inv_30_grace_begins_with_the_first_failure_and_no_later_one_moves_it(engine: Engine) {
        let shop = Shop::with(engine, &[("BILLING_GRACE", "86400")]).await;
        shop.told(&shop.recorded("endive--customer.subscription.created--active")).await;
        shop.told(&shop.recorded("endive--invoice.payment_failed--first-attempt")).await;
        let failed_at = Timestamp::from_unix(1_796_595_605);

        shop.told(&shop.recorded("endive--customer.subscription.updated--past_due")).await;
        assert_eq!(shop.grant(SUBSCRIPTION).await.ends_at, Some(failed_at + DAY));

        for days in 1..40 {
            let mut again = shop.recorded("endive--customer.subscription.updated--past_due");
            again["id"] = format!("evt_again_{days}").into();
            again["created"] = (1_796_595_700 + days * 86_400).into();
            // A month later Stripe writes another invoice that nobody pays.
            again["data"]["object"]["latest_invoice"] = format!("in_{}", days / 30).into();
            shop.told(&again).await;
        }
        let grant = shop.grant(SUBSCRIPTION).await;
        assert_eq!((grant.ends_at, grant.in_grace), (Some(failed_at + DAY), true));
    }

    async fn inv_31_a_failure_after_a_recovery_has_a_grace_of_its_own(engine: Engine) {
        let shop = Shop::new(engine).await;
        for name in ["customer.subscription.created--active", "invoice.payment_failed--first-attempt", "customer.subscription.updated--past_due", "customer.subscription.updated--past_due-recovered"] {
            shop.told(&shop.recorded(&format!("endive--{name}"))).await;
        }
        assert!(!shop.grant(SUBSCRIPTION).await.in_grace);
        let month = 30 * 86_400;
        let mut again = shop.recorded("endive--customer.subscription.updated--past_due");
        again["id"] = "evt_again".into();
        again["created"] = (1_796_595_700 + month).into();
        again["data"]["object"]["latest_invoice"] = "in_next".into();

        shop.told(&again).await;

        assert_eq!(shop.grant(SUBSCRIPTION).await.ends_at, Some(Timestamp::from_unix(1_796_595_700 + month) + 7 * DAY));
    }

    async fn an_upgrade_that_fails_in_the_middle_of_a_period_is_forgiven_from_then_on(engine: Engine) {
        let shop = Shop::new(engine).await;
        shop.told(&shop.event("customer.subscription.created", |_| {})).await;
        let period_start = shop.app.now().unix();
        shop.later(20 * DAY);
        let failed_at = shop.app.now();

        shop.told(&shop.event("customer.subscription.updated", |e| { e.status = Some("past_due".into()); e.previous_status = Some("active".into()); e.period_start = Some(period_start) })).await;

        assert_eq!(shop.everything().await.1[0].ends_at, Some(failed_at + 7 * DAY));
    }

    async fn collection_that_is_paused_keeps_what_is_paid_for_and_no_more(engine: Engine) {
        for shape in ["endive", "legacy"] {
            let shop = Shop::new(engine).await;
            shop.told_recorded_events(shape, &PAID).await;
            shop.told_recorded_events(shape, &["customer.subscription.updated--pause-collection"]).await;
            assert_eq!(shop.grant(SUBSCRIPTION).await.ends_at, Some(Timestamp::from_unix(1_796_592_000)), "{shape}: no leeway");

            // Periods go on though nobody is charged.
            let mut next = shop.recorded(&format!("{shape}--customer.subscription.updated--renewed"));
            next["data"]["object"]["pause_collection"] = json!({"behavior": "void", "resumes_at": null});
            shop.told(&next).await;
            assert_eq!(shop.grant(SUBSCRIPTION).await.ends_at, Some(Timestamp::from_unix(1_796_592_000)), "{shape}");

            next["id"] = "evt_kept".into();
            next["created"] = (next["created"].as_i64().unwrap() + 1).into();
            next["data"]["object"]["pause_collection"]["behavior"] = "keep_as_draft".into();
            shop.told(&next).await;
            assert_eq!(shop.grant(SUBSCRIPTION).await.ends_at, Some(Timestamp::from_unix(1_799_184_000) + DAY), "{shape}");
        }
    }

    async fn several_items_open_all_of_theirs_and_a_price_may_say_by_itself_what_it_opens(engine: Engine) {
        let shop = Shop::new(engine).await;
        let mut event = shop.event("customer.subscription.created", |_| {});
        let items = &mut event["data"]["object"]["items"]["data"];
        let mut seats = items[0].clone();
        seats["quantity"] = 4.into();
        seats["price"]["id"] = "price_of_seats".into();
        seats["price"]["lookup_key"] = Value::Null;
        seats["price"]["metadata"] = json!({"entitlement": "seats"});
        let mut yearly = items[0].clone();
        yearly["price"]["id"] = "price_of_a_year".into();
        yearly["price"]["lookup_key"] = "standard_year".into();
        items.as_array_mut().unwrap().extend([seats, yearly]);

        assert_eq!(shop.told(&event).await, "processed");

        assert_eq!(shop.standing().await, ["pro", "seats", "standard"]);
        let subscription = shop.subscription().await;
        assert_eq!((&subscription["plan"], &subscription["quantity"]), (&"pro".into(), &6.into()));
    }

    async fn a_change_that_waits_for_its_payment_changes_nothing_until_it_is_applied(engine: Engine) {
        let shop = Shop::new(engine).await;
        shop.told(&shop.recorded("endive--customer.subscription.created--active")).await;
        let before = shop.standing().await;

        shop.told(&shop.recorded("endive--customer.subscription.updated--pending-update")).await;
        assert_eq!(shop.standing().await, before);
        shop.told(&shop.recorded("endive--customer.subscription.pending_update_expired")).await;
        assert_eq!(shop.standing().await, before);
    }
}
