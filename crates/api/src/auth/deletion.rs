//! How an account ends. Whoever decides it, the user or an admin, it ends in one transaction: from its
//! commit on no token of theirs is good for anything.
use super::{adopt, apple};
use crate::Result;
use db::{Timestamp, Tx};
use std::time::Duration;
use uuid::Uuid;

/// Tokens of other issuers go on after the account; for so long none of a sign-in that was theirs makes
/// it anew.
const REMEMBERED: Duration = Duration::from_secs(180 * 86_400);

/// What an end leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaves {
    /// The audit log and the ledger, under an id that names nobody.
    Nothing,
    /// Also the id, and what the product has under it: GoTrue's soft deletion.
    Id,
}

/// Ends an account. `false` when it had ended.
pub async fn delete(tx: &mut Tx, user: Uuid, leaves: Leaves, now: Timestamp) -> Result<bool> {
    db::billing::ask_to_cancel(tx, user, now).await?;
    db::sessions::remember_foreign(tx, user, now + REMEMBERED).await?;
    apple::leave(tx, user, now).await?;
    if leaves == Leaves::Nothing {
        // Whoever settles an answer holds it before its message; so does this.
        db::generations::hold_of_user(tx, user).await?;
        db::usage::forget(tx, &format!("user:{user}")).await?;
        return Ok(db::users::delete(tx, user).await?);
    }
    adopt::wipe(tx, user, now).await?;
    db::sessions::delete_of_user(tx, user).await?;
    Ok(db::users::pseudonymise(tx, user, now).await?)
}
