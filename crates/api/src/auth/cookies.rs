//! Sessions of browsers in cookies that no script can read, for whoever asks with
//! `X-Session-Transport: cookie`. A browser sends its cookies along whoever made it ask, so what comes
//! with one counts only from pages of ours and of ALLOWED_ORIGINS:
//! <https://cheatsheetseries.owasp.org/cheatsheets/Cross-Site_Request_Forgery_Prevention_Cheat_Sheet.html>
use super::{access, known_device, session::Response as Session};
use crate::{App, Error, Result};
use anyhow::Context;
use axum::{
    body::Body,
    extract::FromRequestParts,
    http::{HeaderMap, HeaderValue, Method, header, request::Parts},
    response::Response,
};
use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

/// How a client says where it wants its tokens.
const TRANSPORT: &str = "x-session-transport";
const ACCESS: &str = "plinth-access";
const REFRESH: &str = "plinth-refresh";
/// Stays when the others go: see `known_device.rs`.
const DEVICE: &str = "plinth-device";
/// Members of a session's answer that scripts do not get to see.
const TOKENS: [&str; 4] = [
    "access_token",
    "refresh_token",
    "provider_token",
    "provider_refresh_token",
];

/// What a request has to do with cookies. Nothing, mostly.
#[derive(Debug, Clone, Default)]
pub struct Cookies(Option<Arc<Seen>>);

#[derive(Debug)]
struct Seen {
    /// `X-Session-Transport`.
    transport: Option<HeaderValue>,
    access: Option<String>,
    refresh: Option<String>,
    /// A page that is none of ours may have caused it.
    foreign: bool,
    changes: bool,
    /// Its session came in by a cookie, and goes out by one.
    used: AtomicBool,
    /// Its session is over.
    ended: AtomicBool,
}

impl Cookies {
    /// Looks at a request before its route does.
    pub fn of(app: &App, method: &Method, headers: &HeaderMap) -> Self {
        let transport = headers.get(TRANSPORT).cloned();
        // Whoever sends a token by hand means that one.
        let alone = headers.contains_key(header::COOKIE)
            && (transport.is_some() || !headers.contains_key(header::AUTHORIZATION));
        let token = |name| {
            let value = alone.then(|| sent(headers, &full_name(app, name)))?;
            value.map(ToOwned::to_owned)
        };
        let (access, refresh) = (token(ACCESS), token(REFRESH));
        if transport.is_none() && access.is_none() && refresh.is_none() {
            return Self::default();
        }
        let changes = !method.is_safe();
        Self(Some(Arc::new(Seen {
            transport,
            access,
            refresh,
            foreign: is_foreign(app, headers, changes),
            changes,
            used: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        })))
    }

    /// Whether there is anything that a route should know.
    pub fn concern(&self) -> bool {
        self.0.is_some()
    }

    /// Whether a sign-in is to be kept in cookies. A page that is not ours cannot have it so: nobody is
    /// signed in as somebody else behind their back.
    pub fn wanted(&self) -> Result<bool> {
        let Some(seen) = &self.0 else {
            return Ok(false);
        };
        match seen.transport.as_ref().map(HeaderValue::as_bytes) {
            None | Some(b"bearer") => Ok(false),
            Some(b"cookie") if seen.foreign => Err(Error::CrossSiteRequest),
            Some(b"cookie") => Ok(true),
            Some(_) => Err(Error::invalid(
                "X-Session-Transport",
                "has to be cookie or bearer",
            )),
        }
    }

    /// The access token, where the request may be believed.
    pub fn access(&self) -> Result<Option<&str>> {
        self.token(|seen| seen.access.as_deref())
    }

    /// The refresh token, where the request may be believed.
    pub fn refresh(&self) -> Result<Option<&str>> {
        self.token(|seen| seen.refresh.as_deref())
    }

    fn token(&self, of: impl Fn(&Seen) -> Option<&str>) -> Result<Option<&str>> {
        let Some((seen, token)) = self.0.as_deref().and_then(|seen| Some((seen, of(seen)?))) else {
            return Ok(None);
        };
        match (seen.foreign, seen.changes) {
            (true, true) => Err(Error::CrossSiteRequest),
            // Following a link from elsewhere is no crime; it is answered as to anyone.
            (true, false) => Ok(None),
            (false, _) => {
                seen.used.store(true, Relaxed);
                Ok(Some(token))
            }
        }
    }

    /// The answer takes the cookies away.
    pub fn end(&self) {
        if let Some(seen) = self.0.as_ref().filter(|seen| !seen.foreign) {
            seen.ended.store(true, Relaxed);
        }
    }

