//! Refresh tokens: one new one for each use, and a second use of an old one ends the session, except
//! where it cannot be theft.
//!
//! A token is `session id | counter | tag | check`, base64url behind `rt1.`. The tag needs the session's
//! own secret from the database and our key from the environment, so that neither alone can make
//! one; the check is refused before the database is asked. Nothing is stored for a token, so the
//! same child can be given again. RFC 9700, section 4.14.2.
use super::{audit, keys::Keys, session};
use crate::{App, Error, Result, error::Dialect};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use db::{Tx, sessions::Session};
use serde_json::json;
use subtle::ConstantTimeEq;
use uuid::Uuid;

const PREFIX: &str = "rt1.";
const TAG: usize = 24;
const CHECK: usize = 8;

/// A token that we made, by its check; whether its tag fits is seen once its session is read.
pub struct Presented {
    session: Uuid,
    counter: i64,
    tag: [u8; TAG],
}

/// The token of a session's counter.
pub fn encode(keys: &Keys, session: &Session, counter: i64) -> String {
    let head = head(session.id, counter);
    let tag = &keys.refresh_mac(&[&head, &session.refresh_secret])[..TAG];
    let check = &keys.refresh_mac(&[&head, tag])[..CHECK];
    format!(
        "{PREFIX}{}",
        URL_SAFE_NO_PAD.encode([&head, tag, check].concat())
    )
}

fn head(session: Uuid, counter: i64) -> [u8; 24] {
    let mut head = [0; 24];
    head[..16].copy_from_slice(session.as_bytes());
    head[16..].copy_from_slice(&counter.to_be_bytes());
    head
}

fn decode(keys: &Keys, token: &str) -> Option<Presented> {
    let bytes: [u8; 24 + TAG + CHECK] = URL_SAFE_NO_PAD
        .decode(token.strip_prefix(PREFIX)?)
        .ok()?
        .try_into()
        .ok()?;
    let (head, rest) = bytes.split_at(24);
    let (tag, check) = rest.split_at(TAG);
    let ours = keys
        .refresh_macs(&[head, tag])
        .any(|mac| mac[..CHECK].ct_eq(check).into());
    ours.then(|| {
        Some(Presented {
            session: Uuid::from_slice(&head[..16]).ok()?,
            counter: i64::from_be_bytes(head[16..].try_into().ok()?),
            tag: tag.try_into().ok()?,
        })
    })?
}

/// What a token that was shown may get.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It is the newest: the next one.
    Rotate,
    /// It was used, but its child cannot have arrived, or only just: the same child.
    SameChild,
    /// It was used, and its child is in use: someone has a copy.
    Reused,
}

/// Decides from counters and clock alone.
fn judge(app: &App, session: &Session, counter: i64) -> Verdict {
    let current = session.refresh_counter;
    if counter == current {
        return Verdict::Rotate;
    }
    let just_now =
        app.now().since(session.rotated_at) <= app.config.auth.auth_refresh_reuse_interval;
    let child_never_seen = session.acked_counter < current;
    if counter == current - 1 && (just_now || child_never_seen) {
        Verdict::SameChild
    } else {
        Verdict::Reused
    }
}

/// What can be said of a token without the database.
pub fn present(app: &App, token: &str) -> Result<Presented> {
    decode(&app.keys, token).ok_or(Error::RefreshTokenNotFound)
}

/// The session that a token is of, while it stands.
pub async fn session_of(app: &App, tx: &mut Tx, presented: &Presented) -> Result<Session> {
    let session = db::sessions::locked(tx, presented.session)
        .await?
        .ok_or(Error::RefreshTokenNotFound)?;
    let head = head(session.id, presented.counter);
    let ours = app
        .keys
        .refresh_macs(&[&head, &session.refresh_secret])
        .any(|tag| tag[..TAG].ct_eq(&presented.tag).into());
    if !ours || session.revoked_at.is_some() {
        return Err(Error::RefreshTokenNotFound);
    }
    let now = app.now();
    if session.idle_expires_at <= now || session.absolute_expires_at <= now {
        return Err(Error::SessionExpired);
    }
    Ok(session)
}

/// `grant_type=refresh_token`.
pub async fn refresh(
    app: &App,
    token: &str,
    client: &session::Client,
) -> Result<session::Response> {
    // One that we never made names no account: nothing is decided about any, and the database not asked.
    let presented = present(app, token).inspect_err(|_| {
        metrics::counter!("auth_refusals_total", "code" => "forged_refresh_token").increment(1);
    })?;
    let now = app.now();
    let mut tx = app.db.begin().await?;
    let known = match session_of(app, &mut tx, &presented).await {
        Ok(session) => match db::users::within(&mut tx, session.user_id).await? {
            Some(user) if user.is_banned(now) => Err((Some(user.id), Error::UserBanned)),
            Some(user) => Ok((session, user)),
            None => Err((None, Error::RefreshTokenNotFound)),
        },
        Err(refusal) if refusal.status(Dialect::GoTrue).is_client_error() => {
            let session = db::sessions::locked(&mut tx, presented.session).await?;
            Err((session.map(|session| session.user_id), refusal))
        }
        Err(fault) => return Err(fault),
    };
    let (session, user) = match known {
        Ok(known) => known,
        Err((user, refusal)) => {
            drop(tx);
            return Err(audit::refuse_often(app, client, "token_refreshed", user, refusal).await);
        }
    };

    let idle = (now + app.config.auth.auth_session_idle).min(session.absolute_expires_at);
    let (counter, idle_expires_at) = match judge(app, &session, presented.counter) {
        Verdict::Rotate => {
            db::sessions::rotate(&mut tx, session.id, session.refresh_counter, idle, now).await?;
            (session.refresh_counter + 1, idle)
        }
        Verdict::SameChild => {
            tracing::info!(session = %session.id, "a refresh token came twice within the grace; it gets the same child");
            let detail = json!({"session": session.id, "reason": "refresh_reuse_in_grace"});
            let user = session.user_id;
            audit::succeeded(&mut tx, client, "token_refreshed", user, detail, now).await?;
            (session.refresh_counter, session.idle_expires_at)
        }
        Verdict::Reused => {
            db::sessions::revoke(&mut tx, session.id, "refresh_reuse_detected", now).await?;
            let detail = json!({"session": session.id, "reason": "refresh_reuse_detected"});
            let user = Some(session.user_id);
            audit::refused(&mut tx, client, "token_refreshed", user, detail, now).await?;
            tx.commit().await?;
            tracing::warn!(session = %session.id, "a refresh token was reused; its session is ended");
            metrics::counter!("auth_events_total", "kind" => "refresh", "outcome" => "reuse_detected").increment(1);
            return Err(Error::RefreshTokenAlreadyUsed);
        }
    };
    tx.commit().await?;

    session::respond(
        app,
        user,
        Session {
            refresh_counter: counter,
            idle_expires_at,
            ..session
        },
    )
    .await
}
