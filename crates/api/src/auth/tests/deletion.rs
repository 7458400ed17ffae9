//! What an admin changes about users, how accounts end, and that both count everywhere at once.
use super::{
    access::claims,
    admin::{USERS, decisions},
    *,
};

fn of(id: &str) -> String {
    format!("{USERS}/{id}")
}

async fn put(test: &Test, key: &str, id: &str, body: Value) -> Answer {
    test.call(Method::PUT, key, &of(id), body).await
}

async fn changed(test: &Test, key: &str, id: &str, body: Value) -> Value {
    let answer = put(test, key, id, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

async fn delete(test: &Test, key: &str, id: &str, body: Value) -> Answer {
    test.call(Method::DELETE, key, &of(id), body).await
}

both_engines! {
    async fn an_admin_changes_what_is_said_of_a_user(engine: Engine) {
        let test = Test::with(engine, &[("AUTH_ANONYMOUS", "true")]).await;
        let ada = test.sign_up_admin("ada@example.com").await;
        let ben = test.sign_up("ben@example.com").await;

        let user = changed(&test, &ada.token, &ben.id, json!({
            "email": "Benjamin@example.com", "user_metadata": {"name": "Ben"}, "app_metadata": {"plan": "pro", "seat": 3}, "phone": "",
        })).await;
        let again = changed(&test, &ada.token, &ben.id, json!({"app_metadata": {"seat": null}})).await;

        assert_eq!((&user["email"], &user["user_metadata"]), (&json!("benjamin@example.com"), &json!({"name": "Ben"})));
        assert_eq!(user["identities"][0]["identity_data"]["email"], "benjamin@example.com");
        assert!(user["email_confirmed_at"].is_string(), "as the old one was");
        assert_eq!(again["app_metadata"], json!({"provider": "email", "providers": ["email"], "plan": "pro"}));
        assert_eq!(test.get(&ben.token, USER).await.json(), again, "the session stands");
        assert_eq!(test.sign_in("ben@example.com", PASSWORD).await.refusal(), refused(400, "invalid_credentials"));
        assert_eq!(test.sign_in("benjamin@example.com", PASSWORD).await.status, 200);
        assert_eq!(test.mails_waiting().await, 0);
        let text = format!("{:?}", decisions(&test, &user).await);
        assert!(text.contains("user_modified") && !text.contains("example.com"), "{text}");

        let guest = Person::of(&test.post("", SIGN_UP, json!({})).await.json());
        let guest = changed(&test, &ada.token, &guest.id, json!({"email": "guest@example.com", "email_confirm": true})).await;
        assert_eq!((&guest["is_anonymous"], &guest["app_metadata"]["provider"]), (&json!(false), &json!("email")));
        assert_eq!(guest["identities"][0]["identity_data"]["email_verified"], true);
    }

    async fn an_update_that_cannot_be_changes_nothing(engine: Engine) {
        let test = Test::new(engine).await;
        let (ada, key) = (test.sign_up("ada@example.com").await, test.service_key());
        test.sign_up("ben@example.com").await;
        let before = test.get(&ada.token, USER).await.json();
        let invalid = refused(400, "validation_failed");

        for (body, refusal) in [
            (json!({"email": "ben@example.com"}), refused(422, "email_exists")),
            (json!({"email": "ada"}), invalid.clone()),
            (json!({"role": "service_role"}), invalid.clone()),
            (json!({"role": ["admin"]}), invalid.clone()),
            (json!({"ban_duration": "for ever"}), invalid.clone()),
            (json!({"user_metadata": "x"}), invalid.clone()),
            (json!({"app_metadata": {"a": "x".repeat(4090)}}), invalid.clone()),
            (json!({"password": "short"}), refused(422, "weak_password")),
            (json!({"password": "ada@example.com"}), refused(422, "weak_password")),
        ] {
            let body = account::merged(json!({"user_metadata": {"changed": true}}), body);
            assert_eq!(put(&test, &key, &ada.id, body.clone()).await.refusal(), refusal, "{body}");
        }
        assert_eq!(test.get(&ada.token, USER).await.json(), before);
        let nobody = uuid::Uuid::now_v7().to_string();
        for body in [json!({}), json!({"password": "a better password"})] {
            assert_eq!(put(&test, &key, &nobody, body).await.refusal(), refused(404, "user_not_found"));
        }
        assert_eq!(delete(&test, &key, &nobody, json!({})).await.refusal(), refused(404, "user_not_found"));
    }

    /// Invariant 73.
    async fn a_password_is_set_by_the_service_key_and_by_no_person(engine: Engine) {
        let test = Test::new(engine).await;
        let (ada, ben) = (test.sign_up_admin("ada@example.com").await, test.sign_up("ben@example.com").await);
        let body = json!({"password": "a better password"});

        let refusal = put(&test, &ada.token, &ben.id, account::merged(body.clone(), json!({"role": "admin"}))).await;

        assert_eq!(refusal.refusal(), refused(403, "forbidden"));
        assert_eq!(test.get(&ben.token, USER).await.json()["role"], "authenticated", "nothing else of it happened");
        assert_eq!(test.sign_in("ben@example.com", "a better password").await.refusal(), refused(400, "invalid_credentials"));
        let event = &decisions(&test, &json!({"id": ben.id})).await[1];
        assert_eq!((event.action.as_str(), event.outcome.as_str(), event.actor_id), ("user_modified", "refused", Some(ada.id.parse().unwrap())));

        changed(&test, &test.service_key(), &ben.id, body).await;
        assert_eq!(test.sign_in("ben@example.com", PASSWORD).await.refusal(), refused(400, "invalid_credentials"));
        assert_eq!(test.sign_in("ben@example.com", "a better password").await.status, 200);
        assert_eq!(test.get(&ben.token, USER).await.refusal(), refused(403, "session_not_found"));
    }

    /// Invariant 44.
    async fn a_ban_another_role_and_deletion_count_on_another_instance_at_once(engine: Engine) {
        let test = Test::new(engine).await;
        let (beside, key) = (test.beside(&[]).await, test.service_key());
        let ada = test.sign_up("ada@example.com").await;
        let [banned, promoted, same, deleted, buried] = ["banned", "promoted", "same", "deleted", "buried"].map(|name| format!("{name}@example.com"));
        let mut people = vec![];
        for email in [&banned, &promoted, &same, &deleted, &buried] {
            let person = test.sign_up(email).await;
            assert_eq!(beside.get(&person.token, USER).await.status, 200);
            people.push(person);
        }
        let [banned, promoted, same, deleted, buried] = people.try_into().unwrap();

        changed(&test, &key, &banned.id, json!({"ban_duration": "24h"})).await;
        changed(&test, &key, &promoted.id, json!({"role": "admin"})).await;
        changed(&test, &key, &same.id, json!({"role": "authenticated"})).await;
        assert_eq!(delete(&test, &key, &deleted.id, json!({})).await.json(), json!({}));
        assert_eq!(delete(&test, &key, &buried.id, json!({"should_soft_delete": true})).await.json(), json!({}));

        assert_eq!(beside.get(&banned.token, USER).await.refusal(), refused(403, "user_banned"));
        assert_eq!(beside.refresh(&banned.refresh_token).await.refusal(), refused(403, "user_banned"));
        for person in [&promoted, &deleted, &buried] {
            assert_eq!(beside.get(&person.token, USER).await.refusal(), refused(403, "session_not_found"));
            assert_eq!(beside.refresh(&person.refresh_token).await.refusal(), refused(400, "refresh_token_not_found"));
        }
        for person in [&ada, &same] {
            assert_eq!(beside.get(&person.token, USER).await.status, 200);
        }
        let promoted = beside.sign_in_again("promoted@example.com").await;
        assert_eq!(claims(&promoted.token)["role"], "admin");
        changed(&test, &key, &banned.id, json!({"ban_duration": "none"})).await;
        assert_eq!(beside.get(&banned.token, USER).await.status, 200);
        for email in ["deleted@example.com", "buried@example.com"] {
            assert_eq!(test.sign_in(email, PASSWORD).await.refusal(), refused(400, "invalid_credentials"));
            assert_ne!(test.sign_up(email).await.id, deleted.id, "the address is free");
        }
    }

    async fn who_is_banned_hears_of_it_and_the_log_says_why(engine: Engine) {
        let test = Test::new(engine).await;
        let (ada, ben) = (test.sign_up_admin("ada@example.com").await, test.sign_up("ben@example.com").await);
        let act = async |path: &str, body: Value| test.post(&ada.token, &format!("/api/admin/users/{}/{path}", ben.id), body).await;

        assert_eq!(act("ban", json!({})).await.refusal(), refused(400, "validation_failed"));
        assert_eq!(act("ban", json!({"reason": " "})).await.refusal(), refused(400, "validation_failed"));
        assert_eq!(act("ban", json!({"reason": "spam", "duration": "none"})).await.refusal(), refused(400, "validation_failed"));
        assert_eq!(test.get(&ben.token, USER).await.status, 200);
        let banned = act("ban", json!({"reason": "spam", "duration": "10m"})).await.json();
        assert_eq!(test.get(&ben.token, USER).await.refusal(), refused(403, "user_banned"));
        test.later(Duration::from_secs(600));
        assert_eq!(test.get(&ben.token, USER).await.status, 200);
        assert_eq!(act("ban", json!({"reason": "spam again"})).await.status, 200);
        test.later(Duration::from_secs(600));
        assert_eq!(test.get(&ben.token, USER).await.refusal(), refused(403, "user_banned"));
        assert_eq!(act("unban", json!({})).await.status, 200);
        assert_eq!(test.refresh(&ben.refresh_token).await.status, 200);

        assert!(banned["banned_until"].is_string());
        let events = decisions(&test, &json!({"id": ben.id})).await;
        let actions: Vec<_> = events.iter().take(3).map(|event| (event.action.as_str(), event.detail["reason"].as_str())).collect();
        assert_eq!(actions, [("user_unbanned", None), ("user_banned", Some("spam again")), ("user_banned", Some("spam"))]);
        let nobody = format!("/api/admin/users/{}/ban", uuid::Uuid::now_v7());
        assert_eq!(test.post(&ada.token, &nobody, json!({"reason": "spam"})).await.refusal(), refused(404, "user_not_found"));
    }

    async fn users_are_searched_page_by_page(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up_admin("ada@example.com").await;
        for n in 0..4 {
            test.sign_up(&format!("user{n}@example.org")).await;
        }
        let page = async |query: &str| {
            let body = test.get(&ada.token, &format!("/api/admin/users?{query}")).await.json();
            let emails: Vec<_> = body["data"].as_array().unwrap().iter().map(|user| user["email"].as_str().unwrap().replace("@example.org", "")).collect();
            (emails.join(" "), body["next_cursor"].as_str().map(String::from))
        };

        let (first, cursor) = page("q=EXAMPLE.ORG&limit=3").await;
        let rest = page(&format!("q=example.org&limit=3&cursor={}", cursor.unwrap())).await;

        assert_eq!((first.as_str(), rest), ("user3 user2 user1", ("user0".into(), None)));
        assert_eq!(page("").await.0, "user3 user2 user1 user0 ada@example.com");
        assert_eq!(page("q=%25").await.0, "");
        let one = test.get(&ada.token, &format!("/api/admin/users/{}", ada.id)).await;
        assert_eq!(one.json(), test.get(&ada.token, USER).await.json());
        assert_eq!(test.get(&ada.token, "/api/admin/users?limit=101").await.status, 400);
    }

    async fn what_a_soft_deletion_leaves_is_an_id_that_names_nobody(engine: Engine) {
        let test = Test::new(engine).await;
        let (key, ada) = (test.service_key(), test.sign_up("ada@example.com").await);
        changed(&test, &key, &ada.id, json!({"role": "admin", "user_metadata": {"name": "Ada"}, "app_metadata": {"plan": "pro"}})).await;

        delete(&test, &key, &ada.id, json!({"should_soft_delete": true})).await;

        let user = test.get(&key, &of(&ada.id)).await.json();
        assert_eq!((&user["id"], &user["email"], &user["role"]), (&json!(ada.id), &json!(""), &json!("authenticated")));
        assert_eq!((&user["user_metadata"], &user["app_metadata"], &user["identities"]), (&json!({}), &json!({}), &json!([])));
        assert_eq!(user["deleted_at"], json!(test.app.now().to_string()));
        assert_eq!((test.rows("users").await, test.rows("identities").await, test.rows("sessions").await), (1, 0, 0));
        assert_eq!(put(&test, &key, &ada.id, json!({"email": "ada@example.com"})).await.refusal(), refused(404, "user_not_found"), "nobody comes back");
        delete(&test, &key, &ada.id, json!({})).await;
        assert_eq!(test.rows("users").await, 0);
    }

    /// Invariant 70.
    async fn the_audit_log_survives_its_user_and_no_longer_says_where_from(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let (events, origins) = (test.rows("audit_events").await, test.rows("audit_origins").await);
        assert!(events > 0 && events == origins);

        assert_eq!(delete(&test, &test.service_key(), &ada.id, json!({})).await.status, 200);

        assert_eq!(test.rows("audit_events").await, events + 1);
        assert_eq!(test.rows("audit_origins").await, 0);
        let events = decisions(&test, &json!({"id": ada.id})).await;
        assert_eq!((events[0].action.as_str(), events[0].actor_kind.as_str()), ("user_deleted", "admin"));
        let text = format!("{events:?}");
        assert!(!text.contains("example.com") && !text.contains(PASSWORD) && !text.contains(&ada.refresh_token), "{text}");
    }

    /// Invariant 77.
    async fn no_body_of_a_user_makes_them_more_than_they_are(engine: Engine) {
        let test = Test::with(engine, CONFIRMING).await;
        let grab = json!({
            "role": "admin", "app_metadata": {"role": "admin", "plan": "pro"}, "email_confirmed_at": "2026-01-01T00:00:00Z", "email_confirm": true,
            "email_verified": true, "id": "0190a8c0-0000-7000-8000-000000000000", "is_anonymous": true, "banned_until": null, "aud": "admin",
            "confirmed_at": "2026-01-01T00:00:00Z", "ban_duration": "none", "is_super_admin": true, "password_hash": "x", "user_id": "0190a8c0-0000-7000-8000-000000000000",
        });
        let with = |body: Value| account::merged(grab.clone(), body);
        let unchanged = |user: &Value| {
            assert_eq!((&user["role"], &user["aud"], &user["is_anonymous"]), (&json!("authenticated"), &json!("authenticated"), &json!(false)), "{user}");
            assert_eq!(user["app_metadata"], json!({"provider": "email", "providers": ["email"]}));
            assert_ne!(user["id"], grab["id"]);
        };

        let signed_up = test.post("", SIGN_UP, with(json!({"email": "ada@example.com", "password": PASSWORD}))).await.json();
        unchanged(&signed_up);
        assert_eq!(signed_up["email_confirmed_at"], Value::Null);
        let code = test.mailed_code("ada@example.com").await;
        let ada = test.post("", "/auth/v1/verify", with(json!({"type": "signup", "email": "ada@example.com", "token": code}))).await.json();
        unchanged(&ada["user"]);
        let ada = Person::of(&ada);
        let user = test.call(Method::PUT, &ada.token, USER, with(json!({"data": {"role": "admin", "email_verified": false}}))).await.json();
        unchanged(&user);
        let signed_in = test.post("", "/auth/v1/token?grant_type=password", with(json!({"email": "ada@example.com", "password": PASSWORD}))).await.json();
        unchanged(&signed_in["user"]);
        let refreshed = test.post("", "/auth/v1/token?grant_type=refresh_token", with(json!({"refresh_token": ada.refresh_token}))).await.json();
        unchanged(&refreshed["user"]);
        let token = claims(refreshed["access_token"].as_str().unwrap());
        assert_eq!((&token["role"], &token["app_metadata"]), (&json!("authenticated"), &json!({"provider": "email", "providers": ["email"]})));
        assert_eq!(test.get(&ada.token, USERS).await.refusal(), refused(403, "not_admin"));
    }
}
