//! Codes that are mailed, and the links beside them: each for one address and one purpose, used once.
//! A code may be guessed at so often; a link cannot be guessed. Only the newest of its purpose counts.
use super::{link, pkce::Challenge, redirect};
use crate::{
    App, Result,
    mail::{self, Mail, Sealed},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use db::{Timestamp, Tx};
use serde::Deserialize;
use std::time::Duration;
use url::Url;
use utoipa::IntoParams;
use uuid::Uuid;

/// Guesses at a code, the right one included.
pub const MAX_ATTEMPTS: i64 = 5;
/// A code that leads to a new password is good for so long at most.
const RECOVERY_TTL: Duration = Duration::from_secs(30 * 60);
/// What hashes of links are bound to.
const LINK: &[u8] = b"link";

/// What a code is for; it serves nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Signup,
    MagicLink,
    Recovery,
    Invite,
    /// By who is to have the address.
    EmailChange,
    /// By who has the address that is to be left.
    EmailChangeCurrent,
    /// By who had the address before.
    EmailChangeUndo,
    /// In place of a fresh sign-in.
    Reauthentication,
}

impl Purpose {
    /// What `verify` signs in by.
    const ALL: [Self; 5] = [
        Self::Signup,
        Self::MagicLink,
        Self::Recovery,
        Self::Invite,
        Self::EmailChange,
    ];

    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.word() == word)
    }

    /// GoTrue's word, which the database keeps too.
    pub fn word(self) -> &'static str {
        match self {
            Self::Signup => "signup",
            Self::MagicLink => "magiclink",
            Self::Recovery => "recovery",
            Self::Invite => "invite",
            Self::EmailChange => "email_change",
            Self::EmailChangeCurrent => "email_change_current",
            Self::EmailChangeUndo => "email_change_undo",
            Self::Reauthentication => "reauthentication",
        }
    }

    /// How links call it: of both sides of a change alike, as GoTrue does.
    pub fn link_type(self) -> &'static str {
        match self {
            Self::EmailChangeCurrent => Self::EmailChange.word(),
            other => other.word(),
        }
    }

    /// What its mail is called in the audit log: GoTrue tells no more apart.
    pub fn requested(self) -> &'static str {
        match self {
            Self::Signup => "user_confirmation_requested",
            Self::MagicLink | Self::Recovery => "user_recovery_requested",
            Self::Invite => "user_invited",
            Self::EmailChange | Self::EmailChangeCurrent | Self::EmailChangeUndo => {
                "user_email_change_requested"
            }
            Self::Reauthentication => "user_reauthenticate_requested",
        }
    }

    /// How long its link is good for: what signs in is wanted at once, what confirms may wait for the evening.
    fn link_ttl(self) -> Duration {
        match self {
            Self::Signup | Self::EmailChange | Self::EmailChangeCurrent => {
                Duration::from_secs(24 * 3600)
            }
            Self::EmailChangeUndo => Duration::from_secs(72 * 3600),
            Self::MagicLink | Self::Recovery | Self::Reauthentication => RECOVERY_TTL,
            // As long as a user who never confirmed is kept.
            Self::Invite => super::UNCONFIRMED_KEPT,
        }
    }

    fn mail(self, to: String, code: Sealed, minutes: u64, link: Option<Sealed>) -> Mail {
        match self {
            Self::Signup => Mail::ConfirmSignup {
                to,
                code,
                minutes,
                link,
            },
            Self::MagicLink => Mail::SignIn {
                to,
                code,
                minutes,
                link,
            },
            Self::EmailChange => Mail::ConfirmEmailChange {
                to,
                code,
                minutes,
                link,
            },
            Self::EmailChangeCurrent => Mail::AgreeToEmailChange {
                to,
                code,
                minutes,
                link,
            },
            Self::EmailChangeUndo => Mail::EmailChanged { to, link },
            Self::Reauthentication => Mail::Reauthentication { to, code, minutes },
            Self::Invite => Mail::Invite { to, link },
            Self::Recovery => Mail::Recovery {
                to,
                code,
                minutes,
                link,
            },
        }
    }
}

