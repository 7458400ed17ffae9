use super::serve;
use crate::{
    App,
    app::{Clock, Simulated},
    auth::{access, service_role},
    config::{Checked, some_seconds},
};
use clap::Subcommand;
use std::time::Duration;

#[derive(Subcommand)]
pub enum Verb {
    /// Print a service-role key: what a server needs to administer users. Keep it from browsers and apps
    ServiceRole {
        /// How long it is good for, like 90d
        #[arg(long, value_parser = some_seconds, default_value = "365d")]
        ttl: Duration,
    },
}

pub async fn run(checked: Checked, verb: Verb) -> anyhow::Result<()> {
    let mut config = checked.config;
    serve::prepare_secret(&mut config)?;
    let db = serve::open(&config).await?;
    let app = App::new(config, db, Simulated::default(), Clock::system()).await?;
    match verb {
        Verb::ServiceRole { ttl } => {
            let key = service_role::issue(&app.keys, &access::issuer(&app), ttl, app.now())?;
            println!("{key}");
        }
    }
    app.db.close().await;
    Ok(())
}
