//! Signing keys that the operator brings along: private JWKs (RFC 7517, RFC 7518), for whoever has
//! tokens in the field already, or makes service-role keys elsewhere.
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey,
    jwk::{Jwk, ThumbprintHash},
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashSet;

/// RFC 7518, section 3.3: 2048 bits or more.
const MIN_MODULUS_BYTES: usize = 256;
const MAX_KEYS: usize = 16;

/// One private key, ready to sign.
pub struct Imported {
    pub kid: String,
    pub alg: Algorithm,
    pub signing: EncodingKey,
    /// As the key set publishes it, without anything private.
    pub public: Value,
}

#[derive(Deserialize)]
struct PrivateJwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    d: Option<String>,
    n: Option<String>,
    e: Option<String>,
    p: Option<String>,
    q: Option<String>,
    dp: Option<String>,
    dq: Option<String>,
    qi: Option<String>,
}

/// The keys of a JWK set, of an array of JWKs, or the one JWK. What is wrong is said without a word of
/// what was read.
pub fn read(text: &str) -> Result<Vec<Imported>, String> {
    let value: Value = serde_json::from_str(text).map_err(|_| "it is not JSON".to_owned())?;
    let items = match value.get("keys").unwrap_or(&value) {
        Value::Array(items) => items.clone(),
        one => vec![one.clone()],
    };
    if items.is_empty() || items.len() > MAX_KEYS {
        return Err(format!("it holds no key, or more than {MAX_KEYS}"));
    }
    let mut keys = vec![];
    for (n, item) in items.into_iter().enumerate() {
        let key = import(item).map_err(|why| format!("key {}: {why}", n + 1))?;
        keys.push(key);
    }
    let distinct: HashSet<_> = keys.iter().map(|key| &key.kid).collect();
    if distinct.len() < keys.len() {
        return Err("two keys have one kid".into());
    }
    Ok(keys)
}

fn import(item: Value) -> Result<Imported, String> {
    let jwk: PrivateJwk = serde_json::from_value(item).map_err(|_| "it is not a JWK".to_owned())?;
    let (alg, name, signing, mut public) = match jwk.kty.as_str() {
        "EC" => elliptic(&jwk)?,
        "RSA" => rsa(&jwk)?,
        _ => return Err("kty has to be EC (P-256) or RSA".into()),
    };
    if jwk.alg.as_deref().is_some_and(|said| said != name) {
        return Err(format!("alg has to be {name} for a key of this kind"));
    }
    let parsed: Jwk = serde_json::from_value(public.clone()).map_err(|_| "it is no valid key")?;
    let kid = match jwk.kid.filter(|kid| !kid.is_empty()) {
        Some(kid) => kid,
        None => parsed
            .thumbprint(ThumbprintHash::SHA256)
            .map_err(|_| "it is no valid key")?,
    };
    for (member, value) in [("kid", kid.as_str()), ("alg", name), ("use", "sig")] {
        public[member] = value.into();
    }
    public["key_ops"] = json!(["verify"]);
    if !signs(alg, &signing, &parsed) {
        return Err("its private half does not belong to its public half".into());
    }
    Ok(Imported {
        kid,
        alg,
        signing,
        public,
    })
}

type Parts = (Algorithm, &'static str, EncodingKey, Value);

fn elliptic(jwk: &PrivateJwk) -> Result<Parts, String> {
    if jwk.crv.as_deref() != Some("P-256") {
        return Err("crv has to be P-256".into());
    }
    let [x, y, d] = [("x", &jwk.x), ("y", &jwk.y), ("d", &jwk.d)].map(member);
    let (x, y, d) = (x?, y?, d?);
    let point = [&[4], x.as_slice(), &y].concat();
    let alg = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let pair = EcdsaKeyPair::from_private_key_and_public_key(alg, &d, &point)
        .map_err(|_| "its private half does not belong to its public half")?;
    let der = pair.to_pkcs8v1().map_err(|_| "it is no valid key")?;
    let signing = EncodingKey::from_ec_der(der.as_ref());
    let public = json!({"kty": "EC", "crv": "P-256", "x": jwk.x, "y": jwk.y});
    Ok((Algorithm::ES256, "ES256", signing, public))
}

fn rsa(jwk: &PrivateJwk) -> Result<Parts, String> {
    let members = [
        ("n", &jwk.n),
        ("e", &jwk.e),
        ("d", &jwk.d),
        ("p", &jwk.p),
        ("q", &jwk.q),
        ("dp", &jwk.dp),
        ("dq", &jwk.dq),
        ("qi", &jwk.qi),
    ];
    let numbers = members
        .map(member)
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    if numbers[0].iter().skip_while(|byte| **byte == 0).count() < MIN_MODULUS_BYTES {
        return Err("an RSA key has to have 2048 bits or more".into());
    }
    let signing = EncodingKey::from_rsa_der(&pkcs1(&numbers));
    let public = json!({"kty": "RSA", "n": jwk.n, "e": jwk.e});
    Ok((Algorithm::RS256, "RS256", signing, public))
}

fn member((name, value): (&str, &Option<String>)) -> Result<Vec<u8>, String> {
    let bytes = value
        .as_ref()
        .and_then(|value| URL_SAFE_NO_PAD.decode(value).ok());
    bytes
        .filter(|bytes| !bytes.is_empty())
        .ok_or_else(|| format!("{name} is missing, or not base64url"))
}

/// RSAPrivateKey of RFC 8017, appendix A.1.2.
fn pkcs1(numbers: &[Vec<u8>]) -> Vec<u8> {
    let integer = |bytes: &[u8]| {
        let bytes: Vec<u8> = bytes.iter().copied().skip_while(|b| *b == 0).collect();
        let sign = bytes.first().is_none_or(|first| *first >= 0x80);
        tagged(0x02, &[vec![0; usize::from(sign)], bytes].concat())
    };
    let version = integer(&[0]);
    let all = std::iter::once(version).chain(numbers.iter().map(|number| integer(number)));
    tagged(0x30, &all.collect::<Vec<_>>().concat())
}

/// DER: tag, length, contents.
fn tagged(tag: u8, contents: &[u8]) -> Vec<u8> {
    let length = contents.len();
    let mut out = vec![tag];
    if length < 0x80 {
        out.push(length as u8);
    } else {
        let bytes: Vec<u8> = length
            .to_be_bytes()
            .into_iter()
            .skip_while(|byte| *byte == 0)
            .collect();
        out.push(0x80 | bytes.len() as u8);
        out.extend(bytes);
    }
    out.extend(contents);
    out
}

/// Whether what one half signs the other verifies.
fn signs(alg: Algorithm, signing: &EncodingKey, public: &Jwk) -> bool {
    let message = b"plinth";
    let signed = jsonwebtoken::crypto::sign(message, signing, alg);
    let (Ok(signature), Ok(key)) = (signed, DecodingKey::from_jwk(public)) else {
        return false;
    };
    jsonwebtoken::crypto::verify(&signature, message, &key, alg).unwrap_or(false)
}
