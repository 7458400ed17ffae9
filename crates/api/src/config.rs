//! Configuration: environment variables, declared once.
//!
//! Each feature declares its variables beside its code as a clap struct; the doc comment is the help
//! text, the long name in capitals is the variable, its aliases are alternative names. clap itself
//! stops at the first fault, so [`Config::from_env`] gives it one variable at a time and collects
//! **all** problems, then asks `check` for what no single variable can know.
use crate::billing::plans::Plans;
use crate::{auth, backup, billing, chat, http, mail, telemetry};
use clap::{Args, CommandFactory, Parser, ValueEnum};
use std::{collections::HashMap, path::PathBuf, time::Duration};

mod example;
mod secret;
#[cfg(test)]
mod tests;

pub use secret::Secret;

/// Every variable Plinth reads.
#[derive(Debug, Clone, Parser)]
#[command(name = "plinth", no_binary_name = true, disable_help_flag = true)]
pub struct Config {
    #[command(flatten)]
    pub core: Core,
    #[command(flatten)]
    pub http: http::Config,
    #[command(flatten)]
    pub auth: auth::Config,
    #[command(flatten)]
    pub chat: chat::Config,
    #[command(flatten)]
    pub billing: billing::Config,
    #[command(flatten)]
    pub mail: mail::Config,
    #[command(flatten)]
    pub backup: backup::Config,
    #[command(flatten)]
    pub telemetry: telemetry::Config,
}

/// Where it runs and what it stands on.
#[derive(Debug, Clone, Args)]
#[group(skip)]
#[command(next_help_heading = "Core")]
pub struct Core {
    /// In `development` what is not configured is simulated on loopback; `production` refuses to start on anything simulated.
    #[arg(long, default_value = "development", visible_alias = "node-env")]
    pub app_env: AppEnv,

    /// The address to listen on; 0.0.0.0 in a container.
    #[arg(long, default_value = "127.0.0.1")]
    pub host: std::net::IpAddr,

    /// The port to listen on; 0 is any free one.
    #[arg(long, default_value_t = 8080)]
    pub port: u16,

    /// Where clients reach this API, without a slash at the end. Tokens name it as their issuer, mails link to it. Default: the address it listens on.
    #[arg(long)]
    pub public_url: Option<url::Url>,

    /// SQLite file or PostgreSQL server. `postgresql+asyncpg://` and the like are understood.
    #[arg(
        long,
        default_value = "sqlite://data/plinth.db",
        visible_alias = "database-path"
    )]
    pub database_url: db::DatabaseUrl,

    /// PostgreSQL without a pooler between, for migrations, backups and to hear of jobs, when DATABASE_URL goes through one.
    #[arg(long, visible_aliases = ["direct-url", "database-unpooled-url"])]
    pub database_direct_url: Option<db::DatabaseUrl>,

    /// Connections at most (SQLite: readers).
    #[arg(long, default_value = "10")]
    pub database_max_connections: std::num::NonZeroU32,

    /// Seconds to wait for a connection before a request is answered 503.
    #[arg(long, value_parser = some_seconds, default_value = "3")]
    pub database_acquire_timeout: Duration,

    /// Seconds after which PostgreSQL ends a statement.
    #[arg(long, value_parser = seconds, default_value = "30")]
    pub database_statement_timeout: Duration,

    /// Milliseconds from which a statement is logged as slow.
    #[arg(long, value_parser = millis, default_value = "250")]
    pub database_slow_statement: Duration,

    /// Bring the schema up to date at start. Turn off where a release job runs `plinth migrate`.
    #[arg(long, action = clap::ArgAction::Set, value_parser = clap::builder::BoolishValueParser::new(), default_value = "true")]
    pub migrate_on_start: bool,

    /// Redis, to share rate limits between instances. Without it each instance counts for itself.
    #[arg(long)]
    pub redis_url: Option<Secret>,

    /// Seconds that requests, streams and jobs have to end after SIGTERM.
    #[arg(long, value_parser = seconds, default_value = "25")]
    pub shutdown_timeout: Duration,

    /// Shown in `/health`, logs and Sentry.
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"))]
    pub app_version: String,

    /// Refused in production, where nothing may show its insides.
    #[arg(long, action = clap::ArgAction::Set, value_parser = clap::builder::BoolishValueParser::new(), default_value = "false")]
    pub debug: bool,
}

