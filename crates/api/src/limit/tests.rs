use super::{Action, Decision, Overrides, RULES};
use crate::{
    app::Clock,
    testing::{Answer, Engine, START, Test, request},
};
use axum::{body::Body, extract::ConnectInfo};
use http::Method;
use serde_json::json;
use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

async fn instance(variables: &[(&str, &str)]) -> Test {
    Test::with(Engine::Sqlite, variables).await
}

async fn get_from(test: &Test, peer: &str, path: &str) -> Answer {
    let mut request = request(Method::GET, "", path).body(Body::empty()).unwrap();
    let peer: IpAddr = peer.parse().unwrap();
    request
        .extensions_mut()
        .insert(ConnectInfo(SocketAddr::new(peer, 40_000)));
    test.send(request).await
}

/// The seconds behind `t=`.
fn seconds_left(answer: &Answer) -> u64 {
    answer
        .header("ratelimit")
        .rsplit("t=")
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

#[test]
fn the_table_is_what_the_contract_says() {
    let rows: Vec<_> = RULES
        .iter()
        .map(|rule| format!("{} {}/{}", rule.name, rule.requests, rule.period.as_secs()))
        .collect();

    assert_eq!(
        rows,
        [
            "api 100/900",
            "sign_in 10/60",
            "sign_in_account 5/900",
            "sign_in_pair 5/60",
            "id_token 30/60",
            "oauth 60/60",
            "sign_up 10/3600",
            "mail 3/3600",
            "mail_spacing 1/60",
            "mail_sender 5/3600",
            "refresh 150/300",
            "verify 30/300",
            "second_factor 15/60",
            "passkey 30/60",
            "webhook_refused 60/60",
            "chat 60/60",
            "export 3/3600",
            "billing_sync 6/60",
            "audited_refusal 1/60"
        ]
    );
}

/// Invariant 66.
#[tokio::test]
async fn a_hundred_requests_pass_and_the_next_is_told_when_to_come_back() {
    let test = instance(&[("RATE_LIMITS", "")]).await;

    for n in 0..100 {
        let answer = get_from(&test, "203.0.113.7", "/api/billing/plans").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("ratelimit-policy"), "\"api\";q=100;w=900");
        assert_eq!(
            answer.header("ratelimit"),
            format!("\"api\";r={};t=9", 99 - n)
        );
    }
    let refused = get_from(&test, "203.0.113.7", "/api/billing/plans").await;

    assert_eq!(refused.refusal(), (429, "rate_limited".into()));
    let retry_after: u64 = refused.header("retry-after").parse().unwrap();
    assert!(
        (1..=900).contains(&retry_after) && retry_after >= seconds_left(&refused),
        "{:?}",
        refused.headers
    );
    assert_eq!(refused.header("ratelimit-policy"), "\"api\";q=100;w=900");
    assert!(
        refused.text().contains("Too many requests from this IP"),
        "{}",
        refused.text()
    );
    assert_eq!(
        get_from(&test, "203.0.113.8", "/api/billing/plans")
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn who_waits_as_long_as_told_is_answered_and_in_the_end_has_it_all_again() {
    let test = instance(&[("RATE_LIMITS", "api=10/100")]).await;
    let ask = async || get_from(&test, "203.0.113.7", "/api/billing/plans").await;
    for _ in 0..10 {
        ask().await;
    }

    let retry_after: u64 = ask().await.header("retry-after").parse().unwrap();
    test.later(Duration::from_secs(retry_after - 1));
    assert_eq!(ask().await.status, 429);
    test.later(Duration::from_secs(1));
    assert_eq!(ask().await.status, 200);
    assert_eq!(ask().await.status, 429);

    test.later(Duration::from_secs(100));
    for _ in 0..10 {
        assert_eq!(ask().await.status, 200);
    }
    assert_eq!(ask().await.status, 429);
}

#[tokio::test]
async fn each_kind_of_request_has_its_own_count() {
    let test = instance(&[(
        "RATE_LIMITS",
        "sign_in=2/60,sign_up=1/60,refresh=3/60,verify=4/60,api=5/60,id_token=6/60",
    )])
    .await;
    let passed = async |method: Method, path: &str| {
        for n in 0..20 {
            let answer = test.call(method.clone(), "", path, json!({})).await;
            if answer.status == 429 {
                return n;
            }
        }
        20
    };

    assert_eq!(
        passed(Method::POST, "/auth/v1/token?grant_type=password").await,
        2
    );
    assert_eq!(passed(Method::POST, "/auth/v1/signup").await, 1);
    assert_eq!(
        passed(Method::POST, "/auth/v1/token?grant_type=refresh_token").await,
        3
    );
    assert_eq!(passed(Method::POST, "/auth/v1/verify").await, 4);
    assert_eq!(
        passed(Method::POST, "/auth/v1/token?grant_type=id_token").await,
        6
    );
    for spent in ["/auth/google", "/auth/oauth/apple"] {
        assert_eq!(passed(Method::POST, spent).await, 0, "{spent}: the same");
    }
    assert_eq!(passed(Method::GET, "/api/usage").await, 5);
    for unlimited in [
        "/health",
        "/health/ready",
        "/health/live",
        "/api/health",
        "/auth/v1/settings",
        "/.well-known/jwks.json",
        "/v1/models",
    ] {
        assert_eq!(passed(Method::GET, unlimited).await, 20, "{unlimited}");
    }
}

#[tokio::test]
async fn the_word_refresh_token_in_a_password_sign_in_buys_nothing() {
    let test = instance(&[("RATE_LIMITS", "sign_in=1/60,refresh=10/60")]).await;
    let status = async |query: &str| {
        let body = json!({"email": "ann@example.com", "password": "a wrong one"});
        test.post("", &format!("/auth/v1/token?{query}"), body)
            .await
            .status
            .as_u16()
    };
    assert_eq!(status("grant_type=password").await, 400);

    for query in [
        "grant_type=password",
        "grant_type=password&x=grant_type=refresh_token",
        "x=grant_type=refresh_token&grant_type=password",
        "grant_type=password&grant_type=refresh_token",
        "grant%5Ftype=password&xgrant_type=refresh_token",
    ] {
        assert_eq!(status(query).await, 429, "{query}");
    }
}

/// Invariant 65.
#[tokio::test]
async fn an_ipv6_network_is_one_client_and_a_mapped_address_is_its_ipv4() {
    let test = instance(&[("RATE_LIMITS", "api=1/60")]).await;
    let status = async |peer: &str| {
        get_from(&test, peer, "/api/billing/plans")
            .await
            .status
            .as_u16()
    };

    assert_eq!(status("2001:db8:1:2::1").await, 200);
    assert_eq!(status("2001:db8:1:2:ffff::9").await, 429);
    assert_eq!(status("2001:db8:1:3::1").await, 200);
    assert_eq!(status("203.0.113.7").await, 200);
    assert_eq!(status("::ffff:203.0.113.7").await, 429);
}

#[tokio::test]
async fn off_is_off_and_says_nothing() {
    let test = instance(&[("RATE_LIMITS", "off")]).await;

    for _ in 0..150 {
        let answer = get_from(&test, "203.0.113.7", "/api/billing/plans").await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("ratelimit")),
            (200, "")
        );
    }
}

