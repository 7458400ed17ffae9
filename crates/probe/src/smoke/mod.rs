//! Walks the product as a new user and says, step by step, what came instead of what should.
use crate::{events, table::Table};
use anyhow::Result;
use reqwest::{Client, Method, RequestBuilder};
use serde::Serialize;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use url::Url;
use uuid::Uuid;

/// Walks through the product as a new user: health, sign-in, chat, payments, sign-out.
///
/// Leaves one user behind, `probe-…@example.com`. Without secrets the published ones of development
/// are tried; where a server that is not on this machine refuses them, what needs them is skipped.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The server, for example http://127.0.0.1:8080.
    #[arg(value_name = "URL", value_parser = web_address)]
    pub url: Url,

    /// Signs the Stripe events. Default: whsec_development_only.
    #[arg(long, value_name = "S")]
    pub stripe_secret: Option<String>,

    /// Authorizes the RevenueCat events. Default: development_only.
    #[arg(long, value_name = "S")]
    pub revenuecat_secret: Option<String>,

    /// The Stripe price that gives the plan `pro`.
    #[arg(long, value_name = "ID", default_value = "price_pro")]
    pub stripe_price: String,

    /// Seconds for one step.
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub timeout: u64,

    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

const STRIPE_SECRET: &str = "whsec_development_only";
const REVENUECAT_SECRET: &str = "development_only";
/// From a verified event to what it opens.
const APPLIED_WITHIN: Duration = Duration::from_secs(5);

fn web_address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    match url.scheme() {
        "http" | "https" if url.has_host() => Ok(url),
        _ => Err("has to start with http:// or https://".into()),
    }
}

/// Whether a URL never leaves this machine.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// `true`: every step that was taken went as it should.
pub async fn run(args: Args) -> Result<bool> {
    let mut walk = Walk {
        client: Client::builder()
            .timeout(Duration::from_secs(args.timeout))
            .redirect(reqwest::redirect::Policy::none())
            .build()?,
        base: args.url.as_str().trim_end_matches('/').to_owned(),
        steps: vec![],
    };

    if walk.health().await {
        walk.whole_product(&args).await;
    }

    let ok = walk
        .steps
        .iter()
        .all(|step| step.outcome != Outcome::Failed);
    if args.json {
        let report = json!({"url": args.url, "ok": ok, "steps": walk.steps});
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&walk.steps);
    }
    Ok(ok)
}

fn print(steps: &[Step]) {
    let mut table = Table::new(&["", "step", "expected", "got", ">ms"]);
    for step in steps {
        let mark = match step.outcome {
            Outcome::Passed => "ok",
            Outcome::Failed => "FAILED",
            Outcome::Skipped => "skipped",
        };
        let cells = [
            mark,
            step.step,
            step.expected,
            &step.got,
            &step.ms.to_string(),
        ];
        table.row(cells.map(ToOwned::to_owned));
    }
    print!("{table}");
    let count = |outcome| steps.iter().filter(|step| step.outcome == outcome).count();
    println!(
        "\n{} ok, {} failed, {} skipped",
        count(Outcome::Passed),
        count(Outcome::Failed),
        count(Outcome::Skipped)
    );
}

#[derive(Debug, Serialize)]
struct Step {
    step: &'static str,
    expected: &'static str,
    /// Never a token.
    got: String,
    ms: u128,
    outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Passed,
    Failed,
    Skipped,
}

/// What a request came to.
struct Answer {
    /// 0 when there was none; the text then says why.
    status: u16,
    text: String,
    /// Null when it is not JSON.
    body: Value,
    took: Duration,
}

impl Answer {
    fn text_at(&self, pointer: &str) -> &str {
        let value = self.body.pointer(pointer);
        value.and_then(Value::as_str).unwrap_or_default()
    }

    fn has_text(&self, pointers: &[&str]) -> bool {
        pointers
            .iter()
            .all(|pointer| !self.text_at(pointer).is_empty())
    }

