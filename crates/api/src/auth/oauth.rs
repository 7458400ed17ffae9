//! What passes between us and a provider while somebody signs in there: where they are sent, and what
//! the code that they bring back is exchanged for. OpenID Connect Core 1.0, section 3.1.
use super::{
    apple,
    flow::{Back, Gone},
    github,
    id_token::{self, Besides, Claims},
    jwks::{self, Discovery},
    pkce::ProviderTokens,
    providers::{Provider, may_be_asked},
};
use crate::{App, Error, Result};
use axum::http::{StatusCode, header};
use serde::Deserialize;
use serde_json::Value;
use url::{Url, form_urlencoded::Serializer};

const FORM: &str = "application/x-www-form-urlencoded";
/// GitHub's API talks to nobody without.
const AGENT: &str = "plinth";

/// Where every provider has to lead back to.
pub fn redirect_uri(app: &App) -> String {
    format!("{}/auth/v1/callback", app.public_url())
}

/// Whether this provider's answer comes as a POST from its own site.
pub fn posts_back(provider: &Provider) -> bool {
    provider.name == "apple"
}

/// Where a provider is asked; refused when it cannot be found out just now.
pub async fn endpoints(app: &App, provider: &Provider) -> Result<Discovery> {
    if provider.name == "github" {
        return Ok(github::endpoints(app));
    }
    let found = app.issuers.endpoints(provider, app.now()).await;
    found.map_err(|_| Error::ProviderUnavailable)
}

/// Where somebody goes; `scopes` and `hints` are what the app wants besides.
pub fn authorization_url(
    app: &App,
    provider: &Provider,
    at: &Discovery,
    gone: &Gone,
    scopes: &[&str],
    hints: &[(String, String)],
) -> Result<Url> {
    let mut url = asked_at(&at.authorization_endpoint)?;
    let mut scope = match provider.name {
        "github" => vec!["read:user", "user:email"],
        "apple" => vec!["openid", "name", "email"],
        _ => vec!["openid", "email", "profile"],
    };
    for more in scopes {
        if !scope.contains(more) {
            scope.push(more);
        }
    }
    let mut query = url.query_pairs_mut();
    query
        .append_pair("response_type", "code")
        .append_pair("client_id", client_id(provider))
        .append_pair("redirect_uri", &redirect_uri(app))
        .append_pair("scope", &scope.join(" "))
        .append_pair("state", &gone.state);
    if provider.name != "github" {
        query.append_pair("nonce", &gone.nonce);
    }
    if posts_back(provider) {
        query.append_pair("response_mode", "form_post");
    } else {
        query
            .append_pair("code_challenge", &gone.challenge)
            .append_pair("code_challenge_method", "S256");
    }
    query.extend_pairs(hints);
    drop(query);
    Ok(url)
}

/// The client that browsers are sent as.
fn client_id(provider: &Provider) -> &str {
    provider.audiences.first().map_or("", String::as_str)
}

/// What a token endpoint gives.
#[derive(Default, Deserialize)]
pub struct Tokens {
    pub access_token: Option<String>,
    pub refresh_token: Option<String>,
    pub id_token: Option<String>,
}

/// Who brought this code back, and what the provider gave for its own API.
pub async fn person(
    app: &App,
    provider: &Provider,
    at: &Discovery,
    code: &str,
    back: &Back,
) -> Result<(Claims, ProviderTokens)> {
    let redirect_uri = redirect_uri(app);
    let mut form = vec![
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", redirect_uri.as_str()),
    ];
    if !posts_back(provider) {
        form.push(("code_verifier", &back.verifier));
    }
    let tokens = exchange(app, provider, at, client_id(provider), &form).await?;
    let claims = if provider.name == "github" {
        github::person(app, provider, &tokens).await?
    } else {
        claims(app, provider, at, &tokens, &back.nonce).await?
    };
    let given = ProviderTokens {
        access: tokens.access_token,
        refresh: tokens.refresh_token,
    };
    Ok((claims, given))
}

