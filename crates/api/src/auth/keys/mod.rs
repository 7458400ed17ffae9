//! The keys of this installation: ES256 pairs that sign access tokens, kept in the database sealed
//! under `JWT_SECRET`, and the keys derived from it.
use super::key_file::Imported;
use crate::{App, config::Config, config::Secret, error::explain};
use anyhow::{Context, anyhow, bail};
use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey},
    hkdf, hmac,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use db::{Db, Timestamp};
use jsonwebtoken::{
    Algorithm, EncodingKey,
    jwk::{Jwk, ThumbprintHash},
};
use serde_json::{Value, json};
use std::{
    io::Write,
    os::unix::fs::OpenOptionsExt,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicI64, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::sync::Mutex;
use utoipa_axum::{router::OpenApiRouter, routes};

mod ring;
pub mod rotation;

pub use ring::Ring;

/// So much later than it was done a change of keys counts on every instance.
const FRESH: Duration = Duration::from_secs(5);

/// Everything that signs, verifies or derives.
pub struct Keys {
    /// The newest first.
    masters: Vec<Master>,
    imported: Vec<Imported>,
    ring: RwLock<Arc<Ring>>,
    read_at: AtomicI64,
    /// How often the ring was read anew: whoever waited for a turn sees whether that was for them too.
    reads: AtomicU64,
    turn: Mutex<()>,
}

/// What is derived from one `JWT_SECRET`.
struct Master {
    seal: [u8; 32],
    refresh: [u8; 32],
    otp: [u8; 32],
    column: [u8; 32],
}

impl Master {
    fn derive(secret: &Secret) -> anyhow::Result<Self> {
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, b"plinth").extract(secret.expose().as_bytes());
        let key = |label: &'static str| -> anyhow::Result<[u8; 32]> {
            let mut key = [0; 32];
            let info = [label.as_bytes()];
            let okm = prk
                .expand(&info, hkdf::HKDF_SHA256)
                .map_err(|_| anyhow!("HKDF"))?;
            okm.fill(&mut key).map_err(|_| anyhow!("HKDF"))?;
            Ok(key)
        };
        Ok(Self {
            seal: key("signing keys")?,
            refresh: key("refresh tokens")?,
            otp: key("one-time codes")?,
            column: key("sealed columns")?,
        })
    }
}

impl Keys {
    /// Loads the keys, and makes the first pair where there is none; of instances that start
    /// together one makes it and all use it.
    pub async fn load(db: &Db, config: &Config, now: Timestamp) -> anyhow::Result<Self> {
        let masters: Vec<_> = config
            .auth
            .jwt_secret
            .iter()
            .map(Master::derive)
            .collect::<Result<_, _>>()?;
        let newest = masters.first().context("JWT_SECRET is not set")?;
        let imported = config.auth.imported_keys()?;
        let mut rows = db::keys::all(db).await?;
        if imported.is_empty() && !rows.iter().any(|row| row.state == "active") {
            let (kid, public, sealed) = make(newest)?;
            let mut tx = db.begin().await?;
            db::keys::create_active(&mut tx, &kid, "ES256", &db::Json(public), &sealed, now)
                .await?;
            tx.commit().await?;
            rows = db::keys::all(db).await?;
        }
        let ring = Ring::of(db, &masters, &imported, rows).await?;
        Ok(Self {
            masters,
            imported,
            ring: RwLock::new(Arc::new(ring)),
            read_at: AtomicI64::new(now.as_micros()),
            reads: AtomicU64::new(0),
            turn: Mutex::new(()),
        })
    }

