//! Second factors, as GoTrue has them: <https://supabase.com/docs/guides/auth/auth-mfa>. Who proved one
//! has a session at aal2, and needs it for what is dangerous.
use super::{audit, session, session::Client, step_up};
use crate::{
    App, Error, Result,
    extract::Auth,
    mail::{self, Mail},
};
use db::{Timestamp, Tx, factors::Factor, sessions::Session, users::User};
use serde::Serialize;
use serde_json::json;
use std::time::Duration;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

mod challenge;
mod enroll;
mod recovery_codes;
mod remove;
pub mod totp;
mod verify;
mod webauthn;

/// Factors of a user, those included that were never proved.
const MAX_FACTORS: usize = 10;
/// Wrong answers in a row, after which a factor is asked about no more for `LOCK`.
const MAX_FAILURES: i64 = 10;
const LOCK: Duration = Duration::from_secs(15 * 60);
/// A question stands for so long.
const CHALLENGE_TTL: Duration = Duration::from_secs(5 * 60);

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(enroll::enroll))
        .routes(routes!(challenge::challenge))
        .routes(routes!(verify::verify))
        .routes(routes!(remove::remove))
        .merge(recovery_codes::routes())
}

#[derive(Serialize, ToSchema)]
#[schema(as = RemovedFactor)]
struct Removed {
    id: Uuid,
}

/// How many of these, but for one, a user could prove without a recovery code.
fn counting_beside(factors: &[Factor], one: Option<Uuid>) -> usize {
    let counts = |factor: &&Factor| {
        factor.is_verified() && !factor.is_recovery_codes() && Some(factor.id) != one
    };
    factors.iter().filter(counts).count()
}

/// A text that people see.
fn short(field: &str, text: Option<String>) -> Result<String> {
    let text = text.unwrap_or_default().trim().to_owned();
    match text.chars().count() {
        0..=100 => Ok(text),
        _ => Err(Error::invalid(field, "has to be at most 100 characters")),
    }
}

/// The user's factor, held until the transaction ends, unless too many wrong answers locked it.
pub async fn locked(tx: &mut Tx, id: Uuid, auth: &Auth, now: Timestamp) -> Result<Factor> {
    let factor = db::factors::locked(tx, id, auth.user).await?;
    let factor = factor.ok_or(Error::FactorNotFound)?;
    match factor.locked_until {
        Some(until) if until > now => Err(Error::FactorLocked {
            retry_after: until.since(now),
        }),
        _ => Ok(factor),
    }
}

/// Who has a factor that counts adds or proves another only after they proved one: else whoever has
/// the password would bring their own.
pub fn may_prove(app: &App, auth: &Auth, factor: &Factor) -> Result<()> {
    match factor.is_verified() {
        true => Ok(()),
        false => step_up::require_second_factor(app, auth),
    }
}

/// A wrong answer: counted, and in the audit log with why. Commit after it.
pub async fn failed(
    tx: &mut Tx,
    client: &Client,
    factor: &Factor,
    refusal: &Error,
    now: Timestamp,
) -> Result<()> {
    db::factors::failed(tx, factor.id, MAX_FAILURES, now + LOCK, now).await?;
    metrics::counter!("auth_events_total", "kind" => "second_factor", "outcome" => "failed")
        .increment(1);
    let detail =
        json!({"factor": factor.id, "type": factor.factor_type, "reason": refusal.to_string()});
    let user = Some(factor.user_id);
    Ok(audit::refused(tx, client, "verification_attempted", user, detail, now).await?)
}

/// A right answer: the factor counts, and a session at aal2 takes the place of this one. `method` is
/// what `amr` will say, `step` that of a TOTP code.
pub async fn proved(
    app: &App,
    tx: &mut Tx,
    auth: &Auth,
    client: &Client,
    factor: &Factor,
    (method, step): (&str, Option<i64>),
    now: Timestamp,
) -> Result<(User, Session)> {
    db::factors::proved(tx, factor.id, step, now).await?;
    let (user, session) = session::step_up(app, tx, auth.session, method, client, now).await?;
    if !factor.is_verified() {
        db::factors::delete_unproved_of_user(tx, user.id, &factor.factor_type).await?;
        mail::tell(tx, &user, |to| Mail::FactorAdded { to }, now).await?;
    }
    metrics::counter!("auth_events_total", "kind" => "second_factor", "outcome" => "succeeded")
        .increment(1);
    let detail = json!({"factor": factor.id, "type": factor.factor_type, "session": session.id});
    audit::succeeded(tx, client, "verification_attempted", user.id, detail, now).await?;
    Ok((user, session))
}
