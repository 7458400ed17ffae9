//! The audit log: every decision about an account, refusals too, written in the transaction that
//! carries it out. Actions have GoTrue's words where it has one:
//! <https://supabase.com/docs/guides/auth/audit-logs>.
use super::session::Client;
use crate::{App, Error, error::Dialect, extract::Admin, limit::Action};
use db::{Timestamp, Tx, audit::NewEvent};
use serde_json::{Value, json};
use uuid::Uuid;

/// A user did something to their own account.
pub async fn succeeded(
    tx: &mut Tx,
    client: &Client,
    action: &str,
    user: Uuid,
    detail: Value,
    now: Timestamp,
) -> db::Result<()> {
    let event = NewEvent {
        subject: Some(user),
        actor: Some(user),
        detail,
        ..event(client, action, true)
    };
    db::audit::record(tx, event, now).await
}

/// Somebody tried, and was refused; `user` is whose account it was about, where that is known.
pub async fn refused(
    tx: &mut Tx,
    client: &Client,
    action: &str,
    user: Option<Uuid>,
    detail: Value,
    now: Timestamp,
) -> db::Result<()> {
    let event = NewEvent {
        subject: user,
        detail,
        ..event(client, action, false)
    };
    db::audit::record(tx, event, now).await
}

/// Keeps that a user was refused where nothing else happened, and gives the refusal back.
pub async fn refuse(app: &App, client: &Client, action: &str, user: Uuid, refusal: Error) -> Error {
    keep_refusal(app, client, action, Some(user), refusal).await
}

/// The same of what can be tried without end, and where it may be nobody's account: one row a minute of
/// each account, or of each address where there is none. `auth_refusals_total` counts them all.
pub async fn refuse_often(
    app: &App,
    client: &Client,
    action: &str,
    user: Option<Uuid>,
    refusal: Error,
) -> Error {
    let code = refusal.code(Dialect::GoTrue);
    metrics::counter!("auth_refusals_total", "code" => code).increment(1);
    let who = user.map_or_else(|| client.bucket(), |user| user.to_string());
    match app
        .limits
        .admits(Action::AuditedRefusal, &format!("{code} {who}"))
        .await
    {
        true => keep_refusal(app, client, action, user, refusal).await,
        false => refusal,
    }
}

async fn keep_refusal(
    app: &App,
    client: &Client,
    action: &str,
    user: Option<Uuid>,
    refusal: Error,
) -> Error {
    let detail = json!({"reason": refusal.code(Dialect::GoTrue)});
    let kept = async {
        let mut tx = app.db.begin().await?;
        refused(&mut tx, client, action, user, detail, app.now()).await?;
        tx.commit().await
    };
    kept.await.map_or_else(Into::into, |()| refusal)
}

/// An admin did something to an account; without an id it was done with the service-role key.
pub async fn by_admin(
    tx: &mut Tx,
    client: &Client,
    action: &str,
    admin: &Admin,
    subject: Option<Uuid>,
    detail: Value,
    now: Timestamp,
) -> db::Result<()> {
    let event = event(client, action, true);
    db::audit::record(tx, of_admin(event, admin, subject, detail), now).await
}

/// Keeps that an admin was refused where nothing else happened, and gives the refusal back.
pub async fn refuse_admin(
    app: &App,
    client: &Client,
    action: &str,
    admin: &Admin,
    subject: Option<Uuid>,
    detail: Value,
    refusal: Error,
) -> Error {
    let event = of_admin(event(client, action, false), admin, subject, detail);
    let kept = async {
        let mut tx = app.db.begin().await?;
        db::audit::record(&mut tx, event, app.now()).await?;
        tx.commit().await
    };
    kept.await.map_or_else(Into::into, |()| refusal)
}

/// Something was done to an account that neither its user nor an admin did: by the command line or the
/// environment, or by a provider, whose request has an id.
pub async fn by_system(
    tx: &mut Tx,
    request_id: Option<&str>,
    action: &str,
    user: Uuid,
    detail: Value,
    now: Timestamp,
) -> db::Result<()> {
    let event = NewEvent {
        subject: Some(user),
        actor: None,
        actor_kind: "system",
        action,
        succeeded: true,
        request_id,
        detail,
        ip: None,
        user_agent: None,
    };
    db::audit::record(tx, event, now).await
}

fn of_admin<'a>(
    event: NewEvent<'a>,
    admin: &Admin,
    subject: Option<Uuid>,
    detail: Value,
) -> NewEvent<'a> {
    NewEvent {
        subject,
        actor: admin.user,
        actor_kind: "admin",
        detail,
        ..event
    }
}

fn event<'a>(client: &'a Client, action: &'a str, succeeded: bool) -> NewEvent<'a> {
    NewEvent {
        subject: None,
        actor: None,
        actor_kind: "user",
        action,
        succeeded,
        request_id: Some(&client.request_id),
        detail: Value::Null,
        ip: Some(&client.address),
        user_agent: client.agent.as_deref(),
    }
}
