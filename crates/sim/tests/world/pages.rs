use std::time::Duration;

use sim::Options;

use crate::{http, world};

#[tokio::test]
async fn the_pages_need_nothing_from_elsewhere() {
    let world = world().await;

    for url in [world.home_url(), world.mailbox_url(), world.payments_url()] {
        let response = http().get(&url).send().await.unwrap();
        assert!(
            response.headers()["content-security-policy"]
                .to_str()
                .unwrap()
                .starts_with("default-src 'none'")
        );
        let page = response.text().await.unwrap();
        assert!(page.starts_with("<!doctype html>") && !page.contains("{{"));
        assert!(!page.contains("src=\"http") && !page.contains("<link rel=\"stylesheet"));
    }
}

#[tokio::test]
async fn a_name_from_elsewhere_is_refused() {
    let world = world().await;
    let get = async |host: &str| {
        let request = http()
            .get(format!("{}/messages", world.mailbox_url()))
            .header("host", host);
        request.send().await.unwrap().status().as_u16()
    };

    assert_eq!(
        (
            get("evil.example").await,
            get("localhost.evil.example:80").await
        ),
        (421, 421)
    );
    assert_eq!(
        (
            get("localhost:1").await,
            get("127.0.0.1").await,
            get("mail.localhost").await
        ),
        (200, 200, 200)
    );
}

#[tokio::test]
async fn a_taken_port_is_replaced_by_a_free_one() {
    let first = world().await;
    let port = |url: String| {
        url.trim_end_matches('/')
            .rsplit(':')
            .next()
            .unwrap()
            .parse()
            .unwrap()
    };

    let second = sim::start(Options {
        http_port: port(first.home_url()),
        smtp_port: port(first.smtp_url()),
        webhooks: None,
        llm_gap: Duration::ZERO,
        by_hand: false,
    });
    let second = second.await.unwrap();

    assert_ne!(first.home_url(), second.home_url());
    assert_ne!(first.smtp_url(), second.smtp_url());
    assert!(
        http()
            .get(second.home_url())
            .send()
            .await
            .unwrap()
            .status()
            .is_success()
    );
}
