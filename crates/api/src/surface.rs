//! What is seen from outside: files made from the code, who may call what, and that no route fails
//! at nonsense. Each walks over the OpenAPI description, so that a new route is in it at once.
use crate::{
    commands, docs,
    error::Dialect,
    testing::{Answer, Engine, SELLING, Test, both_engines},
};
use http::Method;
use serde_json::{Value, json};
use std::{collections::BTreeSet, path::Path};

mod nonsense;

/// Who is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    Anyone,
    /// Who is signed in.
    User,
    /// Who administers.
    Admin,
    /// Who knows a secret that has nothing to do with users; without it the status is this.
    Secret(u16),
}
use Caller::{Admin, Anyone, Secret, User};

const WHO_MAY_CALL: &[(&str, &str, Caller)] = &[
    ("get", "/.well-known/jwks.json", Anyone),
    ("get", "/api/admin/audit", Admin),
    ("get", "/api/admin/features", Admin),
    ("put", "/api/admin/features/{name}", Admin),
    ("delete", "/api/admin/features/{name}/users/{id}", Admin),
    ("put", "/api/admin/features/{name}/users/{id}", Admin),
    ("post", "/api/admin/billing/users/{id}/reconcile", Admin),
    ("get", "/api/admin/billing/users/{id}", Admin),
    ("post", "/api/admin/entitlements", Admin),
    ("delete", "/api/admin/entitlements/{id}", Admin),
    ("get", "/api/admin/llm", Admin),
    ("put", "/api/admin/llm", Admin),
    ("post", "/api/admin/test-error", Admin),
    ("get", "/api/admin/usage", Admin),
    ("get", "/api/admin/users", Admin),
    ("get", "/api/admin/users/{id}", Admin),
    ("post", "/api/admin/users/{id}/ban", Admin),
    ("post", "/api/admin/users/{id}/impersonate", Admin),
    ("get", "/api/admin/users/{id}/sessions", Admin),
    ("delete", "/api/admin/users/{id}/sessions/{session}", Admin),
    ("post", "/api/admin/users/{id}/unban", Admin),
    ("get", "/api/admin/webhooks", Admin),
    ("post", "/api/admin/webhooks/replay", Admin),
    ("get", "/api/admin/webhooks/stats", Admin),
    ("get", "/api/admin/webhooks/{id}", Admin),
    ("post", "/api/admin/webhooks/{id}/discard", Admin),
    ("post", "/api/admin/webhooks/{id}/replay", Admin),
    ("get", "/api/assistants", User),
    ("get", "/api/billing", User),
    ("post", "/api/billing/checkout", User),
    ("get", "/api/billing/checkout/{id}", User),
    ("get", "/api/billing/invoices", User),
    ("get", "/api/billing/plans", Anyone),
    ("post", "/api/billing/portal", User),
    ("post", "/api/billing/subscriptions/{id}/cancel", User),
    ("post", "/api/billing/subscriptions/{id}/change", User),
    ("post", "/api/billing/subscriptions/{id}/preview", User),
    ("post", "/api/billing/subscriptions/{id}/resume", User),
    ("post", "/api/billing/sync", User),
    ("post", "/api/chat", User),
    ("get", "/api/chat/ws", Secret(401)),
    ("post", "/api/chat/ws-ticket", User),
    ("get", "/api/chat/{id}/stream", User),
    ("post", "/api/chat/{id}/stop", User),
    ("get", "/api/conversations", User),
    ("post", "/api/conversations", User),
    ("delete", "/api/conversations/{id}", User),
    ("get", "/api/conversations/{id}", User),
    ("patch", "/api/conversations/{id}", User),
    ("get", "/api/conversations/{id}/messages", User),
    ("post", "/api/conversations/{id}/messages", User),
    (
        "post",
        "/api/conversations/{id}/messages/{message}/regenerate",
        User,
    ),
    ("get", "/api/entitlements", User),
    ("get", "/api/features", User),
    ("get", "/api/generations", User),
    ("get", "/api/generations/{id}", User),
    ("get", "/api/generations/{id}/events", User),
    ("post", "/api/generations/{id}/stop", User),
    ("get", "/api/health", Anyone),
    ("get", "/api/keys", User),
    ("post", "/api/keys", User),
    ("delete", "/api/keys/{id}", User),
    ("get", "/api/models", User),
    ("get", "/api/profile", User),
    ("put", "/api/profile", User),
    ("get", "/api/usage", User),
    ("post", "/auth/apple", Anyone),
    ("post", "/auth/google", Anyone),
    ("post", "/auth/oauth/apple", Anyone),
    ("post", "/auth/oauth/google", Anyone),
    ("get", "/auth/v1/.well-known/jwks.json", Anyone),
    ("get", "/auth/v1/admin/audit", Admin),
    ("post", "/auth/v1/admin/generate_link", Admin),
    ("get", "/auth/v1/admin/users", Admin),
    ("post", "/auth/v1/admin/users", Admin),
    ("delete", "/auth/v1/admin/users/{id}", Admin),
    ("get", "/auth/v1/admin/users/{id}", Admin),
    ("put", "/auth/v1/admin/users/{id}", Admin),
    ("get", "/auth/v1/admin/users/{id}/factors", Admin),
    (
        "delete",
        "/auth/v1/admin/users/{id}/factors/{factor}",
        Admin,
    ),
    ("get", "/auth/v1/admin/users/{id}/passkeys", Admin),
    (
        "delete",
        "/auth/v1/admin/users/{id}/passkeys/{passkey}",
        Admin,
    ),
    ("post", "/auth/v1/apple/notifications", Anyone),
    ("get", "/auth/v1/authorize", Anyone),
    ("get", "/auth/v1/callback", Anyone),
    ("post", "/auth/v1/callback", Anyone),
    ("post", "/auth/v1/factors", User),
    ("get", "/auth/v1/factors/recovery-codes", User),
    ("post", "/auth/v1/factors/recovery-codes", User),
    ("delete", "/auth/v1/factors/recovery-codes", User),
    ("post", "/auth/v1/factors/recovery-codes/regenerate", User),
    ("post", "/auth/v1/factors/recovery-codes/verify", User),
    ("delete", "/auth/v1/factors/{id}", User),
    ("post", "/auth/v1/factors/{id}/challenge", User),
    ("post", "/auth/v1/factors/{id}/verify", User),
    ("get", "/auth/v1/health", Anyone),
    ("post", "/auth/v1/invite", Admin),
    ("post", "/auth/v1/logout", User),
    ("post", "/auth/v1/magiclink", Anyone),
    ("post", "/auth/v1/guest/merge", User),
    ("post", "/auth/v1/guest/merge-token", User),
    ("post", "/auth/v1/otp", Anyone),
    ("get", "/auth/v1/reauthenticate", User),
    ("get", "/auth/v1/passkeys", User),
    ("post", "/auth/v1/passkeys/authentication/options", Anyone),
    ("post", "/auth/v1/passkeys/authentication/verify", Anyone),
    ("post", "/auth/v1/passkeys/registration/options", User),
    ("post", "/auth/v1/passkeys/registration/verify", User),
    ("delete", "/auth/v1/passkeys/{id}", User),
    ("patch", "/auth/v1/passkeys/{id}", User),
    ("post", "/auth/v1/recover", Anyone),
    ("post", "/auth/v1/resend", Anyone),
    ("get", "/auth/v1/sessions", User),
    ("delete", "/auth/v1/sessions/{id}", User),
    ("get", "/auth/v1/settings", Anyone),
    ("post", "/auth/v1/signup", Anyone),
    ("post", "/auth/v1/token", Anyone),
    ("get", "/auth/v1/audit", User),
    ("delete", "/auth/v1/user", User),
    ("get", "/auth/v1/user", User),
    ("put", "/auth/v1/user", User),
    ("get", "/auth/v1/user/export", User),
    ("get", "/auth/v1/verify", Anyone),
    ("get", "/auth/v1/user/identities/authorize", User),
    ("delete", "/auth/v1/user/identities/{id}", User),
    ("post", "/auth/v1/verify", Anyone),
    ("get", "/health", Anyone),
    ("get", "/health/live", Anyone),
    ("get", "/health/ready", Anyone),
    ("get", "/metrics", Secret(403)),
    ("post", "/stripe-webhook", Secret(400)),
    ("get", "/subscriptions/cancel", Anyone),
    ("get", "/subscriptions/success", Anyone),
    ("post", "/v1/chat/completions", User),
    ("post", "/v1/embeddings", User),
    ("get", "/v1/models", User),
    ("post", "/webhooks/revenuecat", Secret(401)),
    ("post", "/webhooks/sendgrid", Secret(400)),
    ("post", "/webhooks/stripe", Secret(400)),
];

