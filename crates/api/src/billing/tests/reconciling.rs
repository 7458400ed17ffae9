//! What is kept, made what Stripe says; and what Stripe does not say changes nothing.
use super::{holding::PHONES, selling::text, *};
use crate::{
    billing::{
        endings, poll,
        reconcile::{self, Pass, Report},
        setup::{self, Done, Outcome},
        stripe_api::{EVENTS, VERSION},
    },
    testing::{SELLING, both_engines},
};
use http::Method;
use serde_json::json;
use sim::{
    ApiFault, Faults,
    revenuecat::{Act, Bought},
};

type Everything = (Vec<db::billing::Subscription>, Vec<db::billing::Grant>);

impl Shop {
    /// Every part of the nightly comparison.
    async fn night(&self) -> anyhow::Result<()> {
        reconcile::run(&self.app, &json!({})).await?;
        self.work().await;
        Ok(())
    }

    async fn compared(&self, dry_run: bool) -> Report {
        let mut report = Report::of(dry_run);
        for pass in Pass::ALL {
            let mut after = Some(String::new());
            while let Some(from) = after {
                after = reconcile::part(&self.app, self.api(), pass, &from, &mut report)
                    .await
                    .unwrap();
            }
        }
        report
    }

    async fn corrupt(&self, sql: &str) {
        db::testing::execute(&self.app.db, sql).await.unwrap();
    }

    /// What is kept about Ann, but when it was read.
    pub(super) async fn kept_state(&self) -> Everything {
        let (mut subscriptions, grants) = self.everything().await;
        for subscription in &mut subscriptions {
            subscription.basis_at = Timestamp::from_unix(0);
            subscription.basis_rank = 0;
            subscription.basis_event.clear();
        }
        (subscriptions, grants)
    }

    async fn set_up(&self) -> Vec<Done> {
        let mut done = vec![];
        setup::run(&self.app, self.api(), |part| done.push(part))
            .await
            .unwrap();
        done
    }
}

fn fields(report: &Report) -> Vec<&'static str> {
    report.drift.iter().map(|drift| drift.field).collect()
}

fn broken(fault: ApiFault) -> Faults {
    Faults {
        api: Some(fault),
        ..Faults::default()
    }
}

