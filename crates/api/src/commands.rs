//! What the binary does, by its first word.
use crate::config::{Checked, Config, Problem};
use clap::{Parser, Subcommand};
use frame::say;
use std::{collections::HashMap, process::ExitCode};

mod accept;
pub mod admin;
mod audit;
mod backup;
mod billing;
mod doctor;
mod frame;
mod health;
mod inbox;
mod keys;
pub mod mail;
mod migrate;
mod serve;
pub mod users;
mod webhooks;

/// Done; what was asked for is so.
const DONE: u8 = 0;
/// It was right to ask, but it failed.
const FAILED: u8 = 1;
/// Used or configured wrongly.
const MISUSED: u8 = 2;

/// A production API backend: sign-in, chat, subscriptions.
#[derive(Parser)]
#[command(
    name = "plinth",
    version,
    disable_help_subcommand = true,
    after_help = "Everything is configured by environment variables: `plinth config --example` prints them all."
)]
struct Line {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the API and do its jobs (the default)
    Serve {
        /// What this process does
        #[arg(long, value_enum, default_value_t = serve::Role::All)]
        role: serve::Role,
    },
    /// Bring the database's schema up to date, or take migrations back
    Migrate {
        #[command(subcommand)]
        step: Option<migrate::Step>,
    },
    /// Show what is configured, with secrets hidden
    Config {
        /// Print every variable in the form of a .env file
        #[arg(long, conflicts_with = "check")]
        example: bool,
        /// Say whether it is fit to start with, and nothing else
        #[arg(long)]
        check: bool,
    },
    /// Ask every configured service whether it works, and say what to do where it does not
    Doctor,
    /// Ask the server on this machine whether it lives, as a container's health check does
    Health,
    /// Who administers
    #[command(subcommand)]
    Admin(admin::Verb),
    /// The log of what was decided about accounts
    #[command(subcommand)]
    Audit(audit::Verb),
    /// Make a backup of the database, list those that are there, or look into one
    Backup(backup::Backup),
    /// What is sold: compare it with Stripe and RevenueCat, take in what was missed, set Stripe up
    #[command(subcommand)]
    Billing(billing::Verb),
    /// Move the database
    #[command(subcommand)]
    Db(backup::Database),
    /// The keys that sign tokens, and what they sign for servers
    #[command(subcommand)]
    Keys(keys::Verb),
    /// Addresses that mail no longer goes to
    #[command(subcommand)]
    Mail(mail::Verb),
    /// Print the OpenAPI description
    Openapi,
    /// Rewrite the files that are made from the code: .env.example and docs/
    Accept,
    /// Put a backup in the place of the database
    Restore(backup::Restore),
    /// A user's data, to hand over or to delete
    #[command(subcommand)]
    Users(users::Verb),
    /// Verify and send webhook events; see and repeat those that came
    #[command(subcommand)]
    Webhooks(webhooks::Verb),
}

/// Runs the command line; gives the exit code.
pub fn run() -> ExitCode {
    // One TLS provider, before anything opens a connection.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let command = Line::parse().command.unwrap_or(Command::Serve {
        role: serve::Role::All,
    });
    ExitCode::from(match command {
        Command::Config { example: true, .. } => print(&Config::example()),
        Command::Openapi => print(&crate::docs::json()),
        Command::Accept => done(accept::run()),
        Command::Health => done(health::run(&environment())),
        Command::Webhooks(verb) => webhooks::run(verb),
        Command::Serve { role } => configured(|checked| done(runtime(serve::run(checked, role)))),
        Command::Migrate { step } => configured(|checked| {
            done(runtime(migrate::run(
                checked.config,
                step.unwrap_or_default(),
            )))
        }),
        Command::Admin(verb) => configured(|checked| admin::run(checked, verb)),
        Command::Audit(verb) => configured(|checked| audit::run(checked.config, verb)),
        Command::Backup(asked) => backup::backup(asked),
        Command::Billing(verb) => configured(|checked| billing::run(checked, verb)),
        Command::Db(asked) => backup::database(asked),
        Command::Keys(verb) => configured(|checked| keys::run(checked, verb)),
        Command::Mail(verb) => configured(|checked| mail::run(checked, verb)),
        Command::Restore(asked) => backup::restore(asked),
        Command::Users(verb) => configured(|checked| users::run(checked, verb)),
        Command::Doctor => configured(|checked| runtime(doctor::run(checked))),
        Command::Config { check: true, .. } => configured(|checked| {
            warn(&checked.warnings);
            say!("The configuration is fit to start with.");
            DONE
        }),
        Command::Config { .. } => configured(|checked| {
            warn(&checked.warnings);
            say!("{:#?}", checked.config);
            DONE
        }),
    })
}

fn print(text: &str) -> u8 {
    frame::print(format_args!("{text}"));
    DONE
}

/// Runs `command` with the environment's configuration, or says everything that is wrong with it.
fn configured(command: impl FnOnce(Checked) -> u8) -> u8 {
    match Config::from_env(&environment()) {
        Ok(checked) => command(checked),
        Err(problems) => {
            let many = if problems.len() == 1 {
                "One thing is"
            } else {
                "Some things are"
            };
            eprintln!("{many} wrong with the configuration:\n");
            for problem in problems {
                eprintln!("  {problem}");
            }
            MISUSED
        }
    }
}

/// The environment, and `.env` beneath it in development.
fn environment() -> HashMap<String, String> {
    let mut environment: HashMap<_, _> = std::env::vars().collect();
    let production = environment
        .get("APP_ENV")
        .or(environment.get("NODE_ENV"))
        .is_some_and(|env| env.starts_with("prod"));
    if !production && let Ok(file) = dotenvy::dotenv_iter() {
        for (name, value) in file.flatten() {
            environment.entry(name).or_insert(value);
        }
    }
    environment
}

fn warn(warnings: &[Problem]) {
    for warning in warnings {
        eprintln!("Note: {warning}");
    }
}

fn runtime<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("threads and a poller")
        .block_on(future)
}

fn done(result: anyhow::Result<()>) -> u8 {
    frame::ended(result.map(|()| DONE))
}

#[cfg(test)]
pub use accept::files as generated_files;
#[cfg(test)]
pub use frame::Form;
