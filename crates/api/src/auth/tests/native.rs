//! Sign-in with the ID tokens of Google, Apple and others.
use super::{
    federated::{APPLE, Federated, GOOGLE, ID_TOKEN},
    issuer::sign,
    *,
};
use crate::auth::{
    federation::{self, Beside},
    id_token,
    session::Client,
};
use uuid::Uuid;

fn ada(more: Value) -> Value {
    let mut claims = json!({"sub": "1", "email": "ada@gmail.com", "email_verified": true, "name": "Ada Lovelace"});
    for (name, value) in more.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

/// Of Google, which does not run this mailbox.
fn elsewhere(email: &str) -> Value {
    json!({"sub": "1", "email": email, "email_verified": true})
}

impl Federated {
    /// Whoever got in where they should not have, and what they would have got.
    async fn assert_nobody_new(&self, users: i64, sessions: i64) {
        assert_eq!(self.rows("users").await, users);
        assert_eq!(self.rows("sessions").await, sessions);
    }

    /// Somebody signs up as another, and leaves ways in.
    async fn prepare(&self, email: &str) -> Uuid {
        let body = json!({"email": email, "password": "of the attacker", "data": {"name": "Mallory", "email_verified": true}});
        assert_eq!(self.post("", SIGN_UP, body).await.status, 200);
        self.by_email(email).await.id
    }

    async fn add_identity(&self, user: Uuid, issuer: &str, subject: &str) {
        let mut tx = self.app.db.begin().await.unwrap();
        let nothing = db::Json(json!({}));
        let added = db::users::add_identity(
            &mut tx,
            Uuid::now_v7(),
            user,
            "google",
            issuer,
            subject,
            &nothing,
            self.app.now(),
        );
        assert!(added.await.unwrap());
        tx.commit().await.unwrap();
    }
}

both_engines! {
    async fn who_comes_for_the_first_time_is_a_user_and_the_same_from_then_on(engine: Engine) {
        let test = Federated::new(engine).await;

        let first = test.let_in("google", ada(json!({"picture": "https://example.com/ada.png"}))).await;
        let again = test.let_in("google", ada(json!({}))).await;

        let user = &first["user"];
        assert_eq!((&user["email"], &user["is_anonymous"]), (&json!("ada@gmail.com"), &json!(false)));
        assert!(user["email_confirmed_at"].is_string());
        assert_eq!(user["app_metadata"], json!({"provider": "google", "providers": ["google"]}));
        let person = json!({"name": "Ada Lovelace", "full_name": "Ada Lovelace",
                            "picture": "https://example.com/ada.png", "avatar_url": "https://example.com/ada.png"});
        assert_eq!(user["user_metadata"], person);
        let identity = &user["identities"][0];
        assert_eq!((&identity["provider"], &identity["id"]), (&json!("google"), &json!("1")));
        assert_eq!(identity["identity_data"]["email"], "ada@gmail.com");
        assert_eq!(super::access::claims(first["access_token"].as_str().unwrap())["amr"][0]["method"], "oauth");
        assert_eq!(again["user"]["id"], user["id"]);
        assert_eq!((&first["is_new"], &again["is_new"]), (&json!(true), &json!(false)));
        assert_eq!(again["user"]["user_metadata"], person, "what it said once stays");
        assert_eq!((test.rows("users").await, test.rows("identities").await), (1, 1));
        assert_eq!(test.rows("sessions").await, 2, "each with its own session");
        assert_eq!(test.mails_waiting().await, 0);
    }

    async fn the_short_paths_lead_to_the_same_user(engine: Engine) {
        let test = Federated::new(engine).await;
        let known = test.let_in("google", ada(json!({}))).await;

        for path in ["/auth/google", "/auth/oauth/google"] {
            let token = test.token("google", ada(json!({"nonce": "raw"})));
            let answer = test.post("", path, json!({"id_token": token, "nonce": "raw"})).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(answer.json()["user"]["id"], known["user"]["id"], "{path}");
            assert_eq!(answer.header("cache-control"), "no-store");
        }
        for path in ["/auth/apple", "/auth/oauth/apple"] {
            let token = test.token("google", ada(json!({})));
            let answer = test.post("", path, json!({"id_token": token})).await;
            assert_eq!(answer.refusal(), refused(401, "invalid_id_token"), "{path}: another provider's");
        }
        assert_eq!(test.rows("users").await, 1);
    }

    /// Invariant 14.
    async fn a_token_that_is_not_believed_makes_nobody_and_is_in_the_log(engine: Engine) {
        let test = Federated::new(engine).await;
        let now = test.app.now().unix();

        for wrong in [json!({"aud": "another"}), json!({"iss": APPLE}), json!({"exp": now}), json!({"sub": ""}), json!({"nonce": "of another"})] {
            let answer = test.come("google", &test.token("google", ada(wrong.clone()))).await;
            assert_eq!(answer.refusal(), refused(401, "invalid_id_token"), "{wrong}");
            assert_eq!(test.decided().await, ("login".into(), Some("invalid_id_token".into())));
        }
        let forged = sign(1, &ada(json!({"iss": GOOGLE, "aud": "ios", "iat": now, "exp": now + 3600})));
        assert_eq!(test.come("google", &forged).await.refusal(), refused(401, "invalid_id_token"));
        test.assert_nobody_new(0, 0).await;
    }

    /// Invariant 18: what the request says of issuer and audience is not even read.
    async fn the_request_names_a_provider_and_nothing_else_about_it(engine: Engine) {
        let test = Federated::new(engine).await;
        let token = test.token("google", ada(json!({"aud": "evil"})));

        let body = json!({"provider": "google", "id_token": token, "client_id": "evil", "issuer": "https://evil.example"});
        assert_eq!(test.post("", ID_TOKEN, body).await.refusal(), refused(401, "invalid_id_token"));
        for unknown in ["facebook", "firebase", "supabase", "", "custom:evil"] {
            let answer = test.come(unknown, &token).await;
            assert_eq!(answer.refusal(), refused(400, "provider_disabled"), "{unknown}");
        }
        for body in [json!({}), json!({"provider": "google"}), json!({"id_token": token}), json!({"provider": 1, "id_token": token})] {
            assert_eq!(test.post("", ID_TOKEN, body).await.refusal(), refused(400, "validation_failed"));
        }
        test.assert_nobody_new(0, 0).await;
    }

    /// Invariant 15.
    async fn a_token_signs_in_once(engine: Engine) {
        let test = Federated::new(engine).await;
        let token = test.google("1", "ada@gmail.com");
        assert_eq!(test.come("google", &token).await.status, 200);

        let again = test.come("google", &token).await;
        let elsewhere = test.post("", "/auth/google", json!({"id_token": token})).await;

        assert_eq!(again.refusal(), refused(409, "id_token_replayed"));
        assert_eq!(elsewhere.refusal(), refused(409, "id_token_replayed"));
        assert_eq!(test.decided().await, ("login".into(), Some("id_token_replayed".into())));
        test.assert_nobody_new(1, 1).await;
    }

    /// Invariant 15: whoever finds a token that was refused has nothing.
    async fn a_token_that_was_refused_is_used_up(engine: Engine) {
        let test = Federated::new(engine).await;
        let (ada, mallory) = (test.sign_up("ada@example.com").await, test.sign_up("mallory@example.com").await);
        let token = test.token("google", elsewhere("ada@example.com"));
        assert_eq!(test.come("google", &token).await.refusal(), refused(409, "account_link_required"));

        let linked = test.link(&mallory.token, "google", &token).await;

        assert_eq!(linked.refusal(), refused(409, "id_token_replayed"));
        assert_eq!(test.identities(&mallory).await.len(), 1);
        assert_eq!(test.identities(&ada).await.len(), 1);
    }

    /// Invariant 5; T1, T3: whoever runs the mailbox says that it is hers, or that she once showed it.
    async fn a_password_that_another_chose_before_her_is_dead(engine: Engine) {
        for word in [json!({"hd": "example.com"}), json!({})] {
            let test = Federated::with(engine, CONFIRMING).await;
            let prepared = test.prepare("ada@example.com").await;
            let code = test.mailed_code("ada@example.com").await;

            let session = test.let_in("google", ada(json!({"email": "ada@example.com", "hd": word["hd"]}))).await;

            assert_eq!(session["user"]["id"], json!(prepared));
            assert_eq!(session["user"]["user_metadata"], json!({"name": "Ada Lovelace", "full_name": "Ada Lovelace"}));
            let attacker = test.sign_in("ada@example.com", "of the attacker").await;
            assert_eq!(attacker.refusal(), refused(400, "invalid_credentials"), "{word}");
            assert_eq!(test.verify("ada@example.com", &code).await.refusal(), refused(403, "otp_expired"));
            test.assert_nobody_new(1, 1).await;
        }
    }

    /// Invariant 6; T2.
    async fn an_identity_that_another_linked_before_her_is_dropped(engine: Engine) {
        let test = Federated::with(engine, CONFIRMING).await;
        let prepared = test.prepare("ada@example.com").await;
        test.add_identity(prepared, GOOGLE, "of the attacker").await;

        let session = test.let_in("google", ada(json!({"email": "ada@example.com"}))).await;

        let user: Uuid = session["user"]["id"].as_str().unwrap().parse().unwrap();
        assert_eq!(user, prepared);
        let left = test.identities_of(user).await;
        assert_eq!(left.iter().map(|(_, subject)| &**subject).collect::<Vec<_>>(), [&*user.to_string(), "1"]);
        let attacker = test.let_in("google", json!({"sub": "of the attacker"})).await;
        assert_ne!(attacker["user"]["id"], session["user"]["id"]);
    }

    /// Invariant 9; T10.
    async fn whatever_another_left_open_before_her_is_closed(engine: Engine) {
        let test = Federated::with(engine, CONFIRMING).await;
        let prepared = test.prepare("ada@example.com").await;
        let now = test.app.now();
        let mut tx = test.app.db.begin().await.unwrap();
        let later = now + Duration::from_secs(86_400);
        let new = db::sessions::NewSession { user: prepared, refresh_secret: b"s", method: "password", ip: None, user_agent: None,
                                             idle_expires_at: later, absolute_expires_at: later };
        let left_open = db::sessions::create(&mut tx, new, now).await.unwrap();
        db::factors::create(&mut tx, Uuid::now_v7(), prepared, "totp", "", "verified", Some(b"s"), now).await.unwrap();
        let key = db::passkeys::NewPasskey { user: prepared, credential_id: b"c", public_key: b"k", sign_count: 0, backup_eligible: false,
                                             backed_up: false, aaguid: Uuid::nil(), transports: vec![] };
        db::passkeys::create(&mut tx, key, now).await.unwrap().unwrap();
        tx.commit().await.unwrap();
        assert!(test.rows("one_time_tokens").await > 0);

        test.let_in("google", ada(json!({"email": "ada@example.com"}))).await;

        let standing = db::sessions::standing(&test.app.db, left_open.id).await.unwrap().unwrap();
        assert!(standing.revoked_at.is_some());
        for nothing in ["one_time_tokens", "mfa_factors", "webauthn_credentials"] {
            assert_eq!(test.rows(nothing).await, 0, "{nothing}");
        }
    }

    /// T10: what somebody used under an address that they never proved is not hers, and she is not theirs.
    async fn who_was_let_in_without_proof_of_an_address_keeps_everything_but_the_address(engine: Engine) {
        let test = Federated::new(engine).await;
        let used = test.sign_up("ada@example.com").await;
        db::testing::execute(&test.app.db, "update users set email_confirmed_at = null").await.unwrap();

        let session = test.let_in("google", ada(json!({"email": "ada@example.com"}))).await;

        assert_ne!(session["user"]["id"], json!(used.id));
        assert_eq!(session["user"]["email"], "ada@example.com");
        assert_eq!(test.get(&used.token, USER).await.json()["email_confirmed_at"], Value::Null);
        assert_eq!(test.by_email("ada@example.com").await.id.to_string(), session["user"]["id"]);
    }

    /// Invariant 10; T6, T11.
    async fn an_address_that_the_provider_did_not_verify_opens_nothing(engine: Engine) {
        for word in [json!(false), json!("false"), Value::Null, json!(1)] {
            let test = Federated::with(engine, CONFIRMING).await;
            let known = test.let_in("apple", json!({"sub": "9", "email": "ada@icloud.com", "email_verified": true})).await;
            let prepared = test.prepare("bob@icloud.com").await;

            for (subject, email) in [("1", "ada@icloud.com"), ("2", "bob@icloud.com"), ("3", "new@icloud.com")] {
                let claims = json!({"sub": subject, "email": email, "email_verified": word, "xms_edov": true});
                let session = test.let_in("apple", claims).await;
                assert_eq!(session["user"]["email"], "", "{word} {email}");
                assert_eq!(session["user"]["email_confirmed_at"], Value::Null);
                assert_ne!(session["user"]["id"], known["user"]["id"]);
                assert_ne!(session["user"]["id"], json!(prepared));
            }
            assert_eq!(test.rows("users").await, 5);
        }
    }

    /// Invariant 11; T7.
    async fn the_same_subject_at_another_issuer_is_another_user(engine: Engine) {
        let test = Federated::new(engine).await;

        let mut users = vec![];
        for provider in ["google", "apple", "oidc"] {
            let session = test.let_in(provider, json!({"sub": "1"})).await;
            users.push(session["user"]["id"].to_string());
        }

        users.sort();
        users.dedup();
        assert_eq!(users.len(), 3);
    }

    /// Invariant 12; T8: what users say of themselves proves nothing.
    async fn what_is_said_in_user_metadata_confirms_nothing(engine: Engine) {
        let test = Federated::with(engine, CONFIRMING).await;
        let data = json!({"email_verified": true, "email": "ada@example.com", "role": "admin", "provider": "google", "sub": "1"});
        let body = json!({"email": "ada@example.com", "password": PASSWORD, "data": data});
        test.post("", SIGN_UP, body).await;

        let session = test.let_in("google", elsewhere("ada@example.com")).await;

        assert_eq!(session["user"]["role"], "authenticated");
        assert_eq!(session["user"]["user_metadata"], json!({}), "it was a claim, and is gone");
        let signed = test.call(Method::PUT, session["access_token"].as_str().unwrap(), USER, json!({"data": data})).await;
        assert_eq!(signed.status, 200);
        let again = test.let_in("google", elsewhere("ada@example.com")).await;
        assert_eq!(super::access::claims(again["access_token"].as_str().unwrap())["role"], "authenticated");
        assert_eq!(again["user"]["app_metadata"]["providers"], json!(["email", "google"]));
    }

    /// Invariant 13; T9.
    async fn who_does_not_run_the_mailbox_cannot_give_its_account_away(engine: Engine) {
        let test = Federated::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;

        for claims in [elsewhere("ada@example.com"), json!({"sub": "1", "email": "Ada@Example.com", "email_verified": true, "hd": "evil.example"})] {
            let answer = test.come("google", &test.token("google", claims)).await;
            assert_eq!(answer.refusal(), refused(409, "account_link_required"));
            let body = answer.json();
            assert_eq!((&body["provider"], &body["email"]), (&json!("google"), &json!("ada@example.com")));
        }

        assert_eq!(test.decided().await, ("login".into(), Some("account_link_required".into())));
        assert_eq!(test.identities(&ada).await.len(), 1);
        test.assert_nobody_new(1, 1).await;
        assert_eq!(test.mails_waiting().await, 0);
    }

    /// Invariant 13: and what they are told to do, does.
    async fn who_signs_in_as_usual_links_and_is_let_in_by_both(engine: Engine) {
        let test = Federated::new(engine).await;
        test.sign_up("ada@example.com").await;
        let here = test.sign_in_again("ada@example.com").await;

        let linked = test.link(&here.token, "google", &test.token("google", elsewhere("ada@example.com"))).await;

        assert_eq!(linked.status, 200, "{}", linked.text());
        assert_eq!(linked.json()["user"]["id"], json!(here.id));
        assert_eq!(linked.json()["user"]["app_metadata"]["providers"], json!(["email", "google"]));
        let session = test.let_in("google", elsewhere("ada@example.com")).await;
        assert_eq!(session["user"]["id"], json!(here.id));
        assert_eq!(test.sign_in("ada@example.com", PASSWORD).await.status, 200);
        test.work().await;
        let subjects: Vec<_> = test.world.mailbox().to("ada@example.com").into_iter().map(|mail| mail.subject).collect();
        assert_eq!(subjects, ["Google was linked to your account"]);
    }

    async fn who_runs_the_mailbox_opens_its_account_and_its_owner_hears_of_it(engine: Engine) {
        let test = Federated::new(engine).await;
        let ada = test.sign_up("ada@gmail.com").await;

        let session = test.let_in("google", self::ada(json!({}))).await;

        assert_eq!(session["user"]["id"], json!(ada.id));
        assert_eq!(session["user"]["app_metadata"], json!({"provider": "email", "providers": ["email", "google"]}));
        assert_eq!(test.get(&ada.token, USER).await.status, 200, "nobody is signed out");
        assert_eq!(test.sign_in("ada@gmail.com", PASSWORD).await.status, 200);
        test.work().await;
        assert_eq!(test.world.mailbox().to("ada@gmail.com").len(), 1);
        assert_eq!(test.rows("users").await, 1);
    }

    /// Invariant 19.
    async fn what_apple_says_once_is_kept(engine: Engine) {
        let test = Federated::new(engine).await;
        let relay = json!({"sub": "1", "email": "x@privaterelay.appleid.com", "email_verified": "true"});
        let token = test.token("apple", relay);
        let first = test.post("", "/auth/apple", json!({"id_token": token, "name": "Ada Lovelace"})).await.json();

        let second = test.let_in("apple", json!({"sub": "1"})).await;

        assert_eq!(second["user"]["id"], first["user"]["id"]);
        assert_eq!(second["user"]["email"], "x@privaterelay.appleid.com");
        assert_eq!(second["user"]["user_metadata"]["full_name"], "Ada Lovelace");
        let data = &second["user"]["identities"][0]["identity_data"];
        assert_eq!((&data["email"], &data["email_verified"], &data["name"]),
                   (&json!("x@privaterelay.appleid.com"), &json!(true), &json!("Ada Lovelace")));
    }

    /// Invariant 20.
    async fn a_name_that_nobody_signed_is_a_line_of_text_and_takes_no_place_that_is_taken(engine: Engine) {
        let test = Federated::new(engine).await;
        let come = async |provider: &str, claims: Value, name: &str| {
            let token = test.token(provider, claims);
            let answer = test.post("", &format!("/auth/{provider}"), json!({"id_token": token, "name": name})).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            answer.json()["user"].clone()
        };
        let long = format!("  <b>Ada</b>\n\u{7}{}", "x".repeat(300));

        let ada = come("apple", json!({"sub": "1"}), &long).await;
        let renamed = come("apple", json!({"sub": "1"}), "Mallory").await;
        let signed = come("google", json!({"sub": "1", "name": "Grace Hopper"}), "Mallory").await;

        let name = ada["user_metadata"]["name"].as_str().unwrap();
        assert_eq!((&name[..14], name.chars().count()), ("<b>Ada</b>xxxx", 200));
        assert_eq!(renamed["user_metadata"], ada["user_metadata"]);
        assert_eq!(renamed["identities"][0]["identity_data"]["name"], json!(name));
        assert_eq!(signed["user_metadata"]["name"], "Grace Hopper");
        assert_eq!(signed["identities"][0]["identity_data"]["name"], "Grace Hopper");
        let empty = come("apple", json!({"sub": "2"}), " \n ").await;
        assert_eq!(empty["user_metadata"], json!({}));
    }

    async fn what_they_said_themselves_is_not_said_over(engine: Engine) {
        let test = Federated::new(engine).await;
        let ada = Person::of(&test.let_in("google", self::ada(json!({}))).await);
        test.call(Method::PUT, &ada.token, USER, json!({"data": {"full_name": "Countess", "name": null}})).await;

        let again = test.let_in("google", self::ada(json!({"name": "A. Lovelace"}))).await;

        assert_eq!(again["user"]["user_metadata"], json!({"full_name": "Countess", "name": "A. Lovelace"}));
        assert_eq!(again["user"]["identities"][0]["identity_data"]["full_name"], "A. Lovelace");
    }

    /// Invariant 4: and who only claims the address blocks none of them.
    async fn fifty_who_come_at_once_with_one_address_are_one_user(engine: Engine) {
        let test = Federated::with(engine, CONFIRMING).await;
        test.prepare("ada@gmail.com").await;
        let written = ["ada@gmail.com", "ADA@gmail.com", "Ada@Gmail.com"];
        let tokens: Vec<_> = (0..50).map(|n| test.google(&format!("{}", n % 25), written[n % 3])).collect();

        let coming = tokens.iter().map(|token| test.come("google", token));
        let answers = futures_util::future::join_all(coming).await;

        let owner = test.by_email("ada@gmail.com").await;
        for answer in &answers {
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(answer.json()["user"]["id"], json!(owner.id));
        }
        assert!(owner.email_confirmed_at.is_some());
        assert_eq!(test.rows("users").await, 1);
        assert_eq!(test.rows("identities").await, 26, "and the address");
    }

    async fn fifty_who_come_at_once_as_one_are_one_user(engine: Engine) {
        let test = Federated::new(engine).await;
        let tokens: Vec<_> = (0..50).map(|_| test.token("oidc", json!({"sub": "1"}))).collect();

        let coming = tokens.iter().map(|token| test.come("oidc", token));
        let answers = futures_util::future::join_all(coming).await;

        assert!(answers.iter().all(|answer| answer.status == 200));
        assert_eq!((test.rows("users").await, test.rows("identities").await), (1, 1));
    }

    async fn nobody_new_is_taken_where_sign_up_is_closed(engine: Engine) {
        let test = Federated::with(engine, &[("AUTH_SIGNUP", "false")]).await;
        let open = test.test.beside(&[("GOOGLE_CLIENT_ID", "web,ios"), ("GOOGLE_JWKS_URL", &format!("{}/keys", test.issuer.url))]).await;
        let body = json!({"provider": "google", "id_token": test.google("1", "ada@gmail.com")});
        open.later(Duration::from_secs(1));
        assert_eq!(open.post("", ID_TOKEN, body).await.status, 200);

        let known = test.come("google", &test.google("1", "ada@gmail.com")).await;
        let new = test.come("google", &test.google("2", "grace@gmail.com")).await;

        assert_eq!(known.status, 200, "{}", known.text());
        assert_eq!(new.refusal(), refused(422, "signup_disabled"));
        assert_eq!(test.decided().await, ("login".into(), Some("signup_disabled".into())));
        test.assert_nobody_new(1, 2).await;
    }

    /// Invariant 36.
    async fn who_is_banned_comes_in_by_no_provider(engine: Engine) {
        let test = Federated::new(engine).await;
        test.let_in("google", ada(json!({}))).await;
        test.ban("ada@gmail.com").await;

        for (provider, claims) in [("google", ada(json!({}))), ("google", ada(json!({"sub": "2"})))] {
            let answer = test.come(provider, &test.token(provider, claims)).await;
            assert_eq!(answer.refusal(), refused(403, "user_banned"));
            assert_eq!(test.decided().await, ("login".into(), Some("user_banned".into())));
        }
        test.assert_nobody_new(1, 1).await;
        assert_eq!(test.rows("identities").await, 1);
    }

    /// T12: whose account it is added to says the token of who asks, and nothing else does.
    async fn nobody_links_without_being_signed_in_and_nobody_who_only_signs_in_is_linked(engine: Engine) {
        let test = Federated::new(engine).await;
        let victim = test.sign_up("ada@example.com").await;

        let nobody = test.link("", "google", &test.google("1", "mallory@gmail.com")).await;
        let forged = test.link("x", "google", &test.google("1", "mallory@gmail.com")).await;
        let body = json!({"provider": "google", "id_token": test.google("1", "mallory@gmail.com")});
        let signed_in = test.post(&victim.token, ID_TOKEN, body).await;

        assert_eq!(nobody.refusal(), refused(401, "no_authorization"));
        assert_eq!(forged.refusal(), refused(403, "bad_jwt"));
        assert_ne!(signed_in.json()["user"]["id"], json!(victim.id));
        assert_eq!(test.identities(&victim).await.len(), 1);
    }

    /// Invariant 54.
    async fn linking_asks_for_a_fresh_sign_in_and_can_be_turned_off(engine: Engine) {
        let test = Federated::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let closed = test.test.beside(&[("AUTH_MANUAL_LINKING", "false")]).await;
        let body = json!({"provider": "google", "id_token": test.google("1", "ada@gmail.com"), "link_identity": true});
        assert_eq!(closed.post(&ada.token, ID_TOKEN, body).await.refusal(), refused(404, "manual_linking_disabled"));
        test.later(Duration::from_secs(301));

        let stale = test.link(&ada.token, "google", &test.google("1", "ada@gmail.com")).await;

        assert_eq!(stale.refusal(), refused(403, "reauthentication_needed"));
        assert_eq!(test.identities(&ada).await.len(), 1);
    }

    /// Invariant 54: who has no address could be given another's.
    async fn a_first_address_asks_for_a_fresh_sign_in(engine: Engine) {
        let test = Federated::with(engine, CONFIRMING).await;
        let ada = Person::of(&test.let_in("apple", json!({"sub": "1"})).await);
        test.later(Duration::from_secs(301));

        let answer = test.call(Method::PUT, &ada.token, USER, json!({"email": "mallory@example.com"})).await;

        assert_eq!(answer.refusal(), refused(403, "reauthentication_needed"));
        assert_eq!(test.mails_waiting().await, 0);
    }

    async fn what_is_anothers_is_not_linked_and_what_is_ones_own_stays(engine: Engine) {
        let test = Federated::new(engine).await;
        let owner = test.let_in("google", ada(json!({}))).await;
        let other = test.sign_up("grace@example.com").await;

        let refusal = test.link(&other.token, "google", &test.google("1", "ada@gmail.com")).await;
        let own = owner["access_token"].as_str().unwrap();
        let again = test.link(own, "google", &test.google("1", "ada@gmail.com")).await;

        assert_eq!(refusal.refusal(), refused(422, "identity_already_exists"));
        assert_eq!(again.status, 200, "{}", again.text());
        assert_eq!(again.json()["user"]["identities"].as_array().unwrap().len(), 1);
        assert_eq!(test.identities(&other).await.len(), 1);
    }

    /// Invariant 56.
    async fn who_is_anonymous_is_somebody_from_then_on_under_the_same_id(engine: Engine) {
        let test = Federated::with(engine, &[("AUTH_ANONYMOUS", "true")]).await;
        let nobody = test.anonymous().await;
        test.later(Duration::from_secs(3600 - 2));

        let linked = test.link(&nobody.token, "google", &test.token("google", ada(json!({})))).await;

        assert_eq!(linked.status, 200, "{}", linked.text());
        let user = &linked.json()["user"];
        assert_eq!((&user["id"], &user["email"]), (&json!(nobody.id), &json!("ada@gmail.com")));
        assert_eq!((&user["is_anonymous"], &user["app_metadata"]["providers"]), (&json!(false), &json!(["google"])));
        assert_eq!(test.let_in("google", ada(json!({}))).await["user"]["id"], json!(nobody.id));
        assert_eq!(test.rows("users").await, 1);
    }

    /// Invariant 56: who has an account here already is told so, and nothing is mixed.
    async fn who_is_anonymous_and_was_here_before_is_sent_to_their_account(engine: Engine) {
        let test = Federated::with(engine, &[("AUTH_ANONYMOUS", "true")]).await;
        test.let_in("google", ada(json!({}))).await;
        test.sign_up("grace@example.com").await;
        let nobody = test.anonymous().await;

        let by_identity = test.link(&nobody.token, "google", &test.token("google", ada(json!({})))).await;
        let by_address = test.link(&nobody.token, "google", &test.token("google", ada(json!({"sub": "2", "email": "grace@example.com"})))).await;

        assert_eq!(by_identity.refusal(), refused(422, "identity_already_exists"));
        assert_eq!(by_address.refusal(), refused(409, "account_link_required"));
        let user = test.get(&nobody.token, USER).await.json();
        assert_eq!((&user["is_anonymous"], &user["identities"]), (&json!(true), &json!([])));
        assert_eq!(test.rows("users").await, 3);
    }

    async fn an_identity_is_of_the_client_that_what_revokes_it_was_given_to(engine: Engine) {
        let test = Federated::new(engine).await;
        let of = async |client: &str| test.rows(&format!("identities where client_id = '{client}'")).await;

        test.let_in("apple", json!({"sub": "1"})).await;
        assert_eq!(of("app").await, 1);
        test.let_in("apple", json!({"sub": "1", "aud": "services"})).await;
        assert_eq!(of("services").await, 1);

        let provider = test.app.issuers.named("apple").unwrap();
        let token = test.token("apple", json!({"sub": "1", "aud": "services"}));
        let claims = id_token::check(&test.app, &token, provider, Default::default()).await.unwrap();
        let beside = Beside { refresh_token: Some("of services"), ..Beside::default() };
        let client = Client { address: "127.0.0.1".into(), agent: None, language: None, request_id: String::new() };
        let mut tx = test.app.db.begin().await.unwrap();
        let arrived = federation::sign_in(&test.app, &mut tx, &claims, beside, &client, test.app.now()).await;
        arrived.unwrap().unwrap();
        tx.commit().await.unwrap();
        test.let_in("apple", json!({"sub": "1"})).await;
        assert_eq!(of("services").await, 1, "it has something to give back");
        assert_eq!(test.rows("identities where refresh_token is not null").await, 1);
    }
}
