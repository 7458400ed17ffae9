//! Buying on the web, and changing what was bought, at the simulated Stripe.
use super::*;
use crate::{
    billing::stripe_api,
    testing::{SELLING, both_engines, request},
};
use axum::body::Body;
use http::{Method, header};
use serde_json::json;
use sim::{ApiFault, Faults};

const VISA: &str = "4242424242424242";
pub(super) const CHECKOUT: &str = "/api/billing/checkout";

impl Shop {
    pub(super) async fn selling(engine: Engine) -> Self {
        Self::with(engine, &SELLING).await
    }

    pub(super) fn api(&self) -> &stripe_api::Stripe {
        self.app.stripe.as_ref().unwrap()
    }

    /// A list of Stripe's.
    pub(super) async fn listed(&self, path: &str, query: &[(&str, &str)]) -> Vec<Value> {
        self.api().list(path, query).await.unwrap()
    }

    pub(super) async fn checkout(&self, body: Value) -> Answer {
        self.post(&self.ann.token, CHECKOUT, body).await
    }

    async fn checkout_with_key(&self, key: &str, body: Value) -> Answer {
        let request = request(Method::POST, &self.ann.token, CHECKOUT)
            .header(header::CONTENT_TYPE, "application/json")
            .header("idempotency-key", key);
        self.send(request.body(Body::from(body.to_string())).unwrap())
            .await
    }

    pub(super) fn pays(&self, checkout: &str, card: &str) {
        self.world.stripe().pay(checkout, card).unwrap();
    }

    /// Ann buys a plan, and comes back; gives the subscription's id.
    pub(super) async fn buys(&self, plan: &str, card: &str) -> String {
        let begun = self.checkout(json!({"plan": plan})).await;
        assert_eq!(begun.status, 200, "{}", begun.text());
        let id = text(&begun.json()["id"]);
        self.pays(&id, card);
        let stands = self.get(&self.ann.token, &format!("{CHECKOUT}/{id}")).await;
        text(&stands.json()["subscription"])
    }

    async fn on(&self, subscription: &str, verb: &str, body: Value) -> Answer {
        let path = format!("/api/billing/subscriptions/{subscription}/{verb}");
        self.post(&self.ann.token, &path, body).await
    }

    /// Ann comes back after a while.
    pub(super) async fn comes_back(&mut self, after: Duration) {
        self.later(after);
        self.ann = self.sign_in_again("ann@example.com").await;
    }

    /// Loses every row of a table, as a process does that dies before it writes them.
    async fn lose(&self, table: &str) {
        db::testing::execute(&self.app.db, &format!("delete from {table}"))
            .await
            .unwrap();
    }
}

pub(super) fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value}"))
        .to_owned()
}

