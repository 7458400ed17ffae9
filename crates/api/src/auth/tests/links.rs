use super::{
    pkce::{CHALLENGE, VERIFIER},
    *,
};
use axum::body::Body;
use http::{Request, header};

const OTP: &str = "/auth/v1/otp";
const RECOVER: &str = "/auth/v1/recover";
const APP: &str = "https://app.example.com/welcome";
const CONFIGURED: &[(&str, &str)] = &[("AUTH_AUTOCONFIRM", "false"), ("AUTH_REDIRECT_URLS", APP)];
const IMPLICIT: &[(&str, &str)] = &[("AUTH_REDIRECT_URLS", APP), ("AUTH_VERIFY_ON_GET", "true")];

impl Test {
    /// Asks as a client that does PKCE and wants to be led back.
    async fn ask_for_link(&self, path: &str, email: &str) -> Answer {
        let body = json!({
            "email": email, "password": PASSWORD, "code_challenge": CHALLENGE, "code_challenge_method": "s256",
        });
        let path = format!("{path}?redirect_to={}", APP.replace(':', "%3A"));
        self.post("", &path, body).await
    }

    /// Path and query of the link in the newest mail to this address.
    pub async fn mailed_link(&self, email: &str) -> Option<String> {
        self.work().await;
        let mails = self.world.mailbox().to(email);
        let mail = mails.last().expect("a mail");
        let link = mail
            .text
            .split_whitespace()
            .find(|word| word.starts_with("http"))?;
        let path = link.strip_prefix("http://127.0.0.1:8080");
        Some(path.expect("a link to where we are reached").to_owned())
    }