#[derive(Default, Deserialize, IntoParams)]
pub struct LeadingTo {
    /// Where the link of the mail leads back to; the site, when that is not allowed.
    #[serde(default)]
    redirect_to: Option<String>,
}

/// What a client that asks for a mail wants at the end of its link.
#[derive(Debug, Default)]
pub struct Back {
    challenge: Option<Challenge>,
    to: Option<Url>,
}

impl Back {
    /// As it was asked for. A challenge that nothing could answer is refused while its client listens.
    pub fn of(
        app: &App,
        asked: LeadingTo,
        challenge: Option<&str>,
        method: Option<&str>,
    ) -> Result<Self> {
        let challenge = Challenge::of(challenge, method)?;
        let to = asked.redirect_to.as_deref();
        let to = to.and_then(|to| redirect::allowed(app, to));
        Ok(Self { challenge, to })
    }

    pub fn to(&self) -> Option<&Url> {
        self.to.as_ref()
    }

    pub fn or_site(&self, app: &App) -> Url {
        redirect::or_site(app, self.to().map(Url::as_str))
    }
}

/// What may be kept of a link, newest secret first.
pub fn link_hashes(app: &App, secret: &str) -> Vec<[u8; 32]> {
    let message = [LINK, secret.as_bytes()];
    app.keys.otp_macs(&message).collect()
}

/// What was made for a mail, or for whoever else hands it over.
pub struct Made {
    pub id: Uuid,
    pub code: String,
    /// Of the link, where there is one.
    pub secret: Option<String>,
    ttl: Duration,
}

/// Makes a code for this user's address, and where it leads somewhere a link beside it.
pub async fn make(
    app: &App,
    tx: &mut Tx,
    purpose: Purpose,
    user: Uuid,
    email: &str,
    back: &Back,
    linked: bool,
    now: Timestamp,
) -> Result<Made> {
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
    let secret = linked.then(|| URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()));
    let link_hash = |secret: &String| app.keys.otp_mac(&[LINK, secret.as_bytes()]);
    let link_hash = secret.as_ref().map(link_hash);
    db::one_time_tokens::create(
        tx,
        id,
        user,
        purpose.word(),
        email,
        &hash,
        now + ttl,
        link_hash.as_ref().map(<[u8; 32]>::as_slice),
        now + purpose.link_ttl(),
        back.challenge.as_ref().map(Challenge::as_str),
        now,
    )
    .await?;
    Ok(Made {
        id,
        code,
        secret,
        ttl,
    })
}

/// Makes a code and mails it, in the transaction that is its reason. Gives the id of the code.
pub async fn send(
    app: &App,
    tx: &mut Tx,
    purpose: Purpose,
    user: Uuid,
    email: &str,
    back: &Back,
    now: Timestamp,
) -> Result<Uuid> {
    // Without PKCE a link has nothing to bring back, except that it confirms.
    let linked = back.challenge.is_some()
        || !matches!(
            purpose,
            Purpose::MagicLink | Purpose::Recovery | Purpose::Reauthentication
        )
        || app.config.auth.auth_verify_on_get;
    let made = make(app, tx, purpose, user, email, back, linked, now).await?;
    let link = made.secret.as_deref();
    let link = link.map(|secret| link::url(app, purpose, secret, back.to()));
    let seal = |secret: &str| Sealed::new(&app.keys, email, secret);
    let (code, link) = (seal(&made.code)?, link.as_deref().map(seal).transpose()?);
    let minutes = made.ttl.as_secs().div_ceil(60);
    let mail = purpose.mail(email.to_owned(), code, minutes, link);
    mail::enqueue(tx, user, &mail, now).await?;
    Ok(made.id)
}
