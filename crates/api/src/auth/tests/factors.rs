use super::{access::claims, *};
use crate::auth::factors::totp;

pub const FACTORS: &str = "/auth/v1/factors";

/// An authenticator app that was set up.
pub struct Authenticator {
    pub id: String,
    secret: Vec<u8>,
}

impl Authenticator {
    /// What it shows, so many steps from now.
    pub fn code(&self, test: &Test, steps: i64) -> String {
        totp::code(&self.secret, test.app.now().unix() / 30 + steps)
    }
}

fn bytes_of(base32: &str) -> Vec<u8> {
    let value = |c: char| c.to_digit(36).map(|d| if d < 10 { d + 24 } else { d - 10 });
    let bits: Vec<_> = base32
        .chars()
        .flat_map(|c| (0..5).rev().map(move |n| value(c).unwrap() >> n & 1))
        .collect();
    bits.chunks_exact(8)
        .map(|byte| byte.iter().fold(0, |byte, bit| byte << 1 | *bit as u8))
        .collect()
}

async fn enroll(test: &Test, token: &str, name: &str) -> Answer {
    let body = json!({"factor_type": "totp", "friendly_name": name});
    test.post(token, FACTORS, body).await
}

pub async fn enrolled(test: &Test, token: &str) -> Authenticator {
    let answer = enroll(test, token, "").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    Authenticator {
        id: answer["id"].as_str().unwrap().to_owned(),
        secret: bytes_of(answer["totp"]["secret"].as_str().unwrap()),
    }
}

async fn challenge(test: &Test, token: &str, id: &str) -> Answer {
    test.post(token, &format!("{FACTORS}/{id}/challenge"), json!({}))
        .await
}

async fn answer(test: &Test, token: &str, id: &str, challenge: &Value, code: &str) -> Answer {
    let body = json!({"challenge_id": challenge, "code": code});
    test.post(token, &format!("{FACTORS}/{id}/verify"), body)
        .await
}

/// Asks, and answers.
async fn prove(test: &Test, token: &str, id: &str, code: &str) -> Answer {
    let asked = challenge(test, token, id).await;
    if asked.status != 200 {
        return asked;
    }
    answer(test, token, id, &asked.json()["id"], code).await
}

