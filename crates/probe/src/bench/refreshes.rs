//! Refreshes: each rotates the token of a session, which is a row that is locked, changed and on disk
//! before it is answered.
use super::{
    Bench,
    load::{Connection, Turn, connect, explained},
    pgbench,
    report::{Figure, Report},
    server::{self, Server},
    stats::Spread,
};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures_util::future::try_join_all;
use http_body_util::{BodyExt, Full};
use hyper::{Request, header};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use std::time::{Duration, Instant};
use url::Url;

const CLIENTS: usize = 8;
/// Of a database that is asked the same without HTTP, JSON and two signatures.
const AIM: f64 = 0.8;
/// What the server asks for one refresh, of the session that belongs to this client.
const SCRIPT: &str = "
begin;
select id, user_id, refresh_secret, refresh_counter, acked_counter, rotated_at, aal, amr, ip, user_agent, last_seen_at, idle_expires_at, absolute_expires_at, revoked_at, revoke_reason, created_at, authenticated_at from sessions where id = (select id from probe_sessions where n = :client_id) for update;
update sessions set refresh_counter = refresh_counter + 1, acked_counter = refresh_counter, rotated_at = now(), last_seen_at = now(), idle_expires_at = now() + interval '30 days' where id = (select id from probe_sessions where n = :client_id) and revoked_at is null;
commit;
select id, email, email_confirmed_at, password_hash, role, app_metadata, user_metadata, is_anonymous, banned_until, last_sign_in_at, created_at, updated_at from users where id = (select user_id from probe_sessions where n = :client_id);
select id, user_id, provider, issuer, subject, profile, last_sign_in_at, created_at, updated_at from identities where user_id = (select user_id from probe_sessions where n = :client_id) order by created_at, id;
select id, user_id, factor_type, friendly_name, status, created_at, updated_at from mfa_factors where user_id = (select user_id from probe_sessions where n = :client_id) order by created_at, id;
";
/// Which session is whose.
const SESSIONS: &str = "
create table probe_sessions as
select row_number() over (order by id) - 1 as n, id, user_id from sessions;
create unique index on probe_sessions (n);
analyze";

pub async fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let server = Server::start(bench, "refreshes", None, &[], &[]).await?;
    let mut clients = clients(&server).await?;
    let mut rates = vec![];
    for _ in 0..bench.rounds {
        rates.push(refresh(&mut clients, bench.turn).await?.per_second());
    }
    report.figure(Figure {
        scenario: "refreshes",
        what: format!("on SQLite, {CLIENTS} clients"),
        unit: "/s",
        samples: rates.len(),
        value: Spread::of(rates),
        aim: None,
    });
    match &bench.postgres {
        Some(url) => postgres(bench, report, url).await.context("PostgreSQL"),
        None => {
            report.skip("refreshes on PostgreSQL: needs --postgres");
            Ok(())
        }
    }
}

/// Both change rows of one database in turns. What pgbench does to a session makes its tokens old, so
/// each has sessions of its own.
async fn postgres(bench: &Bench, report: &mut Report, url: &Url) -> Result<()> {
    let database = server::create_database(url, "refreshes").await?;
    let server = Server::start(bench, "refreshes", Some(database.as_str()), &[], &[]).await?;
    for _ in 0..CLIENTS {
        server.sign_up().await?;
    }
    let mut connection = PgConnection::connect(database.as_str()).await?;
    sqlx::raw_sql(SESSIONS).execute(&mut connection).await?;
    let mut clients = clients(&server).await?;
    let folder = bench.scratch.fresh("pgbench")?;
    std::fs::write(folder.join("script.sql"), SCRIPT)?;
    let scenario = format!("refreshes, PostgreSQL, {CLIENTS} clients");
    let turns = bench.compare(
        &scenario,
        async |turn| server.measured(refresh(&mut clients, turn)).await,
        async |turn| pgbench::run(&folder, &database, CLIENTS, turn).await,
    );
    report.compare(&scenario, "pgbench", AIM, &turns.await?);
    Ok(())
}

/// Someone with a session.
struct Client {
    connection: Connection,
    refresh_token: String,
}

async fn clients(server: &Server) -> Result<Vec<Client>> {
    let mut clients = vec![];
    for _ in 0..CLIENTS {
        clients.push(Client {
            connection: connect(server.port).await?,
            refresh_token: server.sign_up().await?.refresh_token,
        });
    }
    Ok(clients)
}

/// Everyone refreshes with what the last refresh gave.
async fn refresh(clients: &mut [Client], turn: Duration) -> Result<Turn> {
    let started = Instant::now();
    let loops = clients.iter_mut().map(async |client| {
        let mut latencies = vec![];
        while started.elapsed() < turn {
            let begun = Instant::now();
            client.refresh().await?;
            latencies.push(u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX));
        }
        Ok::<_, anyhow::Error>(latencies)
    });
    let latencies = try_join_all(loops).await?;
    Ok(Turn {
        elapsed: started.elapsed(),
        latencies: latencies.concat(),
        ..Turn::default()
    })
}

impl Client {
    async fn refresh(&mut self) -> Result<()> {
        let body = json!({"refresh_token": self.refresh_token}).to_string();
        let request = Request::post("/auth/v1/token?grant_type=refresh_token")
            .header(header::HOST, "127.0.0.1")
            .header(header::CONTENT_TYPE, "application/json");
        let request: Request<Full<Bytes>> = request.body(body.into())?;
        let response = self.connection.send_request(request).await?;
        if response.status() != 200 {
            bail!("answered {}", explained(response).await);
        }
        let session = response.into_body().collect().await?.to_bytes();
        let session: Value = serde_json::from_slice(&session)?;
        let token = session["refresh_token"].as_str();
        self.refresh_token = token.context("a refresh gave no token")?.to_owned();
        Ok(())
    }
}
