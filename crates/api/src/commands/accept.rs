use super::frame::say;
use crate::{Config, docs, limit};
use anyhow::{Context, ensure};
use std::path::Path;

/// Every file that is made from the code, and what it should hold.
pub fn files() -> Vec<(&'static str, String)> {
    let configuration = format!(
        "# Configuration\n\nEvery variable Plinth reads, made from the code by `plinth accept`. None has to be set for development. Each may also be given as `NAME_FILE`, the path of a file that holds the value; where several names are listed they mean the same. `plinth config` shows what is in force, `plinth config --check` whether it is fit to start with, `plinth doctor` whether what it names works.\n{}\n## Rate limits\n\nSpread evenly after a first burst, counted in memory or, with `REDIS_URL`, for all instances together. `RATE_LIMITS=api=1000/15m,sign_in=20/1m` changes rows by name.\n\n{}",
        Config::table(),
        limit::markdown(),
    );
    vec![
        (".env.example", Config::example()),
        ("docs/configuration.md", configuration),
        ("docs/openapi.json", docs::json()),
    ]
}

pub fn run() -> anyhow::Result<()> {
    ensure!(
        Path::new("crates/api/plans.toml").exists(),
        "run this in the root of the repository"
    );
    for (file, text) in files() {
        std::fs::write(file, text).with_context(|| format!("cannot write {file}"))?;
        say!("wrote {file}");
    }
    Ok(())
}
