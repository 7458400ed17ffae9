//! The keys that sign tokens, and what they sign for servers.
use super::{
    DONE,
    frame::{Form, over_app, say},
};
use crate::{
    App,
    auth::{
        access,
        keys::rotation::{self, Revoked, Rotated},
        service_role,
    },
    config::{Checked, some_seconds},
};
use clap::Subcommand;
use db::{Timestamp, keys::SigningKey};
use serde_json::{Value, json};
use std::time::Duration;

#[derive(Subcommand)]
pub enum Verb {
    /// List the keys, what each does, and what is to be done with it
    List {
        #[command(flatten)]
        form: Form,
    },
    /// Replace the key that signs, in two steps: first a new one is published, later it signs
    Rotate {
        /// Let the new key sign at once. Who verifies tokens offline may refuse them for ten minutes
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        form: Form,
    },
    /// Refuse from now on what a key signed: after a leak, or when it is of no more use
    Revoke {
        /// Its id, as `list` says it
        // One in 64 begins with a dash.
        #[arg(allow_hyphen_values = true)]
        kid: String,
        #[command(flatten)]
        form: Form,
    },
    /// Print a service-role key: what a server needs to administer users. Keep it from browsers and apps
    ServiceRole {
        /// How long it is good for, like 90d
        #[arg(long, value_parser = some_seconds, default_value = "365d")]
        ttl: Duration,
    },
}

pub fn run(checked: Checked, verb: Verb) -> u8 {
    over_app(checked, async |app| perform(app, verb).await.map(|()| DONE))
}

async fn perform(app: &App, verb: Verb) -> anyhow::Result<()> {
    match verb {
        Verb::List { form } => list(app, &form).await,
        Verb::Rotate { force, form } => rotate(app, force, &form).await,
        Verb::Revoke { kid, form } => revoke(app, &kid, &form).await,
        Verb::ServiceRole { ttl } => {
            let key = service_role::issue(&app.keys, &access::issuer(app), ttl, app.now())?;
            say!("{key}");
            Ok(())
        }
    }
}

async fn list(app: &App, form: &Form) -> anyhow::Result<()> {
    for (n, (kid, alg)) in app.keys.brought().enumerate() {
        let does = if n == 0 { "signs" } else { "verifies" };
        let document = json!({"kid": kid, "alg": alg, "source": "file", "state": does});
        form.print(
            &document,
            &format!("{kid}  {alg}  {does}, from AUTH_JWT_KEYS_FILE"),
        );
    }
    let mut keys = db::keys::all(&app.db).await?;
    keys.sort_by_key(|key| std::cmp::Reverse(key.created_at));
    for key in keys {
        form.print(&document(&key), &line(app, &key));
    }
    Ok(())
}

fn document(key: &SigningKey) -> Value {
    json!({
        "kid": key.kid,
        "alg": key.alg,
        "source": "database",
        "state": state(key),
        "created_at": key.created_at,
        "activated_at": key.activated_at,
        "retired_at": key.retired_at,
        "revoked_at": key.revoked_at,
        "usable_at": (key.state == "standby").then(|| rotation::usable_at(key)),
    })
}

fn state(key: &SigningKey) -> &str {
    match key.revoked_at {
        Some(_) => "revoked",
        None => &key.state,
    }
}

fn line(app: &App, key: &SigningKey) -> String {
    let reached = [key.revoked_at, key.retired_at, key.activated_at];
    let since = reached
        .into_iter()
        .flatten()
        .next()
        .unwrap_or(key.created_at);
    let (state, age) = (state(key), age(app.now().since(since)));
    format!(
        "{}  {}  {state} for {age}: {}",
        key.kid,
        key.alg,
        advice(app, key)
    )
}

/// What it does, and what is to be done with it.
fn advice(app: &App, key: &SigningKey) -> String {
    let now = app.now();
    match state(key) {
        "active" if app.keys.are_brought() => "verifies what it signed before".into(),
        "active" => "signs".into(),
        "standby" if rotation::usable_at(key) > now => {
            format!("published; may sign from {}", rotation::usable_at(key))
        }
        "standby" => "known to everyone; `plinth keys rotate` lets it sign".into(),
        "retired" => match last_token(app, key) {
            until if until > now => format!("verifies; its last access token ends at {until}"),
            _ => format!(
                "verifies service-role keys, if anything; `plinth keys revoke {}` once those are made anew",
                key.kid
            ),
        },
        _ => "verifies nothing".into(),
    }
}

/// When the last access token that it signed has ended.
fn last_token(app: &App, key: &SigningKey) -> Timestamp {
    key.retired_at.unwrap_or(key.created_at) + app.config.auth.auth_access_ttl
}

fn age(for_so_long: Duration) -> String {
    match for_so_long.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

async fn rotate(app: &App, force: bool, form: &Form) -> anyhow::Result<()> {
    let mut tx = app.db.begin().await?;
    let rotated = rotation::rotate(&app.keys, &mut tx, force, app.now()).await?;
    tx.commit().await?;
    let (document, text) = match rotated {
        Rotated::Published { kid, usable_at } => (
            json!({"rotated": "published", "kid": kid, "usable_at": usable_at}),
            format!(
                "{kid} is published beside the key that signs. Rotate again after {usable_at}, when everyone who verifies has seen it, and it signs."
            ),
        ),
        Rotated::TooEarly { kid, usable_at } => (
            json!({"rotated": "waiting", "kid": kid, "usable_at": usable_at}),
            format!(
                "{kid} is published, but not everyone has seen it yet. Rotate again after {usable_at}; --force waits for nobody."
            ),
        ),
        Rotated::Activated { kid, retired } => (
            json!({"rotated": "activated", "kid": kid, "retired": retired}),
            format!(
                "{kid} signs, within 5 s on every instance. {retired} still verifies what it signed, and its private half is gone."
            ),
        ),
    };
    form.print(&document, &text);
    Ok(())
}

async fn revoke(app: &App, kid: &str, form: &Form) -> anyhow::Result<()> {
    let mut tx = app.db.begin().await?;
    let revoked = rotation::revoke(&app.keys, &mut tx, kid, app.now()).await?;
    tx.commit().await?;
    let (replaced_by, text) = match revoked {
        Revoked::Before => (None, format!("{kid} was revoked before.")),
        Revoked::Done => (
            None,
            format!(
                "{kid} verifies nothing any more, within 5 s on every instance. Service-role keys that it signed are dead."
            ),
        ),
        Revoked::Replaced { by } => {
            let text = format!(
                "{kid} verifies nothing any more, and {by} signs, within 5 s on every instance. Clients refresh and go on; service-role keys have to be made anew: `plinth keys service-role`."
            );
            (Some(by), text)
        }
    };
    form.print(&json!({"revoked": kid, "replaced_by": replaced_by}), &text);
    Ok(())
}