/// Routes for people and tools, not for clients; and what answers 404.
const UNDESCRIBED: [&str; 6] = [
    "/",
    "/docs",
    "/docs/",
    "/docs/{file}",
    "/openapi.json",
    "/{*__private__axum_fallback}",
];

/// One operation of the description.
struct Operation {
    method: Method,
    /// As the description has it.
    route: String,
    /// With something in place of its parameters.
    path: String,
    takes_body: bool,
    /// Without one it refuses.
    needs_body: bool,
    needs_token: bool,
    /// The members of its body, where the description says which.
    members: Vec<String>,
}

fn operations() -> Vec<Operation> {
    let openapi: Value = serde_json::from_str(&docs::json()).unwrap();
    let mut operations = vec![];
    for (route, methods) in openapi["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            operations.push(Operation {
                method: method.to_uppercase().parse().unwrap(),
                route: route.clone(),
                path: fill(route),
                takes_body: operation.get("requestBody").is_some(),
                needs_body: operation.pointer("/requestBody/required") == Some(&json!(true)),
                needs_token: operation.get("security").is_none(),
                members: members(&openapi, operation),
            });
        }
    }
    operations
}

/// Every parameter of a path is an id that names nothing.
fn fill(route: &str) -> String {
    let part = |part: &str| match part.starts_with('{') {
        true => "0190a8c0-0000-7000-8000-000000000000".to_owned(),
        false => part.to_owned(),
    };
    route.split('/').map(part).collect::<Vec<_>>().join("/")
}

