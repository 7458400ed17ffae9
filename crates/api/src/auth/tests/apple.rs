//! What Apple gives, is given back when somebody leaves, and tells of them meanwhile.
use super::*;
use crate::auth::providers::DEVELOPMENT_CLIENT;
use crate::testing::Engine;
use sim::oidc::Revoked;

const APP: &str = "com.example.app";
const NOTIFICATIONS: &str = "/auth/v1/apple/notifications";

impl Test {
    async fn at_apple(&self, email: &str) -> Person {
        Person::of(&self.sign_in_at("apple", email).await.json())
    }

    /// With these clients of Apple's, the first of which is the web's.
    async fn with_apple_clients(engine: Engine, clients: &str) -> Self {
        let mut test = Self::new(engine).await;
        let mut config = test.app.config.clone();
        config.auth.providers.apple_client_id = clients.split(',').map(String::from).collect();
        let (db, clock) = (test.app.db.clone(), test.app.clock.clone());
        test.app = crate::App::new(config, db, test.app.simulated, clock)
            .await
            .unwrap();
        test.router = crate::router(&test.app);
        test
    }

    /// Tokens that are still to be given back.
    async fn waiting(&self) -> usize {
        let jobs = db::jobs::unfinished(&self.app.db, crate::auth::apple::REVOKE).await;
        jobs.unwrap().len()
    }

    async fn leave(&self, person: &Person, body: Value) -> Answer {
        self.call(Method::DELETE, &person.token, USER, body).await
    }

    /// Apple's subject of this person.
    fn apples(&self, email: &str) -> String {
        let token = self
            .world
            .oidc()
            .id_token("apple", DEVELOPMENT_CLIENT, None, email);
        access::claims(&token)["sub"].as_str().unwrap().to_owned()
    }

    /// What Apple tells, in its words.
    fn notification(&self, jti: &str, event: Value) -> Value {
        json!({
            "iss": self.world.oidc().issuer("apple"), "aud": DEVELOPMENT_CLIENT, "iat": self.app.now().unix(), "jti": jti, "events": event.to_string(),
        })
    }

    async fn tell(&self, claims: &Value) -> Answer {
        let payload = self.world.oidc().sign(claims);
        self.post("", NOTIFICATIONS, json!({"payload": payload}))
            .await
    }
}

/// Who gave what back.
fn whose(revoked: &[Revoked]) -> Vec<(&str, &str)> {
    revoked
        .iter()
        .map(|one| (one.provider.as_str(), one.client_id.as_str()))
        .collect()
}

