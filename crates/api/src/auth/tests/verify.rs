use super::*;

both_engines! {
    /// Invariant 47.
    async fn five_guesses_kill_a_code(engine: Engine) {
        let test = Test::with(engine, CONFIRMING).await;
        test.ask_to_sign_up("ada@example.com", PASSWORD).await;
        let code = test.mailed_code("ada@example.com").await;

        for _ in 0..5 {
            assert_eq!(test.verify("ada@example.com", not(&code)).await.refusal(), refused(403, "otp_expired"));
        }

        assert_eq!(test.verify("ada@example.com", &code).await.refusal(), refused(403, "otp_expired"));
        assert_eq!(test.rows("sessions").await, 0);
        assert_eq!(test.sign_in("ada@example.com", PASSWORD).await.refusal(), refused(400, "email_not_confirmed"));
    }

    async fn the_fifth_guess_may_still_be_right(engine: Engine) {
        let test = Test::with(engine, CONFIRMING).await;
        test.ask_to_sign_up("ada@example.com", PASSWORD).await;
        let code = test.mailed_code("ada@example.com").await;

        for _ in 0..4 {
            test.verify("ada@example.com", not(&code)).await;
        }

        assert_eq!(test.verify("ada@example.com", &format!(" {code} ")).await.status, 200);
    }

    /// Invariant 47.
    async fn guesses_at_once_count_each(engine: Engine) {
        let test = Test::with(engine, CONFIRMING).await;
        test.ask_to_sign_up("ada@example.com", PASSWORD).await;
        let code = test.mailed_code("ada@example.com").await;

        let guesses = (0..50).map(|_| test.verify("ada@example.com", not(&code)));
        futures_util::future::join_all(guesses).await;

        assert_eq!(test.verify("ada@example.com", &code).await.refusal(), refused(403, "otp_expired"));
        assert_eq!(test.rows("sessions").await, 0);
    }

    async fn of_twenty_right_answers_at_once_one_signs_in(engine: Engine) {
        let test = Test::with(engine, CONFIRMING).await;
        test.ask_to_sign_up("ada@example.com", PASSWORD).await;
        let code = test.mailed_code("ada@example.com").await;

        let all = (0..20).map(|_| test.verify("ada@example.com", &code));
        let answers = futures_util::future::join_all(all).await;

        let won = answers.iter().filter(|answer| answer.status == 200).count();
        let lost = answers.iter().filter(|answer| answer.status == 403).count();
        assert_eq!((won, lost), (1, 19));
        assert_eq!(test.rows("sessions").await, 1);
    }

    async fn a_code_is_used_once(engine: Engine) {
        let test = Test::with(engine, CONFIRMING).await;
        test.ask_to_sign_up("ada@example.com", PASSWORD).await;
        let code = test.mailed_code("ada@example.com").await;
        assert_eq!(test.verify("ada@example.com", &code).await.status, 200);

        let again = test.verify("ada@example.com", &code).await;

        assert_eq!(again.refusal(), refused(403, "otp_expired"));
        assert_eq!(test.rows("sessions").await, 1);
    }

    async fn a_code_expires_after_ten_minutes(engine: Engine) {
        let test = Test::with(engine, CONFIRMING).await;
        for email in ["in.time@example.com", "late@example.com"] {
            test.ask_to_sign_up(email, PASSWORD).await;
        }
        let in_time = test.mailed_code("in.time@example.com").await;
        let late = test.mailed_code("late@example.com").await;

        test.later(Duration::from_secs(599));
        assert_eq!(test.verify("in.time@example.com", &in_time).await.status, 200);
        test.later(Duration::from_secs(1));
        assert_eq!(test.verify("late@example.com", &late).await.refusal(), refused(403, "otp_expired"));

        assert_eq!(test.rows("sessions").await, 1);
    }

    /// Invariant 48.
    async fn a_code_proves_the_address_it_was_mailed_to_and_no_other(engine: Engine) {
        let test = Test::with(engine, CONFIRMING).await;
        for email in ["ada@example.com", "ben@example.com"] {
            test.ask_to_sign_up(email, PASSWORD).await;
        }
        let (of_ada, of_ben) = (test.mailed_code("ada@example.com").await, test.mailed_code("ben@example.com").await);

        if of_ada != of_ben {
            assert_eq!(test.verify("ben@example.com", &of_ada).await.refusal(), refused(403, "otp_expired"));
        }
        assert_eq!(test.verify("nobody@example.com", &of_ada).await.refusal(), refused(403, "otp_expired"));
        assert_eq!(test.verify("no address", &of_ada).await.refusal(), refused(403, "otp_expired"));

        assert_eq!(test.rows("sessions").await, 0);
        assert_eq!(test.verify("ada@example.com", &of_ada).await.status, 200);
    }

    /// Invariant 48.
    async fn a_code_serves_no_other_purpose(engine: Engine) {
        let test = Test::with(engine, CONFIRMING).await;
        test.ask_to_sign_up("ada@example.com", PASSWORD).await;
        let code = test.mailed_code("ada@example.com").await;

        let (other, unknown) = (refused(403, "otp_expired"), refused(400, "validation_failed"));
        for (purpose, refusal) in [("recovery", &other), ("magiclink", &other), ("SIGNUP", &unknown), ("sms", &unknown), ("", &unknown)] {
            let body = json!({"type": purpose, "email": "ada@example.com", "token": code});
            let answer = test.post("", "/auth/v1/verify", body).await;
            assert_eq!(&answer.refusal(), refusal, "{purpose}");
        }

        assert_eq!(test.rows("sessions").await, 0);
        let body = json!({"type": "email", "email": "ada@example.com", "token": code});
        assert_eq!(test.post("", "/auth/v1/verify", body).await.status, 200, "auth-js writes signup as email too");
    }

    async fn a_banned_sign_up_is_not_signed_in_by_its_code(engine: Engine) {
        let test = Test::with(engine, CONFIRMING).await;
        test.ask_to_sign_up("ada@example.com", PASSWORD).await;
        let code = test.mailed_code("ada@example.com").await;
        test.ban("ada@example.com").await;

        let answer = test.verify("ada@example.com", &code).await;

        assert_eq!(answer.refusal(), refused(403, "user_banned"));
        assert_eq!(test.rows("sessions").await, 0);
    }
}
