//! What a client gets for a code, and does with what it got.

use axum::Json;
use axum::extract::{Form, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Grant, Oidc, Revoked, jws, random};

#[derive(Deserialize, Default)]
#[serde(default)]
pub struct Given {
    grant_type: String,
    pub code: String,
    pub redirect_uri: String,
    pub client_id: String,
    pub client_secret: String,
    pub code_verifier: String,
    refresh_token: String,
    token: String,
}

/// RFC 6749, sections 4.1.3 and 6.
pub async fn token(
    State(oidc): State<Oidc>,
    Path(provider): Path<String>,
    headers: HeaderMap,
    Form(given): Form<Given>,
) -> Response {
    if oidc.fails() {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable");
    }
    let Some(client) = client(&provider, &headers, &given) else {
        return refuse(StatusCode::UNAUTHORIZED, "invalid_client");
    };
    let grant = match given.grant_type.as_str() {
        "authorization_code" => redeem(&oidc, &provider, &client, &given),
        "refresh_token" => {
            known(&oidc, &provider, &given.refresh_token).filter(|grant| grant.client_id == client)
        }
        _ => return refuse(StatusCode::BAD_REQUEST, "unsupported_grant_type"),
    };
    let Some(grant) = grant else {
        return refuse(StatusCode::BAD_REQUEST, "invalid_grant");
    };

    let claims = oidc.claims(&provider, &client, grant.nonce.as_deref(), &grant.email);
    let (access, refresh) = (random("at_"), grant.offline.then(|| random("rt_")));
    let mut kept = oidc.kept();
    for token in [Some(&access), refresh.as_ref()].into_iter().flatten() {
        kept.tokens.insert(token.clone(), grant.clone());
    }
    drop(kept);
    let mut answer = json!({
        "access_token": access,
        "token_type": "Bearer",
        "expires_in": super::ID_TOKEN_LIFE_S,
        "id_token": jws::sign(&claims),
    });
    if let Some(refresh) = refresh {
        answer["refresh_token"] = refresh.into();
    }
    ([(header::CACHE_CONTROL, "no-store")], Json(answer)).into_response()
}

/// The client that shows its secret, where it has to have one; Apple's is a token that it signed.
fn client(provider: &str, headers: &HeaderMap, given: &Given) -> Option<String> {
    let (id, secret) =
        basic(headers).unwrap_or((given.client_id.clone(), given.client_secret.clone()));
    let right = match provider {
        "replit" => secret.is_empty(),
        "apple" => is_apple_secret(&id, &secret),
        _ => !secret.is_empty(),
    };
    (right && !id.is_empty()).then_some(id)
}

fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let encoded = headers
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .strip_prefix("Basic ")?;
    let decoded = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (id, secret) = decoded.split_once(':')?;
    Some((id.to_owned(), secret.to_owned()))
}

/// All but the signature: whose key it would be, nobody here knows.
/// <https://developer.apple.com/documentation/accountorganizationaldatasharing/creating-a-client-secret>
fn is_apple_secret(client: &str, secret: &str) -> bool {
    let part = |n: usize| -> Option<Value> {
        let bytes = URL_SAFE_NO_PAD.decode(secret.split('.').nth(n)?).ok()?;
        serde_json::from_slice(&bytes).ok()
    };
    let (Some(head), Some(claims)) = (part(0), part(1)) else {
        return false;
    };
    let said = |value: &Value, name: &str| {
        value
            .get(name)
            .and_then(Value::as_str)
            .is_some_and(|text| !text.is_empty())
    };
    head["alg"] == "ES256"
        && said(&head, "kid")
        && said(&claims, "iss")
        && said(&claims, "aud")
        && claims["sub"] == client
}

/// Uses a code up, whatever comes of it.
pub fn redeem(oidc: &Oidc, provider: &str, client: &str, given: &Given) -> Option<Grant> {
    let grant = oidc.kept().codes.remove(&given.code)?;
    let answered = match &grant.challenge {
        Some(challenge) => *challenge == s256(&given.code_verifier),
        None => given.code_verifier.is_empty(),
    };
    let same = grant.provider == provider
        && grant.client_id == client
        && grant.redirect_uri == given.redirect_uri;
    (answered && same).then_some(grant)
}

/// RFC 7636, section 4.2.
fn s256(verifier: &str) -> String {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, verifier.as_bytes());
    URL_SAFE_NO_PAD.encode(hash)
}

pub fn known(oidc: &Oidc, provider: &str, token: &str) -> Option<Grant> {
    let grant = oidc.kept().tokens.get(token).cloned();
    grant.filter(|grant| grant.provider == provider)
}

pub fn bearer(headers: &HeaderMap) -> &str {
    let header = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    header
        .and_then(|value| value.strip_prefix("Bearer "))
        .unwrap_or_default()
}

pub async fn userinfo(
    State(oidc): State<Oidc>,
    Path(provider): Path<String>,
    headers: HeaderMap,
) -> Response {
    let Some(grant) = known(&oidc, &provider, bearer(&headers)) else {
        return refuse(StatusCode::UNAUTHORIZED, "invalid_token");
    };
    Json(oidc.claims(&provider, &grant.client_id, None, &grant.email)).into_response()
}

/// RFC 7009: also a token that nobody knows is answered 200.
pub async fn revoke(
    State(oidc): State<Oidc>,
    Path(provider): Path<String>,
    headers: HeaderMap,
    Form(given): Form<Given>,
) -> Response {
    if oidc.fails() {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable");
    }
    let Some(client_id) = client(&provider, &headers, &given) else {
        return refuse(StatusCode::UNAUTHORIZED, "invalid_client");
    };
    let mut kept = oidc.kept();
    kept.tokens.remove(&given.token);
    kept.revoked.push(Revoked {
        provider,
        client_id,
        token: given.token,
    });
    StatusCode::OK.into_response()
}

pub fn refuse(status: StatusCode, error: &str) -> Response {
    (status, Json(json!({ "error": error }))).into_response()
}
