//! The way of a request through the layers, outermost first, and what each is for.
use crate::{
    App, Error, Result,
    auth::{
        audit,
        cookies::Cookies,
        session::{self, SignedIn},
    },
    config::{Problem, some_seconds},
    error::{Dialect, Refusal},
};
use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Method, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};
use tower::ServiceBuilder;
use tower_http::{
    catch_panic::CatchPanicLayer,
    compression::{
        CompressionLayer,
        predicate::{DefaultPredicate, NotForContentType, Predicate},
    },
    cors::{AllowOrigin, CorsLayer},
};
use tracing::Instrument;

mod address;
mod serve;
#[cfg(test)]
mod tests;

pub use address::{ClientAddress, TrustedProxy};
pub use serve::{Listening, meanwhile, serve};

/// Until another's server takes a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// What asks others' APIs: the model, issuers of tokens. Each request brings its own timeout. One for
/// all, made when it is first needed: reading the machine's certificates takes up to 10 ms and more than a
/// megabyte, which a simulated world can do without.
#[derive(Clone, Default)]
pub struct Client(Arc<OnceLock<reqwest::Client>>);

#[cfg(test)]
impl From<reqwest::Client> for Client {
    fn from(made: reqwest::Client) -> Self {
        Self(Arc::new(made.into()))
    }
}

impl Client {
    /// Fails where the machine has no certificates.
    pub fn get(&self) -> reqwest::Result<&reqwest::Client> {
        if let Some(made) = self.0.get() {
            return Ok(made);
        }
        let made = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(self.0.get_or_init(|| made))
    }
}

/// Requests from outside.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "HTTP")]
pub struct Config {
    /// Browser origins that may call the API with credentials, separated by commas. Development also admits every localhost.
    #[arg(long, value_delimiter = ',', value_parser = origin, visible_alias = "frontend-url")]
    pub allowed_origins: Vec<String>,

    /// Who may say where a request comes from: `fly`, `railway`, `cloudflare`, `render`, a number of proxies, or their CIDRs. Unset, nobody.
    #[arg(long)]
    pub trusted_proxy: Option<TrustedProxy>,

    /// Seconds for a request that is not a stream.
    #[arg(long, value_parser = some_seconds, default_value = "60")]
    pub request_timeout: Duration,

    /// Open connections at most; further ones wait.
    #[arg(long, default_value = "10000")]
    pub max_connections: std::num::NonZeroU32,

    /// Overrides of rate limits as `action=requests/period`, separated by commas, for example `api=1000/15m,sign_in=20/1m`; `off` turns all off but `audited_refusal`, which refuses nobody. The actions and their defaults are in docs/configuration.md.
    #[arg(long, default_value = "")]
    pub rate_limits: crate::limit::Overrides,

    /// Say Strict-Transport-Security. Default: in production.
    #[arg(long, action = clap::ArgAction::Set, value_parser = clap::builder::BoolishValueParser::new())]
    pub enable_hsts: Option<bool>,
}

impl Config {
    pub fn check(&self, production: bool, problems: &mut Vec<Problem>) {
        for origin in &self.allowed_origins {
            if origin == "*" {
                problems.push(Problem::new(
                    "ALLOWED_ORIGINS",
                    "is *, which with credentials would let every site act as its visitors",
                    "List the origins of your own sites: https://app.example.com,https://www.example.com.",
                ));
            } else if url::Url::parse(origin)
                .map_or(true, |url| url.origin().ascii_serialization() != *origin)
            {
                problems.push(Problem::new(
                    "ALLOWED_ORIGINS",
                    format!("has {origin:?}, which is no origin"),
                    "Write scheme and host, without a path: https://app.example.com.",
                ));
            }
        }
        if production && self.enable_hsts == Some(false) {
            problems.push(Problem::new(
                "ENABLE_HSTS",
                "is off in production",
                "Unset it.",
            ));
        }
    }

    /// Whether pages of this origin may ask with credentials.
    pub fn admits(&self, production: bool, origin: &str) -> bool {
        let listed = self.allowed_origins.iter().any(|allowed| allowed == origin);
        listed || (!production && url::Url::parse(origin).is_ok_and(|url| is_loopback(&url)))
    }
}

/// As browsers write it, without the slash that people put behind.
fn origin(text: &str) -> Result<String, std::convert::Infallible> {
    Ok(text.trim().trim_end_matches('/').to_owned())
}

