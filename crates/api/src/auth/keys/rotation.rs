//! How the key that signs is replaced, without a token being refused: a new one is published first,
//! signs once every verifier has had the time to see it, and verifies what it signed until it is revoked.
use super::Keys;
use anyhow::{Context, bail};
use db::{Json, Timestamp, Tx, audit::NewEvent, keys::SigningKey};
use serde_json::json;
use std::time::Duration;

/// Verifiers keep the key set for ten minutes: twice that, and everyone has seen a new key.
pub const PUBLISHED_FIRST: Duration = Duration::from_secs(2 * 600);

/// What a rotation did.
#[derive(Debug, PartialEq, Eq)]
pub enum Rotated {
    /// There is a standby now; it may sign from then on.
    Published { kid: String, usable_at: Timestamp },
    /// The standby is too young to sign.
    TooEarly { kid: String, usable_at: Timestamp },
    /// The standby, or with `at_once` a fresh one, signs from now on.
    Activated { kid: String, retired: String },
}

/// Goes one step on. `at_once` waits for nobody: whoever verifies offline may refuse what the new key
/// signs until they ask for the key set again.
pub async fn rotate(
    keys: &Keys,
    tx: &mut Tx,
    at_once: bool,
    now: Timestamp,
) -> anyhow::Result<Rotated> {
    if keys.are_brought() {
        bail!(
            "the keys come from AUTH_JWT_KEYS_FILE. Put the new one first in that file, leave the old one behind it, and restart every instance"
        );
    }
    let rows = db::keys::locked(tx).await?;
    let Some(standby) = rows.iter().find(|row| row.state == "standby") else {
        let kid = publish(keys, tx, now).await?;
        if at_once {
            return activate(tx, &rows, kid, now).await;
        }
        let usable_at = now + PUBLISHED_FIRST;
        return Ok(Rotated::Published { kid, usable_at });
    };
    let (kid, usable_at) = (standby.kid.clone(), usable_at(standby));
    match at_once || usable_at <= now {
        true => activate(tx, &rows, kid, now).await,
        false => Ok(Rotated::TooEarly { kid, usable_at }),
    }
}

/// When a standby may sign.
pub fn usable_at(standby: &SigningKey) -> Timestamp {
    standby.created_at + PUBLISHED_FIRST
}

/// What a revocation did.
#[derive(Debug, PartialEq, Eq)]
pub enum Revoked {
    /// It verifies nothing any more.
    Done,
    /// It signed until now; this one does in its place.
    Replaced { by: String },
    /// It was already.
    Before,
}

/// What this key signed counts no more. One that signs is replaced at once.
pub async fn revoke(
    keys: &Keys,
    tx: &mut Tx,
    kid: &str,
    now: Timestamp,
) -> anyhow::Result<Revoked> {
    let rows = db::keys::locked(tx).await?;
    let Some(key) = rows.iter().find(|row| row.kid == kid) else {
        if keys.ring().knows(kid) {
            bail!(
                "this key comes from AUTH_JWT_KEYS_FILE. Take it out there, and restart every instance"
            );
        }
        bail!("there is no key {kid}; see `plinth keys list`");
    };
    if key.revoked_at.is_some() {
        return Ok(Revoked::Before);
    }
    let mut revoked = Revoked::Done;
    if key.state == "active" && !keys.are_brought() {
        let standby = rows.iter().find(|row| row.state == "standby");
        let next = match standby {
            Some(standby) => standby.kid.clone(),
            None => publish(keys, tx, now).await?,
        };
        activate(tx, &rows, next.clone(), now).await?;
        revoked = Revoked::Replaced { by: next };
    }
    db::keys::retire(tx, kid, &[], now).await?;
    db::keys::revoke(tx, kid, now).await?;
    record(tx, "signing_key_revoked", kid, now).await?;
    Ok(revoked)
}

async fn publish(keys: &Keys, tx: &mut Tx, now: Timestamp) -> anyhow::Result<String> {
    let (kid, public, sealed) = keys.make()?;
    let created = db::keys::create_standby(tx, &kid, "ES256", &Json(public), &sealed, now).await?;
    if !created {
        bail!("another rotation is under way; see `plinth keys list`");
    }
    record(tx, "signing_key_published", &kid, now).await?;
    Ok(kid)
}

async fn activate(
    tx: &mut Tx,
    rows: &[SigningKey],
    kid: String,
    now: Timestamp,
) -> anyhow::Result<Rotated> {
    let active = rows.iter().find(|row| row.state == "active");
    let retired = active.context("no key is active")?.kid.clone();
    db::keys::retire(tx, &retired, &[], now).await?;
    db::keys::activate(tx, &kid, now).await?;
    record(tx, "signing_key_activated", &kid, now).await?;
    Ok(Rotated::Activated { kid, retired })
}

async fn record(tx: &mut Tx, action: &str, kid: &str, now: Timestamp) -> db::Result<()> {
    let event = NewEvent {
        subject: None,
        actor: None,
        actor_kind: "system",
        action,
        succeeded: true,
        request_id: None,
        detail: json!({"kid": kid}),
        ip: None,
        user_agent: None,
    };
    db::audit::record(tx, event, now).await
}
