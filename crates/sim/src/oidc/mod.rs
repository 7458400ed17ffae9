//! Providers to sign in with: Google, Apple, Replit and any other OpenID Connect issuer, and GitHub
//! with its own OAuth. Each believes whoever says who they are.

mod authorize;
mod github;
mod jws;
mod token;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::dice::Dice;

/// Seconds that an ID token is good for.
const ID_TOKEN_LIFE_S: i64 = 3600;

/// The providers. Clones share what they know.
#[derive(Clone)]
pub struct Oidc(Arc<Inner>);

struct Inner {
    http: SocketAddr,
    kept: Mutex<Kept>,
    clock: Mutex<Clock>,
}

type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

#[derive(Default)]
struct Kept {
    /// By e-mail address: what is said of them besides, or instead.
    people: HashMap<String, Map<String, Value>>,
    codes: HashMap<String, Grant>,
    /// Access and refresh tokens.
    tokens: HashMap<String, Grant>,
    /// Apple says a name only to a client that has not seen this person.
    introduced: HashSet<(String, String)>,
    revoked: Vec<Revoked>,
    /// So many more questions of servers go unanswered.
    failures: u32,
}

/// What somebody allowed a client.
#[derive(Clone)]
struct Grant {
    provider: String,
    client_id: String,
    redirect_uri: String,
    challenge: Option<String>,
    nonce: Option<String>,
    email: String,
    offline: bool,
}

/// A token that a client gave back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    pub provider: String,
    pub client_id: String,
    pub token: String,
}

impl Oidc {
    pub(crate) fn new(http: SocketAddr) -> Self {
        Self(Arc::new(Inner {
            http,
            kept: Mutex::default(),
            clock: Mutex::new(Arc::new(crate::now)),
        }))
    }

    /// The issuer of this name: `google`, `apple`, `replit`, or any other word.
    pub fn issuer(&self, provider: &str) -> String {
        format!("http://{}/oidc/{provider}", self.0.http)
    }

    /// Where GitHub is, its API too.
    pub fn github_url(&self) -> String {
        format!("http://{}/github", self.0.http)
    }

    /// Tells the time in Unix seconds from now on.
    pub fn tell_time(&self, clock: impl Fn() -> i64 + Send + Sync + 'static) {
        *lock(&self.0.clock) = Arc::new(clock);
    }

    /// From now on every provider says this of them: claims beside the usual ones, or instead; null
    /// leaves one out. GitHub says `email_verified` and `name` of it.
    pub fn say_of(&self, email: &str, claims: Value) {
        let claims = claims.as_object().cloned().unwrap_or_default();
        self.kept().people.insert(email.to_lowercase(), claims);
    }

    /// An ID token as an app on a phone gets it from the provider's own SDK.
    pub fn id_token(
        &self,
        provider: &str,
        client_id: &str,
        nonce: Option<&str>,
        email: &str,
    ) -> String {
        jws::sign(&self.claims(provider, client_id, nonce, email))
    }

    /// A token of these claims and no others, signed as every provider signs.
    pub fn sign(&self, claims: &Value) -> String {
        jws::sign(claims)
    }

    /// An authorization code as an app on a phone gets it beside its ID token (Apple's SDK gives both).
    pub fn authorization_code(&self, provider: &str, client_id: &str, email: &str) -> String {
        let code = random("code_");
        let grant = Grant {
            provider: provider.to_owned(),
            client_id: client_id.to_owned(),
            redirect_uri: String::new(),
            challenge: None,
            nonce: None,
            email: email.trim().to_lowercase(),
            offline: true,
        };
        self.kept().codes.insert(code.clone(), grant);
        code
    }

    /// The next `times` that a server exchanges or revokes something it is answered 503.
    pub fn fail(&self, times: u32) {
        self.kept().failures = times;
    }

    /// Whether this question is one of those.
    fn fails(&self) -> bool {
        let mut kept = self.kept();
        let fails = kept.failures > 0;
        kept.failures = kept.failures.saturating_sub(1);
        fails
    }

    /// What was revoked, oldest first.
    pub fn revoked(&self) -> Vec<Revoked> {
        self.kept().revoked.clone()
    }

