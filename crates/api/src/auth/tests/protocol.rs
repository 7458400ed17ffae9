use super::*;
use axum::body::Body;

async fn post(test: &Test, content_type: &str, path: &str, body: impl Into<Body>) -> Answer {
    let request =
        crate::testing::request(Method::POST, "", path).header("content-type", content_type);
    test.send(request.body(body.into()).unwrap()).await
}

both_engines! {
    /// Invariant 61.
    async fn every_answer_is_versioned_and_kept_by_nobody(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;

        let answers = [
            test.sign_in("ada@example.com", PASSWORD).await,
            test.sign_in("ada@example.com", "wrong password").await,
            test.refresh(&ada.refresh_token).await,
            test.get(&ada.token, USER).await,
            test.get("", USER).await,
            test.get("", "/auth/v1/nowhere").await,
            test.get("", "/auth/v1/settings").await,
            test.post(&ada.token, "/auth/v1/logout", json!({})).await,
        ];

        for answer in answers {
            assert_eq!(answer.header("x-supabase-api-version"), "2024-01-01", "{}", answer.text());
            assert_eq!(answer.header("cache-control"), "no-store", "{}", answer.text());
            assert_eq!(answer.header("set-cookie"), "");
        }
    }

    async fn no_answer_is_compressed_for_none_should_be_measured(engine: Engine) {
        let test = Test::new(engine).await;
        let body = json!({"email": "ada@example.com", "password": PASSWORD, "data": {"about": "x".repeat(2_000)}}).to_string();
        let request = crate::testing::request(Method::POST, "", SIGN_UP)
            .header("content-type", "application/json").header("accept-encoding", "gzip, br");

        let answer = test.send(request.body(Body::from(body)).unwrap()).await;

        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-encoding"), "");
        assert!(answer.json()["access_token"].is_string());
    }

    async fn malformed_json_is_refused_with_its_place(engine: Engine) {
        let test = Test::new(engine).await;

        let answer = post(&test, "application/json", SIGN_UP, "{\n  \"email\": }").await;

        assert_eq!(answer.refusal(), refused(400, "bad_json"));
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("line 2 column 12"), "{detail}");
        let deep = format!("{{\"data\": {}1{}}}", "[".repeat(2_000), "]".repeat(2_000));
        for body in ["", "{", "{} {}", "\u{feff}{}", "{\"email\": \"\\ud800\"}", deep.as_str()] {
            let answer = post(&test, "application/json", SIGN_UP, body.to_owned()).await;
            assert_eq!(answer.refusal(), refused(400, "bad_json"), "{body:.20}");
        }
        assert_eq!(test.rows("users").await, 0);
    }

    async fn a_member_of_the_wrong_type_is_named(engine: Engine) {
        let test = Test::new(engine).await;

        for (path, body, field) in [
            (SIGN_UP, json!({"email": 1, "password": PASSWORD}), "email"),
            (SIGN_UP, json!({"email": "ada@example.com", "password": ["x"]}), "password"),
            (SIGN_UP, json!({"email": "ada@example.com"}), "password"),
            (SIGN_UP, json!({"email": "ada@example.com", "password": PASSWORD, "data": "x"}), "data"),
            ("/auth/v1/token?grant_type=password", json!({"password": PASSWORD}), "email"),
            ("/auth/v1/token?grant_type=password", json!({"email": "ada@example.com"}), "password"),
            ("/auth/v1/token?grant_type=refresh_token", json!({}), "refresh_token"),
            ("/auth/v1/token?grant_type=refresh_token", json!({"refresh_token": {}}), "refresh_token"),
            ("/auth/v1/verify", json!({"type": "signup", "email": "ada@example.com", "token": 123456}), "token"),
            ("/auth/v1/verify", json!({"email": "ada@example.com", "token": "123456"}), "type"),
        ] {
            let answer = test.post("", path, body.clone()).await;
            assert_eq!(answer.refusal(), refused(400, "validation_failed"), "{body}");
            assert_eq!(answer.json()["errors"][0]["field"], field, "{body}");
        }
        let twice = post(&test, "application/json", SIGN_UP, "{\"email\": \"a@example.com\", \"email\": \"b@example.com\"}").await;
        assert_eq!(twice.refusal(), refused(400, "validation_failed"));
        assert_eq!((test.rows("users").await, test.rows("sessions").await), (0, 0));
    }

    async fn a_list_does_not_stand_for_the_members_of_a_body(engine: Engine) {
        let test = Test::with(engine, &[("AUTH_ANONYMOUS", "true")]).await;
        test.sign_up("ada@example.com").await;

        for (path, body) in [
            (SIGN_UP, json!([])),
            (SIGN_UP, json!(["bob@example.com", PASSWORD])),
            ("/auth/v1/token?grant_type=password", json!(["ada@example.com", PASSWORD])),
        ] {
            let answer = test.post("", path, body.clone()).await;
            assert_eq!(answer.refusal(), refused(400, "validation_failed"), "{body}");
        }

        assert_eq!((test.rows("users").await, test.rows("sessions").await), (1, 1));
    }

    async fn what_is_not_json_or_too_much_of_it_is_refused(engine: Engine) {
        let test = Test::new(engine).await;
        let body = json!({"email": "ada@example.com", "password": PASSWORD}).to_string();

        for content_type in ["text/plain", "application/x-www-form-urlencoded", ""] {
            let answer = post(&test, content_type, SIGN_UP, body.clone()).await;
            assert_eq!(answer.refusal(), refused(415, "unsupported_media_type"), "{content_type}");
        }
        let much = json!({"email": "ada@example.com", "password": PASSWORD, "data": {"a": "x".repeat(20_000)}});
        assert_eq!(test.post("", SIGN_UP, much).await.refusal(), refused(413, "body_too_large"));

        assert_eq!(test.rows("users").await, 0);
        assert_eq!(post(&test, "application/json; charset=UTF-8", SIGN_UP, body).await.status, 200);
    }

    async fn settings_say_what_a_sign_in_page_may_offer(engine: Engine) {
        let test = Test::with(engine, &[("AUTH_AUTOCONFIRM", "false"), ("AUTH_SIGNUP", "false")]).await;

        let settings = test.get("", "/auth/v1/settings").await.json();

        assert_eq!(settings["external"], json!({
            "email": true, "phone": false, "anonymous_users": false,
            "google": true, "apple": true, "github": true, "oidc": true, "replit": false,
        }));
        assert_eq!((&settings["disable_signup"], &settings["mailer_autoconfirm"]), (&json!(true), &json!(false)));
    }

    async fn no_answer_and_no_row_repeats_a_secret(engine: Engine) {
        let test = Test::new(engine).await;
        let secret = "canary in the coal mine";
        let answer = test.ask_to_sign_up("ada@example.com", secret).await;
        let ada = Person::of(&answer.json());

        let answers = [
            answer,
            test.sign_in("ada@example.com", "canary but wrong").await,
            test.post("", SIGN_UP, json!({"email": "canary@", "password": secret})).await,
            post(&test, "application/json", SIGN_UP, "{\"password\": \"canary\" \"").await,
            test.post("", SIGN_UP, json!({"email": "a@example.com", "password": {"canary": 1}})).await,
            test.refresh("rt1.canary").await,
            test.get("canary", USER).await,
            test.call(Method::PUT, &ada.token, USER, json!({"password": "canary canary", "current_password": secret})).await,
        ];

        for answer in answers {
            assert!(!answer.text().contains("canary"), "{}", answer.text());
        }
    }
}
