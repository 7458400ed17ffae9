use super::*;

const INVITE: &str = "/auth/v1/invite";
const GENERATE: &str = "/auth/v1/admin/generate_link";
const APP: &str = "https://app.example.com/welcome";
const CONFIGURED: &[(&str, &str)] = &[("AUTH_REDIRECT_URLS", APP)];

impl Test {
    async fn generate(&self, body: Value) -> Answer {
        let path = format!("{GENERATE}?redirect_to={APP}");
        self.post(&self.service_key(), &path, body).await
    }

    async fn redeem_hash(&self, r#type: &str, secret: &Value) -> Answer {
        let body = json!({"type": r#type, "token_hash": secret});
        self.post("", "/auth/v1/verify", body).await
    }
}

both_engines! {
    async fn who_is_invited_comes_in_by_the_link_of_the_mail(engine: Engine) {
        let test = Test::with(engine, CONFIGURED).await;
        let body = json!({"email": "Ada@example.com", "data": {"team": "engines"}});

        let invited = test.post(&test.service_key(), &format!("{INVITE}?redirect_to={APP}"), body.clone()).await;

        assert_eq!(invited.status, 200, "{}", invited.text());
        assert_eq!((&invited.json()["email"], &invited.json()["email_confirmed_at"]), (&json!("ada@example.com"), &Value::Null));
        let link = test.mailed_link("ada@example.com").await.unwrap();
        let pressed = test.press(&link).await;
        assert_eq!(pressed.status, 303);
        let secret = pressed.header("location").strip_prefix(&format!("{APP}?token_hash=")).unwrap().split('&').next().unwrap().to_owned();
        assert_eq!(test.rows("sessions").await, 0, "the app does the rest");
        let session = test.redeem_hash("invite", &json!(secret)).await;
        assert_eq!(session.status, 200, "{}", session.text());
        assert_eq!(session.json()["user"]["id"], invited.json()["id"]);
        assert_eq!(session.json()["user"]["user_metadata"], json!({"team": "engines"}));
        assert_eq!(test.redeem_hash("invite", &json!(secret)).await.refusal(), refused(403, "otp_expired"));
        assert_eq!(test.post(&test.service_key(), INVITE, body).await.refusal(), refused(422, "email_exists"));
    }

    async fn nobody_prepares_the_account_of_who_is_invited(engine: Engine) {
        let test = Test::with(engine, CONFIRMING).await;
        test.ask_to_sign_up("ada@example.com", "of the attacker").await;
        test.work().await;
        test.post(&test.service_key(), INVITE, json!({"email": "ada@example.com", "data": {"team": "engines"}})).await;

        let link = test.mailed_link("ada@example.com").await.unwrap();
        let secret = link.split_once("token=").unwrap().1.split('&').next().unwrap();
        let session = test.redeem_hash("invite", &json!(secret)).await.json();

        assert_eq!(session["user"]["user_metadata"], json!({"team": "engines"}));
        assert_eq!(test.rows("users").await, 1);
        assert_eq!(test.sign_in("ada@example.com", "of the attacker").await.refusal(), refused(400, "invalid_credentials"));
    }

    async fn an_admin_makes_links_that_are_not_mailed(engine: Engine) {
        let test = Test::with(engine, CONFIGURED).await;

        for (r#type, email) in [("signup", "new@example.com"), ("invite", "invited@example.com"), ("magiclink", "new@example.com"), ("magiclink", "other@example.com"), ("recovery", "new@example.com")] {
            let made = test.generate(json!({"type": r#type, "email": email, "password": PASSWORD, "data": {"a": 1}})).await;

            assert_eq!(made.status, 200, "{type}: {}", made.text());
            let made = made.json();
            assert_eq!((&made["verification_type"], &made["redirect_to"], &made["email"]), (&json!(r#type), &json!(APP), &json!(email)));
            let link = made["action_link"].as_str().unwrap();
            assert!(link.starts_with("http://127.0.0.1:8080/auth/v1/verify?token=") && link.contains(made["hashed_token"].as_str().unwrap()), "{link}");
            let by_code = json!({"type": r#type, "email": email, "token": made["email_otp"]});
            let by_code = test.post("", "/auth/v1/verify", by_code).await;
            assert_eq!(by_code.status, 200, "{type}: {}", by_code.text());
            assert_eq!(by_code.json()["user"]["id"], made["id"]);
            assert_eq!(test.redeem_hash(r#type, &made["hashed_token"]).await.refusal(), refused(403, "otp_expired"), "the code used it up");
        }
        assert_eq!(test.sign_in("new@example.com", PASSWORD).await.status, 200);
        assert_eq!((test.rows("users").await, test.mails_waiting().await), (3, 0));
    }

    async fn an_admin_makes_the_link_that_changes_an_address(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;

        let made = async |side: &str, new: &str| {
            let made = test.generate(json!({"type": side, "email": "ada@example.com", "new_email": new})).await;
            assert_eq!((made.status.as_u16(), &made.json()["verification_type"]), (200, &json!(side)), "{}", made.text());
            made.json()
        };
        let (current, new) = (made("email_change_current", "new@example.com").await, made("email_change_new", "new@example.com").await);
        let another = made("email_change_new", "another@example.com").await;

        assert!(current["action_link"].as_str().unwrap().contains("&type=email_change&") || current["action_link"].as_str().unwrap().ends_with("&type=email_change"));
        let halfway = test.redeem_hash("email_change", &current["hashed_token"]).await;
        assert_eq!(halfway.json(), json!({"msg": crate::auth::verify::HALFWAY, "code": "200"}));
        let unagreed = test.redeem_hash("email_change", &another["hashed_token"]).await;
        assert_eq!(unagreed.json()["code"], "200", "to that address nobody agreed");
        assert_eq!(test.get(&ada.token, USER).await.json()["email"], "ada@example.com");
        let changed = test.redeem_hash("email_change", &new["hashed_token"]).await;
        assert_eq!(changed.status, 200, "{}", changed.text());
        assert_eq!((&changed.json()["user"]["id"], &changed.json()["user"]["email"]), (&json!(ada.id), &json!("new@example.com")));
    }

    async fn links_that_cannot_be_made_are_refused(engine: Engine) {
        let test = Test::new(engine).await;
        test.sign_up("ada@example.com").await;
        let refusal = async |body: Value| test.generate(body).await.refusal();

        assert_eq!(refusal(json!({"type": "recovery", "email": "nobody@example.com"})).await, refused(404, "user_not_found"));
        assert_eq!(refusal(json!({"type": "signup", "email": "ada@example.com", "password": PASSWORD})).await, refused(422, "email_exists"));
        assert_eq!(refusal(json!({"type": "invite", "email": "ada@example.com"})).await, refused(422, "email_exists"));
        assert_eq!(refusal(json!({"type": "signup", "email": "ben@example.com"})).await, refused(400, "validation_failed"));
        assert_eq!(refusal(json!({"type": "signup", "email": "ben@example.com", "password": "password1"})).await, refused(422, "weak_password"));
        assert_eq!(refusal(json!({"type": "email_change_new", "email": "ada@example.com"})).await, refused(400, "validation_failed"));
        assert_eq!(refusal(json!({"type": "email_change_current", "email": "ada@example.com"})).await, refused(400, "validation_failed"));
        assert_eq!(refusal(json!({"type": "sms", "email": "ben@example.com"})).await, refused(400, "validation_failed"));
        assert_eq!(refusal(json!({"type": "magiclink", "email": "ben"})).await, refused(400, "validation_failed"));

        assert_eq!((test.rows("users").await, test.rows("one_time_tokens").await), (1, 0));
    }
}
