//! Requests that only read: `health` and `user`.
use super::{
    Bench, bare,
    load::Load,
    process::{Process, free_port},
    report::Report,
    server::{self, Server},
};
use anyhow::{Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, header};
use std::time::{Duration, Instant};

const AIM: f64 = 0.8;

pub async fn health(bench: &Bench, report: &mut Report) -> Result<()> {
    let server = Server::start(bench, "health", None, &[], &[]).await?;
    let request = get("/health/live", None)?;
    let (bare, port) = bare(bench, "health", &server, &request, &[]).await?;
    compare(
        bench,
        report,
        "health",
        &server,
        (&bare, port, "axum"),
        &request,
    )
    .await
}

pub async fn user(bench: &Bench, report: &mut Report) -> Result<()> {
    let server = Server::start(bench, "user", None, &[], &[]).await?;
    let file = format!("sqlite://{}", server.file().display());
    user_on(bench, report, "user, SQLite", &server, &file).await?;
    drop(server);

    let Some(postgres) = &bench.postgres else {
        report.skip("user on PostgreSQL: needs --postgres");
        return Ok(());
    };
    let database = server::create_database(postgres, "user").await?;
    let server = Server::start(bench, "user", Some(database.as_str()), &[], &[]).await?;
    user_on(
        bench,
        report,
        "user, PostgreSQL",
        &server,
        database.as_str(),
    )
    .await
}

async fn user_on(
    bench: &Bench,
    report: &mut Report,
    scenario: &str,
    server: &Server,
    database: &str,
) -> Result<()> {
    let user = server.sign_up().await?;
    let jwks = server.jwks().await?.to_string();
    let issuer = server.url("/auth/v1");
    let arguments = [database, "--jwks", &jwks, "--issuer", &issuer];
    let request = get("/auth/v1/user", Some(&user.token))?;
    let (bare, port) = bare(bench, "user", server, &request, &arguments).await?;
    compare(
        bench,
        report,
        scenario,
        server,
        (&bare, port, "axum + sqlx"),
        &request,
    )
    .await
}

/// Starts `probe bare …`, which gives the server's own answer, and returns when it listens.
async fn bare(
    bench: &Bench,
    what: &str,
    server: &Server,
    request: &Request<Full<Bytes>>,
    arguments: &[&str],
) -> Result<(Process, u16)> {
    let (folder, port) = (bench.scratch.fresh(&format!("{what}-bare"))?, free_port()?);
    let given = serde_json::to_vec(&answer(server.port, request).await?)?;
    std::fs::write(folder.join("answer.json"), given)?;
    let mut process = Process::start(&std::env::current_exe()?, &folder, |command| {
        command
            .args(["bare", what])
            .arg(port.to_string())
            .args(arguments)
            .args(["--answer", "answer.json"]);
    })?;
    let started = Instant::now();
    while Load::open(port, 1).await.is_err() {
        if process.has_ended() || started.elapsed() > Duration::from_secs(10) {
            bail!(
                "the bare server does not start. It said:\n{}",
                process.last_words()
            );
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok((process, port))
}

async fn compare(
    bench: &Bench,
    report: &mut Report,
    scenario: &str,
    server: &Server,
    (bare, port, name): (&Process, u16, &str),
    request: &Request<Full<Bytes>>,
) -> Result<()> {
    let (ours, limit) = (
        answer(server.port, request).await?,
        answer(port, request).await?,
    );
    if ours.body != limit.body || ours.headers.len() != limit.headers.len() {
        bail!("the bare server answers otherwise, so nothing could be compared");
    }
    let mut our_load = Load::open(server.port, bench.connections).await?;
    let mut bare_load = Load::open(port, bench.connections).await?;
    let turns = bench.compare(
        scenario,
        async |turn| {
            server
                .measured(our_load.run(turn, |_| request.clone()))
                .await
        },
        async |turn| server::measured(bare, bare_load.run(turn, |_| request.clone())).await,
    );
    report.compare(scenario, name, AIM, &turns.await?);
    Ok(())
}

fn get(path: &str, token: Option<&str>) -> Result<Request<Full<Bytes>>> {
    let mut request = Request::get(path).header(header::HOST, "127.0.0.1");
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    Ok(request.body(Full::default())?)
}

/// What is answered, but for what hyper writes itself.
async fn answer(port: u16, request: &Request<Full<Bytes>>) -> Result<bare::Answer> {
    let mut connection = super::load::connect(port).await?;
    let response = connection.send_request(request.clone()).await?;
    if response.status() != 200 {
        bail!("answered {}", super::load::explained(response).await);
    }
    let headers = response.headers().iter();
    let headers =
        headers.filter(|(name, _)| ![header::CONTENT_LENGTH, header::DATE].contains(name));
    let text = |value: &header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = headers.map(|(name, value)| (name.to_string(), text(value)));
    Ok(bare::Answer {
        headers: headers.collect(),
        body: String::from_utf8(response.into_body().collect().await?.to_bytes().into())?,
    })
}
