use super::frame::say;
use crate::Config;
use clap::Subcommand;
use db::Db;

#[derive(Default, Subcommand)]
pub enum Step {
    /// Run what is pending (the default)
    #[default]
    Up,
    /// Take the newest migrations back
    Down {
        /// How many
        steps: usize,
    },
    /// List the migrations and whether the database has them; exit 1 when some are pending
    Status,
}

pub async fn run(config: Config, step: Step) -> anyhow::Result<()> {
    let url = config.core.direct_url();
    let db = Db::open(url, &config.core.database_options()).await?;
    match step {
        Step::Up => {
            db.migrate().await?;
            say!("{url} is up to date.");
        }
        Step::Down { steps } => {
            db.revert(steps).await?;
            say!("{url}: took {steps} back.");
        }
        Step::Status => {
            let all = db.migrations().await?;
            for migration in &all {
                say!(
                    "{}  {:04}  {}",
                    if migration.applied {
                        "applied"
                    } else {
                        "pending"
                    },
                    migration.version,
                    migration.description
                );
            }
            let pending = all.iter().filter(|migration| !migration.applied).count();
            db.close().await;
            anyhow::ensure!(pending == 0, "{pending} pending: run `plinth migrate`");
            return Ok(());
        }
    }
    db.close().await;
    Ok(())
}
