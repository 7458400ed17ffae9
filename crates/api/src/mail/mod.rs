//! Mail: written as a job beside the change that causes it, and sent afterwards, in the language of
//! whoever it is for, by SMTP or by SendGrid.
use crate::{
    App,
    config::{Problem, Secret},
    http::is_loopback,
};
use anyhow::Context;
use db::{Timestamp, Tx, jobs::Job, users::User};
use lettre::message::Mailbox;
use serde::Serialize;
use serde_json::Value;
use std::time::Duration;
use url::Url;
use uuid::Uuid;

pub mod events;
mod letter;
mod locale;
mod mailer;
mod sealed;
mod sendgrid;
mod smtp;
#[cfg(test)]
mod tests;

pub use locale::Locale;
use mailer::Draft;
pub use mailer::Mailer;
pub use sealed::Sealed;

/// The kind of job that sends one mail.
pub const SEND: &str = "send_mail";
/// A mail server may take so long.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Mail.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Mail")]
pub struct Config {
    /// A mail server: `smtps://user:password@host:465`, or `smtp://…?tls=required` for STARTTLS. Unset in development, mail goes to the simulated mailbox.
    #[arg(long)]
    pub smtp_url: Option<Secret>,

    /// SendGrid's key, which may send mail.
    #[arg(long)]
    pub sendgrid_api_key: Option<Secret>,

    /// Where SendGrid's API is; for accounts in the EU https://api.eu.sendgrid.com.
    #[arg(long, default_value = "https://api.sendgrid.com")]
    pub sendgrid_api_base: Url,

    /// Verifies what SendGrid tells became of mails, as the dashboard shows it. A comma list rotates. Have it told to PUBLIC_URL/webhooks/sendgrid.
    #[arg(long, value_delimiter = ',')]
    pub sendgrid_webhook_key: Vec<String>,

    /// Who mails are from.
    #[arg(long, default_value = "Plinth <plinth@localhost>")]
    pub mail_from: Mailbox,
}

impl Config {
    pub fn check(&self, production: bool, auth: &crate::auth::Config, problems: &mut Vec<Problem>) {
        if self.smtp_url.is_some() && self.sendgrid_api_key.is_some() {
            problems.push(Problem::new(
                "SENDGRID_API_KEY",
                "and SMTP_URL are both set",
                "Keep one of them.",
            ));
        }
        if let Some(url) = &self.smtp_url
            && smtp::builder(url).is_err()
        {
            problems.push(Problem::new(
                "SMTP_URL",
                "cannot be read",
                "Write smtps://user:password@host:465, with special characters percent-encoded.",
            ));
        }
        let base = &self.sendgrid_api_base;
        if base.scheme() != "https" && !is_loopback(base) {
            problems.push(Problem::new(
                "SENDGRID_API_BASE",
                "is not https",
                "Codes and the key would cross the network in the clear; write https://….",
            ));
        }
        if !self
            .sendgrid_webhook_key
            .iter()
            .all(|key| webhooks::sendgrid::is_key(key))
        {
            problems.push(Problem::new(
                "SENDGRID_WEBHOOK_KEY",
                "is no public key of P-256",
                "Copy the verification key of the signed event webhook, base64 as it stands there.",
            ));
        }
        if !production {
            return;
        }
        if !self.is_configured() && !auth.autoconfirms(true) {
            problems.push(Problem::new(
                "SMTP_URL",
                "is not set, so that nobody who signs up could confirm their address",
                "Set SMTP_URL or SENDGRID_API_KEY, or AUTH_AUTOCONFIRM=true.",
            ));
        }
        if self.is_configured() && self.mail_from.email.domain() == "localhost" {
            problems.push(Problem::new("MAIL_FROM", "is not set", "Write an address that your mail server may send from: Example <hello@example.com>."));
        }
    }

    fn is_configured(&self) -> bool {
        self.smtp_url.is_some() || self.sendgrid_api_key.is_some()
    }
}

