use super::authenticator::{Authenticator, BE, BS, UP, UV};
use super::*;
use crate::auth::{access, adopt, session};

const PASSKEYS: &str = "/auth/v1/passkeys";
/// What browsers call the server of the tests.
const SITE: &str = "http://localhost:8080";

fn phone() -> Authenticator {
    Authenticator::new("localhost", SITE)
}

impl Test {
    /// The options of a ceremony, with the id of their challenge.
    async fn asked(&self, token: &str, ceremony: &str) -> (Value, Value) {
        let path = format!("{PASSKEYS}/{ceremony}/options");
        let answer = self
            .send(
                crate::testing::request(Method::POST, token, &path)
                    .body(axum::body::Body::empty())
                    .unwrap(),
            )
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let body = answer.json();
        (body["challenge_id"].clone(), body["options"].clone())
    }

    async fn answered(
        &self,
        token: &str,
        ceremony: &str,
        challenge: &Value,
        credential: Value,
    ) -> Answer {
        let path = format!("{PASSKEYS}/{ceremony}/verify");
        self.post(
            token,
            &path,
            json!({"challenge_id": challenge, "credential": credential}),
        )
        .await
    }

    /// Registers a passkey, and gives its id.
    pub async fn with_passkey(&self, person: &Person, key: &mut Authenticator) -> String {
        let (challenge, options) = self.asked(&person.token, "registration").await;
        let answer = self
            .answered(
                &person.token,
                "registration",
                &challenge,
                key.registered(&options),
            )
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        key.user_handle = Some(options["user"]["id"].as_str().unwrap().to_owned());
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    pub async fn sign_in_with(&self, key: &Authenticator) -> Answer {
        let (challenge, options) = self.asked("", "authentication").await;
        self.answered("", "authentication", &challenge, key.signed_in(&options))
            .await
    }

    async fn events(&self, user: &str, action: &str) -> Vec<db::audit::Event> {
        let all = db::audit::of_subject(&self.app.db, user.parse().unwrap(), None, 100)
            .await
            .unwrap();
        all.into_iter()
            .filter(|event| event.action == action)
            .collect()
    }

    async fn remove(&self, token: &str, passkey: &str) -> Answer {
        self.call(
            Method::DELETE,
            token,
            &format!("{PASSKEYS}/{passkey}"),
            json!({}),
        )
        .await
    }

    async fn subjects(&self, to: &str) -> Vec<String> {
        self.work().await;
        self.world
            .mailbox()
            .to(to)
            .into_iter()
            .map(|mail| mail.subject)
            .collect()
    }
}

fn failed() -> (u16, String) {
    refused(400, "webauthn_verification_failed")
}

both_engines! {
    async fn an_admin_lists_and_removes_the_passkeys_of_others(engine: Engine) {
        let test = Test::new(engine).await;
        let (ada, ben) = (test.sign_up("ada@example.com").await, test.sign_up("ben@example.com").await);
        let [mut key, mut other] = [(); 2].map(|()| Authenticator::new("localhost", "http://localhost:8080"));
        let (hers, his) = (test.with_passkey(&ada, &mut key).await, test.with_passkey(&ben, &mut other).await);
        let of = |person: &Person| format!("/auth/v1/admin/users/{}/passkeys", person.id);
        let admin = test.service_key();

        let listed = test.get(&admin, &of(&ada)).await.json();
        assert_eq!((listed.as_array().unwrap().len(), &listed[0]["id"]), (1, &json!(hers)));
        assert!(listed[0].get("public_key").is_none());
        let remove = async |token: &str, person: &Person, passkey: &str| {
            test.call(Method::DELETE, token, &format!("{}/{passkey}", of(person)), json!({})).await
        };
        assert_eq!(remove(&ben.token, &ada, &hers).await.refusal(), refused(403, "not_admin"));
        assert_eq!(remove(&admin, &ada, &his).await.refusal(), refused(404, "webauthn_credential_not_found"), "it is another's");
        test.work().await;
        test.world.mailbox().clear();

        assert_eq!(remove(&admin, &ada, &hers).await.status, 204);

        assert_eq!(test.get(&admin, &of(&ada)).await.json(), json!([]));
        assert_eq!(test.sign_in_with(&key).await.refusal(), refused(400, "webauthn_verification_failed"));
        assert_eq!(test.sign_in_with(&other).await.status, 200);
        test.work().await;
        assert_eq!(test.world.mailbox().to("ada@example.com").last().unwrap().subject, "A passkey was removed from your account");
        let nobody = format!("/auth/v1/admin/users/{}/passkeys", uuid::Uuid::now_v7());
        assert_eq!(test.get(&admin, &nobody).await.refusal(), refused(404, "user_not_found"));
    }

    async fn a_passkey_signs_in_without_a_name(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        for mut key in [phone(), phone().eddsa(), phone().rs256()] {
            key.flags = UP | UV | BE | BS;
            let id = test.with_passkey(&ada, &mut key).await;

            let answer = test.sign_in_with(&key).await;

            assert_eq!(answer.status, 200, "{}", answer.text());
            let session = answer.json();
            assert_eq!(session["user"]["id"], json!(ada.id));
            let claims = crate::auth::tests::access::claims(session["access_token"].as_str().unwrap());
            assert_eq!((&claims["amr"][0]["method"], &claims["aal"]), (&json!("passkey"), &json!("aal1")));
            let listed = test.get(&ada.token, PASSKEYS).await.json();
            let listed = listed.as_array().unwrap().iter().find(|passkey| passkey["id"] == json!(id)).unwrap().clone();
            assert_eq!((&listed["backed_up"], &listed["last_used_at"]), (&json!(true), &json!(test.app.now().to_string())));
        }
        assert_eq!(test.events(&ada.id, "passkey_created").await.len(), 3);
        assert_eq!(test.subjects("ada@example.com").await, vec!["A passkey was added to your account"; 3]);
        assert_eq!(test.rows("webauthn_challenges").await, 0);
    }

    async fn a_browser_is_told_what_to_do(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let mut key = phone();
        test.with_passkey(&ada, &mut key).await;

        let (_, create) = test.asked(&ada.token, "registration").await;
        let (_, get) = test.asked("", "authentication").await;

        assert_eq!(create["rp"]["id"], "localhost");
        assert_eq!(create["user"]["name"], "ada@example.com");
        assert_eq!(create["authenticatorSelection"], json!({"residentKey": "required", "requireResidentKey": true, "userVerification": "required"}));
        let kinds: Vec<_> = create["pubKeyCredParams"].as_array().unwrap().iter().map(|kind| kind["alg"].clone()).collect();
        assert_eq!(kinds, [-8, -7, -257]);
        let known = &key.registered(&create)["id"];
        assert_eq!(&create["excludeCredentials"][0]["id"], known);
        assert_eq!((&get["rpId"], &get["userVerification"], &get["allowCredentials"]), (&json!("localhost"), &json!("required"), &json!([])));
        assert_ne!(get["challenge"], create["challenge"]);
    }

    /// Invariant 53.
    async fn a_challenge_is_answered_once_within_five_minutes_by_whom_it_was_for(engine: Engine) {
        let test = Test::new(engine).await;
        let (ada, ben) = (test.sign_up("ada@example.com").await, test.sign_up("ben@example.com").await);
        let mut key = phone();
        test.with_passkey(&ada, &mut key).await;
        let sessions = test.rows("sessions").await;
        let gone = refused(400, "webauthn_challenge_not_found");

        let (challenge, options) = test.asked("", "authentication").await;
        let answer = key.signed_in(&options);
        assert_eq!(test.answered("", "authentication", &challenge, answer.clone()).await.status, 200);
        assert_eq!(test.answered("", "authentication", &challenge, answer).await.refusal(), gone);
        let (challenge, options) = test.asked("", "authentication").await;
        let (other, _) = test.asked("", "authentication").await;
        assert_eq!(test.answered("", "authentication", &other, key.signed_in(&options)).await.refusal(), failed());
        test.later(Duration::from_secs(300));
        let late = test.answered("", "authentication", &challenge, key.signed_in(&options)).await;
        assert_eq!(late.refusal(), refused(400, "webauthn_challenge_expired"));
        assert_eq!(test.rows("sessions").await, sessions + 1);

        let (ada, ben) = (test.sign_in_again(&ada.email).await, test.sign_in_again(&ben.email).await);
        let (challenge, options) = test.asked(&ada.token, "registration").await;
        let new = phone().registered(&options);
        assert_eq!(test.answered(&ben.token, "registration", &challenge, new.clone()).await.refusal(), gone);
        assert_eq!(test.answered("", "authentication", &challenge, key.signed_in(&options)).await.refusal(), gone);
        assert_eq!(test.answered(&ada.token, "registration", &challenge, new.clone()).await.status, 200);
        assert_eq!(test.answered(&ada.token, "registration", &challenge, new).await.refusal(), gone);
        assert_eq!(test.rows("webauthn_credentials").await, 2);
    }

    /// Invariant 53.
    async fn a_passkey_of_another_site_or_without_its_user_is_refused(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let mut key = phone();
        test.with_passkey(&ada, &mut key).await;
        let (credentials, sessions) = (test.rows("webauthn_credentials").await, test.rows("sessions").await);

        let right = (key.origin.clone(), key.rp_id.clone(), key.flags);
        for (origin, rp_id, flags) in [
            ("https://evil.example", "localhost", UP | UV),
            ("http://localhost:3000", "localhost", UP | UV),
            (SITE, "evil.example", UP | UV),
            (SITE, "localhost", UP),
            (SITE, "localhost", UV),
        ] {
            (key.origin, key.rp_id, key.flags) = (origin.into(), rp_id.into(), flags);
            assert_eq!(test.sign_in_with(&key).await.refusal(), failed(), "{origin} {rp_id} {flags}");
            let new = Authenticator { flags, ..Authenticator::new(rp_id, origin) };
            let (challenge, options) = test.asked(&ada.token, "registration").await;
            let answer = test.answered(&ada.token, "registration", &challenge, new.registered(&options)).await;
            assert_eq!(answer.refusal(), failed(), "{origin} {rp_id} {flags}");
        }
        (key.origin, key.rp_id, key.flags) = right;
        let unknown = Authenticator { user_handle: key.user_handle.clone(), ..phone() };
        assert_eq!(test.sign_in_with(&unknown).await.refusal(), failed());

        assert_eq!(test.rows("webauthn_credentials").await, credentials);
        assert_eq!(test.rows("sessions").await, sessions);
        let refusals = test.events(&ada.id, "login").await;
        assert_eq!(refusals.iter().filter(|event| event.outcome == "refused").count(), 5);
        assert_eq!(test.sign_in_with(&key).await.status, 200);
    }

    /// Invariant 53.
    async fn a_passkey_is_one_users_and_no_others(engine: Engine) {
        let test = Test::new(engine).await;
        let (ada, ben) = (test.sign_up("ada@example.com").await, test.sign_up("ben@example.com").await);
        let (mut of_ada, mut of_ben) = (phone(), phone());
        let id = test.with_passkey(&ada, &mut of_ada).await;
        test.with_passkey(&ben, &mut of_ben).await;

        for person in [&ada, &ben] {
            let (challenge, options) = test.asked(&person.token, "registration").await;
            let again = test.answered(&person.token, "registration", &challenge, of_ada.registered(&options)).await;
            assert_eq!(again.refusal(), refused(422, "webauthn_credential_exists"));
        }
        let handle = of_ada.user_handle.take();
        assert_eq!(test.sign_in_with(&of_ada).await.refusal(), failed(), "who does not say whose it is");
        of_ada.user_handle = of_ben.user_handle.clone();
        assert_eq!(test.sign_in_with(&of_ada).await.refusal(), failed());
        of_ada.user_handle = handle;
        let absent = refused(404, "webauthn_credential_not_found");
        assert_eq!(test.remove(&ben.token, &id).await.refusal(), absent);
        let rename = test.call(Method::PATCH, &ben.token, &format!("{PASSKEYS}/{id}"), json!({"friendly_name": "mine"})).await;
        assert_eq!(rename.refusal(), absent);

        assert_eq!(test.sign_in_with(&of_ada).await.json()["user"]["id"], json!(ada.id));
        assert_eq!(test.get(&ben.token, PASSKEYS).await.json().as_array().unwrap().len(), 1);
    }

    /// Invariant 53.
    async fn a_counter_that_falls_back_is_refused_and_written_down(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let mut key = Authenticator { sign_count: 5, ..phone() };
        test.with_passkey(&ada, &mut key).await;

        for (count, status) in [(5, 400), (4, 400), (6, 200), (6, 400), (9, 200), (7, 400), (0, 200), (0, 200), (1, 200)] {
            key.sign_count = count;
            assert_eq!(test.sign_in_with(&key).await.status, status, "{count}");
        }

        let refusals = test.events(&ada.id, "login").await.into_iter().filter(|event| event.outcome == "refused");
        let reasons: Vec<_> = refusals.map(|event| event.detail.0["reason"].as_str().unwrap().contains("counter")).collect();
        assert_eq!(reasons, [true; 4]);
        assert_eq!(test.events(&ada.id, "passkey_counter_reset").await.len(), 1);
    }

    /// Invariant 54.
    async fn passkeys_come_and_go_after_a_fresh_sign_in_alone(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let mut key = phone();
        let id = test.with_passkey(&ada, &mut key).await;
        test.later(Duration::from_secs(290));
        let (challenge, options) = test.asked(&ada.token, "registration").await;
        test.later(Duration::from_secs(11));

        let stale = refused(403, "reauthentication_needed");
        let options_again = test.post(&ada.token, &format!("{PASSKEYS}/registration/options"), json!({})).await;
        assert_eq!(options_again.refusal(), stale);
        let new = phone().registered(&options);
        assert_eq!(test.answered(&ada.token, "registration", &challenge, new.clone()).await.refusal(), stale);
        assert_eq!(test.remove(&ada.token, &id).await.refusal(), stale);
        assert_eq!(test.rows("webauthn_credentials").await, 1);

        let fresh = Person::of(&test.sign_in_with(&key).await.json());
        assert_eq!(test.answered(&fresh.token, "registration", &challenge, new).await.status, 200);
        assert_eq!(test.remove(&fresh.token, &id).await.status, 204);
        assert_eq!(test.sign_in_with(&key).await.refusal(), failed());
        let told = test.subjects("ada@example.com").await;
        assert!(told.iter().any(|subject| subject == "A passkey was removed from your account"), "{told:?}");
    }

    /// Invariant 55.
    async fn the_last_way_in_cannot_be_removed(engine: Engine) {
        let test = Test::new(engine).await;
        let mut tx = test.app.db.begin().await.unwrap();
        let now = test.app.now();
        let new = db::users::NewUser {
            id: uuid::Uuid::now_v7(),
            identity: uuid::Uuid::now_v7(),
            email: Some("ada@example.com"),
            confirmed_at: None,
            password_hash: None,
            role: "authenticated",
            user_metadata: json!({}),
        };
        let user = db::users::create(&mut tx, new, now).await.unwrap().unwrap();
        let client = session::Client { address: "192.0.2.1".into(), agent: None, language: None, request_id: String::new() };
        let (user, session) = session::open(&test.app, &mut tx, user, "otp", &client, now).await.unwrap();
        tx.commit().await.unwrap();
        let token = access::sign(&test.app, &access::claims(&test.app, &user, &session)).unwrap();
        let ada = Person { id: user.id.to_string(), email: "ada@example.com".into(), token, refresh_token: String::new() };
        let (first, second) = (test.with_passkey(&ada, &mut phone()).await, test.with_passkey(&ada, &mut phone()).await);

        assert_eq!(test.remove(&ada.token, &first).await.status, 204);
        assert_eq!(test.remove(&ada.token, &second).await.refusal(), refused(422, "single_identity_not_deletable"));

        assert_eq!(test.rows("webauthn_credentials").await, 1);
        let outcomes: Vec<_> = test.events(&ada.id, "passkey_deleted").await.into_iter().map(|event| event.outcome).collect();
        assert_eq!(outcomes, ["refused", "succeeded"]);
        let mut tx = test.app.db.begin().await.unwrap();
        db::users::set_password_hash(&mut tx, user.id, Some("a hash"), now).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(test.remove(&ada.token, &second).await.status, 204, "a password lets her in");
    }

    /// Invariant 9.
    async fn a_passkey_from_before_an_adoption_is_dead(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let mut key = phone();
        test.with_passkey(&ada, &mut key).await;
        let (challenge, options) = test.asked(&ada.token, "registration").await;

        let mut tx = test.app.db.begin().await.unwrap();
        adopt::wipe(&mut tx, ada.id.parse().unwrap(), test.app.now()).await.unwrap();
        tx.commit().await.unwrap();

        assert_eq!(test.sign_in_with(&key).await.refusal(), failed());
        let late = test.answered(&ada.token, "registration", &challenge, phone().registered(&options)).await;
        assert_eq!(late.refusal(), refused(403, "session_not_found"));
        assert_eq!((test.rows("webauthn_credentials").await, test.rows("webauthn_challenges").await), (0, 0));
    }

    async fn a_banned_user_stays_out(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let mut key = phone();
        test.with_passkey(&ada, &mut key).await;
        test.ban("ada@example.com").await;

        assert_eq!(test.sign_in_with(&key).await.refusal(), refused(403, "user_banned"));

        assert_eq!(test.rows("sessions").await, 1);
    }

    async fn of_many_answers_at_once_one_opens_a_session(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let mut key = phone();
        test.with_passkey(&ada, &mut key).await;
        let (challenge, options) = test.asked("", "authentication").await;
        let answer = key.signed_in(&options);

        let all = (0..10).map(|_| test.answered("", "authentication", &challenge, answer.clone()));
        let answers = futures_util::future::join_all(all).await;

        assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1);
        assert_eq!(test.rows("sessions").await, 2);
    }

