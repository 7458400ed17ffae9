//! Webhook events, each answered once it is on disk.
use super::{
    Bench, bare,
    load::{Load, Turn},
    pgbench,
    report::Report,
    server::{self, Server},
};
use crate::events::{self, STRIPE_SECRET};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, header};
use std::{path::Path, process::Stdio, time::Duration};
use tokio::process::Command;
use url::Url;
use uuid::Uuid;

const SENDERS: [usize; 2] = [8, 32];
/// Of a database that does nothing but the two inserts.
const AIM: f64 = 1.0;
/// Requests alone: what an event then leads to is done by workers, and is not part of its answer.
const ROLE: [&str; 3] = ["serve", "--role", "api"];

pub async fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let template = Template::new()?;
    sqlite(bench, report, &template).await.context("SQLite")?;
    match &bench.postgres {
        Some(url) => postgres(bench, report, &template, url)
            .await
            .context("PostgreSQL"),
        None => {
            report.skip("ingest on PostgreSQL: needs --postgres");
            Ok(())
        }
    }
}

/// Both write into one file in turns, so that it is as large for one as for the other.
async fn sqlite(bench: &Bench, report: &mut Report, template: &Template) -> Result<()> {
    let server = Server::start(bench, "ingest", None, &ROLE, &[]).await?;
    let (file, body) = (server.file(), server.folder.join("event.json"));
    std::fs::write(&body, template.body(&Uuid::new_v4()))?;
    for senders in SENDERS {
        let scenario = format!("ingest, SQLite, {senders} senders");
        let mut load = Load::open(server.port, senders).await?;
        let turns = bench.compare(
            &scenario,
            async |turn| {
                server
                    .measured(load.run(turn, |_| template.request()))
                    .await
            },
            async |turn| bare_loop(&file, &body, turn).await,
        );
        report.compare(&scenario, "rusqlite, one connection", AIM, &turns.await?);
    }
    Ok(())
}

async fn bare_loop(file: &Path, body: &Path, turn: Duration) -> Result<Turn> {
    let mut probe = Command::new(std::env::current_exe()?);
    probe
        .args(["bare", "ingest"])
        .arg(file)
        .arg(body)
        .arg(turn.as_millis().to_string());
    let output = probe
        .kill_on_drop(true)
        .stderr(Stdio::inherit())
        .output()
        .await?;
    if !output.status.success() {
        bail!("the bare loop failed");
    }
    Ok(serde_json::from_slice::<bare::Stored>(&output.stdout)?.into())
}

/// Both write into one database in turns.
async fn postgres(
    bench: &Bench,
    report: &mut Report,
    template: &Template,
    url: &Url,
) -> Result<()> {
    let database = server::create_database(url, "ingest").await?;
    let server = Server::start(bench, "ingest", Some(database.as_str()), &ROLE, &[]).await?;
    let folder = bench.scratch.fresh("pgbench")?;
    std::fs::write(
        folder.join("script.sql"),
        pgbench_script(&template.body(&Uuid::new_v4())),
    )?;
    for senders in SENDERS {
        let scenario = format!("ingest, PostgreSQL, {senders} senders");
        let mut load = Load::open(server.port, senders).await?;
        let turns = bench.compare(
            &scenario,
            async |turn| {
                server
                    .measured(load.run(turn, |_| template.request()))
                    .await
            },
            async |turn| pgbench::run(&folder, &database, senders, turn).await,
        );
        report.compare(&scenario, "pgbench", AIM, &turns.await?);
    }
    Ok(())
}

