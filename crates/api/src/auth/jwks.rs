//! What issuers publish: their discovery and their keys, fetched when needed and kept for as long as
//! they say. <https://openid.net/specs/openid-connect-discovery-1_0.html>, RFC 7517.
use super::providers::{self, Provider, Signed, may_be_asked};
use crate::http::Client;
use anyhow::{Context, bail, ensure};
use db::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, jwk::Jwk};
use reqwest::header;
use serde::Deserialize;
use serde_json::Value;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Of one document.
const MAX_BYTES: usize = 256 * 1024;
const PATIENCE: Duration = Duration::from_secs(5);
/// Unless it says otherwise, and within a minute and a day of what it says.
const KEPT: Duration = Duration::from_secs(3600);
/// An unknown key, or an issuer that does not answer, is asked after once in so long.
const AGAIN: Duration = Duration::from_secs(60);
const AGAIN_AFTER_FAILURE: Duration = Duration::from_secs(10);

/// The issuers that are configured, and what they published.
pub struct Issuers {
    pub providers: Vec<Provider>,
    client: Client,
    documents: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Document>>>>,
}

/// What was fetched from one URL. Whoever needs it while it is being fetched waits for the same fetch.
#[derive(Default)]
struct Document {
    value: Option<Arc<Value>>,
    asked_at: Option<Timestamp>,
    fresh_until: Option<Timestamp>,
}

/// Where an issuer's endpoints are.
#[derive(Debug, Clone, Deserialize)]
pub struct Discovery {
    pub issuer: String,
    pub jwks_uri: String,
    #[serde(default)]
    pub authorization_endpoint: String,
    #[serde(default)]
    pub token_endpoint: String,
    #[serde(default)]
    pub userinfo_endpoint: Option<String>,
    #[serde(default)]
    pub revocation_endpoint: Option<String>,
    #[serde(default)]
    pub end_session_endpoint: Option<String>,
    /// How a client says who it is, when it has a secret.
    #[serde(default = "by_header")]
    pub token_endpoint_auth_methods_supported: Vec<String>,
    /// RFC 9207: it names itself in every answer.
    #[serde(default)]
    pub authorization_response_iss_parameter_supported: bool,
}

/// OpenID Connect Discovery 1.0, section 3: where nothing is said.
fn by_header() -> Vec<String> {
    vec!["client_secret_basic".into()]
}

impl Issuers {
    pub fn new(config: &providers::Config, client: Client) -> Self {
        Self {
            providers: providers::all(config),
            client,
            documents: Mutex::default(),
        }
    }

    /// Who signs people in under this name; `replit` is the issuer of `ISSUER_URL` too.
    pub fn named(&self, name: &str) -> Option<&Provider> {
        let name = if name == "replit" { "oidc" } else { name };
        let mut all = self.providers.iter();
        all.find(|provider| provider.name == name && provider.signs_in)
    }

    /// Who issues such tokens, signed so.
    pub fn issuing(&self, issuer: &str, algorithm: Algorithm) -> Option<&Provider> {
        self.providers.iter().find(|provider| {
            provider.issuers.iter().any(|known| known == issuer)
                && provider.algorithms.contains(&algorithm)
        })
    }

    /// The key of this id; `None` when the issuer has none such. Fails when it cannot be asked.
    pub async fn key(
        &self,
        provider: &Provider,
        kid: Option<&str>,
        now: Timestamp,
    ) -> anyhow::Result<Option<DecodingKey>> {
        let url = match &provider.signed {
            Signed::With(secret) => {
                return Ok(Some(DecodingKey::from_secret(secret.expose().as_bytes())));
            }
            Signed::ByKeysAt(url) => self.keys_at(provider, url.as_deref(), now).await?,
        };
        let Some(kid) = kid else { return Ok(None) };
        let known = self.document(&url, now, None).await?;
        if let Some(key) = find(&known, kid) {
            return Ok(Some(key));
        }
        let newest = self.document(&url, now, Some(AGAIN)).await?;
        Ok(find(&newest, kid))
    }

    async fn keys_at(
        &self,
        provider: &Provider,
        url: Option<&str>,
        now: Timestamp,
    ) -> anyhow::Result<String> {
        match url {
            Some(url) => Ok(url.to_owned()),
            None => Ok(self.discovery(provider.issuer(), now).await?.jwks_uri),
        }
    }

    /// Whether people can be signed in by this provider just now; gives where its keys are.
    pub async fn answers(&self, provider: &Provider, now: Timestamp) -> anyhow::Result<String> {
        let Signed::ByKeysAt(url) = &provider.signed else {
            return Ok("a secret that we share".into());
        };
        let url = self.keys_at(provider, url.as_deref(), now).await?;
        let set = self.document(&url, now, None).await?;
        let keys = set.get("keys").and_then(Value::as_array);
        ensure!(
            keys.is_some_and(|keys| !keys.is_empty()),
            "{url} publishes no keys"
        );
        if provider.signs_in {
            self.endpoints(provider, now).await?;
        }
        Ok(url)
    }

