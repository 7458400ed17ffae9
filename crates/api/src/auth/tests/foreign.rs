//! Tokens of other issuers, borne as if they were ours.
use super::{
    federated::{Federated, GOOGLE, ID_TOKEN},
    issuer::{sign, sign_with},
    *,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};

const SECRET: &str = "the legacy secret of a project, long enough";
const SESSIONS: &str = "/auth/v1/sessions";

fn hs256(secret: &str, claims: &Value) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).unwrap()
}

impl Federated {
    fn firebase(&self, more: Value) -> String {
        let mut claims = json!({"sub": "f1", "auth_time": self.app.now().unix(), "email": "ada@example.com", "email_verified": true});
        claims
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        self.token("firebase", claims)
    }

    fn supabase_claims(&self, more: Value) -> Value {
        let now = self.app.now().unix();
        let mut claims = json!({"iss": format!("{}/auth/v1", self.issuer.url), "aud": "authenticated", "role": "authenticated",
                                "sub": "7c9e6679-7425-40de-944b-e07fc1f90ae7", "session_id": "s1", "iat": now, "exp": now + 3600,
                                "amr": [{"method": "password", "timestamp": now}], "aal": "aal2", "email": "ada@example.com",
                                "user_metadata": {"email_verified": true, "role": "admin"}});
        claims
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        claims
    }

    async fn assert_refused(&self, what: &str, token: &str) {
        let answer = self.get(token, USER).await;
        assert_eq!(answer.refusal(), refused(403, "bad_jwt"), "{what}");
        let answer = self.get(token, "/api/usage").await;
        assert_eq!(answer.refusal(), refused(401, "invalid_token"), "{what}");
        assert_eq!(self.rows("users").await, 0, "{what}");
    }
}

