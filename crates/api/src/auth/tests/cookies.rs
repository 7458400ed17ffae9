use super::{factors, pkce, *};
use crate::testing::request;
use http::header;

const OURS: &str = "https://app.example.com";
const PRODUCTION: &[(&str, &str)] = &[
    ("APP_ENV", "production"),
    ("PUBLIC_URL", "https://api.example.com"),
    ("JWT_SECRET", "3f9c0a7be1d24f5688a1c07d5e2b9f64"),
    ("OPENAI_API_KEY", "sk-of-the-tests"),
    ("AUTH_AUTOCONFIRM", "true"),
    ("MAIL_FROM", "hello@example.com"),
    ("ALLOWED_ORIGINS", OURS),
];
const SIGN_IN: &str = "/auth/v1/token?grant_type=password";
const REFRESH: &str = "/auth/v1/token?grant_type=refresh_token";
const DEVICE: &str = "plinth-device=";
const LOGOUT: &str = "/auth/v1/logout";

/// A browser: it keeps cookies, and says where a request comes from.
struct Browser<'a> {
    test: &'a Test,
    cookies: Vec<(String, String)>,
    /// What it says besides its cookies.
    says: Vec<(&'static str, &'static str)>,
}

impl<'a> Browser<'a> {
    fn new(test: &'a Test) -> Self {
        let says = vec![("origin", OURS), ("sec-fetch-site", "same-site")];
        Self {
            test,
            cookies: vec![],
            says,
        }
    }

    /// The same cookies, in a request that another page caused.
    fn saying(&self, says: &[(&'static str, &'static str)]) -> Self {
        Self {
            test: self.test,
            cookies: self.cookies.clone(),
            says: says.to_vec(),
        }
    }

    async fn ask(&mut self, method: &str, path: &str, body: Value) -> Answer {
        let mut asked = request(method.parse().unwrap(), "", path);
        for (name, value) in &self.says {
            asked = asked.header(*name, *value);
        }
        if !self.cookies.is_empty() {
            let pairs: Vec<_> = self
                .cookies
                .iter()
                .map(|(k, v)| format!("{k}={v}"))
                .collect();
            asked = asked.header(header::COOKIE, pairs.join("; "));
        }
        let asked = asked.header(header::CONTENT_TYPE, "application/json");
        let answer = self
            .test
            .send(asked.body(body.to_string().into()).unwrap())
            .await;
        for cookie in set_cookies(&answer) {
            let (pair, attributes) = cookie.split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            self.cookies.retain(|(known, _)| known != name);
            if !attributes.contains("Max-Age=0;") {
                self.cookies.push((name.to_owned(), value.to_owned()));
            }
        }
        answer
    }

    /// The same, and wants its tokens in cookies.
    async fn ask_for_cookies(&mut self, path: &str, body: Value) -> Answer {
        self.says.push(("x-session-transport", "cookie"));
        let answer = self.ask("POST", path, body).await;
        self.says.pop();
        answer
    }

