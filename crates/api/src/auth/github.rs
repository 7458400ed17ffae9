//! GitHub: OAuth 2.0 without ID tokens. Who somebody is, its API says.
//! <https://docs.github.com/en/apps/oauth-apps/building-oauth-apps/authorizing-oauth-apps>
use super::{
    id_token::{Claims, display},
    jwks::Discovery,
    normalise_email,
    oauth::{self, Tokens},
    providers::Provider,
};
use crate::{App, Error, Result};
use axum::http::StatusCode;
use serde_json::Value;

pub fn endpoints(app: &App) -> Discovery {
    let config = &app.config.auth.providers;
    let at = |base: &str, path: &str| format!("{}/{path}", base.trim_end_matches('/'));
    Discovery {
        issuer: config.github_url.clone(),
        jwks_uri: String::new(),
        authorization_endpoint: at(&config.github_url, "login/oauth/authorize"),
        token_endpoint: at(&config.github_url, "login/oauth/access_token"),
        userinfo_endpoint: Some(at(&config.github_api_url, "user")),
        revocation_endpoint: None,
        end_session_endpoint: None,
        token_endpoint_auth_methods_supported: vec!["client_secret_post".into()],
        authorization_response_iss_parameter_supported: false,
    }
}

/// Who gave us this access token.
pub async fn person(app: &App, provider: &Provider, tokens: &Tokens) -> Result<Claims> {
    let user = api(app, tokens, "user").await?;
    let emails = api(app, tokens, "user/emails").await?;
    // A number that stays, where a login may become another's.
    let id = user["id"].as_u64().ok_or(Error::ProviderUnavailable)?;
    let primary = emails.as_array().into_iter().flatten();
    let primary = primary.into_iter().find(|email| email["primary"] == true);
    let email = primary.and_then(|email| normalise_email(email["email"].as_str()?));
    let verified = primary.is_some_and(|email| email["verified"] == true);
    let name = user["name"].as_str().or(user["login"].as_str());
    let picture = user["avatar_url"].as_str();
    Ok(Claims {
        provider: provider.name,
        issuer: provider.issuer().to_owned(),
        subject: id.to_string(),
        audience: provider.audiences.first().cloned().unwrap_or_default(),
        email_verified: email.is_some() && verified,
        email,
        // It hosts no mailboxes.
        authoritative: false,
        name: name.and_then(display),
        picture: picture
            .filter(|url| url.starts_with("https://") && url.len() <= 1000)
            .map(ToOwned::to_owned),
        is_anonymous: false,
        expires_at: app.now(),
        authenticated_at: None,
        session: None,
    })
}

async fn api(app: &App, tokens: &Tokens, path: &str) -> Result<Value> {
    let base = app
        .config
        .auth
        .providers
        .github_api_url
        .trim_end_matches('/');
    let token = tokens.access_token.as_deref().unwrap_or_default();
    let request = oauth::get(app, &format!("{base}/{path}"), token)?;
    match oauth::ask(request).await? {
        (StatusCode::OK, answer) => Ok(answer),
        _ => Err(Error::ProviderUnavailable),
    }
}
