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

    /// Invariant 63.
    async fn a_hash_from_elsewhere_lets_its_user_in_once_and_is_replaced_by_ours(engine: Engine) {
        let test = Test::new(engine).await;
        for (n, hash) in foreign(PASSWORD).into_iter().enumerate() {
            let email = format!("user{n}@example.com");
            import(&test, &email, &hash).await;

            let wrong = test.sign_in(&email, "another password").await;
            assert_eq!(wrong.refusal(), refused(400, "invalid_credentials"), "{hash}");
            assert_eq!(kept(&test, &email).await, hash, "a wrong password changes nothing");
            assert_eq!(test.sign_in(&email, PASSWORD).await.status, 200, "{hash}");

            let renewed = kept(&test, &email).await;
            assert!(renewed.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{renewed}");
            assert_eq!(test.sign_in(&email, PASSWORD).await.status, 200, "{hash}");
            assert_eq!(kept(&test, &email).await, renewed, "ours stays");
        }
    }

    /// Invariant 63.
    async fn a_hash_that_asks_for_too_much_work_is_refused_before_any(engine: Engine) {
        let test = Test::new(engine).await;
        let bcrypt = bcrypt::hash(PASSWORD, 4).unwrap();

        for hash in [
            "$argon2id$v=19$m=4194304,t=2,p=1$c2FsdHNhbHQ$c2FsdHNhbHRzYWx0c2FsdHNhbHRzYWx0c2FsdHM",
            "$argon2id$v=19$m=19456,t=4294967295,p=1$c2FsdHNhbHQ$c2FsdHNhbHRzYWx0c2FsdHNhbHRzYWx0c2FsdHM",
            &bcrypt.replace("$04$", "$31$"), &bcrypt.replace("$04$", "$99$"), &bcrypt[..40],
            "$pbkdf2-sha256$i=4294967295$c2FsdHNhbHRzYWx0$c2FsdHNhbHRzYWx0c2FsdHNhbHQ",
            "$pbkdf2-sha256$i=0$c2FsdHNhbHRzYWx0$c2FsdHNhbHRzYWx0c2FsdHNhbHQ",
            "$pbkdf2-sha256$29000$c2FsdHNhbHRzYWx0$", "$pbkdf2-sha256$29000$$c2FsdHNhbHRzYWx0c2FsdHNhbHQ",
        ] {
            let body = json!({"email": "ada@example.com", "email_confirm": true, "password_hash": hash});
            let answer = test.post(&test.service_key(), "/auth/v1/admin/users", body).await;
            assert_eq!(answer.refusal(), refused(400, "validation_failed"), "{hash}");
        }
        assert_eq!(test.rows("users").await, 0);
    }
}

/// The hashes of one password that other systems would keep.
fn foreign(password: &str) -> Vec<String> {
    use argon2::{Algorithm, Argon2, Params, Version, password_hash::PasswordHasher};
    use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};

    let argon = |algorithm, m, t| {
        let params = Params::new(m, t, 1, None).unwrap();
        let hasher = Argon2::new(algorithm, Version::V0x13, params);
        let hash = hasher.hash_password(password.as_bytes()).unwrap();
        hash.to_string()
    };
    let mut derived = [0; 32];
    aws_lc_rs::pbkdf2::derive(
        aws_lc_rs::pbkdf2::PBKDF2_HMAC_SHA256,
        1_000.try_into().unwrap(),
        b"a salt of theirs",
        password.as_bytes(),
        &mut derived,
    );
    let (salt, derived) = (
        STANDARD_NO_PAD.encode(b"a salt of theirs"),
        STANDARD_NO_PAD.encode(derived),
    );
    let passlib = derived.replace('+', ".");
    vec![
        argon(Algorithm::Argon2i, 4096, 3),
        argon(Algorithm::Argon2d, 4096, 3),
        argon(Algorithm::Argon2id, 9216, 4),
        bcrypt::hash(password, 4).unwrap(),
        bcrypt::hash(password, 4).unwrap().replace("$2b$", "$2a$"),
        format!("$pbkdf2-sha256$i=1000,l=32${salt}${derived}"),
        format!("$pbkdf2-sha256$1000${salt}${passlib}"),
    ]
}

async fn import(test: &Test, email: &str, hash: &str) {
    let body = json!({"email": email, "email_confirm": true, "password_hash": hash});
    let answer = test
        .post(&test.service_key(), "/auth/v1/admin/users", body)
        .await;
    assert_eq!(answer.status, 200, "{hash}: {}", answer.text());
}

async fn kept(test: &Test, email: &str) -> String {
    let user = db::users::by_email(&test.app.db, email).await;
    user.unwrap().unwrap().password_hash.unwrap()
}
