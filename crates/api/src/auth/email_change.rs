//! Another address for an account: its new owner confirms it, and the old one hears of it with a link
//! that takes it back for three days.
use super::{
    audit,
    code::{self, Back, Purpose},
    session::Client,
    user,
};
use crate::{App, Error, Result};
use db::{Timestamp, Tx, users::User};
use serde_json::json;

/// Mails a code to the new address; where sign-ups need no proof, a new address needs none either.
pub async fn ask(
    app: &App,
    tx: &mut Tx,
    client: &Client,
    user: &User,
    new: &str,
    back: &Back,
    now: Timestamp,
) -> Result<()> {
    let kind = Purpose::EmailChange.word();
    db::one_time_tokens::delete_of_kind(tx, user.id, kind).await?;
    if app.config.auth.autoconfirms(app.config.is_production()) {
        let changed = confirm(app, tx, user.clone(), new, now).await?;
        changed.ok_or(Error::EmailExists)?;
    } else {
        // Also where somebody has the address already: the link will not move it, and nobody is told.
        code::send(app, tx, Purpose::EmailChange, user.id, new, back, now).await?;
    }
    let detail = json!({"email": "requested"});
    Ok(audit::succeeded(tx, client, "user_modified", user.id, detail, now).await?)
}

/// The new address is proved. `None` when it meanwhile became someone else's.
pub async fn confirm(
    app: &App,
    tx: &mut Tx,
    user: User,
    new: &str,
    now: Timestamp,
) -> Result<Option<User>> {
    if !db::users::change_email(tx, user.id, new, Some(now), now).await? {
        return Ok(None);
    }
    db::users::delete_rivals(tx, new, user.id).await?;
    if user.is_anonymous {
        let by_email = json!({"provider": "email", "providers": ["email"]});
        let metadata = db::Json(user::merged(user.app_metadata.0, by_email));
        db::users::set_app_metadata(tx, user.id, &metadata, now).await?;
    }
    if let (Some(old), Some(_)) = (&user.email, user.email_confirmed_at) {
        let (undo, back) = (Purpose::EmailChangeUndo, Back::default());
        code::send(app, tx, undo, user.id, old, &back, now).await?;
    }
    Ok(db::users::locked(tx, user.id).await?)
}

/// Whoever reads the mail of the old address has it back, and whoever was signed in is not any more. What
/// was added to the account since the change lets nobody in again.
pub async fn undo(
    tx: &mut Tx,
    user: User,
    old: &str,
    since: Timestamp,
    now: Timestamp,
) -> Result<Option<User>> {
    if !db::users::change_email(tx, user.id, old, Some(now), now).await? {
        return Ok(None);
    }
    // Also the links that would take it back to an address of whoever moved it twice.
    db::one_time_tokens::delete_of_user(tx, user.id).await?;
    db::auth_codes::delete_of_user(tx, user.id).await?;
    db::passkeys::delete_since(tx, user.id, since).await?;
    db::factors::delete_since(tx, user.id, since).await?;
    db::recovery_codes::delete_since(tx, user.id, since).await?;
    db::users::delete_foreign_identities_since(tx, user.id, since).await?;
    db::sessions::revoke_of_user(tx, user.id, None, "email_change_undone", now).await?;
    Ok(db::users::locked(tx, user.id).await?)
}
