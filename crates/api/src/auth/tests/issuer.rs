//! A small issuer on loopback: its keys, and what it was asked.
use axum::{Json, Router, extract::State, http::HeaderMap, routing::get};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use serde_json::{Value, json};
use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

/// RSA keys take long to make; all issuers of the tests share two.
fn rsa(which: usize) -> EncodingKey {
    static KEYS: OnceLock<[String; 2]> = OnceLock::new();
    let pems = KEYS.get_or_init(|| {
        std::array::from_fn(|_| {
            use aws_lc_rs::{encoding::AsDer, rsa::KeySize, signature::RsaKeyPair};
            let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
            let der = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der>::as_der(&pair).unwrap();
            let kind = ["PRIVATE", "KEY"].join(" ");
            format!(
                "-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n",
                STANDARD.encode(der.as_ref())
            )
        })
    });
    EncodingKey::from_rsa_pem(pems[which].as_bytes()).unwrap()
}

#[derive(Clone)]
pub struct Issuer {
    pub url: String,
    published: Arc<Published>,
}

#[derive(Default)]
struct Published {
    url: OnceLock<String>,
    asked: AtomicU32,
    silent: AtomicBool,
    rotated: AtomicBool,
}

pub fn jwk(which: usize) -> Value {
    let mut jwk =
        serde_json::to_value(Jwk::from_encoding_key(&rsa(which), Algorithm::RS256).unwrap())
            .unwrap();
    jwk["kid"] = json!(format!("key-{which}"));
    jwk
}

impl Issuer {
    pub async fn start() -> Self {
        let published = Arc::new(Published::default());
        let router = Router::new()
            .route("/keys", get(keys))
            .route("/auth/keys", get(keys))
            .route("/auth/v1/.well-known/jwks.json", get(keys))
            .route(
                "/.well-known/openid-configuration",
                get(|State(p): State<Arc<Published>>| async move {
                    let url = p.url.get().unwrap();
                    Json(json!({"issuer": url, "jwks_uri": format!("{url}/keys")}))
                }),
            )
            .route(
                "/other/.well-known/openid-configuration",
                get(|State(p): State<Arc<Published>>| async move {
                    let url = p.url.get().unwrap();
                    Json(json!({"issuer": url, "jwks_uri": format!("{url}/keys")}))
                }),
            )
            .route(
                "/large",
                get(|| async { format!("{{\"keys\": [\"{}\"]}}", "x".repeat(300_000)) }),
            )
            .route(
                "/moved",
                get(|| async { axum::response::Redirect::temporary("/keys") }),
            )
            .with_state(published.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        published.url.set(url.clone()).unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, published }
    }

    pub fn asked(&self) -> u32 {
        self.published.asked.load(Ordering::SeqCst)
    }

    /// Answers no more.
    pub fn silence(&self) {
        self.published.silent.store(true, Ordering::SeqCst);
    }

    /// Publishes another key besides.
    pub fn rotate(&self) {
        self.published.rotated.store(true, Ordering::SeqCst);
    }
}

async fn keys(State(p): State<Arc<Published>>) -> (axum::http::StatusCode, HeaderMap, Json<Value>) {
    p.asked.fetch_add(1, Ordering::SeqCst);
    let mut headers = HeaderMap::new();
    headers.insert("cache-control", "public, max-age=600".parse().unwrap());
    if p.silent.load(Ordering::SeqCst) {
        return (
            axum::http::StatusCode::BAD_GATEWAY,
            headers,
            Json(json!({})),
        );
    }
    let mut keys = vec![jwk(0)];
    if p.rotated.load(Ordering::SeqCst) {
        keys.push(jwk(1));
    }
    (
        axum::http::StatusCode::OK,
        headers,
        Json(json!({"keys": keys})),
    )
}

/// Signs with a key of the issuers.
pub fn sign(which: usize, claims: &Value) -> String {
    let header = Header {
        kid: Some(format!("key-{which}")),
        ..Header::new(Algorithm::RS256)
    };
    sign_with(&header, which, claims)
}

pub fn sign_with(header: &Header, which: usize, claims: &Value) -> String {
    jsonwebtoken::encode(header, claims, &rsa(which)).unwrap()
}
