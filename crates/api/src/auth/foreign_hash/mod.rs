//! Hashes of passwords that were made elsewhere, for users who move here: bcrypt, as Supabase keeps
//! them, PBKDF2 as Python's libraries do, scrypt, and Firebase's kind of it. They are good for one
//! sign-in, which replaces them by ours.
use self::scrypt::Scrypt;
use aws_lc_rs::pbkdf2::{self, PBKDF2_HMAC_SHA256};
use base64::{
    Engine,
    engine::{GeneralPurpose, general_purpose::STANDARD_NO_PAD},
};
use std::num::NonZeroU32;

mod scrypt;

/// About half a second of one core; what asks for more is refused before any work.
const MAX_BCRYPT_COST: u32 = 13;
const MAX_PBKDF2_ROUNDS: u32 = 2_000_000;
const BASE64: GeneralPurpose = STANDARD_NO_PAD;

/// A hash that can be verified at a bearable cost.
pub enum Foreign {
    Bcrypt(String),
    Scrypt(Scrypt),
    Pbkdf2 {
        rounds: NonZeroU32,
        salt: Vec<u8>,
        derived: Vec<u8>,
    },
}

impl Foreign {
    /// `None` for what is of another kind, damaged, or too dear.
    pub fn parse(hash: &str) -> Option<Self> {
        match hash.strip_prefix('$')?.split_once('$')? {
            ("pbkdf2-sha256", rest) => pbkdf2(rest),
            ("scrypt", rest) => Scrypt::parse(rest).map(Self::Scrypt),
            ("fbscrypt", rest) => Scrypt::parse_firebase(rest).map(Self::Scrypt),
            _ => {
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
            Self::Scrypt(scrypt) => scrypt.verify(password),
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
