use super::{authenticator::Authenticator, *};

const NEW: &str = "countess@example.com";
const OLD: &str = "ada@example.com";

impl Test {
    /// Signed up and confirmed, where that is asked for.
    async fn confirmed(&self, email: &str) -> Person {
        self.ask_to_sign_up(email, PASSWORD).await;
        let code = self.mailed_code(email).await;
        Person::of(&self.verify(email, &code).await.json())
    }

    async fn put_user(&self, token: &str, body: Value) -> Answer {
        self.call(Method::PUT, token, USER, body).await
    }

    /// Whoever reads the mail of both addresses, that of now first; gives the answer to the second.
    async fn move_address(&self, from: &str, to: &str) -> Answer {
        let (agreed, code) = (self.mailed_code(from).await, self.mailed_code(to).await);
        let halfway = self.confirm_change(from, &agreed).await;
        assert_eq!(
            halfway.json(),
            json!({"msg": crate::auth::verify::HALFWAY, "code": "200"})
        );
        self.confirm_change(to, &code).await
    }

    async fn confirm_change(&self, email: &str, code: &str) -> Answer {
        let body = json!({"type": "email_change", "email": email, "token": code});
        self.post("", "/auth/v1/verify", body).await
    }
}

both_engines! {
    /// Invariant 50.
    async fn a_new_address_counts_once_it_is_confirmed_and_the_old_one_hears_of_it(engine: Engine) {
        let test = Test::with(engine, CONFIRMING).await;
        let ada = test.confirmed(OLD).await;
        test.world.mailbox().clear();

        let asked = test.put_user(&ada.token, json!({"email": " Countess@example.com"})).await;

        assert_eq!(asked.status, 200, "{}", asked.text());
        assert_eq!((&asked.json()["email"], &asked.json()["new_email"]), (&json!(OLD), &json!(NEW)));
        let code = test.mailed_code(NEW).await;
        assert_eq!(test.world.mailbox().to(OLD).len(), 1);
        assert_eq!(test.confirm_change(OLD, &code).await.refusal(), refused(403, "otp_expired"), "it is for the other address");
        let confirmed = test.move_address(OLD, NEW).await;
        assert_eq!(confirmed.status, 200, "{}", confirmed.text());
        let user = &confirmed.json()["user"];
        assert_eq!((&user["id"], &user["email"], user.get("new_email")), (&json!(ada.id), &json!(NEW), None));
        assert_eq!(user["identities"][0]["identity_data"], json!({"sub": ada.id, "email": NEW, "email_verified": true}));
        assert_eq!(test.get(&ada.token, USER).await.json(), *user);
        assert_eq!(test.sign_in(OLD, PASSWORD).await.refusal(), refused(400, "invalid_credentials"));
        assert_eq!(test.sign_in(NEW, PASSWORD).await.status, 200);
        test.work().await;
        assert_eq!(test.world.mailbox().to(OLD).last().unwrap().subject, "Your address was changed");
    }

    /// Invariant 50.
    async fn either_address_may_confirm_first_and_neither_alone_moves_anything(engine: Engine) {
        let test = Test::with(engine, CONFIRMING).await;
        for (n, order) in [[0, 1], [1, 0]].into_iter().enumerate() {
            let (old, new) = (format!("ada{n}@example.com"), format!("countess{n}@example.com"));
            let ada = test.confirmed(&old).await;
            test.put_user(&ada.token, json!({"email": new})).await;
            let codes = [test.mailed_code(&old).await, test.mailed_code(&new).await];
            let confirm = async |side: usize| test.confirm_change([&old, &new][side], &codes[side]).await;
            let sessions = test.rows("sessions").await;

            let first = confirm(order[0]).await;

            assert_eq!((first.status.as_u16(), first.json()), (200, json!({"msg": crate::auth::verify::HALFWAY, "code": "200"})));
            assert_eq!(test.rows("sessions").await, sessions, "it signs nobody in");
            assert_eq!(confirm(order[0]).await.refusal(), refused(403, "otp_expired"), "once, and not for both");
            let user = test.get(&ada.token, USER).await.json();
            assert_eq!((&user["email"], &user["new_email"]), (&json!(old), &json!(new)));
            let newest = db::audit::page(&test.app.db, None, 2).await.unwrap().remove(1);
            assert_eq!((newest.action.as_str(), newest.outcome.as_str()), ("user_confirmed", "succeeded"));

            let second = confirm(order[1]).await;

            assert_eq!((&second.json()["user"]["id"], &second.json()["user"]["email"]), (&json!(ada.id), &json!(new)));
            assert_eq!(test.get(&ada.token, USER).await.json().get("new_email"), None);
            assert!(test.mailed_link(&old).await.unwrap().contains("email_change_undo"), "it can be taken back all the same");
        }
    }

    /// Invariant 50.
    async fn the_links_of_both_sides_say_what_is_missing(engine: Engine) {
        let test = Test::with(engine, CONFIRMING).await;
        let ada = test.confirmed(OLD).await;
        test.put_user(&ada.token, json!({"email": NEW})).await;
        let (old, new) = (test.mailed_link(OLD).await.unwrap(), test.mailed_link(NEW).await.unwrap());

        let halfway = test.press(&old).await;

        assert_eq!(halfway.status, 200);
        assert!(halfway.text().contains("once the link that was sent to the other address is followed too"), "{}", halfway.text());
        assert_eq!(test.press(&old).await.status, 403, "once");
        assert_eq!(test.get(&ada.token, USER).await.json()["email"], OLD);
        assert!(test.press(&new).await.text().contains("Your address is confirmed"));
        assert_eq!(test.get(&ada.token, USER).await.json()["email"], NEW);

        let pkce = json!({"email": OLD, "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM", "code_challenge_method": "s256"});
        let asked = test.call(Method::PUT, &ada.token, "/auth/v1/user?redirect_to=http://localhost:3000/done", pkce).await;
        assert_eq!(asked.status, 200, "{}", asked.text());
        let (old, new) = (test.mailed_link(NEW).await.unwrap(), test.mailed_link(OLD).await.unwrap());
        let landed = test.press(&new).await.header("location").to_owned();
        let message = "message=Confirmation+link+accepted.+Please+proceed+to+confirm+link+sent+to+the+other+email";
        assert_eq!(landed, format!("http://localhost:3000/done?{message}#{message}"));
        assert!(test.press(&old).await.header("location").starts_with("http://localhost:3000/done?code="));
        assert_eq!(test.get(&ada.token, USER).await.json()["email"], OLD);
    }

    async fn who_has_confirmed_is_not_asked_again(engine: Engine) {
        let test = Test::with(engine, CONFIRMING).await;
        let ada = test.confirmed(OLD).await;
        test.put_user(&ada.token, json!({"email": NEW})).await;
        let agreed = test.mailed_code(OLD).await;
        test.confirm_change(OLD, &agreed).await;
        let mails = test.world.mailbox().to(OLD).len();

        test.post("", "/auth/v1/resend", json!({"type": "email_change", "email": OLD})).await;

        let code = test.mailed_code(NEW).await;
        assert_eq!((test.world.mailbox().to(OLD).len(), test.world.mailbox().to(NEW).len()), (mails, 2));
        assert_eq!(test.confirm_change(NEW, &code).await.json()["user"]["email"], NEW);
    }

    async fn where_it_is_turned_off_the_new_address_confirms_alone(engine: Engine) {
        let test = Test::with(engine, &[("AUTH_AUTOCONFIRM", "false"), ("AUTH_SECURE_EMAIL_CHANGE", "false")]).await;
        let ada = test.confirmed(OLD).await;
        test.work().await;
        test.world.mailbox().clear();

        test.put_user(&ada.token, json!({"email": NEW})).await;

        let code = test.mailed_code(NEW).await;
        assert_eq!(test.world.mailbox().to(OLD).len(), 0);
        assert_eq!(test.confirm_change(NEW, &code).await.json()["user"]["email"], NEW);
    }

    /// Invariant 50.
    async fn the_old_address_takes_the_change_back_for_three_days(engine: Engine) {
        let test = Test::with(engine, CONFIRMING).await;
        let ada = test.confirmed(OLD).await;
        test.put_user(&ada.token, json!({"email": NEW})).await;
        let thief = Person::of(&test.move_address(OLD, NEW).await.json());
        let link = test.mailed_link(OLD).await.unwrap();
        test.later(Duration::from_secs(72 * 3600 - 1));
        assert_eq!(test.get("", &link).await.status, 200);
        assert_eq!(test.sign_in(NEW, PASSWORD).await.status, 200, "a look at the link changes nothing");

        let pressed = test.press(&link).await;

        assert_eq!(pressed.status, 200, "{}", pressed.text());
        assert!(pressed.text().contains("as it was"));
        assert_eq!(test.refresh(&thief.refresh_token).await.refusal(), refused(400, "refresh_token_not_found"));
        assert_eq!(test.sign_in(NEW, PASSWORD).await.refusal(), refused(400, "invalid_credentials"));
        let back = test.sign_in(OLD, PASSWORD).await;
        assert_eq!(back.json()["user"]["id"], json!(ada.id));
        assert_eq!(test.press(&link).await.status, 403, "once");
    }

    /// Invariant 50.
    async fn invariant_50_what_a_thief_added_since_lets_them_in_no_more_once_the_change_is_undone(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(OLD).await;
        let mut own = Authenticator::new("localhost", "http://localhost:8080");
        test.with_passkey(&ada, &mut own).await;
        test.later(Duration::from_secs(60));
        test.put_user(&ada.token, json!({"email": NEW})).await;
        let link = test.mailed_link(OLD).await.unwrap();
        test.later(Duration::from_secs(60));
        let mut thiefs = Authenticator::new("localhost", "http://localhost:8080");
        test.with_passkey(&ada, &mut thiefs).await;
        let app = factors::enrolled(&test, &ada.token).await;
        let thief = factors::proved(&test, &ada.token, &app, 0).await;
        let codes = test.post(&thief.token, "/auth/v1/factors/recovery-codes", json!({})).await;
        assert_eq!((codes.status.as_u16(), test.rows("mfa_factors").await), (200, 2));
        let (now, mut tx) = (test.app.now(), test.app.db.begin().await.unwrap());
        let (id, profile) = (uuid::Uuid::now_v7(), db::Json(json!({})));
        let linked = db::users::add_identity(&mut tx, id, ada.id.parse().unwrap(), "google", "https://accounts.google.com", "thief", &profile, now);
        assert!(linked.await.unwrap());
        tx.commit().await.unwrap();

        let pressed = test.press(&link).await;

        assert!(pressed.text().contains("added to the account since is gone"), "{}", pressed.text());
        assert_eq!(test.sign_in_with(&thiefs).await.refusal(), refused(400, "webauthn_verification_failed"));
        assert_eq!(test.sign_in_with(&own).await.status, 200);
        for (table, left) in [("mfa_factors", 0), ("mfa_recovery_codes", 0), ("webauthn_credentials", 1), ("identities", 1)] {
            assert_eq!(test.rows(table).await, left, "{table}");
        }
        let back = test.sign_in(OLD, PASSWORD).await;
        assert_eq!(back.json()["user"]["id"], json!(ada.id));
        assert_eq!(test.put_user(back.json()["access_token"].as_str().unwrap(), json!({"password": "a better password"})).await.status, 200, "no factor of a thief is asked for");
    }

    /// Invariant 50.
    async fn an_address_that_was_taken_back_is_not_moved_again_by_an_older_link(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(OLD).await;
        test.put_user(&ada.token, json!({"email": "first@example.com"})).await;
        let owners = test.mailed_link(OLD).await.unwrap();
        test.put_user(&ada.token, json!({"email": "second@example.com"})).await;
        let thiefs = test.mailed_link("first@example.com").await.unwrap();

        assert_eq!(test.press(&owners).await.status, 200);

        assert_eq!(test.press(&thiefs).await.status, 403);
        assert_eq!(test.sign_in(OLD, PASSWORD).await.json()["user"]["id"], json!(ada.id));
    }

    async fn after_three_days_a_change_stays(engine: Engine) {
        let test = Test::with(engine, CONFIRMING).await;
        let ada = test.confirmed(OLD).await;
        test.put_user(&ada.token, json!({"email": NEW})).await;
        test.move_address(OLD, NEW).await;
        let link = test.mailed_link(OLD).await.unwrap();

        test.later(Duration::from_secs(72 * 3600));

        assert_eq!(test.press(&link).await.status, 403);
        assert_eq!(test.sign_in(NEW, PASSWORD).await.status, 200);
    }

    /// Invariant 50.
    async fn a_pending_change_dies_with_a_new_password(engine: Engine) {
        let test = Test::with(engine, CONFIRMING).await;
        let ada = test.confirmed(OLD).await;
        test.put_user(&ada.token, json!({"email": NEW})).await;
        let code = test.mailed_code(NEW).await;
        let agreed = test.mailed_code(OLD).await;
        let link = test.mailed_link(NEW).await.unwrap();

        let changed = test.put_user(&ada.token, json!({"password": "a better password"})).await;

        assert_eq!(changed.json().get("new_email"), None);
        assert_eq!(test.confirm_change(OLD, &agreed).await.refusal(), refused(403, "otp_expired"));
        assert_eq!(test.confirm_change(NEW, &code).await.refusal(), refused(403, "otp_expired"));
        assert_eq!(test.press(&link).await.status, 403);
        assert_eq!(test.sign_in(OLD, "a better password").await.status, 200);
    }

    /// Invariant 9, as far as changes of the address are concerned.
    async fn a_pending_change_dies_with_the_adoption_of_its_account(engine: Engine) {
        let test = Test::with(engine, CONFIRMING).await;
        let ada = test.confirmed(OLD).await;
        test.put_user(&ada.token, json!({"email": NEW})).await;
        let code = test.mailed_code(NEW).await;

        let mut tx = test.app.db.begin().await.unwrap();
        crate::auth::adopt::wipe(&mut tx, ada.id.parse().unwrap(), test.app.now()).await.unwrap();
        tx.commit().await.unwrap();

        assert_eq!(test.confirm_change(NEW, &code).await.refusal(), refused(403, "otp_expired"));
    }

    async fn a_change_to_another_address_replaces_the_first(engine: Engine) {
        let test = Test::with(engine, CONFIRMING).await;
        let ada = test.confirmed(OLD).await;
        test.put_user(&ada.token, json!({"email": "first@example.com"})).await;
        let first = test.mailed_code("first@example.com").await;
        test.put_user(&ada.token, json!({"email": NEW})).await;

        assert_eq!(test.confirm_change("first@example.com", &first).await.refusal(), refused(403, "otp_expired"));
        test.work().await;
        let again = test.post("", "/auth/v1/resend", json!({"type": "email_change", "email": OLD})).await;
        assert_eq!((again.status.as_u16(), again.text()), (200, "{}".into()));
        assert_eq!(test.move_address(OLD, NEW).await.json()["user"]["email"], NEW);
        assert_eq!(test.world.mailbox().to(OLD).iter().filter(|mail| mail.subject.ends_with("to leave this address")).count(), 3);
    }

    async fn an_address_that_is_taken_does_not_move_and_nobody_is_told(engine: Engine) {
        let test = Test::with(engine, CONFIRMING).await;
        let ada = test.confirmed(OLD).await;
        let ben = test.confirmed("ben@example.com").await;

        let asked = test.put_user(&ada.token, json!({"email": "ben@example.com"})).await;

        assert_eq!((asked.status.as_u16(), &asked.json()["new_email"]), (200, &json!("ben@example.com")));
        assert_eq!(test.move_address(OLD, "ben@example.com").await.refusal(), refused(403, "otp_expired"));
        assert_eq!(test.get(&ada.token, USER).await.json().get("new_email"), None, "it will not be");
        assert_eq!(test.get(&ben.token, USER).await.json()["email"], "ben@example.com");
        assert_eq!(test.get(&ada.token, USER).await.json()["email"], OLD);
    }

    async fn an_old_sign_in_changes_no_address(engine: Engine) {
        let test = Test::with(engine, CONFIRMING).await;
        let ada = test.confirmed(OLD).await;
        test.later(Duration::from_secs(301));

        let asked = test.put_user(&ada.token, json!({"email": NEW, "data": {"changed": true}})).await;

        assert_eq!(asked.refusal(), refused(403, "reauthentication_needed"));
        assert_eq!(test.get(&ada.token, USER).await.json()["user_metadata"], json!({}));
        assert_eq!(test.mails_waiting().await, 0);
    }

    async fn where_no_proof_is_asked_an_address_changes_at_once(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(OLD).await;
        test.sign_up("ben@example.com").await;

        assert_eq!(test.put_user(&ada.token, json!({"email": "ben@example.com"})).await.refusal(), refused(422, "email_exists"));
        let changed = test.put_user(&ada.token, json!({"email": NEW})).await;

        assert_eq!((&changed.json()["email"], changed.json().get("new_email")), (&json!(NEW), None));
        assert!(test.mailed_link(OLD).await.is_some(), "it can be taken back all the same");
    }

    async fn who_was_anonymous_keeps_their_id_with_an_address(engine: Engine) {
        let test = Test::with(engine, &[("AUTH_AUTOCONFIRM", "false"), ("AUTH_ANONYMOUS", "true")]).await;
        // An anonymous user has no other session to prove themself with than this one.
        let answer = test.post("", SIGN_UP, json!({})).await;
        let guest = Person::of(&answer.json());
        test.later(Duration::from_secs(600));

        test.put_user(&guest.token, json!({"email": NEW})).await;
        let code = test.mailed_code(NEW).await;
        let user = test.confirm_change(NEW, &code).await.json()["user"].clone();

        assert_eq!((&user["id"], &user["is_anonymous"], &user["email"]), (&json!(guest.id), &json!(false), &json!(NEW)));
        assert_eq!(user["app_metadata"], json!({"provider": "email", "providers": ["email"]}));
        assert_eq!(user["identities"][0]["provider"], "email");
    }

    async fn a_mailed_nonce_stands_for_a_fresh_sign_in_once(engine: Engine) {
        let test = Test::with(engine, CONFIRMING).await;
        let ada = test.confirmed(OLD).await;
        test.later(Duration::from_secs(301));
        assert_eq!(test.get(&ada.token, "/auth/v1/reauthenticate").await.text(), "{}");
        let nonce = test.mailed_code(OLD).await;
        let change = async |nonce: &str, password: &str| test.put_user(&ada.token, json!({"password": password, "nonce": nonce})).await;

        assert_eq!(change(not(&nonce), "a better password").await.refusal(), refused(422, "reauthentication_not_valid"));
        assert_eq!(test.confirm_change(OLD, &nonce).await.refusal(), refused(403, "otp_expired"), "it signs nobody in");
        assert_eq!(change(&nonce, "a better password").await.status, 200);
        assert_eq!(change(&nonce, "a third password").await.refusal(), refused(422, "reauthentication_not_valid"));

        assert_eq!(test.sign_in(OLD, "a better password").await.status, 200);
    }

    /// Invariant 54.
    async fn a_first_password_too_asks_for_a_fresh_sign_in(engine: Engine) {
        let test = Test::with(engine, CONFIRMING).await;
        test.post("", "/auth/v1/otp", json!({"email": OLD})).await;
        let code = test.mailed_code(OLD).await;
        let body = json!({"type": "email", "email": OLD, "token": code});
        let ada = Person::of(&test.post("", "/auth/v1/verify", body).await.json());
        let change = json!({"password": PASSWORD, "current_password": "whatever"});
        test.later(Duration::from_secs(301));

        assert_eq!(test.put_user(&ada.token, change.clone()).await.refusal(), refused(403, "reauthentication_needed"));
        assert_eq!(test.sign_in(OLD, PASSWORD).await.refusal(), refused(400, "invalid_credentials"));
        test.get(&ada.token, "/auth/v1/reauthenticate").await;
        let nonce = test.mailed_code(OLD).await;
        let changed = test.put_user(&ada.token, json!({"password": PASSWORD, "nonce": nonce})).await;

        assert_eq!(changed.status, 200, "{}", changed.text());
        assert_eq!(test.sign_in(OLD, PASSWORD).await.status, 200);
    }

    async fn a_new_password_is_told_of_by_mail(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(OLD).await;

        test.put_user(&ada.token, json!({"password": "a better password"})).await;

        test.work().await;
        assert_eq!(test.world.mailbox().to(OLD).last().unwrap().subject, "Your password was changed");
    }
}
