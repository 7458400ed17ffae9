use super::authenticator::{self, AT, Authenticator, BE, BS, ED, Response, UP, UV};
use crate::auth::webauthn::{Asserted, Expected, Key, Refused, Registered, RelyingParty};
use crate::auth::webauthn::{assert, register};
use proptest::prelude::*;
use serde_json::{Value, json};

const CHALLENGE: &[u8] = b"sixteen bytes or more of a challenge";

fn party() -> RelyingParty {
    RelyingParty {
        id: "example.org".into(),
        origins: vec![
            "https://example.org".into(),
            "https://app.example.org".into(),
        ],
    }
}

fn authenticator() -> Authenticator {
    Authenticator::new("example.org", "https://example.org")
}

fn registered(response: &Response) -> Result<Registered, Refused> {
    let party = party();
    let expected = Expected {
        party: &party,
        challenge: CHALLENGE,
        user_verified: true,
    };
    register(expected, &response.client_data, &response.data)
}

fn asserted(response: &Response, public_key: &[u8]) -> Result<Asserted, Refused> {
    let party = party();
    let expected = Expected {
        party: &party,
        challenge: CHALLENGE,
        user_verified: true,
    };
    assert(
        expected,
        &response.client_data,
        &response.data,
        &response.signature,
        public_key,
    )
}

/// Both ceremonies, where the authenticator is as it is.
fn both(authenticator: &Authenticator) -> [Option<Refused>; 2] {
    let key = authenticator.public_key();
    [
        registered(&authenticator.create(CHALLENGE)).err(),
        asserted(&authenticator.get(CHALLENGE), &key).err(),
    ]
}

#[test]
fn what_the_standard_says_is_right_is_right() {
    let refused = [
        ("none-es256-crossOrigin", Refused::CrossOrigin),
        ("none-es256-topOrigin", Refused::CrossOrigin),
        ("packed-es384", Refused::Key),
        ("packed-ed448", Refused::Key),
    ];
    let lines = include_str!("webauthn_vectors.txt").lines();
    let mut seen = 0;
    for line in lines.filter(|line| !line.starts_with('#')) {
        let (name, fields) = line.split_once(' ').unwrap();
        let fields: Vec<_> = fields
            .split(' ')
            .map(|hex| hex::decode(hex).unwrap())
            .collect();
        let [
            challenge,
            created,
            attestation,
            id,
            again,
            used,
            data,
            signature,
        ] = &fields[..]
        else {
            panic!("{name} has {} fields", fields.len());
        };
        let party = party();
        let expected = |challenge| Expected {
            party: &party,
            challenge,
            user_verified: false,
        };

        let credential = register(expected(challenge), created, attestation);

        match refused.iter().find(|(refused, _)| *refused == name) {
            Some((_, why)) => assert_eq!(credential, Err(*why), "{name}"),
            None => {
                let credential = credential.unwrap_or_else(|why| panic!("{name}: {why}"));
                assert_eq!(&credential.credential_id, id, "{name}");
                let key = &credential.public_key;
                let sign_in =
                    |signature: &[u8]| assert(expected(again), used, data, signature, key);
                assert!(
                    sign_in(signature).is_ok(),
                    "{name}: {:?}",
                    sign_in(signature)
                );
                let mut forged = signature.clone();
                *forged.last_mut().unwrap() ^= 1;
                assert_eq!(sign_in(&forged), Err(Refused::Signature), "{name}");
                let replayed = assert(expected(challenge), used, data, signature, key);
                assert_eq!(replayed, Err(Refused::Challenge), "{name}");
            }
        }
        seen += 1;
    }
    assert_eq!(seen, 12);
}

#[test]
fn a_credential_of_each_kind_is_registered_and_used() {
    for mut key in [
        authenticator(),
        authenticator().eddsa(),
        authenticator().rs256(),
    ] {
        (key.flags, key.sign_count) = (UP | UV | BE | BS, 7);

        let credential = registered(&key.create(CHALLENGE)).unwrap();
        key.sign_count = 8;
        let used = asserted(&key.get(CHALLENGE), &credential.public_key).unwrap();

        assert_eq!(credential.credential_id, key.credential_id);
        assert_eq!(credential.public_key, key.public_key());
        assert_eq!((credential.sign_count, used.sign_count), (7, 8));
        let seen = |c: (bool, bool, bool)| assert_eq!(c, (true, true, true));
        seen((
            credential.user_verified,
            credential.backup_eligible,
            credential.backed_up,
        ));
        seen((used.user_verified, used.backup_eligible, used.backed_up));
    }
}

