//! Sign-in, in the words of GoTrue (Supabase Auth): any of its SDKs is a client.
//! <https://github.com/supabase/auth/blob/master/openapi.yaml>
use crate::{
    App, Error, Result,
    config::{Problem, Secret, seconds, some_seconds},
};
use std::time::Duration;
use utoipa_axum::router::OpenApiRouter;

pub mod access;
pub mod admin;
mod adopt;
pub mod api_keys;
pub mod apple;
mod apple_notifications;
pub mod audit;
mod authorize;
mod callback;
pub mod chain;
mod code;
pub mod cookies;
pub mod deletion;
mod device;
mod email_change;
pub mod export;
mod factors;
mod federation;
mod flow;
mod foreign;
mod foreign_hash;
mod github;
mod guesses;
mod guest;
mod hashing;
mod history;
pub mod id_token;
mod identities;
mod invite;
pub mod jwks;
mod key_file;
pub mod keys;
mod known_device;
mod leave;
pub mod link;
mod link_words;
mod linking;
mod logout;
mod native;
mod oauth;
mod otp;
pub mod passkeys;
pub mod password;
mod pending_link;
pub mod pkce;
pub mod providers;
mod reauthenticate;
pub mod redirect;
mod refresh;
pub mod service_role;
pub mod session;
mod sessions;
mod settings;
mod signup;
#[cfg(any(test, feature = "sim"))]
pub mod simulated;
pub mod step_up;
#[cfg(test)]
mod tests;
mod ticket;
mod token;
mod user;
mod verify;
pub mod webauthn;

/// Sign-ups that never confirmed their address are forgotten after this.
pub const UNCONFIRMED_KEPT: Duration = Duration::from_secs(7 * 86_400);

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(signup::routes())
        .merge(verify::routes())
        .merge(otp::routes())
        .merge(link::routes())
        .merge(reauthenticate::routes())
        .merge(invite::routes())
        .merge(token::routes())
        .merge(native::routes())
        .merge(authorize::routes())
        .merge(callback::routes())
        .merge(apple_notifications::routes())
        .merge(user::routes())
        .merge(guest::routes())
        .merge(identities::routes())
        .merge(leave::routes())
        .merge(history::routes())
        .merge(export::routes())
        .merge(logout::routes())
        .merge(sessions::routes())
        .merge(api_keys::routes())
        .merge(factors::routes())
        .merge(passkeys::routes())
        .merge(settings::routes())
        .merge(keys::routes())
        .merge(admin::routes())
        .layer(axum::extract::DefaultBodyLimit::max(16 * 1024))
}

/// Sign-in.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Sign-in")]
pub struct Config {
    /// Seals the signing keys and makes refresh tokens; at least 32 bytes, the same on every instance. A comma list rotates: the first is used, all are understood. Development makes its own.
    #[arg(long, value_delimiter = ',', visible_aliases = ["secret-key", "session-secret"])]
    pub jwt_secret: Vec<Secret>,

    /// Your own private keys to sign access tokens with, in place of those that are made and kept in the database: a JWK set (RFC 7517) of ES256 or RS256. The first signs, all verify, and what one of them signs with `role` `service_role` is an admin's key. Give the file as AUTH_JWT_KEYS_FILE.
    #[arg(long)]
    pub auth_jwt_keys: Option<Secret>,

    /// Sign-ups count as confirmed at once, without a mail. Default: in development alone.
    #[arg(long, action = clap::ArgAction::Set, value_parser = clap::builder::BoolishValueParser::new())]
    pub auth_autoconfirm: Option<bool>,

    /// Take new users.
    #[arg(long, action = clap::ArgAction::Set, value_parser = clap::builder::BoolishValueParser::new(), default_value = "true")]
    pub auth_signup: bool,

    /// Take users without an address.
    #[arg(long, action = clap::ArgAction::Set, value_parser = clap::builder::BoolishValueParser::new(), default_value = "false")]
    pub auth_anonymous: bool,

    /// Users link further providers to their account, and unlink them.
    #[arg(long, action = clap::ArgAction::Set, value_parser = clap::builder::BoolishValueParser::new(), default_value = "true")]
    pub auth_manual_linking: bool,

    /// Another address counts once the one of now has confirmed it too, not only the new one.
    #[arg(long, action = clap::ArgAction::Set, value_parser = clap::builder::BoolishValueParser::new(), default_value = "true")]
    pub auth_secure_email_change: bool,

    /// Characters a password has at least.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(8..=128))]
    pub auth_min_password_length: u8,

    /// Digits of a mailed code.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u8).range(6..=10))]
    pub auth_otp_length: u8,

    /// Seconds that a mailed code is good for.
    #[arg(long, value_parser = some_seconds, default_value = "600")]
    pub auth_otp_ttl: Duration,

    /// Follow mailed links at once, as GoTrue does: machines that look into mails use them up, and an app that does no PKCE gets its tokens in the URL.
    #[arg(long, action = clap::ArgAction::Set, value_parser = clap::builder::BoolishValueParser::new(), default_value = "false")]
    pub auth_verify_on_get: bool,