    fn is_session(&self) -> bool {
        self.status == 200
            && self.text_at("/token_type") == "bearer"
            && self.has_text(&["/access_token", "/refresh_token", "/user/id"])
            && self.body["expires_in"].is_u64()
            && self.body["expires_at"].is_u64()
    }

    /// Short, and without what must not be shown: names the members of what is long or secret.
    fn brief(&self) -> String {
        if self.status == 0 {
            return self.text.clone();
        }
        let code = self.text_at("/code");
        let said = if !code.is_empty() {
            code.to_owned()
        } else if self.text.len() <= 72 && !self.text.contains("token") {
            self.text.trim().to_owned()
        } else if let Value::Object(members) = &self.body {
            let names: Vec<_> = members.keys().map(String::as_str).collect();
            format!("{{{}}}", names.join(", "))
        } else {
            format!("{} bytes", self.text.len())
        };
        let short: String = said.chars().take(72).collect();
        format!("{} {short}", self.status).trim_end().to_owned()
    }
}

struct Walk {
    client: Client,
    base: String,
    steps: Vec<Step>,
}

impl Walk {
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    async fn get(&self, path: &str, token: &str) -> Answer {
        let request = self.request(Method::GET, path);
        send(if token.is_empty() {
            request
        } else {
            request.bearer_auth(token)
        })
        .await
    }

    async fn post(&self, path: &str, token: &str, body: &Value) -> Answer {
        let request = self.request(Method::POST, path).json(body);
        send(if token.is_empty() {
            request
        } else {
            request.bearer_auth(token)
        })
        .await
    }

    fn note(&mut self, step: &'static str, expected: &'static str, answer: &Answer, right: bool) {
        let outcome = if right {
            Outcome::Passed
        } else {
            Outcome::Failed
        };
        let (got, ms) = (answer.brief(), answer.took.as_millis());
        self.steps.push(Step {
            step,
            expected,
            got,
            ms,
            outcome,
        });
    }

    fn skip(&mut self, step: &'static str, expected: &'static str, why: &str) {
        let (got, outcome) = (why.to_owned(), Outcome::Skipped);
        self.steps.push(Step {
            step,
            expected,
            got,
            ms: 0,
            outcome,
        });
    }

    /// `false`: nobody is there, and asking on would say the same many times.
    async fn health(&mut self) -> bool {
        let answer = self.get("/health", "").await;
        let right = answer.status == 200
            && has_exactly(&answer.body, &["status", "version", "database"])
            && answer.text_at("/status") == "healthy"
            && answer.text_at("/database") == "connected"
            && answer.has_text(&["/version"]);
        self.note(
            "GET /health",
            "200, exactly healthy, version, connected",
            &answer,
            right,
        );
        if answer.status == 0 {
            return false;
        }

        let answer = self.get("/health/ready", "").await;
        let right = answer.status == 200 && answer.body == json!({"ready": true});
        self.note("GET /health/ready", "200 {\"ready\":true}", &answer, right);

        let answer = self.get("/health/live", "").await;
        let right = answer.status == 200 && answer.body == json!({"live": true});
        self.note("GET /health/live", "200 {\"live\":true}", &answer, right);

        let answer = self.get("/api/health", "").await;
        let services = ["database", "redis", "llm", "stripe", "revenuecat", "mail"];
        let known = |name: &str| {
            let state = answer.body["services"][name].as_str().unwrap_or_default();
            ["ok", "degraded", "off", "simulated"].contains(&state)
        };
        let right = answer.status == 200
            && answer.has_text(&["/timestamp"])
            && services.iter().all(|name| known(name));
        self.note(
            "GET /api/health",
            "200 with timestamp and services",
            &answer,
            right,
        );
        true
    }

