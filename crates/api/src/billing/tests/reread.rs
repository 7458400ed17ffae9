//! What providers' APIs say counts over what their events say; and while they cannot be asked, nothing is
//! taken from anybody.
use super::*;
use crate::{
    billing::{apply::Outcome, revenuecat, stripe},
    testing::both_engines,
};
use serde_json::json;

const CREATED: &str = "customer.subscription.created";
const UPDATED: &str = "customer.subscription.updated";

/// A shop that can ask.
struct Asking {
    shop: Shop,
    api: Api,
}

impl Deref for Asking {
    type Target = Shop;
    fn deref(&self) -> &Shop {
        &self.shop
    }
}

impl Asking {
    async fn stripe(engine: Engine) -> Self {
        let api = Api::start().await;
        let variables = [
            ("STRIPE_SECRET_KEY", "sk_test_0123456789"),
            ("STRIPE_API_BASE", api.base.as_str()),
        ];
        let shop = Shop::with(engine, &variables).await;
        Self { shop, api }
    }

    async fn revenuecat(engine: Engine) -> Self {
        let api = Api::start().await;
        let variables = [
            ("REVENUECAT_API_KEY", "sk_0123456789"),
            ("REVENUECAT_API_BASE", api.base.as_str()),
        ];
        let shop = Shop::with(engine, &variables).await;
        Self { shop, api }
    }

    /// Has RevenueCat's API answer for somebody with a recorded answer.
    fn holds(&self, person: &Person, state: &str) {
        let answer = recorded(
            &format!("revenuecat/api-v1-subscriber--{state}"),
            &person.id,
        );
        self.api
            .has(&format!("/v1/subscribers/{}", person.id), answer);
    }
}

