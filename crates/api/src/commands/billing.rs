use super::{
    DONE, FAILED,
    frame::{Form, over_app, say},
    users,
};
use crate::{
    App,
    billing::{
        phones, poll,
        reconcile::{self, Report},
        setup::{self, Done, Outcome},
        stripe_api::Stripe,
    },
    config::{Checked, seconds},
};
use anyhow::Context;
use clap::Subcommand;
use db::Timestamp;
use serde_json::json;
use std::io::IsTerminal;

#[derive(Subcommand)]
pub enum Verb {
    /// Compare what is kept of subscriptions with what Stripe and RevenueCat say, and make it so
    Reconcile {
        /// Say what differs, and change nothing
        #[arg(long)]
        dry_run: bool,
        /// One user's alone: their e-mail address or id
        #[arg(long)]
        user: Option<String>,
        #[command(flatten)]
        form: Form,
    },
    /// Take in events that Stripe had since then, and no webhook told; a running server applies them
    Backfill {
        /// A day, a time, or how long ago: 2026-11-20, 2026-11-20T09:30:00Z, 12h, 7d. Stripe keeps events for 30 days
        #[arg(long, value_parser = since)]
        since: Since,
        #[command(flatten)]
        form: Form,
    },
    /// Make at Stripe what selling needs: products, prices, portal and webhook; again does no harm
    SetupStripe {
        #[command(flatten)]
        form: Form,
    },
}

#[derive(Debug, Clone, Copy)]
pub enum Since {
    At(Timestamp),
    Ago(std::time::Duration),
}

fn since(text: &str) -> Result<Since, String> {
    if let Ok(ago) = seconds(text) {
        return Ok(Since::Ago(ago));
    }
    let time = match text.contains('T') {
        true => text.to_owned(),
        false => format!("{text}T00:00:00Z"),
    };
    let time = chrono::DateTime::parse_from_rfc3339(&time);
    let time =
        time.map_err(|_| "a day, a time, or how long ago: 2026-11-20, 12h, 7d".to_owned())?;
    Ok(Since::At(Timestamp::from_unix(time.timestamp())))
}

pub fn run(checked: Checked, verb: Verb) -> u8 {
    over_app(checked, async |app| match verb {
        Verb::Reconcile {
            dry_run,
            user,
            form,
        } => reconcile(app, Report::of(dry_run), user, &form).await,
        Verb::Backfill { since, form } => backfill(app, stripe(app)?, since, &form).await,
        Verb::SetupStripe { form } => setup(app, stripe(app)?, &form).await,
    })
}

fn stripe(app: &App) -> anyhow::Result<&Stripe> {
    let api = app.stripe.as_ref();
    api.context("nothing is sold on the web here: set STRIPE_SECRET_KEY")
}

async fn reconcile(
    app: &App,
    mut report: Report,
    user: Option<String>,
    form: &Form,
) -> anyhow::Result<u8> {
    let (stripe, revenuecat) = (app.stripe.as_ref(), app.revenuecat.as_ref());
    anyhow::ensure!(
        stripe.is_some() || revenuecat.is_some(),
        "there is nobody to compare with: set STRIPE_SECRET_KEY or REVENUECAT_API_KEY"
    );
    let user = match user {
        Some(named) => Some(users::find(app, &named).await?.id),
        None => None,
    };
    let tell = |report: &Report| progress(form, &format!("{} compared …", report.compared));
    match (stripe, user) {
        (Some(api), Some(user)) => reconcile::user(app, api, user, &mut report).await?,
        (Some(api), None) => reconcile::everything(app, api, &mut report, tell).await?,
        (None, _) => {}
    }
    match (revenuecat, user) {
        (Some(api), Some(user)) => phones::user(app, api, user, &mut report).await?,
        (Some(api), None) => phones::everyone(app, api, &mut report, tell).await?,
        (None, _) => {}
    }
    progress(form, "");
    if form.json {
        say!("{}", json!(report));
    } else {
        for drift in &report.drift {
            say!(
                "{}  {}: {} is {}",
                drift.subscription,
                drift.field,
                drift.was,
                drift.is
            );
        }
        let done = match (report.drift.len(), report.dry_run) {
            (0, _) => "nothing differs".to_owned(),
            (n, true) => format!("{n} differences, nothing was changed"),
            (n, false) => format!("{n} differences were repaired"),
        };
        say!("{} compared: {done}.", report.compared);
        if report.failed > 0 {
            say!("{} could not be read, and stay as they are.", report.failed);
        }
    }
    Ok(if report.failed > 0 { FAILED } else { DONE })
}

async fn backfill(app: &App, api: &Stripe, since: Since, form: &Form) -> anyhow::Result<u8> {
    let since = match since {
        Since::At(at) => at,
        Since::Ago(ago) => app.now() - ago,
    };
    let told = |found: poll::Found| progress(form, &format!("{} events …", found.events));
    let found = poll::backfill(app, api, since, told).await?;
    progress(form, "");
    let (events, missed) = (found.events, found.missed);
    match form.json {
        true => say!("{}", json!({"events": events, "missed": missed})),
        false => say!("{events} events since {since}, of which {missed} had not been told."),
    }
    Ok(DONE)
}

async fn setup(app: &App, api: &Stripe, form: &Form) -> anyhow::Result<u8> {
    let mut variables = vec![];
    let tell = |done: Done| {
        if form.json {
            say!("{}", json!(done));
        } else {
            let outcome = match done.outcome {
                Outcome::Made => "made",
                Outcome::Updated => "brought up to date",
                Outcome::Found => "there already",
            };
            say!("{:<8} {:<32} {outcome}", done.what, done.id);
            if let Some(note) = &done.note {
                say!("         {note}");
            }
        }
        variables.extend(done.variable);
    };
    setup::run(app, api, tell).await?;
    if !form.json {
        say!("\nSet these where Plinth runs; a webhook's secret is not shown again:\n");
        for (name, value) in variables {
            say!("{name}={value}");
        }
    }
    Ok(DONE)
}

/// For whoever watches; nothing wipes it.
fn progress(form: &Form, text: &str) {
    if !form.json && std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K{text}");
    }
}
