//! Who may administer, and what that does to users.
use super::{access::claims, *};
use crate::auth::{access, service_role};
use axum::body::Body;
use jsonwebtoken::{Algorithm, EncodingKey, Header};

pub const USERS: &str = "/auth/v1/admin/users";

async fn created(test: &Test, key: &str, body: Value) -> Value {
    let answer = test.post(key, USERS, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

pub async fn decisions(test: &Test, user: &Value) -> Vec<db::audit::Event> {
    let id = user["id"].as_str().unwrap().parse().unwrap();
    db::audit::of_subject(&test.app.db, id, None, 100)
        .await
        .unwrap()
}

both_engines! {
    async fn a_user_of_role_admin_and_the_service_key_administer_and_nobody_else(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up_admin("ada@example.com").await;
        let ben = test.sign_up("ben@example.com").await;

        assert_eq!(test.get(&ada.token, USERS).await.status, 200);
        assert_eq!(test.get(&test.service_key(), USERS).await.status, 200);
        assert_eq!(test.get(&ben.token, USERS).await.refusal(), refused(403, "not_admin"));
        assert_eq!(test.get("", USERS).await.refusal(), refused(401, "no_authorization"));
        assert_eq!(test.get("anon", USERS).await.refusal(), refused(403, "bad_jwt"));
        assert_eq!(test.get(&ada.token, "/auth/v1/admin/users/nobody").await.status, 404);
    }

    async fn the_service_key_counts_in_the_header_apikey_too_and_an_anon_key_there_does_not_matter(engine: Engine) {
        let test = Test::new(engine).await;
        let ben = test.sign_up("ben@example.com").await;
        let get = async |token: &str, apikey: &str| {
            let request = crate::testing::request(Method::GET, token, USERS).header("apikey", apikey);
            test.send(request.body(Body::empty()).unwrap()).await
        };

        assert_eq!(get("", &test.service_key()).await.status, 200);
        assert_eq!(get(&ben.token, &test.service_key()).await.status, 200);
        assert_eq!(get(&ben.token, "anon").await.refusal(), refused(403, "not_admin"));
        assert_eq!(get("", &ben.token).await.refusal(), refused(401, "no_authorization"));
        assert_eq!(get(&test.service_key(), "anon").await.status, 200);
    }

    async fn who_is_no_longer_an_admin_stops_at_once(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up_admin("ada@example.com").await;
        let mut tx = test.app.db.begin().await.unwrap();
        db::users::set_role(&mut tx, ada.id.parse().unwrap(), "authenticated", test.app.now()).await.unwrap();
        tx.commit().await.unwrap();

        assert_eq!(test.get(&ada.token, USERS).await.refusal(), refused(403, "not_admin"));
        test.ban("ada@example.com").await;
        assert_eq!(test.get(&ada.token, USERS).await.refusal(), refused(403, "user_banned"));
    }

    async fn a_service_key_is_no_user_and_no_token_of_a_user_is_a_service_key(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let stranger = Test::new(engine).await;
        let (keys, issuer, now) = (&test.app.keys, access::issuer(&test.app), test.app.now());
        let sign = |header: &Header, claims: &Value, key: &EncodingKey| jsonwebtoken::encode(header, claims, key).unwrap();
        let header = Header { kid: Some(keys.ring().active_kid.clone()), ..Header::new(Algorithm::ES256) };
        let said = json!({"role": "service_role", "iss": issuer, "aud": "authenticated", "iat": now.unix(), "exp": now.unix() + 60});
        let with = |name: &str, value: Value| {
            let mut claims = said.clone();
            claims[name] = value;
            sign(&header, &claims, &keys.ring().signing)
        };
        let as_user = |mut claims: Value| {
            claims["role"] = json!("service_role");
            sign(&Header { typ: Some("at+jwt".into()), ..header.clone() }, &claims, &keys.ring().signing)
        };

        let refusals = [
            ("a user's token", ada.token.clone()),
            ("a user's token of that role", as_user(claims(&ada.token))),
            ("another role", with("role", json!("anon"))),
            ("no role", with("role", json!(null))),
            ("another issuer", with("iss", json!("https://example.com/auth/v1"))),
            ("another audience", with("aud", json!("another"))),
            ("expired", with("exp", json!(now.unix()))),
            ("not yet", with("iat", json!(now.unix() + 120))),
            ("another's key", sign(&header, &said, &stranger.app.keys.ring().signing)),
            ("HS256", sign(&Header { alg: Algorithm::HS256, ..header.clone() }, &said, &EncodingKey::from_secret(b"x"))),
            ("jku", sign(&Header { jku: Some("http://127.0.0.1:1/keys".into()), ..header.clone() }, &said, &keys.ring().signing)),
            ("an unknown key id", sign(&Header { kid: Some("another".into()), ..header.clone() }, &said, &keys.ring().signing)),
        ];
        for (what, token) in refusals {
            assert_eq!(test.get(&token, USERS).await.status, 403, "{what}");
            assert!(!service_role::verify(keys, &issuer, &token, now), "{what}");
        }
        assert_eq!(test.get(&sign(&header, &said, &keys.ring().signing), USERS).await.status, 200);
        assert_eq!(test.get(&sign(&header, &json!({"role": "service_role"}), &keys.ring().signing), USERS).await.status, 200);
        assert_eq!(test.get(&test.service_key(), USER).await.refusal(), refused(403, "bad_jwt"));
        assert_eq!(test.get(&test.service_key(), "/api/usage").await.refusal(), refused(401, "invalid_token"));
    }

    async fn an_admin_makes_users_who_can_sign_in(engine: Engine) {
        let test = Test::with(engine, CONFIRMING).await;
        let key = test.service_key();
        let id = uuid::Uuid::new_v4();

        let user = created(&test, &key, json!({
            "email": "Ada@Example.com", "password": PASSWORD, "email_confirm": true, "id": id, "user_metadata": {"name": "Ada"},
            "app_metadata": {"plan": "pro"}, "role": "admin",
        })).await;
        let waiting = created(&test, &key, json!({"email": "ben@example.com", "password": PASSWORD})).await;

        assert_eq!((&user["id"], &user["email"], &user["role"]), (&json!(id), &json!("ada@example.com"), &json!("admin")));
        assert_eq!(user["user_metadata"], json!({"name": "Ada"}));
        assert_eq!(user["app_metadata"], json!({"provider": "email", "providers": ["email"], "plan": "pro"}));
        assert_eq!(user["identities"][0]["provider"], "email");
        let signed_in = test.sign_in_again("ada@example.com").await;
        assert_eq!(claims(&signed_in.token)["app_metadata"]["plan"], "pro");
        assert_eq!(waiting["email_confirmed_at"], Value::Null);
        assert_eq!(test.sign_in("ben@example.com", PASSWORD).await.refusal(), refused(400, "email_not_confirmed"));
        assert_eq!(test.mails_waiting().await, 0, "an admin tells them, or does not");
        let events = decisions(&test, &waiting).await;
        assert_eq!(events.iter().map(|e| (e.actor_kind.as_str(), e.actor_id, e.action.as_str())).collect::<Vec<_>>(), [("user", None, "login"), ("admin", None, "user_signedup")]);
    }

    async fn who_made_a_user_stands_in_the_audit_log(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up_admin("ada@example.com").await;

        let user = created(&test, &ada.token, json!({"email": "ben@example.com", "password": "a secret of ben"})).await;

        let events = decisions(&test, &user).await;
        assert_eq!(events.len(), 1);
        assert_eq!((events[0].actor_kind.as_str(), events[0].actor_id), ("admin", Some(ada.id.parse().unwrap())));
        let text = format!("{:?}", events[0]);
        assert!(!text.contains("ben@example.com") && !text.contains("secret of ben"), "{text}");
    }

    async fn a_hash_from_elsewhere_is_taken_over_unless_it_would_cost_us_dearly(engine: Engine) {
        let test = Test::new(engine).await;
        let key = test.service_key();
        let hash = test.app.passwords.hash(PASSWORD).await.unwrap();
        let new = |email: &str, hash: &str| json!({"email": email, "email_confirm": true, "password_hash": hash});

        let user = created(&test, &key, new("ada@example.com", &hash)).await;

        assert!(!user.to_string().contains("argon2"));
        assert_eq!(test.sign_in("ada@example.com", PASSWORD).await.status, 200);
        let dear = hash.replace("m=19456", "m=4194304");
        for hash in [dear.as_str(), "plain text", "", "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ", "$unknown$v=1$c2FsdA$aGFzaA"] {
            let answer = test.post(&key, USERS, new("ben@example.com", hash)).await;
            assert_eq!(answer.refusal(), refused(400, "validation_failed"), "{hash}");
        }
        let both = json!({"email": "ben@example.com", "password": PASSWORD, "password_hash": hash});
        assert_eq!(test.post(&key, USERS, both).await.refusal(), refused(400, "validation_failed"));
        assert_eq!(test.rows("users").await, 1);
    }

    async fn a_user_that_cannot_be_is_not_made(engine: Engine) {
        let test = Test::new(engine).await;
        let key = test.service_key();
        let ada = test.sign_up("ada@example.com").await;
        let invalid = refused(400, "validation_failed");

        for (body, refusal) in [
            (json!({"email": "ADA@example.com"}), refused(422, "email_exists")),
            (json!({"email": "ben@example.com", "id": ada.id}), refused(422, "user_already_exists")),
            (json!({"email": "ben"}), invalid.clone()),
            (json!({}), invalid.clone()),
            (json!({"email": "ben@example.com", "role": "service_role"}), invalid.clone()),
            (json!({"email": "ben@example.com", "user_metadata": [1]}), invalid.clone()),
            (json!({"email": "ben@example.com", "app_metadata": {"a": "x".repeat(5000)}}), invalid.clone()),
            (json!({"email": "ben@example.com", "ban_duration": "for ever"}), invalid.clone()),
            (json!({"email": "ben@example.com", "password": "password1"}), refused(422, "weak_password")),
        ] {
            assert_eq!(test.post(&key, USERS, body.clone()).await.refusal(), refusal, "{body}");
        }
        assert_eq!(test.rows("users").await, 1);
        assert_eq!(test.rows("audit_events").await, 2, "those of the sign-up");
    }

    async fn users_are_listed_in_pages(engine: Engine) {
        let test = Test::new(engine).await;
        let key = test.service_key();
        for n in 0..5 {
            test.later(Duration::from_secs(1));
            created(&test, &key, json!({"email": format!("user{n}@example.com")})).await;
        }
        let page = async |query: &str| {
            let answer = test.get(&key, &format!("{USERS}{query}")).await;
            assert_eq!(answer.status, 200, "{query}: {}", answer.text());
            let emails: Vec<_> = answer.json()["users"].as_array().unwrap().iter().map(|user| user["email"].as_str().unwrap()[4..5].to_owned()).collect();
            (emails.concat(), answer.header("x-total-count").to_owned(), answer.header("link").to_owned())
        };

        let (next, last) = (|n| format!("<{USERS}?page={n}&per_page=2>; rel=\"next\""), format!("<{USERS}?page=3&per_page=2>; rel=\"last\""));
        assert_eq!(page("?page=1&per_page=2").await, ("43".into(), "5".into(), format!("{}, {last}", next(2))));
        assert_eq!(page("?page=2&per_page=2").await, ("21".into(), "5".into(), format!("{}, {last}", next(3))));
        assert_eq!(page("?page=3&per_page=2").await, ("0".into(), "5".into(), last.clone()));
        assert_eq!(page("?page=4&per_page=2").await.0, "");
        assert_eq!(page("?page=&per_page=").await.0, "43210");
        assert_eq!(page("?filter=USER3").await.0, "3");
        assert_eq!(page("?filter=%25").await.0, "", "a part of the address, not a pattern");
        let users = test.get(&key, USERS).await.json();
        assert_eq!(users["aud"], "authenticated");
        assert_eq!(users["users"][0]["identities"][0]["identity_data"]["email"], "user4@example.com");
        for query in ["?page=0", "?page=-1", "?page=x", "?per_page=0", "?per_page=1001", "?page=99999999999999999999"] {
            assert_eq!(test.get(&key, &format!("{USERS}{query}")).await.refusal(), refused(400, "validation_failed"), "{query}");
        }
    }

    async fn one_user_is_shown_without_what_they_sign_in_with(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;

        let answer = test.get(&test.service_key(), &format!("{USERS}/{}", ada.id)).await;

        assert_eq!(answer.json(), test.get(&ada.token, USER).await.json());
        assert!(!answer.text().contains("password") && !answer.text().contains("argon2"));
        let nobody = test.get(&test.service_key(), &format!("{USERS}/{}", uuid::Uuid::now_v7())).await;
        assert_eq!(nobody.refusal(), refused(404, "user_not_found"));
    }
}
