//! Codes that are mailed, and the links beside them: each for one address and one purpose, used once.
//! A code may be guessed at so often; a link cannot be guessed. Only the newest of its purpose counts.
use super::{link, pkce::Challenge, redirect};
use crate::{
    App, Result,
    mail::{self, Mail},
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

    /// How long its link is good for: what signs in is for now, what confirms may wait for the evening.
    fn link_ttl(self) -> Duration {
        match self {
            Self::Signup => Duration::from_secs(24 * 3600),
            Self::MagicLink | Self::Recovery => RECOVERY_TTL,
        }
    }

    fn mail(self, to: String, code: String, minutes: u64, link: Option<String>) -> Mail {
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
}

/// What may be kept of a link, newest secret first.
pub fn link_hashes(app: &App, secret: &str) -> Vec<[u8; 32]> {
    let message = [LINK, secret.as_bytes()];
    app.keys.otp_macs(&message).collect()
}

/// Makes a code for this user's address and mails it, in the transaction that is its reason.
pub async fn send(
    app: &App,
    tx: &mut Tx,
    purpose: Purpose,
    user: Uuid,
    email: &str,
    back: &Back,
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
    // Without PKCE a link has nothing to bring back, except that it confirms.
    let leads_somewhere = back.challenge.is_some()
        || purpose == Purpose::Signup
        || app.config.auth.auth_verify_on_get;
    let secret = leads_somewhere.then(|| URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()));
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
    let link = secret.map(|secret| link::url(app, purpose, &secret, back.to.as_ref()));
    let minutes = ttl.as_secs().div_ceil(60);
    let mail = purpose.mail(email.to_owned(), code, minutes, link);
    Ok(mail::enqueue(tx, &mail, now).await?)
}
