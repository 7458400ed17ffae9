//! The keys of this installation: ES256 pairs that sign access tokens, kept in the database sealed
//! under `JWT_SECRET`, and the keys derived from it.
use crate::{App, config::Config, config::Secret};
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
    Algorithm, DecodingKey, EncodingKey, Header,
    jwk::{Jwk, ThumbprintHash},
};
use serde_json::{Value, json};
use std::{collections::HashMap, io::Write, os::unix::fs::OpenOptionsExt};
use utoipa_axum::{router::OpenApiRouter, routes};

/// Everything that signs, verifies or derives.
pub struct Keys {
    pub active_kid: String,
    pub alg: Algorithm,
    pub signing: EncodingKey,
    verifying: HashMap<String, (Algorithm, DecodingKey)>,
    jwks: Value,
    masters: Vec<Master>,
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
    /// together one makes it and all use it. Where the operator brings keys, the first of those signs,
    /// and what was signed by ours before still counts.
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
        let (active_kid, alg, signing) = match imported.first() {
            Some(first) => (first.kid.clone(), first.alg, first.signing.clone()),
            None => own(db, &masters, &rows).await?,
        };
        let ours = rows.iter().map(|row| (Algorithm::ES256, &row.public_jwk.0));
        let brought = imported.iter().map(|key| (key.alg, &key.public));
        let (mut verifying, mut public) = (HashMap::new(), vec![]);
        for (alg, key) in brought.chain(ours) {
            let jwk: Jwk = serde_json::from_value(key.clone())?;
            let kid = jwk.common.key_id.clone().context("a key without kid")?;
            let entry = (alg, DecodingKey::from_jwk(&jwk)?);
            if verifying.insert(kid, entry).is_some() {
                bail!("a key of AUTH_JWT_KEYS_FILE has the kid of one made here");
            }
            public.push(key.clone());
        }
        Ok(Self {
            active_kid,
            alg,
            signing,
            verifying,
            jwks: json!({"keys": public}),
            masters,
        })
    }

    /// The key that a token's header names, when it is one for that algorithm (RFC 8725, section 3.1).
    pub fn verifying(&self, header: &Header) -> Option<&DecodingKey> {
        let (alg, key) = self.verifying.get(header.kid.as_deref()?)?;
        (*alg == header.alg).then_some(key)
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

/// The active key of the database, opened, and sealed anew under the newest secret.
async fn own(
    db: &Db,
    masters: &[Master],
    rows: &[db::keys::SigningKey],
) -> anyhow::Result<(String, Algorithm, EncodingKey)> {
    let active = rows
        .iter()
        .find(|row| row.state == "active")
        .context("no key is active")?;
    let private = masters.iter().enumerate().find_map(|(age, master)| {
        let kid = active.kid.as_bytes();
        Some((age, unseal(&master.seal, kid, &active.private_sealed)?))
    });
    let (age, private) = private.context("the signing key was sealed under another JWT_SECRET. Put that one back, behind the new one and a comma")?;
    if age > 0 {
        // Once every instance has the new secret the old one can go.
        let sealed = seal(&masters[0].seal, active.kid.as_bytes(), &private)?;
        let mut tx = db.begin().await?;
        db::keys::reseal(&mut tx, &active.kid, &sealed).await?;
        tx.commit().await?;
    }
    let signing = EncodingKey::from_ec_der(&private);
    Ok((active.kid.clone(), Algorithm::ES256, signing))
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
    (
        [(header::CACHE_CONTROL, "public, max-age=600")],
        Json(app.keys.jwks.clone()),
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
