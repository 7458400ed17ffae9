//! The description of the API, made from the code, and a page to try it.
use crate::{App, error::Dialect};
use axum::{
    extract::Path,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use std::sync::{Arc, LazyLock};
use utoipa::openapi::{
    ContentBuilder, Info, License, OpenApi, OpenApiBuilder, Ref, RefOr, ResponseBuilder,
    SecurityRequirement,
    security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme},
};
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::Config;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .route("/openapi.json", get(openapi))
        .route("/docs", get(async || page("index.html")))
        .route("/docs/", get(async || page("index.html")))
        .route(
            "/docs/{file}",
            get(async |Path(file): Path<String>| page(&file)),
        )
}

/// What stands above the routes.
pub fn description() -> OpenApi {
    let mut description = OpenApiBuilder::new()
        .info(Info::builder()
            .title("Plinth")
            .version(env!("CARGO_PKG_VERSION"))
            .description(Some("Sign-in in the words of GoTrue, chat in OpenAI's and our own, subscriptions from Stripe and RevenueCat. Errors are RFC 9457 problem documents with a stable `code`; under /v1 they have OpenAI's shape."))
            .license(Some(License::new("MIT OR Apache-2.0")))
            .build())
        .security(Some(["access_token", "cookie"].map(|name| SecurityRequirement::new(name, Vec::<String>::new()))))
        .build();
    let scheme = Http::builder()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .description(Some(
            "The access_token of a session; on routes of chat also a personal API key",
        ))
        .build();
    let cookie = "The same in a browser that signed in with X-Session-Transport: cookie; over plain http without the __Host-";
    let cookie = ApiKeyValue::with_description("__Host-plinth-access", cookie);
    let components = description.components.get_or_insert_default();
    components.add_security_scheme("access_token", SecurityScheme::Http(scheme));
    components.add_security_scheme("cookie", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
    description
}

/// The whole of it, as it is checked in.
pub fn json() -> String {
    static JSON: LazyLock<String> = LazyLock::new(|| {
        let mut openapi = crate::routes().into_openapi();
        describe_refusals(&mut openapi);
        openapi
            .to_pretty_json()
            .map(|json| json + "\n")
            .unwrap_or_default()
    });
    JSON.clone()
}

/// What a refusal looks like, under every route but those of OpenAI's shape.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "for the description alone")]
struct Problem {
    r#type: String,
    title: String,
    status: u16,
    detail: String,
    /// The stable word to act on; see docs/api.md for all of them.
    code: String,
    /// As `detail`.
    message: String,
    /// As `title`.
    error: String,
    request_id: String,
    /// Of invalid input: what is wrong with which member.
    errors: Option<Vec<crate::error::Invalid>>,
}

/// What a refusal looks like under `/v1`.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "for the description alone")]
struct OpenAiError {
    error: OpenAiErrorBody,
}

#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "for the description alone")]
struct OpenAiErrorBody {
    message: String,
    r#type: String,
    param: Option<String>,
    /// The stable word to act on.
    code: String,
}

/// Says of every operation what its refusals look like: there is one place that makes them all.
fn describe_refusals(openapi: &mut OpenApi) {
    let mut schemas = vec![];
    <Problem as utoipa::ToSchema>::schemas(&mut schemas);
    <OpenAiError as utoipa::ToSchema>::schemas(&mut schemas);
    schemas.push((
        "Problem".into(),
        <Problem as utoipa::PartialSchema>::schema(),
    ));
    schemas.push((
        "OpenAiError".into(),
        <OpenAiError as utoipa::PartialSchema>::schema(),
    ));
    openapi
        .components
        .get_or_insert_default()
        .schemas
        .extend(schemas);

    let refusal = |media: &str, schema: &str| {
        let schema = Ref::from_schema_name(schema);
        ResponseBuilder::new()
            .description("A refusal")
            .content(media, ContentBuilder::new().schema(Some(schema)).build())
            .build()
    };
    for (path, item) in &mut openapi.paths.paths {
        let operations = [
            &mut item.get,
            &mut item.post,
            &mut item.put,
            &mut item.patch,
            &mut item.delete,
        ];
        for operation in operations.into_iter().flatten() {
            let default = match Dialect::of(path) {
                Dialect::OpenAi => refusal("application/json", "OpenAiError"),
                _ => refusal("application/problem+json", "Problem"),
            };
            operation
                .responses
                .responses
                .insert("default".into(), RefOr::T(default));
        }
    }
}

async fn openapi() -> Response {
    (
        [
            (header::CONTENT_TYPE, "application/json"),
            (header::CACHE_CONTROL, "no-cache"),
        ],
        json(),
    )
        .into_response()
}

/// Swagger UI sets styles on elements; nothing of it is loaded from elsewhere.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

fn page(file: &str) -> Response {
    static CONFIG: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
        Arc::new(
            Config::from("/openapi.json")
                .try_it_out_enabled(true)
                .persist_authorization(true)
                .display_request_duration(true)
                .doc_expansion("list")
                // Neither a bar to load descriptions of elsewhere with, nor a badge from there.
                .use_base_layout()
                .validator_url("none"),
        )
    });
    let Ok(Some(found)) = utoipa_swagger_ui::serve(file, CONFIG.clone()) else {
        return crate::Error::NotFound.into_response();
    };
    // The page is served without a slash behind it, so that its own relative links would miss.
    let bytes = if file == "index.html" {
        String::from_utf8_lossy(&found.bytes)
            .replace("\"./", "\"/docs/")
            .replace("href=\"index.css\"", "href=\"/docs/index.css\"")
            .replace(
                "<title>Swagger UI</title>",
                "<title>Plinth API</title>\n    <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">",
            )
            .into_bytes()
    } else {
        found.bytes.into_owned()
    };
    let mut response = (
        StatusCode::OK,
        [(header::CONTENT_TYPE, found.content_type)],
        bytes,
    )
        .into_response();
    response.headers_mut().insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(POLICY),
    );
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