fn members(openapi: &Value, operation: &Value) -> Vec<String> {
    fn collect(openapi: &Value, schema: &Value, into: &mut BTreeSet<String>) {
        if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
            collect(openapi, openapi.pointer(&name[1..]).unwrap(), into);
        }
        into.extend(
            schema["properties"]
                .as_object()
                .into_iter()
                .flat_map(|properties| properties.keys().cloned()),
        );
        for word in ["oneOf", "anyOf", "allOf"] {
            for schema in schema[word].as_array().into_iter().flatten() {
                collect(openapi, schema, into);
            }
        }
    }
    let mut into = BTreeSet::new();
    let contents = operation["requestBody"]["content"].as_object();
    for content in contents.into_iter().flat_map(|contents| contents.values()) {
        collect(openapi, &content["schema"], &mut into);
    }
    into.into_iter().collect()
}

#[test]
fn files_made_from_the_code_are_as_the_code_makes_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");

    for (file, expected) in commands::generated_files() {
        let found = std::fs::read_to_string(root.join(file)).unwrap_or_default();
        assert!(
            found == expected,
            "{file} is out of date: run `cargo run -- accept`"
        );
    }
}

/// Invariant 78.
#[test]
fn the_table_says_of_every_operation_who_may_call_it() {
    let described: BTreeSet<_> = operations()
        .into_iter()
        .map(|o| (o.method.as_str().to_lowercase(), o.route, o.needs_token))
        .collect();

    let table: BTreeSet<_> = WHO_MAY_CALL
        .iter()
        .map(|(method, route, caller)| {
            let needs_token = matches!(caller, User | Admin);
            ((*method).to_owned(), (*route).to_owned(), needs_token)
        })
        .collect();
    assert_eq!(
        table.difference(&described).collect::<Vec<_>>(),
        [] as [&_; 0],
        "in the table, but not described so"
    );
    assert_eq!(
        described.difference(&table).collect::<Vec<_>>(),
        [] as [&_; 0],
        "described, but not so in the table (the third is: needs a token)"
    );
}

#[test]
fn every_path_of_the_router_is_described() {
    let (router, openapi) = crate::routes().split_for_parts();

    // A router does not list its paths; it shows them when it is printed.
    let printed = format!("{router:?}");
    let paths: BTreeSet<_> = printed
        .split("RouteId(")
        .filter_map(|text| text.split_once("): \"")?.1.split('"').next())
        .filter(|path| path.starts_with('/'))
        .collect();
    assert!(paths.contains("/health") && paths.len() > 20, "{paths:?}");
    let undescribed: Vec<_> = paths
        .into_iter()
        .filter(|path| !openapi.paths.paths.contains_key(*path))
        .collect();
    assert_eq!(undescribed, UNDESCRIBED);
}

#[tokio::test]
async fn who_is_no_admin_is_refused_as_the_table_says() {
    let test = Test::new(Engine::Sqlite).await;
    let ann = test.sign_up("ann@example.com").await.token;

    for (method, route, caller) in WHO_MAY_CALL {
        let method: Method = method.to_uppercase().parse().unwrap();
        if *caller == Admin {
            let answer = test.call(method, &ann, &fill(route), json!({})).await;
            let refusal = (403, "not_admin".to_owned());
            assert_eq!(answer.refusal(), refusal, "{route}");
        }
    }
}

