use super::issuer::{Issuer, jwk, sign, sign_with};
use crate::{
    auth::{
        id_token::{Besides, Claims, Refused, verify},
        jwks::Issuers,
        providers::{Authority, Provider, Signed},
        user as account,
    },
    testing::START,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::time::Duration;

fn google() -> Provider {
    Provider {
        name: "google",
        issuers: vec![
            "https://accounts.google.com".into(),
            "accounts.google.com".into(),
        ],
        audiences: vec!["web".into(), "ios".into()],
        algorithms: &[Algorithm::RS256],
        signed: Signed::ByKeysAt(None),
        authority: Authority::Google,
        max_age: Some(Duration::from_secs(3600)),
        signs_in: true,
        client_secret: None,
    }
}

fn ada() -> Value {
    let now = START.unix();
    json!({"iss": "https://accounts.google.com", "aud": "web", "azp": "ios", "sub": "1", "iat": now, "exp": now + 3600,
           "email": "Ada@gmail.com", "email_verified": true, "name": "Ada Lovelace"})
}

fn with(changes: Value) -> Value {
    let mut claims = ada();
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

fn without(name: &str) -> Value {
    let mut claims = ada();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

fn key(which: usize) -> DecodingKey {
    let jwk = serde_json::from_value(jwk(which)).unwrap();
    DecodingKey::from_jwk(&jwk).unwrap()
}

fn read(claims: &Value) -> Result<Claims, Refused> {
    verify(
        &sign(0, claims),
        &google(),
        &key(0),
        Besides::default(),
        START,
    )
}

fn with_nonce(claims: &Value, nonce: Option<&str>) -> Result<Claims, Refused> {
    let besides = Besides {
        nonce,
        ..Besides::default()
    };
    verify(&sign(0, claims), &google(), &key(0), besides, START)
}

/// Invariant 14, and 18: the audience is the configuration's.
#[test]
fn a_token_is_believed_when_everything_in_it_is_right() {
    let claims = read(&ada()).unwrap();
    assert_eq!(
        (claims.subject.as_str(), claims.audience.as_str()),
        ("1", "web")
    );
    assert_eq!(claims.email.as_deref(), Some("ada@gmail.com"));
    assert!(claims.email_verified && claims.authoritative);

    let other_form = read(&with(json!({"iss": "accounts.google.com"}))).unwrap();
    assert_eq!(
        other_form.issuer, claims.issuer,
        "one identity, however it is spelt"
    );
    assert!(read(&with(json!({"aud": ["x", "ios"]}))).is_ok());
    assert!(read(&with(json!({"iat": START.unix() - 3600}))).is_ok());
}

/// Invariant 14.
#[test]
fn a_token_with_one_thing_wrong_is_refused_for_it() {
    let now = START.unix();
    let cases = [
        (with(json!({"aud": "another"})), Refused::Audience),
        (with(json!({"aud": ["another"]})), Refused::Audience),
        (with(json!({"aud": []})), Refused::Audience),
        (without("aud"), Refused::Audience),
        (with(json!({"azp": "another"})), Refused::Audience),
        (with(json!({"azp": ["ios"]})), Refused::Audience),
        (
            with(json!({"iss": "https://accounts.google.com/"})),
            Refused::Issuer,
        ),
        (
            with(json!({"iss": "https://evil.example"})),
            Refused::Issuer,
        ),
        (without("iss"), Refused::Issuer),
        (with(json!({"exp": now})), Refused::Expired),
        (with(json!({"exp": "never"})), Refused::Expired),
        (without("exp"), Refused::Expired),
        (with(json!({"iat": now - 3601})), Refused::IssuedAt),
        (with(json!({"iat": now + 61})), Refused::IssuedAt),
        (with(json!({"nbf": now + 61})), Refused::IssuedAt),
        (without("iat"), Refused::IssuedAt),
        (with(json!({"sub": ""})), Refused::Subject),
        (with(json!({"sub": 1})), Refused::Subject),
        (with(json!({"sub": "a\u{0}b"})), Refused::Subject),
        (with(json!({"sub": "x".repeat(256)})), Refused::Subject),
        (without("sub"), Refused::Subject),
        (json!([]), Refused::Signature),
    ];
    for (claims, why) in cases {
        assert_eq!(read(&claims), Err(why), "{claims}");
    }
}

/// Invariant 14: algorithms are the provider's, and keys are found by nothing that a token brings.
#[test]
fn a_token_signed_otherwise_is_refused() {
    let refused =
        |token: &str| verify(token, &google(), &key(0), Besides::default(), START).unwrap_err();
    let public = jwk(0).to_string();
    let secret = EncodingKey::from_secret(public.as_bytes());
    let hs256 = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &ada(), &secret).unwrap();
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let unsigned = format!("{}.{}.", part(&json!({"alg": "none"})), part(&ada()));
    let kid = Some("key-0".to_owned());
    let pointing = Header {
        kid: kid.clone(),
        jku: Some("https://evil.example".into()),
        ..Header::new(Algorithm::RS256)
    };
    let stronger = Header {
        kid,
        ..Header::new(Algorithm::RS512)
    };

    assert_eq!(refused(&hs256), Refused::Algorithm);
    assert_eq!(
        refused(&sign_with(&stronger, 0, &ada())),
        Refused::Algorithm
    );
    assert_eq!(refused(&unsigned), Refused::Malformed);
    assert_eq!(refused(&sign_with(&pointing, 0, &ada())), Refused::Header);
    assert_eq!(refused(&sign(1, &ada())), Refused::Signature);
    assert_eq!(refused("x"), Refused::Malformed);
    assert_eq!(refused(&"x".repeat(9000)), Refused::Malformed);
}

/// Invariant 16.
#[test]
fn a_nonce_is_known_raw_or_hashed_and_a_missing_one_is_missed() {
    let hashed = hex::encode(Sha256::digest("raw"));

    assert!(with_nonce(&with(json!({"nonce": "raw"})), Some("raw")).is_ok());
    assert!(with_nonce(&with(json!({"nonce": hashed})), Some("raw")).is_ok());
    assert!(with_nonce(&with(json!({"nonce_supported": false})), Some("raw")).is_ok());
    for (claims, nonce) in [
        (with(json!({"nonce": "other"})), Some("raw")),
        (with(json!({"nonce": "raw"})), Some(hashed.as_str())),
        (with(json!({"nonce": "raw"})), None),
        (with(json!({"nonce": "raw"})), Some("")),
        (ada(), Some("raw")),
        (with(json!({"nonce_supported": true})), Some("raw")),
    ] {
        assert_eq!(
            with_nonce(&claims, nonce),
            Err(Refused::Nonce),
            "{claims} {nonce:?}"
        );
    }
}

/// Invariant 17.
#[test]
fn truth_written_as_text_is_read_as_it_is_meant() {
    let verified = |value: Value| {
        read(&with(json!({"email_verified": value})))
            .unwrap()
            .email_verified
    };
    assert!(verified(json!("true")) && verified(json!(true)));
    for no in [
        json!("false"),
        json!(false),
        json!("yes"),
        json!(1),
        Value::Null,
    ] {
        assert!(!verified(no));
    }
}

/// Invariant 13: Google speaks for its own mailboxes and for domains that it hosts.
#[test]
fn a_provider_is_believed_about_addresses_that_it_hosts_alone() {
    let speaks = |changes: Value| read(&with(changes)).unwrap().authoritative;
    assert!(speaks(
        json!({"email": "a@example.com", "hd": "example.com"})
    ));
    assert!(!speaks(json!({"email": "a@example.com"})));
    assert!(!speaks(
        json!({"email": "a@example.com", "hd": "other.example"})
    ));
    assert!(!speaks(json!({"email": "a@evilgmail.com"})));
    assert!(!speaks(
        json!({"email": "a@gmail.com", "email_verified": false})
    ));
}

#[test]
fn a_name_is_one_line_of_text_and_a_picture_a_link() {
    let claims = read(&with(
        json!({"name": format!("A\u{0}\n{}", "x".repeat(300)), "picture": "javascript:alert(1)"}),
    ))
    .unwrap();
    assert_eq!(claims.name.map(|name| name.chars().count()), Some(200));
    assert_eq!(claims.picture, None);
}

#[test]
fn userinfo_says_what_a_token_leaves_out_and_nothing_of_somebody_else() {
    let claims = || read(&without("email")).unwrap();
    let said = json!({"sub": "1", "email": "Ada@gmail.com", "email_verified": true, "name": "Another", "picture": "https://example.com/a.png"});

    let whole = claims().besides(&google(), &said);
    assert_eq!(whole.email.as_deref(), Some("ada@gmail.com"));
    assert!(whole.email_verified && whole.authoritative);
    assert_eq!(
        whole.name.as_deref(),
        Some("Ada Lovelace"),
        "what is signed stays"
    );
    assert_eq!(whole.picture.as_deref(), Some("https://example.com/a.png"));
    for sub in [json!("2"), Value::Null, json!(1)] {
        let other = account::merged(said.clone(), json!({"sub": sub}));
        assert_eq!(claims().besides(&google(), &other), claims(), "{sub}");
    }
}

#[test]
fn an_access_token_has_to_be_the_one_that_the_token_names() {
    let hash = URL_SAFE_NO_PAD.encode(&Sha256::digest("right")[..16]);
    let check = |token| {
        let besides = Besides {
            access_token: token,
            ..Besides::default()
        };
        verify(
            &sign(0, &with(json!({"at_hash": hash}))),
            &google(),
            &key(0),
            besides,
            START,
        )
    };
    assert!(check(Some("right")).is_ok() && check(None).is_ok());
    assert_eq!(check(Some("wrong")), Err(Refused::AccessToken));
}

fn at(issuer: &Issuer, path: &str) -> Provider {
    Provider {
        signed: Signed::ByKeysAt(Some(format!("{}{path}", issuer.url))),
        ..google()
    }
}

fn issuers() -> Issuers {
    let config = crate::Config::from_env(&Default::default()).unwrap().config;
    Issuers::new(&config.auth.providers, crate::http::Client::default())
}

/// Invariant 21.
#[tokio::test]
async fn keys_are_asked_for_once_and_kept_as_long_as_they_say() {
    let (issuer, issuers) = (Issuer::start().await, issuers());
    let provider = at(&issuer, "/keys");
    let known = |now| issuers.key(&provider, Some("key-0"), now);

    let (a, b, c) = tokio::join!(known(START), known(START), known(START));
    assert!([a, b, c].into_iter().all(|key| key.unwrap().is_some()));
    assert_eq!(issuer.asked(), 1, "together they ask once");
    known(START + Duration::from_secs(599)).await.unwrap();
    assert_eq!(issuer.asked(), 1);
    known(START + Duration::from_secs(600)).await.unwrap();
    assert_eq!(issuer.asked(), 2);
}

/// Invariant 21.
#[tokio::test]
async fn an_unknown_key_is_asked_after_once_a_minute() {
    let (issuer, issuers) = (Issuer::start().await, issuers());
    let provider = at(&issuer, "/keys");
    issuers.key(&provider, Some("key-0"), START).await.unwrap();
    issuer.rotate();

    for s in [1, 30, 59] {
        let key = issuers
            .key(&provider, Some("key-1"), START + Duration::from_secs(s))
            .await;
        assert!(key.unwrap().is_none());
    }
    assert_eq!(issuer.asked(), 1);
    let later = START + Duration::from_secs(60);
    assert!(
        issuers
            .key(&provider, Some("key-1"), later)
            .await
            .unwrap()
            .is_some()
    );
    for kid in ["a", "b", "../../etc", ""] {
        assert!(
            issuers
                .key(&provider, Some(kid), later)
                .await
                .unwrap()
                .is_none()
        );
    }
    assert_eq!(issuer.asked(), 2);
}

/// Invariant 21.
#[tokio::test]
async fn old_keys_serve_while_an_issuer_is_silent_and_one_that_never_spoke_is_left_alone() {
    let (issuer, issuers) = (Issuer::start().await, issuers());
    let provider = at(&issuer, "/keys");
    issuers.key(&provider, Some("key-0"), START).await.unwrap();
    issuer.silence();

    let later = START + Duration::from_secs(900);
    assert!(
        issuers
            .key(&provider, Some("key-0"), later)
            .await
            .unwrap()
            .is_some()
    );
    assert!(
        issuers
            .key(&provider, Some("key-0"), later)
            .await
            .unwrap()
            .is_some()
    );
    assert_eq!(issuer.asked(), 2, "tried again, then left alone");

    let fresh = self::issuers();
    for _ in 0..3 {
        assert!(fresh.key(&provider, Some("key-0"), later).await.is_err());
    }
    assert_eq!(issuer.asked(), 3);
}

/// Invariant 21.
#[tokio::test]
async fn what_is_too_large_moved_or_not_https_is_no_key() {
    let (issuer, issuers) = (Issuer::start().await, issuers());

    for path in ["/large", "/moved", "/absent"] {
        assert!(
            issuers
                .key(&at(&issuer, path), Some("key-0"), START)
                .await
                .is_err(),
            "{path}"
        );
    }
    assert_eq!(issuer.asked(), 0, "nobody was led there");
    for url in [
        "http://example.com/keys",
        "file:///etc/passwd",
        "https://user:word@example.com/",
        "http://169.254.169.254/",
    ] {
        let provider = Provider {
            signed: Signed::ByKeysAt(Some(url.into())),
            ..google()
        };
        assert!(
            issuers.key(&provider, Some("key-0"), START).await.is_err(),
            "{url}"
        );
    }
}

/// Invariant 22.
#[tokio::test]
async fn a_discovery_that_speaks_for_another_issuer_is_not_believed() {
    let (issuer, issuers) = (Issuer::start().await, issuers());

    assert_eq!(
        issuers
            .discovery(&issuer.url, START)
            .await
            .unwrap()
            .jwks_uri,
        format!("{}/keys", issuer.url)
    );
    assert!(
        issuers
            .discovery(&format!("{}/other", issuer.url), START)
            .await
            .is_err()
    );
    assert!(
        issuers
            .discovery(&format!("{}/", issuer.url), START)
            .await
            .is_err(),
        "to the letter"
    );
}
