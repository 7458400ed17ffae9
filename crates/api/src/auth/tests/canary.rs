//! Secrets are in what they are for, and nowhere else. Invariant 68.
use super::*;
use crate::{auth::chain, telemetry, testing::Engine};
use std::{
    io::Write,
    sync::{Arc, Mutex},
};
use tracing::subscriber;
use tracing_subscriber::{fmt::MakeWriter, layer::SubscriberExt};

/// Everything that was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

const RIGHT: &str = "canary: right password";
const WRONG: &str = "canary: wrong password";
const BETTER: &str = "canary: better password";

/// One client, who keeps every secret that was sent or given, and what refusals said.
struct Client {
    test: Test,
    secrets: Vec<String>,
    refusals: Vec<String>,
}

impl Client {
    async fn send(&mut self, method: Method, token: &str, path: &str, body: Value) -> Value {
        let request = crate::testing::request(method, token, path)
            .header("content-type", "application/json")
            .header("cookie", "session=canary-in-a-cookie")
            .header("apikey", "canary-in-an-apikey")
            .header("x-forwarded-host", "canary-host.example.com");
        let request = request.body(axum::body::Body::from(body.to_string()));
        let answer = self.test.send(request.unwrap()).await;
        if answer.status.is_success() {
            self.keep(&answer);
        } else {
            self.refusals
                .push(format!("{:?} {}", answer.headers, answer.text()));
        }
        serde_json::from_slice(&answer.bytes).unwrap_or_default()
    }

    async fn post(&mut self, token: &str, path: &str, body: Value) -> Value {
        self.send(Method::POST, token, path, body).await
    }

    /// Whatever of an answer lets somebody in.
    fn keep(&mut self, answer: &Answer) {
        let body: Value = serde_json::from_slice(&answer.bytes).unwrap_or_default();
        for pointer in [
            "/access_token",
            "/refresh_token",
            "/totp/secret",
            "/totp/uri",
            "/hashed_token",
            "/action_link",
            "/email_otp",
        ] {
            let secret = body.pointer(pointer).and_then(Value::as_str);
            self.secrets.extend(secret.map(ToOwned::to_owned));
        }
    }

    async fn code(&mut self, email: &str) -> String {
        let code = self.test.mailed_code(email).await;
        self.secrets.push(code.clone());
        code
    }

