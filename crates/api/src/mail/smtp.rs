use super::{TIMEOUT, mailer::Post};
use crate::{config::Secret, jobs::Hopeless};
use anyhow::{Context, bail};
use db::Timestamp;
use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::{
        Mailbox, MultiPart,
        header::{HeaderName, HeaderValue},
    },
    transport::smtp::AsyncSmtpTransportBuilder,
};
use std::time::{Duration, SystemTime};

pub struct Server(AsyncSmtpTransport<Tokio1Executor>);

/// What a transport is made of. Made only where a runtime is: its pool aborts the process elsewhere.
pub fn builder(url: &Secret) -> anyhow::Result<AsyncSmtpTransportBuilder> {
    let builder = AsyncSmtpTransport::<Tokio1Executor>::from_url(url.expose())?;
    Ok(builder.timeout(Some(TIMEOUT)))
}

impl Server {
    pub fn new(url: &Secret) -> anyhow::Result<Self> {
        Ok(Self(builder(url)?.build()))
    }

    pub async fn test(&self) -> anyhow::Result<()> {
        if !self.0.test_connection().await? {
            bail!("the mail server does not answer")
        }
        Ok(())
    }

    pub async fn send(&self, post: Post<'_>, now: Timestamp) -> anyhow::Result<()> {
        let message = message(post, now).context(Hopeless)?;
        match self.0.send(message).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_permanent() => Err(anyhow::Error::new(error).context(Hopeless)),
            Err(error) => Err(error.into()),
        }
    }
}

pub fn message(post: Post<'_>, now: Timestamp) -> anyhow::Result<Message> {
    let header = |name, value: &str| {
        HeaderValue::new(HeaderName::new_from_ascii_str(name), value.to_owned())
    };
    let id = post.message_id();
    let at = SystemTime::UNIX_EPOCH + Duration::from_micros(now.as_micros().max(0) as u64);
    let message = Message::builder()
        .from(post.from.clone())
        .to(Mailbox::new(None, post.to))
        .date(at)
        .message_id(Some(id))
        // Nobody is to answer that they are on holiday, RFC 3834.
        .raw_header(header("Auto-Submitted", "auto-generated"))
        .raw_header(header("Content-Language", post.locale.tag()))
        .subject(post.letter.subject)
        .multipart(MultiPart::alternative_plain_html(
            post.letter.text,
            post.letter.html,
        ))?;
    Ok(message)
}