    async fn whole_product(&mut self, args: &Args) {
        self.jwks().await;
        let name = Uuid::new_v4().simple().to_string();
        let account = Account {
            email: format!("probe-{name}@example.com"),
            password: format!("Probe {name}"),
        };
        let signed_up = self.sign_up(&account).await;
        match &signed_up {
            Some(session) => {
                let token = self.sign_in(&account, session).await;
                self.chat(&token).await;
                self.payments(args, Some((&token, &session.user))).await;
                self.sign_out(&token).await;
            }
            None => {
                let why = "sign-up gave no session (AUTH_AUTOCONFIRM off?)";
                for step in ["sign-in", "chat", "usage", "entitlements", "sign-out"] {
                    self.skip(step, "a session", why);
                }
                self.payments(args, None).await;
            }
        }
    }

    async fn jwks(&mut self) {
        let answer = self.get("/.well-known/jwks.json", "").await;
        let keys = answer.body["keys"].as_array().cloned().unwrap_or_default();
        let public =
            |key: &Value| key["kty"].is_string() && key["kid"].is_string() && key["d"].is_null();
        let right = answer.status == 200 && !keys.is_empty() && keys.iter().all(public);
        self.note(
            "GET /.well-known/jwks.json",
            "200, public keys alone",
            &answer,
            right,
        );
    }

    async fn sign_up(&mut self, account: &Account) -> Option<Session> {
        let body = json!({"email": account.email, "password": account.password});
        let answer = self.post("/auth/v1/signup", "", &body).await;
        self.note(
            "POST signup",
            "200 with a session",
            &answer,
            answer.is_session(),
        );
        answer.is_session().then(|| Session::of(&answer))
    }

    /// Gives the access token to go on with.
    async fn sign_in(&mut self, account: &Account, first: &Session) -> String {
        let password = "/auth/v1/token?grant_type=password";
        let body = json!({"email": account.email, "password": account.password});
        let answer = self.post(password, "", &body).await;
        self.note(
            "POST token, password",
            "200 with a session",
            &answer,
            answer.is_session(),
        );
        let session = if answer.is_session() {
            &Session::of(&answer)
        } else {
            first
        };

        let answer = self.get("/auth/v1/user", &session.access).await;
        let right = answer.status == 200
            && answer.text_at("/id") == first.user
            && answer.text_at("/email") == account.email;
        self.note("GET user", "200 with the same user", &answer, right);

        let body = json!({"refresh_token": session.refresh});
        let answer = self
            .post("/auth/v1/token?grant_type=refresh_token", "", &body)
            .await;
        let right = answer.is_session() && answer.text_at("/access_token") != session.access;
        self.note(
            "POST token, refresh",
            "200 with a new session",
            &answer,
            right,
        );
        let token = if right {
            Session::of(&answer).access
        } else {
            session.access.clone()
        };

        let body = json!({"email": account.email, "password": "not this one"});
        let answer = self.post(password, "", &body).await;
        let right = answer.status == 400 && answer.text_at("/code") == "invalid_credentials";
        self.note(
            "POST token, wrong password",
            "400 invalid_credentials",
            &answer,
            right,
        );
        token
    }

    async fn chat(&mut self, token: &str) {
        let body = json!({"message": "Say hello in one sentence."});
        let answer = self.post("/api/chat", token, &body).await;
        let right = answer.status == 200
            && answer.has_text(&["/response", "/conversationId", "/messageId"])
            && answer.body["usage"].is_object();
        self.note(
            "POST /api/chat",
            "200 with response, usage, ids",
            &answer,
            right,
        );
        let conversation = answer.text_at("/conversationId").to_owned();

        let body = json!({"message": "Once more, please.", "stream": true});
        let mut answer = self.post("/api/chat", token, &body).await;
        let names: Vec<_> = event_names(&answer.text);
        let right = answer.status == 200 && names.last() == Some(&"finish");
        if answer.status == 200 {
            answer.text = format!(
                "{} events, last {}",
                names.len(),
                names.last().unwrap_or(&"none")
            );
        }
        self.note(
            "POST /api/chat, stream",
            "200, events up to finish",
            &answer,
            right,
        );

        let models = self.get("/v1/models", token).await;
        let model = match models.text_at("/data/0/id") {
            "" => "gpt-4o-mini",
            model => model,
        };
        let body = json!({"model": model, "messages": [{"role": "user", "content": "Hello?"}]});
        let answer = self.post("/v1/chat/completions", token, &body).await;
        let right = answer.status == 200
            && answer.text_at("/object") == "chat.completion"
            && answer.has_text(&[
                "/id",
                "/choices/0/message/content",
                "/choices/0/finish_reason",
            ])
            && answer.body["usage"]["total_tokens"].is_u64();
        self.note(
            "POST /v1/chat/completions",
            "200 chat.completion",
            &answer,
            right,
        );

        let answer = self.get("/api/conversations", token).await;
        let data = answer.body["data"].as_array().cloned().unwrap_or_default();
        let right =
            answer.status == 200 && data.iter().any(|one| one["id"] == conversation.as_str());
        self.note(
            "GET /api/conversations",
            "200, has the one above",
            &answer,
            right,
        );

        let answer = self.get("/api/usage", token).await;
        let right = answer.status == 200
            && answer
                .body
                .as_object()
                .is_some_and(|usage| !usage.is_empty());
        self.note("GET /api/usage", "200", &answer, right);
    }