    fn claims(&self, provider: &str, client: &str, nonce: Option<&str>, email: &str) -> Value {
        let (email, now) = (email.to_lowercase(), self.now());
        let (first, last) = name_of(&email);
        let domain = email.rsplit('@').next().unwrap_or_default();
        let mut claims = json!({
            "iss": self.issuer(provider),
            "aud": client,
            "sub": subject(provider, &email),
            "iat": now,
            "exp": now + ID_TOKEN_LIFE_S,
            "email": email,
            "email_verified": true,
        });
        let peculiar = match provider {
            "google" => json!({
                "azp": client,
                "hd": (domain != "gmail.com").then_some(domain),
                "name": format!("{first} {last}").trim_end(),
                "given_name": first,
                "family_name": last,
            }),
            "apple" => json!({
                "auth_time": now,
                "nonce_supported": true,
                "is_private_email": (domain == "privaterelay.appleid.com").then_some(true),
            }),
            "replit" => json!({"first_name": first, "last_name": last, "profile_image_url": null}),
            _ => json!({"name": format!("{first} {last}").trim_end()}),
        };
        let said = self.kept().people.get(&email).cloned();
        let layers = [
            Some(json!({ "nonce": nonce })),
            Some(peculiar),
            said.map(Value::Object),
        ];
        for layer in layers.into_iter().flatten() {
            merge(&mut claims, layer);
        }
        claims
    }

    fn now(&self) -> i64 {
        let clock = lock(&self.0.clock).clone();
        clock()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        lock(&self.0.kept)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Members of `layer` take the place of those that are there; null removes.
fn merge(claims: &mut Value, layer: Value) {
    if let (Value::Object(claims), Value::Object(layer)) = (claims, layer) {
        for (name, value) in layer {
            match value {
                Value::Null => claims.remove(&name),
                value => claims.insert(name, value),
            };
        }
    }
}

/// The same for the same address, in the form that the provider's subjects have.
fn subject(provider: &str, email: &str) -> String {
    let mut dice = Dice::of(&format!("{provider} {email}"));
    let mut digits = |count: usize| -> String {
        (0..count)
            .map(|_| char::from(b'1' + dice.below(9) as u8))
            .collect()
    };
    match provider {
        "google" => digits(21),
        "apple" => format!("00{}.{}.{}", digits(4), digits(32), digits(4)),
        _ => digits(8),
    }
}

/// `ada.lovelace@example.com` is Ada Lovelace.
fn name_of(email: &str) -> (String, String) {
    let local = email.split('@').next().unwrap_or_default();
    let mut words = local.split(['.', '_', '-', '+']).map(|word| {
        let mut letters = word.chars();
        let first = letters
            .next()
            .map(|letter| letter.to_uppercase().to_string());
        first.unwrap_or_default() + letters.as_str()
    });
    let first = words.next().unwrap_or_default();
    (first, words.collect::<Vec<_>>().join(" "))
}

fn random(prefix: &str) -> String {
    format!(
        "{prefix}{}{}",
        Uuid::new_v4().simple(),
        Uuid::new_v4().simple()
    )
}

pub fn routes(oidc: Oidc) -> Router {
    let provider = Router::new()
        .route("/.well-known/openid-configuration", get(discovery))
        .route("/keys", get(keys))
        .route("/authorize", get(authorize::authorize))
        .route("/token", post(token::token))
        .route("/userinfo", get(token::userinfo))
        .route("/revoke", post(token::revoke))
        .route("/id_token", post(id_token));
    Router::new()
        .nest("/oidc/{provider}", provider)
        .nest("/github", github::routes())
        .with_state(oidc)
}

/// OpenID Connect Discovery 1.0.
async fn discovery(State(oidc): State<Oidc>, Path(provider): Path<String>) -> Json<Value> {
    let issuer = oidc.issuer(&provider);
    Json(json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "userinfo_endpoint": format!("{issuer}/userinfo"),
        "revocation_endpoint": format!("{issuer}/revoke"),
        "jwks_uri": format!("{issuer}/keys"),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query", "form_post"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "scopes_supported": ["openid", "email", "profile", "offline_access"],
        "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic", "none"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
    }))
}

async fn keys() -> Json<Value> {
    Json(jws::jwks())
}

#[derive(Deserialize)]
struct Wanted {
    client_id: String,
    email: String,
    nonce: Option<String>,
}

/// For native flows: there is no such thing at a provider, whose SDK shows its own sheet.
async fn id_token(
    State(oidc): State<Oidc>,
    Path(provider): Path<String>,
    Json(wanted): Json<Wanted>,
) -> Response {
    if !is_address(&wanted.email) {
        let refusal =
            json!({"error": "invalid_request", "error_description": "email is no address"});
        return (StatusCode::BAD_REQUEST, Json(refusal)).into_response();
    }
    let (client, nonce) = (&wanted.client_id, wanted.nonce.as_deref());
    let token = oidc.id_token(&provider, client, nonce, &wanted.email);
    let code = oidc.authorization_code(&provider, client, &wanted.email);
    Json(json!({"id_token": token, "authorization_code": code})).into_response()
}

fn is_address(text: &str) -> bool {
    let parts = text.trim().split_once('@');
    parts.is_some_and(|(local, domain)| !local.is_empty() && domain.contains('.'))
}
