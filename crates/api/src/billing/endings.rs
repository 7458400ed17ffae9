//! Subscriptions of those who are gone: Stripe is told, so that it does not go on charging them.
use super::stripe_api::Failure;
use crate::App;
use std::time::Duration;

/// The kind of job that tells.
pub const KIND: &str = "end_subscriptions";
pub const EVERY: Duration = Duration::from_secs(10 * 60);

const SOURCE: &str = "stripe";
const AT_ONCE: i64 = 100;

/// Tells what was not told yet. What an app store sells, its buyer alone can end.
pub async fn run(app: &App) -> anyhow::Result<()> {
    let Some(api) = &app.stripe else {
        return Ok(());
    };
    let mode = app.config.billing.mode(app.config.is_production());
    for waiting in db::reconciling::cancellations(&app.db, SOURCE, mode, AT_ONCE).await? {
        let id = &waiting.external_id;
        match api.delete(&format!("/v1/subscriptions/{id}"), &[]).await {
            // What Stripe does not find has ended, or was told before.
            Ok(_) | Err(Failure::NotFound) => {}
            Err(failure @ Failure::Unavailable { .. }) => return Err(failure.into()),
            Err(failure) => {
                tracing::error!(subscription = id, %failure, "a subscription of someone who is gone cannot be ended: end it at Stripe");
                continue;
            }
        }
        let mut tx = app.db.begin().await?;
        db::reconciling::cancelled(&mut tx, SOURCE, mode, id, app.now()).await?;
        tx.commit().await?;
        tracing::info!(
            subscription = id,
            "a subscription of someone who is gone was ended"
        );
    }
    Ok(())
}
