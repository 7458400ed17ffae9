//! What an admin sees of the events that came, and does with them.
use crate::{
    App, Error, Result,
    auth::{audit, session::Client},
    error::Invalid,
    extract::{Admin, Json, Time},
};
use db::{
    Timestamp,
    inbox::{Filter, Headline},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

mod discard;
mod list;
mod replay;
mod show;
pub mod stats;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list::list))
        .routes(routes!(stats::stats))
        .routes(routes!(replay::replay_all))
        .routes(routes!(show::show))
        .routes(routes!(replay::replay))
        .routes(routes!(discard::discard))
}

/// What an admin has done to one event.
enum Decision {
    Replay,
    Discard,
}

/// Does it, keeps who did, and gives what the event is then.
async fn decide(
    app: &App,
    admin: &Admin,
    client: &Client,
    id: Uuid,
    decision: Decision,
) -> Result<Json<show::Whole>> {
    let event = db::inbox::by_id(&app.db, id)
        .await?
        .ok_or(Error::NotFound)?;

    let now = app.now();
    let mut tx = app.db.begin().await?;
    let (done, action) = match decision {
        Decision::Replay => (
            db::inbox::replay(&mut tx, id, now).await?,
            "webhook_replayed",
        ),
        Decision::Discard => (
            db::inbox::discard(&mut tx, id, now).await?,
            "webhook_discarded",
        ),
    };
    if !done {
        return Err(Error::EventSettled);
    }
    let detail =
        json!({"event": event.external_id, "provider": event.provider, "was": event.status});
    audit::by_admin(&mut tx, client, action, admin, None, detail, now).await?;
    tx.commit().await?;

    show::whole(app, id).await
}

/// An event as it stands in the inbox.
#[derive(Serialize, ToSchema)]
#[schema(as = WebhookEvent)]
struct Event {
    id: Uuid,
    /// `stripe` or `revenuecat`.
    provider: String,
    /// `live` or `test`.
    mode: String,
    /// The provider's id.
    external_id: String,
    r#type: String,
    /// Whom or what it is about; events of one subject are applied one at a time.
    subject: String,
    occurred_at: Time,
    received_at: Time,
    /// The beginning of the SHA-256 of the secret that signed it; null of what was asked for.
    key_id: Option<String>,
    /// `received`, `processed`, `ignored`, `parked` or `dead`.
    status: String,
    /// Why it is ignored, parked or dead.
    reason: Option<String>,
    processed_at: Option<Time>,
}

impl From<Headline> for Event {
    fn from(row: Headline) -> Self {
        Self {
            id: row.id,
            provider: row.provider,
            mode: row.mode,
            external_id: row.external_id,
            r#type: row.kind,
            subject: row.subject,
            occurred_at: row.occurred_at.into(),
            received_at: row.received_at.into(),
            key_id: row.key_id,
            status: row.status,
            reason: row.reason,
            processed_at: row.processed_at.map(Into::into),
        }
    }
}

/// Which events; what is absent is any.
#[derive(Deserialize, Serialize, IntoParams, ToSchema)]
struct Which {
    /// `stripe` or `revenuecat`.
    #[serde(default)]
    provider: Option<String>,
    /// `received`, `processed`, `ignored`, `parked` or `dead`.
    #[serde(default)]
    status: Option<String>,
    /// `customer.subscription.updated` and the like.
    #[serde(default)]
    r#type: Option<String>,
    /// `stripe:cus_…` and the like.
    #[serde(default)]
    subject: Option<String>,
    /// Received then or later.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    /// Received before.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
}

const PROVIDERS: [&str; 2] = ["stripe", "revenuecat"];
const STATUSES: [&str; 5] = ["received", "processed", "ignored", "parked", "dead"];

impl Which {
    fn filter(&self) -> Result<Filter<'_>> {
        let words: [(_, _, &[&str], _); 2] = [
            (
                "provider",
                &self.provider,
                &PROVIDERS,
                "has to be stripe or revenuecat",
            ),
            (
                "status",
                &self.status,
                &STATUSES,
                "has to be received, processed, ignored, parked or dead",
            ),
        ];
        let unknown = words.into_iter().filter_map(|(field, given, known, rule)| {
            let given = given.as_deref()?;
            (!known.contains(&given)).then(|| Invalid::new(field, rule))
        });
        let unknown: Vec<_> = unknown.collect();
        if !unknown.is_empty() {
            return Err(Error::Invalid(unknown));
        }
        let texts = [&self.r#type, &self.subject];
        if texts.into_iter().flatten().any(|text| text.contains('\0')) {
            return Err(Error::invalid(
                "subject",
                "cannot hold the character U+0000",
            ));
        }
        Ok(Filter {
            provider: self.provider.as_deref(),
            status: self.status.as_deref(),
            kind: self.r#type.as_deref(),
            subject: self.subject.as_deref(),
            since: self.since,
            until: self.until,
        })
    }

    fn is_any(&self) -> bool {
        let Self {
            provider,
            status,
            r#type,
            subject,
            since,
            until,
        } = self;
        [provider, status, r#type, subject]
            .iter()
            .all(|text| text.is_none())
            && since.is_none()
            && until.is_none()
    }
}
