//! `plinth serve`: everything that happens between the start and the last breath.
use super::warn;
use crate::{
    App, Config,
    app::{Clock, Simulated},
    auth::{admin::bootstrap, keys},
    chat,
    config::Checked,
    health,
    http::{self, Listening},
    jobs, telemetry,
};
use anyhow::Context;
use clap::ValueEnum;
use db::Db;
use std::{
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Which part of the work a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Requests and jobs
    All,
    /// Requests alone
    Api,
    /// Jobs alone; health and metrics are served all the same
    Worker,
}

/// How long load balancers have to notice that this instance is no longer ready, in production.
const NOTICE: Duration = Duration::from_secs(3);
/// What is left of SHUTDOWN_TIMEOUT for closing when streams are told to resume elsewhere.
const LAST_WORDS: Duration = Duration::from_secs(2);

pub async fn run(checked: Checked, role: Role) -> anyhow::Result<()> {
    let Checked {
        mut config,
        warnings,
    } = checked;
    // From here on the process can be told to stop.
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let address = SocketAddr::new(config.core.host, config.core.port);
    let listening = Listening::bind(address).await.with_context(|| {
        format!("cannot listen on {address}; is the port in use? Choose another with PORT")
    })?;
    config.core.port = listening.address.port();

    let world = prepare_development(&mut config).await?;
    let _telemetry = telemetry::start(&config);
    warn(&warnings);
    let client = http::Client::default();
    // What will be needed is made beside the opening of the database, and fails at once.
    let made = config.is_production().then(|| {
        let client = client.clone();
        tokio::task::spawn_blocking(move || client.get().map(drop))
    });
    let routes = health::starting(config.core.app_version.clone());
    let db = tokio::select! {
        opened = http::meanwhile(&listening, routes, open(&config)) => opened?,
        // Nothing has begun that would have to end.
        () = stop_signal(&mut terminate, &mut interrupt) => return Ok(()),
    };
    if let Some(made) = made {
        made.await??;
    }
    let simulated = world.as_ref().map(World::simulated).unwrap_or_default();
    let app = App::with_client(config, db, client, simulated, Clock::system()).await?;
    bootstrap::run(&app)
        .await
        .context("making the admin of ADMIN_EMAIL")?;

    announce(&app, role, listening.address, world.as_ref());
    let router = match role {
        Role::All | Role::Api => crate::router(&app),
        Role::Worker => crate::worker_router(&app),
    };
    tokio::spawn(telemetry::upkeep(app.clone()));
    tokio::spawn(chat::watch::run(app.clone()));
    let worker = (role != Role::Api).then(|| tokio::spawn(jobs::work(app.clone())));
    let server = tokio::spawn(http::serve(app.clone(), listening, router));

    tokio::select! {
        () = stop_signal(&mut terminate, &mut interrupt) => {}
        () = app.db.lost() => {
            app.not_ready.cancel();
            anyhow::bail!("the database file {} is gone, or another is in its place; start again with the one that counts", app.config.core.database_url);
        }
    }
    tokio::select! {
        () = drain(&app, server, worker) => {}
        () = stop_signal(&mut terminate, &mut interrupt) => tracing::warn!("told twice to stop; stopping at once"),
    }
    Ok(())
}

