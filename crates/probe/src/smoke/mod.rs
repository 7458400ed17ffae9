//! Walks the product as a new user and says, step by step, what came instead of what should.
mod account;
mod chat;
mod codes;
mod health;
mod payments;
mod report;
mod walk;

use account::Account;
use anyhow::Result;
use codes::Codes;
use report::Outcome;
use serde_json::json;
use std::time::Duration;
use url::Url;
use uuid::Uuid;
use walk::Walk;

/// Walks through the product as a new user, and takes the user away again: health, closed doors, sign-up,
/// confirmation, chat, payments, the forgotten password, sign-out, deletion.
///
/// Without secrets the published ones of development are tried; where a server that is not on this machine
/// refuses them, what needs them is skipped. Give secrets by their variables: arguments can be read by
/// others on this machine.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The server, for example http://127.0.0.1:8080.
    #[arg(value_name = "URL", value_parser = web_address)]
    pub url: Url,

    /// Signs the Stripe events. Default: whsec_development_only.
    #[arg(
        long,
        env = "STRIPE_WEBHOOK_SECRET",
        hide_env_values = true,
        value_name = "S"
    )]
    pub stripe_secret: Option<String>,

    /// Authorizes the RevenueCat events. Default: development_only.
    #[arg(
        long,
        env = "REVENUECAT_WEBHOOK_SECRET",
        hide_env_values = true,
        value_name = "S"
    )]
    pub revenuecat_secret: Option<String>,

    /// Confirms the address and makes the code where no mailbox can be read, and reports a test error to Sentry
    /// (`plinth keys service-role`).
    #[arg(
        long,
        env = "SERVICE_ROLE_KEY",
        hide_env_values = true,
        value_name = "KEY"
    )]
    pub service_key: Option<String>,

    /// Where mails can be read: the simulated world's address. Default for a server on this machine
    /// without --service-key: http://127.0.0.1:8025.
    #[arg(long, value_name = "URL", value_parser = web_address)]
    pub mailbox: Option<Url>,

    /// The Stripe price that gives the plan `pro`.
    #[arg(long, value_name = "ID", default_value = "price_pro")]
    pub stripe_price: String,

    /// Seconds for one step.
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub timeout: u64,

    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

impl Args {
    fn codes(&self) -> Codes {
        match (&self.mailbox, &self.service_key) {
            (Some(url), _) => Codes::Mailbox(url.clone()),
            (None, Some(key)) => Codes::ServiceRole(key.clone()),
            (None, None) if is_loopback(&self.url) => {
                Url::parse("http://127.0.0.1:8025").map_or(Codes::Nowhere, Codes::Mailbox)
            }
            (None, None) => Codes::Nowhere,
        }
    }
}

fn web_address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    match url.scheme() {
        "http" | "https" if url.has_host() => Ok(url),
        _ => Err("has to start with http:// or https://".into()),
    }
}

/// Whether a URL never leaves this machine.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// `true`: every step that was taken went as it should.
pub async fn run(args: Args) -> Result<bool> {
    let mut walk = Walk::new(&args.url, Duration::from_secs(args.timeout))?;
    if walk.health().await {
        walk.whole_product(&args).await;
    }

    let failed = |step: &report::Step| step.outcome == Outcome::Failed;
    let ok = !walk.steps.iter().any(failed);
    if args.json {
        let report = json!({"url": args.url, "ok": ok, "steps": walk.steps});
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        report::print(&walk.steps);
    }
    Ok(ok)
}

impl Walk {
    async fn whole_product(&mut self, args: &Args) {
        self.closed_doors(is_loopback(&args.url)).await;
        let name = Uuid::new_v4().simple().to_string();
        let mut account = Account {
            email: format!("probe-{name}@example.com"),
            password: format!("Probe {name}"),
        };
        let codes = args.codes();
        match self.join(&account, &codes).await {
            Some(first) => {
                let session = self.sign_in(&account, first).await;
                self.chat(&session.access).await;
                self.payments(args, Some(&session)).await;
                self.sign_out(&session.access).await;
                self.forgotten_password(&mut account, &codes).await;
                self.leave(&account).await;
            }
            None => {
                for step in ["sign-in", "chat", "forgotten password", "sign-out"] {
                    self.skip(step, "a session", "the address was not confirmed");
                }
                self.payments(args, None).await;
            }
        }
        self.test_error(args.service_key.as_deref()).await;
    }

    async fn test_error(&mut self, service_key: Option<&str>) {
        let (step, expected) = ("POST /api/admin/test-error", "202; then look into Sentry");
        match service_key {
            Some(key) => {
                let answer = self.post("/api/admin/test-error", key, &json!({})).await;
                self.note(step, expected, &answer, answer.status == 202);
            }
            None => self.skip(step, expected, "needs --service-key"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loopback() {
        for (url, expected) in [
            ("http://127.0.0.1:8080", true),
            ("http://[::1]:1", true),
            ("http://api.localhost", true),
            ("https://api.example.com", false),
            ("http://10.0.0.1", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(url).unwrap()), expected, "{url}");
        }
    }
}
