use crate::{
    App, Result,
    billing::Config,
    config::Secret,
    extract::{Admin, Json, Time},
};
use axum::extract::State;
use db::Db;
use serde::Serialize;
use std::fmt;
use utoipa::ToSchema;

#[derive(Serialize, ToSchema)]
#[schema(as = WebhookStatistics)]
pub struct Stats {
    counts: Vec<Count>,
    secrets: Vec<SecretUse>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = WebhookCount)]
struct Count {
    provider: String,
    status: String,
    events: i64,
    oldest_received_at: Time,
}

/// A secret that is configured, or that events came signed with.
#[derive(Serialize, ToSchema)]
pub struct SecretUse {
    /// `stripe` or `revenuecat`.
    provider: String,
    /// The beginning of its SHA-256.
    key_id: String,
    /// Whether it is accepted here.
    configured: bool,
    /// When an event came signed with it, exact to five minutes; null is never.
    last_used_at: Option<Time>,
}

impl fmt::Display for SecretUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let accepted = if self.configured {
            "accepted"
        } else {
            "retired"
        };
        let used = self
            .last_used_at
            .map_or("never used".into(), |at| format!("last used {}", at.0));
        write!(f, "{}  {}  {accepted}  {used}", self.provider, self.key_id)
    }
}

/// How many events came and what became of them, and which secrets sign them: one that is no longer
/// used may be retired.
#[utoipa::path(get, path = "/api/admin/webhooks/stats", tag = "admin", responses((status = 200, body = Stats)))]
pub async fn stats(State(app): State<App>, _: Admin) -> Result<Json<Stats>> {
    let counts = db::inbox::count(&app.db).await?;
    let counts = counts.into_iter().map(|row| Count {
        provider: row.provider,
        status: row.status,
        events: row.events,
        oldest_received_at: row.oldest_received_at.into(),
    });
    Ok(Json(Stats {
        counts: counts.collect(),
        secrets: secrets(&app.db, &app.config.billing).await?,
    }))
}

/// The secrets that are configured, in their order, then those that were once.
pub async fn secrets(db: &Db, config: &Config) -> db::Result<Vec<SecretUse>> {
    let mut used = db::inbox::keys(db).await?;
    let lists: [(_, &[Secret]); 3] = [
        ("stripe", &config.stripe_webhook_secret),
        ("revenuecat", &config.revenuecat_webhook_secret),
        ("revenuecat", &config.revenuecat_signing_secret),
    ];
    let mut secrets = vec![];
    for (provider, list) in lists {
        for secret in list {
            let key_id = webhooks::key_id(secret.expose());
            let known = used
                .iter()
                .position(|key| key.provider == provider && key.key_id == key_id);
            secrets.push(SecretUse {
                provider: provider.into(),
                key_id,
                configured: true,
                last_used_at: known.map(|at| used.remove(at).last_used_at.into()),
            });
        }
    }
    let retired = used.into_iter().map(|key| SecretUse {
        provider: key.provider,
        key_id: key.key_id,
        configured: false,
        last_used_at: Some(key.last_used_at.into()),
    });
    Ok(secrets.into_iter().chain(retired).collect())
}
