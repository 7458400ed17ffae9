use super::{
    access::claims,
    authenticator::{Authenticator, UP},
    factors::{FACTORS, insufficient, proved, remove, secured},
    *,
};

const SITE: &str = "http://localhost:8080";

/// One that is touched, and does not know by whom.
fn key() -> Authenticator {
    let mut key = Authenticator::new("localhost", SITE);
    key.flags = UP;
    key
}

async fn enrolled(test: &Test, token: &str, name: &str) -> String {
    let body = json!({"factor_type": "webauthn", "friendly_name": name});
    let answer = test.post(token, FACTORS, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    assert_eq!(
        (
            &answer["type"],
            &answer["friendly_name"],
            answer.get("totp")
        ),
        (&json!("webauthn"), &json!(name), None)
    );
    answer["id"].as_str().unwrap().to_owned()
}

/// Asks; gives the challenge's id and what the browser is to do.
async fn asked(test: &Test, token: &str, id: &str) -> (Value, Value) {
    // Where the key works is not the client's to say.
    let body = json!({"webauthn": {"rpId": "evil.example.com", "rpOrigins": ["https://evil.example.com"]}});
    let answer = test
        .post(token, &format!("{FACTORS}/{id}/challenge"), body)
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    assert_eq!(
        (&answer["type"], answer["expires_at"].as_i64()),
        (&json!("webauthn"), Some(test.app.now().unix() + 300))
    );
    (answer["id"].clone(), answer["webauthn"].clone())
}

async fn answered(
    test: &Test,
    token: &str,
    id: &str,
    challenge: &Value,
    kind: &str,
    response: Value,
) -> Answer {
    let body = json!({
        "challenge_id": challenge,
        "webauthn": {"type": kind, "rpId": "evil.example.com", "rpOrigins": ["https://evil.example.com"], "credential_response": response},
    });
    test.post(token, &format!("{FACTORS}/{id}/verify"), body)
        .await
}

/// Asks this key, and hands on what it says.
async fn touched(test: &Test, token: &str, id: &str, key: &Authenticator) -> Answer {
    let (challenge, question) = asked(test, token, id).await;
    let options = &question["credential_options"]["publicKey"];
    let kind = question["type"].as_str().unwrap();
    let response = if kind == "create" {
        key.registered(options)
    } else {
        key.signed_in(options)
    };
    answered(test, token, id, &challenge, kind, response).await
}

/// Someone at aal2 by a key, and its factor's id.
async fn with_key(test: &Test, email: &str, key: &Authenticator) -> (Person, String) {
    let person = test.sign_up(email).await;
    let id = enrolled(test, &person.token, "key").await;
    let answer = touched(test, &person.token, &id, key).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    (Person::of(&answer.json()), id)
}

fn failed() -> (u16, String) {
    refused(400, "webauthn_verification_failed")
}

async fn signed_count(test: &Test, factor: &str) -> i64 {
    let mut tx = test.app.db.begin().await.unwrap();
    let key = db::webauthn_factors::of_factor(&mut tx, factor.parse().unwrap());
    key.await.unwrap().unwrap().sign_count
}

both_engines! {
    async fn a_key_counts_once_it_was_touched_and_is_asked_for_afterwards(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let key = key();
        let id = enrolled(&test, &ada.token, "Ada's key").await;

        let (challenge, question) = asked(&test, &ada.token, &id).await;
        let options = &question["credential_options"]["publicKey"];
        assert_eq!((&question["type"], &options["rp"]["id"]), (&json!("create"), &json!("localhost")));
        assert_eq!(options["authenticatorSelection"], json!({"residentKey": "discouraged", "userVerification": "preferred"}));
        assert_eq!((&options["attestation"], &options["excludeCredentials"], &options["user"]["name"]), (&json!("none"), &json!([]), &json!("ada@example.com")));
        let session = answered(&test, &ada.token, &id, &challenge, "create", key.registered(options)).await;

        assert_eq!(session.status, 200, "{}", session.text());
        let said = claims(&Person::of(&session.json()).token);
        assert_eq!((&said["aal"], &said["amr"][0]["method"]), (&json!("aal2"), &json!("mfa/webauthn")));
        let factor = &session.json()["user"]["factors"][0];
        assert_eq!((&factor["factor_type"], &factor["status"]), (&json!("webauthn"), &json!("verified")));
        assert_eq!(test.get(&ada.token, USER).await.refusal(), refused(403, "session_not_found"));

        let again = test.sign_in_again("ada@example.com").await;
        insufficient(&test.post(&again.token, FACTORS, json!({"factor_type": "totp"})).await);
        let (challenge, question) = asked(&test, &again.token, &id).await;
        let options = &question["credential_options"]["publicKey"];
        assert_eq!((&question["type"], &options["rpId"], &options["userVerification"]), (&json!("request"), &json!("localhost"), &json!("preferred")));
        let own = &key.registered(&json!({"challenge": ""}))["id"];
        assert_eq!(options["allowCredentials"], json!([{"type": "public-key", "id": own, "transports": ["internal", "hybrid"]}]));
        let session = answered(&test, &again.token, &id, &challenge, "request", key.signed_in(options)).await;
        let ada = Person::of(&session.json());
        assert_eq!(claims(&ada.token)["aal"], "aal2");

        let next = enrolled(&test, &ada.token, "another").await;
        let (_, question) = asked(&test, &ada.token, &next).await;
        assert_eq!(&question["credential_options"]["publicKey"]["excludeCredentials"][0]["id"], own);
        assert_eq!(remove(&test, &ada.token, &id).await.status, 200);
        assert_eq!(test.rows("mfa_webauthn_credentials").await, 0);
    }

    /// Invariant 53.
    async fn invariant_53_a_key_of_another_site_or_that_nobody_touched_is_no_factor(engine: Engine) {
        let test = Test::new(engine).await;
        let mut right = key();
        let (ada, id) = with_key(&test, "ada@example.com", &right).await;
        type Change = (&'static str, fn(&mut Authenticator));
        let changes: [Change; 5] = [
            ("origin", |key| key.origin = "https://evil.example.com".into()),
            ("port", |key| key.origin = "http://localhost:8081".into()),
            ("rp id", |key| key.rp_id = "evil.example.com".into()),
            ("frame", |key| key.cross_origin = true),
            ("touch", |key| key.flags = 0),
        ];

        for (what, change) in changes {
            let mut wrong = key();
            change(&mut wrong);
            let new = enrolled(&test, &ada.token, what).await;
            assert_eq!(touched(&test, &ada.token, &new, &wrong).await.refusal(), failed(), "{what}");
            assert_eq!(remove(&test, &ada.token, &new).await.status, 200);

            change(&mut right);
            assert_eq!(touched(&test, &ada.token, &id, &right).await.refusal(), failed(), "{what}");
            let Authenticator { origin, rp_id, cross_origin, flags, .. } = key();
            (right.origin, right.rp_id, right.cross_origin, right.flags) = (origin, rp_id, cross_origin, flags);
        }
        let mut forged = key();
        forged.credential_id = right.credential_id.clone();
        assert_eq!(touched(&test, &ada.token, &id, &forged).await.refusal(), failed(), "another's signature");

        assert_eq!(test.rows("mfa_webauthn_credentials").await, 1);
        assert_eq!(touched(&test, &ada.token, &id, &right).await.status, 200);
    }

    /// Invariant 53.
    async fn invariant_53_a_challenge_of_a_factor_is_answered_once_in_time_and_by_who_was_asked(engine: Engine) {
        let test = Test::new(engine).await;
        let key = key();
        let (ada, id) = with_key(&test, "ada@example.com", &key).await;
        let gone = refused(422, "mfa_challenge_expired");
        let again = test.sign_in_again("ada@example.com").await;
        let (challenge, question) = asked(&test, &again.token, &id).await;
        let response = key.signed_in(&question["credential_options"]["publicKey"]);
        assert_eq!(answered(&test, &ada.token, &id, &challenge, "request", response.clone()).await.refusal(), gone, "of another session");
        let ada = Person::of(&answered(&test, &again.token, &id, &challenge, "request", response.clone()).await.json());

        assert_eq!(answered(&test, &ada.token, &id, &challenge, "request", response.clone()).await.refusal(), gone);
        let (other, _) = asked(&test, &ada.token, &id).await;
        assert_eq!(answered(&test, &ada.token, &id, &other, "request", response).await.refusal(), failed(), "to another challenge");
        let (challenge, question) = asked(&test, &ada.token, &id).await;
        let response = key.signed_in(&question["credential_options"]["publicKey"]);
        test.later(Duration::from_secs(300));
        assert_eq!(answered(&test, &ada.token, &id, &challenge, "request", response).await.refusal(), gone);

        let (challenge, question) = asked(&test, &ada.token, &id).await;
        let options = &question["credential_options"]["publicKey"];
        let mut wrong = key.signed_in(options);
        wrong["response"]["signature"] = json!("AAAA");
        assert_eq!(answered(&test, &ada.token, &id, &challenge, "request", wrong).await.refusal(), failed());
        assert_eq!(answered(&test, &ada.token, &id, &challenge, "request", key.signed_in(options)).await.refusal(), gone, "used up");
    }

    /// Invariant 53.
    async fn invariant_53_a_key_that_counts_backwards_is_refused_and_written_down(engine: Engine) {
        let test = Test::new(engine).await;
        let mut key = key();
        key.sign_count = 7;
        let (ada, id) = with_key(&test, "ada@example.com", &key).await;
        key.sign_count = 9;
        let ada = Person::of(&touched(&test, &ada.token, &id, &key).await.json());
        assert_eq!(signed_count(&test, &id).await, 9);

        for count in [9, 8, 1] {
            key.sign_count = count;
            assert_eq!(touched(&test, &ada.token, &id, &key).await.refusal(), failed(), "{count}");
        }

        assert_eq!(signed_count(&test, &id).await, 9);
        let events = db::audit::of_subject(&test.app.db, ada.id.parse().unwrap(), None, 100).await.unwrap();
        let refusals = events.iter().filter(|event| event.outcome == "refused" && event.detail.to_string().contains("counter fell back"));
        assert_eq!(refusals.count(), 3);
    }

    /// Invariant 53.
    async fn invariant_53_a_key_is_one_users_and_one_factors(engine: Engine) {
        let test = Test::new(engine).await;
        let (of_ada, of_ben) = (key(), key());
        let (ada, _) = with_key(&test, "ada@example.com", &of_ada).await;
        let (ben, bens) = with_key(&test, "ben@example.com", &of_ben).await;

        assert_eq!(touched(&test, &ben.token, &bens, &of_ada).await.refusal(), failed());
        let path = format!("{FACTORS}/{bens}/challenge");
        assert_eq!(test.post(&ada.token, &path, json!({})).await.refusal(), refused(404, "mfa_factor_not_found"));
        let taken = refused(422, "webauthn_credential_exists");
        for key in [&of_ada, &of_ben] {
            let new = enrolled(&test, &ben.token, "").await;
            assert_eq!(touched(&test, &ben.token, &new, key).await.refusal(), taken);
        }
        let mut passkey = Authenticator::new("localhost", SITE);
        test.with_passkey(&ben, &mut passkey).await;
        let new = enrolled(&test, &ben.token, "").await;
        assert_eq!(touched(&test, &ben.token, &new, &passkey).await.refusal(), taken, "what signs in alone is no second factor");
        assert_eq!(test.rows("mfa_webauthn_credentials").await, 2);
    }

    async fn ten_wrong_signatures_lock_a_key(engine: Engine) {
        let test = Test::new(engine).await;
        let right = key();
        let (ada, id) = with_key(&test, "ada@example.com", &right).await;

        for _ in 0..10 {
            assert_eq!(touched(&test, &ada.token, &id, &key()).await.refusal(), failed());
        }

        let path = format!("{FACTORS}/{id}/challenge");
        assert_eq!(test.post(&ada.token, &path, json!({})).await.refusal(), refused(429, "over_request_rate_limit"));
        test.later(Duration::from_secs(900));
        assert_eq!(touched(&test, &ada.token, &id, &right).await.status, 200);
    }

    async fn an_answer_that_cannot_be_read_is_the_clients_fault(engine: Engine) {
        let test = Test::new(engine).await;
        let right = key();
        let (ada, id) = with_key(&test, "ada@example.com", &right).await;
        let (challenge, question) = asked(&test, &ada.token, &id).await;
        let response = right.signed_in(&question["credential_options"]["publicKey"]);
        let invalid = refused(400, "validation_failed");

        for (kind, response) in [
            ("create", response.clone()),
            ("", response.clone()),
            ("request", json!({})),
            ("request", json!("x")),
            ("request", json!({"id": "?", "response": {}})),
        ] {
            let answer = answered(&test, &ada.token, &id, &challenge, kind, response).await;
            assert_eq!(answer.refusal(), invalid, "{}", answer.text());
        }
        for body in [
            json!({"challenge_id": challenge}),
            json!({"challenge_id": challenge, "code": "123456"}),
            json!({"challenge_id": challenge, "webauthn": {"type": "request"}}),
        ] {
            let answer = test.post(&ada.token, &format!("{FACTORS}/{id}/verify"), body).await;
            assert_eq!(answer.refusal(), invalid, "{}", answer.text());
        }
        let answer = answered(&test, &ada.token, &id, &challenge, "request", response).await;
        assert_eq!(answer.status, 200, "the question stands until it is answered");

        let (ben, app) = secured(&test, "ben@example.com").await;
        let asked = test.post(&ben.token, &format!("{FACTORS}/{}/challenge", app.id), json!({})).await.json();
        assert!(asked.get("webauthn").is_none());
        let body = json!({"challenge_id": asked["id"], "webauthn": {"type": "request", "credential_response": {}}});
        assert_eq!(test.post(&ben.token, &format!("{FACTORS}/{}/verify", app.id), body).await.refusal(), invalid);
        test.later(Duration::from_secs(30));
        proved(&test, &ben.token, &app, 0).await;
    }

    /// Invariant 54.
    async fn invariant_54_who_has_a_key_adds_another_only_with_it(engine: Engine) {
        let test = Test::new(engine).await;
        let right = key();
        let ada = test.sign_up("ada@example.com").await;
        let left_open = enrolled(&test, &ada.token, "of a thief").await;
        let id = enrolled(&test, &ada.token, "key").await;
        let (challenge, question) = asked(&test, &ada.token, &left_open).await;
        let thiefs = key().registered(&question["credential_options"]["publicKey"]);
        assert_eq!(touched(&test, &ada.token, &id, &right).await.status, 200);

        let again = test.sign_in_again("ada@example.com").await;
        insufficient(&test.post(&again.token, FACTORS, json!({"factor_type": "webauthn"})).await);
        let late = answered(&test, &again.token, &left_open, &challenge, "create", thiefs).await;
        assert_eq!(late.refusal(), refused(404, "mfa_factor_not_found"), "what was begun is over");
    }
}
