//! A browser that goes to a simulated provider and comes back: it keeps our cookies, and follows
//! where it is led.
use super::*;
use crate::testing::request;
use axum::body::Body;
use http::header;
use std::collections::HashMap;
use url::Url;

pub struct Browser<'a> {
    test: &'a Test,
    http: reqwest::Client,
    pub cookies: HashMap<String, String>,
}

/// How a provider leads back.
#[derive(Debug, Clone)]
pub enum Way {
    Get(String),
    /// Apple's: a form.
    Post(String),
}

impl Test {
    pub fn browser(&self) -> Browser<'_> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none());
        Browser {
            test: self,
            http: http.build().unwrap(),
            cookies: HashMap::new(),
        }
    }

    /// Signs in with a provider, and exchanges the code.
    pub async fn sign_in_at(&self, provider: &str, email: &str) -> Answer {
        let back = self.browser().sign_in(provider, email).await;
        self.exchange(&parameter(&back, "code"), pkce::VERIFIER)
            .await
    }
}

/// `authorize`, as auth-js asks for it.
pub fn authorize(provider: &str, redirect_to: &str) -> String {
    let asked = [
        ("provider", provider),
        ("redirect_to", redirect_to),
        ("code_challenge", pkce::CHALLENGE),
        ("code_challenge_method", "s256"),
    ];
    let url = Url::parse_with_params("http://x/auth/v1/authorize", asked).unwrap();
    format!("{}?{}", url.path(), url.query().unwrap())
}

pub const BACK: &str = "http://localhost:3000/welcome";

impl Browser<'_> {
    /// All the way: where it ends.
    pub async fn sign_in(&mut self, provider: &str, email: &str) -> Url {
        let away = self.go(&authorize(provider, BACK)).await;
        let way = self.as_whom(&away, email).await;
        self.come(&way).await
    }

    /// Follows a URL of ours; gives where it leads.
    pub async fn go(&mut self, path: &str) -> Url {
        let answer = self.open(path).await;
        assert_eq!(answer.status, 302, "{}", answer.text());
        Url::parse(answer.header("location")).unwrap()
    }

    /// The same, for what leads back at once.
    pub async fn go_on(&mut self, path: &str) -> Url {
        let answer = self.open(path).await;
        assert_eq!(answer.status, 303, "{}", answer.text());
        Url::parse(answer.header("location")).unwrap()
    }

    pub async fn open(&mut self, path: &str) -> Answer {
        let path = path.trim_start_matches("http://127.0.0.1:8080");
        let request = self.with_cookies(request(Method::GET, "", path));
        self.send(request.body(Body::empty()).unwrap()).await
    }

    /// Says at the provider who they are; gives how it leads back.
    pub async fn as_whom(&self, away: &Url, email: &str) -> Way {
        let mut away = away.clone();
        away.query_pairs_mut().append_pair("login_hint", email);
        self.answered(away).await
    }

    /// Changes their mind at the provider.
    pub async fn decline(&self, away: &Url) -> Way {
        let mut away = away.clone();
        away.query_pairs_mut().append_pair("cancel", "1");
        self.answered(away).await
    }

    async fn answered(&self, away: Url) -> Way {
        let answer = self.http.get(away).send().await.unwrap();
        if answer.status() == 302 {
            let to = answer.headers()[header::LOCATION].to_str().unwrap();
            return Way::Get(to.to_owned());
        }
        let page = answer.text().await.unwrap();
        assert!(page.contains("method=\"post\""), "{page}");
        let between = |text: &str, from: &str| {
            let (_, rest) = text.split_once(from).unwrap();
            let plain = rest.split('"').next().unwrap().replace("&quot;", "\"");
            plain.replace("&#123;", "{").replace("&amp;", "&")
        };
        let fields = page.split("type=\"hidden\"").skip(1);
        let fields = fields.map(|f| (between(f, "name=\""), between(f, "value=\"")));
        Way::Post(
            url::form_urlencoded::Serializer::new(String::new())
                .extend_pairs(fields)
                .finish(),
        )
    }

    /// Comes back so; gives where it ends.
    pub async fn come(&mut self, way: &Way) -> Url {
        let answer = self.arrive(way).await;
        assert_eq!(answer.status, 303, "{}", answer.text());
        Url::parse(answer.header("location")).unwrap()
    }

    pub async fn arrive(&mut self, way: &Way) -> Answer {
        match way {
            Way::Get(url) => self.open(url).await,
            Way::Post(form) => {
                let request = self.with_cookies(request(Method::POST, "", "/auth/v1/callback"));
                let request =
                    request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
                self.send(request.body(Body::from(form.clone())).unwrap())
                    .await
            }
        }
    }

    fn with_cookies(&self, request: http::request::Builder) -> http::request::Builder {
        let pairs = self.cookies.iter().map(|(k, v)| format!("{k}={v}"));
        let cookies = pairs.collect::<Vec<_>>().join("; ");
        request.header(header::COOKIE, cookies)
    }

    async fn send(&mut self, request: http::Request<Body>) -> Answer {
        let answer = self.test.send(request).await;
        for cookie in answer.headers.get_all(header::SET_COOKIE) {
            let cookie = cookie.to_str().unwrap();
            let (name, rest) = cookie.split_once('=').unwrap();
            let value = rest.split(';').next().unwrap();
            match cookie.contains("Max-Age=0") {
                true => self.cookies.remove(name),
                false => self.cookies.insert(name.to_owned(), value.to_owned()),
            };
        }
        answer
    }
}

/// One parameter of a URL; empty where it has none.
pub fn parameter(url: &Url, name: &str) -> String {
    let found = url.query_pairs().find(|(key, _)| key == name);
    found.map_or_else(String::new, |(_, value)| value.into_owned())
}

/// What a URL says went wrong.
pub fn wrong(url: &Url) -> (String, String) {
    (parameter(url, "error"), parameter(url, "error_code"))
}
