//! What the server is compared with: the same work on the same ground, and nothing else. Each is a
//! process of its own, so that its CPU time is counted as the server's is.
use super::{
    load::Turn,
    process::{cpu_of, rss_of},
};
use anyhow::{Context, Result, anyhow};
use axum::{
    Router,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, jwk::JwkSet};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::{
    PgPool, Postgres, Sqlite, SqlitePool, Type, TypeInfo,
    error::BoxDynError,
    postgres::{PgPoolOptions, PgTypeInfo, PgValueRef},
    sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteTypeInfo, SqliteValueRef},
    types::Json as Column,
};
use std::{
    collections::HashMap,
    net::Ipv4Addr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use url::Url;
use uuid::Uuid;

mod proxy;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// GET /health/live.
    Health {
        port: u16,
        /// The answer to give, a file that `Answer` was written to.
        #[arg(long)]
        answer: PathBuf,
    },
    /// GET /auth/v1/user.
    User {
        port: u16,
        /// sqlite://FILE or postgres://….
        database: String,
        /// The server's keys, as its JWKS gives them.
        #[arg(long)]
        jwks: String,
        /// Who issues its tokens.
        #[arg(long)]
        issuer: String,
        /// The answer to give, once all is read and checked.
        #[arg(long)]
        answer: PathBuf,
    },
    /// POST /v1/chat/completions.
    Proxy {
        port: u16,
        /// Of the provider, as an OpenAI base URL.
        provider: Url,
    },
    /// Verifies a password with Argon2id on all cores for so long, and prints how it went.
    Argon2 { millis: u64 },
    /// Stores events and their jobs for so long, one pair a transaction, and prints how it went.
    Ingest {
        file: PathBuf,
        /// What every event says.
        body: PathBuf,
        millis: u64,
    },
}

pub async fn run(command: Command) -> Result<()> {
    match command {
        Command::Health { port, answer } => {
            let answer = Arc::new(Answer::read(&answer)?);
            let routes = Router::new().route("/health/live", get(live));
            serve(port, routes.with_state(answer)).await
        }
        Command::User {
            port,
            database,
            jwks,
            issuer,
            answer,
        } => {
            let answer = Answer::read(&answer)?;
            let users = Users::new(&database, &jwks, &issuer, answer).await?;
            serve(
                port,
                Router::new()
                    .route("/auth/v1/user", get(user))
                    .with_state(Arc::new(users)),
            )
            .await
        }
        Command::Proxy { port, provider } => serve(port, proxy::routes(&provider)?).await,
        Command::Argon2 { millis } => {
            let verified = argon2(Duration::from_millis(millis))?;
            println!("{}", serde_json::to_string(&verified)?);
            Ok(())
        }
        Command::Ingest { file, body, millis } => {
            let stored = ingest(&file, &std::fs::read(body)?, Duration::from_millis(millis))?;
            println!("{}", serde_json::to_string(&stored)?);
            Ok(())
        }
    }
}

async fn serve(port: u16, router: Router) -> Result<()> {
    use axum::serve::ListenerExt;
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    Ok(axum::serve(listener, router).await?)
}

/// What the server answers, to be answered alike: to the last header, for a larger answer costs both
/// ends more.
#[derive(Serialize, Deserialize)]
pub struct Answer {
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    fn read(file: &std::path::Path) -> Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(file)?)?)
    }

    fn give(&self) -> Response {
        let mut response = self.body.clone().into_response();
        let headers = response.headers_mut();
        headers.clear();
        for (name, value) in &self.headers {
            let name = HeaderName::from_bytes(name.as_bytes());
            if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
                headers.append(name, value);
            }
        }
        response
    }
}

async fn live(State(answer): State<Arc<Answer>>) -> Response {
    answer.give()
}

/// What a request for the signed-in user needs.
struct Users {
    pool: Pool,
    keys: HashMap<String, DecodingKey>,
    validation: Validation,
    answer: Answer,
}

enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// As many as the server keeps by default.
const CONNECTIONS: u32 = 10;

impl Users {
    async fn new(database: &str, jwks: &str, issuer: &str, answer: Answer) -> Result<Self> {
        let jwks: JwkSet = serde_json::from_str(jwks)?;
        let mut keys = HashMap::new();
        for jwk in &jwks.keys {
            let kid = jwk.common.key_id.clone().context("a key has no id")?;
            keys.insert(kid, DecodingKey::from_jwk(jwk)?);
        }
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_audience(&["authenticated"]);
        validation.set_issuer(&[issuer]);
        let pool = if database.starts_with("sqlite:") {
            let connect: SqliteConnectOptions = database.parse()?;
            let connect = connect
                .pragma("query_only", "on")
                .busy_timeout(Duration::from_secs(3));
            let options = SqlitePoolOptions::new()
                .max_connections(CONNECTIONS)
                .test_before_acquire(false);
            Pool::Sqlite(options.connect_with(connect).await?)
        } else {
            let options = PgPoolOptions::new()
                .max_connections(CONNECTIONS)
                .test_before_acquire(false);
            Pool::Postgres(options.connect(database).await?)
        };
        Ok(Self {
            pool,
            keys,
            validation,
            answer,
        })
    }

