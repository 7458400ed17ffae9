//! The operator's view of the events that came, over the configured database.
use super::{
    DONE, configured,
    frame::{Form, ended},
    runtime,
};
use crate::{
    Config,
    app::Clock,
    billing::{self, inbox::stats},
};
use anyhow::Context;
use clap::Subcommand;
use db::{
    Db,
    inbox::{Event, Filter, Headline},
};
use serde_json::{Value, json};
use uuid::Uuid;

#[derive(Subcommand)]
pub enum Verb {
    /// List the newest events
    List {
        /// Those of one status alone
        #[arg(long, value_parser = ["received", "processed", "ignored", "parked", "dead"])]
        status: Option<String>,
        /// How many at most
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(i64).range(1..))]
        limit: i64,
        #[command(flatten)]
        form: Form,
    },
    /// Show an event with its body
    Show {
        /// Its id, ours or the provider's
        id: String,
        #[command(flatten)]
        form: Form,
    },
    /// Apply an event once more: after a fix, or when what it waited for is known
    Replay {
        /// Its id, ours or the provider's
        id: String,
        #[command(flatten)]
        form: Form,
    },
    /// List the secrets that events came signed with, and when last: one that is no longer used may go
    Secrets {
        #[command(flatten)]
        form: Form,
    },
    /// Try again every event that failed to the end
    RetryDead {
        #[command(flatten)]
        form: Form,
    },
}

pub fn run(verb: Verb) -> u8 {
    configured(|checked| ended(runtime(over_database(checked.config, verb))))
}

async fn over_database(config: Config, verb: Verb) -> anyhow::Result<u8> {
    let db = Db::open(&config.core.database_url, &config.core.database_options()).await?;
    let done = perform(&db, &config.billing, verb).await;
    db.close().await;
    done.map(|()| DONE)
}

async fn perform(db: &Db, billing: &billing::Config, verb: Verb) -> anyhow::Result<()> {
    let now = Clock::system().now();
    match verb {
        Verb::List {
            status,
            limit,
            form,
        } => {
            let filter = Filter {
                status: status.as_deref(),
                ..Filter::default()
            };
            for event in db::inbox::page(db, &filter, Uuid::max(), limit).await? {
                form.print(&document(&event), &line(&event));
            }
        }
        Verb::Show { id, form } => {
            let event = find(db, &id).await?;
            let body: Value = serde_json::from_slice(&event.body)?;
            let head = headline(event);
            let mut document = document(&head);
            document["body"] = body;
            let text = format!("{}\n{:#}", line(&head), document["body"]);
            form.print(&document, &text);
        }
        Verb::Replay { id, form } => {
            let event = find(db, &id).await?;
            let mut tx = db.begin().await?;
            db::inbox::replay(&mut tx, event.id, now).await?;
            tx.commit().await?;
            let text = format!("{} will be applied once more.", event.external_id);
            form.print(&json!({"id": event.id, "replayed": true}), &text);
        }
        Verb::Secrets { form } => {
            for secret in stats::secrets(db, billing).await? {
                form.print(&serde_json::to_value(&secret)?, &secret.to_string());
            }
        }
        Verb::RetryDead { form } => {
            let events = db::inbox::retry_dead(db, now).await?;
            form.print(
                &json!({"retried": events}),
                &format!("{events} will be tried again."),
            );
        }
    }
    Ok(())
}

/// RevenueCat's ids look like ours, so ours come first and theirs after all.
async fn find(db: &Db, id: &str) -> anyhow::Result<Event> {
    if let Ok(id) = Uuid::try_parse(id)
        && let Some(event) = db::inbox::by_id(db, id).await?
    {
        return Ok(event);
    }
    for provider in ["stripe", "revenuecat"] {
        for mode in ["live", "test"] {
            if let Some(event) = db::inbox::by_external_id(db, provider, mode, id).await? {
                return Ok(event);
            }
        }
    }
    None.with_context(|| format!("there is no event {id}"))
}

fn headline(event: Event) -> Headline {
    Headline {
        id: event.id,
        provider: event.provider,
        mode: event.mode,
        external_id: event.external_id,
        kind: event.kind,
        subject: event.subject,
        occurred_at: event.occurred_at,
        received_at: event.received_at,
        key_id: event.key_id,
        processed_at: event.processed_at,
        status: event.status,
        reason: event.reason,
    }
}

fn document(event: &Headline) -> Value {
    json!({
        "id": event.id,
        "provider": event.provider,
        "mode": event.mode,
        "external_id": event.external_id,
        "type": event.kind,
        "subject": event.subject,
        "occurred_at": event.occurred_at,
        "received_at": event.received_at,
        "key_id": event.key_id,
        "status": event.status,
        "reason": event.reason,
    })
}

fn line(event: &Headline) -> String {
    let reason = event.reason.as_deref().map(|reason| format!(" ({reason})"));
    format!(
        "{}  {}  {} {}  {}  {}  {}{}",
        event.id,
        event.received_at,
        event.provider,
        event.mode,
        event.kind,
        event.external_id,
        event.status,
        reason.unwrap_or_default(),
    )
}
