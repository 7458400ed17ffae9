use super::*;

const OTP: &str = "/auth/v1/otp";
const RECOVER: &str = "/auth/v1/recover";
const RESEND: &str = "/auth/v1/resend";

impl Test {
    async fn ask_for_code(&self, path: &str, email: &str) -> Answer {
        self.post("", path, json!({"type": "signup", "email": email}))
            .await
    }

    async fn verify_as(&self, r#type: &str, email: &str, code: &str) -> Answer {
        let body = json!({"type": r#type, "email": email, "token": code});
        self.post("", "/auth/v1/verify", body).await
    }

    async fn mails_to(&self, email: &str) -> usize {
        self.work().await;
        self.world.mailbox().to(email).len()
    }

    /// One who confirmed, one who is banned besides, and one who has not confirmed.
    async fn regular_outcast_and_pending(&self) {
        for email in [
            "regular@example.com",
            "outcast@example.com",
            "pending@example.com",
        ] {
            self.ask_to_sign_up(email, PASSWORD).await;
            let code = self.mailed_code(email).await;
            if email != "pending@example.com" {
                assert_eq!(self.verify(email, &code).await.status, 200);
            }
        }
        self.ban("outcast@example.com").await;
        self.world.mailbox().clear();
    }
}

both_engines! {
    async fn a_new_address_signs_up_with_a_code_alone(engine: Engine) {
        let test = Test::new(engine).await;

        let asked = test.post("", OTP, json!({"email": "ada@example.com", "data": {"name": "Ada"}, "create_user": true})).await;

        assert_eq!((asked.status.as_u16(), asked.text()), (200, "{}".into()));
        assert_eq!(test.rows("sessions").await, 0);
        let code = test.mailed_code("ada@example.com").await;
        let session = test.verify_as("email", "ada@example.com", &code).await;
        assert_eq!(session.status, 200, "{}", session.text());
        let user = &session.json()["user"];
        assert_eq!(user["user_metadata"], json!({"name": "Ada"}));
        assert_eq!(user["email_confirmed_at"], json!(test.app.now().to_string()));
        let ada = Person::of(&session.json());
        assert_eq!(super::access::claims(&ada.token)["amr"][0]["method"], "otp");
        assert_eq!(test.get(&ada.token, USER).await.json(), *user);
    }

    async fn who_is_known_is_signed_in_by_a_code(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;

        for (path, r#type) in [(OTP, "email"), ("/auth/v1/magiclink", "magiclink")] {
            test.ask_for_code(path, " Ada@example.com").await;
            let code = test.mailed_code("ada@example.com").await;
            let session = test.verify_as(r#type, "ada@example.com", &code).await;
            assert_eq!(session.status, 200, "{}", session.text());
            assert_eq!(session.json()["user"]["id"], json!(ada.id));
        }

        assert_eq!(test.rows("users").await, 1);
        assert_eq!(test.sign_in("ada@example.com", PASSWORD).await.status, 200, "the password stays");
    }

    async fn nobody_is_made_where_that_was_not_asked_or_is_not_allowed(engine: Engine) {
        let test = Test::new(engine).await;
        let closed = test.beside(&[("AUTH_SIGNUP", "false")]).await;

        let unasked = test.post("", OTP, json!({"email": "ada@example.com", "create_user": false})).await;
        let unallowed = closed.ask_for_code(OTP, "ada@example.com").await;

        assert_eq!((unasked.text(), unallowed.text()), ("{}".into(), "{}".into()), "nobody hears who is known");
        assert_eq!((test.rows("users").await, test.mails_waiting().await), (0, 0));
    }

    /// Invariant 2: also how often one may ask says nothing.
    async fn asking_for_a_code_tells_nothing_of_an_address(engine: Engine) {
        for path in [OTP, "/auth/v1/magiclink", RECOVER, RESEND] {
            let test = Test::with(engine, CONFIRMING).await;
            test.regular_outcast_and_pending().await;
            let limits = [("AUTH_AUTOCONFIRM", "false"), ("RATE_LIMITS", "mail_sender=1000/1h")];
            let limited = test.beside(&limits).await;
            let mut answers = vec![];
            for email in ["unknown@example.com", "regular@example.com", "outcast@example.com", "pending@example.com"] {
                let mut of_one = vec![];
                for wait in [0, 30, 30, 60, 60, 60] {
                    limited.later(Duration::from_secs(wait));
                    let answer = limited.ask_for_code(path, email).await;
                    let (status, mut headers, text) = comparable(&answer);
                    // Of the address that asks, which is one here.
                    headers.retain(|(name, _)| name != "ratelimit");
                    of_one.push((status, headers, text));
                }
                answers.push(of_one);
            }

            let statuses: Vec<_> = answers[0].iter().map(|(status, ..)| *status).collect();
            assert_eq!(statuses, [200, 429, 200, 200, 429, 429], "{path}");
            for other in &answers[1..] {
                assert_eq!(*other, answers[0], "{path}");
            }
            assert_eq!(test.mails_to("outcast@example.com").await, 0, "{path}");
            assert_eq!(test.rows("sessions").await, 2, "those of the confirmations");
        }
    }

    /// Invariant 3.
    async fn codes_are_mailed_by_the_worker_and_not_on_the_way(engine: Engine) {
        let test = Test::with(engine, CONFIRMING).await;
        test.regular_outcast_and_pending().await;

        for (path, email) in [(OTP, "new@example.com"), (RECOVER, "regular@example.com"), (RESEND, "pending@example.com")] {
            test.ask_for_code(path, email).await;
        }

        assert!(test.world.mailbox().messages().is_empty());
        assert_eq!(test.mails_waiting().await, 3);
    }

    /// Invariant 8; T4: a sign-up that was prepared for her leaves its maker nothing.
    async fn a_code_that_signs_in_leaves_nothing_of_another_claimant(engine: Engine) {
        for (path, r#type) in [(OTP, "magiclink"), (RECOVER, "recovery")] {
            let test = Test::with(engine, CONFIRMING).await;
            let body = json!({"email": "ada@example.com", "password": "of the attacker", "data": {"name": "Mallory"}});
            test.post("", SIGN_UP, body).await;
            test.work().await;

            test.ask_for_code(path, "ada@example.com").await;
            let code = test.mailed_code("ada@example.com").await;
            let session = test.verify_as(r#type, "ada@example.com", &code).await;

            assert_eq!(session.status, 200, "{}", session.text());
            assert_eq!(session.json()["user"]["user_metadata"], json!({}));
            let attacker = test.sign_in("ada@example.com", "of the attacker").await;
            assert_eq!(attacker.refusal(), refused(400, "invalid_credentials"), "{path}");
            assert_eq!(test.rows("users").await, 1);
        }
    }

    /// Invariant 7; T5: the newest code is that of the attacker's request, and what they said goes.
    async fn a_code_keeps_nothing_that_another_said_of_its_address(engine: Engine) {
        let test = Test::new(engine).await;
        test.post("", OTP, json!({"email": "ada@example.com", "data": {"name": "Ada"}})).await;
        test.work().await;
        test.post("", OTP, json!({"email": "ada@example.com", "data": {"name": "Mallory"}})).await;

        let code = test.mailed_code("ada@example.com").await;
        let session = test.verify_as("email", "ada@example.com", &code).await.json();

        assert_eq!(session["user"]["user_metadata"], json!({}));
        assert_eq!(test.rows("users").await, 1);
    }

    async fn asking_again_makes_the_earlier_code_worthless(engine: Engine) {
        let test = Test::with(engine, CONFIRMING).await;
        test.regular_outcast_and_pending().await;

        for (path, email, r#type) in [(OTP, "new@example.com", "email"), (OTP, "regular@example.com", "magiclink"), (RECOVER, "regular@example.com", "recovery"), (RESEND, "pending@example.com", "signup")] {
            test.ask_for_code(path, email).await;
            let first = test.mailed_code(email).await;
            test.ask_for_code(path, email).await;
            let second = test.mailed_code(email).await;

            if first != second {
                assert_eq!(test.verify_as(r#type, email, &first).await.refusal(), refused(403, "otp_expired"), "{path}");
            }
            assert_eq!(test.verify_as(r#type, email, &second).await.status, 200, "{path}");
        }
        assert_eq!(test.rows("users").await, 4);
    }

    /// Invariant 48.
    async fn no_code_serves_another_purpose_or_address(engine: Engine) {
        let test = Test::with(engine, CONFIRMING).await;
        test.regular_outcast_and_pending().await;
        test.ask_for_code(OTP, "regular@example.com").await;
        let to_sign_in = test.mailed_code("regular@example.com").await;
        test.ask_for_code(RECOVER, "regular@example.com").await;
        let to_recover = test.mailed_code("regular@example.com").await;
        let sessions = test.rows("sessions").await;

        for (r#type, code) in [("recovery", &to_sign_in), ("signup", &to_sign_in), ("email", &to_recover), ("magiclink", &to_recover), ("signup", &to_recover)] {
            if to_sign_in != to_recover {
                assert_eq!(test.verify_as(r#type, "regular@example.com", code).await.refusal(), refused(403, "otp_expired"), "{type}");
            }
            assert_eq!(test.verify_as(r#type, "pending@example.com", code).await.refusal(), refused(403, "otp_expired"), "{type}");
        }

        assert_eq!(test.rows("sessions").await, sessions);
        assert_eq!(test.verify_as("recovery", "regular@example.com", &to_recover).await.status, 200);
    }

    /// Invariant 45. That a recovery signs in is what GoTrue's clients need to set the password with;
    /// it is a session like any after one factor, and it is known who opened it.
    async fn a_recovery_leads_to_a_new_password_and_ends_the_other_sessions(engine: Engine) {
        let test = Test::new(engine).await;
        let before = test.sign_up("ada@example.com").await;
        test.later(Duration::from_secs(3600));
        test.ask_for_code(RECOVER, "ada@example.com").await;
        let code = test.mailed_code("ada@example.com").await;
        assert_eq!(test.get(&before.token, USER).await.status, 403, "an access token of an hour ago");

        let session = test.verify_as("recovery", "ada@example.com", &code).await;
        let again = test.verify_as("recovery", "ada@example.com", &code).await;

        assert_eq!(again.refusal(), refused(403, "otp_expired"));
        let ada = Person::of(&session.json());
        assert_eq!(super::access::claims(&ada.token)["aal"], "aal1");
        let changed = test.call(Method::PUT, &ada.token, USER, json!({"password": "a better password"})).await;
        assert_eq!(changed.status, 200, "{}", changed.text());
        assert_eq!(test.refresh(&before.refresh_token).await.refusal(), refused(400, "refresh_token_not_found"));
        assert_eq!(test.sign_in("ada@example.com", PASSWORD).await.refusal(), refused(400, "invalid_credentials"));
        assert_eq!(test.sign_in("ada@example.com", "a better password").await.status, 200);
    }

    /// Invariant 45.
    async fn a_recovery_lasts_thirty_minutes_at_most(engine: Engine) {
        let test = Test::with(engine, &[("AUTH_OTP_TTL", "1h")]).await;
        for email in ["in.time@example.com", "late@example.com"] {
            test.sign_up(email).await;
            test.ask_for_code(RECOVER, email).await;
        }
        let in_time = test.mailed_code("in.time@example.com").await;
        let late = test.mailed_code("late@example.com").await;

        test.later(Duration::from_secs(30 * 60 - 1));
        assert_eq!(test.verify_as("recovery", "in.time@example.com", &in_time).await.status, 200);
        test.later(Duration::from_secs(1));

        assert_eq!(test.verify_as("recovery", "late@example.com", &late).await.refusal(), refused(403, "otp_expired"));
    }

    async fn a_banned_user_is_not_signed_in_by_a_code(engine: Engine) {
        let test = Test::new(engine).await;
        test.sign_up("ada@example.com").await;
        test.ask_for_code(OTP, "ada@example.com").await;
        let code = test.mailed_code("ada@example.com").await;
        test.ban("ada@example.com").await;

        assert_eq!(test.verify_as("email", "ada@example.com", &code).await.refusal(), refused(403, "user_banned"));

        assert_eq!(test.rows("sessions").await, 1);
    }

    /// Invariant 25, as far as codes are concerned.
    async fn a_challenge_that_nothing_answers_is_refused_at_once(engine: Engine) {
        let test = Test::new(engine).await;

        for path in [OTP, "/auth/v1/magiclink", RECOVER] {
            for (challenge, method) in [(super::pkce::CHALLENGE, "plain"), (super::pkce::CHALLENGE, ""), ("short", "s256"), ("", "s256")] {
                let body = json!({"email": "ada@example.com", "code_challenge": challenge, "code_challenge_method": method});
                assert_eq!(test.post("", path, body).await.refusal(), refused(400, "validation_failed"), "{path} {method:?}");
            }
            let body = json!({"email": "ada@example.com", "code_challenge": super::pkce::CHALLENGE, "code_challenge_method": "s256"});
            assert_eq!(test.post("", path, body).await.status, 200, "{path}");
        }
    }

    async fn what_is_no_address_or_no_purpose_is_refused(engine: Engine) {
        let test = Test::new(engine).await;

        for path in [OTP, "/auth/v1/magiclink", RECOVER, RESEND] {
            for email in [json!("nobody"), json!(""), json!(null), json!(7)] {
                let answer = test.post("", path, json!({"type": "signup", "email": email})).await;
                assert_eq!(answer.refusal(), refused(400, "validation_failed"), "{path} {email}");
            }
        }
        let unknown = test.post("", RESEND, json!({"type": "sms", "email": "ada@example.com"})).await;
        assert_eq!(unknown.refusal(), refused(400, "validation_failed"));

        assert_eq!((test.rows("users").await, test.mails_waiting().await), (0, 0));
    }
}