    fn claims(&self, headers: &HeaderMap) -> Option<Claims> {
        let token = headers
            .get(header::AUTHORIZATION)?
            .to_str()
            .ok()?
            .strip_prefix("Bearer ")?;
        let head = jsonwebtoken::decode_header(token).ok()?;
        let key = self.keys.get(head.kid.as_deref()?)?;
        Some(
            jsonwebtoken::decode(token, key, &self.validation)
                .ok()?
                .claims,
        )
    }
}

#[derive(Deserialize)]
struct Claims {
    sub: Uuid,
    session_id: Uuid,
}

// The three texts that the server runs, with their columns in its order. Without the time that a pending
// address ends at: there is none to compare it with.
const STANDING: &str = "
    select s.user_id, s.acked_counter, s.authenticated_at, s.absolute_expires_at, s.revoked_at, u.banned_until,
           s.aal, exists (select 1 from mfa_factors f where f.user_id = s.user_id and f.status = 'verified') as second_factor
    from sessions s join users u on u.id = s.user_id where s.id = $1";
const USER: &str = "
    select id, email, email_confirmed_at, password_hash, role, app_metadata, user_metadata,
           is_anonymous, banned_until, last_sign_in_at, created_at, updated_at, deleted_at,
           (select t.email from one_time_tokens t
            where t.user_id = users.id and t.kind = 'email_change' and t.consumed_at is null
            order by t.id desc limit 1) as new_email,
           exists (select 1 from mfa_factors f where f.user_id = users.id) as has_factors
    from users where id = $1";
const IDENTITIES: &str = "
    select id, user_id, provider, issuer, subject, profile, last_sign_in_at, created_at, updated_at
    from identities where user_id = $1 order by created_at, id";

#[derive(sqlx::FromRow)]
struct Standing {
    user_id: Uuid,
    absolute_expires_at: Micros,
    revoked_at: Option<Micros>,
    banned_until: Option<Micros>,
}

/// Every column of `USER`, but for what is asked of other tables.
type User = (
    Uuid,
    Option<String>,
    Option<Micros>,
    Option<String>,
    String,
    Column<Value>,
    Column<Value>,
    bool,
    Option<Micros>,
    Option<Micros>,
    Micros,
    Micros,
);
/// Every column of `IDENTITIES`.
type Identity = (
    Uuid,
    Uuid,
    String,
    String,
    String,
    Column<Value>,
    Option<Micros>,
    Micros,
    Micros,
);

async fn user(State(users): State<Arc<Users>>, headers: HeaderMap) -> Result<Response, StatusCode> {
    let claims = users.claims(&headers).ok_or(StatusCode::UNAUTHORIZED)?;
    let read = match &users.pool {
        Pool::Sqlite(pool) => read_sqlite(pool, &claims).await,
        Pool::Postgres(pool) => read_postgres(pool, &claims).await,
    };
    let read = read.map_err(|error| {
        eprintln!("{error}");
        StatusCode::INTERNAL_SERVER_ERROR
    })?;
    let (standing, user, _) = read.ok_or(StatusCode::FORBIDDEN)?;
    let now = now();
    let stands = standing.user_id == user.0
        && standing.revoked_at.is_none()
        && standing.absolute_expires_at.0 > now
        && standing.banned_until.is_none_or(|until| until.0 <= now);
    if !stands {
        return Err(StatusCode::FORBIDDEN);
    }
    Ok(users.answer.give())
}

type Read = Option<(Standing, User, Vec<Identity>)>;

/// One after the other, as the server does.
macro_rules! read {
    ($name:ident, $pool:ty) => {
        async fn $name(pool: &$pool, claims: &Claims) -> sqlx::Result<Read> {
            let standing = sqlx::query_as(STANDING)
                .bind(claims.session_id)
                .fetch_optional(pool)
                .await?;
            let user = sqlx::query_as(USER)
                .bind(claims.sub)
                .fetch_optional(pool)
                .await?;
            let identities = sqlx::query_as(IDENTITIES)
                .bind(claims.sub)
                .fetch_all(pool)
                .await?;
            Ok(standing
                .zip(user)
                .map(|(standing, user)| (standing, user, identities)))
        }
    };
}
read!(read_sqlite, SqlitePool);
read!(read_postgres, PgPool);

/// Since 1970: as SQLite keeps it, and as PostgreSQL's timestamptz gives it.
#[derive(Clone, Copy)]
struct Micros(i64);

/// 2000-01-01, from which PostgreSQL counts.
const PG_EPOCH: i64 = 946_684_800_000_000;

fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