/// Invariant 53.
#[test]
fn a_ceremony_of_another_site_is_refused() {
    for origin in [
        "https://evil.example",
        "http://example.org",
        "https://example.org:8443",
        "https://example.org/",
        "https://EXAMPLE.org",
        "https://example.org.evil.example",
        "https://sub.example.org",
        "null",
        "",
    ] {
        let elsewhere = Authenticator {
            origin: origin.into(),
            ..authenticator()
        };
        assert_eq!(both(&elsewhere), [Some(Refused::Origin); 2], "{origin}");
    }
    for rp_id in ["evil.example", "app.example.org", "org", "EXAMPLE.ORG", ""] {
        let elsewhere = Authenticator {
            rp_id: rp_id.into(),
            ..authenticator()
        };
        assert_eq!(
            both(&elsewhere),
            [Some(Refused::RelyingPartyId); 2],
            "{rp_id}"
        );
    }
    let framed = Authenticator {
        cross_origin: true,
        ..authenticator()
    };
    assert_eq!(both(&framed), [Some(Refused::CrossOrigin); 2]);
    let listed = Authenticator {
        origin: "https://app.example.org".into(),
        ..authenticator()
    };
    assert_eq!(both(&listed), [None; 2]);
}

/// Invariant 53.
#[test]
fn an_answer_to_another_challenge_is_refused() {
    let key = authenticator();
    for challenge in [
        &CHALLENGE[1..],
        b"",
        b"another",
        &[CHALLENGE, b"!"].concat(),
    ] {
        assert_eq!(
            registered(&key.create(challenge)).err(),
            Some(Refused::Challenge)
        );
        let used = asserted(&key.get(challenge), &key.public_key());
        assert_eq!(used.err(), Some(Refused::Challenge));
    }
}

#[test]
fn one_ceremony_is_not_the_other() {
    let key = authenticator();
    let mut swapped = key.create(CHALLENGE);
    swapped.client_data = key.client_data("webauthn.get", CHALLENGE);
    assert_eq!(registered(&swapped).err(), Some(Refused::Type));
    for kind in [
        "webauthn.create",
        "payment.get",
        "navigator.id.getAssertion",
        "",
    ] {
        let mut swapped = key.get(CHALLENGE);
        swapped.client_data = key.client_data(kind, CHALLENGE);
        swapped.signature = key.sign(&swapped.data, &swapped.client_data);
        assert_eq!(
            asserted(&swapped, &key.public_key()).err(),
            Some(Refused::Type)
        );
    }
}

/// Invariant 53.
#[test]
fn who_was_not_there_or_not_checked_is_refused() {
    for (flags, refused) in [
        (0, Refused::UserAbsent),
        (UV, Refused::UserAbsent),
        (UP, Refused::UserNotVerified),
        (UP | BE | BS, Refused::UserNotVerified),
        (UP | UV | BS, Refused::Backup),
    ] {
        let lax = Authenticator {
            flags,
            ..authenticator()
        };
        assert_eq!(both(&lax), [Some(refused); 2], "{flags:b}");
    }
    let (party, lax) = (
        party(),
        Authenticator {
            flags: UP,
            ..authenticator()
        },
    );
    let expected = Expected {
        party: &party,
        challenge: CHALLENGE,
        user_verified: false,
    };
    let response = lax.create(CHALLENGE);
    let present = register(expected, &response.client_data, &response.data).unwrap();
    assert!(
        !present.user_verified,
        "where that is not asked for, it is told"
    );
}

#[test]
fn a_signature_is_by_this_credential_over_these_bytes() {
    for key in [
        authenticator(),
        authenticator().eddsa(),
        authenticator().rs256(),
    ] {
        let (right, public_key) = (key.get(CHALLENGE), key.public_key());
        assert!(asserted(&right, &public_key).is_ok());
        let other = authenticator();
        let mut wrong = vec![vec![], vec![0; 64], other.get(CHALLENGE).signature];
        wrong.push(right.signature[1..].to_vec());
        wrong.push([&right.signature[..], &[0]].concat());
        for signature in wrong {
            let forged = Response {
                signature,
                ..right.clone()
            };
            assert_eq!(
                asserted(&forged, &public_key).err(),
                Some(Refused::Signature)
            );
        }
        // The counter is the last byte; the browser's data takes further members.
        let mut counted = right.clone();
        *counted.data.last_mut().unwrap() += 1;
        assert_eq!(
            asserted(&counted, &public_key).err(),
            Some(Refused::Signature)
        );
        let mut added: Value = serde_json::from_slice(&right.client_data).unwrap();
        added["extra"] = json!(1);
        let added = Response {
            client_data: added.to_string().into_bytes(),
            ..right
        };
        assert_eq!(
            asserted(&added, &public_key).err(),
            Some(Refused::Signature)
        );
    }
}

