//! An authenticator and its browser, in software: what they answer, and every part of it to be changed.
use aws_lc_rs::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

pub const UP: u8 = 1;
pub const UV: u8 = 1 << 2;
pub const BE: u8 = 1 << 3;
pub const BS: u8 = 1 << 4;
pub const AT: u8 = 1 << 6;
pub const ED: u8 = 1 << 7;

pub enum Signer {
    Es256(EcdsaKeyPair),
    EdDsa(Ed25519KeyPair),
    Rs256(RsaKeyPair),
}

pub struct Authenticator {
    pub signer: Signer,
    pub credential_id: Vec<u8>,
    pub rp_id: String,
    pub origin: String,
    pub cross_origin: bool,
    pub flags: u8,
    pub sign_count: u32,
    /// Given back at a sign-in: whose credential it is, in base64url.
    pub user_handle: Option<String>,
}

/// What a browser hands on.
#[derive(Clone)]
pub struct Response {
    pub client_data: Vec<u8>,
    /// The attestation object, or the authenticator's data.
    pub data: Vec<u8>,
    pub signature: Vec<u8>,
}

impl Authenticator {
    pub fn new(rp_id: &str, origin: &str) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        Self {
            signer: Signer::Es256(key),
            credential_id: rand::random::<[u8; 32]>().to_vec(),
            rp_id: rp_id.into(),
            origin: origin.into(),
            cross_origin: false,
            flags: UP | UV,
            sign_count: 0,
            user_handle: None,
        }
    }

    pub fn eddsa(mut self) -> Self {
        self.signer = Signer::EdDsa(Ed25519KeyPair::generate().unwrap());
        self
    }

    pub fn rs256(mut self) -> Self {
        self.signer = Signer::Rs256(RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
        self
    }

    pub fn create(&self, challenge: &[u8]) -> Response {
        self.create_with(challenge, &self.public_key())
    }

    /// With this in place of the public key.
    pub fn create_with(&self, challenge: &[u8], public_key: &[u8]) -> Response {
        let length = u16::try_from(self.credential_id.len()).unwrap();
        let data = [
            &self.header(self.flags | AT)[..],
            &[0; 16],
            &length.to_be_bytes(),
            &self.credential_id,
            public_key,
        ]
        .concat();
        Response {
            client_data: self.client_data("webauthn.create", challenge),
            data: attestation(&data),
            signature: vec![],
        }
    }

    pub fn get(&self, challenge: &[u8]) -> Response {
        let client_data = self.client_data("webauthn.get", challenge);
        let data = self.header(self.flags);
        let signature = self.sign(&data, &client_data);
        Response {
            client_data,
            data,
            signature,
        }
    }

    pub fn client_data(&self, kind: &str, challenge: &[u8]) -> Vec<u8> {
        let data = json!({
            "type": kind,
            "challenge": URL_SAFE_NO_PAD.encode(challenge),
            "origin": self.origin,
            "crossOrigin": self.cross_origin,
        });
        data.to_string().into_bytes()
    }

    pub fn header(&self, flags: u8) -> Vec<u8> {
        let rp_id_hash = digest(&SHA256, self.rp_id.as_bytes());
        [
            rp_id_hash.as_ref(),
            &[flags],
            &self.sign_count.to_be_bytes(),
        ]
        .concat()
    }

    pub fn sign(&self, data: &[u8], client_data: &[u8]) -> Vec<u8> {
        let message = [data, digest(&SHA256, client_data).as_ref()].concat();
        let random = SystemRandom::new();
        match &self.signer {
            Signer::Es256(key) => key.sign(&random, &message).unwrap().as_ref().to_vec(),
            Signer::EdDsa(key) => key.sign(&message).as_ref().to_vec(),
            Signer::Rs256(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, &message, &mut signature)
                    .unwrap();
                signature
            }
        }
    }

    /// COSE.
    pub fn public_key(&self) -> Vec<u8> {
        match &self.signer {
            Signer::Es256(key) => {
                let point = key.public_key().as_ref();
                ec2(-7, 1, &point[1..33], &point[33..])
            }
            Signer::EdDsa(key) => okp(-8, 6, key.public_key().as_ref()),
            Signer::Rs256(key) => {
                let (n, e) = modulus_and_exponent(key.public_key().as_ref());
                rsa(-257, n, e)
            }
        }
    }

    /// As `PublicKeyCredential.toJSON()` has it, for the options that a server gave.
    pub fn registered(&self, options: &Value) -> Value {
        let response = self.create(&challenge(options));
        let mut json = self.json();
        json["response"] = json!({
            "clientDataJSON": URL_SAFE_NO_PAD.encode(response.client_data),
            "attestationObject": URL_SAFE_NO_PAD.encode(response.data),
            "transports": ["internal", "hybrid"],
        });
        json
    }

    /// As `PublicKeyCredential.toJSON()` has it, for the options that a server gave.
    pub fn signed_in(&self, options: &Value) -> Value {
        let response = self.get(&challenge(options));
        let mut json = self.json();
        json["response"] = json!({
            "clientDataJSON": URL_SAFE_NO_PAD.encode(response.client_data),
            "authenticatorData": URL_SAFE_NO_PAD.encode(response.data),
            "signature": URL_SAFE_NO_PAD.encode(response.signature),
            "userHandle": self.user_handle,
        });
        json
    }

    fn json(&self) -> Value {
        let id = URL_SAFE_NO_PAD.encode(&self.credential_id);
        json!({"id": id, "rawId": id, "type": "public-key", "clientExtensionResults": {}, "authenticatorAttachment": "platform"})
    }
}

