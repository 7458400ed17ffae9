//! What tests stand on: an instance of its own a test, on either engine, with the outside simulated
//! and a clock that stands still until it is turned.
//!
//! ```ignore
//! both_engines! {
//!     async fn an_unknown_mail_and_a_wrong_password_look_alike(engine: Engine) {
//!         let test = Test::new(engine).await;
//!         …
//!     }
//! }
//! ```
use crate::{
    App, Config,
    app::{Clock, Simulated},
    auth::{self, access, service_role},
    jobs,
};
use axum::{Router, body::Body};
use db::{Db, Timestamp, testing::SqliteFile};
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::{collections::HashMap, time::Duration};
use tower::ServiceExt;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Postgres,
}

/// One test, two engines: invariant 80. On PostgreSQL it runs where `TEST_DATABASE_URL` names a server.
macro_rules! both_engines {
    ($($(#[$meta:meta])* async fn $name:ident($engine:ident: Engine) $body:block)*) => {$(
        $(#[$meta])*
        mod $name {
            #[allow(unused_imports, reason = "not every test names something of its module")]
            use super::*;
            async fn run($engine: $crate::testing::Engine) $body
            #[tokio::test(flavor = "multi_thread")]
            async fn sqlite() {
                run($crate::testing::Engine::Sqlite).await
            }
            #[tokio::test(flavor = "multi_thread")]
            async fn postgres() {
                if db::testing::postgres_is_there() {
                    run($crate::testing::Engine::Postgres).await
                }
            }
        }
    )*};
}
pub(crate) use both_engines;

/// 2026-11-20, 09:30 UTC.
pub const START: Timestamp = Timestamp::from_unix(1_795_167_000);
pub const STRIPE_SECRET: &str = "whsec_of_the_tests_0123456789";
/// With these variables the simulated Stripe can be asked; without, it only tells.
pub const SELLING: [(&str, &str); 2] = [
    ("STRIPE_SECRET_KEY", "sk_test_simulated"),
    ("STRIPE_API_BASE", "{stripe}"),
];
pub const REVENUECAT_SECRET: &str = "revenuecat_of_the_tests_0123456789";
/// Whose other half nobody has.
pub const SENDGRID_KEY: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEjtQADd0NlVFoIMQEdrGAXcoJYHJeKeKj/Vm5I4lRcA4dAkOhIUjm7G7AgOtWxXvdjksZ3/2B2WOKbDiHcgg4Pg==";
pub const PASSWORD: &str = "correct horse battery";

/// An instance, its outside, and its only client.
pub struct Test {
    pub app: App,
    pub router: Router,
    pub world: sim::World,
    _file: Option<SqliteFile>,
}

impl Test {
    pub async fn new(engine: Engine) -> Self {
        Self::with(engine, &[]).await
    }

    /// With these variables set besides.
    pub async fn with(engine: Engine, variables: &[(&str, &str)]) -> Self {
        let (db, file) = match engine {
            Engine::Sqlite => db::testing::sqlite()
                .await
                .map(|(db, file)| (db, Some(file)))
                .unwrap(),
            Engine::Postgres => (db::testing::postgres().await.unwrap().unwrap(), None),
        };
        let test = Self::over(db, variables).await;
        Self {
            _file: file,
            ..test
        }
    }

    /// Another instance over the same database, with an outside of its own.
    pub async fn beside(&self, variables: &[(&str, &str)]) -> Self {
        let other = Self::over(self.app.db.clone(), variables).await;
        other.app.clock.turn(self.app.now().since(other.app.now()));
        other
    }

    /// Over a database that was opened and migrated elsewhere.
    pub async fn over(db: Db, variables: &[(&str, &str)]) -> Self {
        let world = sim::start(sim::Options {
            llm_gap: Duration::ZERO,
            by_hand: true,
            ..sim::Options::default()
        })
        .await
        .unwrap();
        let mut config = config(&world, variables);
        auth::simulated::stand_in(&mut config.auth.providers, world.oidc()).unwrap();
        let simulated = Simulated {
            llm: true,
            mail: true,
            payments: true,
            providers: true,
        };
        let app = App::new(config, db, simulated, Clock::stopped_at(START))
            .await
            .unwrap();
        let clock = app.clock.clone();
        world.oidc().tell_time(move || clock.now().unix());
        let clock = app.clock.clone();
        world.tell_payments_time(move || clock.now().unix());
        world.send_events_to(sim::WebhookTarget {
            base_url: app.public_url(),
            stripe_secret: STRIPE_SECRET.to_owned(),
            revenuecat_secret: REVENUECAT_SECRET.to_owned(),
        });
        Self {
            router: crate::router(&app),
            app,
            world,
            _file: None,
        }
    }

    /// Does every job that is due, and those that they cause, as a worker would.
    pub async fn work(&self) {
        loop {
            let now = self.app.now();
            let mut due = db::jobs::claim(
                &self.app.db,
                &self.app.instance,
                now,
                now + Duration::from_secs(60),
                8,
            )
            .await
            .unwrap();
            if due.is_empty() {
                break;
            }
            // What is claimed together comes in no order.
            due.sort_by_key(|job| job.id);
            for job in due {
                jobs::run(&self.app, job).await;
            }
        }
    }

    /// Takes every event that the simulated Stripe and RevenueCat have to send by now, and those that
    /// follow; gives how many. What is refused they send again later.
    pub async fn deliver(&self) -> usize {
        let mut delivered = 0;
        loop {
            let letters = self.world.letters();
            if letters.is_empty() {
                return delivered;
            }
            for (letter, headers) in letters {
                self.hand_over(letter, headers).await;
                delivered += 1;
            }
        }
    }

    /// Takes one event as its provider sends it, and tells the provider how that went.
    pub async fn hand_over(&self, letter: sim::Letter, headers: Vec<(&'static str, String)>) {
        let path = letter.url.trim_start_matches(&self.app.public_url());
        let mut post = request(Method::POST, "", path);
        for (name, value) in headers {
            post = post.header(name, value);
        }
        let post = post.body(Body::from(letter.body.clone())).unwrap();
        let answer = self.send(post).await;
        self.world.answered(letter, answer.status.as_u16());
    }

    /// Turns the clock on.
    pub fn later(&self, by: Duration) {
        self.app.clock.turn(by);
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status,
            headers: parts.headers,
            bytes: bytes.to_vec(),
        }
    }

    /// As anyone (`""`), or with an access token.
    pub async fn get(&self, token: &str, path: &str) -> Answer {
        self.send(
            request(Method::GET, token, path)
                .body(Body::empty())
                .unwrap(),
        )
        .await
    }

    pub async fn post(&self, token: &str, path: &str, body: Value) -> Answer {
        self.call(Method::POST, token, path, body).await
    }

    pub async fn call(&self, method: Method, token: &str, path: &str, body: Value) -> Answer {
        let request = request(method, token, path).header(header::CONTENT_TYPE, "application/json");
        self.send(request.body(Body::from(body.to_string())).unwrap())
            .await
    }

    /// Signs up, and is signed in.
    pub async fn sign_up(&self, email: &str) -> Person {
        let answer = self
            .post(
                "",
                "/auth/v1/signup",
                json!({"email": email, "password": PASSWORD}),
            )
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        Person::of(&answer.json())
    }

    /// Signs in with the password that everyone here has.
    pub async fn sign_in_again(&self, email: &str) -> Person {
        let body = json!({"email": email, "password": PASSWORD});
        let answer = self
            .post("", "/auth/v1/token?grant_type=password", body)
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        Person::of(&answer.json())
    }

    /// Signs up, and is an admin.
    pub async fn sign_up_admin(&self, email: &str) -> Person {
        let person = self.sign_up(email).await;
        let mut tx = self.app.db.begin().await.unwrap();
        let id = person.id.parse().unwrap();
        db::users::set_role(&mut tx, id, "admin", self.app.now())
            .await
            .unwrap();
        tx.commit().await.unwrap();
        person
    }

    /// A personal API key, as it is shown once.
    pub async fn api_key(&self, person: &Person, new: Value) -> Value {
        let answer = self.post(&person.token, "/api/keys", new).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.json()
    }

    /// What a server administers with, for an hour.
    pub fn service_key(&self) -> String {
        let (issuer, hour) = (access::issuer(&self.app), Duration::from_secs(3600));
        service_role::issue(&self.app.keys, &issuer, hour, self.app.now()).unwrap()
    }

    /// Posts an event as Stripe would, now.
    pub async fn stripe(&self, event: &Value) -> Answer {
        let body = event.to_string();
        let signature =
            webhooks::stripe::sign(body.as_bytes(), STRIPE_SECRET, self.app.now().unix());
        let request =
            request(Method::POST, "", "/webhooks/stripe").header("stripe-signature", signature);
        self.send(request.body(Body::from(body)).unwrap()).await
    }

    /// Posts an event as RevenueCat would.
    pub async fn revenuecat(&self, event: &Value) -> Answer {
        self.post(REVENUECAT_SECRET, "/webhooks/revenuecat", event.clone())
            .await
    }
}

/// A request to the only host there is.
pub fn request(method: Method, token: &str, path: &str) -> http::request::Builder {
    let request = Request::builder().method(method).uri(path);
    if token.is_empty() {
        request
    } else {
        request.header(header::AUTHORIZATION, format!("Bearer {token}"))
    }
}

fn config(world: &sim::World, variables: &[(&str, &str)]) -> Config {
    let (llm, smtp, sendgrid) = (world.llm_url(), world.smtp_url(), world.sendgrid_url());
    let anthropic = world.anthropic_url();
    let mut env: HashMap<String, String> = [
        (
            "JWT_SECRET",
            "the secret of the tests and long enough for anyone",
        ),
        ("PUBLIC_URL", "http://127.0.0.1:8080"),
        ("OPENAI_BASE_URL", llm.as_str()),
        ("GEMINI_BASE_URL", llm.as_str()),
        ("ANTHROPIC_BASE_URL", anthropic.as_str()),
        ("SMTP_URL", smtp.as_str()),
        ("SENDGRID_API_BASE", sendgrid.as_str()),
        ("STRIPE_WEBHOOK_SECRET", STRIPE_SECRET),
        ("REVENUECAT_WEBHOOK_SECRET", REVENUECAT_SECRET),
        ("SENDGRID_WEBHOOK_KEY", SENDGRID_KEY),
        ("RATE_LIMITS", "off"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let stripe = world.stripe_url();
    env.extend(
        variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.replace("{stripe}", &stripe))),
    );
    Config::from_env(&env).unwrap().config
}

/// Someone who is signed in.
#[derive(Debug, Clone)]
pub struct Person {
    pub id: String,
    pub email: String,
    pub token: String,
    pub refresh_token: String,
}

impl Person {
    pub fn of(session: &Value) -> Self {
        let text = |pointer: &str| {
            session
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap()
                .to_owned()
        };
        Self {
            id: text("/user/id"),
            email: text("/user/email"),
            token: text("/access_token"),
            refresh_token: text("/refresh_token"),
        }
    }
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub bytes: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|_| panic!("not JSON: {}", self.text()))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// Status and code of a refusal.
    pub fn refusal(&self) -> (u16, String) {
        let body = self.json();
        let code = body
            .get("code")
            .or_else(|| body.pointer("/error/code"))
            .and_then(Value::as_str);
        (self.status.as_u16(), code.unwrap_or_default().to_owned())
    }

    /// The events of a stream: name and data; `data: [DONE]` is an event without a name.
    pub fn events(&self) -> Vec<(String, Value)> {
        let text = self.text();
        let field = |event: &str, name: &str| {
            event
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .map(|value| value.trim().to_owned())
        };
        text.split("\n\n")
            .filter_map(|event| {
                Some((
                    field(event, "event:").unwrap_or_default(),
                    field(event, "data:")?,
                ))
            })
            .map(|(name, data)| {
                (
                    name,
                    serde_json::from_str(&data).unwrap_or(Value::String(data)),
                )
            })
            .collect()
    }
}
