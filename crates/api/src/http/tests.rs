use super::{Listening, serve};
use crate::{
    App, Error,
    surface::speaks,
    testing::{Answer, Engine, Test, request},
};
use axum::{Router, body::Body, extract::ConnectInfo, routing::get};
use http::{Method, header};
use hyper_util::server::graceful::GracefulShutdown;
use serde_json::{Value, json};
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const OURS: &str = "https://app.example.com";

/// One instance, on SQLite: nothing here depends on the database.
async fn instance(variables: &[(&str, &str)]) -> Test {
    Test::with(Engine::Sqlite, variables).await
}

/// An instance whose routes are these, behind the same layers.
async fn instance_of(variables: &[(&str, &str)], routes: Router<App>) -> Test {
    let mut test = instance(variables).await;
    test.router = super::layers(&test.app, routes);
    test
}

/// A request with these headers.
async fn send(test: &Test, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = request(method.parse().unwrap(), "", path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    test.send(request.body(Body::empty()).unwrap()).await
}

/// The same, from an address.
async fn send_from(test: &Test, peer: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = request(Method::GET, "", path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut request = request.body(Body::empty()).unwrap();
    let peer = SocketAddr::new(peer.parse().unwrap(), 40_000);
    request.extensions_mut().insert(ConnectInfo(peer));
    test.send(request).await
}

/// What an instance of production cannot do without.
const PRODUCTION: [(&str, &str); 6] = [
    ("APP_ENV", "production"),
    ("PUBLIC_URL", "https://api.example.com"),
    ("JWT_SECRET", "3f9c0a7be1d24f5688a1c07d5e2b9f64"),
    ("OPENAI_API_KEY", "sk-of-the-tests"),
    ("AUTH_AUTOCONFIRM", "true"),
    ("MAIL_FROM", "hello@example.com"),
];

/// Every line of a header.
fn lines(answer: &Answer, name: &str) -> String {
    let lines = answer.headers.get_all(name).iter();
    lines
        .map(|line| line.to_str().unwrap())
        .collect::<Vec<_>>()
        .join(", ")
}

mod errors {
    use super::*;

    #[tokio::test]
    async fn an_unknown_path_and_a_wrong_method_are_said_in_each_dialect() {
        let test = instance(&[]).await;

        for path in [
            "/nowhere",
            "/api/nowhere",
            "/auth/v1/nowhere",
            "/v1/nowhere",
        ] {
            let answer = test.get("", path).await;
            assert_eq!(answer.refusal(), (404, "not_found".into()), "{path}");
            speaks(&answer, path);
        }
        for (path, allow) in [
            ("/api/chat", "POST"),
            ("/auth/v1/signup", "POST"),
            ("/v1/chat/completions", "POST"),
            ("/api/usage", "GET,HEAD"),
        ] {
            let answer = test.call(Method::DELETE, "", path, json!({})).await;
            assert_eq!(
                answer.refusal(),
                (405, "method_not_allowed".into()),
                "{path}"
            );
            assert_eq!(answer.header("allow"), allow, "{path}");
            speaks(&answer, path);
        }
    }

    #[tokio::test]
    async fn malformed_json_is_refused_with_its_line_and_column() {
        let test = instance(&[]).await;
        let ann = test.sign_up("ann@example.com").await;

        for (path, code) in [
            ("/api/chat", "malformed_json"),
            ("/v1/chat/completions", "malformed_json"),
            ("/auth/v1/signup", "bad_json"),
        ] {
            let request = request(Method::POST, &ann.token, path)
                .header(header::CONTENT_TYPE, "application/json");
            let answer = test
                .send(request.body(Body::from("{\n  \"message\": oh\n}")).unwrap())
                .await;
            assert_eq!(answer.refusal(), (400, code.into()), "{path}");
            assert!(
                answer.text().contains("line 2 column 14"),
                "{}",
                answer.text()
            );
            speaks(&answer, path);
        }
    }

    #[tokio::test]
    async fn a_member_of_the_wrong_type_is_named() {
        let test = instance(&[]).await;
        let ann = test.sign_up("ann@example.com").await;

        let answer = test
            .post(&ann.token, "/api/chat", json!({"message": "Hello", "conversationHistory": [{"role": "system", "content": ""}]}))
            .await;

        assert_eq!(answer.status, 400);
        let body = answer.json();
        assert_eq!(body["errors"][0]["field"], "conversationHistory[0].role");
        assert!(
            body["message"]
                .as_str()
                .unwrap()
                .contains("conversationHistory[0].role unknown variant `system`"),
            "{body}"
        );
    }

    #[tokio::test]
    async fn a_body_over_the_limit_of_its_route_is_refused_and_the_rest_not_read() {
        let test = instance(&[]).await;
        let ann = test.sign_up("ann@example.com").await;

        for (path, bytes) in [
            ("/auth/v1/signup", 16 * 1024),
            ("/api/chat", 256 * 1024),
            ("/v1/chat/completions", crate::chat::MAX_BODY),
            ("/webhooks/stripe", 1024 * 1024),
        ] {
            let post = async |length: usize| {
                let request = request(Method::POST, &ann.token, path)
                    .header(header::CONTENT_TYPE, "application/json");
                test.send(request.body(Body::from(vec![b' '; length])).unwrap())
                    .await
            };
            assert_eq!(post(bytes).await.status, 400, "{path}");
            let answer = post(bytes + 1).await;
            assert_eq!(answer.refusal(), (413, "body_too_large".into()), "{path}");
            assert_eq!(answer.header("connection"), "close");
            speaks(&answer, path);
        }
    }

    #[tokio::test]
    async fn a_panic_is_a_500_without_its_reason_and_the_process_lives() {
        let routes = Router::new()
            .route(
                "/v1/panic",
                get(async || -> &'static str { panic!("the database password is hunter2") }),
            )
            .route(
                "/v1/fails",
                get(async || Err::<(), _>(Error::from(anyhow::anyhow!("hunter2")))),
            );
        let test = instance_of(&[("ALLOWED_ORIGINS", OURS)], routes).await;

        for path in ["/v1/panic", "/v1/fails", "/v1/panic"] {
            let answer = send(&test, "GET", path, &[("origin", OURS)]).await;
            assert_eq!(answer.refusal(), (500, "internal".into()));
            assert!(!answer.text().contains("hunter2"), "{}", answer.text());
            assert_eq!(answer.header("access-control-allow-origin"), OURS);
            speaks(&answer, path);
        }
    }

    #[tokio::test]
    async fn what_takes_too_long_is_ended_but_a_stream_that_has_begun_is_not() {
        let slow = async || tokio::time::sleep(Duration::from_secs(30)).await;
        let stream = async || {
            let words = futures_util::stream::unfold(0, async |n| {
                tokio::time::sleep(Duration::from_millis(500)).await;
                (n < 3).then_some((Ok::<_, std::io::Error>("word "), n + 1))
            });
            Body::from_stream(words)
        };
        let routes = Router::new()
            .route("/slow", get(slow))
            .route("/stream", get(stream));
        let test = instance_of(&[("REQUEST_TIMEOUT", "1")], routes).await;

        let (slow, stream) = tokio::join!(test.get("", "/slow"), test.get("", "/stream"));

        assert_eq!(slow.refusal(), (408, "request_timeout".into()));
        assert_eq!(stream.text(), "word word word ");
    }
}

mod every_response {
    use super::*;

    #[tokio::test]
    async fn has_an_id_and_the_security_headers() {
        let test = instance(&[("ALLOWED_ORIGINS", OURS)]).await;

        for (method, path) in [
            ("GET", "/health"),
            ("GET", "/nowhere"),
            ("DELETE", "/health"),
            ("GET", "/api/usage"),
            ("GET", "/docs"),
            ("GET", "/openapi.json"),
            ("POST", "/auth/v1/token"),
            ("OPTIONS", "/api/chat"),
        ] {
            let answer = send(&test, method, path, &[("origin", OURS)]).await;
            assert!(
                uuid::Uuid::try_parse(answer.header("x-request-id")).is_ok(),
                "{path}"
            );
            assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
            assert_eq!(answer.header("x-frame-options"), "DENY", "{path}");
            assert_eq!(answer.header("referrer-policy"), "no-referrer", "{path}");
            assert!(
                answer
                    .header("content-security-policy")
                    .contains("frame-ancestors 'none'"),
                "{path}"
            );
            assert!(!answer.header("cache-control").is_empty(), "{path}");
            assert_eq!(answer.header("server"), "");
            assert_eq!(
                answer.header("x-supabase-api-version"),
                if path.starts_with("/auth/v1") {
                    "2024-01-01"
                } else {
                    ""
                }
            );
        }
    }

    #[tokio::test]
    async fn takes_over_an_id_that_is_well_formed_and_no_other() {
        let test = instance(&[]).await;
        let id_for = async |given: &str| {
            send(&test, "GET", "/health/live", &[("x-request-id", given)])
                .await
                .header("x-request-id")
                .to_owned()
        };

        for good in [
            "0190a8c0-0000-7000-8000-000000000000",
            "Root_1-67891233.abc",
            "12345678",
        ] {
            assert_eq!(id_for(good).await, good);
        }
        for bad in [
            "",
            "short",
            "has space in it",
            "semi;colon-12345",
            "quote\"12345678",
            &"x".repeat(65),
            "{\"a\":\"12345678\"}",
        ] {
            assert!(uuid::Uuid::try_parse(&id_for(bad).await).is_ok(), "{bad}");
        }
    }

    #[tokio::test]
    async fn says_hsts_in_production_and_where_it_is_switched_on() {
        let said = async |variables: &[(&str, &str)]| {
            instance(variables)
                .await
                .get("", "/health/live")
                .await
                .header("strict-transport-security")
                .to_owned()
        };
        assert_eq!(said(&[]).await, "");
        assert_eq!(
            said(&[("ENABLE_HSTS", "1")]).await,
            "max-age=31536000; includeSubDomains"
        );
        assert_eq!(
            said(&PRODUCTION).await,
            "max-age=31536000; includeSubDomains"
        );
    }
}

mod cors {
    use super::*;

    /// Invariant 59.
    #[tokio::test]
    async fn admits_the_listed_origins_with_credentials_and_nobody_else() {
        let origins = (
            "ALLOWED_ORIGINS",
            "https://app.example.com, https://www.example.com/",
        );
        let test = instance(&[&PRODUCTION[..], &[origins]].concat()).await;
        let admits = async |origin: &str| {
            let answer = send(&test, "GET", "/health", &[("origin", origin)]).await;
            assert!(
                lines(&answer, "vary").contains("origin"),
                "{:?}",
                answer.headers
            );
            let admitted = answer.header("access-control-allow-origin").to_owned();
            assert!(admitted.is_empty() || admitted == origin);
            !admitted.is_empty() && answer.header("access-control-allow-credentials") == "true"
        };

        for ours in ["https://app.example.com", "https://www.example.com"] {
            assert!(admits(ours).await, "{ours}");
        }
        for other in [
            "null",
            "*",
            "https://app.example.com.evil.example",
            "https://evilapp.example.com",
            "https://app.example.com:8443",
            "http://app.example.com",
            "https://APP.example.com",
            "https://example.com",
            "https://app.example.com/",
            "https://app.example.com@evil.example",
            "http://localhost:5173",
            "http://127.0.0.1:3000",
        ] {
            assert!(!admits(other).await, "{other}");
        }
    }

    #[tokio::test]
    async fn admits_localhost_in_development() {
        let test = instance(&[]).await;

        for (origin, admitted) in [
            ("http://localhost:5173", true),
            ("http://127.0.0.1:3000", true),
            ("http://[::1]:3000", true),
            ("http://localhost.evil.example", false),
            ("http://evil.example/localhost", false),
            ("http://192.168.1.5:3000", false),
            ("null", false),
        ] {
            let answer = send(&test, "GET", "/health", &[("origin", origin)]).await;
            assert_eq!(
                answer.headers.contains_key("access-control-allow-origin"),
                admitted,
                "{origin}"
            );
        }
    }

    #[tokio::test]
    async fn a_preflight_allows_every_header_that_the_clients_send() {
        let test = instance(&[("ALLOWED_ORIGINS", OURS)]).await;
        let supabase = "authorization,apikey,content-type,x-client-info,x-supabase-api-version,prefer,x-retry-count";
        let openai = "authorization,content-type,accept,user-agent,idempotency-key,openai-organization,openai-project,openai-beta,x-stainless-arch,x-stainless-lang,x-stainless-os,x-stainless-package-version,x-stainless-retry-count,x-stainless-runtime,x-stainless-runtime-version,x-stainless-timeout,x-stainless-helper-method,x-stainless-async,x-stainless-poll-helper,x-stainless-custom-poll-interval";
        let ours = "last-event-id,x-conversation-id,x-request-id,x-session-transport,sentry-trace,baggage,traceparent,tracestate";

        for (headers, method) in [
            (supabase, "PUT"),
            (openai, "POST"),
            (ours, "PATCH"),
            (ours, "DELETE"),
        ] {
            let answer = send(
                &test,
                "OPTIONS",
                "/v1/chat/completions",
                &[
                    ("origin", OURS),
                    ("access-control-request-method", method),
                    ("access-control-request-headers", headers),
                ],
            )
            .await;
            assert_eq!(answer.status, 200);
            assert_eq!(answer.header("access-control-allow-origin"), OURS);
            assert!(
                answer
                    .header("access-control-allow-methods")
                    .contains(method)
            );
            let allowed: Vec<_> = answer
                .header("access-control-allow-headers")
                .split(',')
                .map(str::trim)
                .collect();
            for header in headers.split(',') {
                assert!(allowed.contains(&header), "{header}");
            }
        }
    }

    #[tokio::test]
    async fn refusals_can_be_read_by_the_page_that_caused_them() {
        let test = instance(&[("ALLOWED_ORIGINS", OURS), ("RATE_LIMITS", "api=2/15m")]).await;

        for (method, path, status) in [
            ("GET", "/nowhere", 404),
            ("DELETE", "/health", 405),
            ("GET", "/auth/v1/user", 401),
            ("POST", "/auth/v1/signup", 415),
            ("GET", "/api/usage", 401),
            ("GET", "/api/usage", 401),
            ("GET", "/api/usage", 429),
        ] {
            let answer = send(&test, method, path, &[("origin", OURS)]).await;
            assert_eq!(answer.status, status, "{path}");
            assert_eq!(answer.header("access-control-allow-origin"), OURS, "{path}");
            for header in ["x-request-id", "retry-after", "ratelimit"] {
                assert!(
                    answer
                        .header("access-control-expose-headers")
                        .contains(header),
                    "{path}"
                );
            }
            assert!(lines(&answer, "vary").contains("origin"), "{path}");
        }
    }
}

mod compression {
    use super::*;

    #[tokio::test]
    async fn big_documents_are_compressed() {
        let test = instance(&[]).await;
        let plain = send(&test, "GET", "/openapi.json", &[]).await;

        for encoding in ["gzip", "br"] {
            let answer = send(
                &test,
                "GET",
                "/openapi.json",
                &[("accept-encoding", encoding)],
            )
            .await;
            assert_eq!(answer.header("content-encoding"), encoding);
            assert!(lines(&answer, "vary").contains("accept-encoding"));
            assert!(answer.bytes.len() * 3 < plain.bytes.len());
        }
        assert_eq!(plain.header("content-encoding"), "");
    }

    #[tokio::test]
    async fn neither_tokens_nor_streams_are() {
        let test = instance(&[]).await;
        let ann = test.sign_up("ann@example.com").await;
        let encoding = async |path: &str, body: Value| {
            let request = request(Method::POST, &ann.token, path)
                .header(header::CONTENT_TYPE, "application/json")
                .header(header::ACCEPT_ENCODING, "gzip, br");
            let answer = test
                .send(request.body(Body::from(body.to_string())).unwrap())
                .await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            answer.header("content-encoding").to_owned()
        };

        assert_eq!(
            encoding(
                "/auth/v1/token?grant_type=password",
                json!({"email": ann.email, "password": crate::testing::PASSWORD})
            )
            .await,
            ""
        );
        assert_eq!(
            encoding(
                "/api/chat",
                json!({"message": "Tell me a long story.", "stream": true})
            )
            .await,
            ""
        );
        assert_eq!(encoding("/v1/chat/completions", json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Tell me a long story."}], "stream": true})).await, "");
        assert_eq!(
            encoding("/api/chat", json!({"message": "Tell me a long story."})).await,
            "br"
        );
    }
}

mod docs {
    use super::*;

    #[tokio::test]
    async fn the_page_finds_all_it_needs_here_under_a_policy_that_allows_nothing_else() {
        let test = instance(&[]).await;

        for path in ["/docs", "/docs/"] {
            let page = test.get("", path).await;
            assert_eq!(page.header("content-type"), "text/html");
            assert!(
                page.header("content-security-policy")
                    .contains("script-src 'self'; ")
            );
            let links: Vec<_> = page
                .text()
                .split(['"', '\''])
                .filter(|word| word.starts_with(['/', '.']) || word.contains("://"))
                .map(ToOwned::to_owned)
                .collect();
            assert!(links.len() >= 6, "{links:?}");
            for link in links {
                assert_eq!(test.get("", &link).await.status, 200, "{link}");
            }
        }
        let started_by = test.get("", "/docs/swagger-initializer.js").await.text();
        assert!(
            started_by.contains("/openapi.json") && !started_by.contains("://"),
            "{started_by}"
        );
        assert!(
            started_by.contains("\"validatorUrl\": \"none\""),
            "{started_by}"
        );
        assert_eq!(test.get("", "/docs/nowhere.js").await.status, 404);
    }
}

mod client_address {
    use super::*;

    #[tokio::test]
    async fn is_the_peers_whatever_it_says_of_itself() {
        let test = instance(&[("RATE_LIMITS", "api=2/15m")]).await;
        let headers = [
            "x-forwarded-for",
            "x-real-ip",
            "fly-client-ip",
            "cf-connecting-ip",
            "true-client-ip",
            "forwarded",
        ];

        for n in 0..headers.len() as u16 {
            let spoofed = [(headers[usize::from(n)], format!("198.51.100.{n}"))];
            let spoofed = spoofed
                .each_ref()
                .map(|(name, value)| (*name, value.as_str()));
            let answer = send_from(&test, "203.0.113.7", "/api/usage", &spoofed).await;
            assert_eq!(answer.status, if n < 2 { 401 } else { 429 });
        }
        assert_eq!(
            send_from(&test, "203.0.113.8", "/api/usage", &[])
                .await
                .status,
            401
        );
    }

    #[tokio::test]
    async fn is_what_the_trusted_proxy_says() {
        for (proxy, header) in [
            ("fly", "fly-client-ip"),
            ("railway", "x-real-ip"),
            ("cloudflare", "cf-connecting-ip"),
            ("1", "x-forwarded-for"),
            ("10.0.0.0/8", "x-forwarded-for"),
        ] {
            let test = instance(&[("RATE_LIMITS", "api=1/15m"), ("TRUSTED_PROXY", proxy)]).await;
            let status = async |client: &str| {
                send_from(&test, "10.0.0.1", "/api/usage", &[(header, client)])
                    .await
                    .status
                    .as_u16()
            };

            assert_eq!(status("198.51.100.1").await, 401, "{proxy}");
            assert_eq!(status("198.51.100.1").await, 429, "{proxy}");
            assert_eq!(status("198.51.100.2").await, 401, "{proxy}");
        }
    }

    #[tokio::test]
    async fn is_not_taken_from_ten_thousand_hops() {
        let test = instance(&[("RATE_LIMITS", "api=1/15m"), ("TRUSTED_PROXY", "2")]).await;
        let hops = |client: &str| format!("{}{client}, 10.0.0.1", "6.6.6.6, ".repeat(10_000));

        let first = send_from(
            &test,
            "10.0.0.1",
            "/api/usage",
            &[("x-forwarded-for", &hops("198.51.100.1"))],
        )
        .await;
        let second = send_from(
            &test,
            "10.0.0.1",
            "/api/usage",
            &[("x-forwarded-for", &hops("198.51.100.1"))],
        )
        .await;

        assert_eq!((first.status.as_u16(), second.status.as_u16()), (401, 429));
    }
}

mod over_a_socket {
    use super::*;

    async fn listening(test: &Test) -> SocketAddr {
        let listening = Listening::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listening.address;
        tokio::spawn(serve::serve(
            test.app.clone(),
            listening,
            test.router.clone(),
        ));
        address
    }

    #[tokio::test]
    async fn who_asks_while_the_database_is_waited_for_hears_so() {
        let listening = Listening::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listening.address;
        let ask = async |path: &str| {
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            raw(address, request.as_bytes()).await
        };
        let asking = async {
            assert_eq!(status(&ask("/health/live").await), "200");
            let ready = ask("/health/ready").await;
            assert!(
                status(&ready) == "503" && ready.ends_with(r#"{"ready":false}"#),
                "{ready}"
            );
            let health = ask("/health").await;
            assert!(
                health.ends_with(
                    r#"{"status":"unhealthy","version":"1.2.3","database":"disconnected"}"#
                ),
                "{health}"
            );
            let other = ask("/v1/models").await;
            assert_eq!(status(&other), "503");
            assert!(
                other.contains("database_unavailable") && other.contains("retry-after: 1"),
                "{other}"
            );
            "open"
        };

        let routes = crate::health::starting("1.2.3".into());
        assert_eq!(serve::meanwhile(&listening, routes, asking).await, "open");
    }

    /// What comes back for these bytes, until the server hangs up or has been quiet.
    async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let _ = stream.write_all(bytes).await;
        let mut answer = vec![];
        let _ =
            tokio::time::timeout(Duration::from_millis(500), stream.read_to_end(&mut answer)).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn status(answer: &str) -> &str {
        answer.split(' ').nth(1).unwrap_or("closed")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn heads_that_are_too_large_are_refused() {
        let address = listening(&instance(&[]).await).await;
        let with = |headers: String| {
            format!("GET /health/live HTTP/1.1\r\nHost: x\r\n{headers}Connection: close\r\n\r\n")
        };

        assert_eq!(
            status(&raw(address, with("X-A: b\r\n".repeat(50)).as_bytes()).await),
            "200"
        );
        assert_eq!(
            status(&raw(address, with("X-A: b\r\n".repeat(200)).as_bytes()).await),
            "431"
        );
        assert_eq!(
            status(
                &raw(
                    address,
                    with(format!("Cookie: a={}\r\n", "x".repeat(80_000))).as_bytes()
                )
                .await
            ),
            "431"
        );
        let path = format!(
            "GET /{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            "x".repeat(8_000)
        );
        assert_eq!(status(&raw(address, path.as_bytes()).await), "404");
        let path = format!(
            "GET /{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            "x".repeat(80_000)
        );
        assert!(matches!(
            status(&raw(address, path.as_bytes()).await),
            "414" | "431"
        ));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn two_readings_of_where_a_request_ends_are_refused() {
        let address = listening(&instance(&[]).await).await;
        let smuggled = "GET /health/ready HTTP/1.1\r\nHost: x\r\n\r\n";

        for head in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: 5, 6\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: -1\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "X-Folded: a\r\n b\r\nContent-Length: 5\r\nContent-Length: 0\r\n",
            "Transfer-Encoding : chunked\r\n",
            "Transfer-Encoding: \x0bchunked\r\n",
        ] {
            let request = format!(
                "POST /auth/v1/signup HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{head}\r\n0\r\n\r\n{smuggled}"
            );
            let answer = raw(address, request.as_bytes()).await;
            assert_eq!(status(&answer), "400", "{head:?}: {answer}");
            assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{head:?}: {answer}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn bytes_that_are_no_text_name_nothing() {
        let address = listening(&instance(&[]).await).await;

        for target in [
            &b"/\xff\xfe"[..],
            b"/api/conversations/\xc0\xaf",
            b"/health?\xff=\xfe",
            b"/api/conversations/%ff%fe",
            b"/%00",
            b"/docs/..%2f..%2fetc%2fpasswd",
            b"/docs/%2e%2e/%2e%2e/etc/passwd",
            b"//",
            b"/./health/../etc",
            b"http://evil.example/nowhere",
            b"*",
        ] {
            let mut request = b"GET ".to_vec();
            request.extend(target);
            request.extend(b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            let answer = raw(address, &request).await;
            let named_nothing = matches!(status(&answer), "400" | "401" | "404");
            assert!(
                named_nothing || (status(&answer) == "200" && target.starts_with(b"/health")),
                "{:?}: {answer}",
                String::from_utf8_lossy(target)
            );
        }
        let header = raw(address, b"GET /health/live HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xfe\r\nX-Request-Id: \xff\xfe\xff\xfe\xff\xfe\xff\xfe\r\nConnection: close\r\n\r\n").await;
        assert_eq!(status(&header), "200");
        for nonsense in [
            &b"\0\0\0\0\r\n\r\n"[..],
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"GET\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        ] {
            let answer = raw(address, nonsense).await;
            assert!(
                matches!(status(&answer), "400" | "404" | "405" | "505" | "closed"),
                "{answer}"
            );
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn http_2_is_spoken_to_who_begins_with_it() {
        let address = listening(&instance(&[]).await).await;
        let client = reqwest::Client::builder()
            .http2_prior_knowledge()
            .build()
            .unwrap();
        let get = async |cookie: String| {
            client
                .get(format!("http://{address}/health/live"))
                .header("cookie", cookie)
                .send()
                .await
        };

        let answer = get("a=b".into()).await.unwrap();

        assert_eq!(
            (answer.version(), answer.status()),
            (http::Version::HTTP_2, http::StatusCode::OK)
        );
        assert!(
            get("x".repeat(80_000))
                .await
                .map_or(true, |answer| answer.status() == 431)
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_head_is_answered_without_a_body() {
        let address = listening(&instance(&[]).await).await;

        for (path, expected) in [
            ("/health/live", "200"),
            ("/nowhere", "404"),
            ("/api/usage", "401"),
            ("/docs", "200"),
        ] {
            let answer = raw(
                address,
                format!("HEAD {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes(),
            )
            .await;
            assert_eq!(status(&answer), expected, "{path}");
            assert!(answer.ends_with("\r\n\r\n"), "{path}: {answer}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_body_that_does_not_come_is_waited_for_no_longer_than_a_request_may_take() {
        let address = listening(&instance(&[("REQUEST_TIMEOUT", "1")]).await).await;
        let mut stream = TcpStream::connect(address).await.unwrap();

        stream.write_all(b"POST /auth/v1/signup HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"email\":").await.unwrap();

        let mut answer = String::new();
        let ended =
            tokio::time::timeout(Duration::from_secs(5), stream.read_to_string(&mut answer)).await;
        assert!(ended.is_ok(), "the connection is still open: {answer}");
        assert_eq!(status(&answer), "408");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_a_body_that_is_too_large_no_more_than_the_limit_is_read() {
        let address = listening(&instance(&[]).await).await;
        let head = "POST /auth/v1/signup HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";

        let long = format!(
            "{head}Content-Length: 10000000000\r\n\r\n{}",
            " ".repeat(20_000)
        );
        let chunked = format!(
            "{head}Transfer-Encoding: chunked\r\n\r\nfffff\r\n{}",
            " ".repeat(20_000)
        );

        for request in [long, chunked] {
            let answer = raw(address, request.as_bytes()).await;
            assert_eq!(status(&answer), "413", "{answer}");
            assert!(answer.contains("connection: close"), "{answer}");
        }
    }

    /// Serves with little patience.
    async fn impatient(test: &Test) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = test.router.clone();
        tokio::spawn(async move {
            let graceful = GracefulShutdown::new();
            while let Ok((stream, peer)) = listener.accept().await {
                tokio::spawn(serve::converse(
                    serve::protocol(),
                    stream,
                    peer,
                    router.clone(),
                    graceful.watcher(),
                    Duration::from_millis(200),
                ));
            }
        });
        address
    }

    /// Invariant 32 of the chat.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_written_leaves_at_once() {
        let router = instance(&[]).await.router;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (accepted, peer) = listener.accept().await.unwrap();
        let accepted = accepted.into_std().unwrap();
        let seen = accepted.try_clone().unwrap();
        let stream = TcpStream::from_std(accepted).unwrap();
        let graceful = GracefulShutdown::new();
        tokio::spawn(serve::converse(
            serve::protocol(),
            stream,
            peer,
            router,
            graceful.watcher(),
            Duration::from_secs(10),
        ));

        let ask = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n";
        client.write_all(ask).await.unwrap();
        client.read_u8().await.unwrap();

        assert!(TcpStream::from_std(seen).unwrap().nodelay().unwrap());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_connects_and_asks_for_nothing_is_hung_up_on() {
        let address = impatient(&instance(&[]).await).await;

        for begin in [
            &b""[..],
            b"P",
            b"PRI * HTTP/2.0\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\n",
        ] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(begin).await.unwrap();
            let mut answer = vec![];
            let ended =
                tokio::time::timeout(Duration::from_secs(2), stream.read_to_end(&mut answer)).await;
            assert!(
                ended.is_ok(),
                "{:?} holds a connection",
                String::from_utf8_lossy(begin)
            );
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_has_asked_may_rest_before_asking_again() {
        let address = impatient(&instance(&[]).await).await;
        let mut stream = TcpStream::connect(address).await.unwrap();

        for _ in 0..2 {
            stream
                .write_all(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
                .await
                .unwrap();
            let mut answer = [0; 2048];
            let read = stream.read(&mut answer).await.unwrap();
            assert_eq!(status(&String::from_utf8_lossy(&answer[..read])), "200");
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn connections_beyond_the_most_wait_for_one_to_end() {
        let address = listening(&instance(&[("MAX_CONNECTIONS", "1")]).await).await;
        let live = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let first = TcpStream::connect(address).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;

        let while_held = raw(address, live).await;
        drop(first);
        let after = raw(address, live).await;

        assert_eq!((status(&while_held), status(&after)), ("closed", "200"));
    }
}
