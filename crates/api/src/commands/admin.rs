use super::{
    DONE,
    frame::{Form, over_app},
};
use crate::{
    App,
    auth::{
        admin::bootstrap::{self, HANDED_OVER_TTL},
        normalise_email,
    },
    config::Checked,
};
use anyhow::Context;
use clap::Subcommand;
use db::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

#[derive(Subcommand)]
pub enum Verb {
    /// Make an admin of an address: a new user with a password for one sign-in, or a user who is there
    Create {
        /// Their e-mail address
        #[arg(value_parser = address)]
        email: String,
        /// Give a user who is there such a password too, in place of theirs
        #[arg(long)]
        new_password: bool,
        #[command(flatten)]
        form: Form,
    },
}

fn address(text: &str) -> Result<String, String> {
    normalise_email(text).ok_or_else(|| "an e-mail address".into())
}

pub fn run(checked: Checked, verb: Verb) -> u8 {
    let Verb::Create {
        email,
        new_password,
        form,
    } = verb;
    over_app(checked, async |app| {
        let made = create(app, &email, new_password).await?;
        form.print(&made.document(), &made.text());
        Ok(DONE)
    })
}

/// An admin, new or not.
pub struct Made {
    id: Uuid,
    email: String,
    created: bool,
    /// With when it stops to be good.
    password: Option<(String, Timestamp)>,
}

impl Made {
    pub fn document(&self) -> Value {
        json!({
            "id": self.id,
            "email": self.email,
            "created": self.created,
            "password": self.password.as_ref().map(|(password, _)| password),
            "password_expires_at": self.password.as_ref().map(|(_, until)| until),
        })
    }

    fn text(&self) -> String {
        let email = &self.email;
        match &self.password {
            Some((password, until)) => format!(
                "{email} is an admin now. This password signs in once, until {until}, and lets them choose another:\n\n  {password}\n"
            ),
            None => format!(
                "{email} is an admin now, and signs in as before. Whoever is to have another way in: --new-password."
            ),
        }
    }
}

/// Makes a user of the address an admin.
pub async fn create(app: &App, email: &str, new_password: bool) -> anyhow::Result<Made> {
    let email = normalise_email(email).context("this is not an e-mail address")?;
    let found = db::users::by_email(&app.db, &email).await?;
    let found = found.filter(|user| user.email_confirmed_at.is_some());
    let created = found.is_none();
    let password = (created || new_password).then(password);
    let hash = match &password {
        Some(password) => Some(app.passwords.hash(password).await?),
        None => None,
    };

    let now = app.now();
    let mut tx = app.db.begin().await?;
    let id = match (found, &hash) {
        (None, Some(hash)) => {
            let user = bootstrap::newcomer(&mut tx, &email, hash, now).await?;
            user.context("somebody signed up with it just now: try again")?
                .id
        }
        (Some(user), hash) => {
            bootstrap::promote(&mut tx, &user, hash.as_deref(), now).await?;
            user.id
        }
        (None, None) => anyhow::bail!("a new user needs a password"),
    };
    tx.commit().await?;

    let until = now + HANDED_OVER_TTL;
    Ok(Made {
        id,
        email,
        created,
        password: password.map(|password| (password, until)),
    })
}

/// A hundred bits, in letters and digits that are not taken for one another.
fn password() -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let letters = rand::random::<[u8; 20]>().map(|byte| ALPHABET[usize::from(byte % 32)]);
    let groups: Vec<_> = letters.chunks(5).map(String::from_utf8_lossy).collect();
    groups.join("-")
}
