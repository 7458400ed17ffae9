use super::*;
use crate::auth::pkce::{self, Challenge, ProviderTokens};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

pub const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
/// That of the verifier, from RFC 7636, appendix B.
pub const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

impl Test {
    /// A code for this user, as a redirect would carry it.
    pub async fn auth_code(&self, user: &str, provider: ProviderTokens) -> String {
        let challenge = Challenge::of(Some(CHALLENGE), Some("s256"))
            .unwrap()
            .unwrap();
        let mut tx = self.app.db.begin().await.unwrap();
        let user = user.parse().unwrap();
        let code = pkce::issue(
            &self.app,
            &mut tx,
            user,
            &challenge,
            "oauth",
            &provider,
            self.app.now(),
        )
        .await;
        tx.commit().await.unwrap();
        code.unwrap()
    }

    pub async fn exchange(&self, code: &str, verifier: &str) -> Answer {
        let body = json!({"auth_code": code, "code_verifier": verifier});
        self.post("", "/auth/v1/token?grant_type=pkce", body).await
    }
}

#[test]
fn a_challenge_is_a_sha_256_and_never_plain() {
    assert_eq!(URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER)), CHALLENGE);
    let refused = |challenge, method| Challenge::of(challenge, method).unwrap_err().to_string();

    assert_eq!(Challenge::of(None, None).unwrap(), None);
    assert_eq!(Challenge::of(Some(""), Some("")).unwrap(), None);
    for method in ["s256", "S256"] {
        assert!(
            Challenge::of(Some(CHALLENGE), Some(method))
                .unwrap()
                .is_some()
        );
    }
    for method in [None, Some(""), Some("plain"), Some("PLAIN"), Some("s512")] {
        assert_eq!(
            refused(Some(CHALLENGE), method),
            "code_challenge_method has to be s256.",
            "{method:?}"
        );
    }
    for challenge in [
        None,
        Some(""),
        Some("short"),
        Some(&CHALLENGE[1..]),
        Some(&format!("{CHALLENGE}=")),
        Some(&CHALLENGE.replace('-', "+")),
        Some(&"a".repeat(128)),
    ] {
        assert!(
            refused(challenge, Some("s256")).starts_with("code_challenge "),
            "{challenge:?}"
        );
    }
}

both_engines! {
    async fn a_code_and_its_verifier_open_a_session(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let code = test.auth_code(&ada.id, ProviderTokens::default()).await;

        let answer = test.exchange(&code, VERIFIER).await;

        assert_eq!(answer.status, 200, "{}", answer.text());
        let session = answer.json();
        assert_eq!(session["user"]["id"], json!(ada.id));
        assert_eq!((session.get("provider_token"), session.get("provider_refresh_token")), (None, None));
        let opened = Person::of(&session);
        assert_eq!(super::access::claims(&opened.token)["amr"][0]["method"], "oauth");
        assert_eq!(test.get(&opened.token, USER).await.status, 200);
    }

    async fn what_a_provider_gave_is_sealed_and_handed_on_once(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let tokens = ProviderTokens { access: Some("of the provider".into()), refresh: Some("of the provider, for later".into()) };
        let code = test.auth_code(&ada.id, tokens).await;
        let hash = test.app.keys.otp_mac(&[b"auth code", code.as_bytes()]);
        let mut tx = test.app.db.begin().await.unwrap();
        let kept = db::auth_codes::locked(&mut tx, &hash).await.unwrap().unwrap();
        drop(tx);
        for sealed in [kept.provider_token.unwrap(), kept.provider_refresh_token.unwrap()] {
            assert!(!String::from_utf8_lossy(&sealed).contains("of the provider"));
        }

        let session = test.exchange(&code, VERIFIER).await.json();

        assert_eq!(session["provider_token"], "of the provider");
        assert_eq!(session["provider_refresh_token"], "of the provider, for later");
        let refreshed = test.refresh(Person::of(&session).refresh_token.as_str()).await.json();
        assert_eq!(refreshed.get("provider_token"), None);
    }

    async fn a_wrong_verifier_uses_the_code_up(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let sessions = test.rows("sessions").await;

        // The challenge itself is what `plain` would have taken.
        for wrong in [CHALLENGE, "", "another verifier", &VERIFIER[1..]] {
            let code = test.auth_code(&ada.id, ProviderTokens::default()).await;
            assert_eq!(test.exchange(&code, wrong).await.refusal(), refused(400, "bad_code_verifier"), "{wrong:?}");
            assert_eq!(test.exchange(&code, VERIFIER).await.refusal(), refused(404, "flow_state_not_found"));
        }

        assert_eq!(test.rows("sessions").await, sessions);
    }

    async fn a_code_lives_for_sixty_seconds(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let (in_time, late) = (test.auth_code(&ada.id, ProviderTokens::default()).await, test.auth_code(&ada.id, ProviderTokens::default()).await);

        test.later(Duration::from_secs(59));
        assert_eq!(test.exchange(&in_time, VERIFIER).await.status, 200);
        test.later(Duration::from_secs(1));

        assert_eq!(test.exchange(&late, VERIFIER).await.refusal(), refused(403, "flow_state_expired"));
    }

    async fn a_code_used_twice_ends_the_session_it_opened(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let code = test.auth_code(&ada.id, ProviderTokens::default()).await;
        let opened = Person::of(&test.exchange(&code, VERIFIER).await.json());

        let again = test.exchange(&code, VERIFIER).await;

        assert_eq!(again.refusal(), refused(404, "flow_state_not_found"));
        assert_eq!(test.get(&opened.token, USER).await.refusal(), refused(403, "session_not_found"));
        assert_eq!(test.refresh(&opened.refresh_token).await.refusal(), refused(400, "refresh_token_not_found"));
        assert_eq!(test.get(&ada.token, USER).await.status, 200, "her other session is none of its business");
    }

    async fn of_twenty_exchanges_at_once_one_opens_a_session(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let code = test.auth_code(&ada.id, ProviderTokens::default()).await;

        let all = (0..20).map(|_| test.exchange(&code, VERIFIER));
        let answers = futures_util::future::join_all(all).await;

        assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1);
        assert_eq!(test.rows("sessions").await, 2);
    }

    async fn a_code_is_nothing_but_a_code(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let code = test.auth_code(&ada.id, ProviderTokens::default()).await;

        assert_eq!(test.get(&code, USER).await.refusal(), refused(403, "bad_jwt"));
        assert_eq!(test.refresh(&code).await.refusal(), refused(400, "refresh_token_not_found"));
        assert_eq!(test.verify("ada@example.com", &code).await.refusal(), refused(403, "otp_expired"));
        for other in [&*ada.token, &*ada.refresh_token, "", "%00", &"x".repeat(10_000)] {
            assert_eq!(test.exchange(other, VERIFIER).await.refusal(), refused(404, "flow_state_not_found"));
        }

        assert_eq!(test.exchange(&code, VERIFIER).await.status, 200);
    }

    async fn a_banned_user_gets_nothing_for_their_code(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let code = test.auth_code(&ada.id, ProviderTokens::default()).await;
        test.ban("ada@example.com").await;

        assert_eq!(test.exchange(&code, VERIFIER).await.refusal(), refused(403, "user_banned"));

        assert_eq!(test.rows("sessions").await, 1);
    }
}
