use super::*;
use crate::auth::keys::Keys;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, jwk::JwkSet};

const OLD: &str = "the first secret of this installation";
const NEW: &str = "the second secret of this installation";

/// What an instance with this `JWT_SECRET` makes of the keys in the database.
async fn load(test: &Test, secrets: &[&str]) -> anyhow::Result<Keys> {
    let mut config = test.app.config.clone();
    config.auth.jwt_secret = secrets.iter().map(|s| s.to_string().into()).collect();
    Keys::load(&test.app.db, &config, test.app.now()).await
}

both_engines! {
    /// Invariant 41.
    async fn anyone_verifies_a_token_offline_with_the_public_keys_alone(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;

        let answer = test.get("", "/auth/v1/.well-known/jwks.json").await;

        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("cache-control"), "public, max-age=600");
        assert_eq!(answer.bytes, test.get("", "/.well-known/jwks.json").await.bytes);
        for key in answer.json()["keys"].as_array().unwrap() {
            let mut members: Vec<_> = key.as_object().unwrap().keys().collect();
            members.sort();
            assert_eq!(members, ["alg", "crv", "key_ops", "kid", "kty", "use", "x", "y"], "and no private one");
            assert_eq!((&key["kty"], &key["key_ops"]), (&json!("EC"), &json!(["verify"])));
        }
        let jwks: JwkSet = serde_json::from_slice(&answer.bytes).unwrap();
        let kid = jsonwebtoken::decode_header(&ada.token).unwrap().kid.unwrap();
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_audience(&["authenticated"]);
        validation.validate_exp = false;
        let key = DecodingKey::from_jwk(jwks.find(&kid).unwrap()).unwrap();
        let verified = jsonwebtoken::decode::<Value>(&ada.token, &key, &validation).unwrap();
        assert_eq!(verified.claims["sub"], json!(ada.id));
    }

    async fn a_private_key_is_sealed_in_the_database(engine: Engine) {
        let test = Test::new(engine).await;

        let rows = db::keys::all(&test.app.db).await.unwrap();

        assert_eq!(rows.len(), 1);
        let (sealed, public) = (&rows[0].private_sealed, &rows[0].public_jwk.0);
        let contains = |needle: &[u8]| sealed.windows(needle.len()).any(|window| window == needle);
        let x = URL_SAFE_NO_PAD.decode(public["x"].as_str().unwrap()).unwrap();
        assert!(!contains(&x), "every PKCS#8 of this pair holds its point");
        assert!(!contains(&[0x2a, 0x86, 0x48, 0xce, 0x3d]), "every PKCS#8 of an elliptic curve holds its identifier");
        assert_eq!(public.get("d"), None);
        let another = load(&test, &[NEW]).await.err().expect("another secret opens nothing").to_string();
        assert!(another.contains("another JWT_SECRET"), "{another}");
    }

    /// Invariant 42.
    async fn instances_share_their_keys_and_a_restart_keeps_them(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;

        let beside = test.beside(&[]).await;

        assert_eq!(beside.app.keys.active_kid, test.app.keys.active_kid);
        assert_eq!(beside.get(&ada.token, USER).await.status, 200);
        let child = beside.refreshed(&ada.refresh_token).await;
        assert_eq!(test.get(&child.token, USER).await.status, 200);
        assert_eq!(test.rows("signing_keys").await, 1);
    }

    async fn instances_that_start_together_make_one_key(engine: Engine) {
        let test = Test::new(engine).await;
        let mut tx = test.app.db.begin().await.unwrap();
        let public = db::Json(json!({}));

        let second = db::keys::create_active(&mut tx, "second", "ES256", &public, &[], test.app.now()).await.unwrap();

        assert!(!second, "there is an active one");
    }

    async fn a_new_secret_before_the_old_keeps_sessions_codes_and_keys(engine: Engine) {
        let variables = |secret| [("JWT_SECRET", secret), ("AUTH_AUTOCONFIRM", "false")];
        let before = Test::with(engine, &variables(OLD)).await;
        before.ask_to_sign_up("ada@example.com", PASSWORD).await;
        let code = before.mailed_code("ada@example.com").await;
        let ada = Person::of(&before.verify("ada@example.com", &code).await.json());
        before.ask_to_sign_up("ben@example.com", PASSWORD).await;
        let code_of_ben = before.mailed_code("ben@example.com").await;

        let both = format!("{NEW},{OLD}");
        let after = before.beside(&variables(&both)).await;

        assert_eq!(after.get(&ada.token, USER).await.status, 200);
        let child = after.refreshed(&ada.refresh_token).await;
        assert_eq!(before.get(&child.token, USER).await.status, 200, "the key is still the same");
        assert_eq!(after.verify("ben@example.com", &code_of_ben).await.status, 200);
        assert_eq!(after.rows("signing_keys").await, 1);
    }

    /// Invariant 42.
    async fn the_old_secret_can_go_once_the_new_one_was_in_use(engine: Engine) {
        let test = Test::with(engine, &[("JWT_SECRET", OLD)]).await;
        let kid = &test.app.keys.active_kid;
        assert!(load(&test, &[NEW]).await.is_err());

        load(&test, &[NEW, OLD]).await.unwrap();

        assert_eq!(&load(&test, &[NEW]).await.unwrap().active_kid, kid);
        assert!(load(&test, &[OLD]).await.is_err(), "and opens nothing any more");
    }
}