    async fn sign_in(&mut self) -> Answer {
        let answer = self.ask_for_cookies(SIGN_IN, credentials()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer
    }

    fn names(&self) -> Vec<&str> {
        self.cookies.iter().map(|(name, _)| name.as_str()).collect()
    }
}

fn credentials() -> Value {
    json!({"email": "ada@example.com", "password": PASSWORD})
}

/// But for the device's own, which stands for nobody.
fn set_cookies(answer: &Answer) -> Vec<String> {
    let lines = answer.headers.get_all(header::SET_COOKIE).iter();
    let lines = lines.map(|line| line.to_str().unwrap().to_owned());
    lines.filter(|line| !line.contains(DEVICE)).collect()
}

fn cross_site() -> (u16, String) {
    refused(403, "cross_site_request")
}

/// Pages that are none of ours, by what a browser says of them.
const FOREIGN: [&[(&str, &str)]; 8] = [
    &[],
    &[("origin", "null")],
    &[("origin", "https://evil.example")],
    &[("origin", "https://app.example.com.evil.example")],
    &[("origin", "http://app.example.com")],
    &[("origin", OURS), ("origin", "https://evil.example")],
    &[("origin", OURS), ("sec-fetch-site", "cross-site")],
    &[("sec-fetch-site", "none")],
];

both_engines! {
    /// Invariant 57.
    async fn tokens_are_in_cookies_that_no_script_reads_and_nowhere_else(engine: Engine) {
        let test = Test::with(engine, PRODUCTION).await;
        let bearer = test.sign_up("ada@example.com").await;
        let in_the_body = test.sign_in("ada@example.com", PASSWORD).await;
        let mut browser = Browser::new(&test);

        let answer = browser.sign_in().await;

        let (cookies, text) = (set_cookies(&answer), answer.text());
        assert_eq!(cookies.len(), 2, "{cookies:?}");
        for (cookie, name, age) in [(&cookies[0], "__Host-plinth-access", 3600), (&cookies[1], "__Host-plinth-refresh", 30 * 86_400)] {
            let (pair, attributes) = cookie.split_once("; ").unwrap();
            let (said, value) = pair.split_once('=').unwrap();
            assert_eq!((said, attributes), (name, format!("Path=/; Max-Age={age}; HttpOnly; SameSite=Lax; Secure").as_str()));
            assert!(!value.is_empty() && !text.contains(value));
        }
        let (mut said, mut as_ever) = (answer.json(), in_the_body.json());
        assert_eq!(said["user"]["id"], json!(bearer.id));
        for member in ["access_token", "refresh_token"] {
            assert_eq!(said.get(member), None);
            as_ever.as_object_mut().unwrap().remove(member);
        }
        said["user"] = as_ever["user"].clone();
        assert_eq!(said, as_ever, "everything else is as ever");
        assert!(set_cookies(&in_the_body).is_empty(), "nobody else gets cookies");
        assert_eq!((answer.header("cache-control"), answer.header("content-type")), ("no-store", "application/json"));
    }

    /// Invariant 57.
    async fn every_way_to_sign_in_keeps_its_tokens_from_scripts(engine: Engine) {
        let test = Test::with(engine, &[("ALLOWED_ORIGINS", OURS), ("AUTH_ANONYMOUS", "true")]).await;
        let mut browser = Browser::new(&test);

        let signed_up = browser.ask_for_cookies(SIGN_UP, credentials()).await;
        let anonymous = Browser::new(&test).ask_for_cookies(SIGN_UP, json!({})).await;
        let refreshed = browser.ask_for_cookies(REFRESH, json!({})).await;
        let code = test.auth_code(&test.sign_in_again("ada@example.com").await.id, Default::default()).await;
        let exchanged = Browser::new(&test).ask_for_cookies("/auth/v1/token?grant_type=pkce", json!({"auth_code": code, "code_verifier": pkce::VERIFIER})).await;

        for answer in [signed_up, anonymous, refreshed, exchanged] {
            assert_eq!((answer.status.as_u16(), set_cookies(&answer).len()), (200, 2), "{}", answer.text());
            assert!(answer.json()["user"]["id"].is_string() && !answer.text().contains("_token\""), "{}", answer.text());
        }
    }

    async fn a_browser_with_cookies_is_who_signed_in(engine: Engine) {
        let test = Test::with(engine, PRODUCTION).await;
        let ada = test.sign_up("ada@example.com").await;
        let ben = test.sign_up("ben@example.com").await;
        let mut browser = Browser::new(&test);
        browser.sign_in().await;

        assert_eq!(browser.ask("GET", USER, json!({})).await.json()["id"], json!(ada.id));
        let changed = browser.ask("PUT", USER, json!({"data": {"name": "Ada"}})).await;
        assert_eq!((changed.status.as_u16(), &changed.json()["user_metadata"]["name"]), (200, &json!("Ada")));
        assert_eq!(browser.ask("GET", "/api/conversations", json!({})).await.status, 200);

        // Whoever sends a token by hand means that one, wherever from.
        let mut both = browser.saying(&[("authorization", Box::leak(format!("Bearer {}", ben.token).into_boxed_str())), ("origin", "https://evil.example")]);
        assert_eq!(both.ask("GET", USER, json!({})).await.json()["id"], json!(ben.id));
        assert_eq!(both.ask("PUT", USER, json!({"data": {"name": "Ben"}})).await.json()["id"], json!(ben.id));
    }

    /// Invariant 58.
    async fn a_page_of_others_changes_nothing_with_a_browsers_cookies(engine: Engine) {
        let test = Test::with(engine, PRODUCTION).await;
        test.sign_up("ada@example.com").await;
        let mut browser = Browser::new(&test);
        browser.sign_in().await;
        let sessions = test.rows("sessions").await;

        for says in FOREIGN {
            let mut elsewhere = browser.saying(says);
            for (method, path) in [("PUT", USER), ("DELETE", USER), ("POST", LOGOUT), ("POST", REFRESH), ("POST", "/api/chat"), ("POST", "/v1/chat/completions")] {
                let answer = elsewhere.ask(method, path, json!({"data": {"name": "Eve"}, "message": "Hello"})).await;
                assert_eq!(answer.refusal(), cross_site(), "{method} {path} {says:?}");
                assert!(set_cookies(&answer).is_empty(), "and takes no cookie away");
            }
        }

        assert_eq!((test.rows("sessions").await, test.rows("messages").await), (sessions, 0));
        let still = browser.ask("GET", USER, json!({})).await.json();
        assert_eq!(still["user_metadata"], json!({}));
        assert_eq!(browser.ask("POST", REFRESH, json!({})).await.status, 200, "it was not used up");
    }

    /// Invariant 58.
    async fn a_page_of_others_reads_nothing_with_a_browsers_cookies(engine: Engine) {
        let test = Test::with(engine, PRODUCTION).await;
        test.sign_up("ada@example.com").await;
        let mut browser = Browser::new(&test);
        browser.sign_in().await;

        for says in [&[("sec-fetch-site", "cross-site")][..], &[("origin", "https://evil.example")], &[("origin", "null")]] {
            let answer = browser.saying(says).ask("GET", USER, json!({})).await;
            assert_eq!(answer.refusal(), refused(401, "no_authorization"), "{says:?}");
        }
        // Typed into the browser, or of a browser that does not say.
        for says in [&[("sec-fetch-site", "none")][..], &[]] {
            assert_eq!(browser.saying(says).ask("GET", USER, json!({})).await.status, 200, "{says:?}");
        }
    }

    /// Invariant 58: nobody is signed in as somebody else behind their back.
    async fn a_page_of_others_signs_nobody_in(engine: Engine) {
        let test = Test::with(engine, PRODUCTION).await;
        let ada = test.sign_up("ada@example.com").await;
        let sessions = test.rows("sessions").await;

        for says in FOREIGN {
            let mut victim = Browser::new(&test).saying(says);
            for (path, body) in [(SIGN_IN, credentials()), (SIGN_UP, json!({"email": "eve@example.com", "password": PASSWORD})), (REFRESH, json!({"refresh_token": ada.refresh_token}))] {
                let answer = victim.ask_for_cookies(path, body).await;
                assert_eq!(answer.refusal(), cross_site(), "{path} {says:?}");
                assert!(set_cookies(&answer).is_empty());
            }
        }

        assert_eq!((test.rows("sessions").await, test.rows("users").await), (sessions, 1));
        // Without cookies there is nothing to be tricked into: any client may sign in.
        let elsewhere = Browser::new(&test).saying(&[("origin", "https://evil.example")]).ask("POST", SIGN_IN, credentials()).await;
        assert!(elsewhere.status == 200 && set_cookies(&elsewhere).is_empty());
    }

    /// Invariant 59.
    async fn only_listed_pages_may_read_answers_with_credentials(engine: Engine) {
        let test = Test::with(engine, PRODUCTION).await;
        test.sign_up("ada@example.com").await;
        let admitted = |answer: &Answer| answer.header("access-control-allow-origin").to_owned();
        let preflight = [("access-control-request-method", "POST"), ("access-control-request-headers", "x-session-transport")];

        let mut browser = Browser::new(&test);
        let answer = browser.sign_in().await;
        assert_eq!((admitted(&answer).as_str(), answer.header("access-control-allow-credentials")), (OURS, "true"));
        let asked = browser.saying(&[&[("origin", OURS)], &preflight[..]].concat()).ask("OPTIONS", SIGN_IN, json!({})).await;
        assert_eq!(admitted(&asked), OURS);
        assert!(asked.header("access-control-allow-headers").contains("x-session-transport"));

        for origin in ["null", "*", "https://evil.example", "https://app.example.com.evil.example", "http://localhost:5173", ""] {
            for (method, path) in [("GET", USER), ("POST", SIGN_IN), ("PUT", USER)] {
                let answer = browser.saying(&[("origin", origin)]).ask(method, path, credentials()).await;
                assert_eq!(admitted(&answer), "", "{method} {origin}");
                let asked = browser.saying(&[&[("origin", origin)], &preflight[..]].concat()).ask("OPTIONS", path, json!({})).await;
                assert_eq!(admitted(&asked), "", "{origin}");
            }
        }
    }

    async fn a_refresh_by_cookie_gives_new_cookies_and_never_a_token_to_read(engine: Engine) {
        let test = Test::with(engine, PRODUCTION).await;
        test.sign_up("ada@example.com").await;
        let mut browser = Browser::new(&test);
        browser.sign_in().await;
        let first = browser.cookies.clone();
        test.later(Duration::from_secs(3600));
        assert_eq!(browser.ask("GET", USER, json!({})).await.refusal(), refused(403, "bad_jwt"));

        // A script that leaves the header out does not get at the tokens either.
        let answer = browser.ask("POST", REFRESH, json!({})).await;

        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["expires_at"], json!(test.app.now().unix() + 3600));
        assert!(!answer.text().contains("_token\""), "{}", answer.text());
        assert!(browser.cookies.iter().all(|cookie| !first.contains(cookie)));
        assert_eq!(browser.ask("GET", USER, json!({})).await.status, 200);
        assert_eq!(test.rows("sessions").await, 2, "that of the sign-up, and this one");
        assert_eq!(Browser::new(&test).ask_for_cookies(REFRESH, json!({})).await.refusal(), refused(400, "validation_failed"));
    }

