//! Codes that are mailed: each for one address and one purpose, guessed at so often, used once. Only
//! the newest of its purpose counts.
use crate::{
    App, Result,
    mail::{self, Mail},
};
use db::{Timestamp, Tx};
use std::time::Duration;
use uuid::Uuid;

/// Guesses at a code, the right one included.
pub const MAX_ATTEMPTS: i64 = 5;
/// A code that leads to a new password is good for so long at most.
const RECOVERY_TTL: Duration = Duration::from_secs(30 * 60);

/// What a code is for; it serves nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Signup,
    MagicLink,
    Recovery,
}

impl Purpose {
    /// GoTrue's word, which the database keeps too.
    pub fn word(self) -> &'static str {
        match self {
            Self::Signup => "signup",
            Self::MagicLink => "magiclink",
            Self::Recovery => "recovery",
        }
    }

    /// What its mail is called in the audit log: GoTrue tells no more apart.
    pub fn requested(self) -> &'static str {
        match self {
            Self::Signup => "user_confirmation_requested",
            Self::MagicLink | Self::Recovery => "user_recovery_requested",
        }
    }

    fn mail(self, to: String, code: String, minutes: u64) -> Mail {
        match self {
            Self::Signup => Mail::ConfirmSignup { to, code, minutes },
            Self::MagicLink => Mail::SignIn { to, code, minutes },
            Self::Recovery => Mail::Recovery { to, code, minutes },
        }
    }
}

/// Makes a code for this user's address and mails it, in the transaction that is its reason.
pub async fn send(
    app: &App,
    tx: &mut Tx,
    purpose: Purpose,
    user: Uuid,
    email: &str,
    now: Timestamp,
) -> Result<()> {
    let digits = u32::from(app.config.auth.auth_otp_length);
    let code = format!(
        "{:0width$}",
        rand::random_range(0..10_u64.pow(digits)),
        width = digits as usize
    );
    let id = Uuid::now_v7();
    let ttl = match purpose {
        Purpose::Recovery => app.config.auth.auth_otp_ttl.min(RECOVERY_TTL),
        _ => app.config.auth.auth_otp_ttl,
    };
    // A code alone is short enough to be guessed from a plain hash; this needs our key.
    let hash = app.keys.otp_mac(&[id.as_bytes(), code.as_bytes()]);
    let word = purpose.word();
    db::one_time_tokens::create(tx, id, user, word, email, &hash, now + ttl, now).await?;
    let minutes = ttl.as_secs().div_ceil(60);
    let mail = purpose.mail(email.to_owned(), code, minutes);
    Ok(mail::enqueue(tx, &mail, now).await?)
}
