use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use webhooks::Refused;
use webhooks::sendgrid::{Kind, TOLERANCE_S, is_key, read, verify};

const NOW: i64 = 1_795_000_000;
const BODY: &[u8] =
    br#"[{"email":"ann@example.com","event":"bounce","type":"bounce","timestamp":1795000000}]"#;

/// What SendGrid would publish, and sign with.
struct Account {
    pair: EcdsaKeyPair,
    key: String,
}

impl Account {
    fn new() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let mut der = vec![
            0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06,
            0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
        ];
        der.extend(pair.public_key().as_ref());
        Self {
            key: STANDARD.encode(der),
            pair,
        }
    }

    fn sign(&self, body: &[u8], at: i64) -> String {
        let signed = [at.to_string().as_bytes(), body].concat();
        STANDARD.encode(self.pair.sign(&SystemRandom::new(), &signed).unwrap())
    }
}

#[test]
fn a_delivery_is_accepted_from_any_configured_key_and_from_no_other() {
    let (ours, old, other) = (Account::new(), Account::new(), Account::new());
    let keys = [ours.key.clone(), old.key.clone()];
    let at = NOW.to_string();
    let check = |signature: &str, body: &[u8]| {
        verify(body, Some(signature), Some(&at), &keys, NOW, TOLERANCE_S)
    };

    assert_eq!(check(&ours.sign(BODY, NOW), BODY), Ok(0));
    assert_eq!(check(&old.sign(BODY, NOW), BODY), Ok(1));
    assert_eq!(
        check(&other.sign(BODY, NOW), BODY),
        Err(Refused::WrongSignature)
    );
    assert_eq!(
        check(&ours.sign(BODY, NOW), b"[]"),
        Err(Refused::WrongSignature)
    );
    assert_eq!(
        check(&ours.sign(BODY, NOW - 1), BODY),
        Err(Refused::WrongSignature)
    );
    assert!(matches!(
        check("not base64!", BODY),
        Err(Refused::MalformedHeader(_))
    ));
}

#[test]
fn nothing_is_accepted_without_headers_without_a_key_or_at_another_time() {
    let ours = Account::new();
    let signature = ours.sign(BODY, NOW);
    let at = NOW.to_string();
    let keys = [ours.key.clone()];

    assert_eq!(
        verify(BODY, None, Some(&at), &keys, NOW, TOLERANCE_S),
        Err(Refused::MissingHeader)
    );
    assert_eq!(
        verify(BODY, Some(&signature), None, &keys, NOW, TOLERANCE_S),
        Err(Refused::MissingHeader)
    );
    for none in [&[][..], &[String::new()], &["bm90IGEga2V5".to_owned()]] {
        assert_eq!(
            verify(BODY, Some(&signature), Some(&at), none, NOW, TOLERANCE_S),
            Err(Refused::NotConfigured)
        );
    }
    for odd in ["", "-1", "+1", "1e9", "9999999999999"] {
        let refused = verify(BODY, Some(&signature), Some(odd), &keys, NOW, TOLERANCE_S);
        assert!(matches!(refused, Err(Refused::MalformedHeader(_))), "{odd}");
    }
    let late = NOW + TOLERANCE_S + 1;
    assert_eq!(
        verify(BODY, Some(&signature), Some(&at), &keys, late, TOLERANCE_S),
        Err(Refused::TooOld {
            age_s: TOLERANCE_S + 1
        })
    );
    let early = NOW - TOLERANCE_S - 1;
    assert_eq!(
        verify(BODY, Some(&signature), Some(&at), &keys, early, TOLERANCE_S),
        Err(Refused::FromTheFuture {
            ahead_s: TOLERANCE_S + 1
        })
    );
    assert!(is_key(&ours.key) && !is_key("MFkw"));
}

#[test]
fn what_bounces_for_good_and_what_is_called_spam_ends_it_and_nothing_else_does() {
    let body = br#"[
        {"email": "a@example.com", "event": "bounce", "type": "bounce"},
        {"email": "b@example.com", "event": "bounce", "type": "blocked"},
        {"email": "c@example.com", "event": "spamreport"},
        {"email": "d@example.com", "event": "delivered"},
        {"email": "e@example.com", "event": "something_new"},
        {"event": "processed"}
    ]"#;

    let events = read(body).unwrap();

    let ended: Vec<_> = events
        .iter()
        .filter(|e| e.ends_it())
        .map(|e| e.email.as_str())
        .collect();
    assert_eq!(ended, ["a@example.com", "c@example.com"]);
    assert_eq!(events.len(), 5);
    assert_eq!(events[4].kind, Kind::Unknown("something_new".into()));
    assert!(read(b"{}").is_err() && read(b"[1]").is_err());
}
