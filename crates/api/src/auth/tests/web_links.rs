//! Linking by redirect: an account gets another way in by nobody's will but its owner's.
use super::{
    browser::{BACK, authorize, parameter, wrong},
    *,
};
use url::Url;

/// `user/identities/authorize`, as auth-js asks for it.
fn link_path(provider: &str) -> String {
    let (_, query) = authorize(provider, BACK)
        .split_once('?')
        .map(|(p, q)| (p.to_owned(), q.to_owned()))
        .unwrap();
    format!("/auth/v1/user/identities/authorize?{query}&skip_http_redirect=true")
}

impl Test {
    /// Where a browser goes to link.
    async fn link_url(&self, token: &str, provider: &str) -> String {
        let answer = self.get(token, &link_path(provider)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["url"].as_str().unwrap().to_owned()
    }

    /// The providers by which somebody is known.
    async fn known_by(&self, token: &str) -> Value {
        self.get(token, USER).await.json()["app_metadata"]["providers"].clone()
    }
}

both_engines! {
    async fn who_is_signed_in_links_another_provider(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let url = test.link_url(&ada.token, "github").await;
        assert!(url.starts_with("http://127.0.0.1:8080/auth/v1/authorize?") && !url.contains("skip_http_redirect"), "{url}");

        let mut browser = test.browser();
        let away = browser.go(&url).await;
        let way = browser.as_whom(&away, "lovelace@example.org").await;
        let back = browser.come(&way).await;
        let session = test.exchange(&parameter(&back, "code"), pkce::VERIFIER).await.json();

        assert_eq!(session["user"]["id"], json!(ada.id), "{session}");
        assert_eq!(session["user"]["email"], "ada@example.com");
        assert_eq!(test.known_by(&ada.token).await, json!(["email", "github"]));
        let again = Person::of(&test.sign_in_at("github", "lovelace@example.org").await.json());
        assert_eq!(again.id, ada.id);
        assert_eq!(test.rows("users").await, 1);
    }

    async fn without_skip_http_redirect_it_leads_there_itself(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let path = link_path("github").replace("&skip_http_redirect=true", "");

        let answer = test.get(&ada.token, &path).await;

        assert_eq!(answer.status, 302);
        assert!(answer.header("location").contains("/auth/v1/authorize?") && answer.header("set-cookie").is_empty());
    }

    /// T12, of links: the URL of somebody's link, followed in the browser of somebody else, gives nobody a way into the wrong account.
    async fn t12_a_link_that_another_browser_followed_links_nothing(engine: Engine) {
        let test = Test::new(engine).await;
        let mallory = test.sign_up("mallory@example.com").await;
        let url = test.link_url(&mallory.token, "google").await;

        let mut victim = test.browser();
        let away = victim.go(&url).await;
        let way = victim.as_whom(&away, "ada@gmail.com").await;
        let back = victim.come(&way).await;
        let code = parameter(&back, "code");
        let exchanged = test.exchange(&code, "the-verifier-of-the-victims-own-app-0123456789-abc").await;

        assert_eq!(exchanged.refusal(), refused(400, "bad_code_verifier"));
        assert_eq!(test.known_by(&mallory.token).await, json!(["email"]));
        let ada = Person::of(&test.sign_in_at("google", "ada@gmail.com").await.json());
        assert_ne!(ada.id, mallory.id);
    }

    async fn the_url_of_a_link_is_good_once_for_what_was_asked_and_not_for_long(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let (used, late, other, ended) = (
            test.link_url(&ada.token, "google").await, test.link_url(&ada.token, "google").await,
            test.link_url(&ada.token, "google").await, test.link_url(&ada.token, "google").await,
        );
        test.browser().go(&used).await;
        let flows = test.rows("oauth_flows").await;

        let again = test.browser().go_on(&used).await;
        let other = test.browser().go_on(&other.replace("provider=google", "provider=github")).await;
        test.post(&ada.token, "/auth/v1/logout?scope=local", json!({})).await;
        let ended = test.browser().go_on(&ended).await;
        test.later(Duration::from_secs(300));
        let late = test.browser().go_on(&late).await;

        for (url, code) in [(again, "flow_state_not_found"), (other, "flow_state_not_found"), (ended, "session_not_found"), (late, "flow_state_expired")] {
            assert_eq!(wrong(&url).1, code, "{url}");
        }
        assert_eq!(test.rows("oauth_flows").await, flows);
    }

    async fn an_identity_of_somebody_else_is_refused_where_the_app_is_led_back_to(engine: Engine) {
        let test = Test::new(engine).await;
        test.sign_in_at("google", "ben@gmail.com").await;
        let ada = test.sign_up("ada@example.com").await;

        let mut browser = test.browser();
        let away = browser.go(&test.link_url(&ada.token, "google").await).await;
        let way = browser.as_whom(&away, "ben@gmail.com").await;
        let back = browser.come(&way).await;

        assert_eq!(wrong(&back), ("access_denied".into(), "identity_already_exists".into()));
        assert_eq!(test.known_by(&ada.token).await, json!(["email"]));
    }

    async fn an_identity_that_became_anothers_meanwhile_is_refused_at_the_exchange(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let mut browser = test.browser();
        let away = browser.go(&test.link_url(&ada.token, "google").await).await;
        let way = browser.as_whom(&away, "ben@gmail.com").await;
        let back = browser.come(&way).await;
        test.sign_in_at("google", "ben@gmail.com").await;

        let answer = test.exchange(&parameter(&back, "code"), pkce::VERIFIER).await;

        assert_eq!(answer.refusal(), refused(422, "identity_already_exists"));
        assert_eq!(test.known_by(&ada.token).await, json!(["email"]));
    }

    /// Invariant 54.
    async fn linking_asks_for_a_fresh_sign_in(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        test.later(Duration::from_secs(301));

        let stale = test.get(&ada.token, &link_path("google")).await;

        assert_eq!(stale.refusal(), refused(403, "reauthentication_needed"));
        let ada = test.sign_in_again("ada@example.com").await;
        test.link_url(&ada.token, "google").await;
        let off = Test::with(engine, &[("AUTH_MANUAL_LINKING", "false")]).await;
        let ada = off.sign_up("ada@example.com").await;
        assert_eq!(off.get(&ada.token, &link_path("google")).await.refusal(), refused(404, "manual_linking_disabled"));
    }

    async fn who_is_anonymous_becomes_somebody_by_a_link(engine: Engine) {
        let test = Test::with(engine, &[("AUTH_ANONYMOUS", "true")]).await;
        let guest = Person::of(&test.post("", SIGN_UP, json!({})).await.json());
        test.later(Duration::from_secs(301));

        let mut browser = test.browser();
        let away = browser.go(&test.link_url(&guest.token, "google").await).await;
        let way = browser.as_whom(&away, "ada@gmail.com").await;
        let back = browser.come(&way).await;
        let user = test.exchange(&parameter(&back, "code"), pkce::VERIFIER).await.json()["user"].clone();

        assert_eq!((&user["id"], &user["is_anonymous"], &user["email"]), (&json!(guest.id), &json!(false), &json!("ada@gmail.com")));
    }

    async fn what_is_wrong_with_a_link_is_said_before_anyone_goes(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let path = |query: &str| format!("/auth/v1/user/identities/authorize?{query}");
        for (query, refusal) in [
            ("provider=facebook", refused(400, "provider_disabled")),
            ("provider=google", refused(400, "validation_failed")),
            ("provider=google&redirect_to=https%3A%2F%2Fevil.example", refused(400, "validation_failed")),
            ("provider=google&provider=apple", refused(400, "validation_failed")),
        ] {
            assert_eq!(test.get(&ada.token, &path(query)).await.refusal(), refusal, "{query}");
        }
        assert_eq!(test.get("", &link_path("google")).await.refusal(), refused(401, "no_authorization"));
    }

    async fn what_waits_for_a_link_is_not_readable_beside_its_code(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let mut browser = test.browser();
        let away = browser.go(&test.link_url(&ada.token, "google").await).await;
        let way = browser.as_whom(&away, "lovelace@gmail.com").await;
        let back: Url = browser.come(&way).await;

        let hash = test.app.keys.otp_mac(&[b"auth code", parameter(&back, "code").as_bytes()]);
        let mut tx = test.app.db.begin().await.unwrap();
        let kept = db::auth_codes::locked(&mut tx, &hash).await.unwrap().unwrap();
        drop(tx);

        let link = kept.link.unwrap();
        assert!(!String::from_utf8_lossy(&link).contains("lovelace"));
        test.exchange(&parameter(&back, "code"), pkce::VERIFIER).await;
        let mut tx = test.app.db.begin().await.unwrap();
        let used = db::auth_codes::locked(&mut tx, &hash).await.unwrap().unwrap();
        assert_eq!(used.link, None, "nor is it kept");
    }
}
