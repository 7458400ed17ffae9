use super::{
    access::claims,
    factors::{FACTORS, insufficient, proved, remove, secured},
    *,
};
use std::collections::BTreeSet;

const CODES: &str = "/auth/v1/factors/recovery-codes";

async fn made(test: &Test, token: &str) -> (String, Vec<String>) {
    let answer = test.post(token, CODES, json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    shown(&answer)
}

fn shown(answer: &Answer) -> (String, Vec<String>) {
    let answer = answer.json();
    let codes = answer["codes"].as_array().unwrap().iter();
    let codes = codes.map(|code| code.as_str().unwrap().to_owned());
    (answer["id"].as_str().unwrap().to_owned(), codes.collect())
}

async fn regenerate(test: &Test, token: &str) -> Answer {
    test.post(token, &format!("{CODES}/regenerate"), json!({}))
        .await
}

async fn use_up(test: &Test, token: &str, code: &str) -> Answer {
    let body = json!({"code": code});
    test.post(token, &format!("{CODES}/verify"), body).await
}

async fn forget(test: &Test, token: &str) -> Answer {
    test.call(Method::DELETE, token, CODES, json!({})).await
}

async fn remaining(test: &Test, token: &str) -> i64 {
    test.get(token, CODES).await.json()["remaining"]
        .as_i64()
        .unwrap()
}

fn wrong() -> (u16, String) {
    refused(422, "mfa_verification_failed")
}

both_engines! {
    /// Invariant 52.
    async fn invariant_52_ten_recovery_codes_count_once_each_and_their_use_is_told(engine: Engine) {
        let test = Test::new(engine).await;
        let (ada, _) = secured(&test, "ada@example.com").await;
        let new = test.post(&ada.token, CODES, json!({"friendly_name": "On paper"})).await;
        let body = new.json();
        assert_eq!((&body["type"], &body["friendly_name"], &body["total"]), (&json!("recovery_code"), &json!("On paper"), &json!(10)));
        let (id, codes) = shown(&new);
        let is_code = |code: &String| code.len() == 16 && code.chars().all(|c| matches!(c, 'a'..='z' | '2'..='7'));
        assert!(codes.iter().all(is_code), "{codes:?}");
        assert_eq!(codes.iter().collect::<BTreeSet<_>>().len(), 10);
        let status = test.get(&ada.token, CODES).await.json();
        assert_eq!(status, json!({"id": id, "type": "recovery_code", "total": 10, "remaining": 10}));

        for (n, code) in codes.iter().enumerate() {
            let phone = test.sign_in_again("ada@example.com").await;
            let written = match n % 3 {
                0 => format!(" {}-{} ", &code[..8], &code[8..]).to_uppercase(),
                1 => format!("{} {} {}", &code[..4], &code[4..8], &code[8..]),
                _ => code.clone(),
            };
            let session = use_up(&test, &phone.token, &written).await;
            assert_eq!(session.status, 200, "{written}: {}", session.text());
            let token = Person::of(&session.json()).token;
            let said = claims(&token);
            assert_eq!((&said["aal"], &said["amr"][0]["method"]), (&json!("aal2"), &json!("mfa/recovery_code")));
            assert_ne!(said["session_id"], claims(&phone.token)["session_id"]);
            assert_eq!(test.get(&phone.token, USER).await.refusal(), refused(403, "session_not_found"));
            assert_eq!(use_up(&test, &token, code).await.refusal(), wrong(), "once");
            assert_eq!(remaining(&test, &token).await, 9 - n as i64);
        }

        test.work().await;
        let told = test.world.mailbox().to("ada@example.com");
        let told: Vec<_> = told.iter().filter(|mail| mail.subject == "A recovery code was used").collect();
        assert_eq!(told.len(), 10);
        assert!(told[8].text.contains("1 code is left") && told[9].text.contains("0 codes are left"), "{}", told[8].text);
        assert!(!codes.iter().any(|code| told.iter().any(|mail| mail.text.contains(code))));
    }

    /// Invariant 52.
    async fn invariant_52_recovery_codes_are_kept_as_hashes(engine: Engine) {
        let test = Test::new(engine).await;
        let (ada, _) = secured(&test, "ada@example.com").await;
        let (id, codes) = made(&test, &ada.token).await;

        let factor = id.parse().unwrap();
        let mut tx = test.app.db.begin().await.unwrap();
        for code in &codes {
            let plain = code.as_bytes();
            assert!(!db::recovery_codes::consume(&mut tx, factor, plain, test.app.now()).await.unwrap());
        }

        assert_eq!(db::recovery_codes::left(&mut tx, factor).await.unwrap(), (10,));
        let user = test.get(&ada.token, USER).await;
        assert!(!codes.iter().any(|code| user.text().contains(code)), "shown once");
        let factors = user.json()["factors"].clone();
        assert_eq!((&factors[1]["factor_type"], &factors[1]["friendly_name"]), (&json!("recovery_code"), &json!("Recovery codes")));
    }

    /// Invariant 52.
    async fn invariant_52_one_code_gives_one_session_however_many_ask_at_once(engine: Engine) {
        let test = Test::new(engine).await;
        let (ada, _) = secured(&test, "ada@example.com").await;
        let (_, codes) = made(&test, &ada.token).await;

        let tries = (0..8).map(|_| use_up(&test, &ada.token, &codes[0]));
        let answers = futures_util::future::join_all(tries).await;

        let let_in = answers.iter().filter(|answer| answer.status == 200).count();
        assert_eq!(let_in, 1);
        assert!(answers.iter().all(|answer| answer.status.as_u16() < 500));
    }

    /// Invariant 52.
    async fn invariant_52_other_codes_make_the_earlier_worthless(engine: Engine) {
        let test = Test::new(engine).await;
        let (ada, _) = secured(&test, "ada@example.com").await;
        assert_eq!(regenerate(&test, &ada.token).await.refusal(), refused(404, "mfa_factor_not_found"));
        let (id, old) = made(&test, &ada.token).await;
        assert_eq!(test.post(&ada.token, CODES, json!({})).await.refusal(), refused(422, "mfa_verified_factor_exists"));

        let answer = regenerate(&test, &ada.token).await;

        let (same, new) = shown(&answer);
        assert_eq!((answer.status.as_u16(), &same), (200, &id));
        assert!(new.len() == 10 && new.iter().all(|code| !old.contains(code)));
        for code in &old[..3] {
            assert_eq!(use_up(&test, &ada.token, code).await.refusal(), wrong());
        }
        assert_eq!(remaining(&test, &ada.token).await, 10);
        assert_eq!(use_up(&test, &ada.token, &new[0]).await.status, 200);
        test.work().await;
        let told = test.world.mailbox().to("ada@example.com");
        assert_eq!(told.iter().filter(|mail| mail.subject == "Your account has new recovery codes").count(), 2);
    }

    async fn ten_wrong_recovery_codes_lock_them_for_a_quarter_of_an_hour(engine: Engine) {
        let test = Test::new(engine).await;
        let (ada, app) = secured(&test, "ada@example.com").await;
        let (_, codes) = made(&test, &ada.token).await;

        for _ in 0..10 {
            assert_eq!(use_up(&test, &ada.token, "aaaa-aaaa-aaaa-aaaa").await.refusal(), wrong());
        }

        let locked = use_up(&test, &ada.token, &codes[0]).await;
        assert_eq!(locked.refusal(), refused(429, "mfa_recovery_codes_locked"));
        assert_eq!(locked.header("retry-after"), "900");
        assert_eq!(remaining(&test, &ada.token).await, 10);
        test.later(Duration::from_secs(60));
        let ada = proved(&test, &ada.token, &app, 0).await;
        test.later(Duration::from_secs(840));
        assert_eq!(use_up(&test, &ada.token, &codes[0]).await.status, 200);
    }

    async fn recovery_codes_stand_beside_another_factor_and_never_alone(engine: Engine) {
        let test = Test::with(engine, &[("AUTH_ANONYMOUS", "true")]).await;
        let ada = test.sign_up("ada@example.com").await;
        assert_eq!(test.get(&ada.token, CODES).await.refusal(), refused(404, "mfa_factor_not_found"));
        assert_eq!(forget(&test, &ada.token).await.refusal(), refused(404, "mfa_factor_not_found"));
        assert_eq!(use_up(&test, &ada.token, "aaaaaaaaaaaaaaaa").await.refusal(), wrong(), "as if there were some");
        for code in ["", " -- "] {
            assert_eq!(use_up(&test, &ada.token, code).await.refusal(), refused(400, "validation_failed"));
        }
        let alone = refused(422, "mfa_recovery_codes_sole_factor");
        assert_eq!(test.post(&ada.token, CODES, json!({})).await.refusal(), alone);
        let app = factors::enrolled(&test, &ada.token).await;
        assert_eq!(test.post(&ada.token, CODES, json!({})).await.refusal(), alone, "one that was never proved is none");
        let anyone = test.post("", SIGN_UP, json!({})).await.json();
        assert_eq!(test.post(anyone["access_token"].as_str().unwrap(), CODES, json!({})).await.refusal(), alone);

        let ada = proved(&test, &ada.token, &app, 0).await;
        let (id, _) = made(&test, &ada.token).await;

        assert_eq!(remove(&test, &ada.token, &app.id).await.refusal(), alone);
        assert_eq!(remove(&test, &ada.token, &id).await.refusal(), refused(400, "validation_failed"));
        let challenged = test.post(&ada.token, &format!("{FACTORS}/{id}/challenge"), json!({})).await;
        assert_eq!(challenged.refusal(), refused(400, "validation_failed"));
        assert_eq!(test.rows("mfa_factors").await, 2);
        assert_eq!(forget(&test, &ada.token).await.json(), json!({"id": id}));
        assert_eq!(test.rows("mfa_recovery_codes").await, 0);
        assert_eq!(remove(&test, &ada.token, &app.id).await.status, 200);
    }

    /// Invariant 54.
    async fn invariant_54_recovery_codes_are_made_and_removed_by_who_just_proved_a_factor(engine: Engine) {
        let test = Test::new(engine).await;
        let (ada, app) = secured(&test, "ada@example.com").await;
        let (_, codes) = made(&test, &ada.token).await;
        let aal1 = test.sign_in_again("ada@example.com").await;
        for answer in [
            test.post(&aal1.token, CODES, json!({})).await,
            regenerate(&test, &aal1.token).await,
            forget(&test, &aal1.token).await,
        ] {
            insufficient(&answer);
        }
        test.later(Duration::from_secs(301));
        for answer in [regenerate(&test, &ada.token).await, forget(&test, &ada.token).await] {
            assert_eq!(answer.refusal(), refused(403, "reauthentication_needed"));
        }
        assert_eq!(remaining(&test, &ada.token).await, 10);

        let thief = test.sign_in_again("ada@example.com").await;
        let thief = Person::of(&use_up(&test, &thief.token, &codes[0]).await.json());
        let ada = proved(&test, &ada.token, &app, 0).await;
        assert_eq!(forget(&test, &ada.token).await.status, 200);

        assert_eq!(test.get(&thief.token, USER).await.refusal(), refused(403, "session_not_found"));
        let child = test.refreshed(&ada.refresh_token).await;
        assert_eq!(claims(&child.token)["aal"], "aal2", "it stands on the other factor");
        test.work().await;
        assert_eq!(test.world.mailbox().to("ada@example.com").last().unwrap().subject, "Your recovery codes were removed");
    }

    async fn who_stands_on_a_recovery_code_alone_falls_back_without_them(engine: Engine) {
        let test = Test::new(engine).await;
        let (ada, _) = secured(&test, "ada@example.com").await;
        let (_, codes) = made(&test, &ada.token).await;
        let again = test.sign_in_again("ada@example.com").await;
        let again = Person::of(&use_up(&test, &again.token, &codes[0]).await.json());

        assert_eq!(forget(&test, &again.token).await.status, 200);

        let child = test.refreshed(&again.refresh_token).await;
        let said = claims(&child.token);
        assert_eq!((&said["aal"], said["amr"].as_array().unwrap().len()), (&json!("aal1"), 1));
        insufficient(&test.post(&child.token, CODES, json!({})).await);
    }

    async fn one_users_code_is_nothing_to_another(engine: Engine) {
        let test = Test::new(engine).await;
        let (ada, _) = secured(&test, "ada@example.com").await;
        let (ben, _) = secured(&test, "ben@example.com").await;
        let (_, of_ada) = made(&test, &ada.token).await;
        made(&test, &ben.token).await;

        assert_eq!(use_up(&test, &ben.token, &of_ada[0]).await.refusal(), wrong());

        assert_eq!((remaining(&test, &ada.token).await, remaining(&test, &ben.token).await), (10, 10));
    }
}