    /// Seconds that an access token is good for.
    #[arg(long, value_parser = some_seconds, default_value = "3600")]
    pub auth_access_ttl: Duration,

    /// Seconds in which a refresh token used twice gives the same new one: parallel requests, lost answers.
    #[arg(long, value_parser = seconds, default_value = "10")]
    pub auth_refresh_reuse_interval: Duration,

    /// Seconds after a sign-in in which what is dangerous is allowed: a new password or address, second factors, deletion, export.
    #[arg(long, value_parser = some_seconds, default_value = "300")]
    pub auth_step_up_ttl: Duration,

    /// A session ends when it is not refreshed for so long.
    #[arg(long, value_parser = some_seconds, default_value = "30d")]
    pub auth_session_idle: Duration,

    /// A session ends after so long at the latest.
    #[arg(long, value_parser = some_seconds, default_value = "180d")]
    pub auth_session_absolute: Duration,

    /// An anonymous user who is not seen for so long is forgotten.
    #[arg(long, value_parser = some_seconds, default_value = "30d")]
    pub auth_anonymous_kept: Duration,

    #[command(flatten)]
    pub admin: admin::bootstrap::Config,

    #[command(flatten)]
    pub redirect: redirect::Config,

    #[command(flatten)]
    pub providers: providers::Config,

    #[command(flatten)]
    pub passkeys: passkeys::Config,
}

/// Secrets that were published with templates and tutorials.
const PUBLISHED: [&str; 7] = [
    "changethis",
    "change-me",
    "changeme",
    "your-secret",
    "super-secret-jwt-token",
    "random_secure_string",
    "256-bit-random-hex",
];

impl Config {
    pub fn check(
        &self,
        production: bool,
        problems: &mut Vec<Problem>,
        warnings: &mut Vec<Problem>,
    ) {
        self.admin.check(production, problems, warnings);
        self.redirect.check(problems);
        if let Err(why) = self.imported_keys() {
            problems.push(Problem::new(
                "AUTH_JWT_KEYS",
                format!("cannot be used: {why}"),
                "Name in AUTH_JWT_KEYS_FILE a file with a JWK set of private keys, {\"keys\": [{\"kty\": \"EC\", \"crv\": \"P-256\", …}]}.",
            ));
        }
        self.providers.check(production, problems);
        self.passkeys.check(problems);
        if !production {
            return;
        }
        let remedy = "Make one with `openssl rand -hex 32` and give every instance the same.";
        if self.jwt_secret.is_empty() {
            problems.push(Problem::new("JWT_SECRET", "is not set", remedy));
        }
        for secret in &self.jwt_secret {
            let secret = secret.expose();
            let distinct = secret
                .bytes()
                .collect::<std::collections::HashSet<_>>()
                .len();
            if PUBLISHED
                .iter()
                .any(|published| secret.to_lowercase().contains(published))
            {
                problems.push(Problem::new("JWT_SECRET", "is a published example", remedy));
            } else if secret.len() < 32 || distinct < 8 {
                problems.push(Problem::new(
                    "JWT_SECRET",
                    "is too short or too regular to be secret: it needs 32 random bytes",
                    remedy,
                ));
            }
        }
        if self.auth_autoconfirm == Some(true) {
            warnings.push(Problem::new(
                "AUTH_AUTOCONFIRM",
                "is on in production: anyone can sign up with an address that is not theirs, and keeps the account when its owner comes by a provider",
                "Unset it once mail is configured.",
            ));
        }
    }

    /// The keys of `AUTH_JWT_KEYS_FILE`, if any.
    fn imported_keys(&self) -> anyhow::Result<Vec<key_file::Imported>> {
        let text = self.auth_jwt_keys.as_ref().map(Secret::expose);
        let read = text.map(key_file::read).transpose();
        read.map(Option::unwrap_or_default)
            .map_err(anyhow::Error::msg)
    }

    pub fn autoconfirms(&self, production: bool) -> bool {
        self.auth_autoconfirm.unwrap_or(!production)
    }
}

/// The address that a request names, as it is compared and kept.
fn address(given: &str) -> Result<String> {
    normalise_email(given).ok_or_else(|| Error::invalid("email", "is not an e-mail address"))
}

/// An address as it is compared and kept, or `None` when it cannot be one.
pub fn normalise_email(email: &str) -> Option<String> {
    let email = email.trim().to_lowercase();
    let (local, domain) = email.rsplit_once('@')?;
    let whole = email.len() <= 254 && !local.is_empty() && local.len() <= 64;
    let dotted = domain.contains('.')
        && !domain.starts_with('.')
        && !domain.ends_with('.')
        && !domain.contains("..");
    let plain = !email
        .chars()
        .any(|c| c.is_whitespace() || c.is_control() || "<>()[],;:\\\"".contains(c))
        && !local.contains('@');
    (whole && dotted && plain).then_some(email)
}
