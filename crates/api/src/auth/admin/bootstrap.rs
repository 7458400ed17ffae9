//! The first admin: made of the environment once, or by `plinth admin create`, with a password that whoever
//! set it up knows too. So it signs in once, and opens nothing but the choice of another.
use crate::{
    App,
    auth::{audit, normalise_email, password},
    config::{Problem, Secret},
};
use anyhow::Context;
use db::{
    Timestamp, Tx,
    users::{NewUser, User},
};
use serde_json::json;
use std::time::Duration;
use uuid::Uuid;

/// What is done once in the life of an installation.
const FIRST_ADMIN: &str = "first_admin";
/// A password that was handed over is good for so long.
pub const HANDED_OVER_TTL: Duration = Duration::from_secs(7 * 86_400);

/// The first admin.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct Config {
    /// Who administers from the first start on, once in the life of the database. Later: `plinth admin create EMAIL`.
    #[arg(long)]
    pub admin_email: Option<String>,

    /// Their password, for one sign-in within seven days of the first start, which lets them choose one of their own.
    #[arg(long)]
    pub admin_password: Option<Secret>,
}

/// Passwords of templates and tutorials; what holds one of them is no better.
const PUBLISHED: [&str; 5] = ["admin", "change", "default", "passw", "plinth"];
const MIN_CHARS: u8 = 12;

impl Config {
    pub fn check(
        &self,
        production: bool,
        problems: &mut Vec<Problem>,
        warnings: &mut Vec<Problem>,
    ) {
        let email = self.admin_email.as_deref();
        if email.is_some_and(|email| normalise_email(email).is_none()) {
            problems.push(Problem::new(
                "ADMIN_EMAIL",
                "is not an e-mail address",
                "Write the address that the first admin signs in with.",
            ));
        }
        let lonely = |variable, other| {
            let fault = format!("is set without {other}, so that no admin is made");
            Problem::new(variable, fault, format!("Set {other} too, or neither."))
        };
        match (&self.admin_email, &self.admin_password) {
            (Some(_), None) => warnings.push(lonely("ADMIN_EMAIL", "ADMIN_PASSWORD")),
            (None, Some(_)) => warnings.push(lonely("ADMIN_PASSWORD", "ADMIN_EMAIL")),
            _ => {}
        }
        let (Some(email), Some(password)) = (&self.admin_email, &self.admin_password) else {
            return;
        };
        if production && is_guessable(password.expose(), normalise_email(email).as_deref()) {
            problems.push(Problem::new(
                "ADMIN_PASSWORD",
                "is short, well known or made of the address",
                "Make one with `openssl rand -base64 18`; it is good for one sign-in.",
            ));
        }
    }
}

fn is_guessable(given: &str, email: Option<&str>) -> bool {
    let lower = given.to_lowercase();
    let distinct: std::collections::HashSet<_> = lower.chars().collect();
    password::check(given, email, MIN_CHARS).is_err()
        || distinct.len() < 6
        || PUBLISHED.iter().any(|word| lower.contains(word))
}

/// Makes the admin of `ADMIN_EMAIL`, unless one was ever made. Of instances that start together one does.
pub async fn run(app: &App) -> anyhow::Result<()> {
    let config = &app.config.auth.admin;
    let (Some(email), Some(password)) = (&config.admin_email, &config.admin_password) else {
        return Ok(());
    };
    if db::done_once::is_done(&app.db, FIRST_ADMIN)
        .await?
        .is_some()
    {
        return Ok(());
    }
    let email = normalise_email(email).context("ADMIN_EMAIL is not an e-mail address")?;
    let hash = app.passwords.hash(password.expose()).await?;
    let now = app.now();
    let mut tx = app.db.begin().await?;
    if !db::done_once::begin(&mut tx, FIRST_ADMIN, now).await? {
        return Ok(());
    }
    let Some(user) = newcomer(&mut tx, &email, &hash, now).await? else {
        // Whoever it is may have signed up with the address before its owner did.
        tracing::warn!(
            "ADMIN_EMAIL is the address of a user who is there already: nobody was made an admin. `plinth admin create EMAIL` does it, if they are who you mean"
        );
        return Ok(());
    };
    tx.commit().await?;
    tracing::info!(user = %user.id, "the admin of ADMIN_EMAIL was made; ADMIN_PASSWORD is good for one sign-in and can be unset");
    Ok(())
}

/// A new admin with a password that others know. `None` where the address is somebody's.
pub async fn newcomer(
    tx: &mut Tx,
    email: &str,
    hash: &str,
    now: Timestamp,
) -> db::Result<Option<User>> {
    let new = NewUser {
        id: Uuid::now_v7(),
        identity: Uuid::now_v7(),
        email: Some(email),
        confirmed_at: Some(now),
        password_hash: None,
        role: "admin",
        user_metadata: json!({}),
    };
    let Some(user) = db::users::create(tx, new, now).await? else {
        return Ok(None);
    };
    db::users::delete_rivals(tx, email, user.id).await?;
    db::users::hand_over_password(tx, user.id, hash, now + HANDED_OVER_TTL, now).await?;
    let detail = json!({"role": "admin"});
    audit::by_system(tx, None, "user_signedup", user.id, detail, now).await?;
    Ok(Some(user))
}

/// Makes a user an admin, however they signed up; with `hash`, a password that others know takes the place
/// of theirs. What they were signed in with before, ends.
pub async fn promote(
    tx: &mut Tx,
    user: &User,
    hash: Option<&str>,
    now: Timestamp,
) -> db::Result<()> {
    if db::users::set_role(tx, user.id, "admin", now).await? || hash.is_some() {
        db::sessions::revoke_of_user(tx, user.id, None, "role_changed", now).await?;
    }
    if let Some(hash) = hash {
        db::users::hand_over_password(tx, user.id, hash, now + HANDED_OVER_TTL, now).await?;
        db::one_time_tokens::delete_of_user(tx, user.id).await?;
    }
    let detail = json!({"role": "admin", "password": hash.is_some()});
    audit::by_system(tx, None, "user_modified", user.id, detail, now).await
}
