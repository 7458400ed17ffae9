//! Where a sign-in with others begins: the browser is sent to the provider, with what it has to bring
//! back. `GET authorize` signs in, `GET user/identities/authorize` links.
use super::{
    callback, flow, oauth, pkce::Challenge, providers::Provider, redirect, session::Client,
    step_up, ticket,
};
use crate::{
    App, Error, Result,
    extract::{Auth, Json, Query},
    http::is_loopback,
};
use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use url::{Url, form_urlencoded};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(authorize))
        .routes(routes!(link))
}

/// What is handed on to providers as it is: how they ask, never where they lead or what they prove.
const HINTS: [&str; 16] = [
    "access_type",
    "acr_values",
    "allow_signup",
    "audience",
    "connection",
    "display",
    "domain_hint",
    "hd",
    "include_granted_scopes",
    "login",
    "login_hint",
    "max_age",
    "organization",
    "prompt",
    "screen_hint",
    "ui_locales",
];
const MAX_HINT_CHARS: usize = 500;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Asked {
    /// `google`, `apple`, `github`, `oidc`; `replit` is `oidc` too.
    #[serde(default)]
    provider: String,
    /// Where to lead back to; allowed are those of `AUTH_REDIRECT_URLS`.
    #[serde(default)]
    redirect_to: Option<String>,
    /// What to ask of the provider besides, separated by spaces.
    #[serde(default)]
    scopes: Option<String>,
    /// The SHA-256 of a `code_verifier`, base64url.
    #[serde(default)]
    code_challenge: Option<String>,
    /// `s256`.
    #[serde(default)]
    code_challenge_method: Option<String>,
    /// Of links: answer with the URL to go to, instead of leading there.
    #[serde(default)]
    skip_http_redirect: Option<String>,
}

impl Asked {
    fn challenge(&self) -> Result<Challenge> {
        let method = self.code_challenge_method.as_deref();
        let challenge = Challenge::of(self.code_challenge.as_deref(), method)?;
        let problem =
            "is missing: make your client with flowType 'pkce', tokens are not given out in a URL";
        challenge.ok_or_else(|| Error::invalid("code_challenge", problem))
    }

    fn provider<'a>(&self, app: &'a App) -> Result<&'a Provider> {
        let known = app.issuers.named(&self.provider);
        known
            .filter(|provider| provider.takes_browsers(&app.config.auth.providers))
            .ok_or(Error::ProviderDisabled)
    }

    /// GoTrue's clients write them with spaces, its server reads commas. RFC 6749, section 3.3.
    fn scopes(&self) -> Result<Vec<&str>> {
        let text = self.scopes.as_deref().unwrap_or_default();
        let wrong = |c: char| !c.is_ascii_graphic() || "\"\\".contains(c);
        let scopes: Vec<_> = text.split([' ', ',']).filter(|s| !s.is_empty()).collect();
        if text.len() > 1000 || scopes.iter().any(|scope| scope.contains(wrong)) {
            return Err(Error::invalid("scopes", "have to be words of a provider"));
        }
        Ok(scopes)
    }
}

/// Sign in with a provider: follow this in a browser. It comes back to `redirect_to` with a `code`
/// for `grant_type=pkce`, or with `error`, `error_code` and `error_description`.
#[utoipa::path(get, path = "/auth/v1/authorize", tag = "sign-in", security(()), params(Asked), responses((status = 302, description = "To the provider")))]
async fn authorize(
    State(app): State<App>,
    uri: Uri,
    headers: HeaderMap,
    Query(asked): Query<Asked>,
) -> Result<Response> {
    let query = uri.query().unwrap_or_default();
    if let Some(url) = under_our_name(&app, &headers, query) {
        return Ok(found(&url));
    }
    let provider = asked.provider(&app)?;
    let target = redirect::or_refuse(&app, asked.redirect_to.as_deref())?;
    match begin(&app, provider, &asked, query, &target).await {
        Ok(away) => Ok(away),
        Err(refusal) => Ok(callback::lead_back(target, &refusal)),
    }
}

