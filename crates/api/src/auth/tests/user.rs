use super::*;

async fn put(test: &Test, token: &str, body: Value) -> Answer {
    test.call(Method::PUT, token, USER, body).await
}

both_engines! {
    async fn a_number_is_refused_and_nothing_else_changes(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;

        let body = json!({"phone": "+14155550100", "data": {"name": "Ada"}});
        let answer = test.call(Method::PUT, &ada.token, USER, body).await;

        assert_eq!(answer.refusal(), refused(400, "phone_provider_disabled"));
        assert_eq!(test.get(&ada.token, USER).await.json()["user_metadata"], json!({}));
        assert_eq!(test.call(Method::PUT, &ada.token, USER, json!({"phone": ""})).await.status, 200);
    }

    async fn what_a_user_says_of_themself_is_merged(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        put(&test, &ada.token, json!({"data": {"name": "Ada", "theme": "dark", "home": {"city": "London"}}})).await;

        let user = put(&test, &ada.token, json!({"data": {"name": "Ada L.", "theme": null, "home": {"street": "St James's"}}})).await.json();

        assert_eq!(user["user_metadata"], json!({"name": "Ada L.", "home": {"street": "St James's"}}));
        assert_eq!(test.get(&ada.token, USER).await.json(), user);
        assert_eq!(put(&test, &ada.token, json!({})).await.json()["user_metadata"], user["user_metadata"]);
        assert_eq!(put(&test, &ada.token, json!({"data": null})).await.json()["user_metadata"], user["user_metadata"]);
        let child = test.refreshed(&ada.refresh_token).await;
        assert_eq!(super::access::claims(&child.token)["user_metadata"], user["user_metadata"]);
    }

    async fn changes_at_once_lose_none(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;

        let all = (0..10).map(|n| put(&test, &ada.token, json!({"data": {format!("key {n}"): n}})));
        futures_util::future::join_all(all).await;

        let user = test.get(&ada.token, USER).await.json();
        assert_eq!(user["user_metadata"].as_object().unwrap().len(), 10);
    }

    async fn what_a_user_says_of_themself_is_bounded(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        assert_eq!(put(&test, &ada.token, json!({"data": {"a": "x".repeat(3000)}})).await.status, 200);

        let refusals = [json!({"b": "x".repeat(3000)}), json!({"a": "\0"}), json!({"\0": 1}), json!({"a": [{"b": "\0"}]}), json!("Ada"), json!([1])];

        for data in refusals {
            let answer = put(&test, &ada.token, json!({"data": data})).await;
            assert_eq!(answer.refusal(), refused(400, "validation_failed"), "{data}");
            assert_eq!(answer.json()["errors"][0]["field"], "data");
            let body = json!({"email": "ben@example.com", "password": PASSWORD, "data": data});
            if data["b"].is_null() {
                assert_eq!(test.post("", SIGN_UP, body).await.refusal(), refused(400, "validation_failed"), "{data}");
            }
        }
        let user = test.get(&ada.token, USER).await.json();
        assert_eq!(user["user_metadata"], json!({"a": "x".repeat(3000)}));
        assert_eq!(test.rows("users").await, 1);
    }

    async fn a_new_password_ends_every_other_session(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let other = test.sign_in_again("ada@example.com").await;
        let ben = test.sign_up("ben@example.com").await;
        let beside = test.beside(&[]).await;

        let answer = put(&test, &ada.token, json!({"password": "a better password", "current_password": PASSWORD})).await;

        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(test.get(&ada.token, USER).await.status, 200);
        assert_eq!(test.get(&ben.token, USER).await.status, 200);
        assert_eq!(beside.get(&other.token, USER).await.refusal(), refused(403, "session_not_found"));
        assert_eq!(beside.refresh(&other.refresh_token).await.refusal(), refused(400, "refresh_token_not_found"));
        assert_eq!(test.sign_in("ada@example.com", PASSWORD).await.refusal(), refused(400, "invalid_credentials"));
        assert_eq!(test.sign_in("ada@example.com", "a better password").await.status, 200);
    }

    async fn who_holds_a_session_but_not_the_password_cannot_change_it(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let other = test.sign_in_again("ada@example.com").await;
        let change = async |current: Value, new: &str| {
            let body = json!({"password": new, "current_password": current, "data": {"changed": true}});
            put(&test, &ada.token, body).await.refusal()
        };

        test.later(Duration::from_secs(301));

        assert_eq!(change(Value::Null, "a better password").await, refused(403, "reauthentication_needed"));
        assert_eq!(change(json!("a guess of it"), "a better password").await, refused(400, "invalid_credentials"));
        assert_eq!(change(json!(PASSWORD), PASSWORD).await, refused(422, "same_password"));
        assert_eq!(change(json!(PASSWORD), "password1").await, refused(422, "weak_password"));
        assert_eq!(change(json!(PASSWORD), "ada@example.com").await, refused(422, "weak_password"));
        assert_eq!(change(json!(PASSWORD), "short").await, refused(422, "weak_password"));

        assert_eq!(test.get(&other.token, USER).await.status, 200);
        assert_eq!(test.get(&ada.token, USER).await.json()["user_metadata"], json!({}), "nothing of a refused change is kept");
        assert_eq!(test.sign_in("ada@example.com", PASSWORD).await.status, 200);
    }

    async fn who_signed_in_just_now_changes_the_password_without_the_old_one(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        test.later(Duration::from_secs(300));

        let same = put(&test, &ada.token, json!({"password": PASSWORD})).await;
        let other = put(&test, &ada.token, json!({"password": "a better password"})).await;

        assert_eq!(same.refusal(), refused(422, "same_password"));
        assert_eq!(other.status, 200, "{}", other.text());
        assert_eq!(test.sign_in("ada@example.com", "a better password").await.status, 200);
    }

    async fn a_refreshed_session_has_signed_in_when_it_did(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        test.later(Duration::from_secs(301));
        let ada = test.refreshed(&ada.refresh_token).await;

        let answer = put(&test, &ada.token, json!({"password": "a better password"})).await;

        assert_eq!(answer.refusal(), refused(403, "reauthentication_needed"));
        assert_eq!(answer.header("www-authenticate"), "Bearer error=\"insufficient_user_authentication\", max_age=\"300\"");
        assert_eq!(test.sign_in("ada@example.com", PASSWORD).await.status, 200);
    }

    async fn a_stolen_session_is_no_place_to_guess_the_password_from(engine: Engine) {
        let test = Test::with(engine, &[("RATE_LIMITS", "sign_in_account=3/1m")]).await;
        let ada = test.sign_up("ada@example.com").await;
        let body = json!({"password": "a better password", "current_password": "a guess"});
        let guess = async || put(&test, &ada.token, body.clone()).await.status.as_u16();

        let answers = [guess().await, guess().await, guess().await, guess().await];

        assert_eq!(answers, [400, 400, 400, 429]);
    }

    async fn the_same_address_is_no_change(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;

        let same = put(&test, &ada.token, json!({"email": " ADA@example.com"})).await;

        assert_eq!(same.status, 200);
        assert_eq!((&same.json()["email"], same.json().get("new_email")), (&json!("ada@example.com"), None));
        assert_eq!(test.mails_waiting().await, 0);
    }
}