    async fn a_second_factor_that_is_proved_by_cookie_stays_in_cookies(engine: Engine) {
        let test = Test::with(engine, PRODUCTION).await;
        let ada = test.sign_up("ada@example.com").await;
        let authenticator = factors::enrolled(&test, &ada.token).await;
        let mut browser = Browser::new(&test);
        browser.sign_in().await;
        let path = format!("/auth/v1/factors/{}", authenticator.id);

        let challenge = browser.ask("POST", &format!("{path}/challenge"), json!({})).await.json();
        let proof = json!({"challenge_id": challenge["id"], "code": authenticator.code(&test, 0)});
        let answer = browser.ask("POST", &format!("{path}/verify"), proof).await;

        assert_eq!((answer.status.as_u16(), set_cookies(&answer).len()), (200, 2), "{}", answer.text());
        assert!(!answer.text().contains("_token\""), "{}", answer.text());
        assert_eq!(browser.ask("GET", USER, json!({})).await.status, 200);
    }

    async fn signing_out_takes_the_cookies_away(engine: Engine) {
        let test = Test::with(engine, PRODUCTION).await;
        test.sign_up("ada@example.com").await;
        let mut browser = Browser::new(&test);

        browser.sign_in().await;
        assert_eq!(browser.ask("POST", "/auth/v1/logout?scope=others", json!({})).await.status, 204);
        assert_eq!(browser.names().len(), 2, "this session stays");
        let before = browser.cookies.clone();

        let answer = browser.ask("POST", "/auth/v1/logout?scope=local", json!({})).await;

        assert_eq!((answer.status.as_u16(), browser.names()), (204, vec![]));
        for cookie in set_cookies(&answer) {
            assert!(cookie.starts_with("__Host-plinth-") && cookie.ends_with("=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax; Secure"), "{cookie}");
        }
        // Whoever kept a copy has nothing of it.
        browser.cookies = before;
        assert_eq!(browser.ask("GET", USER, json!({})).await.refusal(), refused(403, "session_not_found"));
        assert_eq!(browser.ask("POST", LOGOUT, json!({})).await.status, 400);
        assert_eq!(browser.names(), Vec::<&str>::new(), "cookies of a session that is over go too");
    }

