use super::{
    DONE, MISUSED,
    frame::{Form, over_app, say},
};
use crate::{
    App,
    auth::{
        audit,
        deletion::{self, Leaves},
        export, normalise_email,
    },
    config::Checked,
};
use anyhow::Context;
use clap::Subcommand;
use db::users::User;
use serde_json::json;
use std::{
    io::{IsTerminal, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};
use uuid::Uuid;

#[derive(Subcommand)]
pub enum Verb {
    /// Write everything that hangs on a user into a zip of JSON files
    Export {
        /// Their e-mail address or id
        user: String,
        /// The file; `-` is standard output. Default: export-ID.zip here
        #[arg(long)]
        to: Option<PathBuf>,
        #[command(flatten)]
        form: Form,
    },
    /// Delete a user with everything that is theirs, for good
    Delete {
        /// Their e-mail address or id
        user: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        form: Form,
    },
}

pub fn run(checked: Checked, verb: Verb) -> u8 {
    over_app(checked, async |app| perform(app, verb).await)
}

async fn perform(app: &App, verb: Verb) -> anyhow::Result<u8> {
    match verb {
        Verb::Export { user, to, form } => {
            let user = find(app, &user).await?;
            let to = to.unwrap_or_else(|| format!("export-{}.zip", user.id).into());
            let bytes = save(app, user.clone(), &to).await?;
            let document = json!({"id": user.id, "file": to, "bytes": bytes});
            let text = match form.json {
                true => document.to_string(),
                false => format!("{bytes} bytes in {}", to.display()),
            };
            match to.as_os_str() == "-" {
                // The archive itself is there.
                true => eprintln!("{text}"),
                false => say!("{text}"),
            }
        }
        Verb::Delete { user, yes, form } => {
            let user = find(app, &user).await?;
            if !yes && !confirmed(&user)? {
                eprintln!("Nothing was deleted. --yes deletes without asking.");
                return Ok(MISUSED);
            }
            delete(app, &user).await?;
            let text = format!("{} is deleted.", user.id);
            form.print(&json!({"id": user.id, "deleted": true}), &text);
        }
    }
    Ok(DONE)
}

/// By address or by id.
pub async fn find(app: &App, named: &str) -> anyhow::Result<User> {
    let found = match (Uuid::try_parse(named), normalise_email(named)) {
        (Ok(id), _) => db::users::by_id(&app.db, id).await?,
        (_, Some(email)) => db::users::by_email(&app.db, &email).await?,
        _ => None,
    };
    found.with_context(|| format!("there is no user {named}"))
}

async fn save(app: &App, user: User, to: &Path) -> anyhow::Result<u64> {
    if to.as_os_str() == "-" {
        return write(app, user, std::io::stdout().lock()).await;
    }
    // It is nobody else's on this machine either.
    let mut file = std::fs::OpenOptions::new();
    let file = file.write(true).create_new(true).mode(0o600).open(to);
    let file = file.with_context(|| format!("cannot make {}", to.display()))?;
    let written = write(app, user, file).await;
    if written.is_err() {
        // Half of it would look like all of it.
        let _ = std::fs::remove_file(to);
    }
    written
}

/// Writes a user's archive; gives how many bytes it has.
pub async fn write(app: &App, user: User, mut to: impl Write) -> anyhow::Result<u64> {
    let mut tx = app.db.begin().await?;
    let detail = json!({});
    audit::by_system(&mut tx, None, "user_exported", user.id, detail, app.now()).await?;
    tx.commit().await?;

    let (mut pieces, mut bytes) = (export::pieces(app, user), 0);
    while let Some(piece) = pieces.recv().await {
        let piece = piece?;
        to.write_all(&piece)?;
        bytes += piece.len() as u64;
    }
    to.flush()?;
    Ok(bytes)
}

/// Asks whoever sits there, if anyone does.
fn confirmed(user: &User) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    let name = user.email.as_deref().unwrap_or("a user without an address");
    eprint!(
        "Delete {name} ({}) with everything that is theirs, for good? Write yes: ",
        user.id
    );
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(answer.trim() == "yes")
}

/// Counts at once, on every instance that runs.
pub async fn delete(app: &App, user: &User) -> anyhow::Result<()> {
    let now = app.now();
    let mut tx = app.db.begin().await?;
    let detail = json!({"soft": false});
    audit::by_system(&mut tx, None, "user_deleted", user.id, detail, now).await?;
    deletion::delete(&mut tx, user.id, Leaves::Nothing, now).await?;
    tx.commit().await?;
    Ok(())
}