    /// What an issuer says of itself; it has to say the name it was asked by, to the letter.
    pub async fn discovery(&self, issuer: &str, now: Timestamp) -> anyhow::Result<Discovery> {
        let base = issuer.trim_end_matches('/');
        let url = format!("{base}/.well-known/openid-configuration");
        let document = self.document(&url, now, None).await?;
        let discovery = Discovery::deserialize(&*document).context("discovery")?;
        ensure!(
            discovery.issuer == issuer,
            "the discovery at {url} is another issuer's"
        );
        Ok(discovery)
    }

    /// Where a provider is asked.
    pub async fn endpoints(
        &self,
        provider: &Provider,
        now: Timestamp,
    ) -> anyhow::Result<Discovery> {
        let issuer = provider.issuer();
        if provider.name != "apple" {
            return self.discovery(issuer, now).await;
        }
        // Apple's discovery has named another issuer than its tokens do.
        if issuer == providers::APPLE {
            return Ok(of_apple(issuer));
        }
        let stand_in = self.discovery(issuer, now).await;
        Ok(stand_in.unwrap_or_else(|_| of_apple(issuer)))
    }

    /// The document at a URL: the one that is kept while it is fresh, and while a new one cannot be
    /// had. With `older`, a new one unless it was asked for less than so long ago.
    async fn document(
        &self,
        url: &str,
        now: Timestamp,
        older: Option<Duration>,
    ) -> anyhow::Result<Arc<Value>> {
        let document = {
            let mut all = self
                .documents
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            all.entry(url.to_owned()).or_default().clone()
        };
        let mut document = document.lock().await;
        let asked = document.asked_at;
        let asked_within = |pause: Duration| asked.is_some_and(|at| now < at + pause);
        let needed = match (&document.value, older) {
            (None, _) => !asked_within(AGAIN_AFTER_FAILURE),
            (Some(_), Some(older)) => !asked_within(older),
            (Some(_), None) => document.fresh_until.is_none_or(|until| until <= now),
        };
        if needed {
            document.asked_at = Some(now);
            match self.fetch(url).await {
                Ok((value, kept)) => {
                    document.value = Some(Arc::new(value));
                    document.fresh_until = Some(now + kept);
                }
                Err(error) => {
                    tracing::warn!(
                        url,
                        error = crate::error::explain(&error),
                        "an issuer does not answer"
                    );
                    document.fresh_until = Some(now + AGAIN);
                }
            }
        }
        document
            .value
            .clone()
            .with_context(|| format!("{url} does not answer"))
    }

    async fn fetch(&self, url: &str) -> anyhow::Result<(Value, Duration)> {
        let url = url::Url::parse(url)?;
        ensure!(may_be_asked(&url), "it is not https");
        let request = self.get(url)?.header(header::ACCEPT, "application/json");
        let mut response = request.send().await?;
        if response.status() != reqwest::StatusCode::OK {
            bail!("it answers {}", response.status());
        }
        let caching = response.headers().get(header::CACHE_CONTROL);
        let kept = caching
            .and_then(|value| value.to_str().ok())
            .and_then(max_age);
        let value = serde_json::from_slice(&limited(&mut response).await?)?;
        Ok((value, kept.unwrap_or(KEPT)))
    }

    /// For what else is asked of a provider.
    pub fn get(&self, url: url::Url) -> anyhow::Result<reqwest::RequestBuilder> {
        Ok(self.client.get()?.get(url).timeout(PATIENCE))
    }

    /// For what is told to a provider.
    pub fn post(&self, url: url::Url) -> anyhow::Result<reqwest::RequestBuilder> {
        Ok(self.client.get()?.post(url).timeout(PATIENCE))
    }
}

/// <https://developer.apple.com/documentation/signinwithapplerestapi>
fn of_apple(issuer: &str) -> Discovery {
    let at = |path: &str| format!("{issuer}/auth/{path}");
    Discovery {
        issuer: issuer.to_owned(),
        jwks_uri: at("keys"),
        authorization_endpoint: at("authorize"),
        token_endpoint: at("token"),
        userinfo_endpoint: None,
        revocation_endpoint: Some(at("revoke")),
        end_session_endpoint: None,
        token_endpoint_auth_methods_supported: vec!["client_secret_post".into()],
        authorization_response_iss_parameter_supported: false,
    }
}

/// A body, unless it is larger than anything we ask for.
pub async fn limited(response: &mut reqwest::Response) -> anyhow::Result<Vec<u8>> {
    let mut bytes = vec![];
    while let Some(chunk) = response.chunk().await? {
        ensure!(bytes.len() + chunk.len() <= MAX_BYTES, "it is too large");
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// RFC 9111, section 5.2.2.1: so many seconds, within reason.
fn max_age(cache_control: &str) -> Option<Duration> {
    let mut directives = cache_control.split(',').map(str::trim);
    let seconds = directives.find_map(|directive| directive.strip_prefix("max-age="))?;
    let seconds: u64 = seconds.parse().ok()?;
    Some(Duration::from_secs(seconds.clamp(60, 86_400)))
}

/// A public key of the set. What is symmetric in it was never meant for us.
fn find(set: &Value, kid: &str) -> Option<DecodingKey> {
    let keys = set.get("keys")?.as_array()?;
    let key = keys
        .iter()
        .find(|key| key["kid"] == kid && key["kty"] != "oct")?;
    let jwk = Jwk::deserialize(key).ok()?;
    DecodingKey::from_jwk(&jwk).ok()
}
