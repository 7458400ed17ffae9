use super::*;

const USED: &str = "refresh_token_already_used";
const UNKNOWN: &str = "refresh_token_not_found";
/// Past the interval in which a token used twice is no theft.
const GRACE: Duration = Duration::from_secs(11);
const DAY: Duration = Duration::from_secs(86_400);

both_engines! {
    async fn a_refresh_gives_new_tokens_of_the_same_session(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        test.later(Duration::from_secs(60));

        let answer = test.refresh(&ada.refresh_token).await;

        let child = Person::of(&answer.json());
        assert_eq!(answer.json()["expires_at"], json!(test.app.now().unix() + 3600));
        assert_eq!(child.id, ada.id);
        assert_ne!((&child.token, &child.refresh_token), (&ada.token, &ada.refresh_token));
        assert_eq!(test.get(&child.token, USER).await.status, 200);
        assert_eq!(test.rows("sessions").await, 1);
    }

    /// Invariant 29, and what the grace is for.
    async fn a_token_that_comes_twice_within_the_grace_has_one_child(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let first = test.refreshed(&ada.refresh_token).await;
        test.get(&first.token, USER).await;

        test.later(Duration::from_secs(10));
        let second = test.refreshed(&ada.refresh_token).await;

        assert_eq!(first.refresh_token, second.refresh_token);
        assert_eq!(test.get(&first.token, USER).await.status, 200);
        assert_eq!(test.get(&second.token, USER).await.status, 200);
    }

    /// Invariant 32.
    async fn an_answer_that_was_lost_is_given_again(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let lost = test.refreshed(&ada.refresh_token).await;

        test.later(DAY);
        let again = test.refreshed(&ada.refresh_token).await;

        assert_eq!(lost.refresh_token, again.refresh_token);
        assert_eq!(test.get(&again.token, USER).await.status, 200);
        assert_eq!(test.refresh(&again.refresh_token).await.status, 200);
    }

    /// Invariants 29 and 31.
    async fn a_token_used_again_after_its_child_arrived_ends_the_session_at_once(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let other = test.sign_in_again("ada@example.com").await;
        let child = test.refreshed(&ada.refresh_token).await;
        assert_eq!(test.get(&child.token, USER).await.status, 200);
        test.later(GRACE);

        let reused = test.refresh(&ada.refresh_token).await;

        assert_eq!(reused.refusal(), refused(400, USED));
        for token in [&ada.token, &child.token] {
            assert_eq!(test.get(token, USER).await.refusal(), refused(403, "session_not_found"));
        }
        assert_eq!(test.refresh(&child.refresh_token).await.refusal(), refused(400, UNKNOWN));
        assert_eq!(test.get(&other.token, USER).await.status, 200, "the user's other session stands");
    }

    async fn a_grandparent_ends_the_session_even_within_the_grace(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let child = test.refreshed(&ada.refresh_token).await;
        let grandchild = test.refreshed(&child.refresh_token).await;

        assert_eq!(test.refresh(&ada.refresh_token).await.refusal(), refused(400, USED));

        assert_eq!(test.get(&grandchild.token, USER).await.refusal(), refused(403, "session_not_found"));
        assert_eq!(test.refresh(&grandchild.refresh_token).await.refusal(), refused(400, UNKNOWN));
    }

    async fn the_parents_access_token_does_not_prove_that_the_child_arrived(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        test.refreshed(&ada.refresh_token).await;
        test.later(GRACE);
        assert_eq!(test.get(&ada.token, USER).await.status, 200);

        assert_eq!(test.refresh(&ada.refresh_token).await.status, 200);
    }

    /// Invariant 30.
    async fn twenty_refreshes_at_once_give_one_child(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;

        let all = (0..20).map(|_| test.refreshed(&ada.refresh_token));
        let children = futures_util::future::join_all(all).await;

        let mut tokens: Vec<_> = children.iter().map(|child| &child.refresh_token).collect();
        tokens.dedup();
        assert_eq!(tokens.len(), 1);
        for child in &children {
            assert_eq!(test.get(&child.token, USER).await.status, 200);
        }
        test.later(GRACE);
        let next = test.refreshed(tokens[0]).await;
        assert_ne!(&next.refresh_token, tokens[0], "it was not used up");
    }

    /// Invariant 34.
    async fn a_token_that_is_not_ours_is_refused_before_the_database_is_asked(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let encoded = ada.refresh_token.strip_prefix("rt1.").unwrap().as_bytes();
        let flipped = (0..encoded.len() - 1).map(|at| {
            let mut encoded = encoded.to_vec();
            encoded[at] = if encoded[at] == b'A' { b'B' } else { b'A' };
            format!("rt1.{}", String::from_utf8(encoded).unwrap())
        });
        let whole = &ada.refresh_token;
        let others = [
            "", "rt1.", "x", &whole[..whole.len() - 1], &whole[4..], &format!("{whole}A"), &format!("{whole}="),
            &format!(" {whole}"), &whole.replace("rt1.", "rt2."), &ada.token, "rt1.💥", &"rt1.".repeat(1000),
        ].map(ToOwned::to_owned);

        test.app.db.close().await;

        for token in others.into_iter().chain(flipped) {
            assert_eq!(test.refresh(&token).await.refusal(), refused(400, UNKNOWN), "{token}");
        }
        assert_eq!(test.refresh(whole).await.status, 503, "what is ours has to be looked up");
    }

    async fn a_leaked_secret_or_a_leaked_database_alone_makes_no_token(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let session = session_of(&test, &ada).await;
        let stranger = test.beside(&[("JWT_SECRET", "a secret that the attacker thought of")]);
        // The key of this installation is sealed under its own secret, so another instance cannot even start.
        assert!(futures_util::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(stranger)).await.is_err());

        let without_the_row = db::sessions::Session { refresh_secret: vec![0; 32], ..session.clone() };
        let forged = crate::auth::refresh::encode(&test.app.keys, &without_the_row, 1);

        assert_eq!(test.refresh(&forged).await.refusal(), refused(400, UNKNOWN));
        let unknown = db::sessions::Session { id: uuid::Uuid::now_v7(), ..session };
        let forged = crate::auth::refresh::encode(&test.app.keys, &unknown, 1);
        assert_eq!(test.refresh(&forged).await.refusal(), refused(400, UNKNOWN));
        assert_eq!(test.refresh(&ada.refresh_token).await.status, 200, "its session was left alone");
    }

    /// Invariant 35.
    async fn a_session_ends_when_it_rests_too_long(engine: Engine) {
        let test = Test::new(engine).await;
        let idle = test.sign_up("idle@example.com").await;
        let busy = test.sign_up("busy@example.com").await;
        test.later(30 * DAY - Duration::from_secs(1));
        let busy = test.refreshed(&busy.refresh_token).await;

        test.later(Duration::from_secs(1));

        assert_eq!(test.refresh(&idle.refresh_token).await.refusal(), refused(400, "session_expired"));
        assert_eq!(test.refresh(&busy.refresh_token).await.status, 200);
    }

    /// Invariant 35.
    async fn no_session_outlives_its_last_day(engine: Engine) {
        let test = Test::new(engine).await;
        let mut ada = test.sign_up("ada@example.com").await;
        for _ in 0..8 {
            test.later(20 * DAY);
            ada = test.refreshed(&ada.refresh_token).await;
        }
        test.later(20 * DAY - Duration::from_secs(1));
        ada = test.refreshed(&ada.refresh_token).await;
        assert_eq!(test.get(&ada.token, USER).await.status, 200);

        test.later(Duration::from_secs(1));

        assert_eq!(test.refresh(&ada.refresh_token).await.refusal(), refused(400, "session_expired"));
        assert_eq!(test.get(&ada.token, USER).await.refusal(), refused(403, "bad_jwt"), "its token is over with it");
    }
}

async fn session_of(test: &Test, person: &Person) -> db::sessions::Session {
    let claims: Value = super::access::claims(&person.token);
    let id = claims["session_id"].as_str().unwrap().parse().unwrap();
    let mut tx = test.app.db.begin().await.unwrap();
    db::sessions::locked(&mut tx, id).await.unwrap().unwrap()
}
