//! The operator's answers to «why was it refused» and «does it arrive».
use super::{DONE, FAILED, MISUSED, frame::say, inbox};
use crate::billing::{DEVELOPMENT_REVENUECAT_SECRET, DEVELOPMENT_STRIPE_SECRET};
use clap::{Args, Subcommand, ValueEnum};
use std::{
    io::Read,
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

#[derive(Subcommand)]
pub enum Verb {
    /// Say whether a delivery would be accepted, offline
    Verify(Verify),
    /// Sign an event and post it
    Send(Send),
    #[command(flatten)]
    Inbox(inbox::Verb),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Provider {
    Stripe,
    Revenuecat,
}

#[derive(Args)]
pub struct Verify {
    #[arg(long)]
    provider: Provider,
    /// The endpoint's secret; several are tried in turn
    #[arg(long, required = true)]
    secret: Vec<String>,
    /// The Stripe-Signature header, or RevenueCat's Authorization (or X-RevenueCat-Webhook-Signature, when it begins with t=)
    #[arg(long, allow_hyphen_values = true)]
    header: String,
    /// Unix seconds at which it arrived; now by default
    #[arg(long)]
    now: Option<i64>,
    /// Seconds that the signature's time may differ
    #[arg(long, default_value_t = 300)]
    tolerance: i64,
    /// The body exactly as it arrived; - is standard input
    file: PathBuf,
}

#[derive(Args)]
pub struct Send {
    #[arg(long)]
    provider: Provider,
    /// The secret to sign with; the development one by default
    #[arg(long)]
    secret: Option<String>,
    /// The event; by default one that gives the user of --user-id the plan pro
    #[arg(long)]
    file: Option<PathBuf>,
    /// Whom the event is about
    #[arg(long)]
    user_id: Option<String>,
    /// Where the API is
    #[arg(default_value = "http://127.0.0.1:8080")]
    url: url::Url,
}

pub fn run(verb: Verb) -> u8 {
    match verb {
        Verb::Verify(verify) => verify.run(),
        Verb::Send(send) => super::runtime(send.run()).unwrap_or_else(|error| {
            eprintln!("plinth: {error:#}");
            FAILED
        }),
        Verb::Inbox(verb) => inbox::run(verb),
    }
}

fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs() as i64
}

fn read(file: &PathBuf) -> std::io::Result<Vec<u8>> {
    let mut body = vec![];
    if file.as_os_str() == "-" {
        std::io::stdin().read_to_end(&mut body)?;
    } else {
        body = std::fs::read(file)?;
    }
    Ok(body)
}

impl Verify {
    fn run(self) -> u8 {
        let body = match read(&self.file) {
            Ok(body) => body,
            Err(error) => {
                eprintln!("plinth: cannot read {}: {error}", self.file.display());
                return MISUSED;
            }
        };
        let now = self.now.unwrap_or_else(now);
        let event = match self.provider {
            Provider::Stripe => webhooks::stripe::verify(
                &body,
                Some(&self.header),
                &self.secret,
                now,
                self.tolerance,
            )
            .map_err(|refused| refused.to_string())
            .and_then(|_| {
                webhooks::stripe::read(&body)
                    .map(|event| event.id)
                    .map_err(|e| e.to_string())
            }),
            Provider::Revenuecat => {
                let signed = self.header.starts_with("t=");
                let (authorization, signature) = if signed {
                    (None, Some(&*self.header))
                } else {
                    (Some(&*self.header), None)
                };
                let secrets = webhooks::revenuecat::Secrets {
                    authorization: if signed { &[] } else { &self.secret },
                    signing: if signed { &self.secret } else { &[] },
                };
                webhooks::revenuecat::verify(
                    &body,
                    authorization,
                    signature,
                    &secrets,
                    now,
                    self.tolerance,
                )
                .map_err(|refused| refused.to_string())
                .and_then(|_| {
                    webhooks::revenuecat::read(&body)
                        .map(|event| event.id)
                        .map_err(|e| e.to_string())
                })
            }
        };
        match event {
            Ok(id) => {
                say!("accepted {id}");
                DONE
            }
            Err(reason) => {
                say!("refused: {reason}");
                FAILED
            }
        }
    }
}

impl Send {
    async fn run(self) -> anyhow::Result<u8> {
        let body = match &self.file {
            Some(file) => read(file)?,
            None => self.example()?,
        };
        let client = reqwest::Client::builder()
            .timeout(std::time::Duration::from_secs(30))
            .build()?;
        let base = self.url.as_str().trim_end_matches('/');
        let request = match self.provider {
            Provider::Stripe => {
                let secret = self.secret.as_deref().unwrap_or(DEVELOPMENT_STRIPE_SECRET);
                client.post(format!("{base}/webhooks/stripe")).header(
                    webhooks::stripe::SIGNATURE_HEADER,
                    webhooks::stripe::sign(&body, secret, now()),
                )
            }
            Provider::Revenuecat => {
                let secret = self
                    .secret
                    .as_deref()
                    .unwrap_or(DEVELOPMENT_REVENUECAT_SECRET);
                client
                    .post(format!("{base}/webhooks/revenuecat"))
                    .bearer_auth(secret)
            }
        };
        let answer = request
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await?;
        let (status, text) = (answer.status(), answer.text().await?);
        say!("{status} {text}");
        Ok(if status.is_success() { DONE } else { FAILED })
    }

    #[cfg(feature = "sim")]
    fn example(&self) -> anyhow::Result<Vec<u8>> {
        let event = match self.provider {
            Provider::Stripe => sim::stripe::event(
                &sim::stripe::Stripe {
                    user_id: self.user_id.clone(),
                    ..Default::default()
                },
                now(),
            ),
            Provider::Revenuecat => {
                let mut spec = sim::revenuecat::RevenueCat::default();
                if let Some(user) = &self.user_id {
                    spec.user_id = user.clone();
                }
                sim::revenuecat::event(&spec, now())
            }
        };
        Ok(event.to_string().into_bytes())
    }

    #[cfg(not(feature = "sim"))]
    fn example(&self) -> anyhow::Result<Vec<u8>> {
        anyhow::bail!("name an event with --file: this build has none of its own")
    }
}
