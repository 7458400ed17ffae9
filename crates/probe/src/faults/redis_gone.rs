//! Redis is away at the start, comes, hangs, forgets everything, goes and comes back (26, 27, 28).
use super::{case::Case, redis::Redis, scene::Scene, traffic::Traffic};
use anyhow::Result;
use serde_json::json;
use std::time::{Duration, Instant};

/// So wide that nobody here is refused, so that every request asks Redis.
const LIMITS: &str = "api=1000000/15m,sign_up=1000/1h,sign_in=100000/1m";
const A_WHILE: Duration = Duration::from_secs(4);
/// The budget for Redis is 50 ms, and the machine is busy.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);

pub async fn run(scene: &Scene<'_>, case: &mut Case) -> Result<()> {
    let Ok(mut redis) = scene.redis() else {
        case.skip("needs redis-server in the PATH");
        return Ok(());
    };
    let server = scene
        .serve(&[("REDIS_URL", &redis.url()), ("RATE_LIMITS", LIMITS)])
        .await?;
    case.check("it starts without Redis", true, "ready");
    let traffic = Traffic::begin(scene, &[&server], false).await?;
    tokio::time::sleep(A_WHILE).await;

    redis.up().await?;
    case.check(
        "it counts in Redis once it is there",
        counts(&redis).await,
        "within 10 s",
    );
    redis.freeze()?;
    tokio::time::sleep(A_WHILE).await;
    redis.thaw()?;
    redis.say("FLUSHALL").await?;
    case.check(
        "it counts anew after FLUSHALL",
        counts(&redis).await,
        "within 10 s",
    );
    let wrong = server
        .post(
            "/auth/v1/token?grant_type=password",
            "",
            &json!({"email": "nobody@example.com", "password": "wrong"}),
        )
        .await;
    case.check(
        "nobody gets in meanwhile",
        wrong.status == 400,
        wrong.brief(),
    );
    redis.down().await?;
    tokio::time::sleep(A_WHILE).await;
    redis.up().await?;
    let over = Instant::now();
    case.check(
        "it counts in Redis once it is back",
        counts(&redis).await,
        "within 10 s",
    );

    let slowest = traffic.slowest();
    case.check(
        "no request waits for Redis",
        slowest < ANSWERED_WITHIN,
        format!("the slowest took {} ms", slowest.as_millis()),
    );
    traffic.end(case, &server, over).await
}

/// Whether it holds a key, soon.
async fn counts(redis: &Redis) -> bool {
    for _ in 0..100 {
        if redis
            .say("DBSIZE")
            .await
            .is_ok_and(|said| said.starts_with(':') && !said.starts_with(":0"))
        {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    false
}
