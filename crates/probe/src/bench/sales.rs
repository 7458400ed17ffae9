//! What is bought, until it is open.
use super::{
    Bench,
    report::{Figure, Report},
    server::{Server, create_database},
    stats::{Spread, percentile},
};
use anyhow::{Context, Result};

const BUYERS: usize = 100;
const AIM_MS: f64 = 250.0;

pub async fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let server = Server::start(bench, "sales", None, &[], &[]).await?;
    opened(report, &server, "SQLite").await.context("SQLite")?;
    let Some(postgres) = &bench.postgres else {
        report.skip("sales on PostgreSQL: needs --postgres");
        return Ok(());
    };
    let database = create_database(postgres, "sales").await?;
    let server = Server::start(bench, "sales", Some(database.as_str()), &[], &[]).await?;
    opened(report, &server, "PostgreSQL")
        .await
        .context("PostgreSQL")
}

/// From sending an event to the entitlement that it opens, on a machine that does nothing else.
async fn opened(report: &mut Report, server: &Server, engine: &str) -> Result<()> {
    let mut times = vec![];
    for _ in 0..BUYERS {
        let user = server.sign_up().await?;
        let seen = server.make_pro(&user).await?;
        times.push(u32::try_from(seen.as_micros()).unwrap_or(u32::MAX));
    }
    times.sort_unstable();
    for (what, share, aim) in [("p50", 0.5, None), ("p99", 0.99, Some(AIM_MS))] {
        let ms = f64::from(percentile(&times, share)) / 1000.0;
        report.figure(Figure {
            scenario: "sales",
            what: format!("from event to entitlement, {what}, {engine}"),
            unit: "ms",
            value: Spread::of([ms]),
            samples: BUYERS,
            aim,
        });
    }
    Ok(())
}