both_engines! {
    /// Invariant 73.
    async fn no_route_lets_an_admin_who_looks_as_a_user_change_anything(engine: Engine) {
        let test = Test::with(engine, &SELLING).await;
        let (ann, ben) = (test.sign_up_admin("ann@example.com").await, test.sign_up("ben@example.com").await);
        test.post(&ben.token, "/api/chat", json!({"message": "Mine"})).await;
        let path = format!("/api/admin/users/{}/impersonate", ben.id);
        let looking = test.post(&ann.token, &path, json!({"reason": "a ticket"})).await.json();
        let token = looking["access_token"].as_str().unwrap();
        let schema = db::check::schema(&test.app.db).await.unwrap();
        // A refused export stands in the log.
        let tables: BTreeSet<_> = schema.iter().filter_map(|line| line.split(['.', ' ']).next()).filter(|table| !table.starts_with("audit_")).collect();
        let rows = async || {
            let mut rows = vec![];
            for table in &tables {
                rows.push((*table, db::testing::rows(&test.app.db, table).await.unwrap()));
            }
            rows
        };
        let before = rows().await;

        for (method, route, caller) in WHO_MAY_CALL {
            let method: Method = method.to_uppercase().parse().unwrap();
            if !matches!(caller, User | Admin) {
                continue;
            }
            let answer = test.call(method.clone(), token, &fill(route), json!({})).await;
            assert_eq!(answer.header("x-impersonated-by"), ann.id, "{method} {route}");
            if method != Method::GET {
                assert_eq!(answer.refusal(), (403, "forbidden".to_owned()), "{method} {route}");
            } else if *caller == Admin {
                assert_eq!(answer.refusal(), (403, "not_admin".to_owned()), "{method} {route}");
            }
        }
        assert_eq!(rows().await, before);
    }
}

#[tokio::test]
async fn without_a_token_everyone_is_answered_as_the_table_says() {
    let test = Test::new(Engine::Sqlite).await;

    for (method, route, caller) in WHO_MAY_CALL {
        let method: Method = method.to_uppercase().parse().unwrap();
        let answer = test.call(method.clone(), "", &fill(route), json!({})).await;
        let status = answer.status.as_u16();
        match caller {
            User | Admin => {
                assert_eq!(status, 401, "{method} {route}");
                assert_eq!(
                    answer.header("www-authenticate"),
                    "Bearer",
                    "{method} {route}"
                );
                // GoTrue tells a token that will not do from none at all.
                let refused = if route.starts_with("/auth/") {
                    403
                } else {
                    401
                };
                assert_eq!(
                    forged(&test, &method, route).await,
                    refused,
                    "{method} {route}"
                );
            }
            Secret(expected) => assert_eq!(status, *expected, "{method} {route}"),
            Anyone => assert!(
                !matches!(status, 401 | 403 | 404 | 405 | 500..),
                "{method} {route}: {status}"
            ),
        }
    }
}

async fn forged(test: &Test, method: &Method, route: &str) -> u16 {
    let token = "eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0.eyJzdWIiOiIwIn0.";
    let answer = test
        .call(method.clone(), token, &fill(route), json!({}))
        .await;
    answer.status.as_u16()
}

#[tokio::test]
async fn every_route_refuses_other_methods_with_those_it_takes() {
    let test = Test::with(Engine::Sqlite, &SELLING).await;

    for operation in operations() {
        for method in ["TRACE", "PROPFIND", "FOO"] {
            let answer = test
                .call(method.parse().unwrap(), "", &operation.path, json!({}))
                .await;
            assert_eq!(answer.status, 405, "{method} {}", operation.path);
            assert!(
                answer.header("allow").contains(operation.method.as_str()),
                "{method} {}: {:?}",
                operation.path,
                answer.headers
            );
            speaks(&answer, &operation.path);
        }
    }
}

/// That a refusal is in the dialect of its path, and has what every response has.
pub fn speaks(answer: &Answer, path: &str) {
    let (status, body) = (answer.status.as_u16(), answer.json());
    let text = |pointer: &str| {
        body.pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_else(|| panic!("{path}: no {pointer} in {body}"))
    };
    match Dialect::of(path) {
        Dialect::OpenAi => {
            assert_eq!(answer.header("content-type"), "application/json");
            text("/error/message");
            text("/error/type");
            text("/error/code");
            assert!(body.pointer("/error/param").is_some(), "{path}: {body}");
        }
        Dialect::Problem | Dialect::GoTrue => {
            assert_eq!(answer.header("content-type"), "application/problem+json");
            assert_eq!(body["status"], status, "{path}: {body}");
            assert_eq!(text("/type"), format!("urn:plinth:error:{}", text("/code")));
            assert_eq!(
                (text("/title"), text("/detail")),
                (text("/error"), text("/message"))
            );
            assert_eq!(text("/request_id"), answer.header("x-request-id"));
        }
    }
    assert!(!answer.header("x-request-id").is_empty());
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
}
