//! Stripe's API cannot be had, or says nothing. Its events are acknowledged as fast, and wait.
use super::{
    case::Case,
    plinth::Plinth,
    scene::Scene,
    sender::{settled, sold},
    story,
    traffic::{percentile, timed},
};
use crate::{
    events::{self, Purchase},
    process::steady_port,
};
use anyhow::Result;
use axum::{Json, Router, extract::Path, http::StatusCode, routing::get};
use serde_json::json;
use std::time::Duration;
use tokio::net::TcpListener;

const DELIVERIES: usize = 1000;
const SENDERS: usize = 8;
const KEY: &str = "sk_test_probe00000000000000000000";
/// Slower than with the API up by this at most, in the 99th of a hundred.
const SLOWER: f64 = 2.0;
/// A request that nobody answers is given up after two attempts of 15 s; then nobody asks, and the thousand
/// that wait are put off once each before it is the turn of the next.
const SERVED_WITHIN: Duration = Duration::from_secs(90);
const NOISE: Duration = Duration::from_millis(25);

pub async fn run(scene: &Scene<'_>, case: &mut Case) -> Result<()> {
    scene
        .seen
        .note(|records| records.secrets.push(KEY.to_owned()));
    let up = measure(scene, case, "up", steady_port()?, true).await?;
    let refused = measure(scene, case, "unreachable", steady_port()?, false).await?;
    let silent = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = silent.local_addr()?.port();
    // Taken, and never answered.
    let black_hole = tokio::spawn(async move {
        let mut open = vec![];
        while let Ok((stream, _)) = silent.accept().await {
            open.push(stream);
        }
    });
    let hanging = measure(scene, case, "hanging", port, false).await?;
    black_hole.abort();
    for (how, p99) in [("unreachable", refused), ("hanging", hanging)] {
        let most = up.mul_f64(SLOWER).max(up + NOISE);
        case.check(
            format!("answers are as fast with Stripe {how}"),
            p99 <= most,
            format!("p99 {:.1} ms, {:.1} ms with it up", ms(p99), ms(up)),
        );
    }
    Ok(())
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Delivers to a server of its own. Gives the p99 of the answers.
async fn measure(
    scene: &Scene<'_>,
    case: &mut Case,
    how: &str,
    port: u16,
    is_up: bool,
) -> Result<Duration> {
    let base = format!("http://127.0.0.1:{port}");
    let mut server = scene.server(
        how,
        &[("STRIPE_SECRET_KEY", KEY), ("STRIPE_API_BASE", &base)],
    )?;
    server.start().await?;
    let (user, key) = (server.sign_up().await?, server.admin_key().await?);
    let _api = match is_up {
        true => Some(Stripe::open(port, user.id.clone()).await?),
        false => None,
    };
    let deliveries = || (0..DELIVERIES).map(|_| sold(&user.id)).collect::<Vec<_>>();
    timed(
        scene,
        &server,
        deliveries().split_off(DELIVERIES - 50),
        SENDERS,
    )
    .await;
    let times = timed(scene, &server, deliveries(), SENDERS).await;
    case.check(
        format!("every event is acknowledged with Stripe {how}"),
        times.len() == DELIVERIES,
        times.len(),
    );
    case.note(format!(
        "Stripe {how}: p50 {:.1} ms, p99 {:.1} ms of {DELIVERIES} answers at {SENDERS} senders",
        ms(percentile(&times, 0.5)),
        ms(percentile(&times, 0.99))
    ));
    if is_up {
        let settled = settled(&server, &key, Duration::from_secs(240)).await;
        case.check(
            "they are applied with Stripe up",
            settled.is_ok(),
            settled.err().unwrap_or("all are".into()),
        );
    } else {
        patient(case, scene, &server, how, &key).await?;
    }
    server.kill().await?;
    Ok(percentile(&times, 0.99))
}

/// Nothing is dead, others are served, and what waited counts once Stripe can be asked.
async fn patient(
    case: &mut Case,
    scene: &Scene<'_>,
    server: &Plinth,
    how: &str,
    key: &str,
) -> Result<()> {
    let stats = server.get("/api/admin/webhooks/stats", key).await;
    let counts = stats.body["counts"].as_array().into_iter().flatten();
    let of = |status: &str| {
        let mut rows = counts.clone().filter(|count| count["status"] == status);
        rows.next()
            .map_or(0, |row| row["events"].as_u64().unwrap_or(0))
    };
    let (waiting, dead) = (of("received"), of("dead"));
    case.check(
        format!("they wait while Stripe is {how}, and none is given up"),
        waiting >= DELIVERIES as u64 && dead == 0,
        format!("{waiting} wait, {dead} dead"),
    );
    // A purchase in an app store has nothing to do with it.
    let user = server.sign_up().await?;
    let event = story::currency(0, 0, &user, events::now(), 1);
    let sent = std::time::Instant::now();
    timed(scene, server, vec![event], 1).await;
    let mut opened = false;
    while !opened && sent.elapsed() < SERVED_WITHIN {
        let billing = server.get("/api/billing", &user.token).await;
        opened = billing.body["credits"][0]["amount"] == 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    case.check(
        format!("another provider's event counts within 90 s while Stripe is {how}"),
        opened && sent.elapsed() < SERVED_WITHIN,
        format!("{} ms", sent.elapsed().as_millis()),
    );
    Ok(())
}

/// As much of Stripe's API as a subscription that is read anew needs.
struct Stripe(tokio::task::JoinHandle<()>);

impl Stripe {
    /// Every subscription is this user's.
    async fn open(port: u16, user: String) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let read = move |Path(id): Path<String>| {
            let user = user.clone();
            async move {
                let key = id.strip_prefix("sub_").ok_or(StatusCode::NOT_FOUND)?;
                let bought = Purchase {
                    key,
                    user: &user,
                    price: "price_pro",
                };
                let event = events::subscription(&bought, events::now());
                Ok::<_, StatusCode>(Json(event["data"]["object"].clone()))
            }
        };
        let none = || async { Json(json!({"object": "list", "data": [], "has_more": false})) };
        let router = Router::new()
            .route("/v1/subscriptions/{id}", get(read))
            .fallback(none);
        Ok(Self(tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        })))
    }
}

impl Drop for Stripe {
    fn drop(&mut self) {
        self.0.abort();
    }
}