impl Type<Sqlite> for Micros {
    fn type_info() -> SqliteTypeInfo {
        <i64 as Type<Sqlite>>::type_info()
    }
    fn compatible(ty: &SqliteTypeInfo) -> bool {
        <i64 as Type<Sqlite>>::compatible(ty)
    }
}

impl sqlx::Decode<'_, Sqlite> for Micros {
    fn decode(value: SqliteValueRef<'_>) -> Result<Self, BoxDynError> {
        <i64 as sqlx::Decode<Sqlite>>::decode(value).map(Self)
    }
}

impl Type<Postgres> for Micros {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("timestamptz")
    }
    fn compatible(ty: &PgTypeInfo) -> bool {
        ty.name() == "TIMESTAMPTZ"
    }
}

impl sqlx::Decode<'_, Postgres> for Micros {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        let micros = <i64 as sqlx::Decode<Postgres>>::decode(value)?;
        Ok(Self(micros + PG_EPOCH))
    }
}

/// What the loop tells of itself.
#[derive(Serialize, Deserialize)]
pub struct Stored {
    elapsed_us: u64,
    latencies: Vec<u32>,
    cpu_ms: u64,
    rss: u64,
}

impl From<Stored> for Turn {
    fn from(stored: Stored) -> Self {
        Self {
            elapsed: Duration::from_micros(stored.elapsed_us),
            latencies: stored.latencies,
            cpu: Some(Duration::from_millis(stored.cpu_ms)),
            rss: Some(stored.rss),
        }
    }
}

/// As the server does, one event and its job.
const INSERT_EVENT: &str = "
    insert into webhook_events (id, provider, mode, external_id, kind, api_version, subject, occurred_at,
                                received_at, key_id, body, status)
    values (?1, 'stripe', 'test', ?2, 'customer.subscription.created', '2026-10-28.endive', ?3, ?4, ?4, '0a1b2c3d', ?5, 'received')
    on conflict (provider, mode, external_id) do nothing";
const INSERT_JOB: &str = "
    insert into jobs (id, kind, subject, payload, dedupe_key, due_at, attempts, created_at)
    values (?1, 'apply_webhook', ?2, ?3, null, ?4, 0, ?4)
    on conflict (dedupe_key) do nothing";

/// As the server verifies a password, on every core, and nothing else.
fn argon2(turn: Duration) -> Result<Stored> {
    use argon2::{
        Argon2,
        password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
    };
    let hashed = Argon2::default().hash_password(b"correct horse battery");
    let hash = hashed.map_err(|error| anyhow!("{error}"))?.to_string();
    let before = cpu_of("self")?;
    let started = Instant::now();
    let verify = || {
        let mut latencies = vec![];
        while started.elapsed() < turn {
            let begun = Instant::now();
            let parsed = PasswordHash::new(&hash).map_err(|error| anyhow!("{error}"))?;
            let right = Argon2::default().verify_password(b"correct horse battery", &parsed);
            right.map_err(|error| anyhow!("{error}"))?;
            latencies.push(u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX));
        }
        Ok::<_, anyhow::Error>(latencies)
    };
    let cores = std::thread::available_parallelism()?.get();
    let latencies = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(verify)).collect();
        let ended = threads.into_iter().map(|thread| thread.join());
        let ended = ended.map(|ended| ended.map_err(|_| anyhow!("a thread panicked"))?);
        ended.collect::<Result<Vec<_>>>()
    })?;
    Ok(Stored {
        elapsed_us: started.elapsed().as_micros() as u64,
        latencies: latencies.concat(),
        cpu_ms: (cpu_of("self")?.saturating_sub(before)).as_millis() as u64,
        rss: rss_of("self")?,
    })
}

fn ingest(file: &std::path::Path, body: &[u8], turn: Duration) -> Result<Stored> {
    use rusqlite::params;
    let mut connection = rusqlite::Connection::open(file)?;
    connection.busy_timeout(Duration::from_secs(3))?;
    connection.execute_batch(
        "pragma journal_mode = wal; pragma synchronous = full; pragma foreign_keys = on;",
    )?;

    let mut latencies = vec![];
    let before = cpu_of("self")?;
    let started = Instant::now();
    while started.elapsed() < turn {
        let begun = Instant::now();
        let (id, job, key) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::new_v4().simple());
        let (event, subject) = (format!("evt_{key}"), format!("stripe:cus_{key}"));
        let payload = json!({"event": id}).to_string();
        let now = now();
        let transaction =
            connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        transaction.prepare_cached(INSERT_EVENT)?.execute(params![
            id.as_bytes(),
            event,
            subject,
            now,
            body
        ])?;
        transaction.prepare_cached(INSERT_JOB)?.execute(params![
            job.as_bytes(),
            subject,
            payload,
            now
        ])?;
        transaction.commit()?;
        latencies.push(u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
    Ok(Stored {
        elapsed_us: started.elapsed().as_micros() as u64,
        latencies,
        cpu_ms: (cpu_of("self")?.saturating_sub(before)).as_millis() as u64,
        rss: rss_of("self")?,
    })
}