    async fn a_browser_whose_access_token_is_gone_signs_out_all_the_same(engine: Engine) {
        let test = Test::with(engine, PRODUCTION).await;
        test.sign_up("ada@example.com").await;
        for expired in [true, false] {
            let mut browser = Browser::new(&test);
            browser.sign_in().await;
            if expired {
                test.later(Duration::from_secs(3600));
            } else {
                browser.cookies.retain(|(name, _)| name.ends_with("refresh"));
            }
            let kept = browser.cookies.clone();

            let answer = browser.ask("POST", LOGOUT, json!({})).await;

            assert_eq!((answer.status.as_u16(), browser.names()), (204, vec![]));
            browser.cookies = kept;
            assert_eq!(browser.ask("POST", REFRESH, json!({})).await.refusal(), refused(400, "refresh_token_not_found"));
        }
    }

    async fn the_end_of_ones_own_session_or_account_takes_the_cookies_away(engine: Engine) {
        let test = Test::with(engine, PRODUCTION).await;
        let other = test.sign_up("ada@example.com").await;
        let mut browser = Browser::new(&test);
        browser.sign_in().await;
        let sessions = test.get(&other.token, "/auth/v1/sessions").await.json();
        let [own, others] = [false, true].map(|current| {
            let mut all = sessions["data"].as_array().unwrap().iter();
            let one = all.find(|session| session["current"] == json!(current)).unwrap();
            format!("/auth/v1/sessions/{}", one["id"].as_str().unwrap())
        });

        assert_eq!(browser.ask("DELETE", "/auth/v1/sessions/0190a8c0-0000-7000-8000-000000000000", json!({})).await.status, 404);
        assert_eq!(browser.ask("DELETE", &others, json!({})).await.status, 204);
        assert_eq!(browser.names().len(), 2, "another's end is not its own");
        assert_eq!(browser.ask("DELETE", &own, json!({})).await.status, 204);
        assert_eq!(browser.names(), Vec::<&str>::new());

        browser.sign_in().await;
        test.later(Duration::from_secs(301));
        assert_eq!(browser.ask("DELETE", USER, json!({})).await.status, 403);
        assert_eq!(browser.names().len(), 2, "who is not let go keeps them");
        browser.sign_in().await;
        assert_eq!(browser.ask("DELETE", USER, json!({})).await.status, 204);
        assert_eq!((browser.names(), test.rows("users").await), (vec![], 0));
    }