/// Sends the browser away; whatever is wrong the app hears where it wants to be led back to.
async fn begin(
    app: &App,
    provider: &Provider,
    asked: &Asked,
    query: &str,
    target: &Url,
) -> Result<Response> {
    let (challenge, scopes) = (asked.challenge()?, asked.scopes()?);
    let at = oauth::endpoints(app, provider).await?;
    let now = app.now();

    let mut tx = app.db.begin().await?;
    let going = flow::Going {
        provider: provider.name,
        redirect_to: target,
        challenge: &challenge,
        link_user: ticket::redeem(app, &mut tx, query, now).await?,
        comes_back_posted: oauth::posts_back(provider),
    };
    let gone = flow::begin(app, &mut tx, going, now).await?;
    let url = oauth::authorization_url(app, provider, &at, &gone, &scopes, &hints(query))?;
    tx.commit().await?;

    Ok(([(header::SET_COOKIE, gone.cookie)], found(url.as_str())).into_response())
}

fn hints(query: &str) -> Vec<(String, String)> {
    form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .filter(|(name, value)| HINTS.contains(&name.as_str()) && value.len() <= MAX_HINT_CHARS)
        .collect()
}

/// In development localhost and 127.0.0.1 are one place to people and two to browsers, which would
/// bring the cookie back to the one that set it alone.
fn under_our_name(app: &App, headers: &HeaderMap, query: &str) -> Option<String> {
    let host = headers.get(header::HOST)?.to_str().ok()?;
    let asked = Url::parse(&format!("http://{host}")).ok()?;
    let ours = Url::parse(&app.public_url()).ok()?;
    let both_here = is_loopback(&asked) && is_loopback(&ours) && !app.config.is_production();
    let other_name = asked.host() != ours.host() && asked.port() == ours.port();
    (both_here && other_name).then(|| format!("{}/auth/v1/authorize?{query}", app.public_url()))
}

fn found(url: &str) -> Response {
    (StatusCode::FOUND, [(header::LOCATION, url)]).into_response()
}

/// Where to go.
#[derive(Serialize, ToSchema)]
#[schema(as = AuthorizeUrl)]
struct Away {
    /// Good once, within five minutes.
    url: String,
}

/// Link a provider to one's account, in a browser that follows where this leads. The identity is
/// linked once the `code` it comes back with is exchanged. Needs a sign-in of the last minutes of who
/// is not anonymous.
#[utoipa::path(get, path = "/auth/v1/user/identities/authorize", tag = "sign-in", params(Asked), responses((status = 200, body = Away), (status = 302, description = "Without `skip_http_redirect=true`")))]
async fn link(
    State(app): State<App>,
    auth: Auth,
    client: Client,
    uri: Uri,
    Query(asked): Query<Asked>,
) -> Result<Response> {
    if !app.config.auth.auth_manual_linking {
        return Err(Error::ManualLinkingDisabled);
    }
    require_fresh(&app, &auth, &client).await?;
    asked.provider(&app)?;
    redirect::or_refuse(&app, asked.redirect_to.as_deref())?;
    asked.challenge()?;
    asked.scopes()?;

    let given = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
        .filter(|(name, _)| !["skip_http_redirect", "ticket"].contains(&&**name));
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(given)
        .finish();
    let url = ticket::url(&app, auth.session, &query, app.now());

    match asked.skip_http_redirect.as_deref() {
        Some("true") => Ok(Json(Away { url }).into_response()),
        _ => Ok(found(&url)),
    }
}

/// Who is anonymous has nothing to prove themself by, and nothing yet to lose.
async fn require_fresh(app: &App, auth: &Auth, client: &Client) -> Result<()> {
    let user = db::users::by_id(&app.db, auth.user).await?;
    if user.is_some_and(|user| user.is_anonymous) {
        return Ok(());
    }
    step_up::demand(app, auth, client, "identity_linked").await
}