#[test]
fn a_key_is_of_one_kind_and_says_so() {
    let key = authenticator().public_key();
    let (x, y) = (&key[10..42], &key[45..77]);
    assert!(Key::parse(&authenticator::ec2(-7, 1, x, y)).is_some());
    let (n, e) = ([0xff; 256], [1, 0, 1]);
    assert!(Key::parse(&authenticator::rsa(-257, &n, &e)).is_some());
    let mut off_curve = y.to_vec();
    off_curve[31] ^= 1;
    let (number, string) = (authenticator::int, authenticator::bytes);
    for wrong in [
        // Another algorithm, curve or type than the numbers are of.
        authenticator::ec2(-8, 1, x, y),
        authenticator::ec2(-257, 1, x, y),
        authenticator::ec2(-7, 2, x, y),
        authenticator::ec2(-7, 6, x, y),
        authenticator::ec2(-35, 1, x, y),
        authenticator::okp(-7, 1, x),
        authenticator::okp(-8, 1, x),
        authenticator::okp(-7, 6, x),
        authenticator::rsa(-7, &n, &e),
        authenticator::rsa(-37, &n, &e),
        authenticator::rsa(-65535, &n, &e),
        // No point, no key, too small, too large, or a signature that anyone can make.
        authenticator::ec2(-7, 1, x, &off_curve),
        authenticator::ec2(-7, 1, &[0; 32], &[0; 32]),
        authenticator::ec2(-7, 1, &x[1..], y),
        authenticator::okp(-8, 6, &x[1..]),
        authenticator::rsa(-257, &n[128..], &e),
        authenticator::rsa(-257, &[0xff; 513], &e),
        authenticator::rsa(-257, &[&[0], &n[1..]].concat(), &e),
        authenticator::rsa(-257, &n, &[1]),
        authenticator::rsa(-257, &n, &[2]),
        authenticator::rsa(-257, &n, &[]),
        authenticator::rsa(-257, &[], &e),
        authenticator::rsa(-257, &n, &[1; 5]),
        // Members that are missing, or there twice.
        authenticator::map(&[]),
        authenticator::map(&[
            (1, number(2)),
            (3, number(-7)),
            (-1, number(1)),
            (-2, string(x)),
        ]),
        authenticator::map(&[
            (1, number(2)),
            (-1, number(1)),
            (-2, string(x)),
            (-3, string(y)),
        ]),
        authenticator::map(&[
            (1, number(2)),
            (1, number(2)),
            (3, number(-7)),
            (-1, number(1)),
            (-2, string(x)),
            (-3, string(y)),
        ]),
        [&key[..], &[0]].concat(),
        key[..76].to_vec(),
        vec![],
    ] {
        assert!(Key::parse(&wrong).is_none(), "{}", hex::encode(&wrong));
        let response = authenticator().create_with(CHALLENGE, &wrong);
        assert!(registered(&response).is_err(), "{}", hex::encode(&wrong));
    }
}

