//! The page that says what is simulated and where.

use std::net::SocketAddr;

use axum::Router;
use axum::http::header;
use axum::response::Html;
use axum::routing::get;

use crate::events::{self, Target};
use crate::faults::KNOBS;

const POLICY: &str = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

pub fn routes(http: SocketAddr, smtp: SocketAddr, target: Target) -> Router {
    let knobs = KNOBS
        .iter()
        .map(|(name, effect)| format!("<tr><td><code>{name}</code><td>{effect}"));
    let page = include_str!("page.html")
        .replace("{{http}}", &http.to_string())
        .replace("{{smtp}}", &smtp.to_string())
        .replace("{{knobs}}", &knobs.collect::<Vec<_>>().join("\n"));

    let home = async move || {
        let page = page.replace("{{target}}", &whereto(&target));
        ([(header::CONTENT_SECURITY_POLICY, POLICY)], Html(page))
    };
    Router::new().route("/", get(home))
}

fn whereto(target: &Target) -> String {
    match events::current(target) {
        Some(target) => format!(
            "Sent to <code>{}</code>, signed with the development secrets.",
            escape(&target.base_url)
        ),
        None => "This simulation knows no backend to send them to.".to_owned(),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