#[test]
fn overrides_are_read_or_refused_with_the_names_there_are() {
    let read = |text: &str| text.parse::<Overrides>();

    assert!(read("").is_ok() && read(" off ").is_ok());
    assert!(read("api=1000/15m, sign_in=20/1m,").is_ok());
    for wrong in [
        "api",
        "api=100",
        "api=0/60",
        "api=-1/60",
        "api=100/0",
        "api=100/soon",
        "apis=100/60",
        "api=99999999999/60",
        "on",
    ] {
        let said = read(wrong).unwrap_err();
        assert!(
            said.contains("sign_in_account") && said.contains(wrong),
            "{said}"
        );
    }
}

#[tokio::test]
async fn keys_that_are_as_good_as_new_are_forgotten() {
    let test = instance(&[("RATE_LIMITS", "api=2/60")]).await;
    for n in 0..=255 {
        get_from(&test, &format!("203.0.113.{n}"), "/api/billing/plans").await;
    }
    test.app.limits.shed();
    assert_eq!(test.app.limits.memory.keys(), 256);

    test.later(Duration::from_secs(60));
    test.app.limits.shed();

    assert_eq!(test.app.limits.memory.keys(), 0);
}

mod with_redis {
    use super::super::{Limits, redis::PATIENCE};
    use super::*;
    use std::sync::Arc;
    use tokio::{
        io::copy_bidirectional,
        net::{TcpListener, TcpStream},
        task::JoinSet,
    };

    /// The server of the tests; `None`, and a word, without one.
    fn server() -> Option<String> {
        const VARIABLE: &str = "TEST_REDIS_URL";
        let url = db::testing::variable(VARIABLE);
        assert!(
            url.is_some() || db::testing::variable(db::testing::REQUIRED).is_none(),
            "{VARIABLE} is not set"
        );
        if url.is_none() {
            eprintln!("skipped with Redis: {VARIABLE} is not set");
        }
        url
    }

