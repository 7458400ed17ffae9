use super::*;
use crate::auth::keys::{
    Keys,
    rotation::{self, Revoked, Rotated},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, jwk::JwkSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

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

        assert_eq!(beside.app.keys.ring().active_kid, test.app.keys.ring().active_kid);
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
        let kid = &test.app.keys.ring().active_kid.clone();
        assert!(load(&test, &[NEW]).await.is_err());

        load(&test, &[NEW, OLD]).await.unwrap();

        assert_eq!(&load(&test, &[NEW]).await.unwrap().ring().active_kid, kid);
        assert!(load(&test, &[OLD]).await.is_err(), "and opens nothing any more");
    }
}

async fn rotate(test: &Test, at_once: bool) -> Rotated {
    let mut tx = test.app.db.begin().await.unwrap();
    let rotated = rotation::rotate(&test.app.keys, &mut tx, at_once, test.app.now()).await;
    tx.commit().await.unwrap();
    rotated.unwrap()
}

async fn revoke(test: &Test, kid: &str) -> Revoked {
    let mut tx = test.app.db.begin().await.unwrap();
    let revoked = rotation::revoke(&test.app.keys, &mut tx, kid, test.app.now()).await;
    tx.commit().await.unwrap();
    revoked.unwrap()
}

/// The keys that verifiers see.
async fn published(test: &Test) -> Vec<String> {
    let jwks = test.get("", "/.well-known/jwks.json").await.json();
    let keys = jwks["keys"].as_array().unwrap().clone();
    let kids = keys
        .iter()
        .map(|key| key["kid"].as_str().unwrap().to_owned());
    kids.collect()
}

fn signed_by(person: &Person) -> String {
    jsonwebtoken::decode_header(&person.token)
        .unwrap()
        .kid
        .unwrap()
}

/// Until every instance has heard of a change.
const HEARD: Duration = Duration::from_secs(5);

/// Uses tokens where they were not issued, and takes new ones there, until told to stop.
async fn go_on(
    mut person: Person,
    mut here: &Test,
    mut there: &Test,
    rounds: &AtomicUsize,
    stop: &AtomicBool,
) -> Person {
    while !stop.load(SeqCst) {
        assert_eq!(
            here.get(&person.token, USER).await.status,
            200,
            "a token that is in time"
        );
        person = there.refreshed(&person.refresh_token).await;
        assert_eq!(
            here.get(&person.token, USER).await.status,
            200,
            "a token of this moment"
        );
        rounds.fetch_add(1, SeqCst);
        (here, there) = (there, here);
    }
    person
}