both_engines! {
    async fn inv_51_any_one_row_that_is_wrong_is_made_right_and_only_once(engine: Engine) {
        let shop = Shop::selling(engine).await;
        shop.sign_up("ben@example.com").await;
        shop.buys("pro", "4242424242424242").await;
        shop.deliver().await;
        shop.work().await;
        let right = shop.kept_state().await;
        assert_eq!(shop.compared(false).await.drift, [], "nothing is wrong");
        let ben = "(select id from users where email = 'ben@example.com')";
        let wrongs = [
            ("update billing_subscriptions set status = 'canceled', will_renew = false, ended_at = period_start", "status"),
            ("update billing_subscriptions set status = 'past_due'", "status"),
            ("update billing_subscriptions set status = 'nonsense'", "status"),
            ("update billing_subscriptions set plan = 'standard'", "plan"),
            ("update billing_subscriptions set plan = null", "plan"),
            ("update billing_subscriptions set quantity = 7", "quantity"),
            ("update billing_subscriptions set will_renew = false", "will_renew"),
            ("update billing_subscriptions set period_end = period_start", "period_end"),
            ("update billing_subscriptions set period_start = period_end", "period_start"),
            ("update billing_subscriptions set trial_end = period_end", "trial_end"),
            ("update billing_subscriptions set cancel_at = period_end", "cancel_at"),
            ("update billing_subscriptions set user_id = null", "user"),
            (&format!("update billing_subscriptions set user_id = {ben}"), "user"),
            ("update billing_subscriptions set customer = null", "customer"),
            ("update billing_subscriptions set basis_at = period_end, status = 'past_due'", "status"),
            ("delete from entitlement_grants", "grant"),
            ("update entitlement_grants set ends_at = starts_at", "grant"),
            ("update entitlement_grants set ends_at = null", "grant"),
            (&format!("update entitlement_grants set user_id = {ben}"), "grant"),
            ("delete from billing_subscriptions", "missing"),
            ("delete from billing_customers", ""),
        ];
        for (sql, field) in wrongs {
            shop.corrupt(sql).await;

            let tried = shop.compared(true).await;
            let corrupted = db::testing::content(&shop.app.db, &[]).await.unwrap();
            assert_eq!(fields(&shop.compared(true).await), fields(&tried), "{sql}");
            assert_eq!(db::testing::content(&shop.app.db, &[]).await.unwrap(), corrupted, "{sql}: a dry run wrote");
            let report = shop.compared(false).await;

            assert_eq!(report.drift, tried.drift, "{sql}");
            assert!(field.is_empty() || fields(&report).contains(&field), "{sql}: {report:?}");
            assert_eq!(shop.kept_state().await, right, "{sql}");
            assert_eq!(shop.compared(false).await.drift, [], "{sql}: again");
        }
        assert_eq!(shop.plan().await, "pro");
    }

    async fn inv_51_who_cannot_be_asked_revokes_nothing(engine: Engine) {
        let shop = Shop::selling(engine).await;
        shop.buys("pro", "4242424242424242").await;
        let before = shop.everything().await;
        for fault in [ApiFault::ServerError, ApiFault::RateLimited] {
            shop.world.set_faults(broken(fault));
            let mut report = Report::of(false);

            let failed = reconcile::part(&shop.app, shop.api(), Pass::Ours, "", &mut report).await;

            assert!(failed.is_err(), "it is tried again");
            assert_eq!((report.compared, report.drift.len()), (0, 0));
            let path = format!("/api/admin/billing/users/{}/reconcile", shop.ann.id);
            let refused = shop.post(&shop.service_key(), &path, json!({})).await;
            assert_eq!(refused.refusal(), (503, "billing_unavailable".into()));
        }
        shop.world.set_faults(Faults::default());
        assert_eq!(shop.everything().await, before);
        assert_eq!(shop.plan().await, "pro");
    }

    async fn inv_51_another_account_knows_nobody_and_revokes_nothing(engine: Engine) {
        let shop = Shop::selling(engine).await;
        let id = shop.buys("pro", "4242424242424242").await;
        // As everything looks from an account that sold none of it.
        shop.corrupt("update billing_subscriptions set external_id = 'sub_elsewhere', customer = 'cus_elsewhere'").await;
        shop.corrupt("update entitlement_grants set source_ref = 'sub_elsewhere'").await;
        let before = shop.everything().await;
        let mut report = Report::of(false);

        reconcile::part(&shop.app, shop.api(), Pass::Ours, "", &mut report).await.unwrap();

        assert_eq!(fields(&report), ["unknown_there"]);
        assert_eq!(shop.everything().await, before);
        assert_eq!(shop.plan().await, "pro");

        // One that is missing of a customer who is there has ended.
        let customer = text(&shop.api().get(&format!("/v1/subscriptions/{id}"), &[]).await.unwrap()["customer"]);
        shop.corrupt(&format!("update billing_subscriptions set customer = '{customer}'")).await;
        let mut report = Report::of(false);
        reconcile::part(&shop.app, shop.api(), Pass::Ours, "", &mut report).await.unwrap();
        assert!(fields(&report).contains(&"status"), "{report:?}");
        assert_eq!(shop.plan().await, "free");
    }

    async fn what_nobody_told_of_is_found_at_night(engine: Engine) {
        let shop = Shop::selling(engine).await;
        let begun = shop.checkout(json!({"plan": "pro"})).await.json();
        shop.world.stripe().pay(&text(&begun["id"]), "4242424242424242").unwrap();

        shop.night().await.unwrap();

        assert_eq!(shop.plan().await, "pro");
        assert_eq!(shop.compared(false).await.drift, []);
        let parts = db::jobs::unfinished(&shop.app.db, reconcile::KIND).await.unwrap();
        assert_eq!(parts, []);
    }

    async fn an_admin_compares_one_user_and_can_do_so_without_changing_anything(engine: Engine) {
        let shop = Shop::selling(engine).await;
        shop.buys("pro", "4242424242424242").await;
        let admin = shop.sign_up_admin("ada@example.com").await;
        shop.corrupt("update billing_subscriptions set plan = 'standard'").await;
        shop.corrupt("update entitlement_grants set entitlement = 'standard'").await;
        let path = format!("/api/admin/billing/users/{}/reconcile", shop.ann.id);

        let tried = shop.post(&admin.token, &format!("{path}?dry_run=true"), json!({})).await.json();

        assert_eq!((&tried["dry_run"], &tried["drift"][0]["field"]), (&json!(true), &json!("plan")), "{tried}");
        assert_eq!((&tried["drift"][0]["was"], &tried["drift"][0]["is"]), (&json!("standard"), &json!("pro")));
        assert_eq!(shop.plan().await, "standard");
        let done = shop.post(&admin.token, &path, json!({})).await.json();
        assert_eq!((&done["dry_run"], &done["drift"]), (&json!(false), &tried["drift"]));
        assert_eq!(shop.plan().await, "pro");
        let newest = db::audit::page(&shop.app.db, None, 1).await.unwrap().remove(0);
        assert_eq!((newest.action.as_str(), &newest.detail["drift"]), ("billing_reconciled", &json!(2)));
        let nobody = format!("/api/admin/billing/users/{}/reconcile", uuid::Uuid::nil());
        assert_eq!(shop.post(&admin.token, &nobody, json!({})).await.refusal(), (404, "user_not_found".into()));
    }

    async fn events_that_were_not_delivered_are_looked_for(engine: Engine) {
        let shop = Shop::selling(engine).await;
        poll::run(&shop.app).await.unwrap();
        shop.world.set_faults(Faults { drop: true, ..Faults::default() });
        let begun = shop.checkout(json!({"plan": "pro"})).await.json();
        shop.world.stripe().pay(&text(&begun["id"]), "4242424242424242").unwrap();
        assert_eq!(shop.deliver().await, 0);
        shop.later(poll::EVERY);

        // What could not be looked at stays to be looked at.
        shop.world.set_faults(broken(ApiFault::ServerError));
        assert!(poll::run(&shop.app).await.is_err());
        shop.later(5 * HOUR);
        shop.world.set_faults(Faults::default());
        poll::run(&shop.app).await.unwrap();
        shop.work().await;

        assert_eq!(shop.standing().await, ["pro"]);
        let events = db::inbox::page(&shop.app.db, &db::inbox::Filter::default(), uuid::Uuid::max(), 100).await.unwrap();
        assert!(events.iter().all(|event| EVENTS.contains(&event.kind.as_str())), "{events:?}");
        assert_eq!(db::testing::rows(&shop.app.db, "webhook_events where source = 'poll'").await.unwrap(), events.len() as i64);
        assert_eq!(shop.waiting().await, 0);
        // Once is enough, also when Stripe gets through after all.
        poll::run(&shop.app).await.unwrap();
        let found = poll::backfill(&shop.app, shop.api(), shop.app.now() - DAY, |_| {}).await.unwrap();
        assert_eq!((found.events > 0, found.missed), (true, 0));
        let id = &events[0].external_id;
        let event = shop.api().get(&format!("/v1/events/{id}"), &[]).await.unwrap();
        assert!(is_duplicate(&shop.stripe(&event).await));
    }

    async fn a_backfill_takes_in_what_happened_before_anyone_looked(engine: Engine) {
        let shop = Shop::selling(engine).await;
        shop.world.set_faults(Faults { drop: true, ..Faults::default() });
        let begun = shop.checkout(json!({"plan": "pro"})).await.json();
        shop.world.stripe().pay(&text(&begun["id"]), "4242424242424242").unwrap();
        shop.later(4 * DAY);
        poll::run(&shop.app).await.unwrap();
        shop.work().await;
        assert_eq!(shop.standing().await, [] as [&str; 0], "too long ago to be looked for");

        let mut told = 0;
        let found = poll::backfill(&shop.app, shop.api(), shop.app.now() - 7 * DAY, |_| told += 1).await.unwrap();
        shop.work().await;

        assert_eq!(found.events, found.missed);
        assert!(found.missed > 3 && told > 0);
        assert_eq!(shop.standing().await, ["pro"]);
    }

    async fn who_is_gone_is_charged_no_more(engine: Engine) {
        let shop = Shop::selling(engine).await;
        let id = shop.buys("pro", "4242424242424242").await;
        let path = format!("/v1/subscriptions/{id}");
        let gone = shop.call(Method::DELETE, &shop.ann.token, "/auth/v1/user", json!({})).await;
        assert!(gone.status.is_success(), "{}", gone.text());

        shop.world.set_faults(broken(ApiFault::ServerError));
        assert!(endings::run(&shop.app).await.is_err(), "it is tried again");
        shop.world.set_faults(Faults::default());
        assert_eq!(shop.api().get(&path, &[]).await.unwrap()["status"], "active");
        endings::run(&shop.app).await.unwrap();

        assert_eq!(shop.api().get(&path, &[]).await.unwrap()["status"], "canceled");
        assert_eq!(db::testing::rows(&shop.app.db, "billing_cancellations where done_at is null").await.unwrap(), 0);
        // What it tells of that afterwards is about nobody.
        shop.deliver().await;
        shop.work().await;
        shop.night().await.unwrap();
        assert_eq!(db::testing::rows(&shop.app.db, "entitlement_grants").await.unwrap(), 0);
        endings::run(&shop.app).await.unwrap();
    }

    async fn inv_51_what_was_bought_on_a_phone_is_what_revenuecat_says(engine: Engine) {
        let [key, base] = PHONES;
        let shop = Shop::with(engine, &[SELLING[0], SELLING[1], key, base]).await;
        shop.world.revenuecat().act(&shop.ann.id, Act::Purchase(Bought::default())).unwrap();
        // Nobody told of it yet.
        let synced = shop.post(&shop.ann.token, "/api/billing/sync", json!({})).await.json();
        assert_ne!(synced["plan"], "free", "{synced}");
        let right = shop.kept_state().await;
        let path = format!("/api/admin/billing/users/{}/reconcile", shop.ann.id);
        let compare = async |query: &str| shop.post(&shop.service_key(), &format!("{path}{query}"), json!({})).await;

        shop.corrupt("update billing_subscriptions set status = 'expired', will_renew = false").await;
        shop.corrupt("delete from entitlement_grants").await;
        shop.world.set_faults(broken(ApiFault::ServerError));
        assert_eq!(compare("").await.refusal(), (503, "billing_unavailable".into()));
        shop.world.set_faults(Faults::default());
        let tried = compare("?dry_run=true").await.json();
        assert_ne!(tried["drift"], json!([]));
        assert_eq!(shop.plan().await, "free", "a dry run wrote");
        assert_eq!(compare("").await.json()["drift"], tried["drift"]);

        assert_eq!(shop.kept_state().await, right);
        assert_eq!(compare("").await.json()["drift"], json!([]));
        crate::billing::phones::run(&shop.app, &json!({})).await.unwrap();
        assert_eq!(shop.kept_state().await, right);
    }

    async fn stripe_is_set_up_once_however_often(engine: Engine) {
        let shop = Shop::selling(engine).await;

        let first = shop.set_up().await;
        let again = shop.set_up().await;

        let of = |done: &[Done], what: &str| done.iter().filter(|done| done.what == what).cloned().collect::<Vec<_>>();
        assert_eq!(of(&first, "price").len(), 4);
        let (made, kept) = (of(&first, "webhook"), of(&again, "webhook"));
        assert_eq!((made[0].outcome, kept[0].outcome), (Outcome::Made, Outcome::Found));
        let (name, secret) = made[0].variable.clone().unwrap();
        assert_eq!(name, "STRIPE_WEBHOOK_SECRET");
        assert!(secret.starts_with("whsec_"));
        assert_eq!(kept[0].variable, None, "a secret is said once");
        for (first, again) in first.iter().zip(&again) {
            assert_eq!((first.what, &first.id), (again.what, &again.id));
            assert_ne!(again.outcome, Outcome::Made, "{again:?}");
        }
        let ours = shop.listed("/v1/webhook_endpoints", &[]).await;
        let ours: Vec<_> = ours.iter().filter(|one| one["metadata"]["made_by"] == "plinth").collect();
        assert_eq!(ours.len(), 1);
        assert_eq!(ours[0]["api_version"], VERSION);
        assert_eq!(ours[0]["enabled_events"].as_array().unwrap().len(), EVENTS.len());
    }
}

#[tokio::test]
async fn a_price_whose_amount_changed_is_another_price() {
    let shop = Shop::selling(Engine::Sqlite).await;
    // As if plans.toml had said another amount before.
    let dear = [
        ("product", "prod_pro"),
        ("currency", "usd"),
        ("unit_amount", "9900"),
        ("recurring[interval]", "month"),
        ("lookup_key", "pro_month"),
        ("transfer_lookup_key", "true"),
    ];
    let dear = shop.api().post("/v1/prices", &dear, "dear").await.unwrap();

    let done = shop.set_up().await;

    let named = |done: &&Done| {
        let (name, _) = done.variable.clone().unwrap_or_default();
        name == "STRIPE_PRICE_PRO"
    };
    let pro = done.iter().find(named).unwrap();
    assert_eq!(pro.outcome, Outcome::Made);
    assert_ne!(pro.id, text(&dear["id"]));
    let price = shop
        .api()
        .get(&format!("/v1/prices/{}", pro.id), &[])
        .await
        .unwrap();
    assert_eq!(
        (&price["unit_amount"], &price["lookup_key"]),
        (&json!(2900), &json!("pro_month"))
    );
}