    /// Goes through all of it, as its owner and as somebody else.
    async fn live(&mut self) {
        let ada = "ada@example.com";
        let grant = "/auth/v1/token?grant_type=password";
        let refresh = "/auth/v1/token?grant_type=refresh_token";
        let verify = "/auth/v1/verify";
        self.post("", SIGN_UP, json!({"email": ada, "password": RIGHT}))
            .await;
        self.post(
            "",
            SIGN_UP,
            json!({"email": ada, "password": RIGHT, "data": "canary: no object"}),
        )
        .await;
        self.post(
            "",
            verify,
            json!({"type": "signup", "email": ada, "token": "canary-code"}),
        )
        .await;
        let code = self.code(ada).await;
        let session = self
            .post(
                "",
                verify,
                json!({"type": "signup", "email": ada, "token": code}),
            )
            .await;
        self.post(
            "",
            verify,
            json!({"type": "signup", "email": ada, "token": code}),
        )
        .await;
        self.post(
            "",
            verify,
            json!({"type": "signup", "token_hash": "canary-link"}),
        )
        .await;
        for password in [WRONG, RIGHT] {
            self.post("", grant, json!({"email": ada, "password": password}))
                .await;
        }
        self.post("", grant, json!({"email": ada, "password": [WRONG]}))
            .await;
        let token = session["refresh_token"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let newer = self
            .post("", refresh, json!({"refresh_token": token}))
            .await;
        let access = newer["access_token"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        self.send(Method::GET, &access, USER, json!({})).await;
        for token in [format!("{token}x"), "canary-refresh".into()] {
            self.post("", refresh, json!({"refresh_token": token}))
                .await;
        }
        for token in [format!("{access}x"), "canary-access".into()] {
            self.send(Method::GET, &token, USER, json!({})).await;
            self.send(Method::GET, &token, "/v1/models", json!({}))
                .await;
        }
        self.post(
            "",
            "/auth/v1/token?grant_type=id_token",
            json!({"provider": "google", "id_token": "canary.id.token", "nonce": "canary-nonce"}),
        )
        .await;
        self.post(
            "",
            "/auth/v1/token?grant_type=pkce",
            json!({"auth_code": "canary-auth-code", "code_verifier": "canary-verifier"}),
        )
        .await;
        self.send(
            Method::GET,
            "",
            "/auth/v1/verify?token=canary-in-a-link&type=signup",
            json!({}),
        )
        .await;
        self.post("", "/auth/v1/recover", json!({"email": ada}))
            .await;
        self.code(ada).await;
        self.change(&access).await;
        let key = self.test.service_key();
        self.secrets.push(key.clone());
        self.post(
            &key,
            "/auth/v1/admin/generate_link",
            json!({"type": "recovery", "email": ada}),
        )
        .await;
        self.post(
            &key,
            "/auth/v1/admin/users",
            json!({"email": "ben@example.com", "password": RIGHT, "password_hash": "canary-hash"}),
        )
        .await;
        self.post("", refresh, json!({"refresh_token": token}))
            .await;
    }

    async fn change(&mut self, access: &str) {
        let factor = self
            .post(access, "/auth/v1/factors", json!({"factor_type": "totp"}))
            .await;
        let id = factor["id"].as_str().unwrap_or_default().to_owned();
        let asked = self
            .post(
                access,
                &format!("/auth/v1/factors/{id}/challenge"),
                json!({}),
            )
            .await;
        let answer = json!({"challenge_id": asked["id"], "code": "canary-totp"});
        self.post(access, &format!("/auth/v1/factors/{id}/verify"), answer)
            .await;
        self.send(Method::GET, access, "/auth/v1/reauthenticate", json!({}))
            .await;
        self.code("ada@example.com").await;
        for body in [
            json!({"password": BETTER, "nonce": "canary-nonce"}),
            json!({"password": BETTER, "current_password": WRONG}),
            json!({"password": BETTER, "current_password": RIGHT}),
            json!({"password": BETTER}),
            json!({"email": "another@example.com"}),
        ] {
            self.send(Method::PUT, access, USER, body).await;
        }
        self.code("another@example.com").await;
    }
}

#[tokio::test]
async fn no_secret_is_in_any_log_refusal_or_metric_whatever_goes_wrong() {
    let log = Log::default();
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_writer(log.clone());
    let all = tracing_subscriber::registry()
        .with(telemetry::filter("trace"))
        .with(lines);
    // With one subscriber alone, what other tests come upon first would be lost here: tracing asks theirs.
    let _other = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = subscriber::set_default(all);
    let variables = [CONFIRMING, &[("AUTH_OTP_LENGTH", "10")]].concat();
    let test = Test::with(Engine::Sqlite, &variables).await;
    let mut client = Client {
        test,
        secrets: vec![],
        refusals: vec![],
    };

    client.live().await;
    chain::seal(&client.test.app).await.unwrap();
    // And once more when nothing can be written down.
    db::testing::execute(&client.test.app.db, "create trigger broken before insert on audit_events begin select raise(abort, 'broken'); end").await.unwrap();
    let failed = client
        .post(
            "",
            "/auth/v1/token?grant_type=password",
            json!({"email": "ada@example.com", "password": WRONG}),
        )
        .await;
    let metrics = telemetry::render(&client.test.app).await;

    assert_eq!(failed["code"], "unexpected_failure");
    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for line in ["answered", "the audit log is sealed", "broken"] {
        assert!(logged.contains(line), "{line} is not in {logged}");
    }
    assert!(client.refusals.len() > 15, "{:#?}", client.refusals);
    assert!(client.secrets.len() > 12, "{:?}", client.secrets);
    let refused = client.refusals.join("\n");
    for secret in client.secrets.iter().map(String::as_str).chain(["canary"]) {
        for (place, text) in [
            ("the log", &logged),
            ("a refusal", &refused),
            ("the metrics", &metrics),
        ] {
            let at = text.find(secret);
            let around = at.map(|at| text[..at].lines().last().unwrap_or_default());
            assert_eq!(around, None, "{secret} is in {place}");
        }
    }
}
