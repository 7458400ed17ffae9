use super::*;
use crate::auth::hashing;

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

    /// Invariant 64.
    async fn a_flood_of_sign_ins_hashes_few_at_once_and_leaves_the_rest_alone(engine: Engine) {
        let test = std::sync::Arc::new(Test::new(engine).await);
        let ada = test.sign_up("ada@example.com").await;
        let threads = &test.app.passwords.threads;
        let held = threads.hold().await;

        let mut flood = tokio::task::JoinSet::new();
        for _ in 0..200 {
            let test = test.clone();
            flood.spawn(async move { test.sign_in("ada@example.com", PASSWORD).await.status });
        }
        while threads.waiting() < 200 {
            tokio::task::yield_now().await;
        }
        for path in ["/health/live", "/health/ready", "/health", USER] {
            assert_eq!(test.get(&ada.token, path).await.status, 200, "{path} waits for no hash");
        }
        drop(held);
        while let Some(status) = flood.join_next().await {
            assert_eq!(status.unwrap(), 200);
        }

        let most = threads.most();
        assert!((1..=threads.count).contains(&most), "{most} at once, each with 19 MiB, on {} threads", threads.count);
        assert_eq!(test.rows("sessions").await, 201);
    }

    /// Invariant 64.
    async fn who_comes_when_too_many_wait_is_told_to_come_back(engine: Engine) {
        let test = std::sync::Arc::new(Test::new(engine).await);
        test.sign_up("ada@example.com").await;
        let threads = &test.app.passwords.threads;
        let held = threads.hold().await;
        let mut flood = tokio::task::JoinSet::new();
        for _ in 0..hashing::MAX_WAITING {
            let test = test.clone();
            flood.spawn(async move { test.app.passwords.verify(PASSWORD, None).await.is_ok() });
        }
        while threads.waiting() < hashing::MAX_WAITING {
            tokio::task::yield_now().await;
        }

        let refusal = test.sign_in("ada@example.com", PASSWORD).await;

        assert_eq!((refusal.refusal(), refusal.header("retry-after")), (refused(503, "busy"), "1"));
        flood.shutdown().await;
        drop(held);
        assert_eq!(test.sign_in("ada@example.com", PASSWORD).await.status, 200, "who went away is waited for by nobody");
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
    async fn who_comes_from_firebase_is_let_in(engine: Engine) {
        let test = Test::new(engine).await;
        import(&test, "ada@example.com", FIREBASE).await;
        let of_another_project = FIREBASE.replace("sk=jx", "sk=kx");
        import(&test, "ben@example.com", &of_another_project).await;

        assert_eq!(test.sign_in("ada@example.com", "user2password").await.refusal(), refused(400, "invalid_credentials"));
        assert_eq!(test.sign_in("ben@example.com", "user1password").await.refusal(), refused(400, "invalid_credentials"));
        assert_eq!(test.sign_in("ada@example.com", "user1password").await.status, 200);

        assert!(kept(&test, "ada@example.com").await.starts_with("$argon2id$"));
        assert_eq!(test.sign_in("ada@example.com", "user1password").await.status, 200);
    }

    async fn who_has_a_password_that_would_not_do_today_is_let_in_and_told(engine: Engine) {
        let test = Test::new(engine).await;
        let hash = |password: &str| bcrypt::hash(password, 4).unwrap();
        for (email, password, reason) in [
            ("short@example.com", "short", "length"),
            ("common@example.com", "password1", "pwned"),
            ("ada.lovelace@example.com", "Ada.Lovelace", "pwned"),
        ] {
            import(&test, email, &hash(password)).await;
            let answer = test.sign_in(email, password).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            let said = &answer.json()["weak_password"];
            assert_eq!(said["reasons"], json!([reason]), "{email}");
            assert!(said["message"].as_str().unwrap().starts_with("Password is"), "{said}");
            assert_eq!(test.sign_in(email, "wrong").await.json().get("weak_password"), None, "nobody else is");
        }

        import(&test, "good@example.com", &hash(PASSWORD)).await;
        assert_eq!(test.sign_in("good@example.com", PASSWORD).await.json().get("weak_password"), None);
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
            "$scrypt$ln=30,r=8,p=1$c2FsdHNhbHRzYWx0$c2FsdHNhbHRzYWx0c2FsdHNhbHQ",
            "$scrypt$ln=17,r=8,p=1$c2FsdHNhbHRzYWx0$c2FsdHNhbHRzYWx0c2FsdHNhbHQ",
            "$scrypt$ln=16,r=8,p=3$c2FsdHNhbHRzYWx0$c2FsdHNhbHRzYWx0c2FsdHNhbHQ",
            "$scrypt$ln=4,r=4294967295,p=4294967295$c2FsdHNhbHRzYWx0$c2FsdHNhbHRzYWx0c2FsdHNhbHQ",
            "$scrypt$ln=0,r=8,p=1$c2FsdHNhbHRzYWx0$c2FsdHNhbHRzYWx0c2FsdHNhbHQ",
            "$scrypt$ln=14,r=8$c2FsdHNhbHRzYWx0$c2FsdHNhbHRzYWx0c2FsdHNhbHQ",
            "$scrypt$ln=14,r=8,p=1$$c2FsdHNhbHRzYWx0c2FsdHNhbHQ",
            &FIREBASE.replace("n=14", "n=24"), &FIREBASE.replace("n=14", "n=-1"), &FIREBASE.replace("v=1", "v=2"),
            &FIREBASE.replace("r=8", "r=4294967295"), &FIREBASE.replace("sk=", "xx="), &FIREBASE[..FIREBASE.len() - 8],
            "$pbkdf2-sha256$29000$c2FsdHNhbHRzYWx0$", "$pbkdf2-sha256$29000$$c2FsdHNhbHRzYWx0c2FsdHNhbHQ",
        ] {
            let body = json!({"email": "ada@example.com", "email_confirm": true, "password_hash": hash});
            let answer = test.post(&test.service_key(), "/auth/v1/admin/users", body).await;
            assert_eq!(answer.refusal(), refused(400, "validation_failed"), "{hash}");
        }
        assert_eq!(test.rows("users").await, 0);
    }
}

/// From Firebase's own example of its utility, where the password is `user1password`:
/// <https://github.com/firebase/scrypt>.
const FIREBASE: &str = "$fbscrypt$v=1,n=14,r=8,p=1,ss=Bw==,sk=jxspr8Ki0RYycVU8zykbdLGjFQ3McFUH0uiiTvC8pVMXAn210wjLNmdZJzxUECKbm0QsEmYUSDzZvpjeJ9WmXA==$42xEC+ixf3L2lw==$lSrfV15cpx95/sZS2W9c9Kp6i/LVgQNDNC/qzrCnh1SAyZvqmZqAjTdn3aoItz+VHjoZilo78198JAdRuid5lQ==";

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
        scrypt_of(password),
    ]
}

fn scrypt_of(password: &str) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
    let (params, mut derived) = (scrypt::Params::new(10, 8, 1).unwrap(), [0; 32]);
    scrypt::scrypt(
        password.as_bytes(),
        b"a salt of theirs",
        &params,
        &mut derived,
    )
    .unwrap();
    let [salt, derived] =
        [b"a salt of theirs".as_slice(), &derived].map(|bytes| STANDARD_NO_PAD.encode(bytes));
    format!("$scrypt$ln=10,r=8,p=1${salt}${derived}")
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
