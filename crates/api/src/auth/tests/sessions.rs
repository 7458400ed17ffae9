use super::*;
use crate::testing::START;

async fn log_out(test: &Test, token: &str, query: &str) -> Answer {
    let path = format!("/auth/v1/logout{query}");
    test.call(Method::POST, token, &path, json!({})).await
}

async fn stands(test: &Test, person: &Person) -> bool {
    match test.get(&person.token, USER).await.status.as_u16() {
        200 => true,
        _ => {
            assert_eq!(
                test.get(&person.token, USER).await.refusal(),
                refused(403, "session_not_found")
            );
            assert_eq!(
                test.refresh(&person.refresh_token).await.refusal(),
                refused(400, "refresh_token_not_found")
            );
            false
        }
    }
}

const SESSIONS: &str = "/auth/v1/sessions";

fn id_of(person: &Person) -> String {
    let claims = super::access::claims(&person.token);
    claims["session_id"].as_str().unwrap().to_owned()
}

async fn end(test: &Test, token: &str, id: &str) -> Answer {
    let path = format!("{SESSIONS}/{id}");
    test.call(Method::DELETE, token, &path, json!({})).await
}

async fn listed(test: &Test, token: &str) -> Vec<Value> {
    let answer = test.get(token, SESSIONS).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["data"].as_array().unwrap().clone()
}