/// The server's two inserts in one transaction.
fn pgbench_script(body: &[u8]) -> String {
    use std::fmt::Write;
    let mut hex = String::with_capacity(body.len() * 2);
    for byte in body {
        let _ = write!(hex, "{byte:02x}");
    }
    format!(
        r"begin;
insert into webhook_events (id, provider, mode, external_id, kind, api_version, subject, occurred_at, received_at, key_id, body, status) values (gen_random_uuid(), 'stripe', 'test', 'evt_' || gen_random_uuid(), 'customer.subscription.created', '2026-10-28.endive', 'stripe:cus_' || gen_random_uuid(), now(), now(), '0a1b2c3d', '\x{hex}', 'received') on conflict (provider, mode, external_id) do nothing;
insert into jobs (id, kind, subject, payload, dedupe_key, due_at, attempts, created_at) values (gen_random_uuid(), 'apply_webhook', 'stripe:cus_' || gen_random_uuid(), jsonb_build_object('event', gen_random_uuid()), null, now(), 0, now()) on conflict (dedupe_key) do nothing;
commit;
"
    )
}

/// An event with holes where its own ids go: making one anew costs the load generator little.
struct Template {
    body: Vec<u8>,
    holes: Vec<usize>,
}

/// As long as a key is; found nowhere else.
const HOLE: &str = "########################";

impl Template {
    fn new() -> Result<Self> {
        let user = Uuid::nil().to_string();
        let bought = events::Purchase {
            key: HOLE,
            user: &user,
            price: "price_pro",
        };
        let body = events::subscription(&bought, events::now()).to_string();
        let holes: Vec<_> = body.match_indices(HOLE).map(|(at, _)| at).collect();
        if holes.is_empty() {
            bail!("an event has no id");
        }
        Ok(Self {
            body: body.into_bytes(),
            holes,
        })
    }

    fn body(&self, id: &Uuid) -> Vec<u8> {
        let mut hex = [0; 32];
        id.simple().encode_lower(&mut hex);
        let mut body = self.body.clone();
        for at in &self.holes {
            // The end of a random UUID: 94 bits that are unlike any other's.
            body[*at..at + HOLE.len()].copy_from_slice(&hex[32 - HOLE.len()..]);
        }
        body
    }

    /// A delivery that never was before, signed now.
    fn request(&self) -> Request<Full<Bytes>> {
        let body = self.body(&Uuid::new_v4());
        let signature = webhooks::stripe::sign(&body, STRIPE_SECRET, events::now());
        let mut request = Request::new(Full::from(body));
        *request.method_mut() = hyper::Method::POST;
        *request.uri_mut() = hyper::Uri::from_static("/webhooks/stripe");
        let headers = request.headers_mut();
        headers.insert(header::HOST, header::HeaderValue::from_static("127.0.0.1"));
        headers.insert(
            header::CONTENT_TYPE,
            header::HeaderValue::from_static("application/json"),
        );
        if let Ok(signature) = signature.parse() {
            headers.insert(webhooks::stripe::SIGNATURE_HEADER, signature);
        }
        request
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_delivery_is_another_event_of_another_customer() {
        let template = Template::new().unwrap();
        let read = || webhooks::stripe::read(&template.body(&Uuid::new_v4())).unwrap();
        let (one, other) = (read(), read());
        assert_ne!(one.id, other.id);
        assert_ne!(one.customer, other.customer);
        assert!(
            !String::from_utf8(template.body(&Uuid::new_v4()))
                .unwrap()
                .contains('#')
        );
    }

    #[test]
    fn a_delivery_is_signed() {
        use http_body_util::BodyExt;
        let (head, body) = Template::new().unwrap().request().into_parts();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let body = runtime.block_on(body.collect()).unwrap().to_bytes();
        let signature = head.headers[webhooks::stripe::SIGNATURE_HEADER]
            .to_str()
            .unwrap();
        let verified =
            webhooks::stripe::verify(&body, Some(signature), &[STRIPE_SECRET], events::now(), 300);
        assert_eq!(verified, Ok(0));
    }

    #[test]
    fn no_colon_of_the_script_is_a_variable_of_pgbench() {
        let script = pgbench_script(b"{\"a\":1}");
        assert!(script.contains(r"'\x7b2261223a317d'"), "{script}");
        let followed = script.split(':').skip(1).map(|rest| rest.chars().next());
        // In quotes too pgbench replaces `:name`, where it has a variable of that name: it has none.
        assert!(followed.flatten().all(|c| c == 'c'), "{script}");
    }
}