both_engines! {
    /// Invariant 71, of Apple.
    async fn invariant_71_what_apple_gave_is_given_back_when_its_user_leaves(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.at_apple("ada@example.com").await;
        let ben = test.at_apple("ben@example.com").await;

        assert_eq!(test.leave(&ada, json!({})).await.status, 204);

        assert_eq!(test.get(&ada.token, USER).await.refusal(), refused(403, "session_not_found"), "at once");
        assert_eq!(test.rows("identities").await, 1, "freed");
        assert_eq!(test.world.oidc().revoked(), [], "not on the way of the request");
        test.work().await;
        let revoked = test.world.oidc().revoked();
        assert_eq!(whose(&revoked), [("apple", DEVELOPMENT_CLIENT)]);
        assert!(revoked[0].token.starts_with("rt_"), "what renews, not what runs out: {revoked:?}");
        assert_eq!(test.get(&ben.token, USER).await.status, 200);
        let anew = test.at_apple("ada@example.com").await;
        assert_ne!(anew.id, ada.id);
    }

    /// Invariant 71: what fails is tried again, and another time.
    async fn invariant_71_a_token_is_given_back_when_apple_answers_again(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.at_apple("ada@example.com").await;
        assert_eq!(test.leave(&ada, json!({})).await.status, 204);
        test.world.oidc().fail(2);

        test.work().await;
        assert_eq!((test.world.oidc().revoked(), test.waiting().await), (vec![], 1));
        test.later(Duration::from_secs(13));
        test.work().await;
        assert_eq!((test.world.oidc().revoked(), test.waiting().await), (vec![], 1));
        test.later(Duration::from_secs(73));
        test.work().await;

        assert_eq!(test.world.oidc().revoked().len(), 1);
        assert_eq!(test.waiting().await, 0);
    }

    /// Invariant 71: Apple says 200 of what is no good already, and it is not asked again.
    async fn invariant_71_a_token_that_is_no_good_any_more_is_done_with(engine: Engine) {
        let test = Test::new(engine).await;
        let (ada, again) = (test.at_apple("ada@example.com").await, test.at_apple("ada@example.com").await);
        assert_eq!(ada.id, again.id);
        assert_eq!(test.leave(&again, json!({})).await.status, 204);
        test.work().await;

        let job = json!({"client_id": DEVELOPMENT_CLIENT, "token": "AAAA"});
        let unreadable = crate::auth::apple::revoke(&test.app, &job).await;

        assert_eq!((test.world.oidc().revoked().len(), test.waiting().await), (1, 0));
        assert!(unreadable.unwrap_err().to_string().contains("JWT_SECRET"));
    }

    /// Invariant 71: what Apple refuses for our sake is tried again, for an operator may mend it.
    async fn invariant_71_a_token_that_apple_will_not_take_from_us_is_not_forgotten(engine: Engine) {
        let test = Test::new(engine).await;
        let sealed = test.app.keys.seal(crate::auth::federation::REFRESH_TOKEN, b"rt_1").unwrap();
        let token = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, sealed);
        let revoke = async |client: &str| {
            let job = json!({"client_id": client, "token": token});
            crate::auth::apple::revoke(&test.app, &job).await
        };

        let refused = revoke("").await.unwrap_err().to_string();
        revoke(DEVELOPMENT_CLIENT).await.unwrap();

        assert!(refused.contains("invalid_client") && !refused.contains("rt_1"), "{refused}");
        assert_eq!(test.world.oidc().revoked().len(), 1);
    }

    async fn who_brought_no_token_leaves_all_the_same(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.at_apple("ada@example.com").await;
        db::testing::execute(&test.app.db, "update identities set refresh_token = null").await.unwrap();

        assert_eq!(test.leave(&ada, json!({})).await.status, 204);

        test.work().await;
        assert_eq!((test.world.oidc().revoked(), test.rows("users").await), (vec![], 0));
    }

    async fn an_app_brings_a_code_to_leave_with(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.at_apple("ada@example.com").await;
        db::testing::execute(&test.app.db, "update identities set refresh_token = null").await.unwrap();
        let code = test.world.oidc().authorization_code("apple", DEVELOPMENT_CLIENT, "ada@example.com");

        assert_eq!(test.leave(&ada, json!({"authorization_code": code})).await.status, 204);
        test.work().await;

        assert_eq!(whose(&test.world.oidc().revoked()), [("apple", DEVELOPMENT_CLIENT)]);
    }

    async fn a_code_of_somebody_else_or_none_at_all_keeps_nobody_from_leaving(engine: Engine) {
        let test = Test::new(engine).await;
        for code in ["invented", &test.world.oidc().authorization_code("apple", DEVELOPMENT_CLIENT, "ben@example.com")] {
            let ada = test.at_apple("ada@example.com").await;
            db::testing::execute(&test.app.db, "update identities set refresh_token = null").await.unwrap();
            assert_eq!(test.leave(&ada, json!({"authorization_code": code})).await.status, 204);
            test.work().await;
            assert_eq!(test.world.oidc().revoked(), [], "nothing of theirs");
        }
        let ada = test.at_apple("ada@example.com").await;
        assert_eq!(test.leave(&ada, json!({"authorization_code": 1})).await.refusal(), refused(400, "validation_failed"));
        assert_eq!(test.get(&ada.token, USER).await.status, 200);
    }

    /// Invariant 71: the client that it is given back as is the one that it was given to, an app's here.
    async fn invariant_71_what_an_app_brought_is_given_back_as_that_app(engine: Engine) {
        let clients = format!("{DEVELOPMENT_CLIENT},{APP}");
        let test = Test::with_apple_clients(engine, &clients).await;
        let oidc = test.world.oidc();
        let by_app = async |client: &str, email: &str, code: &str| {
            let token = oidc.id_token("apple", client, None, email);
            test.post("", "/auth/apple", json!({"id_token": token, "authorization_code": code})).await
        };

        let code = oidc.authorization_code("apple", APP, "ada@example.com");
        let ada = Person::of(&by_app(APP, "ada@example.com", &code).await.json());
        let not_hers = oidc.authorization_code("apple", APP, "ada@example.com");
        let ben = Person::of(&by_app(APP, "ben@example.com", &not_hers).await.json());
        let dan = Person::of(&by_app(APP, "dan@example.com", "invented").await.json());
        for person in [&ada, &ben, &dan] {
            assert_eq!(test.leave(person, json!({})).await.status, 204);
        }
        test.work().await;

        assert_eq!(whose(&oidc.revoked()), [("apple", APP)], "hers alone");
    }

    async fn an_identity_that_is_unlinked_is_given_back_too(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.at_apple("ada@example.com").await;
        let ids = test.get(&ada.token, USER).await.json()["identities"][0]["identity_id"].clone();
        let password = json!({"password": PASSWORD});
        assert_eq!(test.call(Method::PUT, &ada.token, USER, password).await.status, 200);
        let other = test.sign_in_at("google", "ada@example.com").await;
        assert_eq!(other.status, 200, "{}", other.text());

        let path = format!("/auth/v1/user/identities/{}", ids.as_str().unwrap());
        assert_eq!(test.call(Method::DELETE, &ada.token, &path, json!({})).await.status, 200);
        test.work().await;

        assert_eq!(whose(&test.world.oidc().revoked()), [("apple", DEVELOPMENT_CLIENT)]);
    }

    async fn what_apple_gave_is_kept_sealed(engine: Engine) {
        let test = Test::new(engine).await;
        let answer = test.sign_in_at("apple", "ada@example.com").await.json();
        let token = answer["provider_refresh_token"].as_str().unwrap();
        let ada = Person::of(&answer);
        let mut tx = test.app.db.begin().await.unwrap();
        let kept = db::identities::revocable(&mut tx, ada.id.parse().unwrap(), "apple").await.unwrap().remove(0);
        drop(tx);
        assert!(!String::from_utf8_lossy(&kept.refresh_token.unwrap()).contains(token));
        assert_eq!(kept.client_id.as_deref(), Some(DEVELOPMENT_CLIENT));

        test.leave(&ada, json!({})).await;
        let waiting = db::jobs::unfinished(&test.app.db, crate::auth::apple::REVOKE).await.unwrap();
        assert!(!format!("{waiting:?}").contains(token));
    }

    /// Invariant 72: what is not Apple's, not for us, or not the first changes nothing.
    async fn invariant_72_a_notification_is_believed_once_and_from_apple_alone(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.at_apple("ada@example.com").await;
        let event = json!({"type": "consent-revoked", "sub": test.apples("ada@example.com"), "event_time": 1});
        let good = test.notification("n-1", event);
        let with = |name: &str, value: Value| account::merged(good.clone(), json!({name: value}));
        let signed = test.world.oidc().sign(&good);
        let (_, other_signature) = test.world.oidc().sign(&with("jti", json!("n-2"))).rsplit_once('.').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        let forged = format!("{}.{other_signature}", signed.rsplit_once('.').unwrap().0);

        for claims in [
            with("aud", json!("com.another.app")), with("aud", Value::Null), with("iss", json!("https://appleid.apple.com")), with("iss", Value::Null),
            with("iat", json!(test.app.now().unix() - 31 * 86_400)), with("iat", json!(test.app.now().unix() + 61)), with("exp", json!(test.app.now().unix())),
            with("jti", Value::Null), with("events", json!("[]")), with("events", json!("not JSON")), with("events", Value::Null),
        ] {
            assert_eq!(test.tell(&claims).await.refusal(), refused(400, "invalid_notification"), "{claims}");
        }
        for payload in [forged, "x".into(), String::new(), "x".repeat(9000)] {
            assert_eq!(test.post("", NOTIFICATIONS, json!({"payload": payload})).await.refusal(), refused(400, "invalid_notification"), "{payload}");
        }
        assert_eq!(test.get(&ada.token, USER).await.status, 200, "nothing of it happened");

        assert_eq!(test.tell(&good).await.status, 200);
        assert_eq!(test.get(&ada.token, USER).await.refusal(), refused(403, "session_not_found"));
        let again = test.at_apple("ada@example.com").await;
        assert_eq!(test.tell(&good).await.refusal(), refused(400, "invalid_notification"), "replayed");
        assert_eq!(test.get(&again.token, USER).await.status, 200);
    }

    /// Invariant 72.
    async fn invariant_72_a_consent_that_is_revoked_ends_the_sessions_it_opened(engine: Engine) {
        let test = Test::new(engine).await;
        let (ada, ben) = (test.at_apple("ada@example.com").await, test.at_apple("ben@example.com").await);
        assert_eq!(test.call(Method::PUT, &ada.token, USER, json!({"password": PASSWORD})).await.status, 200);
        let by_password = test.sign_in_again("ada@example.com").await;
        let ada = test.at_apple("ada@example.com").await;

        let event = json!({"type": "consent-revoked", "sub": test.apples("ada@example.com"), "event_time": 1});
        assert_eq!(test.tell(&test.notification("n-1", event)).await.status, 200);

        assert_eq!(test.get(&ada.token, USER).await.refusal(), refused(403, "session_not_found"));
        assert_eq!(test.refresh(&ada.refresh_token).await.status, 400);
        for person in [&by_password, &ben] {
            assert_eq!(test.get(&person.token, USER).await.status, 200);
        }
        test.leave(&by_password, json!({})).await;
        test.work().await;
        assert_eq!(test.world.oidc().revoked(), [], "Apple has it back already");
    }

    /// Invariant 72.
    async fn invariant_72_who_is_gone_at_apple_is_gone_here_unless_something_else_lets_them_in(engine: Engine) {
        let test = Test::new(engine).await;
        for (n, kind) in ["account-delete", "account-deleted"].into_iter().enumerate() {
            let (gone, stays) = (format!("gone{n}@privaterelay.appleid.com"), format!("stays{n}@example.com"));
            let (gone, stays) = (test.at_apple(&gone).await, test.at_apple(&stays).await);
            for person in [&gone, &stays] {
                let event = json!({"type": kind, "sub": test.apples(&person.email), "event_time": 1});
                assert_eq!(test.tell(&test.notification(&person.id, event)).await.status, 200);
                assert_eq!(test.get(&person.token, USER).await.refusal(), refused(403, "session_not_found"));
            }
            let key = test.service_key();
            let user = async |person: &Person| test.get(&key, &format!("/auth/v1/admin/users/{}", person.id)).await;
            assert_eq!(user(&gone).await.refusal(), refused(404, "user_not_found"), "{kind}");
            assert_eq!(user(&stays).await.json()["identities"], json!([]), "a mailbox of their own lets them in");
        }
        let unknown = json!({"type": "account-delete", "sub": "nobody", "event_time": 1});
        assert_eq!(test.tell(&test.notification("n", unknown)).await.status, 200);
        let news = json!({"type": "something-new", "sub": "nobody", "event_time": 1});
        assert_eq!(test.tell(&test.notification("m", news)).await.status, 200);
    }

    /// Invariant 72.
    async fn invariant_72_a_relay_that_is_off_is_not_written_to_until_it_is_on(engine: Engine) {
        let test = Test::new(engine).await;
        let relay = "ada@privaterelay.appleid.com";
        test.at_apple(relay).await;
        let told = async |n: &str, kind: &str, email: &str| {
            let event = json!({"type": kind, "sub": test.apples(relay), "email": email, "is_private_email": "true", "event_time": 1});
            assert_eq!(test.tell(&test.notification(n, event)).await.status, 200);
        };
        let asked = async |email: &str| {
            assert_eq!(test.post("", "/auth/v1/otp", json!({"email": email})).await.status, 200);
            test.work().await;
            test.world.mailbox().to(email).len()
        };

        assert_eq!(asked(relay).await, 1);
        told("n-1", "email-disabled", relay).await;
        assert_eq!(asked(relay).await, 1, "no more");
        told("n-2", "email-enabled", relay).await;
        assert_eq!(asked(relay).await, 2);
        told("n-3", "email-disabled", "ben@example.com").await;
        assert_eq!(asked("ben@example.com").await, 1, "Apple turns off relays alone");
    }
}

#[tokio::test]
async fn apples_secret_is_ours_for_five_minutes() {
    let test = Test::new(Engine::Sqlite).await;
    let provider = test.app.issuers.named("apple").unwrap();

    let secret = crate::auth::apple::client_secret(&test.app, provider, APP).unwrap();

    let header = jsonwebtoken::decode_header(&secret).unwrap();
    let claims = access::claims(&secret);
    assert_eq!(
        (header.alg, header.kid.as_deref()),
        (jsonwebtoken::Algorithm::ES256, Some(DEVELOPMENT_CLIENT))
    );
    assert_eq!(
        claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(),
        300
    );
    assert_eq!(
        (&claims["sub"], &claims["iss"]),
        (&json!(APP), &json!(DEVELOPMENT_CLIENT))
    );
    assert_eq!(claims["aud"], json!(test.world.oidc().issuer("apple")));
}