both_engines! {
    async fn what_is_paid_for_is_open_when_its_checkout_is_asked_about(engine: Engine) {
        let shop = Shop::selling(engine).await;

        let begun = shop.checkout(json!({"plan": "pro"})).await;

        assert_eq!(begun.status, 200, "{}", begun.text());
        let (id, path) = (text(&begun.json()["id"]), format!("{CHECKOUT}/{}", text(&begun.json()["id"])));
        assert!(text(&begun.json()["url"]).contains(&id));
        let open = shop.get(&shop.ann.token, &path).await.json();
        assert_eq!((&open["status"], &open["payment_status"], &open["plan"]), (&json!("open"), &json!("unpaid"), &json!("pro")));
        assert_eq!(open["url"], begun.json()["url"]);
        assert_eq!(shop.plan().await, "free");
        shop.pays(&id, VISA);
        let paid = shop.get(&shop.ann.token, &path).await.json();
        assert_eq!((&paid["status"], &paid["payment_status"], &paid["url"]), (&json!("complete"), &json!("paid"), &Value::Null));
        assert_eq!(paid["subscription"], shop.subscription().await["id"]);
        assert_eq!(shop.plan().await, "pro");
        // What the webhooks tell afterwards is the same.
        let before = shop.everything().await.1;
        assert!(shop.deliver().await > 0);
        shop.work().await;
        assert_eq!(shop.plan().await, "pro");
        assert_eq!(shop.everything().await.1.len(), before.len());
    }

    async fn inv_50_first_checkouts_at_the_same_time_make_one_customer_and_one_page(engine: Engine) {
        let shop = Shop::selling(engine).await;

        let begun = futures_util::future::join_all((0..8).map(|_| shop.checkout(json!({"plan": "pro"})))).await;

        let mut pages: Vec<_> = begun.iter().map(|answer| text(&answer.json()["id"])).collect();
        pages.dedup();
        assert_eq!(pages.len(), 1, "{pages:?}");
        let customers = shop.listed("/v1/customers", &[]).await;
        assert_eq!(customers.len(), 1);
        assert_eq!(customers[0]["email"], "ann@example.com");
        assert_eq!(customers[0]["metadata"]["user_id"], json!(shop.ann.id));
    }

    async fn inv_50_what_was_cut_off_between_stripe_and_the_database_goes_on_with_the_same(engine: Engine) {
        let shop = Shop::selling(engine).await;
        for (lost, key) in [(["billing_checkouts", "billing_customers"], "a"), (["billing_checkouts", "billing_checkouts"], "b")] {
            let first = shop.checkout(json!({"plan": "pro"})).await.json();
            let keyed = shop.checkout_with_key(key, json!({"plan": "standard"})).await.json();
            for table in lost {
                shop.lose(table).await;
            }

            let again = shop.checkout(json!({"plan": "pro"})).await.json();
            let keyed_again = shop.checkout_with_key(key, json!({"plan": "standard"})).await.json();

            assert_eq!(again, first);
            assert_eq!(keyed_again, keyed);
            assert_eq!(shop.listed("/v1/customers", &[]).await.len(), 1);
        }
    }

    async fn inv_50_no_client_chooses_what_it_costs_who_pays_or_where_the_browser_goes(engine: Engine) {
        let shop = Shop::selling(engine).await;
        let refusals = [
            json!({}),
            json!({"plan": "free"}),
            json!({"plan": "gold"}),
            json!({"plan": "pro", "price": "price_pro"}),
            json!({"price": "price_of_another"}),
            json!({"plan": "pro", "quantity": 0}),
            json!({"plan": "pro", "quantity": 1001}),
            json!({"plan": "pro", "success_url": "https://evil.example.com/"}),
            json!({"plan": "pro", "success_url": "https://127.0.0.1:8080@evil.example.com/"}),
            json!({"plan": "pro", "cancel_url": "javascript:alert(1)"}),
            json!({"plan": "pro", "cancel_url": "//evil.example.com"}),
        ];
        for body in refusals {
            let refused = shop.checkout(body.clone()).await;
            assert_eq!(refused.refusal(), (400, "validation_failed".into()), "{body}");
        }
        assert_eq!(shop.listed("/v1/checkout/sessions", &[]).await, [] as [Value; 0]);

        let tried = json!({"plan": "pro", "amount": 1, "unit_amount": 1, "customer": "cus_of_another", "user_id": "another"});
        let id = text(&shop.checkout(tried).await.json()["id"]);

        let session = shop.api().get(&format!("/v1/checkout/sessions/{id}"), &[]).await.unwrap();
        assert_eq!(session["amount_total"], 2900);
        assert_eq!(session["customer"], shop.listed("/v1/customers", &[]).await[0]["id"]);
        assert_eq!(session["client_reference_id"], json!(shop.ann.id));
    }

    async fn inv_50_what_is_anothers_is_nothing_to_see_and_nothing_to_change(engine: Engine) {
        let shop = Shop::selling(engine).await;
        let subscription = shop.buys("pro", VISA).await;
        let checkout = text(&shop.listed("/v1/checkout/sessions", &[]).await[0]["id"]);
        let before = shop.everything().await;
        let ben = shop.sign_up("ben@example.com").await;

        let seen = shop.get(&ben.token, &format!("{CHECKOUT}/{checkout}")).await;
        assert_eq!(seen.refusal(), (404, "not_found".into()));
        for (verb, body) in [
            ("preview", json!({"plan": "standard"})),
            ("change", json!({"plan": "standard"})),
            ("cancel", json!({"at": "now"})),
            ("resume", json!({})),
        ] {
            let path = format!("/api/billing/subscriptions/{subscription}/{verb}");
            let refused = shop.post(&ben.token, &path, body).await;
            assert_eq!(refused.refusal(), (404, "not_found".into()), "{verb}");
        }
        let flow = json!({"flow": "subscription_cancel", "subscription": subscription});
        assert_eq!(shop.post(&ben.token, "/api/billing/portal", flow).await.refusal(), (404, "not_found".into()));
        assert_eq!(shop.get(&ben.token, "/api/billing/invoices").await.json()["data"], json!([]));
        assert_eq!(shop.everything().await, before);
        let theirs = shop.api().get(&format!("/v1/subscriptions/{subscription}"), &[]).await.unwrap();
        assert_eq!((&theirs["status"], &theirs["cancel_at_period_end"]), (&json!("active"), &json!(false)));
    }

    async fn the_same_key_is_the_same_checkout_and_no_other(engine: Engine) {
        let shop = Shop::selling(engine).await;

        let first = shop.checkout_with_key("a", json!({"plan": "pro"})).await;
        let again = shop.checkout_with_key("a", json!({"plan": "pro"})).await;
        let other = shop.checkout_with_key("a", json!({"plan": "standard"})).await;
        let another = shop.checkout_with_key("b", json!({"plan": "pro"})).await;

        assert_eq!((first.header("idempotency-replayed"), again.header("idempotency-replayed")), ("", "true"));
        assert_eq!(again.json(), first.json());
        assert_eq!(other.refusal(), (422, "idempotency_mismatch".into()));
        assert_ne!(another.json()["id"], first.json()["id"]);
    }

    async fn a_page_is_given_again_while_it_is_open(engine: Engine) {
        let mut shop = Shop::selling(engine).await;

        let first = text(&shop.checkout(json!({"plan": "pro"})).await.json()["id"]);
        assert_eq!(shop.checkout(json!({"plan": "pro"})).await.json()["id"], json!(first));
        let other = text(&shop.checkout(json!({"plan": "standard"})).await.json()["id"]);
        assert_ne!(other, first);

        let path = format!("/v1/checkout/sessions/{first}/expire");
        shop.api().post(&path, &[("a", "b"); 0], "expire").await.unwrap();
        let next = text(&shop.checkout(json!({"plan": "pro"})).await.json()["id"]);
        assert_ne!(next, first);
        shop.comes_back(DAY).await;
        let after_a_day = text(&shop.checkout(json!({"plan": "pro"})).await.json()["id"]);
        assert_ne!(after_a_day, next);
    }

    async fn who_pays_already_is_sold_nothing_twice_unless_they_insist(engine: Engine) {
        let shop = Shop::selling(engine).await;
        shop.buys("pro", VISA).await;

        let refused = shop.checkout(json!({"plan": "standard"})).await;

        assert_eq!(refused.refusal(), (409, "already_subscribed".into()));
        assert_eq!(refused.json()["store"], "stripe");
        assert!(text(&refused.json()["manage_url"]).contains("/portal/"), "{}", refused.text());
        assert_eq!(shop.listed("/v1/checkout/sessions", &[]).await.len(), 1);
        assert_eq!(shop.checkout(json!({"plan": "standard", "force": true})).await.status, 200);
    }

    async fn who_pays_on_a_phone_is_sold_nothing_on_the_web(engine: Engine) {
        let shop = Shop::selling(engine).await;
        let bought = shop.purchase("INITIAL_PURCHASE", |_| {});
        assert_eq!(shop.told_purchase(&bought).await, "processed");

        let refused = shop.checkout(json!({"plan": "pro"})).await;

        assert_eq!(refused.refusal(), (409, "already_subscribed".into()));
        assert_eq!(refused.json()["store"], "app_store");
        assert_eq!(refused.json()["manage_url"], "https://apps.apple.com/account/subscriptions");
        let phone = text(&shop.subscription().await["id"]);
        let elsewhere = shop.on(&phone, "cancel", json!({})).await;
        assert_eq!(elsewhere.refusal(), (409, "managed_elsewhere".into()));
        assert_eq!(elsewhere.json()["store"], "app_store");
    }

    async fn inv_41_coming_to_the_success_page_opens_nothing_but_what_was_paid(engine: Engine) {
        let shop = Shop::with(engine, &[SELLING[0], SELLING[1], ("BILLING_APP_URL", "myapp://subscriptions")]).await;
        let id = text(&shop.checkout(json!({"plan": "pro"})).await.json()["id"]);
        let page = format!("/subscriptions/success?session_id={id}");

        let unpaid = shop.get("", &page).await;
        assert_eq!(unpaid.status, 200);
        assert!(unpaid.text().contains("Nothing was bought"), "{}", unpaid.text());
        assert_eq!(shop.plan().await, "free");
        shop.pays(&id, VISA);
        let paid = shop.get("", &page).await;
        assert!(paid.text().contains("what you bought is open"), "{}", paid.text());
        assert!(paid.text().contains("subscriptions?checkout=paid&amp;session_id=cs_"), "{}", paid.text());
        assert!(paid.header("content-type").starts_with("text/html"));
        assert_eq!(shop.plan().await, "pro");

        for other in ["", "?session_id=cs_of_nobody", "?session_id=../../customers"] {
            let neutral = shop.get("", &format!("/subscriptions/success{other}")).await;
            assert_eq!(neutral.status, 200, "{other}");
            assert!(neutral.text().contains("As soon as your payment has arrived"), "{other}");
        }
        let left = shop.get("", "/subscriptions/cancel").await;
        assert!(left.text().contains("Nothing was bought") && left.text().contains("checkout=not_paid"));
    }

    async fn a_change_costs_what_its_preview_says(engine: Engine) {
        let mut shop = Shop::selling(engine).await;
        let id = shop.buys("standard", VISA).await;
        shop.comes_back(10 * DAY).await;

        let preview = shop.on(&id, "preview", json!({"plan": "pro"})).await;

        assert_eq!(preview.status, 200, "{}", preview.text());
        let preview = preview.json();
        let due = preview["due_minor"].as_i64().unwrap();
        assert!((1_000..2_000).contains(&due), "{preview}");
        assert_eq!(preview["currency"], "USD");
        assert_eq!(shop.plan().await, "standard", "a preview changes nothing");
        shop.comes_back(HOUR / 2).await;
        let changed = shop.on(&id, "change", json!({"plan": "pro", "proration_date": preview["proration_date"]})).await;
        assert_eq!((changed.status.as_u16(), &changed.json()["plan"]), (200, &json!("pro")), "{}", changed.text());
        assert_eq!(shop.plan().await, "pro");
        let invoices = shop.get(&shop.ann.token, "/api/billing/invoices").await.json();
        assert_eq!(invoices["data"].as_array().unwrap().len(), 2);
        assert_eq!(invoices["data"][0]["paid_minor"], due, "{invoices}");
        let stale = json!({"plan": "standard", "proration_date": preview["proration_date"].as_i64().unwrap() - 7_200});
        assert_eq!(shop.on(&id, "change", stale).await.refusal(), (400, "validation_failed".into()));
    }

    async fn a_change_whose_card_declines_changes_nothing(engine: Engine) {
        let shop = Shop::selling(engine).await;
        let id = shop.buys("standard", VISA).await;
        let customer = text(&shop.listed("/v1/customers", &[]).await[0]["id"]);
        let card = shop.api().post("/v1/payment_methods/pm_card_chargeCustomerFail/attach", &[("customer", &customer)], "card").await.unwrap();
        let default = [("default_payment_method", text(&card["id"]))];
        shop.api().post(&format!("/v1/subscriptions/{id}"), &default, "default").await.unwrap();
        let before = shop.everything().await;

        let refused = shop.on(&id, "change", json!({"plan": "pro"})).await;

        assert_eq!(refused.refusal(), (402, "payment_failed".into()), "{}", refused.text());
        assert!(refused.text().contains("declined"), "{}", refused.text());
        assert_eq!(shop.everything().await, before);
        assert_eq!(shop.plan().await, "standard");
    }

    async fn what_is_cancelled_is_open_to_its_end_and_can_be_resumed(engine: Engine) {
        let shop = Shop::selling(engine).await;
        let id = shop.buys("pro", VISA).await;

        let ends = shop.on(&id, "cancel", json!({})).await.json();
        assert_eq!((&ends["will_renew"], &ends["cancel_at"]), (&json!(false), &ends["current_period_end"]));
        assert_eq!(shop.plan().await, "pro");
        let goes_on = shop.on(&id, "resume", json!({})).await.json();
        assert_eq!((&goes_on["will_renew"], &goes_on["cancel_at"]), (&json!(true), &Value::Null));
        // The portal names a date instead.
        let date = [("cancel_at", (shop.app.now() + 5 * DAY).unix().to_string())];
        shop.api().post(&format!("/v1/subscriptions/{id}"), &date, "date").await.unwrap();
        let goes_on = shop.on(&id, "resume", json!({})).await.json();
        assert_eq!((&goes_on["will_renew"], &goes_on["cancel_at"]), (&json!(true), &Value::Null));

        let over = shop.on(&id, "cancel", json!({"at": "now"})).await.json();
        assert_eq!(over["status"], "canceled", "{over}");
        assert_eq!(shop.plan().await, "free");
        for verb in ["cancel", "resume"] {
            assert_eq!(shop.on(&id, verb, json!({})).await.refusal(), (409, "subscription_ended".into()));
        }
        let again = shop.on(&id, "change", json!({"plan": "standard"})).await;
        assert_eq!(again.refusal(), (409, "subscription_ended".into()));
    }

    async fn the_portal_is_the_users_own_and_leads_back_home(engine: Engine) {
        let shop = Shop::selling(engine).await;
        let id = shop.buys("pro", VISA).await;
        let portal = async |body: Value| shop.post(&shop.ann.token, "/api/billing/portal", body).await;

        assert!(text(&portal(json!({})).await.json()["url"]).contains("/portal/"));
        let flow = json!({"flow": "subscription_cancel", "subscription": id, "return_url": "http://127.0.0.1:8080/account"});
        assert_eq!(portal(flow).await.status, 200);
        for refused in [json!({"return_url": "https://evil.example.com"}), json!({"flow": "subscription_cancel"}), json!({"flow": "other"})] {
            assert_eq!(portal(refused.clone()).await.refusal(), (400, "validation_failed".into()), "{refused}");
        }
        let nothing = request(Method::POST, &shop.ann.token, "/api/billing/portal").body(Body::empty()).unwrap();
        assert_eq!(shop.send(nothing).await.status, 200, "a body may be absent");
    }

    async fn invoices_come_a_page_at_a_time(engine: Engine) {
        let mut shop = Shop::selling(engine).await;
        let id = shop.buys("standard", VISA).await;
        for (n, plan) in ["pro", "standard", "pro"].into_iter().enumerate() {
            shop.comes_back(DAY).await;
            let changed = shop.on(&id, "change", json!({"plan": plan})).await;
            assert_eq!(changed.status, 200, "{n} {}", changed.text());
        }
        let page = async |query: &str| shop.get(&shop.ann.token, &format!("/api/billing/invoices?{query}")).await;

        let (mut seen, mut query) = (vec![], "limit=3".to_owned());
        loop {
            let list = page(&query).await.json();
            seen.extend(list["data"].as_array().unwrap().iter().map(|invoice| text(&invoice["id"])));
            match list["next_cursor"].as_str() {
                Some(cursor) => query = format!("limit=3&cursor={cursor}"),
                None => break,
            }
        }

        let all: Vec<_> = shop.listed("/v1/invoices", &[]).await.iter().map(|i| text(&i["id"])).collect();
        assert_eq!(seen, all);
        for wrong in ["cursor=x", "cursor=7.in_1", "limit=0"] {
            assert_eq!(page(wrong).await.refusal(), (400, "validation_failed".into()), "{wrong}");
        }
    }

    async fn a_sync_opens_what_no_webhook_told_and_not_too_often(engine: Engine) {
        let variables = [SELLING[0], SELLING[1], ("RATE_LIMITS", "")];
        let shop = Shop::with(engine, &variables).await;
        let id = text(&shop.checkout(json!({"plan": "pro"})).await.json()["id"]);
        shop.pays(&id, VISA);
        let sync = async || shop.post(&shop.ann.token, "/api/billing/sync", json!({})).await;

        let synced = sync().await;

        assert_eq!((synced.status.as_u16(), &synced.json()["plan"]), (200, &json!("pro")), "{}", synced.text());
        for _ in 0..5 {
            assert_eq!(sync().await.status, 200);
        }
        assert_eq!(sync().await.refusal(), (429, "rate_limited".into()));
    }

    async fn a_customer_that_was_deleted_at_stripe_is_made_anew(engine: Engine) {
        let shop = Shop::selling(engine).await;
        shop.checkout(json!({"plan": "standard"})).await;
        let lost = text(&shop.listed("/v1/customers", &[]).await[0]["id"]);
        shop.api().delete(&format!("/v1/customers/{lost}"), &[]).await.unwrap();

        let begun = shop.checkout(json!({"plan": "pro"})).await;

        assert_eq!(begun.status, 200, "{}", begun.text());
        let customers = shop.listed("/v1/customers", &[]).await;
        assert_eq!(customers.len(), 1);
        assert_ne!(text(&customers[0]["id"]), lost);
    }

    async fn a_promotion_code_is_looked_up_and_one_that_does_not_hold_is_said_to_be_so(engine: Engine) {
        let shop = Shop::selling(engine).await;

        let refused = shop.checkout(json!({"plan": "pro", "promotion_code": "NOTHING"})).await;
        let id = text(&shop.checkout(json!({"plan": "pro", "promotion_code": "WELCOME20"})).await.json()["id"]);

        assert_eq!(refused.refusal(), (400, "validation_failed".into()));
        let session = shop.api().get(&format!("/v1/checkout/sessions/{id}"), &[]).await.unwrap();
        assert_eq!((&session["amount_subtotal"], &session["amount_total"]), (&json!(2900), &json!(2320)));
    }

    async fn while_stripe_is_down_it_is_said_so_and_nothing_is_written(engine: Engine) {
        let shop = Shop::selling(engine).await;
        let id = shop.buys("pro", VISA).await;
        let before = shop.everything().await;
        shop.world.set_faults(Faults { api: Some(ApiFault::ServerError), ..Faults::default() });

        let answers = [
            shop.checkout(json!({"plan": "pro", "force": true})).await,
            shop.on(&id, "cancel", json!({"at": "now"})).await,
            shop.post(&shop.ann.token, "/api/billing/sync", json!({})).await,
        ];

        for answer in answers {
            assert_eq!(answer.refusal(), (503, "billing_unavailable".into()));
            assert_ne!(answer.header("retry-after"), "");
        }
        assert_eq!(shop.everything().await, before, "invariant 51");
        assert_eq!(shop.plan().await, "pro");
    }

    async fn where_nothing_is_sold_it_is_said_so(engine: Engine) {
        let shop = Shop::new(engine).await;
        let asked = [
            ("checkout", json!({"plan": "pro"})),
            ("portal", json!({})),
            ("subscriptions/sub_1/cancel", json!({})),
        ];

        for (path, body) in asked {
            let refused = shop.post(&shop.ann.token, &format!("/api/billing/{path}"), body).await;
            assert_eq!(refused.refusal(), (503, "billing_not_configured".into()), "{path}");
        }
        assert_eq!(shop.post(&shop.ann.token, "/api/billing/sync", json!({})).await.status, 200);
        assert_eq!(shop.get("", "/subscriptions/success").await.status, 200);
    }
}
