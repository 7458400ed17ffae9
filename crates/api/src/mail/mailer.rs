use super::{
    Config, Locale,
    letter::{Letter, Templates},
    sealed, sendgrid, smtp,
};
use crate::{App, http, jobs::Hopeless};
use anyhow::{Context, bail};
use lettre::{Address, message::Mailbox};
use serde::Deserialize;
use serde_json::{Map, Value};
use uuid::Uuid;

/// A mail as its job keeps it.
#[derive(Deserialize)]
pub struct Draft {
    #[serde(rename = "mail")]
    pub kind: String,
    pub to: String,
    #[serde(default)]
    locale: Locale,
    #[serde(flatten)]
    facts: Map<String, Value>,
}

pub struct Mailer {
    transport: Option<Transport>,
    templates: Templates,
    from: Mailbox,
}

enum Transport {
    Smtp(smtp::Server),
    SendGrid(sendgrid::Api),
}

/// What a transport sends.
pub struct Post<'a> {
    /// The same at every attempt, so that whoever gets two sees one.
    pub id: Uuid,
    pub kind: &'a str,
    pub locale: Locale,
    pub from: &'a Mailbox,
    pub to: Address,
    pub letter: Letter,
}

impl Post<'_> {
    /// RFC 5322, section 3.6.4.
    pub fn message_id(&self) -> String {
        format!("<{}@{}>", self.id, self.from.email.domain())
    }
}

impl Mailer {
    pub fn new(config: &Config, http: http::Client) -> anyhow::Result<Self> {
        let transport = match (&config.smtp_url, &config.sendgrid_api_key) {
            (Some(url), _) => Some(Transport::Smtp(smtp::Server::new(url)?)),
            (None, Some(key)) => {
                let api = sendgrid::Api::new(&config.sendgrid_api_base, key.clone(), http);
                Some(Transport::SendGrid(api))
            }
            (None, None) => None,
        };
        Ok(Self {
            transport,
            templates: Templates::load().context("the words of mails")?,
            from: config.mail_from.clone(),
        })
    }

    pub fn is_configured(&self) -> bool {
        self.transport.is_some()
    }

    /// Whether the server takes us.
    pub async fn test(&self) -> anyhow::Result<()> {
        match &self.transport {
            Some(Transport::Smtp(server)) => server.test().await,
            Some(Transport::SendGrid(api)) => api.test().await,
            None => Ok(()),
        }
    }

    /// Writes a mail, and hands it to the server.
    pub async fn deliver(&self, app: &App, id: Uuid, draft: Draft) -> anyhow::Result<()> {
        let Draft {
            kind,
            to,
            locale,
            mut facts,
        } = draft;
        let address = to.parse().context("no mail can be sent to this address");
        let address = address.context(Hopeless)?;
        for fact in facts.values_mut() {
            *fact = sealed::open(&app.keys, &to, fact.take())?;
        }
        facts.insert("to".into(), to.as_str().into());
        facts.insert("sender".into(), self.sender().into());
        let post = Post {
            id,
            kind: &kind,
            locale,
            from: &self.from,
            to: address,
            letter: self.templates.write(&kind, locale, &facts)?,
        };
        match &self.transport {
            Some(Transport::Smtp(server)) => server.send(post, app.now()).await,
            Some(Transport::SendGrid(api)) => api.send(post).await,
            None => bail!("no mail server is configured"),
        }
    }

    /// How readers know who we are.
    fn sender(&self) -> &str {
        let name = self.from.name.as_deref();
        name.unwrap_or_else(|| self.from.email.domain())
    }
}