impl Core {
    /// Where a whole database is worked on: migrations, backups, `LISTEN`.
    pub fn direct_url(&self) -> &db::DatabaseUrl {
        match (&self.database_direct_url, self.database_url.path()) {
            (Some(direct), None) => direct,
            _ => &self.database_url,
        }
    }

    pub fn database_options(&self) -> db::Options {
        db::Options {
            max_connections: self.database_max_connections.get(),
            acquire_timeout: self.database_acquire_timeout,
            statement_timeout: self.database_statement_timeout,
            slow_statement: self.database_slow_statement,
            schema: None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AppEnv {
    #[value(alias = "dev", alias = "test")]
    Development,
    #[value(alias = "prod")]
    Production,
}

/// One thing wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub variable: String,
    pub fault: String,
    pub remedy: String,
}

impl Problem {
    pub fn new(
        variable: impl Into<String>,
        fault: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            variable: variable.into(),
            fault: fault.into(),
            remedy: remedy.into(),
        }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}\n    {}", self.variable, self.fault, self.remedy)
    }
}

/// A configuration that may be used, and what its owner should hear all the same.
#[derive(Debug, Clone)]
pub struct Checked {
    pub config: Config,
    pub warnings: Vec<Problem>,
}

impl Config {
    /// Reads a snapshot of the environment. `NAME_FILE` names a file that holds the value, as mounted
    /// secrets do; empty values count as absent. Two names of one variable have to agree, or are
    /// put together where it is a list.
    pub fn from_env(env: &HashMap<String, String>) -> Result<Checked, Vec<Problem>> {
        let mut problems = vec![];
        let mut arguments = vec![];
        for arg in Self::command().get_arguments() {
            let given = match given(arg, env) {
                Ok(given) => given,
                Err(problem) => {
                    problems.push(problem);
                    continue;
                }
            };
            let Some((variable, value)) = given else {
                continue;
            };
            let argument = format!("--{}={value}", arg.get_long().unwrap_or_default());
            let alone = clap::Command::new("plinth")
                .no_binary_name(true)
                .arg(arg.clone().required(false));
            match alone.try_get_matches_from([&argument]) {
                Ok(_) => arguments.push(argument),
                Err(error) => problems.push(invalid(arg, variable, &value, &error)),
            }
        }
        let mut config = Self::try_parse_from(arguments)
            .map_err(|e| vec![Problem::new("The configuration", e.to_string(), "")])?;
        config.chat.choose_model();
        let mut warnings = vec![];
        config.check(&mut problems, &mut warnings);
        warnings.extend(example::misspelt(env));
        if problems.is_empty() {
            Ok(Checked { config, warnings })
        } else {
            Err(problems)
        }
    }

    /// What no single variable can know.
    fn check(&self, problems: &mut Vec<Problem>, warnings: &mut Vec<Problem>) {
        self.http.check(self.is_production(), problems);
        self.auth.check(self.is_production(), problems, warnings);
        self.chat.check(self.is_production(), problems, warnings);
        self.billing.check(self.is_production(), problems, warnings);
        self.check_model(warnings);
        self.mail.check(self.is_production(), &self.auth, problems);
        self.telemetry.check(problems);
        self.backup
            .check(self.core.direct_url(), problems, warnings);
        let redis = self.core.redis_url.as_ref().map(Secret::expose);
        if redis.is_some_and(|url| redis::Client::open(url).is_err()) {
            problems.push(Problem::new(
                "REDIS_URL",
                "cannot be read",
                "Write redis://user:password@host:6379, or rediss:// for TLS, with special characters percent-encoded.",
            ));
        }
        if !self.is_production() {
            return;
        }
        if self.core.debug {
            problems.push(Problem::new(
                "DEBUG",
                "is on in production",
                "Unset it: errors must not show their insides to clients.",
            ));
        }
        match &self.core.public_url {
            None => problems.push(Problem::new("PUBLIC_URL", "is not set", "Write the address that clients use, for example https://api.example.com.")),
            Some(url) if url.scheme() != "https" && !crate::http::is_loopback(url) => problems.push(Problem::new(
                "PUBLIC_URL",
                "is not https",
                "Put a proxy with TLS in front (Fly, Railway and Caddy do it by themselves) and write https://….",
            )),
            Some(_) => {}
        }
        if self.core.database_url.may_be_plaintext() {
            warnings.push(Problem::new(
                "DATABASE_URL",
                "may carry passwords and rows over the network in the clear",
                "Append ?sslmode=verify-full, or ?sslmode=require where the provider has its own certificate authority. On a private network (Fly, Railway) that is your call.",
            ));
        }
    }

