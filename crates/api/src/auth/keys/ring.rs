//! The keys that count at this moment: which one signs, and which verify.
use super::{Master, seal, unseal};
use crate::auth::key_file::Imported;
use anyhow::{Context, bail};
use db::{Db, keys::SigningKey};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, jwk::Jwk};
use serde_json::{Value, json};
use std::collections::HashMap;

pub struct Ring {
    pub active_kid: String,
    pub alg: Algorithm,
    pub signing: EncodingKey,
    verifying: HashMap<String, (Algorithm, DecodingKey)>,
    jwks: Value,
    rows: Vec<SigningKey>,
}

impl Ring {
    /// The key that a token's header names, when it is one for that algorithm (RFC 8725, section 3.1).
    pub fn verifying(&self, header: &Header) -> Option<&DecodingKey> {
        let (alg, key) = self.verifying.get(header.kid.as_deref()?)?;
        (*alg == header.alg).then_some(key)
    }

    pub fn knows(&self, kid: &str) -> bool {
        self.verifying.contains_key(kid)
    }

    /// What the world may know of them: RFC 7517.
    pub fn jwks(&self) -> &Value {
        &self.jwks
    }

    /// As they are in the database, when they are no longer as here.
    pub(super) async fn read_anew(
        &self,
        db: &Db,
        masters: &[Master],
        imported: &[Imported],
    ) -> anyhow::Result<Option<Self>> {
        let rows = db::keys::all(db).await?;
        if rows == self.rows {
            return Ok(None);
        }
        Self::of(db, masters, imported, rows).await.map(Some)
    }

    /// Where the operator brings keys, the first of those signs, and what was signed by ours before
    /// still counts.
    pub(super) async fn of(
        db: &Db,
        masters: &[Master],
        imported: &[Imported],
        rows: Vec<SigningKey>,
    ) -> anyhow::Result<Self> {
        reseal(db, masters, &rows).await?;
        let (active_kid, alg, signing) = match imported.first() {
            Some(first) => (first.kid.clone(), first.alg, first.signing.clone()),
            None => active(masters, &rows)?,
        };
        let ours = rows.iter().filter(|row| row.revoked_at.is_none());
        let ours = ours.map(|row| (Algorithm::ES256, &row.public_jwk.0));
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
            rows,
        })
    }
}

/// The active key of the database, opened.
fn active(
    masters: &[Master],
    rows: &[SigningKey],
) -> anyhow::Result<(String, Algorithm, EncodingKey)> {
    let active = rows.iter().find(|row| row.state == "active");
    let active = active.context("no key is active")?;
    let (_, private) = open(masters, active).context("the signing key was sealed under another JWT_SECRET. Put that one back, behind the new one and a comma")?;
    let signing = EncodingKey::from_ec_der(&private);
    Ok((active.kid.clone(), Algorithm::ES256, signing))
}

/// Keeps every private half under the newest secret: once all instances have that, the old one can go.
async fn reseal(db: &Db, masters: &[Master], rows: &[SigningKey]) -> anyhow::Result<()> {
    for row in rows {
        if let Some((age, private)) = open(masters, row)
            && age > 0
        {
            let sealed = seal(&masters[0].seal, row.kid.as_bytes(), &private)?;
            let mut tx = db.begin().await?;
            db::keys::reseal(&mut tx, &row.kid, &row.private_sealed, &sealed).await?;
            tx.commit().await?;
        }
    }
    Ok(())
}

/// The private half, and which secret opened it.
fn open(masters: &[Master], row: &SigningKey) -> Option<(usize, Vec<u8>)> {
    let mut masters = masters.iter().enumerate();
    masters.find_map(|(age, master)| {
        let private = unseal(&master.seal, row.kid.as_bytes(), &row.private_sealed)?;
        Some((age, private))
    })
}
