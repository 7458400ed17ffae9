//! Where providers lead back to: whoever comes is let in when it is the browser that went, once, from
//! the provider it went to. RFC 9700, section 4.7; RFC 9207.
use super::{
    apple, audit,
    federation::{self, Beside},
    flow::{self, Back},
    id_token::Claims,
    jwks::Discovery,
    link,
    link_words::Words,
    oauth,
    pending_link::PendingLink,
    pkce::{self, ProviderTokens},
    providers::Provider,
    redirect,
    session::Client,
};
use crate::{App, Error, Result, error::Dialect, extract::Query, http::Flow, telemetry};
use axum::{
    extract::{FromRequest, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
};
use db::Timestamp;
use minijinja::context;
use serde::Deserialize;
use serde_json::json;
use url::Url;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(callback))
        .routes(routes!(posted))
}

/// What a provider sends back. RFC 6749, section 4.1.2.
#[derive(Default, Deserialize, IntoParams, ToSchema)]
#[serde(default)]
#[into_params(parameter_in = Query)]
#[schema(as = ProviderAnswer)]
struct Brought {
    /// What it was sent with.
    state: String,
    /// What we exchange for who they are.
    code: Option<String>,
    /// RFC 9207: who answers.
    iss: Option<String>,
    /// Why there is no code: `access_denied` when they would not.
    error: Option<String>,
    error_description: Option<String>,
    /// Apple's, the first time: how they are called, as JSON.
    user: Option<String>,
}

/// Come back from a provider: for browsers, not for clients.
#[utoipa::path(get, path = "/auth/v1/callback", tag = "sign-in", security(()), params(Brought), responses((status = 303, description = "To where the sign-in was to lead"), (status = 400, description = "A page: it began in another browser, or is over")))]
async fn callback(
    State(app): State<App>,
    client: Client,
    headers: HeaderMap,
    Query(brought): Query<Brought>,
) -> Result<Response> {
    arrive(&app, &client, &headers, brought).await
}

/// The same for Apple, whose answers are posted.
#[utoipa::path(post, path = "/auth/v1/callback", tag = "sign-in", security(()), request_body(content = Brought, content_type = "application/x-www-form-urlencoded"), responses((status = 303, description = "To where the sign-in was to lead"), (status = 400, description = "A page: it began in another browser, or is over")))]
async fn posted(
    State(app): State<App>,
    client: Client,
    headers: HeaderMap,
    request: Request,
) -> Result<Response> {
    let form = axum::Form::<Brought>::from_request(request, &app).await;
    let axum::Form(brought) = form.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Error::BodyTooLarge,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Error::UnsupportedMediaType,
        _ => Error::invalid("body", "has to be a form of single fields"),
    })?;
    arrive(&app, &client, &headers, brought).await
}

async fn arrive(
    app: &App,
    client: &Client,
    headers: &HeaderMap,
    brought: Brought,
) -> Result<Response> {
    let now = app.now();
    let mut tx = app.db.begin().await?;
    let back = match flow::take(app, &mut tx, &brought.state, headers, now).await {
        Ok(back) => back,
        Err(refusal @ (Error::BadOauthState | Error::FlowStateExpired)) => {
            let why = json!({"method": "oauth", "reason": refusal.code(Dialect::GoTrue)});
            audit::refused(&mut tx, client, "login", None, why, now).await?;
            tx.commit().await?;
            return over(app, client);
        }
        Err(failure) => return Err(failure),
    };
    tx.commit().await?;

    let answer = match finish(app, client, &back, &brought, now).await {
        Ok(Ok(code)) => with(back.redirect_to, &[("code", &code)]),
        Ok(Err(refusal)) => lead_back(back.redirect_to, &refusal),
        Err(refusal) => {
            note(app, client, &back, &refusal, now).await?;
            match declined(&brought) {
                Some(words) => with(back.redirect_to, &words),
                None => lead_back(back.redirect_to, &refusal),
            }
        }
    };
    Ok(([(header::SET_COOKIE, back.cookie)], answer).into_response())
}

/// Gives the code that the app exchanges. The inner refusals are in the audit log.
async fn finish(
    app: &App,
    client: &Client,
    back: &Back,
    brought: &Brought,
    now: Timestamp,
) -> Result<Result<String>> {
    let provider = app.issuers.named(&back.provider);
    let provider = provider.ok_or(Error::ProviderDisabled)?;
    let at = oauth::endpoints(app, provider).await?;
    if !is_of(provider, &at, brought.iss.as_deref()) {
        return Err(Error::BadOauthCallback("Another provider answered"));
    }
    let code = match (&brought.error, &brought.code) {
        (None, Some(code)) if !code.is_empty() => code,
        _ => return Err(Error::BadOauthCallback("The provider gave no code")),
    };
    let (claims, tokens) = oauth::person(app, provider, &at, code, back).await?;
    metrics::counter!("auth_events_total", "kind" => "oauth", "outcome" => "succeeded")
        .increment(1);
    let name = brought.user.as_deref().and_then(apple::name);
    let beside = Beside {
        name: name.as_deref(),
        refresh_token: tokens
            .refresh
            .as_deref()
            .filter(|_| apple::revokes(provider)),
    };
    match back.link_user {
        None => sign_in(app, client, back, claims, beside, &tokens, now).await,
        Some(user) => link_later(app, client, back, user, claims, beside, &tokens, now).await,
    }
}

