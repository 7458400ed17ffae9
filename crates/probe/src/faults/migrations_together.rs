//! Instances start together on an empty database (64).
use super::{case::Case, scene::Scene};
use anyhow::Result;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::time::Duration;

const ROUNDS: usize = 5;
const INSTANCES: usize = 4;

pub async fn run(scene: &Scene<'_>, case: &mut Case) -> Result<()> {
    let cluster = scene.postgres()?;
    let mut admin = PgConnection::connect(&cluster.url(cluster.port(), "postgres")).await?;
    let mut wrong = vec![];
    for round in 0..ROUNDS {
        let name = format!("together_{round}");
        sqlx::raw_sql(AssertSqlSafe(format!("create database {name}")))
            .execute(&mut admin)
            .await?;
        let url = cluster.url(cluster.port(), &name);
        let mut servers = vec![];
        for n in 0..INSTANCES {
            let mut server = scene.server(&format!("{name}_{n}"), &[("DATABASE_URL", &url)])?;
            server.launch()?;
            servers.push(server);
        }
        for server in &mut servers {
            match server.ready(Duration::from_secs(60)).await {
                Ok(took) => case.recovered(took),
                Err(error) => wrong.push(format!("{error:#}")),
            }
        }
        let user = servers[0].sign_up().await?;
        for server in &servers {
            let seen = server.get("/auth/v1/user", &user.token).await;
            if seen.status != 200 {
                wrong.push(format!("another instance says {}", seen.brief()));
            }
        }
    }
    case.none(
        format!("{INSTANCES} instances at once get ready, {ROUNDS} times"),
        &wrong,
    );
    Ok(())
}