    /// The limits of one instance. The period makes the keys this test's own.
    async fn limits(redis_url: &str, rate: &str) -> Arc<Limits> {
        let env = [("REDIS_URL", redis_url), ("RATE_LIMITS", rate)]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let config = crate::Config::from_env(&env.into()).unwrap().config;
        Arc::new(
            Limits::new(&config, Clock::stopped_at(START))
                .await
                .unwrap(),
        )
    }

    async fn decide(limits: &Limits, key: &str) -> Decision {
        limits.decide(limits.rule(Action::Api).unwrap(), key).await
    }

    async fn passed(limits: &[Arc<Limits>], key: &str, tries: usize) -> usize {
        let mut tasks = JoinSet::new();
        for n in 0..tries {
            let (limits, key) = (limits[n % limits.len()].clone(), key.to_owned());
            tasks.spawn(async move { decide(&limits, &key).await.allowed });
        }
        tasks
            .join_all()
            .await
            .into_iter()
            .filter(|allowed| *allowed)
            .count()
    }

    fn key() -> String {
        uuid::Uuid::new_v4().to_string()
    }

    /// Invariant 65.
    #[tokio::test(flavor = "multi_thread")]
    async fn instances_share_one_budget_of_which_exactly_so_many_pass() {
        let Some(url) = server() else { return };
        let instances = [
            limits(&url, "api=50/1d").await,
            limits(&url, "api=50/1d").await,
            limits(&url, "api=50/1d").await,
        ];
        let key = key();
        // Their first word to Redis, before they are all asked at once.
        for limits in &instances {
            decide(limits, &super::with_redis::key()).await;
        }

        assert_eq!(passed(&instances, &key, 120).await, 50);
        let refused = decide(&instances[0], &key).await;

        assert!(
            !refused.allowed
                && refused.retry_after > Duration::from_secs(1_700)
                && refused.retry_after <= Duration::from_secs(1_728),
            "{refused:?}"
        );
        assert!(instances[0].redis_answers().await.unwrap());
    }

    /// Invariant 65.
    #[tokio::test(flavor = "multi_thread")]
    async fn instances_share_what_was_guessed_at_an_account() {
        let Some(url) = server() else { return };
        let limits = [
            ("REDIS_URL", url.as_str()),
            ("RATE_LIMITS", "sign_in=1000/60,sign_in_pair=1000/60"),
        ];
        let test = instance(&limits).await;
        let beside = test.beside(&limits).await;
        let email = format!("{}@example.com", uuid::Uuid::new_v4());
        let sign_in = async |test: &Test| {
            let body = json!({"email": email, "password": crate::testing::PASSWORD});
            test.post("", "/auth/v1/token?grant_type=password", body)
                .await
        };
        test.sign_up(&email).await;

        for n in 0..5 {
            let here = if n % 2 == 0 { &test } else { &beside };
            let guess = here.app.limits.check(Action::SignInAccount, &email).await;
            assert!(guess.is_ok(), "{n}");
        }

        for here in [&test, &beside] {
            let refusal = sign_in(here).await;
            assert_eq!(
                (refusal.status.as_u16(), refusal.header("retry-after")),
                (429, "1")
            );
        }
        test.app.limits.forget(Action::SignInAccount, &email).await;
        assert_eq!(sign_in(&beside).await.status, 200);
    }

    #[tokio::test]
    async fn without_redis_a_count_of_guesses_is_forgotten_too() {
        let test = instance(&[("RATE_LIMITS", "sign_in=1000/60")]).await;
        let guess = || {
            test.app
                .limits
                .check(Action::SignInAccount, "ada@example.com")
        };
        for n in 0..5 {
            assert!(guess().await.is_ok(), "{n}");
        }
        assert!(guess().await.is_err());

        test.app
            .limits
            .forget(Action::SignInAccount, "ada@example.com")
            .await;

        assert!(guess().await.is_ok());
    }

    /// Invariant 65.
    #[tokio::test]
    async fn without_redis_guesses_are_counted_all_the_same() {
        let port = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let url = format!("redis://127.0.0.1:{port}");
        let test = instance(&[
            ("REDIS_URL", &url),
            ("RATE_LIMITS", "sign_in=1000/60,sign_in_pair=1000/60"),
        ])
        .await;

        for n in 0..7 {
            let body = json!({"email": "ada@example.com", "password": "a wrong one"});
            let answer = test
                .post("", "/auth/v1/token?grant_type=password", body)
                .await;
            assert_eq!(answer.status, if n < 5 { 400 } else { 429 });
        }
    }

