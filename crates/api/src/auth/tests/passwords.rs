use super::*;

/// 256 characters, of which every one takes two bytes.
fn longest() -> String {
    "äöüß".repeat(64)
}

async fn weakness(test: &Test, email: &str, password: &str) -> Value {
    let answer = test.ask_to_sign_up(email, password).await;
    assert_eq!(
        answer.refusal(),
        refused(422, "weak_password"),
        "{password}"
    );
    answer.json()["weak_password"]["reasons"].clone()
}

both_engines! {
    /// Invariant 62.
    async fn the_length_of_a_password_is_counted_in_characters(engine: Engine) {
        let test = Test::new(engine).await;

        assert_eq!(weakness(&test, "ada@example.com", "🦀🦀🦀🦀🦀🦀🦀").await, json!(["length"]));
        assert_eq!(weakness(&test, "ada@example.com", &format!("{}x", longest())).await, json!(["length"]));
        assert_eq!((test.rows("users").await, test.rows("sessions").await), (0, 0));

        assert_eq!(test.ask_to_sign_up("eight@example.com", "🦀🦀🦀🦀🦀🦀🦀🦀").await.status, 200);
        assert_eq!(test.ask_to_sign_up("longest@example.com", &longest()).await.status, 200);
        assert_eq!(test.sign_in("longest@example.com", &longest()).await.status, 200);
    }

    async fn the_least_length_can_be_raised(engine: Engine) {
        let test = Test::with(engine, &[("AUTH_MIN_PASSWORD_LENGTH", "15")]).await;

        assert_eq!(weakness(&test, "ada@example.com", "14 characters!").await, json!(["length"]));
        assert_eq!(test.ask_to_sign_up("ada@example.com", "15 characters!!").await.status, 200);
    }

    /// Invariant 62.
    async fn what_attackers_try_first_is_no_password(engine: Engine) {
        let test = Test::with(engine, CONFIRMING).await;

        for password in ["password1", "PassWord1", "ada.lovelace@example.com", "Ada.Lovelace@Example.com", "ada.lovelace", "ｐａｓｓｗｏｒｄ１"] {
            assert_eq!(weakness(&test, "ada.lovelace@example.com", password).await, json!(["pwned"]));
        }

        assert_eq!((test.rows("users").await, test.mails_waiting().await), (0, 0));
    }

    /// Invariant 62.
    async fn a_password_is_the_same_on_every_keyboard(engine: Engine) {
        let test = Test::new(engine).await;
        assert_eq!(test.ask_to_sign_up("ada@example.com", "A\u{30a}ngstro\u{308}m \u{fb01}sh").await.status, 200);

        assert_eq!(test.sign_in("ada@example.com", "\u{c5}ngstr\u{f6}m fish").await.status, 200);
        assert_eq!(test.sign_in("ada@example.com", "Angstrom fish").await.status, 400);
        assert_eq!(test.sign_in("ada@example.com", " \u{c5}ngstr\u{f6}m fish").await.status, 400, "not trimmed");
    }

    /// Invariant 62.
    async fn every_byte_of_a_password_counts(engine: Engine) {
        let test = Test::new(engine).await;
        let same = "x".repeat(72);
        for (email, end) in [("long@example.com", "a"), ("nul@example.com", "\0a")] {
            assert_eq!(test.ask_to_sign_up(email, &format!("{same}{end}")).await.status, 200);
        }

        assert_eq!(test.sign_in("long@example.com", &format!("{same}b")).await.status, 400);
        assert_eq!(test.sign_in("long@example.com", &same).await.status, 400);
        assert_eq!(test.sign_in("nul@example.com", &format!("{same}\0b")).await.status, 400);
        assert_eq!(test.sign_in("nul@example.com", &format!("{same}\0a")).await.status, 200);
    }

    async fn a_password_is_kept_as_owasp_wants_it(engine: Engine) {
        let test = Test::new(engine).await;
        test.sign_up("ada@example.com").await;
        test.sign_up("ben@example.com").await;

        let kept = async |email| db::users::by_email(&test.app.db, email).await.unwrap().unwrap().password_hash.unwrap();
        let (of_ada, of_ben) = (kept("ada@example.com").await, kept("ben@example.com").await);

        assert!(of_ada.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{of_ada}");
        assert_ne!(of_ada, of_ben, "each has a salt");
    }
}
