use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RsaPublicKeyComponents,
};
use minicbor::{Decoder, data::Type};

/// What keys may sign with, the preferred first: `alg` of RFC 9053 and RFC 8812.
pub const ALGORITHMS: [i64; 3] = [EDDSA, ES256, RS256];

const EDDSA: i64 = -8;
const ES256: i64 = -7;
const RS256: i64 = -257;

/// 4,096 bits: a larger one makes every sign-in dear.
const MAX_MODULUS: usize = 512;
const MIN_MODULUS: usize = 256;
const MAX_EXPONENT: usize = 4;

/// A public key. Its algorithm is a part of it, and never the choice of who signs.
pub enum Key {
    /// Of P-256 or Ed25519.
    Curve(ParsedPublicKey),
    Rsa(RsaPublicKeyComponents<Vec<u8>>),
}

/// The members of a COSE key that are told apart by number; -1 is the curve, or RSA's modulus.
#[derive(Default)]
struct Members<'a> {
    kty: Option<i64>,
    alg: Option<i64>,
    crv: Option<i64>,
    modulus: Option<&'a [u8]>,
    /// x, or RSA's exponent.
    second: Option<&'a [u8]>,
    y: Option<&'a [u8]>,
}

impl Key {
    /// `None` when type, algorithm and curve do not belong together, or it is no point, or too small or large.
    pub fn parse(cose: &[u8]) -> Option<Self> {
        let members = Members::parse(cose)?;
        let (second, y) = (members.second?, members.y);
        match (members.kty?, members.alg?, members.crv) {
            (2, ES256, Some(1)) => {
                let y = y?;
                if (second.len(), y.len()) != (32, 32) {
                    return None;
                }
                let point = [&[4], second, y].concat();
                let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).ok()?;
                Some(Self::Curve(key))
            }
            (1, EDDSA, Some(6)) if y.is_none() && second.len() == 32 => {
                Some(Self::Curve(ParsedPublicKey::new(&ED25519, second).ok()?))
            }
            (3, RS256, None) if y.is_none() => {
                let (n, e) = (members.modulus?, second);
                let sizes = (MIN_MODULUS..=MAX_MODULUS).contains(&n.len())
                    && (1..=MAX_EXPONENT).contains(&e.len());
                let whole = n.first()? != &0 && e.first()? != &0 && e != [1];
                let odd = n.last()? & 1 == 1 && e.last()? & 1 == 1;
                (sizes && whole && odd).then(|| {
                    Self::Rsa(RsaPublicKeyComponents {
                        n: n.to_vec(),
                        e: e.to_vec(),
                    })
                })
            }
            _ => None,
        }
    }

    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Curve(key) => key.verify_sig(message, signature).is_ok(),
            Self::Rsa(key) => key
                .verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
                .is_ok(),
        }
    }
}

impl<'a> Members<'a> {
    /// RFC 9052, section 7. What is not known is skipped, what comes twice is refused.
    fn parse(cose: &'a [u8]) -> Option<Self> {
        let mut cbor = Decoder::new(cose);
        let mut members = Self::default();
        for _ in 0..cbor.map().ok()?? {
            let label = match cbor.datatype().ok()? {
                Type::String => None,
                _ => Some(cbor.i64().ok()?),
            };
            match label {
                Some(1) => once(&mut members.kty, cbor.i64().ok()?)?,
                Some(3) => once(&mut members.alg, cbor.i64().ok()?)?,
                Some(-1) if cbor.datatype().ok()? == Type::Bytes => {
                    once(&mut members.modulus, cbor.bytes().ok()?)?;
                }
                Some(-1) => once(&mut members.crv, cbor.i64().ok()?)?,
                Some(-2) => once(&mut members.second, cbor.bytes().ok()?)?,
                Some(-3) => once(&mut members.y, cbor.bytes().ok()?)?,
                Some(_) => cbor.skip().ok()?,
                None => {
                    cbor.skip().ok()?;
                    cbor.skip().ok()?;
                }
            }
        }
        (cbor.position() == cose.len()).then_some(members)
    }
}

fn once<T>(member: &mut Option<T>, value: T) -> Option<()> {
    member.replace(value).is_none().then_some(())
}
