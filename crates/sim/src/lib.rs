//! The outside world on loopback: a language model, a mailbox, providers to sign in with, and senders
//! of Stripe and RevenueCat events. `cargo run` with nothing configured uses it, tests and benchmarks start their own; the
//! image does not contain it.
//!
//! ```no_run
//! # async fn run() -> std::io::Result<()> {
//! let world = sim::start(sim::Options::default()).await?;
//! println!("OPENAI_BASE_URL={} SMTP_URL={}", world.llm_url(), world.smtp_url());
//! # Ok(()) }
//! ```

// An invoice of Stripe's has more fields than json! has patience.
#![recursion_limit = "256"]

mod dice;
mod events;
pub mod faults;
mod home;
pub mod llm;
pub mod mailbox;
mod net;
pub mod oidc;
mod payments;
pub mod revenuecat;
pub mod stripe;

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::middleware;
use tokio::task::JoinSet;

pub use crate::llm::{Call, Llm, Reply, Step};
pub use crate::mailbox::{Mailbox, Message};
pub use crate::oidc::Oidc;
use crate::payments::board::Board;
use crate::payments::clock::Clock;
pub use crate::payments::faults::{ApiFault, Faults};
pub use crate::payments::outbox::Letter;
use crate::payments::outbox::Outbox;

pub struct Options {
    /// Port of the model, the mailbox page, the providers and the event senders; 0 takes any.
    pub http_port: u16,
    /// Port mail is accepted on; 0 takes any.
    pub smtp_port: u16,
    /// Where events are sent to; without it, and without [`World::send_events_to`], the senders
    /// refuse.
    pub webhooks: Option<WebhookTarget>,
    /// Between two words of an answer.
    pub llm_gap: Duration,
    /// What the payment providers tell is not sent, but waits for [`World::letters`].
    pub by_hand: bool,
}

#[derive(Clone)]
pub struct WebhookTarget {
    /// Of the backend, as `http://127.0.0.1:8080`.
    pub base_url: String,
    pub stripe_secret: String,
    pub revenuecat_secret: String,
}

impl Default for Options {
    /// Any ports, a natural pace (about 40 words a second), nowhere to send events to.
    fn default() -> Self {
        Self {
            http_port: 0,
            smtp_port: 0,
            webhooks: None,
            llm_gap: Duration::from_millis(25),
            by_hand: false,
        }
    }
}

/// Starts the world on 127.0.0.1. A port that is taken is replaced by a free one.
pub async fn start(options: Options) -> io::Result<World> {
    let http = net::bind(options.http_port).await?;
    let smtp = net::bind(options.smtp_port).await?;
    let (http_addr, smtp_addr) = (http.local_addr()?, smtp.local_addr()?);
    let mailbox = Mailbox::default();
    let llm = Llm::new(options.llm_gap);
    let oidc = Oidc::new(http_addr);
    let target = events::Target::default();
    let clock = Clock::system();
    let outbox = Outbox::new(clock.clone());
    let stripe = stripe::Account::new(http_addr, clock.clone(), outbox.clone());
    let revenuecat = revenuecat::Project::new(clock.clone(), outbox.clone());

    let router = Router::new()
        .merge(home::routes(http_addr, smtp_addr, target.clone()))
        .merge(events::routes(
            target.clone(),
            stripe.clone(),
            revenuecat.clone(),
        ))
        .nest("/v1", llm::routes(llm.clone()))
        .merge(mailbox::routes(mailbox.clone()))
        .merge(oidc::routes(oidc.clone()))
        .merge(payments::board::routes(Board {
            account: stripe.clone(),
            project: revenuecat.clone(),
            outbox: outbox.clone(),
            clock: clock.clone(),
        }))
        .merge(stripe::routes(stripe.clone()))
        .merge(revenuecat::routes(revenuecat.clone(), outbox.clone()))
        .layer(middleware::from_fn(net::local_names_only));

    let mut tasks = JoinSet::new();
    tasks.spawn(net::accept(http, move |stream| {
        net::http(stream, router.clone())
    }));
    let letters = mailbox.clone();
    tasks.spawn(net::accept(smtp, move |stream| {
        mailbox::smtp::session(stream, letters.clone())
    }));

    if !options.by_hand {
        let (account, project) = (stripe.clone(), revenuecat.clone());
        let catch_up = move || {
            account.with(|_| ());
            project.catch_up();
        };
        tasks.spawn(outbox.clone().send_for_ever(catch_up));
    }

    let world = World {
        http: http_addr,
        smtp: smtp_addr,
        mailbox,
        llm,
        oidc,
        stripe,
        revenuecat,
        clock,
        outbox,
        target,
        _tasks: tasks,
    };
    if let Some(target) = options.webhooks {
        world.send_events_to(target);
    }
    Ok(world)
}

