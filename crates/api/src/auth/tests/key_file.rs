use super::*;
use crate::{Config, auth::keys::rotation};
use aws_lc_rs::{
    encoding::{AsBigEndian, AsDer, EcPrivateKeyBin, Pkcs8V1Der},
    rsa::{KeyPair as RsaPair, KeySize},
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};

const USERS: &str = "/auth/v1/admin/users";

fn encode(bytes: &[u8]) -> Value {
    URL_SAFE_NO_PAD.encode(bytes).into()
}

/// A private key as an operator has it, and to sign with.
fn elliptic(kid: &str) -> (Value, EncodingKey) {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let private: EcPrivateKeyBin = pair.private_key().as_be_bytes().unwrap();
    let point = pair.public_key().as_ref();
    let jwk = json!({"kty": "EC", "crv": "P-256", "kid": kid, "alg": "ES256",
        "x": encode(&point[1..33]), "y": encode(&point[33..]), "d": encode(private.as_ref())});
    (
        jwk,
        EncodingKey::from_ec_der(pair.to_pkcs8v1().unwrap().as_ref()),
    )
}

fn rsa(kid: &str) -> Value {
    let pair = RsaPair::generate(KeySize::Rsa2048).unwrap();
    let der: Pkcs8V1Der = pair.as_der().unwrap();
    let numbers = integers(der.as_ref());
    // Of PKCS#8 its version, then that of PKCS#1 inside, then the numbers.
    let mut jwk = json!({"kty": "RSA", "kid": kid, "alg": "RS256"});
    for (name, number) in ["n", "e", "d", "p", "q", "dp", "dq", "qi"]
        .iter()
        .zip(&numbers[2..])
    {
        jwk[*name] = encode(number);
    }
    jwk
}

/// Every INTEGER of a DER text, without signs.
fn integers(der: &[u8]) -> Vec<Vec<u8>> {
    let (mut found, mut rest) = (vec![], der);
    while let [tag, first, after @ ..] = rest {
        let (length, contents) = match *first {
            short @ 0..0x80 => (usize::from(short), after),
            long => {
                let (bytes, contents) = after.split_at(usize::from(long & 0x7f));
                let length = bytes.iter().fold(0, |sum, b| sum << 8 | usize::from(*b));
                (length, contents)
            }
        };
        rest = match tag {
            // What holds others is walked into.
            0x30 | 0x04 => contents,
            0x02 => {
                let number = contents[..length].iter().skip_while(|b| **b == 0);
                found.push(number.copied().collect());
                &contents[length..]
            }
            _ => &contents[length..],
        };
    }
    found
}

fn set(keys: &[&Value]) -> String {
    json!({"keys": keys}).to_string()
}

/// What is said about keys that cannot be used.
fn problem(keys: &str) -> String {
    let env = [("AUTH_JWT_KEYS".to_owned(), keys.to_owned())];
    let problems = Config::from_env(&env.into())
        .err()
        .unwrap_or_else(|| panic!("{} was taken", keys.len()));
    assert_eq!(problems.len(), 1);
    problems[0].to_string()
}

both_engines! {
    /// Invariant 41, with keys that the operator brings.
    async fn the_first_key_that_the_operator_brings_signs_and_all_verify(engine: Engine) {
        let ((second, signing), first) = (elliptic("second"), rsa("first"));
        let test = Test::with(engine, &[("AUTH_JWT_KEYS", &set(&[&first, &second]))]).await;

        let ada = test.sign_up("ada@example.com").await;

        let header = jsonwebtoken::decode_header(&ada.token).unwrap();
        assert_eq!((header.alg, header.kid.as_deref()), (Algorithm::RS256, Some("first")));
        assert_eq!(test.get(&ada.token, USER).await.status, 200);
        assert_eq!(test.rows("signing_keys").await, 0, "none was made");
        let jwks = test.get("", "/.well-known/jwks.json").await.json();
        assert_eq!(jwks["keys"][0], json!({"kty": "RSA", "n": first["n"], "e": first["e"], "kid": "first", "alg": "RS256", "use": "sig", "key_ops": ["verify"]}));
        assert_eq!(jwks["keys"][1], json!({"kty": "EC", "crv": "P-256", "x": second["x"], "y": second["y"], "kid": "second", "alg": "ES256", "use": "sig", "key_ops": ["verify"]}));
        assert_eq!(jwks["keys"].as_array().unwrap().len(), 2);

        let said = json!({"role": "service_role", "exp": test.app.now().unix() + 60});
        let named = |kid: &str| Header { kid: Some(kid.into()), ..Header::new(Algorithm::ES256) };
        let key = jsonwebtoken::encode(&named("second"), &said, &signing).unwrap();
        assert_eq!(test.get(&key, USERS).await.status, 200);
        assert_eq!(test.get(&test.service_key(), USERS).await.status, 200);
        let of_another = jsonwebtoken::encode(&named("first"), &said, &signing).unwrap();
        assert_eq!(test.get(&of_another, USERS).await.refusal(), refused(403, "bad_jwt"), "a key has one algorithm");
    }

    /// Invariant 41: what ours signed counts on where the operator's sign now.
    async fn tokens_signed_before_keys_were_brought_are_still_good(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;

        let beside = test.beside(&[("AUTH_JWT_KEYS", &set(&[&elliptic("brought").0]))]).await;

        assert_eq!(beside.get(&ada.token, USER).await.status, 200);
        let child = beside.refreshed(&ada.refresh_token).await;
        assert_eq!(beside.get(&child.token, USER).await.status, 200);
        let jwks = beside.get("", "/.well-known/jwks.json").await.json();
        let mut tx = beside.app.db.begin().await.unwrap();
        let rotated = rotation::rotate(&beside.app.keys, &mut tx, true, beside.app.now()).await;
        assert!(rotated.unwrap_err().to_string().contains("AUTH_JWT_KEYS_FILE"), "they are the operator's");
        let kids: Vec<_> = jwks["keys"].as_array().unwrap().iter().map(|key| &key["kid"]).collect();
        assert_eq!(kids, [&json!("brought"), &json!(test.app.keys.ring().active_kid)]);
    }
}

#[test]
fn keys_that_cannot_sign_are_refused_without_a_word_of_them() {
    let (good, other) = (elliptic("good").0, elliptic("other").0);
    let but = |name: &str, value: Value| {
        let mut key = good.clone();
        key[name] = value;
        set(&[&key])
    };
    let mut public = good.clone();
    public.as_object_mut().unwrap().remove("d");

    for (keys, said) in [
        ("not JSON".to_owned(), "not JSON"),
        (set(&[]), "no key"),
        (set(&[&public]), "d is missing"),
        (but("d", other["d"].clone()), "does not belong"),
        (but("kty", json!("oct")), "kty"),
        (but("crv", json!("P-384")), "crv"),
        (but("alg", json!("HS256")), "alg"),
        (but("x", json!("not base64!")), "x is missing"),
        (set(&[&good, &good]), "one kid"),
    ] {
        let problem = problem(&keys);
        assert!(problem.contains("AUTH_JWT_KEYS_FILE") && problem.contains(said));
        assert!(!problem.contains(good["d"].as_str().unwrap()));
    }
}
