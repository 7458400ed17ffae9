//! The page on which somebody says who they are, and the way back from it.

use std::collections::HashMap;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};
use reqwest::Url;
use serde_json::json;

use super::{Grant, Oidc, is_address, name_of, random};

/// No `form-action`: it would hold for where the answer leads, too, which is the client's affair.
const POLICY: &str = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'";
const POSTING_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'";

/// The parameters as they came; the page sends them once more, with the address.
pub type Asked = HashMap<String, String>;

/// OpenID Connect Core 1.0, section 3.1.2. With a `login_hint` nobody is asked.
pub async fn authorize(
    State(oidc): State<Oidc>,
    Path(provider): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    Query(asked): Query<Asked>,
) -> Response {
    let back = match check(&provider, &asked) {
        Ok(back) => back,
        Err(why) => return (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response(),
    };
    if let Some(beside) = back.beside(&headers) {
        let query = uri.query().unwrap_or_default();
        let url = format!("{beside}/oidc/{provider}/authorize?{query}");
        return (StatusCode::FOUND, [(header::LOCATION, url)]).into_response();
    }
    let value = |name: &str| asked.get(name).cloned();
    let state = value("state").map(|state| ("state", state));
    let issuer = ("iss", oidc.issuer(&provider));
    if asked.contains_key("cancel") {
        let error = ("error", "access_denied".to_owned());
        return back.with([error, issuer].into_iter().chain(state));
    }
    let Some(email) = value("login_hint").filter(|email| is_address(email)) else {
        return page(&provider, &asked);
    };

    let email = email.trim().to_lowercase();
    let client_id = value("client_id").unwrap_or_default();
    let scope = value("scope").unwrap_or_default();
    let introduction = (provider == "apple" && scope.contains("name"))
        .then(|| introduce(&oidc, &client_id, &email))
        .flatten();
    let code = random("code_");
    let grant = Grant {
        offline: provider == "apple"
            || value("access_type").as_deref() == Some("offline")
            || scope.contains("offline_access"),
        redirect_uri: value("redirect_uri").unwrap_or_default(),
        challenge: value("code_challenge"),
        nonce: value("nonce"),
        provider,
        client_id,
        email,
    };
    oidc.kept().codes.insert(code.clone(), grant);
    let parameters = [("code", code), issuer].into_iter();
    back.with(parameters.chain(state).chain(introduction))
}

/// Apple says who somebody is once, as JSON in a field of the form.
/// <https://developer.apple.com/documentation/signinwithapple/configuring-your-webpage-for-sign-in-with-apple>
fn introduce(oidc: &Oidc, client: &str, email: &str) -> Option<(&'static str, String)> {
    let known = (client.to_owned(), email.to_owned());
    let is_new = oidc.kept().introduced.insert(known);
    let (first, last) = name_of(email);
    let user = json!({"name": {"firstName": first, "lastName": last}, "email": email});
    is_new.then(|| ("user", user.to_string()))
}

/// Where the answer goes, and how.
pub struct Back {
    to: Url,
    posted: bool,
}

impl Back {
    pub fn to(redirect_uri: &str) -> Option<Self> {
        let to = Url::parse(redirect_uri).ok()?;
        let plain = matches!(to.scheme(), "http" | "https") && to.fragment().is_none();
        plain.then_some(Self { to, posted: false })
    }

    /// Where we are under the client's name, if that is another of this machine's: browsers leave
    /// cookies out of a POST from 127.0.0.1 to localhost.
    fn beside(&self, headers: &HeaderMap) -> Option<String> {
        let asked = headers.get(header::HOST)?.to_str().ok()?;
        let (name, port) = asked.rsplit_once(':')?;
        let theirs = self.to.host_str()?;
        let names = ["127.0.0.1", "localhost"];
        let other = theirs != name && [theirs, name].iter().all(|name| names.contains(name));
        (self.posted && other).then(|| format!("http://{theirs}:{port}"))
    }

    pub fn with(mut self, answer: impl Iterator<Item = (&'static str, String)>) -> Response {
        if self.posted {
            let body = include_str!("post.html")
                .replace("{{to}}", &escape(self.to.as_str()))
                .replace("{{fields}}", &hidden(answer));
            return (
                [(header::CONTENT_SECURITY_POLICY, POSTING_POLICY)],
                Html(body),
            )
                .into_response();
        }
        self.to.query_pairs_mut().extend_pairs(answer);
        (StatusCode::FOUND, [(header::LOCATION, self.to.to_string())]).into_response()
    }
}

/// What a provider tells the person in front of it, since it cannot trust the way back.
fn check(provider: &str, asked: &Asked) -> Result<Back, String> {
    let value = |name: &str| asked.get(name).map(String::as_str).unwrap_or_default();
    let back = Back::to(value("redirect_uri")).ok_or("redirect_uri has to be a URL")?;
    let posted = value("response_mode") == "form_post";
    let personal = ["name", "email"];
    let asks_apple = provider == "apple"
        && value("scope")
            .split(' ')
            .any(|scope| personal.contains(&scope));
    let refusals = [
        (value("client_id").is_empty(), "client_id is missing"),
        (
            value("response_type") != "code",
            "response_type has to be code",
        ),
        (
            !value("scope").split(' ').any(|scope| scope == "openid") && provider != "apple",
            "scope has to have openid",
        ),
        (
            asks_apple && !posted,
            "response_mode must be form_post when name or email scope is requested",
        ),
        (
            !["", "query", "form_post"].contains(&value("response_mode")),
            "response_mode is unknown",
        ),
        (
            asked.contains_key("code_challenge") && value("code_challenge_method") != "S256",
            "code_challenge_method has to be S256",
        ),
        (
            provider == "replit" && value("code_challenge").is_empty(),
            "a public client needs a code_challenge",
        ),
    ];
    match refusals.iter().find(|(refused, _)| *refused) {
        Some((_, why)) => Err((*why).to_owned()),
        None => Ok(Back { posted, ..back }),
    }
}

/// Asks who somebody is; `asked` comes back with the answer.
pub fn page(provider: &str, asked: &Asked) -> Response {
    let name = label(provider);
    let carried = asked
        .iter()
        .filter(|(name, _)| !["login_hint", "login", "cancel"].contains(&name.as_str()));
    let fields = hidden(carried.map(|(name, value)| (name.as_str(), value.clone())));
    let wrong = asked
        .contains_key("login_hint")
        .then_some("That is no e-mail address.");
    let client = asked
        .get("client_id")
        .map(String::as_str)
        .unwrap_or_default();
    let body = include_str!("page.html")
        .replace("{{client}}", &escape(client))
        .replace("{{provider}}", &escape(&name))
        .replace("{{wrong}}", wrong.unwrap_or_default())
        .replace("{{fields}}", &fields);
    ([(header::CONTENT_SECURITY_POLICY, POLICY)], Html(body)).into_response()
}

/// As people write it.
fn label(provider: &str) -> String {
    match provider {
        "github" => return "GitHub".to_owned(),
        "oidc" => return "OpenID Connect".to_owned(),
        _ => {}
    }
    let mut letters = provider.chars();
    let first = letters.next().map(|l| l.to_uppercase().to_string());
    first.unwrap_or_default() + letters.as_str()
}

fn hidden<'a>(fields: impl Iterator<Item = (&'a str, String)>) -> String {
    let field = |(name, value): (&str, String)| {
        format!(
            "<input type=\"hidden\" name=\"{}\" value=\"{}\">\n",
            escape(name),
            escape(&value)
        )
    };
    fields.map(field).collect()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('{', "&#123;")
}