    /// With a session: what the signed event opens is looked at too.
    async fn payments(&mut self, args: &Args, session: Option<(&str, &str)>) {
        let unsigned = self
            .request(Method::POST, "/webhooks/stripe")
            .header(webhooks::stripe::SIGNATURE_HEADER, "test")
            .header("content-type", "application/json")
            .body(r#"{"type":"test"}"#);
        let answer = send(unsigned).await;
        let right = answer.status == 400 && answer.text_at("/code") == "invalid_signature";
        self.note(
            "Stripe, no signature",
            "400 invalid_signature",
            &answer,
            right,
        );
        self.stripe(args, session).await;

        let secret = args
            .revenuecat_secret
            .as_deref()
            .unwrap_or(REVENUECAT_SECRET);
        let (step, expected) = ("RevenueCat TEST", "200");
        let answer = self.revenuecat(secret).await;
        if answer.status == 401 && args.revenuecat_secret.is_none() && !is_loopback(&args.url) {
            self.skip(step, expected, "needs --revenuecat-secret");
        } else {
            self.note(step, expected, &answer, answer.status == 200);
        }
        let answer = self.revenuecat("not the secret").await;
        self.note(
            "RevenueCat, wrong secret",
            "401",
            &answer,
            answer.status == 401,
        );
    }

    async fn stripe(&mut self, args: &Args, session: Option<(&str, &str)>) {
        let (step, expected) = ("Stripe, signed subscription", "200 {\"received\":true}");
        let (seen, opens) = ("GET /api/entitlements", "plan pro within 5 s");
        let key = Uuid::new_v4().simple().to_string();
        let bought = events::Purchase {
            key: &key[..24],
            user: session.map_or("nobody", |(_, user)| user),
            price: &args.stripe_price,
        };
        let body = events::subscription(&bought, events::now()).to_string();
        let secret = args.stripe_secret.as_deref().unwrap_or(STRIPE_SECRET);
        let signature = webhooks::stripe::sign(body.as_bytes(), secret, events::now());
        let request = self
            .request(Method::POST, "/webhooks/stripe")
            .header(webhooks::stripe::SIGNATURE_HEADER, signature)
            .header("content-type", "application/json")
            .body(body);
        let answer = send(request).await;
        if answer.status == 400 && args.stripe_secret.is_none() && !is_loopback(&args.url) {
            self.skip(step, expected, "needs --stripe-secret");
            self.skip(seen, opens, "needs --stripe-secret");
            return;
        }
        let right = answer.status == 200 && answer.body == json!({"received": true});
        self.note(step, expected, &answer, right);

        let Some((token, _)) = session else {
            return;
        };
        if !right {
            self.skip(seen, opens, "the event was not taken");
            return;
        }
        let sent = Instant::now();
        loop {
            let mut answer = self.get("/api/entitlements", token).await;
            let opened = answer.text_at("/plan") == "pro";
            if opened || sent.elapsed() > APPLIED_WITHIN {
                answer.took = sent.elapsed();
                if answer.status == 200 {
                    answer.text = format!("plan {}", answer.text_at("/plan"));
                }
                self.note(seen, opens, &answer, opened && answer.status == 200);
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn revenuecat(&self, secret: &str) -> Answer {
        let event = events::revenuecat_test(&Uuid::new_v4().to_string(), events::now());
        let request = self
            .request(Method::POST, "/webhooks/revenuecat")
            .json(&event);
        send(request.bearer_auth(secret)).await
    }

    async fn sign_out(&mut self, token: &str) {
        let answer = self.post("/auth/v1/logout", token, &json!({})).await;
        self.note("POST logout", "204", &answer, answer.status == 204);
        let answer = self.get("/auth/v1/user", token).await;
        let right = matches!(answer.status, 401 | 403);
        self.note("GET user, signed out", "401 or 403", &answer, right);
    }
}

struct Account {
    email: String,
    password: String,
}

struct Session {
    access: String,
    refresh: String,
    user: String,
}

impl Session {
    fn of(answer: &Answer) -> Self {
        let text = |pointer| answer.text_at(pointer).to_owned();
        Self {
            access: text("/access_token"),
            refresh: text("/refresh_token"),
            user: text("/user/id"),
        }
    }
}

async fn send(request: RequestBuilder) -> Answer {
    let sent = Instant::now();
    let answered = async {
        let response = request.send().await?;
        Ok::<_, reqwest::Error>((response.status().as_u16(), response.text().await?))
    };
    let (status, text) = answered.await.unwrap_or_else(|error| (0, plainly(&error)));
    Answer {
        status,
        body: serde_json::from_str(&text).unwrap_or_default(),
        text,
        took: sent.elapsed(),
    }
}

/// The cause, which reqwest keeps inside.
fn plainly(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    format!("no answer: {cause}")
}

fn has_exactly(body: &Value, members: &[&str]) -> bool {
    body.as_object().is_some_and(|body| {
        body.len() == members.len() && members.iter().all(|name| body.contains_key(*name))
    })
}

/// Of server-sent events, in order.
fn event_names(stream: &str) -> Vec<&str> {
    let lines = stream.lines();
    lines
        .filter_map(|line| line.strip_prefix("event:").map(str::trim))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, text: &str) -> Answer {
        Answer {
            status,
            text: text.into(),
            body: serde_json::from_str(text).unwrap_or_default(),
            took: Duration::ZERO,
        }
    }

    #[test]
    fn a_brief_answer_shows_no_tokens() {
        let session = r#"{"access_token":"ey.secret","user":{"id":"1"}}"#;
        assert_eq!(answer(200, session).brief(), "200 {access_token, user}");
        assert_eq!(
            answer(200, r#"{"ready":true}"#).brief(),
            r#"200 {"ready":true}"#
        );
        assert_eq!(
            answer(400, r#"{"code":"bad_json","detail":"…"}"#).brief(),
            "400 bad_json"
        );
        assert_eq!(answer(204, "").brief(), "204");
    }

    #[test]
    fn health_may_have_no_further_members() {
        let names = ["status", "version"];
        assert!(has_exactly(
            &json!({"version": "1", "status": "healthy"}),
            &names
        ));
        assert!(!has_exactly(
            &json!({"version": "1", "status": "healthy", "x": 1}),
            &names
        ));
        assert!(!has_exactly(&json!({"version": "1"}), &names));
    }

    #[test]
    fn the_last_event_is_known_by_its_name() {
        let stream = ": open\n\nevent: start\ndata: {}\n\nid: 1\nevent:finish\ndata: {}\n\n";
        assert_eq!(event_names(stream), ["start", "finish"]);
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for (url, expected) in [
            ("http://127.0.0.1:8080", true),
            ("http://[::1]:1", true),
            ("http://api.localhost", true),
            ("https://api.example.com", false),
            ("http://10.0.0.1", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(url).unwrap()), expected, "{url}");
        }
    }
}
