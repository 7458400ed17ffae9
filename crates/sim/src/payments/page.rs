//! Pages in one frame that says what they are.

use std::sync::OnceLock;

use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use minijinja::Environment;
use minijinja::value::Serde;
use serde_json::{Value, json};

/// Who sells.
const MERCHANT: &str = "Plinth";
/// Without `form-action`: a browser would not follow the way back to the application.
const POLICY: &str = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'";

fn templates() -> &'static Environment<'static> {
    static TEMPLATES: OnceLock<Environment<'static>> = OnceLock::new();
    TEMPLATES.get_or_init(|| {
        let mut templates = Environment::new();
        for (name, text) in [
            ("base.html", include_str!("base.html")),
            ("board.html", include_str!("board.html")),
            ("note.html", include_str!("note.html")),
            ("confirm.html", include_str!("../stripe/pages/confirm.html")),
            ("invoice.html", include_str!("../stripe/pages/invoice.html")),
            ("pay.html", include_str!("../stripe/pages/pay.html")),
            ("portal.html", include_str!("../stripe/pages/portal.html")),
            ("preview.html", include_str!("../stripe/pages/preview.html")),
        ] {
            if let Err(error) = templates.add_template(name, text) {
                tracing::error!(%error, name, "a page of the simulation cannot be read");
            }
        }
        templates
    })
}

pub fn page(name: &str, mut shown: Value) -> Response {
    shown["merchant"] = MERCHANT.into();
    let shown = minijinja::Value::from(Serde(shown));
    let rendered = templates()
        .get_template(name)
        .and_then(|template| template.render(shown));
    let headers = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-store"),
    ];
    match rendered {
        Ok(html) => (headers, Html(html)).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")).into_response(),
    }
}

/// A page that says one thing, with a way on.
pub fn note(heading: &str, text: &str, way: Option<(&str, &str)>) -> Response {
    let (link, url) = way.unzip();
    page(
        "note.html",
        json!({"heading": heading, "text": text, "link": link, "url": url}),
    )
}
