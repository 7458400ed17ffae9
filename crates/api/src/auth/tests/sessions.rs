use super::*;

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

both_engines! {
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
}
