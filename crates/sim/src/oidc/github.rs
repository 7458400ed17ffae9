//! GitHub: OAuth 2.0 without ID tokens. Who somebody is, its API says.
//! <https://docs.github.com/en/apps/oauth-apps/building-oauth-apps/authorizing-oauth-apps>

use axum::extract::{Form, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::authorize::{Asked, Back, page};
use super::token::{Given, bearer, known, redeem};
use super::{Grant, Oidc, is_address, name_of, random, subject};

const NAME: &str = "github";

pub fn routes() -> Router<Oidc> {
    Router::new()
        .route("/login/oauth/authorize", get(authorize))
        .route("/login/oauth/access_token", post(access_token))
        .route("/user", get(user))
        .route("/user/emails", get(emails))
}

/// With `login_hint` (GitHub itself calls it `login`) nobody is asked.
async fn authorize(State(oidc): State<Oidc>, Query(asked): Query<Asked>) -> Response {
    let value = |name: &str| asked.get(name).cloned();
    let redirect_uri = value("redirect_uri").unwrap_or_default();
    let (Some(back), Some(client_id)) = (Back::to(&redirect_uri), value("client_id")) else {
        return (StatusCode::NOT_FOUND, "No such application.\n").into_response();
    };
    let state = value("state").map(|state| ("state", state));
    if asked.contains_key("cancel") {
        let error = ("error", "access_denied".to_owned());
        return back.with([error].into_iter().chain(state));
    }
    let email = value("login_hint").or_else(|| value("login"));
    let Some(email) = email.filter(|email| is_address(email)) else {
        return page(NAME, &asked);
    };
    let code = random("");
    let grant = Grant {
        provider: NAME.into(),
        client_id,
        redirect_uri,
        challenge: value("code_challenge"),
        nonce: None,
        email: email.trim().to_lowercase(),
        offline: false,
    };
    oidc.kept().codes.insert(code.clone(), grant);
    back.with([("code", code)].into_iter().chain(state))
}

/// Refusals are answered 200, too.
async fn access_token(
    State(oidc): State<Oidc>,
    headers: HeaderMap,
    Form(given): Form<Given>,
) -> Response {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok());
    if !accept.is_some_and(|accept| accept.contains("json")) {
        return (StatusCode::NOT_ACCEPTABLE, "Ask for JSON.\n").into_response();
    }
    if given.client_secret.is_empty() {
        return Json(json!({"error": "incorrect_client_credentials"})).into_response();
    }
    let Some(grant) = redeem(&oidc, NAME, &given.client_id, &given) else {
        return Json(json!({"error": "bad_verification_code"})).into_response();
    };
    let token = random("gho_");
    oidc.kept().tokens.insert(token.clone(), grant);
    Json(json!({"access_token": token, "token_type": "bearer", "scope": "read:user,user:email"}))
        .into_response()
}

async fn user(State(oidc): State<Oidc>, headers: HeaderMap) -> Response {
    let Some(grant) = caller(&oidc, &headers) else {
        return refuse();
    };
    let email = &grant.email;
    let said = said(&oidc, email);
    let (first, last) = name_of(email);
    let name = said.get("name").cloned();
    let id = said.get("id").cloned();
    Json(json!({
        "login": email.split('@').next(),
        "id": id.unwrap_or_else(|| json!(subject(NAME, email).parse::<u64>().unwrap_or_default())),
        "name": name.unwrap_or_else(|| json!(format!("{first} {last}").trim_end())),
        "avatar_url": "https://avatars.githubusercontent.com/u/0",
        "email": null,
    }))
    .into_response()
}

/// The one they signed in with is the primary; verified, unless something else was said of it.
async fn emails(State(oidc): State<Oidc>, headers: HeaderMap) -> Response {
    let Some(grant) = caller(&oidc, &headers) else {
        return refuse();
    };
    let verified = said(&oidc, &grant.email).get("email_verified").cloned();
    Json(json!([
        {"email": format!("another.{}", grant.email), "primary": false, "verified": true, "visibility": null},
        {"email": grant.email, "primary": true, "verified": verified.unwrap_or(true.into()), "visibility": "private"},
    ]))
    .into_response()
}

fn said(oidc: &Oidc, email: &str) -> serde_json::Map<String, Value> {
    oidc.kept().people.get(email).cloned().unwrap_or_default()
}

/// GitHub's API talks to no one without a `User-Agent`.
fn caller(oidc: &Oidc, headers: &HeaderMap) -> Option<Grant> {
    headers.get(header::USER_AGENT)?;
    known(oidc, NAME, bearer(headers))
}

fn refuse() -> Response {
    (
        StatusCode::UNAUTHORIZED,
        Json(json!({"message": "Bad credentials"})),
    )
        .into_response()
}