    /// Invariant 65.
    #[tokio::test]
    async fn without_redis_each_instance_counts_for_itself_at_once() {
        // A port that was free a moment ago refuses.
        let port = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let limits = limits(&format!("redis://127.0.0.1:{port}"), "api=3/1d").await;

        let began = Instant::now();
        assert_eq!(passed(std::slice::from_ref(&limits), "k", 10).await, 3);
        assert!(began.elapsed() < 5 * PATIENCE, "{:?}", began.elapsed());
        assert_eq!(limits.redis_answers().await, Some(false));
    }

    #[tokio::test]
    async fn a_redis_that_never_answers_costs_one_request_its_patience_and_the_others_nothing() {
        let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let limits = limits(
            &format!("redis://{}", mute.local_addr().unwrap()),
            "api=3/1d",
        )
        .await;

        let began = Instant::now();
        assert!(decide(&limits, "k").await.allowed);
        let first = began.elapsed();
        assert_eq!(passed(std::slice::from_ref(&limits), "k", 10).await, 2);

        assert!(first < 5 * PATIENCE, "{first:?}");
        assert!(began.elapsed() - first < PATIENCE, "{:?}", began.elapsed());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_redis_that_falls_silent_is_left_and_returned_to() {
        let Some(url) = server() else { return };
        let redis = url
            .trim_start_matches("redis://")
            .split('/')
            .next()
            .unwrap()
            .to_owned();
        // A road to it that can be closed.
        let road = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = road.local_addr().unwrap();
        let open = Arc::new(tokio::sync::watch::Sender::new(true));
        let gate = open.clone();
        tokio::spawn(async move {
            while let Ok((mut here, _)) = road.accept().await {
                let (redis, mut is_open) = (redis.clone(), gate.subscribe());
                tokio::spawn(async move {
                    let _ = is_open.wait_for(|open| *open).await;
                    let mut there = TcpStream::connect(redis).await.unwrap();
                    let closed = async { is_open.wait_for(|open| !*open).await.is_ok() };
                    tokio::select! {
                        _ = copy_bidirectional(&mut here, &mut there) => {}
                        // Nothing passes any more, and nobody is told.
                        _ = closed => {
                            drop(is_open);
                            std::future::pending().await
                        }
                    }
                });
            }
        });
        let limits = limits(&format!("redis://{address}"), "api=5/1d").await;
        let key = key();
        assert_eq!(passed(std::slice::from_ref(&limits), &key, 3).await, 3);

        open.send_replace(false);
        open.closed().await;
        let began = Instant::now();
        assert_eq!(
            passed(std::slice::from_ref(&limits), &key, 10).await,
            5,
            "its own count is a fresh one"
        );
        assert!(began.elapsed() < 5 * PATIENCE, "{:?}", began.elapsed());
        assert_eq!(limits.redis_answers().await, Some(false));

        open.send_replace(true);
        let waited = Instant::now();
        while limits.redis_answers().await == Some(false) {
            assert!(
                waited.elapsed() < Duration::from_secs(10),
                "it never returns"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(
            passed(std::slice::from_ref(&limits), &key, 10).await,
            2,
            "of the shared count two were left"
        );
    }

    #[tokio::test]
    async fn which_count_decided_is_in_the_metrics() {
        let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", mute.local_addr().unwrap());
        let test = instance(&[("REDIS_URL", &url), ("RATE_LIMITS", "api=1/60")]).await;
        crate::telemetry::render(&test.app).await;

        let answers = [
            get_from(&test, "203.0.113.7", "/api/billing/plans").await,
            get_from(&test, "203.0.113.7", "/api/billing/plans").await,
        ];

        assert_eq!(answers.map(|answer| answer.status.as_u16()), [200, 429]);
        let metrics = crate::telemetry::render(&test.app).await;
        for line in [
            r#"rate_limit_decisions_total{action="api",decision="allowed",backend="memory"}"#,
            r#"rate_limit_decisions_total{action="api",decision="limited",backend="memory"}"#,
            "redis_failures_total",
        ] {
            assert!(metrics.contains(line), "{line}\n{metrics}");
        }
        let health = test.get("", "/api/health").await.json();
        assert_eq!(
            (&health["status"], &health["services"]["redis"]),
            (&json!("healthy"), &json!("degraded"))
        );
    }
}