    /// Writes a session into the answer that stands for it, and its tokens where they were wanted.
    pub fn deliver(&self, app: &App, answer: &mut Response, session: &Session) -> Result<()> {
        let used = self.0.as_ref().is_some_and(|seen| seen.used.load(Relaxed));
        let device = known_device::token(app, &session.user.email);
        let body = if self.wanted()? || used {
            let left = session.refreshable_until.since(app.now());
            let access = access::sign(app, &session.claims.for_a_cookie())?;
            let lives = Duration::from_secs(session.expires_in);
            set(app, answer, ACCESS, &access, lives)?;
            set(app, answer, REFRESH, &session.refresh_token, left)?;
            set(app, answer, DEVICE, &device, known_device::LIFE)?;
            let mut body = serde_json::to_value(session).context("a session is JSON")?;
            if let Some(members) = body.as_object_mut() {
                members.retain(|name, _| !TOKENS.contains(&name.as_str()));
            }
            serde_json::to_vec(&body)
        } else {
            let device = HeaderValue::from_str(&device).context("a token of our own letters")?;
            answer.headers_mut().insert(known_device::HEADER, device);
            serde_json::to_vec(session)
        };
        *answer.body_mut() = Body::from(body.context("a session is JSON")?);
        let json = HeaderValue::from_static("application/json");
        answer.headers_mut().insert(header::CONTENT_TYPE, json);
        Ok(())
    }

    /// Takes them away where the session is over.
    pub fn take_away(&self, app: &App, answer: &mut Response) -> Result<()> {
        if self.0.as_ref().is_some_and(|seen| seen.ended.load(Relaxed)) {
            set(app, answer, ACCESS, "", Duration::ZERO)?;
            set(app, answer, REFRESH, "", Duration::ZERO)?;
        }
        Ok(())
    }
}

impl<S: Sync> FromRequestParts<S> for Cookies {
    type Rejection = Infallible;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().cloned().unwrap_or_default())
    }
}

/// What the device keeps of earlier sign-ins. It proves nothing, so it counts wherever from.
pub fn device<'a>(app: &App, headers: &'a HeaderMap) -> Option<&'a str> {
    sent(headers, &full_name(app, DEVICE))
}

/// Whether a page may have caused this that is neither ours nor one of ALLOWED_ORIGINS. Browsers say
/// where from with all that changes something; who says nothing there is not believed.
fn is_foreign(app: &App, headers: &HeaderMap, changes: bool) -> bool {
    if headers
        .get("sec-fetch-site")
        .is_some_and(|site| site == "cross-site")
    {
        return true;
    }
    let mut origins = headers.get_all(header::ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (None, _) => changes,
        (Some(origin), None) => !origin.to_str().is_ok_and(|origin| is_ours(app, origin)),
        (Some(_), Some(_)) => true,
    }
}

fn is_ours(app: &App, origin: &str) -> bool {
    let own = url::Url::parse(&app.public_url());
    own.is_ok_and(|own| own.origin().ascii_serialization() == origin)
        || app.config.http.admits(app.config.is_production(), origin)
}

/// Over http, which is development on this machine, browsers take no `Secure` cookie.
pub fn is_https(app: &App) -> bool {
    app.public_url().starts_with("https://")
}

/// With `__Host-` no other host can set it, nor read it:
/// <https://developer.mozilla.org/en-US/docs/Web/HTTP/Reference/Headers/Set-Cookie#cookie_prefixes>.
fn full_name(app: &App, name: &str) -> String {
    let prefix = if is_https(app) { "__Host-" } else { "" };
    format!("{prefix}{name}")
}

fn set(app: &App, answer: &mut Response, name: &str, value: &str, lives: Duration) -> Result<()> {
    let secure = if is_https(app) { "; Secure" } else { "" };
    let (name, age) = (full_name(app, name), lives.as_secs());
    let cookie = format!("{name}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{secure}");
    let cookie = HeaderValue::from_str(&cookie).context("a cookie of our own letters")?;
    answer.headers_mut().append(header::SET_COOKIE, cookie);
    Ok(())
}

/// The cookie of this name. Of two, a stranger may have set one: then it is neither.
pub fn sent<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let headers = headers.get_all(header::COOKIE).iter();
    let pairs = headers
        .filter_map(|header| header.to_str().ok())
        .flat_map(|header| header.split(';'));
    let mut values = pairs
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(key, _)| *key == name)
        .map(|(_, value)| value);
    let value = values.next()?;
    values.next().is_none().then_some(value)
}
