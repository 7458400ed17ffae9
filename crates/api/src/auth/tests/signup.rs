use super::*;

both_engines! {
    async fn signing_up_signs_in_where_no_proof_is_asked(engine: Engine) {
        let test = Test::new(engine).await;

        let answer = test.ask_to_sign_up(" Ada@Example.COM ", PASSWORD).await;

        assert_eq!(answer.status, 200);
        let (session, now) = (answer.json(), json!(test.app.now().to_string()));
        assert_eq!(session["user"]["email"], "ada@example.com");
        assert_eq!(session["user"]["email_confirmed_at"], now);
        assert_eq!(session["user"]["identities"][0]["identity_data"]["email_verified"], true);
        assert_eq!(session["user"]["app_metadata"], json!({"provider": "email", "providers": ["email"]}));
        assert_eq!(session["user"]["user_metadata"], json!({}));
        let ada = Person::of(&session);
        assert_eq!(test.get(&ada.token, USER).await.json(), session["user"]);
        assert_eq!(test.mails_waiting().await, 0);
    }

    async fn what_a_sign_in_says_of_the_user_is_what_is_kept(engine: Engine) {
        let test = Test::new(engine).await;
        let _running = ticking(&test);

        let signed_up = test.ask_to_sign_up("ada@example.com", PASSWORD).await.json();
        let ada = Person::of(&signed_up);
        assert_eq!(test.get(&ada.token, USER).await.json(), signed_up["user"]);

        let signed_in = test.sign_in("ada@example.com", PASSWORD).await.json();
        assert_eq!(test.get(&ada.token, USER).await.json(), signed_in["user"]);
    }

    async fn a_sign_up_waits_for_the_code_that_is_mailed_to_it(engine: Engine) {
        let test = Test::with(engine, CONFIRMING).await;

        let answer = test.ask_to_sign_up("ada@example.com", PASSWORD).await;

        let user = answer.json();
        assert_eq!(answer.status, 200);
        assert_eq!(user["email_confirmed_at"], Value::Null);
        assert_eq!(user["confirmation_sent_at"], json!(test.app.now().to_string()));
        assert_eq!((user.get("access_token"), user.get("refresh_token")), (None, None));
        let early = test.sign_in("ada@example.com", PASSWORD).await;
        assert_eq!(early.refusal(), refused(400, "email_not_confirmed"));
        assert_eq!(test.rows("sessions").await, 0);
        // It is the worker who mails, not the request.
        assert_eq!(test.mails_waiting().await, 1);
        assert!(test.world.mailbox().messages().is_empty());

        let code = test.mailed_code("ada@example.com").await;
        let verified = test.verify("ada@example.com", &code).await;

        assert_eq!(verified.status, 200, "{}", verified.text());
        let session = verified.json();
        assert_eq!(session["user"]["id"], user["id"]);
        assert_eq!(session["user"]["email_confirmed_at"], json!(test.app.now().to_string()));
        assert_eq!(session["user"]["identities"][0]["identity_data"]["email_verified"], true);
        assert_eq!(test.get(&Person::of(&session).token, USER).await.json(), session["user"]);
        assert_eq!(test.sign_in("ada@example.com", PASSWORD).await.status, 200);
        assert_eq!(test.world.mailbox().messages().len(), 1);
        assert_eq!(test.mails_waiting().await, 0);
    }

    async fn an_address_is_written_to_so_often_an_hour_whoever_asks(engine: Engine) {
        let variables = [("AUTH_AUTOCONFIRM", "false"), ("RATE_LIMITS", "sign_up=1000/1h,mail=2/1h,mail_spacing=1000/1s")];
        let test = Test::with(engine, &variables).await;

        for n in 0..2 {
            let answer = test.ask_to_sign_up("ada@example.com", &format!("{PASSWORD} {n}")).await;
            assert_eq!(answer.status, 200);
        }
        let third = test.ask_to_sign_up("ADA@example.com", PASSWORD).await;

        assert_eq!(third.refusal(), refused(429, "over_email_send_rate_limit"));
        assert_eq!(test.mails_waiting().await, 2);
        assert_eq!(test.ask_to_sign_up("eve@example.com", PASSWORD).await.status, 200);
        test.later(std::time::Duration::from_secs(1800));
        assert_eq!(test.ask_to_sign_up("ada@example.com", PASSWORD).await.status, 200);
    }

    async fn known_and_unknown_addresses_are_answered_alike(engine: Engine) {
        let test = Test::with(engine, CONFIRMING).await;
        for email in ["regular@example.com", "outcast@example.com"] {
            test.ask_to_sign_up(email, PASSWORD).await;
            let code = test.mailed_code(email).await;
            test.verify(email, &code).await;
        }
        test.ban("outcast@example.com").await;
        test.ask_to_sign_up("pending@example.com", PASSWORD).await;
        test.work().await;
        test.world.mailbox().clear();
        let (users, sessions) = (test.rows("users").await, test.rows("sessions").await);
        // Numbers that a database may write otherwise than they came.
        let data = json!({"z": -0.0, "y": 1e300, "a": 1.0});
        let body = |email: &str| json!({"email": email, "password": "another password", "data": data});
        let sign_up = async |email: &str| test.post("", SIGN_UP, body(email)).await;

        let running = ticking(&test);
        let unknown = sign_up("unknown@example.com").await;
        for email in ["regular@example.com", "outcast@example.com", "pending@example.com"] {
            let (status, headers, text) = comparable(&sign_up(email).await);
            assert_eq!((status, headers, text.replace(email, "unknown@example.com")), comparable(&unknown), "{email}");
        }
        drop(running);

        test.work().await;
        let subject = |email| {
            let mails = test.world.mailbox().to(email);
            assert_eq!(mails.len(), 1, "{email}");
            mails[0].subject.clone()
        };
        assert_eq!(subject("regular@example.com"), "You already have an account");
        assert_eq!(subject("outcast@example.com"), "You already have an account");
        assert!(subject("unknown@example.com").ends_with("is your code"));
        assert!(subject("pending@example.com").ends_with("is your code"));
        assert_eq!(test.rows("users").await, users + 2, "one for the unknown and one beside the pending");
        assert_eq!(test.rows("sessions").await, sessions);
        assert_eq!(test.sign_in("regular@example.com", "another password").await.refusal(), refused(400, "invalid_credentials"));
    }

    async fn a_taken_address_is_refused_where_no_proof_is_asked(engine: Engine) {
        let test = Test::new(engine).await;
        test.sign_up("ada@example.com").await;

        let again = test.ask_to_sign_up("ADA@example.com", "another password").await;

        assert_eq!(again.refusal(), refused(422, "user_already_exists"));
        assert_eq!((test.rows("users").await, test.rows("sessions").await), (1, 1));
        assert_eq!(test.mails_waiting().await, 0);
        assert_eq!(test.sign_in("ada@example.com", PASSWORD).await.status, 200);
    }

    async fn of_twenty_sign_ups_with_one_address_one_wins(engine: Engine) {
        let test = Test::new(engine).await;

        let all = (0..20).map(|_| test.ask_to_sign_up("ada@example.com", PASSWORD));
        let answers = futures_util::future::join_all(all).await;

        let won = answers.iter().filter(|answer| answer.status == 200).count();
        let lost = answers.iter().filter(|answer| answer.status == 422).count();
        assert_eq!((won, lost), (1, 19));
        assert_eq!((test.rows("users").await, test.rows("identities").await), (1, 1));
    }

    async fn signing_up_again_with_the_same_password_starts_over(engine: Engine) {
        let test = Test::with(engine, CONFIRMING).await;
        test.ask_to_sign_up("ada@example.com", PASSWORD).await;
        let first = test.mailed_code("ada@example.com").await;

        test.ask_to_sign_up("ada@example.com", PASSWORD).await;
        let second = test.mailed_code("ada@example.com").await;

        assert_eq!((test.rows("users").await, test.rows("one_time_tokens").await), (1, 1));
        if first != second {
            assert_eq!(test.verify("ada@example.com", &first).await.refusal(), refused(403, "otp_expired"));
        }
        assert_eq!(test.verify("ada@example.com", &second).await.status, 200);
        assert_eq!(test.sign_in("ada@example.com", PASSWORD).await.status, 200);
    }

    async fn who_proves_an_address_does_not_get_the_password_of_another_claimant(engine: Engine) {
        let test = Test::with(engine, CONFIRMING).await;
        test.ask_to_sign_up("ada@example.com", PASSWORD).await;
        test.work().await;
        let body = json!({"email": "ada@example.com", "password": "of the attacker", "data": {"name": "Mallory"}});
        test.post("", SIGN_UP, body).await;

        // She enters the newest code that she finds in her mail: it is that of the attacker's sign-up.
        let code = test.mailed_code("ada@example.com").await;
        let session = test.verify("ada@example.com", &code).await;

        assert_eq!(session.status, 200, "{}", session.text());
        let ada = Person::of(&session.json());
        assert_eq!(session.json()["user"]["user_metadata"], json!({}));
        assert_eq!(test.sign_in("ada@example.com", "of the attacker").await.refusal(), refused(400, "invalid_credentials"));
        assert_eq!(test.rows("users").await, 1, "what could not be confirmed any more is gone");
        let own = test.call(Method::PUT, &ada.token, USER, json!({"password": PASSWORD})).await;
        assert_eq!(own.status, 200, "{}", own.text());
        assert_eq!(test.sign_in("ada@example.com", PASSWORD).await.status, 200);
    }

    async fn nobody_gives_themself_a_role(engine: Engine) {
        let test = Test::with(engine, &[("AUTH_AUTOCONFIRM", "false"), ("AUTH_ANONYMOUS", "true")]).await;
        let claims = json!({
            "id": "00000000-0000-7000-8000-000000000000", "role": "admin", "aud": "admin", "is_anonymous": true,
            "app_metadata": {"role": "admin", "plan": "pro"}, "email_confirmed_at": "2020-01-01T00:00:00Z",
            "confirmed_at": "2020-01-01T00:00:00Z", "email_verified": true, "banned_until": null,
        });
        let mut body = claims.clone();
        body["email"] = json!("ada@example.com");
        body["password"] = json!(PASSWORD);
        body["data"] = claims.clone();

        let user = test.post("", SIGN_UP, body).await.json();

        let clean = |user: &Value| {
            assert_ne!(user["id"], claims["id"]);
            assert_eq!((&user["role"], &user["aud"]), (&json!("authenticated"), &json!("authenticated")));
            assert_eq!(user["app_metadata"], json!({"provider": "email", "providers": ["email"]}));
            assert_eq!(user["is_anonymous"], false);
        };
        clean(&user);
        assert_eq!((&user["email_confirmed_at"], &user["confirmed_at"]), (&Value::Null, &Value::Null));
        assert_eq!(test.sign_in("ada@example.com", PASSWORD).await.refusal(), refused(400, "email_not_confirmed"));
        let code = test.mailed_code("ada@example.com").await;
        let ada = Person::of(&test.verify("ada@example.com", &code).await.json());
        let put = test.call(Method::PUT, &ada.token, USER, claims.clone()).await;
        assert_eq!(put.status, 200);
        clean(&put.json());
        clean(&test.get(&ada.token, USER).await.json());
    }

    async fn nobody_is_anonymous_unless_it_is_allowed(engine: Engine) {
        let test = Test::new(engine).await;

        for body in [json!({}), json!({"email": ""}), json!({"data": {"name": "Ada"}})] {
            assert_eq!(test.post("", SIGN_UP, body).await.refusal(), refused(422, "anonymous_provider_disabled"));
        }

        assert_eq!((test.rows("users").await, test.rows("sessions").await), (0, 0));
    }

    async fn who_signs_up_with_a_number_is_refused_and_not_made_anonymous(engine: Engine) {
        let test = Test::with(engine, &[("AUTH_ANONYMOUS", "true")]).await;

        let answer = test.post("", SIGN_UP, json!({"phone": "+14155550100", "password": PASSWORD})).await;

        assert_eq!(answer.refusal(), refused(400, "phone_provider_disabled"));
        assert_eq!((test.rows("users").await, test.rows("sessions").await), (0, 0));
        let beside = json!({"phone": "", "email": "ada@example.com", "password": PASSWORD});
        assert_eq!(test.post("", SIGN_UP, beside).await.json()["user"]["email"], "ada@example.com");
    }

    async fn an_anonymous_user_has_a_session_but_no_password(engine: Engine) {
        let test = Test::with(engine, &[("AUTH_ANONYMOUS", "true")]).await;

        let session = test.post("", SIGN_UP, json!({"data": {"name": "Ada"}})).await.json();

        let guest = Person::of(&session);
        assert_eq!(session["user"]["is_anonymous"], true);
        assert_eq!(session["user"]["user_metadata"], json!({"name": "Ada"}));
        assert_eq!(session["user"]["identities"], json!([]));
        assert_eq!(test.get(&guest.token, USER).await.status, 200);
        assert_eq!(test.refresh(&guest.refresh_token).await.status, 200);
        let password = test.call(Method::PUT, &guest.token, USER, json!({"password": PASSWORD})).await;
        assert_eq!(password.refusal(), refused(400, "validation_failed"));
        assert_eq!(test.rows("identities").await, 0);
    }

    async fn nobody_signs_up_where_that_is_turned_off(engine: Engine) {
        let test = Test::with(engine, &[("AUTH_SIGNUP", "false"), ("AUTH_ANONYMOUS", "true")]).await;

        let by_mail = test.ask_to_sign_up("ada@example.com", PASSWORD).await;
        let anonymous = test.post("", SIGN_UP, json!({})).await;

        assert_eq!(by_mail.refusal(), refused(422, "signup_disabled"));
        assert_eq!(anonymous.refusal(), refused(422, "signup_disabled"));
        assert_eq!((test.rows("users").await, test.mails_waiting().await), (0, 0));
    }

    async fn what_cannot_be_an_address_is_refused(engine: Engine) {
        let test = Test::with(engine, CONFIRMING).await;

        let long = format!("{}@example.com", "a".repeat(65));
        for email in ["ada", "@example.com", "ada@", "ada@localhost", "ada@.com", "ada@example..com", "a b@example.com",
                      "ada@example.com\r\nBcc: eve@example.com", "ada@eve@example.com", "<ada@example.com>", "ada\0@example.com", &long] {
            let answer = test.ask_to_sign_up(email, PASSWORD).await;
            assert_eq!(answer.refusal(), refused(400, "validation_failed"), "{email:?}");
            assert_eq!(answer.json()["errors"][0]["field"], "email", "{email:?}");
        }

        assert_eq!((test.rows("users").await, test.mails_waiting().await), (0, 0));
    }
}
