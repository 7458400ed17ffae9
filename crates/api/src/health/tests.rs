use crate::testing::{Answer, Engine, Test, both_engines, request};
use axum::{body::Body, extract::ConnectInfo};
use http::Method;
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};

async fn metrics(test: &Test, peer: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = request(Method::GET, "", "/metrics");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut request = request.body(Body::empty()).unwrap();
    let peer: IpAddr = peer.parse().unwrap();
    request
        .extensions_mut()
        .insert(ConnectInfo(SocketAddr::new(peer, 40_000)));
    test.send(request).await
}

both_engines! {
    async fn health_is_exactly_what_monitors_were_told(engine: Engine) {
        let test = Test::with(engine, &[("APP_VERSION", "1.2.3")]).await;

        let health = test.get("", "/health").await;
        assert_eq!((health.status.as_u16(), health.text().as_str()), (200, r#"{"status":"healthy","version":"1.2.3","database":"connected"}"#));
        assert_eq!(test.get("", "/health/ready").await.text(), r#"{"ready":true}"#);
        assert_eq!(test.get("", "/health/live").await.text(), r#"{"live":true}"#);
        let services = test.get("", "/api/health").await.json();
        assert_eq!(services["timestamp"], "2026-11-20T09:30:00.000000Z");
        assert_eq!(services["services"], json!({"database": "ok", "redis": "off", "llm": "simulated", "stripe": "simulated", "revenuecat": "simulated", "mail": "simulated"}));
    }

    async fn without_its_database_an_instance_lives_but_is_not_ready(engine: Engine) {
        let test = Test::with(engine, &[("APP_VERSION", "1.2.3")]).await;

        test.app.db.close().await;

        let health = test.get("", "/health").await;
        assert_eq!((health.status.as_u16(), health.text().as_str()), (503, r#"{"status":"unhealthy","version":"1.2.3","database":"disconnected"}"#));
        let ready = test.get("", "/health/ready").await;
        assert_eq!((ready.status.as_u16(), ready.text().as_str()), (503, r#"{"ready":false}"#));
        assert_eq!(test.get("", "/health/live").await.status, 200);
        let services = test.get("", "/api/health").await;
        assert_eq!((services.status.as_u16(), &services.json()["services"]["database"]), (503, &json!("degraded")));
        let refused = test.post("", "/auth/v1/token?grant_type=password", json!({"email": "ann@example.com", "password": "correct horse"})).await;
        assert_eq!(refused.refusal(), (503, "database_unavailable".into()));
        assert_eq!(refused.header("retry-after"), "1");
    }
}

#[tokio::test]
async fn an_instance_that_drains_is_not_ready() {
    let test = Test::new(Engine::Sqlite).await;

    test.app.not_ready.cancel();

    assert_eq!(test.get("", "/health/ready").await.status, 503);
    assert_eq!(test.get("", "/health").await.status, 200);
}

#[tokio::test]
async fn metrics_are_for_loopback_alone_unless_there_is_a_token() {
    let test = Test::new(Engine::Sqlite).await;

    assert_eq!(metrics(&test, "127.0.0.1", &[]).await.status, 200);
    assert_eq!(metrics(&test, "::1", &[]).await.status, 200);
    for outside in ["203.0.113.7", "10.0.0.1", "::ffff:203.0.113.7"] {
        assert_eq!(
            metrics(&test, outside, &[]).await.refusal(),
            (403, "forbidden".into()),
            "{outside}"
        );
    }
    // A proxy on this machine is no reason to believe that the client is.
    for header in ["x-forwarded-for", "forwarded", "via", "x-real-ip"] {
        assert_eq!(
            metrics(&test, "127.0.0.1", &[(header, "203.0.113.7")])
                .await
                .status,
            403,
            "{header}"
        );
    }
}

#[tokio::test]
async fn metrics_with_a_token_are_for_who_bears_it() {
    let test = Test::with(Engine::Sqlite, &[("METRICS_TOKEN", "of-the-scraper")]).await;

    for peer in ["127.0.0.1", "203.0.113.7"] {
        assert_eq!(metrics(&test, peer, &[]).await.status, 401);
        for wrong in [
            "Bearer of-the-scrapes",
            "Bearer ",
            "of-the-scraper",
            "Basic of-the-scraper",
            "Bearer of-the-scraper2",
        ] {
            assert_eq!(
                metrics(&test, peer, &[("authorization", wrong)])
                    .await
                    .status,
                401,
                "{wrong}"
            );
        }
        assert_eq!(
            metrics(&test, peer, &[("authorization", "Bearer of-the-scraper")])
                .await
                .status,
            200
        );
    }
}

#[tokio::test]
async fn metrics_are_labelled_by_route_and_never_by_path() {
    let test = Test::new(Engine::Sqlite).await;
    metrics(&test, "127.0.0.1", &[]).await;
    let id = uuid::Uuid::new_v4();

    test.get("", &format!("/api/conversations/{id}")).await;
    test.get("", &format!("/nowhere/{id}")).await;
    test.call(
        Method::from_bytes(b"BREW").unwrap(),
        "",
        "/health",
        Value::Null,
    )
    .await;

    let text = metrics(&test, "127.0.0.1", &[]).await.text();
    assert!(
        !text.contains(&id.to_string()) && !text.contains("BREW"),
        "{text}"
    );
    for line in [
        r#"http_requests_total{method="GET",route="/api/conversations/{id}",status="401",flow="other"}"#,
        r#"http_requests_total{method="GET",route="unmatched",status="404",flow="other"}"#,
        r#"method="OTHER""#,
        "http_request_duration_seconds_bucket",
        "http_requests_in_flight",
        "db_pool_connections",
        "app_build_info",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}