/// Whether a URL never leaves this machine.
pub fn is_loopback(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(host)) => host == "localhost" || host.ends_with(".localhost"),
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// Wraps the routes. The first layer is the first that a request meets. They are one service, so
/// that a request is boxed once, and not once a layer.
pub fn layers(app: &App, routes: Router<App>) -> Router {
    let layers = ServiceBuilder::new()
        .option_layer(crate::telemetry::sentry_layers(&app.config))
        .layer(middleware::from_fn_with_state(app.clone(), finish))
        // Not for streams, nor for answers that hold tokens (BREACH).
        .layer(CompressionLayer::new().compress_when(
            DefaultPredicate::new().and(NotForContentType::SSE).and(
                |_: _, _: _, _: &_, extensions: &http::Extensions| {
                    extensions.get::<Uncompressed>().is_none()
                },
            ),
        ))
        .layer(cors(app))
        .layer(CatchPanicLayer::custom(panicked))
        // The table of limited actions that hold for a whole part of the tree.
        .layer(middleware::from_fn_with_state(
            app.clone(),
            crate::limit::of_address,
        ))
        // Ends what hangs; streams have sent their head by then.
        .layer(middleware::from_fn_with_state(
            app.config.http.request_timeout,
            timeout,
        ));
    routes
        .fallback(async || Error::NotFound)
        .method_not_allowed_fallback(async || Error::MethodNotAllowed)
        .layer(layers)
        .with_state(app.clone())
}

/// Put into a response's extensions by what must not be compressed.
#[derive(Debug, Clone, Copy)]
pub struct Uncompressed;

/// The outermost layer of ours: gives the request an id and an address, logs and counts it, renders
/// refusals in the dialect of the path, and sets the headers that every response carries.
async fn finish(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let id = request_id(&request);
    let path = request.uri().path().to_owned();
    let dialect = Dialect::of(&path);
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("unmatched", MatchedPath::as_str)
        .to_owned();
    let flow = Flow::of(&path);
    let method = method_label(request.method());
    address::resolve(&app, &mut request);
    request.extensions_mut().insert(RequestId(id.clone()));
    let cookies = Cookies::of(&app, request.method(), request.headers());
    let mut client = None;
    if cookies.concern() {
        request.extensions_mut().insert(cookies.clone());
        let (mut parts, body) = request.into_parts();
        client = Some(session::Client::of(&mut parts, &app).await);
        request = Request::from_parts(parts, body);
    }
    let seen_by = SeenBy::default();
    request.extensions_mut().insert(seen_by.clone());

    let span = tracing::info_span!("request", request_id = %id, method, route = %route, flow = flow.label());
    let counted = crate::telemetry::requests::begin(method, route, flow);
    let mut response = next.run(request).instrument(span.clone()).await;
    if let Err(error) = hand_over(&app, &cookies, &mut response) {
        response = keep_headers(response, error.into_response());
    }
    if let Some(client) = client.filter(|_| is_cross_site(&response)) {
        let (action, refusal) = ("cross_site_request", Error::CrossSiteRequest);
        let refusal = audit::refuse_often(&app, &client, action, None, refusal).await;
        response = keep_headers(response, refusal.into_response());
    }
    let refusal = response.extensions().get::<Refusal>().cloned();
    if let Some(Refusal(error)) = &refusal {
        let _entered = span.enter();
        if let Error::Internal(cause) = &**error {
            crate::telemetry::report(cause, flow);
        }
        response = keep_headers(response, error.render(dialect, &id));
    }
    let quiet = path.starts_with("/health") || path == "/metrics";
    counted.end(
        &response,
        &span,
        quiet,
        refusal.as_ref().map(|Refusal(error)| error.code(dialect)),
    );
    headers(&app, &mut response, &id, &path);
    seen_by.say(&mut response);
    response
}

fn is_cross_site(response: &Response) -> bool {
    let refusal = response.extensions().get::<Refusal>();
    refusal.is_some_and(|Refusal(error)| matches!(**error, Error::CrossSiteRequest))
}

/// A session goes to its client as that one wants it: nobody further in knows the request.
fn hand_over(app: &App, cookies: &Cookies, response: &mut Response) -> Result<()> {
    if let Some(SignedIn(session)) = response.extensions_mut().remove() {
        cookies.deliver(app, response, &session)?;
    }
    cookies.take_away(app, response)
}

/// A rendered refusal keeps what inner layers said: CORS, limits, `Allow`.
fn keep_headers(bare: Response, mut rendered: Response) -> Response {
    let mut headers = bare.into_parts().0.headers;
    headers.remove(header::CONTENT_LENGTH);
    for (name, value) in rendered.headers() {
        headers.insert(name, value.clone());
    }
    *rendered.headers_mut() = headers;
    rendered
}

/// What a request is called in logs, answers and the audit log.
#[derive(Debug, Clone)]
pub struct RequestId(pub String);