/// A running simulation. Dropping it frees the ports and closes every connection.
pub struct World {
    http: SocketAddr,
    smtp: SocketAddr,
    mailbox: Mailbox,
    llm: Llm,
    oidc: Oidc,
    stripe: stripe::Account,
    revenuecat: revenuecat::Project,
    clock: Clock,
    outbox: Outbox,
    target: events::Target,
    _tasks: JoinSet<std::convert::Infallible>,
}

impl World {
    /// The page that says what is simulated and where.
    pub fn home_url(&self) -> String {
        format!("http://{}/", self.http)
    }

    /// An OpenAI base URL; any non-empty key is accepted.
    pub fn llm_url(&self) -> String {
        format!("http://{}/v1", self.http)
    }

    /// The same model as Anthropic's; the path begins with `/v1` there.
    pub fn anthropic_url(&self) -> String {
        format!("http://{}", self.http)
    }

    /// The page that shows the mail that was sent.
    pub fn mailbox_url(&self) -> String {
        format!("http://{}/mailbox", self.http)
    }

    pub fn smtp_url(&self) -> String {
        format!("smtp://{}", self.smtp)
    }

    /// SendGrid's API; any non-empty key is accepted.
    pub fn sendgrid_url(&self) -> String {
        format!("http://{}", self.http)
    }

    /// For a backend whose address is known only now: it may need the world's before it can start.
    pub fn send_events_to(&self, target: WebhookTarget) {
        let url = target.base_url.trim_end_matches('/');
        self.stripe
            .send_to(&format!("{url}/webhooks/stripe"), &target.stripe_secret);
        self.revenuecat.send_to(
            &format!("{url}/webhooks/revenuecat"),
            &target.revenuecat_secret,
        );
        events::set(&self.target, target);
    }

    /// Stripe's API, its pay page and its portal; any key that begins with `sk_test_` is accepted.
    pub fn stripe_url(&self) -> String {
        format!("http://{}", self.http)
    }

    /// The board: what the payment providers tell, their clock, and what goes wrong.
    pub fn payments_url(&self) -> String {
        format!("http://{}/payments", self.http)
    }

    pub fn stripe(&self) -> &stripe::Account {
        &self.stripe
    }

    /// RevenueCat's API; any key that begins with `sk_` is accepted.
    pub fn revenuecat_url(&self) -> String {
        format!("http://{}", self.http)
    }

    pub fn revenuecat(&self) -> &revenuecat::Project {
        &self.revenuecat
    }

    /// The payment providers tell this time from now on, in Unix seconds, and as much more as they were
    /// turned on.
    pub fn tell_payments_time(&self, clock: impl Fn() -> i64 + Send + Sync + 'static) {
        self.clock.follow(clock);
    }

    /// What the payment providers have to send now, with the headers to send it with, in a world that
    /// leaves that to the caller. Each goes back to [`Self::answered`].
    pub fn letters(&self) -> Vec<(Letter, Vec<(&'static str, String)>)> {
        self.stripe.with(|_| ());
        self.revenuecat.catch_up();
        let letters = self.outbox.due().into_iter();
        letters
            .map(|letter| (letter.clone(), self.outbox.seal(&letter)))
            .collect()
    }

    pub fn answered(&self, letter: Letter, status: u16) {
        self.outbox.answered(letter, Some(status));
    }

    /// What goes wrong between the payment providers and the backend.
    pub fn set_faults(&self, faults: Faults) {
        self.outbox.set_faults(faults);
    }

    pub fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }

    pub fn llm(&self) -> &Llm {
        &self.llm
    }

    pub fn oidc(&self) -> &Oidc {
        &self.oidc
    }
}

/// Unix seconds.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_secs()).unwrap_or(i64::MAX)
}
