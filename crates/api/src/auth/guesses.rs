//! Whoever guesses at a password is slowed down, in all from one place, at one account from everywhere,
//! and at one account from one place. Nobody is kept out for good: not by time, and not on a device
//! where they were signed in before.
use super::known_device::Device;
use crate::{
    App, Result,
    http::ClientAddress,
    limit::Action,
    mail::{self, Mail},
};
use db::{Timestamp, Tx, users::User};
use uuid::Uuid;

/// Wrong passwords in a row after which the right one counts no more, until there is a new one: NIST
/// SP 800-63B-4, section 3.2.2.
const STRANGERS: i64 = 100;
/// Strangers cannot use these up for who is known.
const WITH_KNOWN_DEVICES: i64 = 2 * STRANGERS;

/// One try at the password of an account, there or not.
pub struct Guess {
    /// What it is counted by.
    key: String,
    /// Wrong ones in a row that are borne.
    borne: i64,
}

/// Counts it before it is known whether it is right: many at once are no way around.
pub async fn begin(
    app: &App,
    account: &str,
    device: &Device,
    address: ClientAddress,
) -> Result<Guess> {
    let pair = format!("{} {account}", address.bucket());
    app.limits.check(Action::SignInPair, &pair).await?;
    let guess = match device.known_to(app, account) {
        Some(device) => Guess {
            key: format!("device {device}"),
            borne: WITH_KNOWN_DEVICES,
        },
        None => Guess {
            key: account.to_owned(),
            borne: STRANGERS,
        },
    };
    app.limits.check(Action::SignInAccount, &guess.key).await?;
    Ok(guess)
}

/// One try at the password of who is signed in: counted apart from strangers, who could keep them from a
/// new password, and as often as on a known device. A session that was stolen is no place to guess from.
pub async fn begin_within(app: &App, user: Uuid) -> Result<Guess> {
    let guess = Guess {
        key: format!("user {user}"),
        borne: WITH_KNOWN_DEVICES,
    };
    app.limits.check(Action::SignInAccount, &guess.key).await?;
    Ok(guess)
}

impl Guess {
    /// It was right, so it was no guess. Asks Redis: not within a transaction.
    pub async fn forget(&self, app: &App) {
        app.limits.forget(Action::SignInAccount, &self.key).await;
    }

    /// Whether a right password counts: it does not after too many wrong ones.
    pub async fn counts(&self, tx: &mut Tx, user: Uuid) -> Result<bool> {
        Ok(db::users::password_was_right(tx, user, self.borne).await?)
    }

    /// It was wrong. Whoever owns the account hears of it when its password is off from now on.
    pub async fn was_wrong(&self, tx: &mut Tx, user: &User, now: Timestamp) -> Result<()> {
        let in_a_row = db::users::password_was_wrong(tx, user.id, self.borne).await?;
        if in_a_row == Some((STRANGERS,)) {
            mail::tell(tx, user, |to| Mail::PasswordOff { to }, now).await?;
        }
        Ok(())
    }
}
