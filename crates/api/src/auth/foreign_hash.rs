//! Hashes of passwords that were made elsewhere, for users who move here: bcrypt, as Supabase keeps
//! them, and PBKDF2 as Django's and Python's libraries do. They are good for one sign-in, which
//! replaces them by ours.
use aws_lc_rs::pbkdf2::{self, PBKDF2_HMAC_SHA256};
use base64::{
    Engine,
    engine::{GeneralPurpose, general_purpose::STANDARD_NO_PAD},
};
use std::num::NonZeroU32;

/// About half a second of one core; what asks for more is refused before any work.
const MAX_BCRYPT_COST: u32 = 13;
const MAX_PBKDF2_ROUNDS: u32 = 2_000_000;
const BASE64: GeneralPurpose = STANDARD_NO_PAD;

/// A hash that can be verified at a bearable cost.
pub enum Foreign {
    Bcrypt(String),
    Pbkdf2 {
        rounds: NonZeroU32,
        salt: Vec<u8>,
        derived: Vec<u8>,
    },
}

impl Foreign {
    /// `None` for what is of another kind, damaged, or too dear.
    pub fn parse(hash: &str) -> Option<Self> {
        match hash.strip_prefix("$pbkdf2-sha256$") {
            Some(rest) => pbkdf2(rest),
            None => {
                let parts: bcrypt::HashParts = hash.parse().ok()?;
                let bearable = (4..=MAX_BCRYPT_COST).contains(&parts.get_cost());
                bearable.then(|| Self::Bcrypt(hash.to_owned()))
            }
        }
    }

    /// Whether it is of this password, byte by byte as it was typed: those who made it normalised
    /// nothing.
    pub fn verify(&self, password: &str) -> bool {
        match self {
            Self::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            Self::Pbkdf2 {
                rounds,
                salt,
                derived,
            } => {
                let password = password.as_bytes();
                pbkdf2::verify(PBKDF2_HMAC_SHA256, *rounds, salt, password, derived).is_ok()
            }
        }
    }
}

/// `i=600000,l=32$salt$hash` as the PHC format has it, or `29000$salt$hash` with `.` for `+` as
/// passlib does: <https://passlib.readthedocs.io/en/stable/lib/passlib.hash.pbkdf2_digest.html>.
fn pbkdf2(rest: &str) -> Option<Foreign> {
    let [params, salt, derived] = rest.split('$').collect::<Vec<_>>().try_into().ok()?;
    let first = params.split(',').next()?;
    let rounds: NonZeroU32 = first.strip_prefix("i=").unwrap_or(first).parse().ok()?;
    let decode = |text: &str| BASE64.decode(text.replace('.', "+")).ok();
    let (salt, derived) = (decode(salt)?, decode(derived)?);
    let bearable = rounds.get() <= MAX_PBKDF2_ROUNDS;
    let sized = (8..=64).contains(&salt.len()) && (16..=64).contains(&derived.len());
    (bearable && sized).then_some(Foreign::Pbkdf2 {
        rounds,
        salt,
        derived,
    })
}
