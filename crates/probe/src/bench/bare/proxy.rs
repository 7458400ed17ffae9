//! A chat without a server: each request goes on to the provider as it came, and each piece of its
//! answer comes back as it came. Who is asking, what is kept and what it costs is nobody's business.
use anyhow::Result;
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::StatusCode,
    response::Response,
    routing::post,
};
use std::time::Duration;
use url::Url;

/// The server's own client of a provider, set up as it is there.
#[derive(Clone)]
struct Upstream {
    client: reqwest::Client,
    url: String,
}

pub fn routes(provider: &Url) -> Result<Router> {
    let client = reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(5))
        .pool_idle_timeout(Duration::from_secs(90))
        .tcp_nodelay(true)
        .build()?;
    let url = format!(
        "{}/chat/completions",
        provider.as_str().trim_end_matches('/')
    );
    let routes = Router::new().route("/v1/chat/completions", post(pass_on));
    Ok(routes.with_state(Upstream { client, url }))
}

async fn pass_on(
    State(upstream): State<Upstream>,
    request: Request,
) -> Result<Response, StatusCode> {
    let failed = |error: &dyn std::error::Error| {
        eprintln!("{error}");
        StatusCode::BAD_GATEWAY
    };
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1024 * 1024).await;
    let body = body.map_err(|error| failed(&error))?;
    let mut asked = upstream.client.post(&upstream.url).body(body);
    for name in ["content-type", "authorization"] {
        if let Some(value) = parts.headers.get(name) {
            asked = asked.header(name, value);
        }
    }
    let answer = asked.send().await.map_err(|error| failed(&error))?;

    let mut response = Response::builder().status(answer.status());
    if let Some(value) = answer.headers().get("content-type") {
        response = response.header("content-type", value);
    }
    let response = response.body(Body::from_stream(answer.bytes_stream()));
    response.map_err(|error| failed(&error))
}