    async fn a_passkey_has_the_name_its_user_gives_it(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let id = test.with_passkey(&ada, &mut phone()).await;
        let path = format!("{PASSKEYS}/{id}");

        let renamed = test.call(Method::PATCH, &ada.token, &path, json!({"friendly_name": " Phone "})).await;

        assert_eq!(renamed.json()["friendly_name"], "Phone");
        for wrong in ["", "  ", &"x".repeat(121)] {
            let answer = test.call(Method::PATCH, &ada.token, &path, json!({"friendly_name": wrong})).await;
            assert_eq!(answer.refusal(), refused(400, "validation_failed"));
        }
        assert_eq!(test.get(&ada.token, PASSKEYS).await.json()[0]["friendly_name"], "Phone");
    }

    async fn who_has_no_address_has_no_passkey(engine: Engine) {
        let test = Test::with(engine, &[("AUTH_ANONYMOUS", "true")]).await;
        let anonymous = test.post("", SIGN_UP, json!({})).await.json();
        let token = anonymous["access_token"].as_str().unwrap();

        let answer = test.post(token, &format!("{PASSKEYS}/registration/options"), json!({})).await;

        assert_eq!(answer.refusal(), refused(400, "validation_failed"));
    }

    async fn options_are_given_so_often_a_minute(engine: Engine) {
        let test = Test::with(engine, &[("RATE_LIMITS", "passkey=2/1m")]).await;
        let path = format!("{PASSKEYS}/authentication/options");

        let mut statuses = vec![];
        for _ in 0..3 {
            statuses.push(test.post("", &path, json!({})).await.status.as_u16());
        }

        assert_eq!(statuses, [200, 200, 429]);
        assert_eq!(test.rows("webauthn_challenges").await, 2);
    }
}
