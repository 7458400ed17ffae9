//! The program against a server that does part of what it should.
use axum::{Json, Router, routing::get};
use serde_json::{Value, json};
use std::process::Output;

#[expect(clippy::unwrap_used, reason = "only tests call it")]
async fn smoke(router: Router, more: &[&str]) -> Output {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(axum::serve(listener, router).into_future());
    let mut probe = tokio::process::Command::new(env!("CARGO_BIN_EXE_probe"));
    let output = probe
        .args(["smoke", &url])
        .args(more)
        .output()
        .await
        .unwrap();
    server.abort();
    output
}

#[tokio::test]
async fn right_steps_pass_and_a_wrong_one_fails_the_run() {
    let health = json!({"status": "healthy", "version": "1", "database": "connected"});
    let router = Router::new()
        .route("/health", get(async || Json(health)))
        .route("/health/ready", get(async || Json(json!({"ready": false}))));

    let output = smoke(router, &["--json"]).await;

    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let outcome = |name: &str| {
        let steps = report["steps"].as_array().unwrap();
        let step = steps.iter().find(|step| step["step"] == name).unwrap();
        (step["outcome"].clone(), step["got"].clone())
    };
    assert_eq!(report["ok"], false);
    assert_eq!(outcome("GET /health").0, "passed");
    assert_eq!(
        outcome("GET /health/ready"),
        ("failed".into(), r#"200 {"ready":false}"#.into())
    );
    assert_eq!(outcome("chat").0, "skipped");
}

#[tokio::test]
async fn nobody_there_is_one_failed_step() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);

    let mut probe = tokio::process::Command::new(env!("CARGO_BIN_EXE_probe"));
    let output = probe.args(["smoke", &url]).output().await.unwrap();

    assert_eq!(output.status.code(), Some(1));
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("0 ok, 1 failed, 0 skipped"), "{table}");
    assert!(table.contains("no answer"), "{table}");
}