async fn claims(
    app: &App,
    provider: &Provider,
    at: &Discovery,
    tokens: &Tokens,
    nonce: &str,
) -> Result<Claims> {
    let token = tokens.id_token.as_deref().unwrap_or_default();
    let besides = Besides {
        nonce: Some(nonce),
        access_token: tokens.access_token.as_deref(),
        ..Besides::default()
    };
    let claims = id_token::check(app, token, provider, besides).await?;
    let (Some(userinfo), Some(access), None) =
        (&at.userinfo_endpoint, &tokens.access_token, &claims.email)
    else {
        return Ok(claims);
    };
    // Core, section 5.4: with an access token, what the scopes ask for may be said there alone.
    let (status, said) = ask(get(app, userinfo, access)?).await?;
    match status {
        StatusCode::OK => Ok(claims.besides(provider, &said)),
        _ => Ok(claims),
    }
}

/// Asks the token endpoint as this client.
pub async fn exchange(
    app: &App,
    provider: &Provider,
    at: &Discovery,
    client_id: &str,
    form: &[(&str, &str)],
) -> Result<Tokens> {
    let (status, answer) = post(app, provider, at, &at.token_endpoint, client_id, form).await?;
    // GitHub refuses with 200.
    let refusal = answer["error"].as_str();
    if status != StatusCode::OK || refusal.is_some() {
        let word: String = refusal.unwrap_or_default().chars().take(100).collect();
        tracing::warn!(
            provider = provider.name,
            status = status.as_u16(),
            error = word,
            "a provider did not take a code"
        );
        return Err(Error::BadOauthCallback(
            "The provider did not take the code that came back",
        ));
    }
    Tokens::deserialize(answer).map_err(|_| Error::ProviderUnavailable)
}

/// Posts a form to an endpoint of a provider as this client, in the way that it wants to know it by.
pub async fn post(
    app: &App,
    provider: &Provider,
    at: &Discovery,
    url: &str,
    client_id: &str,
    form: &[(&str, &str)],
) -> Result<(StatusCode, Value)> {
    let secret: Option<String> = match provider.name {
        "apple" => Some(apple::client_secret(app, provider, client_id)?),
        _ => provider.client_secret.as_ref().map(|s| s.expose().into()),
    };
    let methods = &at.token_endpoint_auth_methods_supported;
    let by_header = methods.iter().any(|method| method == "client_secret_basic");
    let mut form = form.to_vec();
    let mut request = app.issuers.post(asked_at(url)?)?;
    match &secret {
        // RFC 6749, section 2.3.1: encoded as in a form first.
        Some(secret) if by_header => {
            request = request.basic_auth(encoded(client_id), Some(encoded(secret)));
        }
        Some(secret) => form.extend([("client_id", client_id), ("client_secret", secret)]),
        None => form.push(("client_id", client_id)),
    }
    let body = Serializer::new(String::new()).extend_pairs(form).finish();
    let request = request
        .header(header::CONTENT_TYPE, FORM)
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, AGENT);
    ask(request.body(body)).await
}

/// A question to a provider's API.
pub fn get(app: &App, url: &str, access_token: &str) -> Result<reqwest::RequestBuilder> {
    let request = app.issuers.get(asked_at(url)?)?;
    Ok(request
        .bearer_auth(access_token)
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, AGENT))
}

/// What is answered, as JSON; null where it is none. Fails when nobody answers, or cannot just now.
pub async fn ask(request: reqwest::RequestBuilder) -> Result<(StatusCode, Value)> {
    let answer = async {
        let mut response = request.send().await?;
        let status = response.status();
        anyhow::ensure!(!status.is_server_error(), "it answers {status}");
        let body = jwks::limited(&mut response).await?;
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    };
    answer.await.map_err(|error| {
        let error = crate::error::explain(&error);
        tracing::warn!(error, "a provider does not answer");
        Error::ProviderUnavailable
    })
}

fn asked_at(url: &str) -> Result<Url> {
    let url = Url::parse(url).ok().filter(may_be_asked);
    url.ok_or(Error::ProviderUnavailable)
}

fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
