//! Mail: written as a job beside the change that causes it, sent by SMTP afterwards.
use crate::{
    App,
    config::{Problem, Secret},
};
use anyhow::{Context, bail};
use db::{Timestamp, Tx, users::User};
use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::{Mailbox, MultiPart},
    transport::smtp::AsyncSmtpTransportBuilder,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;

/// The kind of job that sends one mail.
pub const SEND: &str = "send_mail";
const TIMEOUT: Duration = Duration::from_secs(15);

/// Mail.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Mail")]
pub struct Config {
    /// A mail server: `smtps://user:password@host:465`, or `smtp://…?tls=required` for STARTTLS. Unset in development, mail goes to the simulated mailbox.
    #[arg(long)]
    pub smtp_url: Option<Secret>,

    /// SendGrid's key; short for its SMTP server.
    #[arg(long)]
    pub sendgrid_api_key: Option<Secret>,

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
        if self.smtp_url.is_some() && transport(self).is_err() {
            problems.push(Problem::new(
                "SMTP_URL",
                "cannot be read",
                "Write smtps://user:password@host:465, with special characters percent-encoded.",
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

/// Every mail there is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mail", rename_all = "snake_case")]
pub enum Mail {
    /// The code that proves an address.
    ConfirmSignup {
        to: String,
        code: String,
        minutes: u64,
        link: Option<String>,
    },
    /// The code that signs in.
    SignIn {
        to: String,
        code: String,
        minutes: u64,
        link: Option<String>,
    },
    /// The code that signs in who forgot their password.
    Recovery {
        to: String,
        code: String,
        minutes: u64,
        link: Option<String>,
    },
    /// Somebody who administers made them a user.
    Invite {
        to: String,
        link: String,
    },
    /// The code that proves an address somebody wants to have from now on.
    ConfirmEmailChange {
        to: String,
        code: String,
        minutes: u64,
        link: Option<String>,
    },
    /// For who had the address before: how to have it back.
    EmailChanged {
        to: String,
        link: String,
    },
    /// The code that stands for a fresh sign-in.
    Reauthentication {
        to: String,
        code: String,
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
    /// They deleted their account.
    AccountDeleted {
        to: String,
    },
}

impl Mail {
    fn to(&self) -> &str {
        match self {
            Self::ConfirmSignup { to, .. }
            | Self::SignIn { to, .. }
            | Self::Recovery { to, .. }
            | Self::Invite { to, .. }
            | Self::ConfirmEmailChange { to, .. }
            | Self::EmailChanged { to, .. }
            | Self::Reauthentication { to, .. }
            | Self::PasswordChanged { to }
            | Self::PasswordOff { to }
            | Self::AlreadyRegistered { to }
            | Self::FactorAdded { to }
            | Self::FactorRemoved { to }
            | Self::PasskeyAdded { to }
            | Self::PasskeyRemoved { to }
            | Self::IdentityLinked { to, .. }
            | Self::AccountDeleted { to } => to,
        }
    }

    fn label(&self) -> &'static str {
        match self {
            Self::ConfirmSignup { .. } => "confirm_signup",
            Self::SignIn { .. } => "sign_in",
            Self::Recovery { .. } => "recovery",
            Self::Invite { .. } => "invite",
            Self::ConfirmEmailChange { .. } => "confirm_email_change",
            Self::EmailChanged { .. } => "email_changed",
            Self::Reauthentication { .. } => "reauthentication",
            Self::PasswordChanged { .. } => "password_changed",
            Self::PasswordOff { .. } => "password_off",
            Self::PasskeyAdded { .. } => "passkey_added",
            Self::PasskeyRemoved { .. } => "passkey_removed",
            Self::IdentityLinked { .. } => "identity_linked",
            Self::AlreadyRegistered { .. } => "already_registered",
            Self::FactorAdded { .. } => "factor_added",
            Self::FactorRemoved { .. } => "factor_removed",
            Self::AccountDeleted { .. } => "account_deleted",
        }
    }

    /// Subject and paragraphs.
    fn words(&self) -> (String, Vec<String>) {
        match self {
            Self::ConfirmSignup {
                code,
                minutes,
                link,
                ..
            } => (
                format!("{code} is your code"),
                vec![
                    format!("Your code is {code}."),
                    format!("Enter it where you signed up, within {minutes} minutes."),
                    or_follow(link),
                    "If that was not you, ignore this mail: without the code nothing happens."
                        .into(),
                ],
            ),
            Self::SignIn {
                code,
                minutes,
                link,
                ..
            } => (
                format!("{code} is your code"),
                vec![
                    format!("Your code to sign in is {code}."),
                    format!("Enter it where you asked for it, within {minutes} minutes."),
                    or_follow(link),
                    "Give it to nobody who asks you for it. If you did not ask for it, ignore this mail."
                        .into(),
                ],
            ),
            Self::Recovery {
                code,
                minutes,
                link,
                ..
            } => (
                format!("{code} is your code for a new password"),
                vec![
                    format!("Your code is {code}."),
                    format!("Enter it where you asked for a new password, within {minutes} minutes."),
                    or_follow(link),
                    "Give it to nobody who asks you for it. If you did not ask for it, ignore this mail: your password stays as it is."
                        .into(),
                ],
            ),
            Self::AccountDeleted { .. } => (
                "Your account is deleted".into(),
                vec![
                    "Your account and what was in it are deleted, as you asked.".into(),
                    "If you subscribed through an app store, end the subscription there: we cannot do that for you.".into(),
                    "If that was not you, somebody had access to your account; check your mailbox and the accounts you signed in with.".into(),
                ],
            ),
            Self::Invite { link, .. } => (
                "You are invited".into(),
                vec![
                    format!("You are invited. Follow this link within seven days: {link}"),
                    "If you do not know by whom, ignore this mail: nothing happens.".into(),
                ],
            ),
            Self::ConfirmEmailChange {
                code,
                minutes,
                link,
                ..
            } => (
                format!("{code} is your code for a new address"),
                vec![
                    format!("Your code is {code}."),
                    format!("Enter it where you asked for this address to be that of your account, within {minutes} minutes."),
                    or_follow(link),
                    "If that was not you, ignore this mail: it would give this address to someone else's account."
                        .into(),
                ],
            ),
            Self::EmailChanged { link, .. } => (
                "Your address was changed".into(),
                vec![
                    "Your account has another e-mail address from now on.".into(),
                    format!("If that was not you, take it back within three days, which also signs everyone out: {link}"),
                ],
            ),
            Self::Reauthentication { code, minutes, .. } => (
                format!("{code} is your code"),
                vec![
                    format!("Your code is {code}."),
                    format!("Enter it where you were asked for it, within {minutes} minutes. Give it to nobody who asks you for it."),
                    "If you did not ask for it, someone else is signed in as you: choose a new password.".into(),
                ],
            ),
            Self::PasswordChanged { .. } => (
                "Your password was changed".into(),
                vec![
                    "The password of your account was changed, and every other device was signed out.".into(),
                    "If that was not you, ask for a new password where you sign in.".into(),
                ],
            ),
            Self::PasswordOff { .. } => (
                "Your password is switched off".into(),
                vec![
                    "Someone tried a hundred wrong passwords for your account, one after the other. None was right.".into(),
                    "To be safe, your password opens the account only on devices where you were signed in before. Ask for a new one where you sign in, and it opens it everywhere again.".into(),
                ],
            ),
            Self::PasskeyAdded { .. } => (
                "A passkey was added to your account".into(),
                vec![
                    "A passkey was added to your account just now: it signs in without a password.".into(),
                    "If that was not you, sign in, remove it, and change your password.".into(),
                ],
            ),
            Self::PasskeyRemoved { .. } => (
                "A passkey was removed from your account".into(),
                vec![
                    "A passkey was removed from your account just now: it no longer signs in.".into(),
                    "If that was not you, sign in and change your password.".into(),
                ],
            ),
            Self::IdentityLinked { provider, .. } => (
                format!("{provider} was linked to your account"),
                vec![
                    format!("{provider} was linked to your account just now: it signs you in from now on."),
                    "If that was not you, sign in, unlink it, and change your password.".into(),
                ],
            ),
            Self::AlreadyRegistered { .. } => (
                "You already have an account".into(),
                vec![
                    "Someone, perhaps you, signed up with this address just now.".into(),
                    "You already have an account: sign in as usual.".into(),
                    "If that was not you, there is nothing to do.".into(),
                ],
            ),
            Self::FactorAdded { .. } => (
                "Your account has a second factor now".into(),
                vec![
                    "A second factor was added to your account, and is asked for from now on.".into(),
                    "If that was not you, someone else is signed in as you: tell us at once.".into(),
                ],
            ),
            Self::FactorRemoved { .. } => (
                "A second factor was removed from your account".into(),
                vec![
                    "A second factor was removed from your account, and every other device was signed out.".into(),
                    "If that was not you, change your password at once and add a second factor again.".into(),
                ],
            ),
        }
    }
}

/// Beside a code that may be typed; empty where there is none.
fn or_follow(link: &Option<String>) -> String {
    let follow = |link: &String| format!("Or follow this link: {link}");
    link.as_ref().map(follow).unwrap_or_default()
}

/// A paragraph; what it links to stands at its end.
fn html(paragraph: &str) -> String {
    let escaped = paragraph
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;");
    match escaped.find("http") {
        Some(at) => {
            let (words, link) = escaped.split_at(at);
            format!("<p>{words}<a href=\"{link}\">{link}</a></p>")
        }
        None => format!("<p>{escaped}</p>"),
    }
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
        Some(mail) => enqueue(tx, &mail, now).await,
        None => Ok(()),
    }
}

/// Writes the mail beside the change that causes it.
pub async fn enqueue(tx: &mut Tx, mail: &Mail, now: Timestamp) -> db::Result<()> {
    let payload = serde_json::to_value(mail).unwrap_or_default();
    let job = db::jobs::NewJob {
        kind: SEND,
        subject: None,
        payload,
        dedupe_key: None,
        due_at: now,
    };
    db::jobs::enqueue(tx, job, now).await.map(drop)
}

/// Sends one.
pub async fn send(app: &App, payload: &Value) -> anyhow::Result<()> {
    let mail: Mail = serde_json::from_value(payload.clone()).context("the job holds no mail")?;
    let sent = app.mailer.deliver(&mail).await;
    let outcome = if sent.is_ok() { "sent" } else { "failed" };
    metrics::counter!("emails_total", "template" => mail.label(), "outcome" => outcome)
        .increment(1);
    sent
}

pub struct Mailer {
    transport: Option<AsyncSmtpTransport<Tokio1Executor>>,
    from: Mailbox,
}

impl Mailer {
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        Ok(Self {
            transport: transport(config)?.map(AsyncSmtpTransportBuilder::build),
            from: config.mail_from.clone(),
        })
    }

    pub fn is_configured(&self) -> bool {
        self.transport.is_some()
    }

    /// Whether the server takes us.
    pub async fn test(&self) -> anyhow::Result<()> {
        match &self.transport {
            Some(transport) if !transport.test_connection().await? => {
                bail!("the mail server does not answer")
            }
            _ => Ok(()),
        }
    }

    async fn deliver(&self, mail: &Mail) -> anyhow::Result<()> {
        let transport = self
            .transport
            .as_ref()
            .context("no mail server is configured")?;
        let (subject, paragraphs) = mail.words();
        let paragraphs: Vec<_> = paragraphs.into_iter().filter(|p| !p.is_empty()).collect();
        let html: String = paragraphs.iter().map(|p| html(p)).collect();
        let message = Message::builder()
            .from(self.from.clone())
            .to(mail
                .to()
                .parse()
                .context("the address cannot be written to")?)
            .subject(subject)
            .multipart(MultiPart::alternative_plain_html(
                paragraphs.join("\n\n"),
                html,
            ))?;
        transport.send(message).await?;
        Ok(())
    }
}

/// What a transport is made of. Made only where a runtime is: its pool aborts the process elsewhere.
fn transport(config: &Config) -> anyhow::Result<Option<AsyncSmtpTransportBuilder>> {
    let url = match (&config.smtp_url, &config.sendgrid_api_key) {
        (Some(url), _) => url.expose().to_owned(),
        (None, Some(key)) => {
            let mut url = url::Url::parse("smtps://apikey@smtp.sendgrid.net:465")?;
            let _ = url.set_password(Some(key.expose()));
            url.into()
        }
        (None, None) => return Ok(None),
    };
    let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(&url)?;
    Ok(Some(transport.timeout(Some(TIMEOUT))))
}
