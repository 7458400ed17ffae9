//! scrypt (RFC 7914) in the PHC format, as Python's and Node's libraries write it, and as Firebase uses
//! it: <https://github.com/firebase/scrypt>, in the spelling of Supabase's importer.
use ::scrypt::{Params, scrypt};
use aws_lc_rs::{
    cipher::{AES_256, DecryptingKey, DecryptionContext, UnboundCipherKey},
    iv::FixedLength,
};
use base64::{
    Engine,
    engine::{GeneralPurpose, general_purpose::STANDARD, general_purpose::STANDARD_NO_PAD},
};
use std::collections::HashMap;
use subtle::ConstantTimeEq;

/// Of memory, in units of 128 bytes: 64 MiB.
const MAX_BLOCKS: u64 = 512 * 1024;
/// Of work, in the same: about half a second of one core.
const MAX_WORK: u64 = 2 * MAX_BLOCKS;

/// A hash and what it was made with.
pub struct Scrypt {
    params: Params,
    salt: Vec<u8>,
    made: Made,
}

enum Made {
    /// What scrypt derived.
    Derived(Vec<u8>),
    /// A key of the project's, encrypted with what scrypt derived.
    Encrypted { signer_key: Vec<u8>, hash: Vec<u8> },
}

impl Scrypt {
    /// `ln=16,r=8,p=1$salt$hash`.
    pub fn parse(rest: &str) -> Option<Self> {
        let (said, salt, hash) = parts(rest, &STANDARD_NO_PAD)?;
        let number = |name| said.get(name)?.parse::<u32>().ok();
        let params = params(number("ln")?, number("r")?, number("p")?)?;
        let sized = (8..=64).contains(&salt.len()) && (16..=64).contains(&hash.len());
        let made = Made::Derived(hash);
        sized.then_some(Self { params, salt, made })
    }

    /// `v=1,n=14,r=8,p=1,ss=…,sk=…$salt$hash`, with the project's salt separator and signer key.
    pub fn parse_firebase(rest: &str) -> Option<Self> {
        let (said, mut salt, hash) = parts(rest, &STANDARD)?;
        let number = |name| said.get(name)?.parse::<u32>().ok();
        let params = params(number("n")?, number("r")?, number("p")?)?;
        let separator = said
            .get("ss")
            .map_or(Some(vec![]), |ss| STANDARD.decode(ss).ok());
        let signer_key = STANDARD.decode(said.get("sk")?).ok()?;
        let sized = (1..=64).contains(&salt.len()) && (16..=128).contains(&signer_key.len());
        if !sized || hash.len() != signer_key.len() || *said.get("v")? != "1" {
            return None;
        }
        salt.extend(separator?);
        let made = Made::Encrypted { signer_key, hash };
        Some(Self { params, salt, made })
    }

    pub fn verify(&self, password: &str) -> bool {
        let derive = |length: usize| {
            let mut derived = vec![0; length];
            let done = scrypt(password.as_bytes(), &self.salt, &self.params, &mut derived);
            done.is_ok().then_some(derived)
        };
        let right = match &self.made {
            Made::Derived(hash) => derive(hash.len()).map(|derived| derived.ct_eq(hash).into()),
            Made::Encrypted { signer_key, hash } => derive(32)
                .and_then(|derived| decrypt(&derived, hash))
                .map(|decrypted| decrypted.ct_eq(signer_key).into()),
        };
        right.unwrap_or(false)
    }
}

/// Parameters by name, salt and hash.
type Parts<'a> = (HashMap<&'a str, &'a str>, Vec<u8>, Vec<u8>);

fn parts<'a>(rest: &'a str, base64: &GeneralPurpose) -> Option<Parts<'a>> {
    let [said, salt, hash] = rest.split('$').collect::<Vec<_>>().try_into().ok()?;
    let said = said.split(',').map(|one| one.split_once('='));
    let said = said.collect::<Option<_>>()?;
    Some((said, base64.decode(salt).ok()?, base64.decode(hash).ok()?))
}

/// `None` for what would take more than we would bear.
fn params(log_n: u32, r: u32, p: u32) -> Option<Params> {
    let bounded = (1..=24).contains(&log_n) && (1..=64).contains(&r) && (1..=16).contains(&p);
    if !bounded {
        return None;
    }
    let blocks = u64::from(r) << log_n;
    let bearable = blocks <= MAX_BLOCKS && blocks * u64::from(p) <= MAX_WORK;
    bearable.then(|| Params::new(log_n as u8, r, p).ok())?
}

/// AES-256-CTR, from zero.
fn decrypt(key: &[u8], encrypted: &[u8]) -> Option<Vec<u8>> {
    let key = UnboundCipherKey::new(&AES_256, key).ok()?;
    let from_zero = DecryptionContext::Iv128(FixedLength::from([0; 16]));
    let mut text = encrypted.to_vec();
    let key = DecryptingKey::ctr(key).ok()?;
    key.decrypt(&mut text, from_zero).ok()?;
    Some(text)
}
