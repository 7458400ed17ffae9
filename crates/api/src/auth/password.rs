//! Passwords: Argon2id with OWASP's parameters (19 MiB, 2 passes, 1 lane), on few threads at once.
//! <https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html>
use super::{foreign_hash::Foreign, hashing::Threads};
use crate::{Error, Result, error::Weakness};
use anyhow::anyhow;
use argon2::{
    Algorithm, Argon2, Params,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use std::sync::OnceLock;
use unicode_normalization::UnicodeNormalization;

/// NIST SP 800-63B-4, section 3.1.1.2, asks for at least 64.
const MAX_CHARS: usize = 256;
/// Of a hash that comes from elsewhere.
const MAX_MEMORY_KIB: u32 = 64 * 1024;

/// What attackers try first, of eight characters and more.
const COMMON: &str = include_str!("common_passwords.txt");

pub struct Passwords {
    pub threads: Threads,
}

impl Passwords {
    pub fn new() -> anyhow::Result<Self> {
        let threads = Threads::start()?;
        Ok(Self { threads })
    }

    /// A PHC string with a fresh salt.
    pub async fn hash(&self, password: &str) -> Result<String> {
        let password = normalised(password);
        self.threads
            .run(move || {
                Ok(Argon2::default()
                    .hash_password(password.as_bytes())
                    .map_err(|e| anyhow!("{e}"))?
                    .to_string())
            })
            .await
    }

    /// Whether this is the password of that hash. Takes as long when there is no hash.
    pub async fn verify(&self, password: &str, hash: Option<&str>) -> Result<bool> {
        let typed = password.to_owned();
        let known = hash.is_some();
        let hash = hash.map_or_else(dummy, ToOwned::to_owned);
        let matches = self.threads.run(move || {
            if let Some(foreign) = Foreign::parse(&hash) {
                return Ok(foreign.verify(&typed));
            }
            let password = normalised(&typed);
            let hash = PasswordHash::new(&hash)
                .map_err(|e| anyhow!("a stored hash cannot be read: {e}"))?;
            Ok(Argon2::default()
                .verify_password(password.as_bytes(), &hash)
                .is_ok())
        });
        Ok(matches.await? && known)
    }

    /// The hash that is to be kept of a password which was right, where the one that is kept was made
    /// elsewhere, or by us when we asked for less.
    pub async fn renewed(&self, password: &str, hash: &str) -> Result<Option<String>> {
        if hash.starts_with(&ours()) {
            return Ok(None);
        }
        self.hash(password).await.map(Some)
    }
}

/// How every hash of ours begins.
fn ours() -> String {
    let params = Params::DEFAULT;
    let (m, t, p) = (params.m_cost(), params.t_cost(), params.p_cost());
    format!("$argon2id$v=19$m={m},t={t},p={p}$")
}

/// A hash nobody's password has.
fn dummy() -> String {
    static DUMMY: OnceLock<String> = OnceLock::new();
    let make = || {
        Argon2::default()
            .hash_password(&rand::random::<[u8; 32]>())
            .map(|hash| hash.to_string())
            .unwrap_or_default()
    };
    DUMMY.get_or_init(make).clone()
}

/// The same text typed on another keyboard is the same password (NFKC).
fn normalised(password: &str) -> String {
    password.nfkc().collect()
}

/// Why a password that was taken once would not be today: a hint for its user, who is let in.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct WeakPassword {
    message: &'static str,
    reasons: Vec<Weakness>,
}

pub fn weakness(password: &str, email: Option<&str>, min_chars: u8) -> Option<WeakPassword> {
    match check(password, email, min_chars) {
        Err(Error::WeakPassword(reasons)) => Some(WeakPassword {
            message: reasons.first().copied().unwrap_or_default().explain(),
            reasons,
        }),
        _ => None,
    }
}

/// Whether a password will do for this user.
pub fn check(password: &str, email: Option<&str>, min_chars: u8) -> Result<()> {
    let password = normalised(password);
    let chars = password.chars().count();
    if chars < usize::from(min_chars) || chars > MAX_CHARS {
        return Err(Error::WeakPassword(vec![Weakness::Length]));
    }
    let lower = password.to_lowercase();
    let local = email.and_then(|email| email.split('@').next());
    let of_address =
        email.is_some_and(|email| lower == email) || local.is_some_and(|local| lower == local);
    if of_address || COMMON.lines().any(|common| common == lower) {
        return Err(Error::WeakPassword(vec![Weakness::Pwned]));
    }
    Ok(())
}

/// Whether a hash that was made elsewhere can be verified here, at a cost that we would bear ourselves
/// several times over: what it asks for is spent at every sign-in.
pub fn is_importable(hash: &str) -> bool {
    if Foreign::parse(hash).is_some() {
        return true;
    }
    let Ok(parsed) = PasswordHash::new(hash) else {
        return false;
    };
    let Ok(params) = Params::try_from(&parsed) else {
        return false;
    };
    let known = Algorithm::try_from(parsed.algorithm.as_str()).is_ok();
    let bearable = params.m_cost() <= MAX_MEMORY_KIB && params.t_cost() <= 10;
    known && bearable && parsed.salt.is_some() && parsed.hash.is_some()
}