both_engines! {
    /// Invariant 43.
    async fn signing_out_ends_the_sessions_it_names_and_no_others(engine: Engine) {
        let test = Test::new(engine).await;
        let ben = test.sign_up("ben@example.com").await;
        test.sign_up("ada@example.com").await;

        for (query, this_stands, other_stands) in [
            ("?scope=local", false, true),
            ("?scope=others", true, false),
            ("?scope=global", false, false),
            ("", false, false),
        ] {
            let this = test.sign_in_again("ada@example.com").await;
            let other = test.sign_in_again("ada@example.com").await;

            let answer = log_out(&test, &this.token, query).await;

            assert_eq!((answer.status.as_u16(), answer.text().as_str()), (204, ""), "{query}");
            assert_eq!(stands(&test, &this).await, this_stands, "{query}");
            assert_eq!(stands(&test, &other).await, other_stands, "{query}");
            assert!(stands(&test, &ben).await, "{query}");
        }
    }

    async fn an_unknown_scope_ends_nothing(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;

        for scope in ["?scope=all", "?scope=", "?scope=LOCAL"] {
            let answer = log_out(&test, &ada.token, scope).await;
            assert_eq!(answer.refusal(), refused(400, "validation_failed"), "{scope}");
        }

        assert!(stands(&test, &ada).await);
    }

    /// Invariant 43, on another instance.
    async fn signing_out_counts_at_once_on_every_instance(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let beside = test.beside(&[]).await;
        assert!(stands(&beside, &ada).await);

        log_out(&test, &ada.token, "").await;

        assert!(!stands(&beside, &ada).await);
    }

    async fn who_has_signed_out_cannot_do_so_again(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let other = test.sign_in_again("ada@example.com").await;
        log_out(&test, &ada.token, "?scope=local").await;

        let again = log_out(&test, &ada.token, "?scope=global").await;

        assert_eq!(again.refusal(), refused(403, "session_not_found"));
        assert!(stands(&test, &other).await, "a dead session ends no other");
    }

    async fn a_session_keeps_where_it_was_opened_from_and_no_more_than_a_line_of_that(engine: Engine) {
        let test = Test::new(engine).await;
        test.sign_up("ada@example.com").await;
        let body = json!({"email": "ada@example.com", "password": PASSWORD}).to_string();
        let request = crate::testing::request(Method::POST, "", "/auth/v1/token?grant_type=password")
            .header("content-type", "application/json").header("user-agent", "x".repeat(2_000));

        let session = test.send(request.body(body.into()).unwrap()).await.json();

        let id = super::access::claims(session["access_token"].as_str().unwrap())["session_id"].as_str().unwrap().parse().unwrap();
        let mut tx = test.app.db.begin().await.unwrap();
        let kept = db::sessions::locked(&mut tx, id).await.unwrap().unwrap();
        assert_eq!(kept.user_agent.unwrap().len(), 200);
    }

    async fn a_user_sees_where_they_are_signed_in_and_nobody_else(engine: Engine) {
        let test = Test::new(engine).await;
        test.sign_up("ben@example.com").await;
        let first = test.sign_up("ada@example.com").await;
        test.later(Duration::from_secs(60));
        let body = json!({"email": "ada@example.com", "password": PASSWORD}).to_string();
        let firefox = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:144.0) Gecko/20100101 Firefox/144.0";
        let request = crate::testing::request(Method::POST, "", "/auth/v1/token?grant_type=password")
            .header("content-type", "application/json").header("user-agent", firefox);
        let second = Person::of(&test.send(request.body(body.into()).unwrap()).await.json());
        test.later(Duration::from_secs(60));
        let second = test.refreshed(&second.refresh_token).await;

        let sessions = listed(&test, &second.token).await;

        let ids: Vec<_> = sessions.iter().map(|session| session["id"].as_str().unwrap()).collect();
        assert_eq!(ids, [id_of(&second), id_of(&first)], "newest first, and none of ben's");
        let at = |seconds: u64| json!((START + Duration::from_secs(seconds)).to_string());
        assert_eq!(sessions[0], json!({
            "id": id_of(&second), "current": true, "created_at": at(60), "refreshed_at": at(120), "last_seen_at": at(120),
            "expires_at": at(120 + 30 * 86_400), "device": "Firefox on Windows", "user_agent": firefox, "ip": "0.0.0.0",
            "aal": "aal1", "amr": [{"method": "password", "timestamp": START.unix() + 60}],
        }));
        assert_eq!(sessions[1]["current"], json!(false));
        let page = test.get(&second.token, "/auth/v1/sessions?limit=1").await.json();
        let next = format!("{SESSIONS}?limit=1&cursor={}", page["next_cursor"].as_str().unwrap());
        let page = test.get(&second.token, &next).await.json();
        assert_eq!((&page["data"][0]["id"], &page["next_cursor"]), (&json!(id_of(&first)), &Value::Null));
    }

    async fn a_session_that_ended_is_not_listed(engine: Engine) {
        let test = Test::with(engine, &[("AUTH_SESSION_IDLE", "2d"), ("AUTH_SESSION_ABSOLUTE", "3d")]).await;
        let ada = test.sign_up("ada@example.com").await;
        let signed_out = test.sign_in_again("ada@example.com").await;
        test.sign_in_again("ada@example.com").await;
        log_out(&test, &signed_out.token, "?scope=local").await;
        assert_eq!(listed(&test, &ada.token).await.len(), 2);

        test.later(Duration::from_secs(86_400));
        let ada = test.refreshed(&ada.refresh_token).await;
        test.later(Duration::from_secs(86_400));
        let ada = test.refreshed(&ada.refresh_token).await;

        assert_eq!(listed(&test, &ada.token).await.len(), 1, "the other rested too long");
    }

    /// Invariants 31 and 43, on another instance.
    async fn a_session_that_its_user_ends_is_over_at_once_on_every_instance(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let lost = test.sign_in_again("ada@example.com").await;
        let third = test.sign_in_again("ada@example.com").await;
        let beside = test.beside(&[]).await;
        assert!(stands(&beside, &lost).await);

        let answer = end(&test, &ada.token, &id_of(&lost)).await;

        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (204, ""));
        assert!(!stands(&beside, &lost).await);
        assert!(stands(&beside, &ada).await && stands(&beside, &third).await);
        assert_eq!(end(&test, &ada.token, &id_of(&lost)).await.refusal(), refused(404, "not_found"), "twice");
        assert_eq!(end(&test, &third.token, &id_of(&third)).await.status, 204, "also the one that asks");
        assert!(!stands(&test, &third).await);
    }

    async fn nobody_ends_the_session_of_another(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let ben = test.sign_up("ben@example.com").await;

        let others = end(&test, &ben.token, &id_of(&ada)).await;

        assert_eq!(others.refusal(), refused(404, "not_found"));
        for nothing in ["0190a8c0-0000-7000-8000-000000000000", "all", "..", "%00"] {
            assert_eq!(end(&test, &ben.token, nothing).await.refusal(), refused(404, "not_found"), "{nothing}");
        }
        assert!(stands(&test, &ada).await && stands(&test, &ben).await);
    }

    /// Invariant 44.
    async fn a_password_change_or_a_ban_ends_the_right_sessions_on_another_instance(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let elsewhere = test.sign_in_again("ada@example.com").await;
        let ben = test.sign_up("ben@example.com").await;
        let beside = test.beside(&[]).await;
        assert!(stands(&beside, &ada).await && stands(&beside, &elsewhere).await);

        let changed = test.call(Method::PUT, &ada.token, USER, json!({"password": "another horse battery"})).await;

        assert_eq!(changed.status, 200, "{}", changed.text());
        assert!(stands(&beside, &ada).await, "who changed it stays");
        assert!(!stands(&beside, &elsewhere).await);

        test.ban("ada@example.com").await;

        assert_eq!(beside.get(&ada.token, USER).await.refusal(), refused(403, "user_banned"));
        assert_eq!(beside.refresh(&ada.refresh_token).await.refusal(), refused(403, "user_banned"));
        assert!(stands(&beside, &ben).await);
    }

    /// Invariant 35.
    async fn an_access_token_does_not_outlive_a_session_that_rests_or_ends(engine: Engine) {
        for (idle, absolute) in [("60", "1d"), ("1d", "60")] {
            let test = Test::with(engine, &[("AUTH_SESSION_IDLE", idle), ("AUTH_SESSION_ABSOLUTE", absolute)]).await;
            let answer = test.ask_to_sign_up("ada@example.com", PASSWORD).await.json();
            let ada = Person::of(&answer);
            assert_eq!((&answer["expires_in"], &answer["expires_at"]), (&json!(60), &json!(START.unix() + 60)));

            test.later(Duration::from_secs(59));
            assert_eq!(test.get(&ada.token, USER).await.status, 200);
            test.later(Duration::from_secs(1));

            assert_eq!(test.get(&ada.token, USER).await.refusal(), refused(403, "bad_jwt"), "{idle} {absolute}");
            assert_eq!(test.refresh(&ada.refresh_token).await.refusal(), refused(400, "session_expired"));
        }
    }
}