both_engines! {
    async fn who_bears_anothers_token_is_a_user_from_the_first_request_on(engine: Engine) {
        let test = Federated::new(engine).await;

        let ada = test.get(&test.firebase(json!({})), USER).await;
        let again = test.get(&test.firebase(json!({"auth_time": test.app.now().unix() - 10})), USER).await;
        let other = test.get(&sign(0, &test.supabase_claims(json!({}))), USER).await;

        assert_eq!(ada.status, 200, "{}", ada.text());
        let user = ada.json();
        assert_eq!((&user["email"], &user["is_anonymous"]), (&json!("ada@example.com"), &json!(false)));
        assert_eq!(user["app_metadata"], json!({"provider": "firebase", "providers": ["firebase"]}));
        assert_eq!((&user["identities"][0]["id"], &user["identities"][0]["provider"]), (&json!("f1"), &json!("firebase")));
        assert_eq!(again.json()["id"], user["id"]);
        assert_ne!(other.json()["id"], user["id"]);
        assert_eq!(test.rows("users").await, 2);
        assert_eq!(test.rows("sessions").await, 3, "one for each sign-in there");
        let token = test.firebase(json!({"auth_time": test.app.now().unix() - 20}));
        for _ in 0..3 {
            assert_eq!(test.get(&token, "/api/usage").await.status, 200);
        }
        assert_eq!((test.rows("users").await, test.rows("sessions").await), (2, 4));
    }

    async fn the_issuer_that_signs_people_in_is_known_by_its_bearers_too(engine: Engine) {
        let test = Federated::new(engine).await;
        let signed_in = test.let_in("oidc", json!({"sub": "1"})).await;

        let token = test.token("oidc", json!({"sub": "1", "nonce": "of the app", "iat": test.app.now().unix() - 7200}));
        let bearer = test.get(&token, USER).await;

        assert_eq!(bearer.json()["id"], signed_in["user"]["id"], "{}", bearer.text());
        assert_eq!(test.get(&token, USER).await.status, 200, "as often as it is borne");
    }

    /// Invariant 39.
    async fn a_secret_serves_the_project_that_signs_with_it_alone(engine: Engine) {
        let test = Federated::with(engine, &[("SUPABASE_JWT_SECRET", SECRET)]).await;
        let without = Federated::new(engine).await;
        let now = test.app.now().unix();
        let firebase = json!({"iss": "https://securetoken.google.com/plinth", "aud": "plinth", "sub": "1", "iat": now, "exp": now + 60, "role": "authenticated"});
        let oidc = json!({"iss": test.issuer.url, "aud": "program", "sub": "1", "iat": now, "exp": now + 60, "role": "authenticated"});

        test.assert_refused("Firebase's, under Supabase's secret", &hs256(SECRET, &firebase)).await;
        test.assert_refused("another issuer's, under Supabase's secret", &hs256(SECRET, &oidc)).await;
        let public = super::issuer::jwk(0).to_string();
        test.assert_refused("HS256 under a public key", &hs256(&public, &test.supabase_claims(json!({})))).await;
        test.assert_refused("HS256 under nothing", &hs256("", &test.supabase_claims(json!({})))).await;
        without.assert_refused("a secret that nobody named", &hs256(SECRET, &without.supabase_claims(json!({})))).await;

        let good = test.get(&hs256(SECRET, &test.supabase_claims(json!({}))), USER).await;
        assert_eq!(good.status, 200, "{}", good.text());
        let by_key = test.get(&sign(0, &test.supabase_claims(json!({}))), USER).await;
        assert_eq!(by_key.json()["id"], good.json()["id"], "signed either way it is one project");
    }

    /// Invariant 39.
    async fn a_token_is_good_for_its_issuer_its_audience_and_its_time(engine: Engine) {
        let test = Federated::new(engine).await;
        let now = test.app.now().unix();
        let stronger = Header { kid: Some("key-0".into()), ..Header::new(Algorithm::RS512) };
        let pointing = Header { kid: Some("key-0".into()), jku: Some("https://evil.example".into()), ..Header::new(Algorithm::RS256) };
        let nameless = Header::new(Algorithm::RS256);

        for (what, token) in [
            ("nobody's", test.firebase(json!({"iss": "https://evil.example"}))),
            ("another project's", test.firebase(json!({"iss": "https://securetoken.google.com/evil"}))),
            ("another audience's", test.firebase(json!({"aud": "evil"}))),
            ("expired", test.firebase(json!({"exp": now}))),
            ("of tomorrow", test.firebase(json!({"iat": now + 86_400}))),
            ("of nobody", test.firebase(json!({"sub": ""}))),
            ("of another key", sign(1, &test.supabase_claims(json!({})))),
            ("of another algorithm", sign_with(&stronger, 0, &test.supabase_claims(json!({})))),
            ("pointing elsewhere", sign_with(&pointing, 0, &test.supabase_claims(json!({})))),
            ("without a key", sign_with(&nameless, 0, &test.supabase_claims(json!({})))),
            ("Google's, which signs in once", test.token("google", json!({"sub": "1"}))),
            ("of us, signed by another", sign(0, &test.supabase_claims(json!({"iss": "http://127.0.0.1:8080/auth/v1"})))),
            ("Google's of an app of Firebase", test.firebase(json!({"iss": GOOGLE}))),
        ] {
            test.assert_refused(what, &token).await;
        }
        assert_eq!(test.rows("sessions").await, 0);
    }

    /// Invariant 39.
    async fn what_is_no_users_makes_no_user(engine: Engine) {
        let test = Federated::with(engine, &[("SUPABASE_JWT_SECRET", SECRET)]).await;

        for role in [json!("anon"), json!("service_role"), json!("postgres"), Value::Null] {
            let claims = test.supabase_claims(json!({"role": role}));
            test.assert_refused(&role.to_string(), &sign(0, &claims)).await;
            test.assert_refused(&role.to_string(), &hs256(SECRET, &claims)).await;
            let answer = test.get(&sign(0, &claims), "/api/admin/users").await;
            assert_eq!(answer.refusal(), refused(401, "invalid_token"), "{role}");
        }
    }

    /// Invariant 40.
    async fn what_an_emulator_did_not_sign_is_refused(engine: Engine) {
        let test = Federated::new(engine).await;
        let token = test.firebase(json!({}));
        let claims = token.split('.').nth(1).unwrap();

        for alg in ["none", "None", "NONE", ""] {
            let header = URL_SAFE_NO_PAD.encode(json!({"alg": alg, "typ": "JWT"}).to_string());
            test.assert_refused(alg, &format!("{header}.{claims}.")).await;
        }
        let header = token.split('.').next().unwrap();
        test.assert_refused("RS256 without a signature", &format!("{header}.{claims}.")).await;
    }

    /// Invariant 12; T8.
    async fn what_users_say_of_themselves_there_proves_nothing_here(engine: Engine) {
        let test = Federated::new(engine).await;
        let here = test.sign_up("ada@example.com").await;

        let user = test.get(&sign(0, &test.supabase_claims(json!({}))), USER).await.json();

        assert_ne!(user["id"], json!(here.id));
        assert_eq!((&user["email"], &user["role"]), (&json!(""), &json!("authenticated")));
        assert_eq!(user["user_metadata"], json!({}));
    }

    async fn an_address_that_somebody_has_here_stays_theirs(engine: Engine) {
        let test = Federated::new(engine).await;
        let here = test.sign_up("ada@example.com").await;

        let user = test.get(&test.firebase(json!({})), USER).await;

        assert_eq!(user.status, 200, "{}", user.text());
        assert_ne!(user.json()["id"], json!(here.id));
        assert_eq!(user.json()["email"], "");
        assert_eq!(test.identities(&here).await.len(), 1);
        assert_eq!(test.mails_waiting().await, 0);
    }

    /// Invariants 43 and 31, for those whose tokens we do not make.
    async fn a_sign_in_that_is_ended_here_is_over_whatever_its_issuer_makes_of_it(engine: Engine) {
        let test = Federated::new(engine).await;
        let signed_in = test.app.now().unix();
        let token = test.firebase(json!({"auth_time": signed_in}));
        let phone = test.firebase(json!({"auth_time": signed_in - 60}));
        let listed = test.get(&token, SESSIONS).await.json();
        assert_eq!(listed["data"][0]["current"], json!(true));
        assert_eq!(test.get(&phone, USER).await.status, 200);

        assert_eq!(test.post(&token, "/auth/v1/logout?scope=local", json!({})).await.status, 204);

        let newer = test.firebase(json!({"auth_time": signed_in}));
        for over in [&token, &newer] {
            assert_eq!(test.get(over, USER).await.refusal(), refused(403, "session_not_found"));
        }
        assert_eq!(test.get(&phone, USER).await.status, 200, "only this one");
        assert_eq!(test.post(&phone, "/auth/v1/logout?scope=global", json!({})).await.status, 204);
        assert_eq!(test.get(&phone, USER).await.refusal(), refused(403, "session_not_found"));
        test.later(Duration::from_secs(90 * 86_400));
        crate::jobs::purge(&test.app).await.unwrap();
        let kept = test.firebase(json!({"auth_time": signed_in}));
        assert_eq!(test.get(&kept, USER).await.refusal(), refused(403, "session_not_found"), "also when all else is forgotten");
        let anew = test.firebase(json!({}));
        assert_eq!(test.get(&anew, USER).await.status, 200, "who signs in there again is let in");
        assert_eq!(test.rows("users").await, 1);
    }

    /// Supabase's session goes on when somebody proves in it anew who they are.
    async fn who_proves_anew_who_they_are_is_let_in_again(engine: Engine) {
        let test = Federated::new(engine).await;
        let token = sign(0, &test.supabase_claims(json!({})));
        assert_eq!(test.post(&token, "/auth/v1/logout?scope=local", json!({})).await.status, 204);
        test.later(Duration::from_secs(60));
        let then = test.app.now().unix();

        let refreshed = json!([{"method": "password", "timestamp": then - 60}, {"method": "token_refresh", "timestamp": then}]);
        let refreshed = sign(0, &test.supabase_claims(json!({"amr": refreshed})));
        let proved = sign(0, &test.supabase_claims(json!({"amr": [{"method": "totp", "timestamp": then}]})));

        assert_eq!(test.get(&refreshed, USER).await.refusal(), refused(403, "session_not_found"));
        assert_eq!(test.get(&proved, USER).await.status, 200);
        assert_eq!(test.rows("sessions").await, 1);
    }

    /// Invariant 36.
    async fn who_is_banned_here_is_banned_with_every_token(engine: Engine) {
        let test = Federated::new(engine).await;
        assert_eq!(test.get(&test.firebase(json!({})), USER).await.status, 200);
        test.ban("ada@example.com").await;

        for token in [test.firebase(json!({"auth_time": test.app.now().unix() - 1})), test.firebase(json!({}))] {
            assert_eq!(test.get(&token, USER).await.refusal(), refused(403, "user_banned"));
        }
        assert_eq!(test.rows("sessions").await, 1);
    }

    /// Invariant 54.
    async fn dangerous_acts_ask_how_long_ago_they_proved_there_who_they_are(engine: Engine) {
        let test = Federated::new(engine).await;
        let now = test.app.now().unix();
        let long_ago = test.firebase(json!({"auth_time": now - 301}));
        let never = test.token("oidc", json!({"sub": "1"}));
        let ahead = test.firebase(json!({"auth_time": now + 3600, "iat": now - 301, "sub": "f2", "email": null}));
        let link = json!({"provider": "google", "id_token": test.google("1", "mallory@gmail.com"), "link_identity": true});

        for (what, token) in [("long ago", &long_ago), ("nobody says when", &never), ("later than the token", &ahead)] {
            for (method, path, body) in [(Method::DELETE, USER, json!({})), (Method::PUT, USER, json!({"email": "mallory@example.com"})),
                                         (Method::POST, "/auth/v1/factors", json!({"factor_type": "totp"})), (Method::POST, ID_TOKEN, link.clone())] {
                let answer = test.call(method, token, path, body).await;
                assert_eq!(answer.refusal(), refused(403, "reauthentication_needed"), "{what}: {path}");
            }
        }
        assert_eq!(test.rows("users").await, 3);
        let fresh = test.firebase(json!({}));
        assert_eq!(test.call(Method::DELETE, &fresh, USER, json!({})).await.status, 204);
        assert_eq!(test.rows("users").await, 2);
    }

    /// A second factor that was proved there is not one of ours.
    async fn the_second_factor_of_another_issuer_does_not_count(engine: Engine) {
        let test = Federated::new(engine).await;
        let token = sign(0, &test.supabase_claims(json!({})));
        let user = test.get(&token, USER).await.json()["id"].as_str().unwrap().parse().unwrap();
        let mut tx = test.app.db.begin().await.unwrap();
        db::factors::create(&mut tx, uuid::Uuid::now_v7(), user, "totp", "", "verified", Some(b"s"), test.app.now()).await.unwrap();
        tx.commit().await.unwrap();

        let answer = test.call(Method::DELETE, &token, USER, json!({})).await;

        assert_eq!(answer.refusal(), refused(403, "insufficient_aal"));
        assert_eq!(test.rows("users").await, 1);
    }

    async fn nobody_new_is_taken_where_they_would_not_be_otherwise(engine: Engine) {
        let closed = Federated::with(engine, &[("AUTH_SIGNUP", "false")]).await;
        let test = Federated::new(engine).await;
        let anonymous = json!({"firebase": {"sign_in_provider": "anonymous"}, "email": null, "email_verified": false});

        assert_eq!(closed.get(&closed.firebase(json!({})), USER).await.refusal(), refused(422, "signup_disabled"));
        assert_eq!(test.get(&test.firebase(anonymous.clone()), USER).await.refusal(), refused(422, "anonymous_provider_disabled"));
        assert_eq!((closed.rows("users").await, test.rows("users").await), (0, 0));

        let open = Federated::with(engine, &[("AUTH_ANONYMOUS", "true")]).await;
        let auth_time = open.app.now().unix();
        let nobody = open.get(&open.firebase(anonymous), USER).await.json();
        assert_eq!(nobody["is_anonymous"], json!(true));
        let somebody = open.get(&open.firebase(json!({"auth_time": auth_time})), USER).await.json();
        assert_eq!((&somebody["id"], &somebody["is_anonymous"]), (&nobody["id"], &json!(false)));
    }

    async fn who_is_seen_every_day_is_not_forgotten(engine: Engine) {
        let test = Federated::with(engine, &[("AUTH_ANONYMOUS", "true")]).await;
        let anonymous = |test: &Federated| {
            test.firebase(json!({"auth_time": 1_790_000_000, "firebase": {"sign_in_provider": "anonymous"}, "email": null}))
        };
        let first = test.get(&anonymous(&test), USER).await.json();

        for _ in 0..40 {
            test.later(Duration::from_secs(86_400));
            assert_eq!(test.get(&anonymous(&test), USER).await.json()["id"], first["id"]);
            crate::jobs::purge(&test.app).await.unwrap();
        }

        assert_eq!((test.rows("users").await, test.rows("sessions").await), (1, 1));
    }

    async fn an_identity_that_was_given_up_lets_its_sign_in_no_further(engine: Engine) {
        let test = Federated::new(engine).await;
        let token = test.firebase(json!({}));
        let user = test.get(&token, USER).await.json();
        let identity = user["identities"][0]["identity_id"].as_str().unwrap().to_owned();
        let mut tx = test.app.db.begin().await.unwrap();
        let id = user["id"].as_str().unwrap().parse().unwrap();
        assert!(db::users::delete_identity(&mut tx, id, identity.parse().unwrap()).await.unwrap());
        tx.commit().await.unwrap();

        assert_eq!(test.get(&token, USER).await.refusal(), refused(403, "session_not_found"));
        assert_eq!(test.rows("users").await, 1);
        let anew = test.get(&test.firebase(json!({})), USER).await.json();
        assert_ne!(anew["id"], user["id"], "another sign-in there is of somebody new");
    }

    /// Invariant 71.
    async fn who_left_is_not_made_anew_by_the_sign_in_they_left_with(engine: Engine) {
        let test = Federated::new(engine).await;
        for soft in [false, true] {
            let auth_time = test.app.now().unix();
            let token = test.firebase(json!({"auth_time": auth_time}));
            let user = test.get(&token, USER).await.json()["id"].as_str().unwrap().to_owned();
            let users = test.rows("users").await;

            let path = format!("/auth/v1/admin/users/{user}");
            let gone = test.call(Method::DELETE, &test.service_key(), &path, json!({"should_soft_delete": soft})).await;
            assert_eq!(gone.status, 200, "{}", gone.text());

            let newer = test.firebase(json!({"auth_time": auth_time}));
            for over in [&token, &newer] {
                assert_eq!(test.get(over, USER).await.refusal(), refused(403, "session_not_found"), "{soft}");
            }
            assert_eq!(test.rows("users").await, if soft { users } else { users - 1 });
            let anew = test.get(&test.firebase(json!({})), USER).await;
            assert_ne!(anew.json()["id"], json!(user), "who signs in there again begins anew");
        }
    }

    async fn twenty_first_requests_at_once_are_one_user(engine: Engine) {
        let test = Federated::new(engine).await;
        let token = test.firebase(json!({}));

        let answers = futures_util::future::join_all((0..20).map(|_| test.get(&token, "/api/usage"))).await;

        assert!(answers.iter().all(|answer| answer.status == 200));
        assert_eq!((test.rows("users").await, test.rows("sessions").await), (1, 1));
    }

    async fn while_an_issuer_is_silent_its_bearers_are_told_to_come_back(engine: Engine) {
        let test = Federated::new(engine).await;
        test.issuer.silence();

        let answer = test.get(&test.firebase(json!({})), "/api/usage").await;

        assert_eq!(answer.refusal(), refused(503, "provider_unavailable"));
        assert!(!answer.header("retry-after").is_empty());
        assert_eq!(test.rows("users").await, 0);
    }
}