/// Every mail there is, with its facts. What it says of them is in `templates/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(serde::Deserialize))]
#[serde(tag = "mail", rename_all = "snake_case")]
pub enum Mail {
    /// The code that proves an address.
    ConfirmSignup {
        to: String,
        code: Sealed,
        minutes: u64,
        link: Option<Sealed>,
    },
    /// The code that signs in.
    SignIn {
        to: String,
        code: Sealed,
        minutes: u64,
        link: Option<Sealed>,
    },
    /// The code that signs in who forgot their password.
    Recovery {
        to: String,
        code: Sealed,
        minutes: u64,
        link: Option<Sealed>,
    },
    /// Somebody who administers made them a user.
    Invite {
        to: String,
        link: Option<Sealed>,
    },
    /// The code that proves an address somebody wants to have from now on.
    ConfirmEmailChange {
        to: String,
        code: Sealed,
        minutes: u64,
        link: Option<Sealed>,
    },
    /// The code by which the owner of an address agrees to have another instead.
    AgreeToEmailChange {
        to: String,
        code: Sealed,
        minutes: u64,
        link: Option<Sealed>,
    },
    /// For who had the address before: how to have it back.
    EmailChanged {
        to: String,
        link: Option<Sealed>,
    },
    /// The code that stands for a fresh sign-in.
    Reauthentication {
        to: String,
        code: Sealed,
        minutes: u64,
    },
    PasswordChanged {
        to: String,
    },
    /// Too many tried too often: the password counts no more.
    PasswordOff {
        to: String,
    },
    /// A passkey can sign in now.
    PasskeyAdded {
        to: String,
    },
    /// A passkey no longer can.
    PasskeyRemoved {
        to: String,
    },
    /// A program can ask in their name now.
    ApiKeyMade {
        to: String,
    },
    /// A provider can sign them in from now on.
    IdentityLinked {
        to: String,
        provider: String,
    },
    /// Someone signed up with an address that is in use.
    AlreadyRegistered {
        to: String,
    },
    /// A second factor counts from now on.
    FactorAdded {
        to: String,
    },
    /// A second factor counts no more.
    FactorRemoved {
        to: String,
    },
    /// Recovery codes were made; earlier ones are worthless.
    RecoveryCodesMade {
        to: String,
    },
    /// A recovery code stood for a second factor, and so many are left.
    RecoveryCodeUsed {
        to: String,
        remaining: i64,
    },
    /// There are no recovery codes any more.
    RecoveryCodesRemoved {
        to: String,
    },
    /// Somebody signed in as them took their data along.
    DataExported {
        to: String,
    },
    /// They deleted their account.
    AccountDeleted {
        to: String,
    },
    /// What they bought is open.
    Subscribed {
        to: String,
        plan: String,
    },
    /// A renewal could not be charged; access goes on for a while.
    PaymentFailed {
        to: String,
        plan: String,
        until: Option<String>,
        link: Option<Sealed>,
    },
    /// Their bank wants them to confirm a renewal.
    PaymentActionRequired {
        to: String,
        plan: String,
        link: Option<Sealed>,
    },
    /// A trial ends soon, and goes over into what is paid for unless they cancelled.
    TrialEnding {
        to: String,
        plan: String,
        until: String,
        renews: bool,
    },
    SubscriptionEnded {
        to: String,
        plan: String,
    },
    /// They pay for two subscriptions at once.
    DuplicateSubscription {
        to: String,
    },
}

/// Tells a user by mail what was done to their account, if they have an address of their own.
pub async fn tell(
    tx: &mut Tx,
    user: &User,
    notice: impl FnOnce(String) -> Mail,
    now: Timestamp,
) -> db::Result<()> {
    let own = user.email_confirmed_at.and(user.email.clone());
    match own.map(notice) {
        Some(mail) => enqueue(tx, user.id, &mail, now).await,
        None => Ok(()),
    }
}

/// Writes the mail beside the change that causes it, in the language of this user.
pub async fn enqueue(tx: &mut Tx, user: Uuid, mail: &Mail, now: Timestamp) -> db::Result<()> {
    let mut payload = serde_json::to_value(mail).unwrap_or_default();
    payload["locale"] = locale_of(tx, user).await?.tag().into();
    let job = db::jobs::NewJob {
        kind: SEND,
        subject: None,
        payload,
        dedupe_key: None,
        due_at: now,
    };
    db::jobs::enqueue(tx, job, now).await.map(drop)
}

/// What the user chose, else what their browser asked for when they last signed in.
async fn locale_of(tx: &mut Tx, user: Uuid) -> db::Result<Locale> {
    let Some((metadata, language)) = db::users::languages(tx, user).await? else {
        return Ok(Locale::default());
    };
    let chosen = metadata.0.get("locale").and_then(Value::as_str);
    let known = [chosen, language.as_deref()].into_iter().flatten();
    Ok(known.filter_map(Locale::of).next().unwrap_or_default())
}

/// Sends one.
pub async fn send(app: &App, job: &Job) -> anyhow::Result<()> {
    let draft = job.payload.0.clone();
    let draft: Draft = serde_json::from_value(draft).context("the job holds no mail")?;
    let kind = draft.kind.clone();
    let muted = db::muted_addresses::since(&app.db, &draft.to).await?;
    if muted.is_some() {
        metrics::counter!("emails_total", "template" => kind, "outcome" => "muted").increment(1);
        return Ok(());
    }
    let sent = app.mailer.deliver(app, job.id, draft).await;
    let outcome = if sent.is_ok() { "sent" } else { "failed" };
    metrics::counter!("emails_total", "template" => kind, "outcome" => outcome).increment(1);
    sent
}