    /// The keys that count, as this instance knows them.
    pub fn ring(&self) -> Arc<Ring> {
        let ring = self.ring.read();
        ring.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Those that the operator brings, with their algorithms: the first signs.
    pub fn brought(&self) -> impl Iterator<Item = (&str, &str)> {
        self.imported.iter().map(|key| {
            (
                key.kid.as_str(),
                key.public["alg"].as_str().unwrap_or_default(),
            )
        })
    }

    /// Whether the operator brings them.
    pub fn are_brought(&self) -> bool {
        !self.imported.is_empty()
    }

    /// Hears of keys that came or went since.
    pub async fn keep_fresh(&self, db: &Db, now: Timestamp) {
        let read_at = Timestamp::from_micros(self.read_at.load(SeqCst));
        if now.since(read_at) >= FRESH
            && let Ok(_turn) = self.turn.try_lock()
        {
            self.read(db, now).await;
        }
    }

    /// Whether the key that this token names is known only now: another instance may have begun to
    /// sign with it a moment ago. However many ask, one reads at a time, and for all who wait.
    pub async fn learn(&self, db: &Db, token: &str, now: Timestamp) -> bool {
        let header = jsonwebtoken::decode_header(token).ok();
        let Some(kid) = header.and_then(|header| header.kid) else {
            return false;
        };
        if self.ring().knows(&kid) || !is_made_here(&kid) {
            return false;
        }
        let came = self.reads.load(SeqCst);
        let _turn = self.turn.lock().await;
        if self.reads.load(SeqCst) == came {
            self.read(db, now).await;
        }
        self.ring().knows(&kid)
    }

    /// Without the database, what was known counts on.
    async fn read(&self, db: &Db, now: Timestamp) {
        self.reads.fetch_add(1, SeqCst);
        self.read_at.store(now.as_micros(), SeqCst);
        let known = self.ring();
        match known.read_anew(db, &self.masters, &self.imported).await {
            Ok(None) => {}
            Ok(Some(ring)) => {
                tracing::info!(signs = ring.active_kid, "the signing keys have changed");
                *self.ring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ring);
            }
            Err(error) => {
                tracing::warn!(error = explain(&error), "cannot read the signing keys anew");
            }
        }
    }

    /// A fresh pair, sealed under the newest secret.
    fn make(&self) -> anyhow::Result<(String, Value, Vec<u8>)> {
        make(self.masters.first().context("JWT_SECRET is not set")?)
    }

    /// HMAC-SHA256 under the newest refresh key.
    pub fn refresh_mac(&self, message: &[&[u8]]) -> [u8; 32] {
        self.masters
            .first()
            .map_or([0; 32], |master| mac(&master.refresh, message))
    }

    /// The same under every refresh key that is understood, newest first.
    pub fn refresh_macs(&self, message: &[&[u8]]) -> impl Iterator<Item = [u8; 32]> {
        self.masters
            .iter()
            .map(move |master| mac(&master.refresh, message))
    }

    /// What is kept of a mailed code.
    pub fn otp_mac(&self, message: &[&[u8]]) -> [u8; 32] {
        self.masters
            .first()
            .map_or([0; 32], |master| mac(&master.otp, message))
    }

    /// What may have been kept of it, newest secret first.
    pub fn otp_macs(&self, message: &[&[u8]]) -> impl Iterator<Item = [u8; 32]> {
        self.masters
            .iter()
            .map(move |master| mac(&master.otp, message))
    }

    /// What is kept of a secret that has to be read back; it opens only as the same thing.
    pub fn seal(&self, bound_to: &[u8], secret: &[u8]) -> anyhow::Result<Vec<u8>> {
        let newest = self.masters.first().context("JWT_SECRET is not set")?;
        seal(&newest.column, bound_to, secret)
    }

    /// The secret, when it was sealed as this thing and under a `JWT_SECRET` that is understood.
    pub fn unseal(&self, bound_to: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let mut masters = self.masters.iter();
        masters.find_map(|master| unseal(&master.column, bound_to, sealed))
    }
}

/// Ids of ours are thumbprints (RFC 7638, SHA-256): nothing else is worth a look into the database.
fn is_made_here(kid: &str) -> bool {
    let letters = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    kid.len() == 43 && kid.bytes().all(letters)
}

