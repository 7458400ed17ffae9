use super::{
    DONE, FAILED,
    frame::{Form, ended},
    runtime,
};
use crate::{
    Config,
    auth::chain::{self, Broken, Found},
};
use anyhow::Context;
use clap::Subcommand;
use db::Db;
use serde_json::{Value, json};
use std::io::IsTerminal;

#[derive(Subcommand)]
pub enum Verb {
    /// Say whether every decision is as it was sealed; exit 1, and the first that is not
    Verify {
        /// A place and hash that you kept, from the log or from an earlier run, as PLACE:HASH
        #[arg(long, value_parser = kept)]
        kept: Option<(i64, Vec<u8>)>,
        #[command(flatten)]
        form: Form,
    },
}

fn kept(text: &str) -> Result<(i64, Vec<u8>), String> {
    let parts = text.split_once(':').and_then(|(place, hash)| {
        let hash = hex::decode(hash.trim()).ok()?;
        Some((place.trim().parse().ok()?, hash))
    });
    parts
        .filter(|(place, hash)| *place > 0 && hash.len() == 32)
        .ok_or_else(|| "a place and a hash, as PLACE:HASH".into())
}

pub fn run(config: Config, verb: Verb) -> u8 {
    let Verb::Verify { kept, form } = verb;
    let found = runtime(async {
        let db = Db::open(&config.core.database_url, &config.core.database_options()).await?;
        let shows = std::io::stderr().is_terminal();
        let found = chain::verify(&db, kept, |seq| {
            if shows {
                eprint!("\r{seq} decisions …");
            }
        });
        let found = found.await.context("reading the audit log")?;
        if shows {
            eprint!("\r\x1b[K");
        }
        db.close().await;
        anyhow::Ok(found)
    });
    ended(found.map(|found| {
        form.print(&document(&found), &text(&found));
        if found.broken.is_some() { FAILED } else { DONE }
    }))
}

/// As `--kept` takes it.
fn head(found: &Found) -> Option<String> {
    let (seq, hash) = found.head.as_ref()?;
    Some(format!("{seq}:{}", hex::encode(hash)))
}

fn document(found: &Found) -> Value {
    let broken = found.broken.as_ref();
    json!({
        "intact": found.intact,
        "unsealed": found.unsealed,
        "head": head(found),
        "broken": broken.map(|b| json!({"place": b.seq, "event": b.event, "why": b.why})),
    })
}

fn text(found: &Found) -> String {
    let mut lines = match &found.broken {
        None => vec![format!("All {} sealed decisions are intact.", found.intact)],
        Some(broken) => vec![told(broken), format!("{} before are intact.", found.intact)],
    };
    if found.unsealed > 0 {
        lines.push(format!("{} are not sealed yet.", found.unsealed));
    }
    if let Some(head) = head(found) {
        lines.push(format!("Keep elsewhere: {head}"));
    }
    lines.join("\n")
}

fn told(broken: &Broken) -> String {
    let place = broken.seq.map(|seq| format!(" at place {seq}"));
    let event = broken.event.map(|event| format!(" {event}"));
    format!(
        "The log is broken: decision{}{}: {}.",
        event.unwrap_or_default(),
        place.unwrap_or_default(),
        broken.why
    )
}
