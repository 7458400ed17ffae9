//! The links of mails. Following one shows a page, and changes nothing: machines that look for malice
//! follow every link before its reader does. The button of the page is what counts.
use super::{
    audit,
    code::Purpose,
    link_words::Words,
    pkce::{self, Challenge, ProviderTokens},
    redirect, session,
    verify::{self, Redeemed},
};
use crate::{App, Error, Result, error::Dialect, extract::Query};
use anyhow::Context;
use axum::{
    body::Bytes,
    extract::State,
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    response::{Html, IntoResponse, Redirect, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use minijinja::{Environment, context};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use url::Url;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

const PAGE: &str = include_str!("link.html");
const STYLE: &str = include_str!("link.css");

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(follow))
}

/// What a link says.
#[derive(Default, Deserialize, IntoParams)]
struct Link {
    /// The secret of the link.
    #[serde(default)]
    token: String,
    /// `signup`, `magiclink`, `recovery` or `invite`.
    #[serde(default)]
    r#type: String,
    /// Where to be led back to; the site, when that is not allowed.
    #[serde(default)]
    redirect_to: Option<String>,
}

/// The page that a mailed link leads to. Uses nothing up, unless `AUTH_VERIFY_ON_GET` says so.
#[utoipa::path(get, path = "/auth/v1/verify", tag = "sign-in", security(()), params(Link), responses((status = 200, description = "A page with a button", content_type = "text/html", body = String)))]
async fn follow(
    State(app): State<App>,
    method: Method,
    client: session::Client,
    Query(link): Query<Link>,
) -> Result<Response> {
    if app.config.auth.auth_verify_on_get && method == Method::GET {
        return use_up(&app, &client, link, true).await;
    }
    let target = redirect::or_site(&app, link.redirect_to.as_deref());
    let words = words_for(&client);
    let title = words.title(&link.r#type);
    let fields =
        context! { token => link.token, type => link.r#type, redirect_to => link.redirect_to };
    let (press, go_on) = (words.press, words.go_on);
    page(
        &client,
        StatusCode::OK,
        context! { title, press, go_on, link => fields },
        &target,
    )
}

/// The button was pressed.
pub async fn pressed(app: &App, client: &session::Client, form: &Bytes) -> Result<Response> {
    let mut link = Link::default();
    for (name, value) in url::form_urlencoded::parse(form) {
        match &*name {
            "token" => link.token = value.into_owned(),
            "type" => link.r#type = value.into_owned(),
            "redirect_to" => link.redirect_to = Some(value.into_owned()),
            _ => {}
        }
    }
    use_up(app, client, link, false).await
}

/// Leads back with what the link was for. Tokens go into a fragment only where that was configured.
async fn use_up(
    app: &App,
    client: &session::Client,
    link: Link,
    with_tokens: bool,
) -> Result<Response> {
    let mut target = redirect::or_site(app, link.redirect_to.as_deref());
    let now = app.now();
    let mut tx = app.db.begin().await?;
    let found = verify::find_link(app, &mut tx, &link.r#type, &link.token, now).await?;
    if let Some(token) = &found
        && token.challenge.is_none()
        && !with_tokens
        && ![
            Purpose::Signup.word(),
            Purpose::EmailChange.word(),
            Purpose::EmailChangeCurrent.word(),
            Purpose::EmailChangeUndo.word(),
        ]
        .contains(&token.kind.as_str())
    {
        // Of an admin's making: the app redeems it, as its own pages do with `token_hash`.
        target
            .query_pairs_mut()
            .append_pair("token_hash", &link.token)
            .append_pair("type", &link.r#type);
        return Ok(Redirect::to(target.as_str()).into_response());
    }
    let redeemed = match &found {
        Some(token) => verify::redeem(app, &mut tx, token, now).await?,
        None => Err(Error::OtpExpired),
    };
    let (token, user) = match (found, redeemed) {
        (Some(token), Ok(Redeemed::By(user))) => (token, *user),
        (Some(token), Ok(Redeemed::Halfway(user))) => {
            let detail = json!({"method": "link", "type": token.kind});
            audit::succeeded(&mut tx, client, "user_confirmed", user, detail, now).await?;
            tx.commit().await?;
            return halfway(client, token.challenge.is_some(), with_tokens, target);
        }
        (found, redeemed) => {
            let refusal = redeemed.err().unwrap_or(Error::OtpExpired);
            let user = found.map(|token| token.user_id);
            let detail = json!({"method": "link", "type": link.r#type});
            audit::refused(&mut tx, client, "login", user, detail, now).await?;
            tx.commit().await?;
            return refused(client, &refusal, link.redirect_to.is_some(), target);
        }
    };
    let words = words_for(client);
    let detail = json!({"method": "link", "type": token.kind});
    audit::succeeded(&mut tx, client, "user_confirmed", user.id, detail, now).await?;
    if token.kind == Purpose::EmailChangeUndo.word() {
        tx.commit().await?;
        let shown = context! { title => words.done, text => words.undone };
        return page(client, StatusCode::OK, shown, &target);
    }
    if let Some(challenge) = token.challenge.map(Challenge::kept) {
        let none = ProviderTokens::default();
        let code = pkce::issue(app, &mut tx, user.id, &challenge, "otp", &none, now).await?;
        tx.commit().await?;
        target.query_pairs_mut().append_pair("code", &code);
        return Ok(Redirect::to(target.as_str()).into_response());
    }
    if with_tokens {
        let (user, session) = session::open(app, &mut tx, user, "otp", client, now).await?;
        tx.commit().await?;
        let session = session::respond(app, user, session).await?;
        target.set_fragment(Some(&fragment(&session, &token.kind)));
        return Ok(Redirect::to(target.as_str()).into_response());
    }
    tx.commit().await?;
    let (title, text, go_back) = (words.done, words.confirmed, words.go_back);
    page(
        client,
        StatusCode::OK,
        context! { title, text, go_back, back => target.as_str() },
        &target,
    )
}

/// The other address has to confirm too: the app hears so in GoTrue's words, where GoTrue says them; else
/// the reader does.
fn halfway(
    client: &session::Client,
    is_pkce: bool,
    with_tokens: bool,
    mut target: Url,
) -> Result<Response> {
    if !is_pkce && !with_tokens {
        let words = words_for(client);
        let shown = context! { title => words.done, text => words.halfway };
        return page(client, StatusCode::OK, shown, &target);
    }
    let mut message = url::form_urlencoded::Serializer::new(String::new());
    let message = message.append_pair("message", verify::HALFWAY).finish();
    if is_pkce {
        target
            .query_pairs_mut()
            .append_pair("message", verify::HALFWAY);
    }
    target.set_fragment(Some(&message));
    Ok(Redirect::to(target.as_str()).into_response())
}

/// As GoTrue's clients read it where they do no PKCE.
fn fragment(session: &session::Response, kind: &str) -> String {
    url::form_urlencoded::Serializer::new(String::new())
        .append_pair("access_token", &session.access_token)
        .append_pair("expires_at", &session.expires_at.to_string())
        .append_pair("expires_in", &session.expires_in.to_string())
        .append_pair("refresh_token", &session.refresh_token)
        .append_pair("token_type", session.token_type)
        .append_pair("type", kind)
        .finish()
}

/// The app hears of it in GoTrue's words, where it asked to; else the reader does.
fn refused(
    client: &session::Client,
    refusal: &Error,
    leads_back: bool,
    mut target: Url,
) -> Result<Response> {
    if leads_back {
        target
            .query_pairs_mut()
            .append_pair("error", "access_denied")
            .append_pair("error_code", refusal.code(Dialect::GoTrue))
            .append_pair("error_description", "Email link is invalid or has expired");
        return Ok(Redirect::to(target.as_str()).into_response());
    }
    let words = words_for(client);
    let shown = context! { title => words.nowhere, text => words.ask_again };
    page(client, StatusCode::FORBIDDEN, shown, &target)
}

/// In the language of its browser, whoever got the mail.
fn words_for(client: &session::Client) -> &'static Words {
    Words::of(client.language.unwrap_or_default())
}

/// A page of ours: nothing runs in it, and nothing is fetched.
pub fn page(
    client: &session::Client,
    status: StatusCode,
    shown: minijinja::Value,
    target: &Url,
) -> Result<Response> {
    let lang = client.language.unwrap_or_default().tag();
    let shown =
        context! { lang, style => minijinja::Value::from_safe_string(STYLE.into()), ..shown };
    let html = Environment::new()
        .render_named_str("link.html", PAGE, shown)
        .context("the page of a link")?;
    // A browser asks of a form also where its answer may lead.
    let leads_to = match target.origin().is_tuple() {
        true => target.origin().ascii_serialization(),
        false => format!("{}:", target.scheme()),
    };
    let style = STANDARD.encode(Sha256::digest(STYLE));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{style}'; form-action 'self' {leads_to}; base-uri 'none'; frame-ancestors 'none'"
    );
    let policy = HeaderValue::from_str(&policy).context("a policy is a header")?;
    let robots = (
        HeaderName::from_static("x-robots-tag"),
        HeaderValue::from_static("noindex, nofollow"),
    );
    let headers = [(header::CONTENT_SECURITY_POLICY, policy), robots];
    Ok((status, headers, Html(html)).into_response())
}

/// The link of a mail: built from `PUBLIC_URL`, whatever the request called us.
pub fn url(app: &App, purpose: Purpose, secret: &str, redirect_to: Option<&Url>) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("token", secret);
    query.append_pair("type", purpose.link_type());
    if let Some(redirect_to) = redirect_to {
        query.append_pair("redirect_to", redirect_to.as_str());
    }
    format!("{}/auth/v1/verify?{}", app.public_url(), query.finish())
}