    async fn a_cookie_is_never_too_large_for_a_browser(engine: Engine) {
        let test = Test::with(engine, PRODUCTION).await;
        let body = json!({"email": "ada@example.com", "password": PASSWORD, "data": {"bio": "x".repeat(4_000)}});
        let mut browser = Browser::new(&test);

        let answer = browser.ask_for_cookies(SIGN_UP, body).await;

        assert_eq!(answer.status, 200);
        assert!(answer.json()["user"]["user_metadata"]["bio"].is_string());
        for cookie in set_cookies(&answer) {
            assert!(cookie.len() < 2_048, "{}", cookie.len());
        }
        assert_eq!(browser.ask("GET", USER, json!({})).await.json()["user_metadata"]["bio"].as_str().unwrap().len(), 4_000);
    }

    /// Invariant 57, where there is no TLS: development on this machine.
    async fn over_http_cookies_have_names_that_browsers_take_there(engine: Engine) {
        let test = Test::new(engine).await;
        let mut browser = Browser::new(&test).saying(&[("origin", "http://localhost:5173")]);

        let answer = browser.ask_for_cookies(SIGN_UP, credentials()).await;

        assert_eq!(browser.names(), ["plinth-access", "plinth-refresh"]);
        assert!(set_cookies(&answer).iter().all(|cookie| cookie.ends_with("HttpOnly; SameSite=Lax")));
        let own = browser.saying(&[("origin", "http://127.0.0.1:8080"), ("sec-fetch-site", "same-origin")]).ask("PUT", USER, json!({"data": {}})).await;
        assert_eq!(own.status, 200, "pages that we serve ourselves are ours");
    }

