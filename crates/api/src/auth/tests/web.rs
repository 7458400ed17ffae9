//! Sign-in by redirect, whole: our routes, the simulated providers, and the browser between.
use super::{
    browser::{BACK, Way, authorize, parameter, wrong},
    *,
};
use url::Url;

/// The same, with one parameter of its query changed.
fn changed(way: &Way, name: &str, value: Option<&str>) -> Way {
    let Way::Get(url) = way else {
        panic!("{way:?}")
    };
    let mut url = Url::parse(url).unwrap();
    let kept: Vec<(String, String)> = url
        .query_pairs()
        .into_owned()
        .filter(|(key, _)| key != name)
        .collect();
    url.query_pairs_mut().clear().extend_pairs(kept);
    if let Some(value) = value {
        url.query_pairs_mut().append_pair(name, value);
    }
    Way::Get(url.into())
}

both_engines! {
    async fn everyone_signs_in_with_each_provider(engine: Engine) {
        let test = Test::new(engine).await;

        for provider in ["google", "apple", "github", "oidc"] {
            let email = format!("ada@{provider}.example");
            let back = test.browser().sign_in(provider, &email).await;
            assert!(back.as_str().starts_with(BACK), "{back}");
            let answer = test.exchange(&parameter(&back, "code"), pkce::VERIFIER).await;

            let session = answer.json();
            assert_eq!(answer.status, 200, "{session}");
            assert_eq!((&session["user"]["email"], &session["user"]["app_metadata"]["provider"]), (&json!(email), &json!(provider)));
            assert_eq!(session["user"]["identities"][0]["identity_data"]["email"], json!(email));
            assert!(session["provider_token"].is_string(), "{session}");
            let ada = Person::of(&session);
            assert_eq!(access::claims(&ada.token)["amr"][0]["method"], "oauth");
            let again = Person::of(&test.sign_in_at(provider, &email).await.json());
            assert_eq!(again.id, ada.id, "{provider}");
        }
        assert_eq!(test.rows("users").await, 4);
    }

    async fn apple_says_a_name_once_and_it_stays(engine: Engine) {
        let test = Test::new(engine).await;

        let first = test.sign_in_at("apple", "ada.lovelace@example.com").await.json();
        let again = test.sign_in_at("apple", "ada.lovelace@example.com").await.json();

        for session in [first, again] {
            assert_eq!(session["user"]["user_metadata"]["full_name"], "Ada Lovelace", "{session}");
        }
    }

    async fn replit_is_a_public_client_with_proof(engine: Engine) {
        let world = sim::start(sim::Options::default()).await.unwrap();
        let issuer = world.oidc().issuer("replit");
        let test = Test::with(engine, &[("ISSUER_URL", &issuer), ("REPL_ID", "a-repl")]).await;
        let clock = test.app.clock.clone();
        world.oidc().tell_time(move || clock.now().unix());

        let session = test.sign_in_at("replit", "ada@example.com").await.json();

        assert_eq!(session["user"]["email"], "ada@example.com", "{session}");
        assert_eq!(session["user"]["identities"][0]["identity_data"]["iss"], json!(issuer));
        assert_eq!(test.get("", "/auth/v1/settings").await.json()["external"]["replit"], true);
    }

    /// Invariant 23, through the routes.
    async fn invariant_23_an_answer_is_taken_once(engine: Engine) {
        let test = Test::new(engine).await;
        let mut browser = test.browser();
        let away = browser.go(&authorize("google", BACK)).await;
        let way = browser.as_whom(&away, "ada@example.com").await;
        let (mut copy, cookies) = (test.browser(), browser.cookies.clone());

        let back = browser.come(&way).await;
        assert!(browser.cookies.is_empty(), "it is of no more use");
        copy.cookies = cookies;
        let again = copy.arrive(&way).await;

        assert_eq!((again.status.as_u16(), again.header("location")), (400, ""));
        assert!(again.text().contains("leads nowhere") && !again.text().contains("code="), "{}", again.text());
        assert_eq!(test.rows("auth_codes").await, 1, "that of the first time");
        assert_eq!(test.exchange(&parameter(&back, "code"), pkce::VERIFIER).await.status, 200);
    }

    /// Invariant 24; T12: the attacker's own answer, brought to the browser of somebody else, signs them in as nobody.
    async fn invariant_24_t12_an_answer_is_taken_from_the_browser_that_went(engine: Engine) {
        let test = Test::new(engine).await;
        for provider in ["google", "apple"] {
            let mut attacker = test.browser();
            let away = attacker.go(&authorize(provider, BACK)).await;
            let way = attacker.as_whom(&away, "mallory@example.com").await;
            let mut victim = test.browser();
            victim.go(&authorize(provider, BACK)).await;

            let stranger = victim.arrive(&way).await;
            let late = attacker.arrive(&way).await;

            for answer in [stranger, late] {
                assert_eq!((answer.status.as_u16(), answer.header("location")), (400, ""), "{provider}");
            }
        }
        assert_eq!((test.rows("users").await, test.rows("auth_codes").await, test.rows("sessions").await), (0, 0, 0));
        let refusals = db::testing::rows(&test.app.db, "audit_events").await.unwrap();
        assert_eq!(refusals, 4, "each is in the log");
    }

    /// T12: nor does the code that ends the flow serve an app that did not begin it.
    async fn t12_a_code_of_ours_serves_the_app_that_began_alone(engine: Engine) {
        let test = Test::new(engine).await;
        let back = test.browser().sign_in("google", "mallory@example.com").await;

        let victim = test.exchange(&parameter(&back, "code"), "the-verifier-of-another-app-entirely-0123456789").await;

        assert_eq!(victim.refusal(), refused(400, "bad_code_verifier"));
        assert_eq!(test.rows("sessions").await, 0);
    }

    /// Invariant 26.
    async fn invariant_26_another_provider_cannot_answer(engine: Engine) {
        let test = Test::new(engine).await;
        let other = test.world.oidc().issuer("oidc");

        for iss in [Some(other.as_str()), Some("https://accounts.google.com"), Some(""), None] {
            let mut browser = test.browser();
            let away = browser.go(&authorize("google", BACK)).await;
            let way = browser.as_whom(&away, "ada@example.com").await;
            let back = browser.come(&changed(&way, "iss", iss)).await;

            assert_eq!(wrong(&back), ("invalid_request".into(), "bad_oauth_callback".into()), "{iss:?}");
            assert!(back.as_str().starts_with(BACK) && parameter(&back, "code").is_empty());
        }
        assert_eq!((test.rows("users").await, test.rows("auth_codes").await), (0, 0));
    }

    /// Invariant 27.
    async fn invariant_27_nobody_is_led_where_it_is_not_allowed(engine: Engine) {
        let test = Test::with(engine, &[("AUTH_REDIRECT_URLS", "https://app.example.com/welcome,myapp://callback")]).await;

        for evil in [
            "https://evil.example", "//evil.example", "/\\evil.example", "https:evil.example", "https://app.example.com@evil.example/welcome",
            "https://app.example.com/welcome/../evil", "HTTPS://app.example.com/welcome", "http://2130706433/", "javascript:alert(1)", "https://app.example.com/welcome?next=x",
        ] {
            let mut browser = test.browser();
            let answer = browser.open(&authorize("google", evil)).await;
            assert_eq!(answer.refusal(), refused(400, "validation_failed"), "{evil}");
            assert!(answer.header("location").is_empty() && browser.cookies.is_empty());
        }
        assert_eq!(test.rows("oauth_flows").await, 0);
        for good in ["https://app.example.com/welcome", "myapp://callback"] {
            let mut browser = test.browser();
            let away = browser.go(&authorize("google", good)).await;
            let way = browser.as_whom(&away, "ada@example.com").await;
            let back = browser.come(&way).await;
            assert!(back.as_str().starts_with(&format!("{good}?code=")), "{back}");
        }
    }

    /// Invariant 25, of redirects: no tokens in a URL, and no proof that is none.
    async fn an_app_without_proof_is_told_how_to_bring_it(engine: Engine) {
        let test = Test::new(engine).await;
        let mut browser = test.browser();
        let path = |more: &str| format!("/auth/v1/authorize?provider=google&redirect_to=http%3A%2F%2Flocalhost%3A3000%2Fwelcome{more}");

        let without = browser.go_on(&path("")).await;
        let plain = browser.go_on(&path("&code_challenge=abc&code_challenge_method=plain")).await;

        for back in [&without, &plain] {
            assert_eq!(wrong(back), ("invalid_request".into(), "validation_failed".into()));
            assert!(back.as_str().starts_with(BACK) && back.fragment().is_none(), "{back}");
        }
        assert!(parameter(&without, "error_description").contains("flowType 'pkce'"), "{without}");
        assert_eq!((test.rows("oauth_flows").await, browser.cookies.len()), (0, 0));
    }

    async fn what_the_provider_refuses_the_app_hears(engine: Engine) {
        let test = Test::new(engine).await;
        for provider in ["google", "apple", "github"] {
            let mut browser = test.browser();
            let away = browser.go(&authorize(provider, BACK)).await;
            let way = browser.decline(&away).await;
            let back = browser.come(&way).await;
            assert_eq!(wrong(&back), ("access_denied".into(), "bad_oauth_callback".into()), "{provider}");
            assert!(!parameter(&back, "error_description").is_empty());
        }
        let mut browser = test.browser();
        let away = browser.go(&authorize("google", BACK)).await;
        let way = browser.decline(&away).await;
        let way = changed(&changed(&way, "error", Some("<b>&x=")), "error_description", Some(&"why ".repeat(1000)));
        let back = browser.come(&way).await;
        assert_eq!(parameter(&back, "error"), "server_error");
        assert_eq!(parameter(&back, "error_description").len(), 300);
        assert_eq!((test.rows("users").await, test.rows("auth_codes").await), (0, 0));
    }

    async fn a_provider_that_does_not_answer_leads_back_too(engine: Engine) {
        let test = Test::new(engine).await;
        let mut browser = test.browser();
        let away = browser.go(&authorize("google", BACK)).await;
        let way = browser.as_whom(&away, "ada@example.com").await;
        test.world.oidc().fail(1);

        let back = browser.come(&way).await;

        assert_eq!(wrong(&back), ("temporarily_unavailable".into(), "provider_unavailable".into()));
        assert_eq!(test.rows("users").await, 0);
    }

    async fn a_code_that_is_none_and_one_without_a_state_get_nobody_in(engine: Engine) {
        let test = Test::new(engine).await;
        for code in [Some("invented"), Some(""), None] {
            let mut browser = test.browser();
            let away = browser.go(&authorize("google", BACK)).await;
            let way = browser.as_whom(&away, "ada@example.com").await;
            let back = browser.come(&changed(&way, "code", code)).await;
            assert_eq!(wrong(&back).1, "bad_oauth_callback", "{code:?}");
        }
        for path in ["/auth/v1/callback", "/auth/v1/callback?code=x&state=", "/auth/v1/callback?code=x&state=invented", "/auth/v1/callback?state=a&state=b"] {
            assert_eq!(test.browser().open(path).await.status, 400, "{path}");
        }
        let json = test.post("", "/auth/v1/callback", json!({"state": "x"})).await;
        assert_eq!(json.refusal(), refused(415, "unsupported_media_type"));
        assert_eq!(test.rows("users").await, 0);
    }

    async fn a_token_for_another_nonce_gets_nobody_in(engine: Engine) {
        let test = Test::new(engine).await;
        test.world.oidc().say_of("ada@example.com", json!({"nonce": "of another flow"}));

        let back = test.browser().sign_in("google", "ada@example.com").await;

        assert_eq!(wrong(&back), ("access_denied".into(), "invalid_id_token".into()));
        assert_eq!(test.rows("users").await, 0);
    }

    async fn a_provider_that_is_not_there_is_refused(engine: Engine) {
        let test = Test::new(engine).await;
        for provider in ["", "facebook", "email", "supabase", "firebase"] {
            let answer = test.browser().open(&authorize(provider, BACK)).await;
            assert_eq!(answer.refusal(), refused(400, "provider_disabled"), "{provider}");
        }
    }

    async fn hints_reach_the_provider_and_change_nothing_of_ours(engine: Engine) {
        let test = Test::new(engine).await;
        let hints = "&prompt=consent&access_type=offline&login_hint=ada%40example.com&scopes=https%3A%2F%2Fwww.googleapis.com%2Fauth%2Fcalendar%20email\
                     &client_id=evil&redirect_uri=https%3A%2F%2Fevil.example&state=evil&nonce=evil&response_type=token&response_mode=fragment&request_uri=x";

        let away = test.browser().go(&(authorize("google", BACK) + hints)).await;

        assert_eq!(parameter(&away, "prompt"), "consent");
        assert_eq!(parameter(&away, "login_hint"), "ada@example.com");
        assert_eq!(parameter(&away, "scope"), "openid email profile https://www.googleapis.com/auth/calendar");
        assert_eq!(parameter(&away, "redirect_uri"), "http://127.0.0.1:8080/auth/v1/callback");
        assert!(!away.as_str().contains("evil") && !away.as_str().contains("request_uri"), "{away}");
        assert_eq!(away.query_pairs().filter(|(key, _)| key == "response_type").count(), 1);
    }

    /// Invariant 57, of the flow's cookie, through the routes.
    async fn invariant_57_the_cookie_of_a_flow_is_for_us_alone(engine: Engine) {
        let test = Test::with(engine, &[("PUBLIC_URL", "https://api.example.com")]).await;
        for (provider, site) in [("google", "SameSite=Lax"), ("apple", "SameSite=None")] {
            let answer = test.browser().open(&authorize(provider, BACK)).await;
            let cookie = answer.header("set-cookie");
            assert!(cookie.starts_with("__Host-plinth-oauth-"), "{cookie}");
            for part in ["; Path=/;", "; HttpOnly", "; Secure", "; Max-Age=600", site] {
                assert!(cookie.contains(part), "{part} of {cookie}");
            }
            assert!(!cookie.contains("Domain"), "{cookie}");
            assert_eq!(answer.header("cache-control"), "no-store");
        }
    }

    async fn localhost_and_127_0_0_1_are_one_place_to_people(engine: Engine) {
        let test = Test::new(engine).await;
        let path = authorize("google", BACK);
        let asked = |host: &str| {
            let request = crate::testing::request(Method::GET, "", &path).header("host", host);
            test.send(request.body(axum::body::Body::empty()).unwrap())
        };

        let renamed = asked("localhost:8080").await;
        assert_eq!(renamed.header("location"), format!("http://127.0.0.1:8080{path}"));
        assert!(renamed.header("set-cookie").is_empty());
        for host in ["127.0.0.1:8080", "api.example.com", "localhost:9000"] {
            assert!(!asked(host).await.header("set-cookie").is_empty(), "{host}");
        }
    }

    async fn settings_say_who_can_be_signed_in_with(engine: Engine) {
        let test = Test::new(engine).await;
        let external = test.get("", "/auth/v1/settings").await.json()["external"].clone();
        assert_eq!(external, json!({"email": true, "phone": false, "anonymous_users": false, "google": true, "apple": true, "github": true, "oidc": true, "replit": false}));
    }
}