/// Which admin looks as the user whose token a request brings: told inside, and said in the answer, so that
/// no page hides it.
#[derive(Debug, Clone, Default)]
pub struct SeenBy(std::sync::Arc<std::sync::OnceLock<uuid::Uuid>>);

impl SeenBy {
    pub fn tell(&self, admin: uuid::Uuid) {
        let _ = self.0.set(admin);
    }

    fn say(&self, response: &mut Response) {
        let admin = self.0.get().map(ToString::to_string);
        if let Some(Ok(admin)) = admin.map(HeaderValue::try_from) {
            response.headers_mut().insert("x-impersonated-by", admin);
        }
    }
}

/// Taken over from a well-formed header, else made.
fn request_id(request: &Request) -> String {
    let given = request
        .headers()
        .get("x-request-id")
        .and_then(|value| value.to_str().ok());
    let well_formed = |id: &&str| {
        (8..=64).contains(&id.len())
            && id
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    given
        .filter(well_formed)
        .map_or_else(|| uuid::Uuid::now_v7().to_string(), ToOwned::to_owned)
}

fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    }
}

/// What an alert has to know of a route: an error here costs sign-ins or money.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    Auth,
    Payment,
    Other,
}

impl Flow {
    fn of(path: &str) -> Self {
        match path {
            p if p.starts_with("/auth/") => Self::Auth,
            p if p.starts_with("/webhooks/")
                || p.starts_with("/stripe-webhook")
                || p.starts_with("/api/billing") =>
            {
                Self::Payment
            }
            _ => Self::Other,
        }
    }

    pub fn label(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Payment => "payment",
            Self::Other => "other",
        }
    }
}

/// OWASP REST Security Cheat Sheet: <https://cheatsheetseries.owasp.org/cheatsheets/REST_Security_Cheat_Sheet.html>.
const HEADERS: [(HeaderName, HeaderValue); 6] = [
    (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    ),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
];

fn headers(app: &App, response: &mut Response, id: &str, path: &str) {
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        // A page has its own policy, a public document its own caching.
        headers.entry(name).or_insert(value);
    }
    if app
        .config
        .http
        .enable_hsts
        .unwrap_or(app.config.is_production())
    {
        headers.insert(
            header::STRICT_TRANSPORT_SECURITY,
            HeaderValue::from_static("max-age=31536000; includeSubDomains"),
        );
    }
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert("x-request-id", id);
    }
    if path.starts_with("/auth/v1") {
        headers.insert(
            "x-supabase-api-version",
            HeaderValue::from_static("2024-01-01"),
        );
    }
}

fn cors(app: &App) -> CorsLayer {
    let (config, production) = (app.config.http.clone(), app.config.is_production());
    let admits = move |origin: &HeaderValue, _: &http::request::Parts| {
        origin
            .to_str()
            .is_ok_and(|origin| config.admits(production, origin))
    };
    let request_headers = [
        "authorization",
        "content-type",
        "accept",
        "apikey",
        "idempotency-key",
        "last-event-id",
        "prefer",
        "x-client-info",
        "x-supabase-api-version",
        "x-retry-count",
        "x-conversation-id",
        "x-request-id",
        "x-session-transport",
        "x-device-token",
        "sentry-trace",
        "baggage",
        "traceparent",
        "tracestate",
        "x-stainless-arch",
        "x-stainless-lang",
        "x-stainless-os",
        "x-stainless-package-version",
        "x-stainless-retry-count",
        "x-stainless-runtime",
        "x-stainless-runtime-version",
        "x-stainless-timeout",
        "x-stainless-helper-method",
        "x-stainless-async",
        "x-stainless-poll-helper",
        "x-stainless-custom-poll-interval",
        "openai-organization",
        "openai-project",
        "openai-beta",
        "user-agent",
    ];
    let exposed = [
        "x-request-id",
        "ratelimit",
        "ratelimit-policy",
        "retry-after",
        "x-should-retry",
        "idempotency-replayed",
        "x-conversation-id",
        "x-supabase-api-version",
        "x-device-token",
        "x-impersonated-by",
    ];
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(admits))
        .allow_credentials(true)
        .allow_methods([
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
        ])
        .allow_headers(request_headers.map(HeaderName::from_static))
        .expose_headers(exposed.map(HeaderName::from_static))
        .max_age(Duration::from_secs(600))
}

async fn timeout(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Error::RequestTimeout.into_response(),
    }
}

/// The process lives on; the client hears no more than that it was us.
fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    metrics::counter!("panics_total").increment(1);
    Error::Internal(anyhow::anyhow!("panicked: {}", text.unwrap_or("…"))).into_response()
}
