//! A sign-in that goes to a provider comes back once, in time, to the browser that it left.
use super::{pkce::CHALLENGE, *};
use crate::{
    Error,
    auth::{
        flow::{self, Back, Going, Gone},
        pkce::Challenge,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, header};
use sha2::{Digest, Sha256};

const HTTPS: &[(&str, &str)] = &[("PUBLIC_URL", "https://api.example.com")];

impl Test {
    async fn gone(&self, comes_back_posted: bool) -> Gone {
        let challenge = Challenge::of(Some(CHALLENGE), Some("s256"))
            .unwrap()
            .unwrap();
        let going = Going {
            provider: "google",
            redirect_to: &"https://app.example.com/back".parse().unwrap(),
            challenge: &challenge,
            link_user: None,
            comes_back_posted,
        };
        let mut tx = self.app.db.begin().await.unwrap();
        let gone = flow::begin(&self.app, &mut tx, going, self.app.now())
            .await
            .unwrap();
        tx.commit().await.unwrap();
        gone
    }

    /// With these cookies in the browser.
    async fn back(&self, state: &str, cookies: &[&str]) -> crate::Result<Back> {
        let mut headers = HeaderMap::new();
        for cookie in cookies {
            headers.append(header::COOKIE, HeaderValue::from_str(cookie).unwrap());
        }
        let mut tx = self.app.db.begin().await.unwrap();
        let back = flow::take(&self.app, &mut tx, state, &headers, self.app.now()).await;
        tx.commit().await.unwrap();
        back
    }
}

/// What the browser sends of it.
fn pair(gone: &Gone) -> &str {
    gone.cookie.to_str().unwrap().split(';').next().unwrap()
}

fn is_bad_state(back: &crate::Result<Back>) -> bool {
    matches!(back, Err(Error::BadOauthState))
}

both_engines! {
    /// Invariant 23.
    async fn a_flow_comes_back_once(engine: Engine) {
        let test = Test::new(engine).await;
        let gone = test.gone(false).await;

        let back = test.back(&gone.state, &["theme=dark", pair(&gone)]).await.unwrap();

        assert_eq!(URL_SAFE_NO_PAD.encode(Sha256::digest(&back.verifier)), gone.challenge);
        assert_eq!((&*back.provider, back.nonce, back.redirect_to.as_str()), ("google", gone.nonce.clone(), "https://app.example.com/back"));
        assert_eq!((back.challenge.as_str(), back.link_user), (CHALLENGE, None));
        assert!(back.cookie.to_str().unwrap().contains("Max-Age=0"));
        assert!(is_bad_state(&test.back(&gone.state, &[pair(&gone)]).await));
    }

    /// Invariant 24; T12: the attacker's answer, brought to the victim's browser.
    async fn a_flow_comes_back_to_the_browser_that_it_left(engine: Engine) {
        let test = Test::new(engine).await;
        let (other, forged) = (test.gone(false).await, "plinth-oauth-0011223344556677=x");
        let (_, value) = pair(&other).split_once('=').unwrap();

        for wrong in [&[][..], &[pair(&other)], &[forged]] {
            let gone = test.gone(false).await;
            assert!(is_bad_state(&test.back(&gone.state, wrong).await), "{wrong:?}");
            assert!(is_bad_state(&test.back(&gone.state, &[pair(&gone)]).await), "it is used up");
        }
        let gone = test.gone(false).await;
        let (name, _) = pair(&gone).split_once('=').unwrap();
        let swapped = format!("{name}={value}");
        assert!(is_bad_state(&test.back(&gone.state, &[&swapped]).await));
        let gone = test.gone(false).await;
        let (name, _) = pair(&gone).split_once('=').unwrap();
        let both = format!("{}; {name}={value}", pair(&gone));
        assert!(is_bad_state(&test.back(&gone.state, &[&both]).await), "of two cookies one is a stranger's");
    }

    async fn a_flow_waits_for_ten_minutes(engine: Engine) {
        let test = Test::new(engine).await;
        let (in_time, late) = (test.gone(false).await, test.gone(false).await);

        test.later(Duration::from_secs(599));
        assert!(test.back(&in_time.state, &[pair(&in_time)]).await.is_ok());
        test.later(Duration::from_secs(1));

        let back = test.back(&late.state, &[pair(&late)]).await;
        assert!(matches!(back, Err(Error::FlowStateExpired)));
    }

    async fn an_invented_state_is_nobodys(engine: Engine) {
        let test = Test::new(engine).await;
        let gone = test.gone(false).await;

        for state in ["", "%00", &gone.state[1..], &"x".repeat(10_000)] {
            assert!(is_bad_state(&test.back(state, &[pair(&gone)]).await), "{state:?}");
        }

        assert!(test.back(&gone.state, &[pair(&gone)]).await.is_ok());
    }

    async fn nothing_that_is_kept_brings_a_flow_back(engine: Engine) {
        let test = Test::new(engine).await;
        let gone = test.gone(false).await;
        let hash = test.app.keys.otp_mac(&[b"oauth state", gone.state.as_bytes()]);
        let mut tx = test.app.db.begin().await.unwrap();
        let kept = db::oauth_flows::take(&mut tx, &hash, test.app.now()).await.unwrap().unwrap();
        drop(tx);

        let back = test.back(&gone.state, &[pair(&gone)]).await.unwrap();

        assert!(!String::from_utf8_lossy(&kept.verifier).contains(&back.verifier));
        let (_, value) = pair(&gone).split_once('=').unwrap();
        assert!(!String::from_utf8_lossy(&kept.binding_hash).contains(value));
    }

    async fn of_twenty_at_once_one_comes_back(engine: Engine) {
        let test = Test::new(engine).await;
        let gone = test.gone(false).await;

        let all = (0..20).map(|_| async { test.back(&gone.state, &[pair(&gone)]).await.is_ok() });
        let came = futures_util::future::join_all(all).await;

        assert_eq!(came.iter().filter(|came| **came).count(), 1);
    }

    /// Invariant 57, of this cookie.
    async fn the_cookie_is_for_this_host_alone_and_survives_apples_post(engine: Engine) {
        let test = Test::with(engine, HTTPS).await;
        let cookie = |gone: &Gone| gone.cookie.to_str().unwrap().to_owned();
        let (posted, got) = (test.gone(true).await, test.gone(false).await);

        for gone in [&posted, &got] {
            let cookie = cookie(gone);
            assert!(cookie.starts_with("__Host-") && cookie.contains("; Path=/;"), "{cookie}");
            assert!(cookie.contains("; HttpOnly") && cookie.contains("; Secure") && !cookie.contains("Domain"));
        }
        assert!(cookie(&posted).contains("SameSite=None") && cookie(&got).contains("SameSite=Lax"));
        assert!(test.back(&posted.state, &[pair(&posted)]).await.is_ok());
        let http = Test::new(engine).await;
        assert!(!cookie(&http.gone(true).await).contains("Secure"));
    }
}
