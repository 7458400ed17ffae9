//! Another address for an account: who has the new one confirms it, who has the one of now agrees, and
//! hears of it, once it is done, with a link that takes it back for three days.
use super::{
    audit,
    code::{self, Back, Purpose},
    session::Client,
    user,
};
use crate::{App, Error, Result};
use db::{
    Timestamp, Tx,
    one_time_tokens::{self, OneTimeToken},
    users::User,
};
use serde_json::json;
use uuid::Uuid;

/// How far a change is after one more confirmation.
pub enum Change {
    Done(Box<User>),
    /// The other address has not confirmed.
    Halfway,
}

/// The address that has to agree to a change: the one of now, where it is known to be theirs.
pub fn current<'a>(app: &App, user: &'a User) -> Option<&'a str> {
    let own = user.email_confirmed_at.and(user.email.as_deref());
    own.filter(|_| app.config.auth.auth_secure_email_change)
}

/// Mails codes to the new address and to the one of now; where sign-ups need no proof, a new address
/// needs none either.
pub async fn ask(
    app: &App,
    tx: &mut Tx,
    client: &Client,
    user: &User,
    new: &str,
    back: &Back,
    now: Timestamp,
) -> Result<()> {
    forget(tx, user.id).await?;
    if app.config.auth.autoconfirms(app.config.is_production()) {
        let changed = change(app, tx, user.clone(), new, now).await?;
        changed.ok_or(Error::EmailExists)?;
    } else {
        // Also where somebody has the address already: the links will not move it, and nobody is told.
        ask_new(app, tx, user, new, back, now).await?;
        ask_current(app, tx, user, new, back, now).await?;
    }
    let detail = json!({"email": "requested"});
    Ok(audit::succeeded(tx, client, "user_modified", user.id, detail, now).await?)
}

/// Mails those who have not confirmed another code; it makes the earlier worthless.
pub async fn ask_again(
    app: &App,
    tx: &mut Tx,
    user: &User,
    new: &str,
    back: &Back,
    now: Timestamp,
) -> Result<()> {
    let sides = Sides::of(tx, user, new, now).await?;
    if !sides.new {
        ask_new(app, tx, user, new, back, now).await?;
    }
    if !sides.current {
        ask_current(app, tx, user, new, back, now).await?;
    }
    Ok(())
}

async fn ask_new(
    app: &App,
    tx: &mut Tx,
    user: &User,
    new: &str,
    back: &Back,
    now: Timestamp,
) -> Result<()> {
    code::send(app, tx, Purpose::EmailChange, user.id, new, back, now).await?;
    Ok(())
}

async fn ask_current(
    app: &App,
    tx: &mut Tx,
    user: &User,
    new: &str,
    back: &Back,
    now: Timestamp,
) -> Result<()> {
    if let Some(current) = current(app, user) {
        let purpose = Purpose::EmailChangeCurrent;
        let code = code::send(app, tx, purpose, user.id, current, back, now).await?;
        one_time_tokens::set_moves_to(tx, code, new).await?;
    }
    Ok(())
}

/// Whatever was asked for is not to be.
pub async fn forget(tx: &mut Tx, user: Uuid) -> db::Result<()> {
    for purpose in [Purpose::EmailChange, Purpose::EmailChangeCurrent] {
        one_time_tokens::delete_of_kind(tx, user, purpose.word()).await?;
    }
    Ok(())
}

/// Who has confirmed.
struct Sides {
    new: bool,
    current: bool,
}

impl Sides {
    async fn of(tx: &mut Tx, user: &User, new: &str, now: Timestamp) -> db::Result<Self> {
        let (by_new, by_current) = (Purpose::EmailChange, Purpose::EmailChangeCurrent);
        let old = user.email.as_deref().unwrap_or_default();
        let new_did = one_time_tokens::confirmed(tx, user.id, by_new.word(), new, None, now);
        let new_did = new_did.await?.is_some();
        let agreed =
            one_time_tokens::confirmed(tx, user.id, by_current.word(), old, Some(new), now);
        Ok(Self {
            new: new_did,
            current: agreed.await?.is_some(),
        })
    }
}

/// One of the addresses is proved: that of this code, which is used up. `None` when the account has
/// another address than it was asked for, or the new one meanwhile became someone else's.
pub async fn confirm(
    app: &App,
    tx: &mut Tx,
    user: User,
    token: &OneTimeToken,
    now: Timestamp,
) -> Result<Option<Change>> {
    let new = match &token.moves_to {
        Some(_) if user.email.as_ref() != Some(&token.email) => return Ok(None),
        Some(new) => new,
        None => &token.email,
    };
    let sides = Sides::of(tx, &user, new, now).await?;
    let agreed = sides.current || current(app, &user).is_none();
    if !sides.new || !agreed {
        return Ok(Some(Change::Halfway));
    }
    let id = user.id;
    let changed = change(app, tx, user, new, now).await?;
    if changed.is_none() {
        forget(tx, id).await?;
    }
    Ok(changed.map(|user| Change::Done(Box::new(user))))
}

/// `None` when the address is someone else's.
async fn change(
    app: &App,
    tx: &mut Tx,
    user: User,
    new: &str,
    now: Timestamp,
) -> Result<Option<User>> {
    if !db::users::change_email(tx, user.id, new, Some(now), now).await? {
        return Ok(None);
    }
    forget(tx, user.id).await?;
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