pub async fn proved(test: &Test, token: &str, app: &Authenticator, steps: i64) -> Person {
    let answer = prove(test, token, &app.id, &app.code(test, steps)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    Person::of(&answer.json())
}

/// Someone at aal2, and their authenticator app.
pub async fn secured(test: &Test, email: &str) -> (Person, Authenticator) {
    let person = test.sign_up(email).await;
    let app = enrolled(test, &person.token).await;
    (proved(test, &person.token, &app, 0).await, app)
}

pub async fn remove(test: &Test, token: &str, id: &str) -> Answer {
    let path = format!("{FACTORS}/{id}");
    test.call(Method::DELETE, token, &path, json!({})).await
}

pub fn insufficient(answer: &Answer) {
    assert_eq!(answer.refusal(), refused(403, "insufficient_aal"));
    assert_eq!(
        answer.header("www-authenticate"),
        r#"Bearer error="insufficient_user_authentication", acr_values="aal2", max_age="300""#
    );
}

#[test]
fn codes_are_those_of_rfc_6238() {
    for (at, expected) in [
        (59, "287082"),
        (1_111_111_109, "081804"),
        (1_234_567_890, "005924"),
        (20_000_000_000, "353130"),
    ] {
        assert_eq!(totp::code(b"12345678901234567890", at / 30), expected);
    }
    assert_eq!(totp::base32(b"foobafooba"), "MZXW6YTBMZXW6YTB");
    assert_eq!(bytes_of("MZXW6YTB"), b"fooba");
}

both_engines! {
    /// Invariant 54.
    async fn a_code_by_mail_is_no_second_factor(engine: Engine) {
        let test = Test::new(engine).await;
        secured(&test, "ada@example.com").await;
        let aal1 = test.sign_in_again("ada@example.com").await;

        for change in [json!({"email": "thief@example.com"}), json!({"password": "a better password"})] {
            test.later(Duration::from_secs(60));
            test.get(&aal1.token, "/auth/v1/reauthenticate").await;
            let mut change = change;
            change["nonce"] = json!(test.mailed_code("ada@example.com").await);
            insufficient(&test.call(Method::PUT, &aal1.token, USER, change).await);
        }

        assert_eq!(test.sign_in("ada@example.com", PASSWORD).await.status, 200);
        assert_eq!(test.world.mailbox().to("thief@example.com").len(), 0);
    }

    /// Invariants 51 and 60.
    async fn a_second_factor_counts_once_it_was_proved(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let other = test.sign_in_again("ada@example.com").await;
        let body = json!({"factor_type": "totp", "friendly_name": "Ada's phone", "issuer": "Ada: & Co"});

        let new = test.post(&ada.token, FACTORS, body).await.json();

        assert_eq!((&new["type"], &new["friendly_name"]), (&json!("totp"), &json!("Ada's phone")));
        let image = new["totp"]["qr_code"].as_str().unwrap();
        assert!(image.contains("<svg") && !image.contains('#'), "supabase-js writes it into an address as it is");
        let secret = new["totp"]["secret"].as_str().unwrap();
        assert_eq!(new["totp"]["uri"], format!("otpauth://totp/Ada%20%20&%20Co:ada@example.com?algorithm=SHA1&digits=6&issuer=Ada%20%20%26%20Co&period=30&secret={secret}"));
        let app = Authenticator { id: new["id"].as_str().unwrap().to_owned(), secret: bytes_of(secret) };
        let kept = db::factors::of_user(&test.app.db, ada.id.parse().unwrap()).await.unwrap().remove(0);
        let sealed = kept.secret_sealed.unwrap();
        assert!(!sealed.windows(20).any(|part| part == app.secret), "kept sealed");
        assert_eq!(test.get(&ada.token, USER).await.json()["factors"][0]["status"], "unverified");
        assert_eq!(test.mails_waiting().await, 0);

        let session = prove(&test, &ada.token, &app.id, &app.code(&test, 0)).await.json();

        let now = test.app.now().unix();
        let after = Person::of(&session);
        let (before, said) = (claims(&ada.token), claims(&after.token));
        assert_eq!(said["aal"], "aal2");
        assert_eq!(said["amr"], json!([{"method": "totp", "timestamp": now}, {"method": "password", "timestamp": now}]));
        assert_ne!(said["session_id"], before["session_id"], "nobody can have known it before");
        assert_eq!(session["user"]["factors"][0]["status"], "verified");
        assert!(session["user"]["factors"][0].get("secret_sealed").is_none());
        for ended in [&ada, &other] {
            assert_eq!(test.get(&ended.token, USER).await.refusal(), refused(403, "session_not_found"));
        }
        test.work().await;
        assert_eq!(test.world.mailbox().to("ada@example.com").len(), 1, "a notice");

        test.later(Duration::from_secs(60));
        let child = test.refreshed(&after.refresh_token).await;
        assert_eq!((&claims(&child.token)["aal"], &claims(&child.token)["amr"]), (&json!("aal2"), &said["amr"]));
        let next = test.sign_in_again("ada@example.com").await;
        assert_eq!(claims(&next.token)["aal"], "aal1", "every sign-in begins there");
        assert_eq!(test.get(&next.token, USER).await.status, 200);
    }

    /// Invariant 33.
    async fn what_was_given_before_a_second_factor_never_gives_more(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let app = enrolled(&test, &ada.token).await;
        let after = proved(&test, &ada.token, &app, 0).await;

        for _ in 0..2 {
            assert_eq!(test.refresh(&ada.refresh_token).await.refusal(), refused(400, "refresh_token_not_found"));
            test.later(Duration::from_secs(11));
        }

        assert_eq!(test.get(&after.token, USER).await.status, 200, "and it ends nothing");
        let again = test.sign_in_again("ada@example.com").await;
        let child = test.refreshed(&again.refresh_token).await;
        assert_eq!(claims(&child.token)["aal"], "aal1");
    }

    /// Invariant 51.
    async fn a_code_is_taken_once_and_only_near_its_time(engine: Engine) {
        let test = Test::new(engine).await;
        let (ada, app) = secured(&test, "ada@example.com").await;

        for steps in [-2, -1, 0, 2] {
            let answer = prove(&test, &ada.token, &app.id, &app.code(&test, steps)).await;
            assert_eq!(answer.refusal(), refused(422, "mfa_verification_failed"), "{steps}");
        }
        for code in ["", "12345", "1234567", "ab\u{e9}def"] {
            let answer = prove(&test, &ada.token, &app.id, code).await;
            assert_eq!(answer.refusal(), refused(422, "mfa_verification_failed"), "{code}");
        }
        assert_eq!(test.get(&ada.token, USER).await.status, 200);

        let ada = proved(&test, &ada.token, &app, 1).await;
        test.later(Duration::from_secs(90));
        proved(&test, &ada.token, &app, -1).await;
    }

    /// Invariant 51.
    async fn ten_wrong_codes_lock_a_factor_for_a_quarter_of_an_hour(engine: Engine) {
        let test = Test::new(engine).await;
        let (ada, app) = secured(&test, "ada@example.com").await;
        test.later(Duration::from_secs(60));
        let open = challenge(&test, &ada.token, &app.id).await.json()["id"].clone();
        let wrong = not(&app.code(&test, 0));

        for _ in 0..10 {
            let answer = answer(&test, &ada.token, &app.id, &open, wrong).await;
            assert_eq!(answer.refusal(), refused(422, "mfa_verification_failed"));
        }

        let right = app.code(&test, 0);
        let locked = answer(&test, &ada.token, &app.id, &open, &right).await;
        assert_eq!(locked.refusal(), refused(429, "over_request_rate_limit"));
        assert_eq!(locked.header("retry-after"), "900");
        test.later(Duration::from_secs(900));
        proved(&test, &ada.token, &app, 0).await;
    }

    async fn a_question_is_answered_once_in_time_and_by_who_was_asked(engine: Engine) {
        let test = Test::new(engine).await;
        let (ada, app) = secured(&test, "ada@example.com").await;
        let (ben, of_ben) = secured(&test, "ben@example.com").await;
        test.later(Duration::from_secs(60));
        let asked = challenge(&test, &ada.token, &app.id).await.json();
        assert_eq!((&asked["type"], asked["expires_at"].as_i64()), (&json!("totp"), Some(test.app.now().unix() + 300)));

        assert_eq!(challenge(&test, &ben.token, &app.id).await.refusal(), refused(404, "mfa_factor_not_found"));
        assert_eq!(remove(&test, &ben.token, &app.id).await.refusal(), refused(404, "mfa_factor_not_found"));
        let other = answer(&test, &ben.token, &of_ben.id, &asked["id"], &of_ben.code(&test, 0)).await;
        assert_eq!(other.refusal(), refused(422, "mfa_challenge_expired"));
        let elsewhere = test.sign_in_again("ada@example.com").await;
        let other = answer(&test, &elsewhere.token, &app.id, &asked["id"], &app.code(&test, 0)).await;
        assert_eq!(other.refusal(), refused(422, "mfa_challenge_expired"), "of another session");

        test.later(Duration::from_secs(300));
        let late = answer(&test, &ada.token, &app.id, &asked["id"], &app.code(&test, 0)).await;
        assert_eq!(late.refusal(), refused(422, "mfa_challenge_expired"));
    }

    /// Invariants 44 and 54.
    async fn removing_a_factor_needs_it_and_ends_every_other_session_on_every_instance(engine: Engine) {
        let test = Test::new(engine).await;
        let (ada, app) = secured(&test, "ada@example.com").await;
        let other = test.sign_in_again("ada@example.com").await;
        let beside = test.beside(&[]).await;
        assert_eq!(beside.get(&other.token, USER).await.status, 200);
        insufficient(&remove(&test, &other.token, &app.id).await);
        insufficient(&enroll(&test, &other.token, "mine").await);
        test.later(Duration::from_secs(301));
        beside.later(Duration::from_secs(301));
        assert_eq!(remove(&test, &ada.token, &app.id).await.refusal(), refused(403, "reauthentication_needed"));
        assert_eq!(test.rows("mfa_factors").await, 1);
        let ada = proved(&test, &ada.token, &app, 0).await;
        let other = test.sign_in_again("ada@example.com").await;

        let answer = remove(&test, &ada.token, &app.id).await;

        assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({"id": app.id})));
        assert_eq!(beside.get(&other.token, USER).await.refusal(), refused(403, "session_not_found"));
        let user = beside.get(&ada.token, USER).await;
        assert_eq!(user.status, 200);
        assert!(user.json().get("factors").is_none());
        let child = test.refreshed(&ada.refresh_token).await;
        let said = claims(&child.token);
        assert_eq!((&said["aal"], said["amr"].as_array().unwrap().len()), (&json!("aal1"), 1));
        test.work().await;
        let mails = test.world.mailbox().to("ada@example.com");
        assert_eq!(mails.len(), 2);
        assert!(mails.iter().any(|mail| mail.subject == "A second factor was removed from your account"));
    }

    /// Invariants 45 and 54.
    async fn a_code_by_mail_and_a_password_do_not_stand_for_the_second_factor(engine: Engine) {
        let test = Test::new(engine).await;
        let (_, app) = secured(&test, "ada@example.com").await;
        test.post("", "/auth/v1/recover", json!({"email": "ada@example.com"})).await;
        let code = test.mailed_code("ada@example.com").await;
        let body = json!({"type": "recovery", "email": "ada@example.com", "token": code});
        let recovered = Person::of(&test.post("", "/auth/v1/verify", body).await.json());
        assert_eq!(claims(&recovered.token)["aal"], "aal1");

        for body in [json!({"password": "another horse battery"}), json!({"password": "another horse battery", "current_password": PASSWORD})] {
            insufficient(&test.call(Method::PUT, &recovered.token, USER, body).await);
        }
        assert_eq!(test.sign_in("ada@example.com", "another horse battery").await.status, 400);

        test.later(Duration::from_secs(30));
        let ada = proved(&test, &recovered.token, &app, 0).await;
        let body = json!({"password": "another horse battery"});
        assert_eq!(test.call(Method::PUT, &ada.token, USER, body).await.status, 200);
        assert_eq!(test.sign_in("ada@example.com", "another horse battery").await.status, 200);
    }

    /// Invariant 73.
    async fn an_admin_who_has_a_second_factor_needs_it(engine: Engine) {
        let test = Test::new(engine).await;
        let ann = test.sign_up_admin("ann@example.com").await;
        assert_eq!(test.get(&ann.token, "/auth/v1/admin/users").await.status, 200);
        let app = enrolled(&test, &ann.token).await;
        let ann = proved(&test, &ann.token, &app, 0).await;
        assert_eq!(test.get(&ann.token, "/auth/v1/admin/users").await.status, 200);

        let again = test.sign_in_again("ann@example.com").await;

        insufficient(&test.get(&again.token, "/auth/v1/admin/users").await);
    }

    async fn factors_are_few_and_named_apart(engine: Engine) {
        let test = Test::with(engine, &[("AUTH_ANONYMOUS", "true")]).await;
        let ada = test.sign_up("ada@example.com").await;
        for body in [json!({"factor_type": "phone"}), json!({"factor_type": "totp", "friendly_name": "x".repeat(101)})] {
            assert_eq!(test.post(&ada.token, FACTORS, body).await.refusal(), refused(400, "validation_failed"));
        }
        let anyone = test.post("", SIGN_UP, json!({})).await.json();
        assert_eq!(enroll(&test, anyone["access_token"].as_str().unwrap(), "").await.refusal(), refused(403, "forbidden"));

        assert_eq!(enroll(&test, &ada.token, "phone").await.status, 200);
        assert_eq!(enroll(&test, &ada.token, " phone ").await.refusal(), refused(422, "mfa_factor_name_conflict"));
        for _ in 1..10 {
            enrolled(&test, &ada.token).await;
        }
        assert_eq!(enroll(&test, &ada.token, "").await.refusal(), refused(422, "too_many_enrolled_mfa_factors"));

        let app = enrolled_first(&test, &ada).await;
        assert_eq!(remove(&test, &ada.token, &app).await.status, 200, "who proved none needs none");
        test.later(Duration::from_secs(2 * 86_400));
        let (now, mut tx) = (test.app.now(), test.app.db.begin().await.unwrap());
        db::factors::delete_unproved(&mut tx, now - Duration::from_secs(86_400)).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(test.rows("mfa_factors").await, 0, "swept");
    }
}

async fn enrolled_first(test: &Test, person: &Person) -> String {
    let user = test.get(&person.token, USER).await.json();
    user["factors"][0]["id"].as_str().unwrap().to_owned()
}