both_engines! {
    async fn what_stripe_answers_counts_and_not_what_an_event_said(engine: Engine) {
        let shop = Asking::stripe(engine).await;
        let told = shop.event(CREATED, |_| {});
        shop.api.knows(&shop.event(CREATED, |e| { e.price = "price_standard".into(); e.cancel_at_period_end = true }));

        assert_eq!(shop.told(&told).await, "processed");

        assert_eq!(shop.plan().await, "standard");
        assert_eq!(shop.entitlement().await["will_renew"], false);
    }

    async fn inv_13_while_stripe_cannot_be_asked_the_event_waits_and_nothing_is_taken(engine: Engine) {
        let shop = Asking::stripe(engine).await;
        let created = shop.event(CREATED, |_| {});
        shop.api.knows(&created);
        shop.told(&created).await;
        shop.later(Duration::from_secs(5));
        let ended = shop.event("customer.subscription.deleted", |_| {});
        shop.api.knows(&ended);

        for status in [500, 401] {
            shop.api.breaks(Some(status));
            shop.stripe(&ended).await;
            shop.work().await;
            assert_eq!(verdict(&shop.kept("stripe", &ended).await.unwrap()), "received", "{status}");
            assert_eq!(shop.standing().await, ["pro"], "{status}");
        }

        shop.api.breaks(None);
        shop.later(HOUR / 30);
        shop.work().await;
        assert_eq!(verdict(&shop.kept("stripe", &ended).await.unwrap()), "processed");
        assert_eq!(shop.standing().await, [""; 0]);
    }

    async fn a_subscription_that_stripe_does_not_have_is_over(engine: Engine) {
        let shop = Asking::stripe(engine).await;
        let created = shop.event(CREATED, |_| {});
        shop.api.knows(&created);
        shop.told(&created).await;
        shop.later(Duration::from_secs(5));
        shop.api.objects.lock().unwrap().clear();

        assert_eq!(shop.told(&shop.event(UPDATED, |_| {})).await, "processed");

        assert_eq!(shop.standing().await, [""; 0]);
        assert_eq!(shop.subscription().await["status"], "canceled");
        assert_eq!(shop.told(&shop.event(CREATED, |e| e.subscription = Some("sub_never_seen".into()))).await, "ignored: gone");
    }

    async fn of_many_events_that_wait_together_the_first_asks_for_all(engine: Engine) {
        let shop = Asking::stripe(engine).await;
        let events: Vec<_> = (0..20).map(|i| shop.event(UPDATED, |e| e.happened_at = Some(shop.app.now().unix() - i))).collect();
        shop.api.knows(&events[0]);
        for event in &events {
            shop.stripe(event).await;
        }
        shop.later(Duration::from_secs(1));
        shop.work().await;

        assert_eq!(shop.api.asked_for("/v1/subscriptions/"), 1);
        assert_eq!(shop.plan().await, "pro");
        for event in &events {
            assert_eq!(verdict(&shop.kept("stripe", event).await.unwrap()), "processed");
        }
        shop.later(Duration::from_secs(1));
        shop.told(&shop.event(UPDATED, |_| {})).await;
        assert_eq!(shop.api.asked_for("/v1/subscriptions/"), 2, "what comes later is asked for");
    }

    async fn inv_24_a_thin_event_ends_as_its_snapshot_does(engine: Engine) {
        let (thin, snapshot) = (Asking::stripe(engine).await, Asking::stripe(engine).await);
        for kind in ["v1.customer.subscription.updated", "v1.customer.subscription.past_due"] {
            let told = snapshot.recorded("endive--customer.subscription.updated--quantity");
            snapshot.api.knows(&told);
            let mut event = thin.recorded("thin--v1.customer.subscription.updated");
            event["type"] = kind.into();
            event["id"] = kind.into();
            event["related_object"]["id"] = told["data"]["object"]["id"].clone();
            thin.api.knows(&thin.recorded("endive--customer.subscription.updated--quantity"));

            assert_eq!(snapshot.told(&told).await, "processed");
            assert_eq!(thin.told(&event).await, "processed");
        }
        assert_eq!(thin.subscription().await, snapshot.subscription().await);
        assert_eq!(thin.entitlement().await, snapshot.entitlement().await);
    }

    async fn a_thin_event_waits_where_nobody_can_ask_what_it_means(engine: Engine) {
        let shop = Shop::new(engine).await;

        assert_eq!(shop.told(&shop.recorded("thin--v1.customer.subscription.updated")).await, "parked: thin");
        assert_eq!(shop.told(&shop.recorded("thin--v1.billing.meter.error_report_triggered")).await, "ignored: no_effect");
    }

    async fn inv_51_a_row_that_says_it_is_over_is_mended_by_what_stripe_answers_and_by_no_event(engine: Engine) {
        let shop = Shop::new(engine).await;
        let told = shop.event(CREATED, |_| {});
        shop.told(&told).await;
        shop.told(&shop.event("customer.subscription.deleted", |_| {})).await;
        shop.later(Duration::from_secs(5));
        assert_eq!(shop.told(&shop.event(UPDATED, |_| {})).await, "ignored: terminal");
        assert_eq!(shop.standing().await, [""; 0]);

        let mut tx = shop.app.db.begin().await.unwrap();
        let object = &told["data"]["object"];
        let mended = stripe::apply_subscription(&shop.app, &mut tx, object, shop.app.now()).await.unwrap();
        assert_eq!(mended, Outcome::Processed);
        tx.commit().await.unwrap();

        assert_eq!(shop.standing().await, ["pro"]);
        let mut tx = shop.app.db.begin().await.unwrap();
        let before = shop.app.now() - DAY;
        assert_eq!(stripe::gone(&shop.app, &mut tx, object["id"].as_str().unwrap(), before).await.unwrap(), Outcome::Processed);
        drop(tx);
        assert_eq!(shop.standing().await, ["pro"], "what is rolled back was a dry run");
    }

    async fn inv_39_a_refund_that_names_no_invoice_is_asked_about(engine: Engine) {
        let shop = Asking::stripe(engine).await;
        let created = shop.recorded("endive--customer.subscription.created--active");
        shop.api.knows(&created);
        shop.told(&created).await;
        let invoice = shop.recorded("endive--invoice.paid--subscription_create")["data"]["object"].clone();
        let paid = shop.recorded("endive--invoice_payment.paid")["data"]["object"].clone();
        shop.api.has("/v1/invoice_payments", json!({"object": "list", "data": [paid]}));
        shop.api.has(&format!("/v1/invoices/{}", invoice["id"].as_str().unwrap()), invoice);

        assert_eq!(shop.told(&shop.recorded("endive--charge.refunded--full")).await, "processed");

        assert_eq!(shop.standing().await, [""; 0]);
    }

    async fn inv_41_a_paid_checkout_opens_at_once_by_what_stripe_says_of_its_subscription(engine: Engine) {
        let shop = Asking::stripe(engine).await;
        let checkout = shop.recorded("endive--checkout.session.completed--subscription-paid");
        shop.api.knows(&shop.recorded("endive--customer.subscription.created--active"));

        assert_eq!(shop.told(&checkout).await, "processed");

        assert_eq!(shop.standing().await, ["pro"]);
    }

    async fn inv_41_a_checkout_that_is_looked_at_opens_what_was_paid_and_nothing_that_was_not(engine: Engine) {
        let shop = Shop::new(engine).await;
        let bought = shop.recorded("endive--checkout.session.completed--payment-lifetime")["data"]["object"].clone();
        let mut unpaid = bought.clone();
        unpaid["payment_status"] = "unpaid".into();
        for (session, standing) in [(unpaid, &[][..]), (bought.clone(), &["pro"]), (bought, &["pro"])] {
            let mut tx = shop.app.db.begin().await.unwrap();
            let looked = stripe::apply_checkout(&shop.app, &mut tx, &session, shop.app.now()).await.unwrap();
            tx.commit().await.unwrap();
            assert_eq!((looked, shop.standing().await.as_slice()), (Outcome::Processed, &standing.iter().map(ToString::to_string).collect::<Vec<_>>()[..]));
        }
        assert_eq!(shop.everything().await.1.len(), 1);
    }

    async fn what_revenuecat_answers_counts_and_nobody_else_is_asked_for(engine: Engine) {
        let shop = Asking::revenuecat(engine).await;
        shop.holds(&shop.shop.ann, "refunded");

        assert_eq!(shop.told_purchase(&shop.recorded_purchase("INITIAL_PURCHASE--normal")).await, "processed");

        assert_eq!(shop.standing().await, [""; 0]);
        assert_eq!(shop.everything().await.1.len(), 1, "one purchase, told by both");
        shop.told_purchase(&shop.recorded_purchase("INITIAL_PURCHASE--anonymous-only")).await;
        shop.told_purchase(&shop.recorded_purchase("TRANSFER--many")).await;
        let asked = shop.api.asked.lock().unwrap().clone();
        assert!(asked.iter().all(|path| path.ends_with(&shop.shop.ann.id)), "{asked:?}");
    }

    async fn inv_13_while_revenuecat_cannot_be_asked_the_event_waits_and_nothing_is_taken(engine: Engine) {
        let shop = Asking::revenuecat(engine).await;
        shop.holds(&shop.shop.ann, "active");
        shop.told_purchase(&shop.recorded_purchase("INITIAL_PURCHASE--normal")).await;
        let refund = shop.recorded_purchase("CANCELLATION--refund");
        shop.api.breaks(Some(401));

        shop.revenuecat(&refund).await;
        shop.work().await;

        assert_eq!(verdict(&shop.kept("revenuecat", &refund).await.unwrap()), "received");
        assert_eq!(shop.standing().await, ["pro"]);
    }

    async fn a_temporary_grant_opens_only_what_revenuecat_shows_and_for_a_day_at_most(engine: Engine) {
        let shop = Asking::revenuecat(engine).await;
        let granted = shop.recorded_purchase("TEMPORARY_ENTITLEMENT_GRANT");
        let mut answer = recorded("revenuecat/api-v1-subscriber--active", &shop.shop.ann.id);
        answer["subscriber"]["subscriptions"] = json!({});
        let entitlements = answer["subscriber"]["entitlements"].take();
        answer["subscriber"]["entitlements"] = json!({});
        let path = format!("/v1/subscribers/{}", shop.shop.ann.id);
        shop.api.has(&path, answer.clone());
        assert_eq!(shop.told_purchase(&granted).await, "ignored: no_effect");

        answer["subscriber"]["entitlements"] = entitlements;
        answer["subscriber"]["entitlements"]["pro_access"]["expires_date"] = (shop.app.now() + 30 * DAY).to_string().into();
        shop.api.has(&path, answer);
        let mut again = granted.clone();
        again["event"]["id"] = "another".into();
        assert_eq!(shop.told_purchase(&again).await, "processed");

        let (_, grants) = shop.everything().await;
        assert_eq!((grants.len(), grants[0].ends_at, grants[0].kind.as_str()), (1, Some(shop.app.now() + DAY), "promo"));
    }

    async fn what_somebody_holds_is_taken_over_without_an_event_and_events_find_it(engine: Engine) {
        let shop = Shop::new(engine).await;
        let answer = recorded("revenuecat/api-v1-subscriber--two-stores", &shop.ann.id);
        let ann = shop.ann.id.parse().unwrap();
        let mut tx = shop.app.db.begin().await.unwrap();
        let basis = Timestamp::from_unix(1_794_086_400);
        assert!(revenuecat::apply_subscriber(&shop.app, &mut tx, ann, &answer, basis).await.unwrap().changed);
        assert!(!revenuecat::apply_subscriber(&shop.app, &mut tx, ann, &answer, basis).await.unwrap().changed);
        tx.commit().await.unwrap();
        let (_, grants) = shop.everything().await;
        let held: Vec<_> = grants.iter().map(|g| g.source_ref.as_str()).collect();
        assert_eq!(held, ["live:GPA.3345-1122-7788-90123"], "the other product is no plan's, and no entitlement names it");

        shop.told_purchase(&shop.recorded_purchase("RENEWAL--normal")).await;
        let (subscriptions, _) = shop.everything().await;
        assert_eq!(subscriptions.len(), 2, "the renewal is of the purchase that was read");
        assert_eq!(shop.standing().await, ["pro"]);
    }
}
