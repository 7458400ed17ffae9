use super::*;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};

/// What a token says, unverified.
pub fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

fn header(token: &str) -> Header {
    jsonwebtoken::decode_header(token).unwrap()
}

fn sign(header: &Header, claims: &Value, key: &EncodingKey) -> String {
    jsonwebtoken::encode(header, claims, key).unwrap()
}

/// The claims with one of them changed, or left out.
fn but(claims: &Value, name: &str, value: Value) -> Value {
    let mut claims = claims.clone();
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
        value => claims[name] = value,
    }
    claims
}

async fn assert_refused(test: &Test, attacks: &[(&str, String)]) {
    for (what, token) in attacks {
        let answer = test.get(token, USER).await;
        assert_eq!(answer.refusal(), refused(403, "bad_jwt"), "{what}");
        let answer = test.get(token, "/api/usage").await;
        assert_eq!(answer.refusal(), refused(401, "invalid_token"), "{what}");
    }
}

both_engines! {
    async fn a_token_says_who_and_where_and_nothing_it_need_not(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;

        let (header, claims) = (header(&ada.token), claims(&ada.token));

        assert_eq!((header.alg, header.typ.as_deref()), (Algorithm::ES256, Some("at+jwt")));
        assert_eq!(header.kid, Some(test.app.keys.ring().active_kid.clone()));
        let now = test.app.now().unix();
        assert_eq!(claims, json!({
            "iss": "http://127.0.0.1:8080/auth/v1", "aud": "authenticated", "sub": ada.id, "exp": now + 3600, "iat": now,
            "jti": claims["jti"], "session_id": claims["session_id"], "rtc": 1, "role": "authenticated", "aal": "aal1",
            "amr": [{"method": "password", "timestamp": now}], "email": "ada@example.com", "phone": "",
            "app_metadata": {"provider": "email", "providers": ["email"]}, "user_metadata": {}, "is_anonymous": false,
        }));
    }

    /// Invariant 60.
    async fn every_sign_in_is_a_session_of_its_own(engine: Engine) {
        let test = Test::new(engine).await;
        let first = test.sign_up("ada@example.com").await;
        let second = test.sign_in_again("ada@example.com").await;

        assert_ne!(claims(&first.token)["session_id"], claims(&second.token)["session_id"]);
        assert_ne!(claims(&first.token)["jti"], claims(&second.token)["jti"]);
    }

    /// Invariant 37.
    async fn a_token_is_over_at_its_last_second(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;

        test.later(Duration::from_secs(3599));
        assert_eq!(test.get(&ada.token, USER).await.status, 200);
        test.later(Duration::from_secs(1));

        assert_refused(&test, &[("expired", ada.token)]).await;
    }

    /// Invariant 37.
    async fn a_token_signed_otherwise_is_refused(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let (header, claims) = (header(&ada.token), claims(&ada.token));
        let stranger = Test::new(engine).await;
        let jwks = test.get("", "/.well-known/jwks.json").await;
        let public = jwks.json()["keys"][0].clone();
        let point = ["x", "y"].map(|name| URL_SAFE_NO_PAD.decode(public[name].as_str().unwrap()).unwrap()).concat();

        let symmetric = Header { alg: Algorithm::HS256, ..header.clone() };
        let hs256 = |secret: &[u8]| sign(&symmetric, &claims, &EncodingKey::from_secret(secret));
        let unsigned = |header: Value| {
            let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
            format!("{}.{}.", encode(&header), encode(&claims))
        };
        let (head_and_claims, signature) = ada.token.rsplit_once('.').unwrap();
        let role = but(&claims, "role", json!("admin")).to_string();
        let parts: Vec<_> = ada.token.split('.').collect();
        let kid = header.kid.clone().unwrap();
        let attacks = [
            ("HS256 with the public JWK", hs256(public.to_string().as_bytes())),
            ("HS256 with the public point", hs256(&point)),
            ("HS256 with the key set", hs256(&jwks.bytes)),
            ("HS256 with nothing", hs256(b"")),
            ("alg none", unsigned(json!({"alg": "none", "typ": "at+jwt", "kid": kid}))),
            ("alg None", unsigned(json!({"alg": "None", "typ": "at+jwt", "kid": kid}))),
            ("no alg", unsigned(json!({"typ": "at+jwt", "kid": kid}))),
            ("alg ES256 without a signature", unsigned(json!({"alg": "ES256", "typ": "at+jwt", "kid": kid}))),
            ("the key of another installation", sign(&header, &claims, &stranger.app.keys.ring().signing)),
            ("other claims", format!("{}.{}.{}", parts[0], URL_SAFE_NO_PAD.encode(role), parts[2])),
            ("a signature of zeroes", format!("{head_and_claims}.{}", URL_SAFE_NO_PAD.encode([0; 64]))),
            ("half a signature", format!("{head_and_claims}.{}", &signature[..signature.len() / 2])),
            ("the refresh token", ada.refresh_token.clone()),
            ("no token at all", "x".into()),
        ];

        assert_refused(&test, &attacks).await;
        assert_eq!(test.get(&ada.token, USER).await.status, 200);
    }

    /// Invariant 37.
    async fn a_header_that_points_elsewhere_is_refused_though_our_key_signed_it(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let (header, claims) = (header(&ada.token), claims(&ada.token));
        let jwk: jsonwebtoken::jwk::Jwk = serde_json::from_value(test.get("", "/.well-known/jwks.json").await.json()["keys"][0].clone()).unwrap();
        let with = |header: Header| sign(&header, &claims, &test.app.keys.ring().signing);
        let kid = |kid: Option<&str>| with(Header { kid: kid.map(Into::into), ..header.clone() });
        let typ = |typ: Option<&str>| with(Header { typ: typ.map(Into::into), ..header.clone() });
        let url = || Some("http://127.0.0.1:1/keys".to_owned());

        let attacks = [
            ("jku", with(Header { jku: url(), ..header.clone() })),
            ("x5u", with(Header { x5u: url(), ..header.clone() })),
            ("jwk", with(Header { jwk: Some(jwk), ..header.clone() })),
            ("x5c", with(Header { x5c: Some(vec!["MIIB".into()]), ..header.clone() })),
            ("crit", with(Header { crit: Some(vec!["exp".into()]), ..header.clone() })),
            ("kid missing", kid(None)),
            ("kid unknown", kid(Some("another"))),
            ("kid a path", kid(Some("../../../dev/null"))),
            ("kid a statement", kid(Some("' or 1=1 --"))),
            ("kid a URL", kid(Some("http://127.0.0.1:1/keys"))),
            ("typ missing", typ(None)),
            ("typ JWT", typ(Some("JWT"))),
            ("typ of another kind", typ(Some("link+jwt"))),
        ];

        assert_refused(&test, &attacks).await;
        assert_eq!(test.get(&with(header.clone()), USER).await.status, 200, "it is the header that was refused");
    }

    /// Invariant 37.
    async fn a_token_with_other_claims_is_refused_though_our_key_signed_it(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let (header, claims, now) = (header(&ada.token), claims(&ada.token), test.app.now().unix());
        let with = |name, value| sign(&header, &but(&claims, name, value), &test.app.keys.ring().signing);

        let attacks = [
            ("aud of another service", with("aud", json!("another"))),
            ("aud missing", with("aud", Value::Null)),
            ("iss of another installation", with("iss", json!("https://example.com/auth/v1"))),
            ("iss a prefix", with("iss", json!("http://127.0.0.1:8080"))),
            ("iss missing", with("iss", Value::Null)),
            ("exp now", with("exp", json!(now))),
            ("exp missing", with("exp", Value::Null)),
            ("exp a text", with("exp", json!("never"))),
            ("iat in two minutes", with("iat", json!(now + 120))),
            ("nbf in two minutes", with("nbf", json!(now + 120))),
            ("sub missing", with("sub", Value::Null)),
            ("sub no id", with("sub", json!("ada"))),
            ("jti missing", with("jti", Value::Null)),
            ("session_id missing", with("session_id", Value::Null)),
        ];

        assert_refused(&test, &attacks).await;
        let ben = test.sign_up("ben@example.com").await;
        let other = with("sub", json!(ben.id));
        assert_eq!(test.get(&other, USER).await.refusal(), refused(403, "session_not_found"), "another's session");
        let gone = with("session_id", json!(uuid::Uuid::now_v7()));
        assert_eq!(test.get(&gone, USER).await.refusal(), refused(403, "session_not_found"));
    }

    /// Invariant 38.
    async fn an_access_token_refreshes_nothing(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;

        assert_eq!(test.refresh(&ada.token).await.refusal(), refused(400, "refresh_token_not_found"));
    }

    async fn without_a_token_there_is_nothing(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;

        for value in ["", "Bearer", "Bearer ", &ada.token, &format!("Basic {}", ada.token), &format!("Bearer{}", ada.token)] {
            let request = crate::testing::request(Method::GET, "", USER).header("authorization", value);
            let answer = test.send(request.body(axum::body::Body::empty()).unwrap()).await;
            assert_eq!(answer.refusal(), refused(401, "no_authorization"), "{value:?}");
            assert_eq!(answer.header("www-authenticate"), "Bearer");
        }
        let request = crate::testing::request(Method::GET, "", USER).header("authorization", format!("bearer  {} ", ada.token));
        assert_eq!(test.send(request.body(axum::body::Body::empty()).unwrap()).await.status, 200);
    }
}