    fn check_model(&self, warnings: &mut Vec<Problem>) {
        let model = &self.chat.llm_model;
        let priced =
            Plans::load(&self.billing, &self.chat).is_ok_and(|plans| plans.has_price(model));
        if !priced && !self.chat.allows_simulated_models() {
            let fault =
                format!("is {model}, which has no price: what it costs is counted as nothing");
            warnings.push(Problem::new(
                "LLM_MODEL",
                fault,
                "Write its price into crates/api/plans.toml.",
            ));
        }
    }

    pub fn is_production(&self) -> bool {
        self.core.app_env == AppEnv::Production
    }

    /// Every variable in the form of a `.env` file.
    pub fn example() -> String {
        example::dotenv()
    }

    /// Every variable as a Markdown table.
    pub fn table() -> String {
        example::markdown()
    }
}

/// The variable's value under whichever of its names it was given.
fn given(
    arg: &clap::Arg,
    env: &HashMap<String, String>,
) -> Result<Option<(String, String)>, Problem> {
    let mut found: Option<(String, String)> = None;
    for name in example::names(arg) {
        for (name, is_file) in [(name.clone(), false), (format!("{name}_FILE"), true)] {
            let Some(value) = env
                .get(&name)
                .map(|value| unquoted(value))
                .filter(|value| !value.is_empty())
            else {
                continue;
            };
            let value = if is_file {
                let read = std::fs::read_to_string(PathBuf::from(value));
                let read = read.map_err(|e| {
                    Problem::new(
                        &name,
                        format!("names a file that cannot be read ({e})"),
                        "Mount the secret there, or set the variable without _FILE.",
                    )
                });
                unquoted(&read?).to_owned()
            } else {
                value.to_owned()
            };
            match &mut found {
                Some((_, other)) if *other == value => {}
                Some((_, list)) if arg.get_value_delimiter().is_some() => {
                    list.push(',');
                    list.push_str(&value);
                }
                Some((first, _)) => {
                    return Err(Problem::new(
                        name,
                        format!("and {first} are two names of one variable, and differ"),
                        "Keep one of them.",
                    ));
                }
                None => found = Some((name, value)),
            }
        }
    }
    Ok(found)
}

/// Without the white space, line ends and quotes that copying leaves around a value.
fn unquoted(value: &str) -> &str {
    let value = value.trim();
    ['"', '\'']
        .iter()
        .find_map(|q| value.strip_prefix(*q)?.strip_suffix(*q))
        .unwrap_or(value)
        .trim()
}

fn invalid(arg: &clap::Arg, variable: String, value: &str, error: &clap::Error) -> Problem {
    use std::error::Error;
    let shown = if example::is_secret(arg) {
        "its value".into()
    } else {
        format!("{value:?}")
    };
    let why = error
        .source()
        .map(|source| format!(" ({source})"))
        .unwrap_or_default();
    let possible: Vec<_> = arg
        .get_possible_values()
        .iter()
        .map(|value| value.get_name().to_owned())
        .collect();
    let remedy = match possible.as_slice() {
        [] => arg.get_help().map(ToString::to_string).unwrap_or_default(),
        words => format!("Write one of: {}.", words.join(", ")),
    };
    Problem::new(variable, format!("cannot be {shown}{why}"), remedy)
}

/// Whole seconds, or with a unit: `90`, `90s`, `15m`, `2h`, `30d`.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(
        text.find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len()),
    );
    let unit = match unit.trim() {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err("a number of seconds, or one with a unit: 90s, 15m, 2h, 30d".into()),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "a number of seconds".to_owned())?;
    number
        .checked_mul(unit)
        .filter(|s| *s <= 10 * 365 * 86_400)
        .map(Duration::from_secs)
        .ok_or_else(|| "at most ten years".into())
}

/// The same, where none at all would be a mistake.
pub fn some_seconds(text: &str) -> Result<Duration, String> {
    match seconds(text)? {
        Duration::ZERO => Err("at least one second".into()),
        some => Ok(some),
    }
}

fn millis(text: &str) -> Result<Duration, String> {
    text.parse()
        .map(Duration::from_millis)
        .map_err(|_| "a number of milliseconds".into())
}