fn mac(key: &[u8; 32], message: &[&[u8]]) -> [u8; 32] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let mut mac = hmac::Context::with_key(&key);
    for part in message {
        mac.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(mac.sign().as_ref());
    out
}

/// A fresh pair: its id (RFC 7638), the public JWK, the sealed PKCS#8.
fn make(master: &Master) -> anyhow::Result<(String, Value, Vec<u8>)> {
    let rng = aws_lc_rs::rand::SystemRandom::new();
    let pair = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &rng)
        .map_err(|_| anyhow!("no key could be made"))?;
    let jwk = Jwk::from_encoding_key(&EncodingKey::from_ec_der(pair.as_ref()), Algorithm::ES256)?;
    let kid = jwk.thumbprint(ThumbprintHash::SHA256)?;
    let mut public = serde_json::to_value(&jwk)?;
    let members = public.as_object_mut().context("a JWK is an object")?;
    members.retain(|name, _| ["kty", "crv", "x", "y"].contains(&name.as_str()));
    for (name, value) in [("kid", kid.as_str()), ("alg", "ES256"), ("use", "sig")] {
        members.insert(name.into(), value.into());
    }
    members.insert("key_ops".into(), json!(["verify"]));
    let sealed = seal(&master.seal, kid.as_bytes(), pair.as_ref())?;
    Ok((kid, public, sealed))
}

/// AES-256-GCM, bound to what it is for; the nonce stands in front.
fn seal(key: &[u8; 32], bound_to: &[u8], secret: &[u8]) -> anyhow::Result<Vec<u8>> {
    let key = RandomizedNonceKey::new(&AES_256_GCM, key).map_err(|_| anyhow!("AES-GCM"))?;
    let mut sealed = secret.to_vec();
    let nonce = key
        .seal_in_place_append_tag(Aad::from(bound_to), &mut sealed)
        .map_err(|_| anyhow!("AES-GCM"))?;
    Ok([nonce.as_ref().as_slice(), &sealed].concat())
}

fn unseal(key: &[u8; 32], bound_to: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, sealed) = sealed.split_at_checked(12)?;
    let key = RandomizedNonceKey::new(&AES_256_GCM, key).ok()?;
    let mut secret = sealed.to_vec();
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    key.open_in_place(nonce, Aad::from(bound_to), &mut secret)
        .ok()
        .map(|opened| opened.to_vec())
}

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(jwks))
        .routes(routes!(root_jwks))
}

/// The public keys that verify our access tokens, for whoever wants to do so offline.
#[utoipa::path(get, path = "/auth/v1/.well-known/jwks.json", tag = "sign-in", security(()), responses((status = 200, description = "RFC 7517", body = Value)))]
async fn jwks(State(app): State<App>) -> Response {
    app.keys.keep_fresh(&app.db, app.now()).await;
    (
        [(header::CACHE_CONTROL, "public, max-age=600")],
        Json(app.keys.ring().jwks().clone()),
    )
        .into_response()
}

/// The public keys, at the root.
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "sign-in", security(()), responses((status = 200, description = "RFC 7517", body = Value)))]
async fn root_jwks(app: State<App>) -> Response {
    jwks(app).await
}

/// A random secret of this installation, made at the first start in development and kept beside its data.
pub fn development_secret(file: &std::path::Path) -> anyhow::Result<Secret> {
    if let Ok(kept) = std::fs::read_to_string(file) {
        let kept = kept.trim();
        if kept.len() < 32 {
            bail!(
                "{} is damaged; delete it, and everyone signs in again",
                file.display()
            );
        }
        return Ok(Secret::from(kept.to_owned()));
    }
    let made = hex::encode(rand::random::<[u8; 32]>());
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    let mut options = std::fs::OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(0o600).open(file);
    opened
        .and_then(|mut file| file.write_all(made.as_bytes()))
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(Secret::from(made))
}
