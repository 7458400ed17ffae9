//! RS256, as every provider signs its ID tokens.

use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};

/// One for all: it takes a while to make, and nobody has to guess it.
static KEY: LazyLock<Key> = LazyLock::new(Key::make);

struct Key {
    pair: KeyPair,
    id: String,
}

impl Key {
    fn make() -> Self {
        let pair = KeyPair::generate(KeySize::Rsa2048).expect("an RSA key can be made");
        let id = format!(
            "{:016x}",
            crate::dice::hash(&BASE64.encode(pair.public_key()))
        );
        Self { pair, id }
    }

    /// Of RFC 8017's `RSAPublicKey`: with 2,048 bits and the exponent 65,537 it always has this layout.
    fn modulus(&self) -> &[u8] {
        let der = self.pair.public_key().as_ref();
        der.get(9..265).unwrap_or_default()
    }
}

/// RFC 7517.
pub fn jwks() -> Value {
    json!({"keys": [{
        "kty": "RSA",
        "use": "sig",
        "alg": "RS256",
        "kid": KEY.id,
        "n": BASE64.encode(KEY.modulus()),
        "e": "AQAB",
    }]})
}

/// RFC 7515, compact.
pub fn sign(claims: &Value) -> String {
    let header = json!({"alg": "RS256", "kid": KEY.id, "typ": "JWT"});
    let signed = [&header, claims]
        .map(|part| BASE64.encode(part.to_string()))
        .join(".");
    let mut signature = vec![0; KEY.pair.public_modulus_len()];
    KEY.pair
        .sign(
            &RSA_PKCS1_SHA256,
            &SystemRandom::new(),
            signed.as_bytes(),
            &mut signature,
        )
        .expect("an RSA key signs");
    format!("{signed}.{}", BASE64.encode(signature))
}
