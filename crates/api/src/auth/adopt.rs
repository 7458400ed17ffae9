//! What becomes of an account that others may have prepared before its owner proved to own the address.
//! "Pre-hijacked accounts", USENIX Security 2022:
//! <https://www.usenix.org/conference/usenixsecurity22/presentation/sudhodanan>.
use db::{Timestamp, Tx, users};
use serde_json::json;
use uuid::Uuid;

/// Leaves the user, and takes away everything that somebody else may have put there: whatever lets
/// them in, and whatever they said.
pub async fn wipe(tx: &mut Tx, user: Uuid, now: Timestamp) -> db::Result<()> {
    users::set_password_hash(tx, user, None, now).await?;
    users::set_user_metadata(tx, user, &db::Json(json!({})), now).await?;
    users::delete_foreign_identities(tx, user).await?;
    db::factors::delete_of_user(tx, user).await?;
    db::one_time_tokens::delete_of_user(tx, user).await?;
    db::auth_codes::delete_of_user(tx, user).await?;
    db::oauth_flows::delete_of_user(tx, user).await?;
    db::passkeys::delete_of_user(tx, user).await?;
    db::passkeys::delete_challenges_of_user(tx, user).await?;
    db::sessions::revoke_of_user(tx, user, None, "account_adopted", now).await?;
    Ok(())
}