#[test]
fn every_byte_has_its_place() {
    let key = authenticator();
    let right = key.create(CHALLENGE);
    for length in 0..right.data.len() {
        let cut = Response {
            data: right.data[..length].to_vec(),
            ..right.clone()
        };
        assert_eq!(
            registered(&cut).err(),
            Some(Refused::Attestation),
            "{length}"
        );
    }
    let longer = Response {
        data: [&right.data[..], &[0]].concat(),
        ..right.clone()
    };
    assert_eq!(registered(&longer).err(), Some(Refused::Attestation));
    let credential = [&[0; 16][..], &[0, 1, 9], &key.public_key()].concat();
    let extensions = authenticator::map(&[(1, authenticator::int(1))]);
    let data = |flags, rest: &[&[u8]]| [&key.header(flags), &rest.concat()[..]].concat();
    for (data, refused) in [
        (data(UP | UV | AT, &[&credential]), None),
        (data(UP | UV | AT | ED, &[&credential, &extensions]), None),
        (
            data(UP | UV | AT | ED, &[&credential]),
            Some(Refused::AuthenticatorData),
        ),
        (
            data(UP | UV | AT | ED, &[&credential, &extensions[..2]]),
            Some(Refused::AuthenticatorData),
        ),
        (
            data(UP | UV | AT, &[&credential, &extensions]),
            Some(Refused::AuthenticatorData),
        ),
        (data(UP | UV | AT, &[]), Some(Refused::AuthenticatorData)),
        (
            data(UP | UV, &[&credential]),
            Some(Refused::AuthenticatorData),
        ),
        (data(UP | UV, &[]), Some(Refused::AuthenticatorData)),
        (
            data(UP | UV | AT, &[&[0; 18]]),
            Some(Refused::AuthenticatorData),
        ),
        (
            data(
                UP | UV | AT,
                &[&[0; 16], &[4, 0], &[0; 1024], &key.public_key()],
            ),
            Some(Refused::AuthenticatorData),
        ),
    ] {
        let response = Response {
            data: authenticator::attestation(&data),
            ..right.clone()
        };
        assert_eq!(
            registered(&response).err(),
            refused,
            "{}",
            hex::encode(&data)
        );
    }
}

#[test]
fn what_is_not_client_data_is_refused() {
    let key = authenticator();
    let right = String::from_utf8(key.client_data("webauthn.create", CHALLENGE)).unwrap();
    let twice = right.replacen('{', r#"{"origin":"https://evil.example","#, 1);
    let padding = format!(r#"{{"pad":"{}","#, "x".repeat(16 * 1024));
    for wrong in [
        "",
        "{}",
        "[]",
        "null",
        &right[1..],
        &format!("{right}}}"),
        &twice,
        &right.replacen('{', &padding, 1),
    ] {
        let response = Response {
            client_data: wrong.as_bytes().to_vec(),
            ..key.create(CHALLENGE)
        };
        assert_eq!(
            registered(&response).err(),
            Some(Refused::ClientData),
            "{wrong}"
        );
    }
}

/// CBOR that claims more than there is, or nests as deep as it is long.
#[test]
fn hostile_cbor_costs_nothing() {
    let key = authenticator();
    let deep = |byte: u8| [&[0xa1, 0x61, b'x'][..], &[byte; 15_000]].concat();
    for data in [
        deep(0x81),
        deep(0xa1),
        deep(0xc1),
        deep(0x9f),
        vec![0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        vec![
            0xa1, 0x61, b'x', 0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        ],
        vec![
            0xa1, 0x61, b'x', 0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        ],
        vec![0xbf, 0xff],
    ] {
        let response = Response {
            data: data.clone(),
            ..key.create(CHALLENGE)
        };
        assert_eq!(registered(&response).err(), Some(Refused::Attestation));
        let public_key = key.create_with(CHALLENGE, &data);
        assert!(registered(&public_key).is_err());
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(data in proptest::collection::vec(any::<u8>(), 0..300), flags: u8) {
        let key = authenticator();
        let right = key.create(CHALLENGE);
        let _ = registered(&Response { data: data.clone(), ..right.clone() });
        let _ = registered(&Response { client_data: data.clone(), ..right.clone() });
        let _ = registered(&Response { data: authenticator::attestation(&data), ..right.clone() });
        let _ = registered(&key.create_with(CHALLENGE, &data));
        let whole = [key.header(flags), data.clone()].concat();
        let _ = registered(&Response { data: authenticator::attestation(&whole), ..right.clone() });
        let _ = asserted(&Response { data: whole, ..key.get(CHALLENGE) }, &key.public_key());
        let _ = asserted(&key.get(CHALLENGE), &data);
    }

    #[test]
    fn no_changed_byte_passes(at: prop::sample::Index, by in 1u8..) {
        let key = authenticator();
        let mut response = key.get(CHALLENGE);
        let (data, signature) = (response.data.len(), response.signature.len());
        match at.index(data + signature) {
            at if at < data => response.data[at] ^= by,
            at => response.signature[at - data] ^= by,
        }
        prop_assert!(asserted(&response, &key.public_key()).is_err());
    }
}
