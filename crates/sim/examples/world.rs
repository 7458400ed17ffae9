//! The outside world in a process of its own: `cargo run -p sim --example world [BACKEND_URL]`.

use sim::{Options, WebhookTarget};

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let webhooks = std::env::args().nth(1).map(|base_url| WebhookTarget {
        base_url,
        stripe_secret: "whsec_sim".to_owned(),
        revenuecat_secret: "sim".to_owned(),
    });
    let world = sim::start(Options {
        http_port: 4010,
        smtp_port: 4025,
        webhooks,
        ..Options::default()
    })
    .await?;
    println!(
        "{}\n{}\n{}\n{}",
        world.home_url(),
        world.llm_url(),
        world.mailbox_url(),
        world.smtp_url()
    );
    std::future::pending().await
}
