//! Where a sign-in may send a browser, or an app, when it is done: where the operator said, and
//! nowhere else. RFC 9700, section 4.1: a redirect that anyone can steer hands their victims' codes to
//! them.
use crate::{App, Error, Result, config::Problem, http::is_loopback};
use url::Url;

/// What a browser would run, or read from the disk, instead of going there.
const NEVER: [&str; 9] = [
    "about",
    "blob",
    "data",
    "file",
    "filesystem",
    "javascript",
    "vbscript",
    "view-source",
    "ws",
];
const MAX_CHARS: usize = 2048;

/// Where a redirect may lead.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct Config {
    /// Where sign-ins may lead back to, separated by commas: whole URLs of your sites, and links into your apps as `myapp://callback`. The first is where those go who ask for another. Beside them, anything at PUBLIC_URL is allowed, and in development any http://localhost.
    #[arg(long, value_delimiter = ',')]
    pub auth_redirect_urls: Vec<String>,
}

impl Config {
    pub fn check(&self, problems: &mut Vec<Problem>) {
        for listed in &self.auth_redirect_urls {
            // GoTrue takes patterns; a star that matches nothing would be a riddle.
            if parse(listed.trim()).is_none() || listed.contains('*') {
                problems.push(Problem::new(
                    "AUTH_REDIRECT_URLS",
                    format!("has {listed:?}, which is no place to lead back to"),
                    "Write each as https://app.example.com/callback or myapp://callback: in full, in small letters, without a fragment, without patterns.",
                ));
            }
        }
    }
}

/// Where to lead back to; the site, when that was not asked for or is not allowed.
pub fn or_site(app: &App, asked: Option<&str>) -> Url {
    asked
        .and_then(|asked| allowed(app, asked))
        .unwrap_or_else(|| site(app))
}

/// Where to lead back to; refused when that is not allowed.
pub fn or_refuse(app: &App, asked: Option<&str>) -> Result<Url> {
    match asked {
        None => Ok(site(app)),
        Some(asked) => allowed(app, asked)
            .ok_or_else(|| Error::invalid("redirect_to", "is not in AUTH_REDIRECT_URLS")),
    }
}

/// The URL that was asked for, if it may be led to.
pub fn allowed(app: &App, asked: &str) -> Option<Url> {
    let listed = &app.config.auth.redirect.auth_redirect_urls;
    let own = Url::parse(&app.public_url()).ok()?;
    judge(asked, listed, &own, app.config.is_production())
}

fn site(app: &App) -> Url {
    let listed = app.config.auth.redirect.auth_redirect_urls.first();
    listed
        .and_then(|listed| parse(listed.trim()))
        .unwrap_or_else(|| Url::parse(&app.public_url()).expect("our own address is a URL"))
}

/// Decides from the text and the configuration alone.
pub(super) fn judge(asked: &str, listed: &[String], own: &Url, production: bool) -> Option<Url> {
    let url = parse(asked)?;
    let same_origin = url.origin().is_tuple() && url.origin() == own.origin();
    let loopback = url.scheme() == "http" && is_loopback(&url);
    let is_listed = listed
        .iter()
        .filter_map(|listed| parse(listed.trim()))
        .any(|listed| {
            // RFC 8252, section 7.3: an app on this machine listens on any port.
            let any_port = loopback && with_port(&listed, url.port()) == url;
            listed == url || any_port
        });
    (same_origin || is_listed || (loopback && !production)).then_some(url)
}

fn with_port(url: &Url, port: Option<u16>) -> Url {
    let mut url = url.clone();
    let _ = url.set_port(port);
    url
}

/// A whole URL that every reader understands alike: as it is written, not only as some parser would
/// mend it. That leaves no room for backslashes, capital schemes, missing slashes or decimal addresses.
fn parse(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let as_written = url.as_str() == text || url.as_str().strip_suffix('/') == Some(text);
    let plain = text
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    let somewhere = url.has_host() || !["http", "https"].contains(&url.scheme());
    let bare = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    let harmless = !NEVER.contains(&url.scheme());
    let short = text.len() <= MAX_CHARS;
    (as_written && plain && somewhere && bare && harmless && short).then_some(url)
}