both_engines! {
    /// Invariant 41.
    async fn a_key_is_published_before_it_signs_and_verifies_after(engine: Engine) {
        let test = Test::new(engine).await;
        let beside = test.beside(&[]).await;
        let before = test.sign_up("ada@example.com").await;
        let first = signed_by(&before);

        let Rotated::Published { kid, usable_at } = rotate(&test, false).await else { panic!() };
        assert_eq!(usable_at, test.app.now() + Duration::from_secs(20 * 60));
        beside.later(HEARD);
        let mut seen = published(&beside).await;
        seen.sort();
        let mut both = [first.clone(), kid.clone()];
        both.sort();
        assert_eq!(seen, both, "another instance shows it too");
        assert_eq!(signed_by(&beside.sign_in_again("ada@example.com").await), first, "and does not sign with it");

        test.later(Duration::from_secs(20 * 60 - 1));
        assert_eq!(rotate(&test, false).await, Rotated::TooEarly { kid: kid.clone(), usable_at });
        test.later(Duration::from_secs(1));
        assert_eq!(rotate(&test, false).await, Rotated::Activated { kid: kid.clone(), retired: first.clone() });

        beside.later(Duration::from_secs(20 * 60));
        let after = beside.sign_in_again("ada@example.com").await;
        assert_eq!(signed_by(&after), kid);
        for instance in [&test, &beside] {
            assert_eq!(instance.get(&before.token, USER).await.status, 200, "what the old one signed counts");
            assert_eq!(instance.get(&after.token, USER).await.status, 200);
            assert_eq!(published(instance).await.len(), 2);
        }
    }

    /// Invariant 41: nobody notices a rotation, not even one that waits for nobody.
    async fn a_rotation_loses_no_request(engine: Engine) {
        let test = Test::new(engine).await;
        let beside = test.beside(&[]).await;
        let (rounds, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let mut people = vec![];
        for n in 0..4 {
            people.push(test.sign_up(&format!("user{n}@example.com")).await);
        }

        let load = people.into_iter().enumerate().map(|(n, person)| {
            let (here, there) = if n % 2 == 0 { (&test, &beside) } else { (&beside, &test) };
            go_on(person, here, there, &rounds, &stop)
        });
        let rotating = async {
            for _ in 0..3 {
                assert!(matches!(rotate(&beside, true).await, Rotated::Activated { .. }));
                assert_eq!(test.sign_in("user0@example.com", PASSWORD).await.status, 200);
                let so_far = rounds.load(SeqCst);
                while rounds.load(SeqCst) < so_far + 8 {
                    tokio::task::yield_now().await;
                }
                test.later(HEARD);
                beside.later(HEARD);
            }
            stop.store(true, SeqCst);
        };
        let (people, ()) = tokio::join!(futures_util::future::join_all(load), rotating);

        let shown = published(&test).await;
        assert_eq!(shown.len(), 4, "the first and those of three rotations");
        for person in people {
            assert!(shown.contains(&signed_by(&person)), "a key of a token that is in time is missing");
            assert_eq!(beside.get(&person.token, USER).await.status, 200);
        }
    }

    async fn a_key_that_another_instance_just_made_is_learnt_from_its_first_token(engine: Engine) {
        let test = Test::new(engine).await;
        let beside = test.beside(&[]).await;
        test.sign_up("ada@example.com").await;
        rotate(&beside, true).await;
        beside.later(HEARD);
        let ada = beside.sign_in_again("ada@example.com").await;
        let key = beside.service_key();
        assert!(!test.app.keys.ring().knows(&signed_by(&ada)));

        assert_eq!(test.get(&ada.token, USER).await.status, 200);
        assert_eq!(test.get(&key, "/auth/v1/admin/users").await.status, 200);

        let token = |kid: &str| {
            let header = jsonwebtoken::Header { typ: Some("at+jwt".into()), kid: Some(kid.into()), ..jsonwebtoken::Header::new(Algorithm::ES256) };
            jsonwebtoken::encode(&header, &super::access::claims(&ada.token), &test.app.keys.ring().signing).unwrap()
        };
        for unknown in ["", "another", &"A".repeat(43), &"../".repeat(14), &"A".repeat(10_000)] {
            assert_eq!(test.get(&token(unknown), USER).await.refusal(), refused(403, "bad_jwt"), "{unknown}");
        }
    }

    async fn what_a_revoked_key_signed_is_refused_on_every_instance(engine: Engine) {
        let test = Test::new(engine).await;
        let beside = test.beside(&[]).await;
        let ada = test.sign_up("ada@example.com").await;
        let (old, key) = (signed_by(&ada), test.service_key());
        rotate(&test, true).await;
        for instance in [&test, &beside] {
            instance.later(HEARD);
            assert_eq!(instance.get(&ada.token, USER).await.status, 200);
        }

        assert_eq!(revoke(&test, &old).await, Revoked::Done);

        for instance in [&test, &beside] {
            instance.later(HEARD);
            assert_eq!(instance.get(&ada.token, USER).await.refusal(), refused(403, "bad_jwt"));
            assert_eq!(instance.get(&key, "/auth/v1/admin/users").await.refusal(), refused(403, "bad_jwt"));
            assert!(!published(instance).await.contains(&old));
        }
        let ada = beside.refreshed(&ada.refresh_token).await;
        assert_eq!(test.get(&ada.token, USER).await.status, 200, "nobody is signed out");
        assert_eq!(revoke(&test, &old).await, Revoked::Before);
    }

    async fn a_revoked_key_that_signed_is_replaced_at_once(engine: Engine) {
        for with_standby in [true, false] {
            let test = Test::new(engine).await;
            let ada = test.sign_up("ada@example.com").await;
            if with_standby {
                rotate(&test, false).await;
            }

            let Revoked::Replaced { by } = revoke(&test, &signed_by(&ada)).await else { panic!() };

            test.later(HEARD);
            assert_eq!(test.get(&ada.token, USER).await.refusal(), refused(403, "bad_jwt"));
            let ada = test.refreshed(&ada.refresh_token).await;
            assert_eq!((signed_by(&ada), published(&test).await), (by.clone(), vec![by]));
            assert_eq!(test.get(&ada.token, USER).await.status, 200);
            assert_eq!(test.rows("signing_keys").await, 2);
        }
    }

    async fn nothing_private_is_left_of_a_key_that_signs_no_more(engine: Engine) {
        let test = Test::new(engine).await;
        let first = test.app.keys.ring().active_kid.clone();
        rotate(&test, false).await;
        test.later(Duration::from_secs(20 * 60));
        rotate(&test, false).await;
        let Rotated::Published { kid: unused, .. } = rotate(&test, false).await else { panic!() };
        revoke(&test, &unused).await;

        let rows = db::keys::all(&test.app.db).await.unwrap();

        assert_eq!(rows.len(), 3);
        for row in rows {
            let gone = row.kid == first || row.kid == unused;
            assert_eq!((row.private_sealed.is_empty(), row.state == "retired"), (gone, gone), "{}", row.kid);
        }
        assert_eq!(test.rows("audit_events").await, 4, "published, activated, published, revoked");
    }

    /// Invariant 42.
    async fn a_standby_is_sealed_anew_with_the_key_that_signs(engine: Engine) {
        let test = Test::with(engine, &[("JWT_SECRET", OLD)]).await;
        let Rotated::Published { kid, .. } = rotate(&test, false).await else { panic!() };
        load(&test, &[NEW, OLD]).await.unwrap();
        let after = test.beside(&[("JWT_SECRET", NEW)]).await;

        rotate(&after, true).await;
        after.later(HEARD);

        assert_eq!(signed_by(&after.sign_up("ada@example.com").await), kid);
    }

    async fn two_rotations_at_once_make_one_standby(engine: Engine) {
        let test = Test::new(engine).await;
        let public = db::Json(json!({}));
        rotate(&test, false).await;
        let mut tx = test.app.db.begin().await.unwrap();

        let second = db::keys::create_standby(&mut tx, "second", "ES256", &public, &[], test.app.now()).await.unwrap();

        assert!(!second, "there is one");
    }
}