async fn stop_signal(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Not ready, then no new connections, then streams, answers and jobs end, then the database.
async fn drain(
    app: &App,
    server: tokio::task::JoinHandle<()>,
    worker: Option<tokio::task::JoinHandle<()>>,
) {
    tracing::info!(
        seconds = app.config.core.shutdown_timeout.as_secs(),
        "draining"
    );
    app.not_ready.cancel();
    if app.config.is_production() {
        tokio::time::sleep(NOTICE).await;
    }
    app.draining.cancel();
    app.tasks.close();
    let told_to_resume = async {
        tokio::time::sleep(app.config.core.shutdown_timeout.saturating_sub(LAST_WORDS)).await;
        app.streams.stop_all();
        std::future::pending::<()>().await
    };
    let ended = async {
        let _ = server.await;
        if let Some(worker) = worker {
            let _ = worker.await;
        }
        app.tasks.wait().await;
    };
    tokio::select! {
        () = ended => {}
        () = told_to_resume => {}
        () = tokio::time::sleep(app.config.core.shutdown_timeout + LAST_WORDS) => tracing::warn!("not everything had ended at the end of SHUTDOWN_TIMEOUT"),
    }
    app.db.close().await;
    tracing::info!("stopped");
}

/// The database, at once or when it answers, with its schema up to date.
pub async fn open(config: &Config) -> anyhow::Result<Db> {
    let options = config.core.database_options();
    let db = open_patiently(config, &options).await?;
    if config.core.migrate_on_start {
        match &config.core.database_direct_url {
            Some(direct) => {
                let direct = Db::open(direct, &options).await?;
                direct.migrate().await?;
                direct.close().await;
            }
            None => {
                db.migrate().await?;
                return Ok(db);
            }
        }
    }
    // Also after migrating elsewhere: the two addresses may lead to two databases.
    let pending = db
        .migrations()
        .await?
        .iter()
        .filter(|migration| !migration.applied)
        .count();
    anyhow::ensure!(
        pending == 0,
        "{pending} migrations are pending and MIGRATE_ON_START is off: run `plinth migrate` first"
    );
    Ok(db)
}

/// A server that is still starting, or waking up, is waited for; a file is there or not.
async fn open_patiently(config: &Config, options: &db::Options) -> anyhow::Result<Db> {
    // Longer than a server takes to start after a crash; a wrong address is said at once, and at the end.
    const ATTEMPTS: u32 = 300;
    let url = &config.core.database_url;
    for attempt in 1.. {
        match Db::open(url, options).await {
            Ok(db) => return Ok(db),
            Err(error) if error.is_unavailable() && attempt < ATTEMPTS => {
                if attempt == 1 {
                    tracing::warn!(%error, "{url} does not answer yet; waiting for it");
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Err(error) => {
                return Err(anyhow::Error::new(error).context(format!("cannot use {url}")));
            }
        }
    }
    unreachable!("the loop ends by returning")
}

/// Where development keeps what it makes: beside the database file.
fn data_folder(config: &Config) -> PathBuf {
    let beside = config
        .core
        .database_url
        .path()
        .and_then(Path::parent)
        .filter(|folder| !folder.as_os_str().is_empty());
    beside.unwrap_or(Path::new("data")).to_owned()
}

/// In development, fills in what is not configured: a secret of its own, and the simulated world.
async fn prepare_development(config: &mut Config) -> anyhow::Result<Option<World>> {
    if config.is_production() {
        return Ok(None);
    }
    prepare_secret(config)?;
    World::start(config).await.map(Some)
}

/// In development, makes a secret where none is configured, and keeps it.
pub fn prepare_secret(config: &mut Config) -> anyhow::Result<()> {
    if config.auth.jwt_secret.is_empty() && !config.is_production() {
        let file = data_folder(config).join("development.secret");
        let secret = keys::development_secret(&file)
            .with_context(|| format!("cannot keep the development secret in {}", file.display()))?;
        config.auth.jwt_secret = vec![secret];
    }
    Ok(())
}

/// The simulated world, as far as this configuration needs it.
struct World {
    simulated: Simulated,
    /// To sign in with, by name.
    providers: Vec<&'static str>,
    #[cfg(feature = "sim")]
    world: sim::World,
}

impl World {
    fn simulated(&self) -> Simulated {
        self.simulated
    }

    #[cfg(not(feature = "sim"))]
    async fn start(_: &mut Config) -> anyhow::Result<Self> {
        Ok(Self {
            simulated: Simulated::default(),
            providers: vec![],
        })
    }

    /// Points every real client whose service is not configured at its stand-in.
    #[cfg(feature = "sim")]
    async fn start(config: &mut Config) -> anyhow::Result<Self> {
        use crate::{
            auth::simulated,
            billing::{
                DEVELOPMENT_REVENUECAT_KEY, DEVELOPMENT_REVENUECAT_SECRET, DEVELOPMENT_STRIPE_KEY,
                DEVELOPMENT_STRIPE_SECRET,
            },
        };
        let billing = &mut config.billing;
        let mut simulated = Simulated {
            llm: config.chat.is_simulated(),
            mail: config.mail.smtp_url.is_none() && config.mail.sendgrid_api_key.is_none(),
            payments: billing.stripe_webhook_secret.is_empty() && !billing.takes_revenuecat(),
            providers: false,
        };
        // A secret of one's own is for events of one's own, which nothing that is simulated knows.
        let sells = billing.stripe_webhook_secret.is_empty() && billing.stripe_secret_key.is_none();
        let tells = !billing.takes_revenuecat() && billing.revenuecat_api_key.is_none();
        if billing.stripe_webhook_secret.is_empty() {
            billing.stripe_webhook_secret = vec![DEVELOPMENT_STRIPE_SECRET.to_owned().into()];
        }
        if !billing.takes_revenuecat() {
            billing.revenuecat_webhook_secret =
                vec![DEVELOPMENT_REVENUECAT_SECRET.to_owned().into()];
        }
        let first = |secrets: &[crate::config::Secret]| {
            secrets
                .first()
                .map(|secret| secret.expose().to_owned())
                .unwrap_or_default()
        };
        let webhooks = sim::WebhookTarget {
            base_url: format!(
                "http://{}",
                SocketAddr::new(loopback(config.core.host), config.core.port)
            ),
            stripe_secret: first(&billing.stripe_webhook_secret),
            revenuecat_secret: first(&billing.revenuecat_webhook_secret),
        };
        let options = sim::Options {
            http_port: 8025,
            smtp_port: 1025,
            webhooks: Some(webhooks),
            ..sim::Options::default()
        };
        let world = sim::start(options)
            .await
            .context("the simulated world cannot start")?;
        if simulated.llm {
            let providers = &mut config.chat.providers;
            providers.openai_base_url = world.llm_url().parse()?;
            providers.gemini_base_url = world.llm_url().parse()?;
            providers.anthropic_base_url = world.anthropic_url().parse()?;
        }
        if sells {
            config.billing.stripe_secret_key = Some(DEVELOPMENT_STRIPE_KEY.to_owned().into());
            config.billing.stripe_api_base = world.stripe_url().parse()?;
        }
        if tells {
            let key = DEVELOPMENT_REVENUECAT_KEY.to_owned();
            config.billing.revenuecat_api_key = Some(key.into());
            config.billing.revenuecat_api_base = world.revenuecat_url().parse()?;
        }
        if simulated.mail {
            config.mail.smtp_url = Some(world.smtp_url().into());
        }
        let providers = simulated::stand_in(&mut config.auth.providers, world.oidc())?;
        simulated.providers = !providers.is_empty();
        Ok(Self {
            simulated,
            providers,
            world,
        })
    }

    #[cfg(feature = "sim")]
    fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = vec![("Simulated world", self.world.home_url())];
        if self.simulated.mail {
            lines.push(("Mailbox", self.world.mailbox_url()));
        }
        if self.simulated.payments {
            lines.push(("Payments", self.world.payments_url()));
        }
        lines
    }

    #[cfg(not(feature = "sim"))]
    fn lines(&self) -> Vec<(&'static str, String)> {
        vec![]
    }
}

#[cfg(feature = "sim")]
fn loopback(host: std::net::IpAddr) -> std::net::IpAddr {
    if host.is_unspecified() {
        std::net::Ipv4Addr::LOCALHOST.into()
    } else {
        host
    }
}

/// For a person in development, for a log elsewhere.
fn announce(app: &App, role: Role, address: SocketAddr, world: Option<&World>) {
    let core = &app.config.core;
    tracing::info!(
        version = core.app_version,
        environment = if app.config.is_production() { "production" } else { "development" },
        port = address.port(),
        database = %core.database_url,
        role = ?role,
        "Plinth serves"
    );
    let Some(world) = world else { return };
    let url = app.public_url();
    let mut lines = vec![("API", url.clone()), ("Reference", format!("{url}/docs"))];
    lines.extend(world.lines());
    lines.push(("Data", core.database_url.to_string()));
    let Simulated {
        llm,
        mail,
        payments,
        providers,
    } = app.simulated;
    let sign_in = format!("sign-in with {}", world.providers.join(", "));
    let parts = [
        (llm, "the language model"),
        (mail, "mail"),
        (payments, "Stripe and RevenueCat"),
        (providers, &sign_in),
    ];
    let simulated: Vec<_> = parts
        .into_iter()
        .filter(|(on, _)| *on)
        .map(|(_, part)| part)
        .collect();
    lines.push((
        "Simulated",
        if simulated.is_empty() {
            "nothing".into()
        } else {
            simulated.join("; ")
        },
    ));
    let lines: String = lines
        .iter()
        .map(|(name, value)| format!("  {name:<16} {value}\n"))
        .collect();
    let version = &core.app_version;
    let hint = "Ctrl-C stops it. Configure it with .env: see .env.example.";
    // Whether or not anybody reads it.
    let _ = write!(
        std::io::stdout(),
        "\n  Plinth {version}\n\n{lines}\n  {hint}\n\n"
    );
}