fn challenge(options: &Value) -> Vec<u8> {
    let challenge = options["challenge"].as_str().expect("a challenge");
    URL_SAFE_NO_PAD.decode(challenge).unwrap()
}

pub fn attestation(data: &[u8]) -> Vec<u8> {
    let members = [
        [text("fmt"), text("none")].concat(),
        [text("attStmt"), head(5, 0)].concat(),
        [text("authData"), bytes(data)].concat(),
    ];
    [head(5, 3), members.concat()].concat()
}

pub fn ec2(alg: i64, crv: i64, x: &[u8], y: &[u8]) -> Vec<u8> {
    let members = [
        (1, int(2)),
        (3, int(alg)),
        (-1, int(crv)),
        (-2, bytes(x)),
        (-3, bytes(y)),
    ];
    map(&members)
}

pub fn okp(alg: i64, crv: i64, x: &[u8]) -> Vec<u8> {
    map(&[(1, int(1)), (3, int(alg)), (-1, int(crv)), (-2, bytes(x))])
}

pub fn rsa(alg: i64, n: &[u8], e: &[u8]) -> Vec<u8> {
    map(&[(1, int(3)), (3, int(alg)), (-1, bytes(n)), (-2, bytes(e))])
}

pub fn map(members: &[(i64, Vec<u8>)]) -> Vec<u8> {
    let mut cbor = head(5, members.len());
    for (label, value) in members {
        cbor.extend(int(*label));
        cbor.extend(value);
    }
    cbor
}

pub fn int(n: i64) -> Vec<u8> {
    let (major, n) = if n < 0 { (1, -1 - n) } else { (0, n) };
    head(major, usize::try_from(n).unwrap())
}

pub fn bytes(bytes: &[u8]) -> Vec<u8> {
    [head(2, bytes.len()), bytes.to_vec()].concat()
}

fn text(text: &str) -> Vec<u8> {
    [head(3, text.len()), text.as_bytes().to_vec()].concat()
}

fn head(major: u8, n: usize) -> Vec<u8> {
    let major = major << 5;
    match u16::try_from(n).unwrap() {
        n @ 0..24 => vec![major | n as u8],
        n @ 24..256 => vec![major | 24, n as u8],
        n => [vec![major | 25], n.to_be_bytes().to_vec()].concat(),
    }
}

/// Of PKCS #1's `RSAPublicKey`: a sequence of two integers, all with lengths of two bytes but the last.
fn modulus_and_exponent(der: &[u8]) -> (&[u8], &[u8]) {
    let length = usize::from(u16::from_be_bytes([der[6], der[7]]));
    let (n, rest) = der[8..].split_at(length);
    (n.strip_prefix(&[0]).unwrap_or(n), &rest[2..])
}
