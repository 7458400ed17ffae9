//! What becomes of who leaves, and what everyone can read of what was decided about them.
use super::*;

const AUDIT: &str = "/auth/v1/audit";

async fn leave(test: &Test, token: &str) -> Answer {
    test.call(Method::DELETE, token, USER, json!({})).await
}

fn actions(list: &Answer) -> Vec<(String, String)> {
    let list = list.json();
    let data = list["data"].as_array().unwrap().iter();
    let word = |event: &Value, name: &str| event[name].as_str().unwrap().to_owned();
    data.map(|event| (word(event, "action"), word(event, "outcome")))
        .collect()
}

both_engines! {
    /// Invariant 71.
    async fn who_leaves_is_gone_with_everything_that_was_theirs(engine: Engine) {
        let test = Test::new(engine).await;
        let (beside, ben) = (test.beside(&[]).await, test.sign_up("ben@example.com").await);
        let ada = test.sign_up("ada@example.com").await;
        let laptop = test.sign_in_again("ada@example.com").await;
        for person in [&ada, &ben] {
            let asked = test.post(&person.token, "/api/chat", json!({"message": "A question"})).await;
            assert_eq!(asked.status, 200, "{}", asked.text());
        }

        assert_eq!(leave(&test, &ada.token).await.status, 204);

        for person in [&ada, &laptop] {
            assert_eq!(beside.get(&person.token, USER).await.refusal(), refused(403, "session_not_found"));
            assert_eq!(beside.refresh(&person.refresh_token).await.refusal(), refused(400, "refresh_token_not_found"));
        }
        assert_eq!(leave(&test, &ada.token).await.refusal(), refused(403, "session_not_found"));
        assert_eq!(test.get(&ben.token, USER).await.status, 200);
        for table in ["users", "identities", "sessions", "conversations"] {
            assert_eq!(test.rows(table).await, 1, "{table}: Ben's");
        }
        assert_eq!(test.rows("usage_ledger").await, 2, "what was spent stays spent, by nobody");
        test.work().await;
        let mails = test.world.mailbox().to("ada@example.com");
        assert_eq!(mails.last().map(|mail| mail.subject.as_str()), Some("Your account is deleted"));
        assert_eq!(test.sign_in("ada@example.com", PASSWORD).await.refusal(), refused(400, "invalid_credentials"));
        assert_ne!(test.sign_up("ada@example.com").await.id, ada.id, "the address is free");
    }

    /// Invariant 54, for deletion.
    async fn a_session_of_long_ago_does_not_end_the_account(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        test.later(Duration::from_secs(301));

        let refusal = leave(&test, &ada.token).await;

        assert_eq!(refusal.refusal(), refused(403, "reauthentication_needed"));
        assert_eq!(test.get(&ada.token, USER).await.status, 200);
        assert_eq!(test.mails_waiting().await, 0);
        let log = actions(&test.get(&ada.token, AUDIT).await);
        assert_eq!(log[0], ("user_deleted".into(), "refused".into()));
        assert_eq!(leave(&test, &test.sign_in_again("ada@example.com").await.token).await.status, 204);
    }

    async fn a_subscription_that_would_renew_is_noted_for_cancelling(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let (now, user) = (test.app.now(), ada.id.parse().unwrap());
        let mut tx = test.app.db.begin().await.unwrap();
        for (id, will_renew) in [("sub_on", true), ("sub_off", false)] {
            let subscription = db::billing::Subscription {
                provider: "stripe".into(), mode: "test".into(), external_id: id.into(), user_id: Some(user), customer: Some("cus_1".into()),
                store: "stripe".into(), status: "active".into(), plan: None, product: None, quantity: 1, will_renew, period_start: None,
                period_end: None, trial_end: None, cancel_at: None, ended_at: None, basis_at: now, basis_rank: 0, basis_event: "evt_1".into(),
                entitlements: None, kind: None, started_at: None, latest_invoice: None, paused: None, paid_up_at: None, grace_until: None,
                refunded_at: None,
            };
            db::billing::save_subscription(&mut tx, &subscription, now).await.unwrap();
        }
        tx.commit().await.unwrap();

        assert_eq!(leave(&test, &ada.token).await.status, 204);

        let waiting = db::billing::cancellations(&test.app.db, 10).await.unwrap();
        let waiting: Vec<_> = waiting.iter().map(|row| (row.external_id.as_str(), row.customer.as_deref())).collect();
        assert_eq!(waiting, [("sub_on", Some("cus_1"))]);
    }

    async fn everyone_reads_what_was_decided_about_them_and_nobody_elses(engine: Engine) {
        let test = Test::new(engine).await;
        let (boss, ada, ben) = (test.sign_up_admin("boss@example.com").await, test.sign_up("ada@example.com").await, test.sign_up("ben@example.com").await);
        test.sign_in("ada@example.com", "not the password").await;
        let ban = format!("/api/admin/users/{}/ban", ada.id);
        test.post(&boss.token, &ban, json!({"reason": "between us", "duration": "1s"})).await;
        test.later(Duration::from_secs(1));

        let first = test.get(&ada.token, &format!("{AUDIT}?limit=2")).await;
        let cursor = first.json()["next_cursor"].as_str().unwrap().to_owned();
        let rest = test.get(&ada.token, &format!("{AUDIT}?limit=2&cursor={cursor}")).await;

        let said = |action: &str, outcome: &str| (action.to_owned(), outcome.to_owned());
        assert_eq!(actions(&first), [said("user_banned", "succeeded"), said("login", "refused")]);
        assert_eq!(actions(&rest), [said("login", "succeeded"), said("user_signedup", "succeeded")]);
        assert_eq!((&first.json()["data"][0]["by"], &first.json()["data"][0]["ip"]), (&json!("admin"), &Value::Null));
        assert!(first.json()["data"][1]["ip"].is_string() && !first.text().contains("between us"), "{}", first.text());
        assert_eq!(actions(&test.get(&ben.token, AUDIT).await).len(), 2);
        assert_eq!(test.get(&ada.token, &format!("{AUDIT}?cursor=x")).await.refusal(), refused(400, "validation_failed"));
    }

    async fn admins_read_the_whole_log_in_either_shape(engine: Engine) {
        let test = Test::new(engine).await;
        let (boss, ada) = (test.sign_up_admin("boss@example.com").await, test.sign_up("ada@example.com").await);

        let logged = test.get(&test.service_key(), "/auth/v1/admin/audit?page=1&per_page=3").await;
        let all = test.get(&boss.token, "/api/admin/audit").await;
        let of_ada = test.get(&boss.token, &format!("/api/admin/audit?user={}", ada.id)).await;

        assert_eq!(logged.header("x-total-count"), "4");
        let entries = logged.json();
        assert_eq!(entries.as_array().unwrap().len(), 3);
        assert_eq!(entries[0]["payload"]["action"], "login");
        assert_eq!((&entries[0]["payload"]["log_type"], &entries[0]["payload"]["actor_id"]), (&json!("account"), &json!(ada.id)));
        assert!(entries[0]["ip_address"].is_string() && entries[0]["created_at"].is_string());
        assert_eq!((actions(&all).len(), actions(&of_ada).len()), (4, 2));
        assert_eq!(of_ada.json()["data"][0]["subject_id"], json!(ada.id));
        assert_eq!(test.get(&ada.token, "/api/admin/audit").await.refusal(), refused(403, "not_admin"));
    }

    /// Invariant 56, for what is kept of anonymous users.
    async fn an_anonymous_user_who_stays_away_is_forgotten(engine: Engine) {
        let test = Test::with(engine, &[("AUTH_ANONYMOUS", "true"), ("AUTH_ANONYMOUS_KEPT", "7d")]).await;
        let guest = async || Person::of(&test.post("", SIGN_UP, json!({})).await.json());
        let (gone, stays, ada) = (guest().await, guest().await, test.sign_up("ada@example.com").await);
        test.later(Duration::from_secs(6 * 86_400));
        let stays = test.refreshed(&stays.refresh_token).await;
        test.later(Duration::from_secs(2 * 86_400));

        crate::jobs::purge(&test.app).await.unwrap();

        assert_eq!(test.refresh(&gone.refresh_token).await.refusal(), refused(400, "refresh_token_not_found"));
        assert_eq!(test.refresh(&stays.refresh_token).await.status, 200);
        assert_eq!(test.refresh(&ada.refresh_token).await.status, 200);
        assert_eq!(test.rows("users").await, 2);
    }
}