/// RFC 9207, section 2.4: who names itself is held to it, and who says that it does has to.
fn is_of(provider: &Provider, at: &Discovery, iss: Option<&str>) -> bool {
    match iss {
        Some(iss) => provider.issuers.iter().any(|known| known == iss),
        None => !at.authorization_response_iss_parameter_supported,
    }
}

async fn sign_in(
    app: &App,
    client: &Client,
    back: &Back,
    claims: Claims,
    beside: Beside<'_>,
    tokens: &ProviderTokens,
    now: Timestamp,
) -> Result<Result<String>> {
    let mut tx = app.db.begin().await?;
    let arrived = federation::sign_in(app, &mut tx, &claims, beside, client, now).await?;
    let code = match arrived {
        Ok(arrived) => {
            let (user, challenge) = (arrived.user.id, &back.challenge);
            Ok(pkce::issue(app, &mut tx, user, challenge, "oauth", tokens, now).await?)
        }
        Err(refusal) => Err(refusal),
    };
    tx.commit().await?;
    Ok(code)
}

/// What cannot be linked is refused here, as the app expects; what can is linked when the app, and no
/// other browser, brings the code.
async fn link_later(
    app: &App,
    client: &Client,
    back: &Back,
    user: Uuid,
    claims: Claims,
    beside: Beside<'_>,
    tokens: &ProviderTokens,
    now: Timestamp,
) -> Result<Result<String>> {
    let mut trial = app.db.begin().await?;
    if let Err(refusal) =
        federation::link(app, &mut trial, user, &claims, beside, client, now).await?
    {
        trial.commit().await?;
        return Ok(Err(refusal));
    }
    drop(trial);
    let link = PendingLink::new(claims, beside).seal(app)?;
    let mut tx = app.db.begin().await?;
    let code = pkce::issue_link(app, &mut tx, user, &back.challenge, &link, tokens, now).await?;
    tx.commit().await?;
    Ok(Ok(code))
}

/// The refusal is a decision too.
async fn note(
    app: &App,
    client: &Client,
    back: &Back,
    refusal: &Error,
    now: Timestamp,
) -> Result<()> {
    if let Error::Internal(cause) = refusal {
        telemetry::report(cause, Flow::Auth);
    }
    metrics::counter!("auth_events_total", "kind" => "oauth", "outcome" => "failed").increment(1);
    let why = json!({"method": "oauth", "provider": back.provider, "reason": refusal.code(Dialect::GoTrue)});
    let mut tx = app.db.begin().await?;
    audit::refused(&mut tx, client, "login", back.link_user, why, now).await?;
    Ok(tx.commit().await?)
}

/// What the provider says of it, in its own words: text of another's, kept short.
fn declined(brought: &Brought) -> Option<[(&'static str, &str); 3]> {
    let error = brought.error.as_deref()?;
    let word = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let plain = !error.is_empty() && error.len() <= 100 && error.chars().all(word);
    let description = brought.error_description.as_deref().unwrap_or_default();
    let end = description
        .char_indices()
        .nth(300)
        .map_or(description.len(), |(at, _)| at);
    let description = match &description[..end] {
        "" => "The provider did not sign them in",
        text => text,
    };
    Some([
        ("error", if plain { error } else { "server_error" }),
        ("error_code", "bad_oauth_callback"),
        ("error_description", description),
    ])
}

/// Tells the app why nobody is signed in, in GoTrue's words.
pub fn lead_back(target: Url, refusal: &Error) -> Response {
    let error = match refusal.status(Dialect::GoTrue).as_u16() {
        400 => "invalid_request",
        503 | 429 => "temporarily_unavailable",
        401..500 => "access_denied",
        _ => "server_error",
    };
    let (code, description) = (refusal.code(Dialect::GoTrue), refusal.to_string());
    with(
        target,
        &[
            ("error", error),
            ("error_code", code),
            ("error_description", &description),
        ],
    )
}

fn with(mut target: Url, parameters: &[(&str, &str)]) -> Response {
    target.query_pairs_mut().extend_pairs(parameters);
    Redirect::to(target.as_str()).into_response()
}

/// Where it was to lead is not for this browser to know.
fn over(app: &App, client: &Client) -> Result<Response> {
    let words = Words::of(client.language.unwrap_or_default());
    let site = redirect::or_site(app, None);
    let known = !app.config.auth.redirect.auth_redirect_urls.is_empty();
    let back = known.then(|| site.to_string());
    let (title, text, go_back) = (words.sign_in_nowhere, words.sign_in_again, words.go_back);
    let shown = context! { title, text, go_back, back };
    link::page(client, StatusCode::BAD_REQUEST, shown, &site)
}
