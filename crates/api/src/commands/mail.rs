//! Addresses that are not written to.
use super::{
    DONE, FAILED,
    frame::{Form, over_app},
};
use crate::{App, auth::audit, config::Checked};
use clap::Subcommand;
use serde_json::json;

#[derive(Subcommand)]
pub enum Verb {
    /// List the addresses that are not written to: mail bounced, its reader called it spam, or Apple's relay is off
    Muted {
        #[command(flatten)]
        form: Form,
    },
    /// Write to an address again. Where SendGrid suppresses it, it has to be taken off its list there as well
    Unmute {
        /// The address
        email: String,
        #[command(flatten)]
        form: Form,
    },
}

pub fn run(checked: Checked, verb: Verb) -> u8 {
    over_app(checked, async |app| match verb {
        Verb::Muted { form } => muted(app, &form).await,
        Verb::Unmute { email, form } => unmute(app, &email, &form).await,
    })
}

async fn muted(app: &App, form: &Form) -> anyhow::Result<u8> {
    let mut after = String::new();
    loop {
        let page = db::muted_addresses::page(&app.db, &after, 100).await?;
        let Some((last, _)) = page.last() else {
            return Ok(DONE);
        };
        after.clone_from(last);
        for (email, since) in page {
            let document = json!({"email": email, "since": since});
            form.print(&document, &format!("{email}  since {since}"));
        }
    }
}

pub async fn unmute(app: &App, email: &str, form: &Form) -> anyhow::Result<u8> {
    let (email, now) = (email.trim().to_lowercase(), app.now());
    let user = db::users::by_email(&app.db, &email).await?;
    let mut tx = app.db.begin().await?;
    let was_muted = db::muted_addresses::unmute(&mut tx, &email).await?;
    if let Some(user) = user.filter(|_| was_muted) {
        audit::by_system(&mut tx, None, "address_unmuted", user.id, json!({}), now).await?;
    }
    tx.commit().await?;

    let text = match was_muted {
        true => format!("{email} is written to again."),
        false => format!("{email} was written to all along."),
    };
    form.print(&json!({"email": email, "unmuted": was_muted}), &text);
    Ok(if was_muted { DONE } else { FAILED })
}