    /// Presses the button of the page.
    pub async fn press(&self, link: &str) -> Answer {
        let (path, form) = link.split_once('?').unwrap();
        let request = Request::post(path)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(form.to_owned()));
        self.send(request.unwrap()).await
    }

    async fn verify_link(&self, r#type: &str, link: &str) -> Answer {
        let body = json!({"type": r#type, "token_hash": secret(link)});
        self.post("", "/auth/v1/verify", body).await
    }
}

fn secret(link: &str) -> &str {
    let query = link.split_once("token=").unwrap().1;
    query.split('&').next().unwrap()
}

both_engines! {
    /// Invariant 46.
    async fn a_scanner_that_follows_every_link_changes_nothing(engine: Engine) {
        let test = Test::with(engine, CONFIGURED).await;
        test.ask_for_link(SIGN_UP, "ada@example.com").await;
        let link = test.mailed_link("ada@example.com").await.unwrap();
        let audited = test.rows("audit_events").await;

        for _ in 0..5 {
            let page = test.get("", &link).await;
            assert_eq!(page.status, 200, "{}", page.text());
            assert!(page.text().contains(secret(&link)) && page.text().contains("method=\"post\""));
            let head = test.send(Request::head(&link).body(Body::empty()).unwrap()).await;
            assert_eq!((head.status.as_u16(), head.text()), (200, String::new()));
        }

        assert_eq!(test.rows("audit_events").await, audited);
        assert_eq!(test.sign_in("ada@example.com", PASSWORD).await.refusal(), refused(400, "email_not_confirmed"));
        assert_eq!(test.press(&link).await.status, 303);
    }

    async fn the_page_of_a_link_runs_nothing_and_tells_nobody(engine: Engine) {
        let test = Test::with(engine, CONFIGURED).await;

        let page = test.get("", &format!("/auth/v1/verify?token=%22%3E%3Cscript%3E&type=magiclink&redirect_to={APP}")).await;

        assert!(!page.text().contains("<script"), "{}", page.text());
        let policy = page.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
        assert!(policy.contains("form-action 'self' https://app.example.com;"), "a browser follows the redirect of a form only so: {policy}");
        assert_eq!(page.header("x-robots-tag"), "noindex, nofollow");
        assert_eq!(page.header("referrer-policy"), "no-referrer");
        assert_eq!(page.header("cache-control"), "no-store");
        assert!(page.header("content-type").starts_with("text/html"));
    }

    /// Invariant 28, as far as links are concerned.
    async fn the_button_leads_back_with_a_code_that_its_client_alone_can_use(engine: Engine) {
        let test = Test::with(engine, CONFIGURED).await;
        for path in [SIGN_UP, OTP, RECOVER, "/auth/v1/magiclink"] {
            test.ask_for_link(path, "ada@example.com").await;
            let link = test.mailed_link("ada@example.com").await.unwrap();

            let pressed = test.press(&link).await;
            let again = test.press(&link).await;

            assert_eq!(pressed.status, 303, "{path}: {}", pressed.text());
            let code = pressed.header("location").strip_prefix(&format!("{APP}?code=")).unwrap_or_else(|| panic!("{path}: {}", pressed.header("location")));
            let session = test.exchange(code, VERIFIER).await;
            assert_eq!(session.status, 200, "{path}: {}", session.text());
            assert_eq!(session.json()["user"]["email"], "ada@example.com");
            assert!(again.header("location").starts_with(&format!("{APP}?error=access_denied&error_code=otp_expired")), "{path}");
            assert_eq!(test.exchange(code, VERIFIER).await.refusal(), refused(404, "flow_state_not_found"));
            let opened = Person::of(&session.json());
            assert_eq!(test.get(&opened.token, USER).await.refusal(), refused(403, "session_not_found"), "a second use ends it");
        }
        assert_eq!(test.rows("users").await, 1);
    }

    /// Invariant 25, as far as links are concerned.
    async fn who_took_the_code_of_a_link_cannot_use_it(engine: Engine) {
        let test = Test::with(engine, CONFIGURED).await;
        test.ask_for_link(OTP, "ada@example.com").await;
        let link = test.mailed_link("ada@example.com").await.unwrap();
        let pressed = test.press(&link).await;
        let code = pressed.header("location").split_once("code=").unwrap().1;

        assert_eq!(test.exchange(code, "of somebody else").await.refusal(), refused(400, "bad_code_verifier"));

        assert_eq!(test.exchange(code, VERIFIER).await.refusal(), refused(404, "flow_state_not_found"));
        assert_eq!(test.rows("sessions").await, 0);
    }

    /// Invariant 27, as far as links are concerned.
    async fn a_link_leads_where_the_operator_said_and_nowhere_else(engine: Engine) {
        let test = Test::with(engine, CONFIGURED).await;
        test.ask_for_link(OTP, "ada@example.com").await;
        let link = test.mailed_link("ada@example.com").await.unwrap();
        let elsewhere = format!("{}&redirect_to=https://evil.example.com/", link.split("&redirect_to").next().unwrap());

        let page = test.get("", &elsewhere).await;
        let pressed = test.press(&elsewhere).await;

        assert!(!page.header("content-security-policy").contains("evil"));
        assert!(pressed.header("location").starts_with(&format!("{APP}?code=")), "{}", pressed.header("location"));
    }

    /// Invariant 49.
    async fn a_host_that_a_request_makes_up_is_in_no_mail(engine: Engine) {
        let test = Test::with(engine, CONFIGURED).await;
        for path in [SIGN_UP, OTP, RECOVER, "/auth/v1/resend"] {
            let body = json!({"type": "signup", "email": "ada@example.com", "password": PASSWORD, "code_challenge": CHALLENGE, "code_challenge_method": "s256"});
            let request = Request::post(path)
                .header(header::HOST, "evil.example.com")
                .header("x-forwarded-host", "evil.example.com")
                .header("forwarded", "host=evil.example.com")
                .header(header::ORIGIN, "https://evil.example.com")
                .header(header::REFERER, "https://evil.example.com/")
                .header(header::CONTENT_TYPE, "application/json")
                .body(Body::from(body.to_string()));
            assert_eq!(test.send(request.unwrap()).await.status, 200, "{path}");
        }

        test.work().await;
        let mails = test.world.mailbox().to("ada@example.com");
        assert_eq!(mails.len(), 4);
        for mail in mails {
            let raw = String::from_utf8_lossy(&mail.raw).into_owned();
            assert!(!raw.contains("evil") && mail.text.contains("http://127.0.0.1:8080/auth/v1/verify?"), "{raw}");
        }
    }

    async fn the_page_of_a_link_is_in_the_language_of_its_browser(engine: Engine) {
        let test = Test::with(engine, CONFIRMING).await;
        test.ask_to_sign_up("ada@example.com", PASSWORD).await;
        let link = test.mailed_link("ada@example.com").await.unwrap();
        let page = async |method, path: &str, body: &str, language: &str| {
            let request = Request::builder().method(method).uri(path)
                .header(header::ACCEPT_LANGUAGE, language)
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(Body::from(body.to_owned()));
            test.send(request.unwrap()).await.text()
        };

        for (kind, german, english) in [
            ("signup", "Bestätige deine Adresse", "Confirm your address"),
            ("recovery", "Wähle ein neues Passwort", "Choose a new password"),
            ("magiclink", "Anmelden", "Sign in"),
            ("invite", "Du bist eingeladen", "You are invited"),
            ("email_change", "Bestätige den Wechsel deiner Adresse", "Confirm the change of your address"),
            ("email_change_undo", "Hol deine Adresse zurück", "Take your address back"),
            ("anything", "Bestätige deine Adresse", "Confirm your address"),
        ] {
            let path = format!("/auth/v1/verify?token=x&type={kind}");
            let (de, en) = (page(Method::GET, &path, "", "de-CH").await, page(Method::GET, &path, "", "fr").await);
            assert!(de.contains("<html lang=\"de\">") && de.contains(&format!("<h1>{german}</h1>")) && de.contains("Weiter"), "{de}");
            assert!(en.contains("<html lang=\"en\">") && en.contains(&format!("<h1>{english}</h1>")) && en.contains("Continue"), "{en}");
        }
        let form = link.split_once('?').unwrap().1;
        let done = page(Method::POST, "/auth/v1/verify", form, "de").await;
        let again = page(Method::POST, "/auth/v1/verify", form, "de").await;
        assert!(done.contains("<h1>Fertig</h1>") && done.contains("Zurück"), "{done}");
        assert!(again.contains("führt nirgends mehr hin"), "{again}");
    }

    async fn a_link_without_pkce_confirms_and_carries_no_tokens(engine: Engine) {
        let test = Test::with(engine, CONFIRMING).await;
        test.ask_to_sign_up("ada@example.com", PASSWORD).await;
        let link = test.mailed_link("ada@example.com").await.unwrap();

        let pressed = test.press(&link).await;

        assert_eq!((pressed.status.as_u16(), pressed.header("location")), (200, ""));
        assert!(pressed.text().contains("Your address is confirmed"));
        assert_eq!(test.rows("sessions").await, 0);
        assert_eq!(test.sign_in("ada@example.com", PASSWORD).await.status, 200);
        test.post("", OTP, json!({"email": "ada@example.com"})).await;
        assert_eq!(test.mailed_link("ada@example.com").await, None, "it would have nothing to bring back");
    }

    async fn a_link_that_failed_says_so_on_the_page_or_to_the_app(engine: Engine) {
        let test = Test::with(engine, CONFIGURED).await;

        let page = test.press("/auth/v1/verify?token=made-up&type=signup").await;
        let app = test.press(&format!("/auth/v1/verify?token=made-up&type=signup&redirect_to={APP}")).await;

        assert_eq!(page.status, 403);
        assert!(page.text().contains("Ask for another mail"));
        assert_eq!(app.status, 303);
        assert_eq!(app.header("location"), format!("{APP}?error=access_denied&error_code=otp_expired&error_description=Email+link+is+invalid+or+has+expired"));
    }

    async fn the_secret_of_a_link_signs_in_once(engine: Engine) {
        let test = Test::with(engine, CONFIGURED).await;
        for (path, r#type) in [(SIGN_UP, "signup"), (OTP, "magiclink"), (OTP, "email"), (RECOVER, "recovery")] {
            test.ask_for_link(path, "ada@example.com").await;
            let older = test.mailed_link("ada@example.com").await.unwrap();
            test.ask_for_link(path, "ada@example.com").await;
            let link = test.mailed_link("ada@example.com").await.unwrap();
            let another = if r#type == "recovery" { "magiclink" } else { "recovery" };

            assert_eq!(test.verify_link(r#type, &older).await.refusal(), refused(403, "otp_expired"), "{type}: only the newest counts");
            assert_eq!(test.verify_link(another, &link).await.refusal(), refused(403, "otp_expired"), "{type}: it serves no other purpose");
            let session = test.verify_link(r#type, &link).await;
            assert_eq!(session.status, 200, "{type}: {}", session.text());
            assert_eq!(session.json()["user"]["email"], "ada@example.com");
            assert_eq!(test.verify_link(r#type, &link).await.refusal(), refused(403, "otp_expired"), "{type}");
        }
        let missing = test.post("", "/auth/v1/verify", json!({"type": "email", "email": "ada@example.com"})).await;
        assert_eq!(missing.refusal(), refused(400, "validation_failed"));
    }

    /// Invariant 45: hashed at rest, at most 30 minutes.
    async fn the_link_of_a_recovery_lasts_thirty_minutes_and_is_not_kept(engine: Engine) {
        let test = Test::new(engine).await;
        test.sign_up("ada@example.com").await;
        test.ask_for_link(RECOVER, "ada@example.com").await;
        let link = test.mailed_link("ada@example.com").await.unwrap();
        let mut tx = test.app.db.begin().await.unwrap();
        let kept = db::one_time_tokens::by_link(&mut tx, secret(&link).as_bytes(), test.app.now()).await.unwrap();
        drop(tx);
        assert_eq!(kept, None);

        test.later(Duration::from_secs(30 * 60));

        assert_eq!(test.verify_link("recovery", &link).await.refusal(), refused(403, "otp_expired"));
        assert_eq!(test.rows("sessions").await, 1);
    }

    async fn links_work_as_in_gotrue_where_that_is_configured(engine: Engine) {
        let test = Test::with(engine, IMPLICIT).await;
        test.sign_up("ada@example.com").await;
        let path = format!("{OTP}?redirect_to={APP}");
        test.post("", &path, json!({"email": "ada@example.com"})).await;
        let link = test.mailed_link("ada@example.com").await.unwrap();
        let head = test.send(Request::head(&link).body(Body::empty()).unwrap()).await;
        assert_eq!(head.status, 200, "a HEAD changes nothing even so");

        let followed = test.get("", &link).await;
        let again = test.get("", &link).await;

        assert_eq!(followed.status, 303);
        let fragment = followed.header("location").strip_prefix(&format!("{APP}#")).unwrap().to_owned();
        let members: std::collections::HashMap<_, _> = url::form_urlencoded::parse(fragment.as_bytes()).into_owned().collect();
        assert_eq!((&*members["token_type"], &*members["type"]), ("bearer", "magiclink"));
        assert_eq!(test.get(&members["access_token"], USER).await.status, 200);
        assert_eq!(test.refresh(&members["refresh_token"]).await.status, 200);
        assert!(again.header("location").contains("error_code=otp_expired"));
    }
}
