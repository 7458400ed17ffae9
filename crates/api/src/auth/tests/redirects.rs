use super::*;
use crate::{auth::redirect, testing::Engine};

const LISTED: &[(&str, &str)] = &[
    ("PUBLIC_URL", "https://api.example.com"),
    (
        "AUTH_REDIRECT_URLS",
        "https://app.example.com/welcome, myapp://callback,http://127.0.0.1/callback,https://other.example.com",
    ),
];

#[test]
fn a_sign_in_leads_only_to_what_is_listed_exactly() {
    let own = LISTED[0].1.parse().unwrap();
    let listed: Vec<_> = LISTED[1].1.split(',').map(String::from).collect();
    let allowed = |url: &str| redirect::judge(url, &listed, &own, true).map(String::from);

    for url in [
        "https://app.example.com/welcome",
        "myapp://callback",
        "https://other.example.com",
        "https://other.example.com/",
        // RFC 8252: the app takes whatever port is free.
        "http://127.0.0.1:49152/callback",
        // Our own pages.
        "https://api.example.com/anything?at=all",
    ] {
        assert!(allowed(url).is_some(), "{url}");
    }
    for url in [
        "",
        "/",
        "//evil.example",
        "///evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "https:evil.example",
        "https:/app.example.com/welcome",
        "https:\\\\app.example.com\\welcome",
        "https://app.example.com\\welcome",
        "https://app.example.com/welcome\\..\\evil",
        "https://evil.example",
        "https://app.example.com.evil.example/welcome",
        "https://app.example.com@evil.example/welcome",
        "https://evil.example@app.example.com/welcome",
        "https://user:password@app.example.com/welcome",
        "https://app.example.com/welcome/",
        "https://app.example.com/welcome/../welcome",
        "https://app.example.com/welcome?next=https://evil.example",
        "https://app.example.com/welcome#at=evil",
        "https://app.example.com/",
        "https://app.example.com:8443/welcome",
        "https://app.example.com:443/welcome",
        "http://app.example.com/welcome",
        "HTTPS://app.example.com/welcome",
        "https://APP.example.com/welcome",
        "https://app.example.com./welcome",
        "https://app.example.com/wel\ncome",
        "https://app.example.com/welcome ",
        " https://app.example.com/welcome",
        "https://app.example.com/%77elcome",
        "https://ａpp.example.com/welcome",
        "http://2130706433/callback",
        "http://0x7f.1/callback",
        "http://127.1/callback",
        "http://127.0.0.1/other",
        "http://localhost/callback",
        "http://localhost:3000",
        "https://127.0.0.1/callback",
        "http://127.0.0.1.evil.example/callback",
        "http://api.example.com/",
        "https://api.example.com:8443/",
        "https://api.example.com@evil.example/",
        "MyApp://callback",
        "myapp://callback/other",
        "myapp:callback",
        "otherapp://callback",
        "javascript:alert(1)",
        "javascript://app.example.com/welcome%0aalert(1)",
        "data:text/html,evil",
        "file:///etc/passwd",
        "null",
    ] {
        assert_eq!(allowed(url), None, "{url:?}");
    }
}

#[tokio::test]
async fn in_development_an_app_on_this_machine_may_be_led_to() {
    let test = Test::new(Engine::Sqlite).await;
    let allowed = |url: &str| redirect::allowed(&test.app, url).is_some();

    for url in [
        "http://localhost:3000",
        "http://localhost:5173/a?b=c",
        "http://127.0.0.1:49152/callback",
        "http://[::1]:3000/",
        "http://app.localhost:3000/",
    ] {
        assert!(allowed(url), "{url}");
    }
    for url in [
        "http://localhost.evil.example:3000",
        "http://2130706433:3000",
        "http://user@localhost:3000",
        "http://192.168.0.2:3000",
        "HTTP://localhost:3000",
        "ftp://localhost/",
    ] {
        assert!(!allowed(url), "{url}");
    }
}

#[tokio::test]
async fn what_is_not_allowed_leads_to_the_site_or_is_refused() {
    let listed = Test::with(Engine::Sqlite, LISTED).await;
    let bare = Test::new(Engine::Sqlite).await;

    for asked in [None, Some("https://evil.example")] {
        assert_eq!(
            redirect::or_site(&listed.app, asked).as_str(),
            "https://app.example.com/welcome"
        );
        assert_eq!(
            redirect::or_site(&bare.app, asked).as_str(),
            "http://127.0.0.1:8080/"
        );
    }
    assert_eq!(
        redirect::or_site(&listed.app, Some("myapp://callback")).as_str(),
        "myapp://callback"
    );
    assert_eq!(
        redirect::or_refuse(&listed.app, Some("myapp://callback"))
            .unwrap()
            .as_str(),
        "myapp://callback"
    );
    assert_eq!(
        redirect::or_refuse(&listed.app, None).unwrap().as_str(),
        "https://app.example.com/welcome"
    );
    let refusal = redirect::or_refuse(&listed.app, Some("https://evil.example")).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "redirect_to is not in AUTH_REDIRECT_URLS."
    );
}

#[test]
fn what_cannot_be_led_to_is_refused_at_the_start() {
    let fault = |url: &str| {
        let env =
            std::collections::HashMap::from([("AUTH_REDIRECT_URLS".to_owned(), url.to_owned())]);
        crate::Config::from_env(&env)
            .err()
            .map(|problems| problems[0].fault.clone())
    };

    for url in [
        "https://*.example.com",
        "app.example.com",
        "https://app.example.com/#at",
        "javascript:alert(1)",
        "HTTPS://app.example.com",
        "/callback",
    ] {
        assert_eq!(
            fault(url),
            Some(format!("has {url:?}, which is no place to lead back to"))
        );
    }
    assert_eq!(
        fault("https://app.example.com, myapp://callback, com.example.app:/callback"),
        None
    );
}