    async fn two_cookies_of_one_name_are_none(engine: Engine) {
        let test = Test::with(engine, PRODUCTION).await;
        test.sign_up("ada@example.com").await;
        let mut browser = Browser::new(&test);
        browser.sign_in().await;
        browser.cookies.push(("__Host-plinth-access".into(), "eyJhbGciOiJub25lIn0.e30.".into()));

        assert_eq!(browser.ask("GET", USER, json!({})).await.refusal(), refused(401, "no_authorization"));
    }

    async fn another_transport_is_refused_with_those_there_are(engine: Engine) {
        let test = Test::with(engine, PRODUCTION).await;
        test.sign_up("ada@example.com").await;
        let sessions = test.rows("sessions").await;

        for (transport, status) in [("carrier-pigeon", 400), ("", 400), ("cookie, bearer", 400), ("bearer", 200)] {
            let answer = Browser::new(&test).saying(&[("origin", OURS), ("x-session-transport", transport)]).ask("POST", SIGN_IN, credentials()).await;
            assert_eq!(answer.status, status, "{transport}: {}", answer.text());
            assert!(set_cookies(&answer).is_empty());
        }
        assert_eq!(test.rows("sessions").await, sessions + 1);
    }

    /// Invariants 57 and 67.
    async fn what_a_device_is_known_by_stays_when_its_user_leaves(engine: Engine) {
        let limits = ("RATE_LIMITS", "sign_in=100000/60,sign_in_pair=100000/60");
        let test = Test::with(engine, &[PRODUCTION, &[limits]].concat()).await;
        let mut browser = Browser::new(&test);
        let answer = browser.ask_for_cookies(SIGN_UP, credentials()).await;
        let lines = answer.headers.get_all(header::SET_COOKIE).iter();
        let device = lines.map(|line| line.to_str().unwrap()).find(|line| line.contains(DEVICE)).unwrap();
        let (pair, attributes) = device.split_once("; ").unwrap();
        assert_eq!(attributes, "Path=/; Max-Age=34560000; HttpOnly; SameSite=Lax; Secure");
        assert!(answer.headers.get("x-device-token").is_none(), "no script reads it");
        let (name, value) = pair.split_once('=').unwrap();
        browser.cookies.push((name.into(), value.into()));

        let left = browser.ask("POST", LOGOUT, json!({})).await;
        assert!(left.status == 204 && browser.names() == ["__Host-plinth-device"]);
        for _ in 0..6 {
            test.sign_in("ada@example.com", "not the password").await;
        }

        assert_eq!(Browser::new(&test).ask_for_cookies(SIGN_IN, credentials()).await.status, 429);
        assert_eq!(browser.ask_for_cookies(SIGN_IN, credentials()).await.status, 200);
    }
}
