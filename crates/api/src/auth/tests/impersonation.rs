//! An admin looks at the service as a user sees it. Invariant 73.
use super::{
    access::claims,
    admin::{USERS, decisions},
    *,
};
use crate::auth::access;

const LOOKED_THROUGH: &str = "x-impersonated-by";

async fn look(test: &Test, token: &str, id: &str) -> Answer {
    let path = format!("/api/admin/users/{id}/impersonate");
    test.post(token, &path, json!({"reason": "ticket 17"}))
        .await
}

/// An admin, a user, and the token with which the one looks as the other.
async fn looking(test: &Test) -> (Person, Person, String) {
    let (ada, ben) = (
        test.sign_up_admin("ada@example.com").await,
        test.sign_up("ben@example.com").await,
    );
    let answer = look(test, &ada.token, &ben.id).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let token = answer.json()["access_token"].as_str().unwrap().to_owned();
    (ada, ben, token)
}

both_engines! {
    async fn an_admin_sees_what_a_user_sees_and_every_answer_says_so(engine: Engine) {
        let test = Test::new(engine).await;
        let (ada, ben) = (test.sign_up_admin("ada@example.com").await, test.sign_up("ben@example.com").await);
        test.post(&ben.token, "/api/chat", json!({"message": "Mine"})).await;

        let answer = look(&test, &ada.token, &ben.id).await.json();

        let token = answer["access_token"].as_str().unwrap();
        let said = claims(token);
        assert_eq!((&said["sub"], &said["act"]), (&json!(ben.id), &json!({"sub": ada.id})));
        assert_eq!(said["exp"].as_i64().unwrap() - said["iat"].as_i64().unwrap(), 900);
        assert_eq!((&answer["expires_in"], &answer["refresh_token"]), (&json!(900), &Value::Null));
        assert_eq!(test.get(token, USER).await.json(), test.get(&ben.token, USER).await.json());
        assert_eq!(test.get(token, "/api/conversations").await.json()["data"].as_array().unwrap().len(), 1);
        for path in [USER, "/api/conversations", "/api/conversations/0190a8c0-0000-7000-8000-000000000000", "/v1/models", USERS] {
            assert_eq!(test.get(token, path).await.header(LOOKED_THROUGH), ada.id, "{path}");
        }
        assert_eq!(test.post(token, "/api/chat", json!({"message": "Yours"})).await.header(LOOKED_THROUGH), ada.id);
        assert_eq!(test.get(&ben.token, USER).await.header(LOOKED_THROUGH), "");
        assert_eq!(test.get(&ada.token, USER).await.header(LOOKED_THROUGH), "");
    }

    async fn both_logs_tell_of_it_and_the_user_finds_the_session(engine: Engine) {
        let test = Test::new(engine).await;
        let (ada, ben, _) = looking(&test).await;

        let told = test.get(&ben.token, "/auth/v1/audit").await.json()["data"][0].clone();
        assert_eq!((&told["action"], &told["by"], &told["ip"]), (&json!("user_impersonated"), &json!("admin"), &Value::Null));
        let kept = &decisions(&test, &json!({"id": ben.id})).await[0];
        assert_eq!((kept.actor_id.map(|id| id.to_string()), &kept.detail["reason"]), (Some(ada.id.clone()), &json!("ticket 17")));
        let own = &decisions(&test, &json!({"id": ada.id})).await[0];
        assert_eq!((own.action.as_str(), &own.detail["user"]), ("impersonation_started", &json!(ben.id)));
        let sessions = test.get(&ben.token, "/auth/v1/sessions").await.json()["data"].clone();
        assert_eq!((&sessions[0]["amr"][0]["method"], &sessions[0]["ip"]), (&json!("impersonation"), &Value::Null));
        assert_eq!(test.get(&ben.token, USER).await.json()["last_sign_in_at"], json!(test.app.now().to_string()), "that of the sign-up");
        assert_eq!(sessions.as_array().unwrap().len(), 2);
    }

    async fn who_looks_proves_nothing_changes_nothing_and_administers_nothing(engine: Engine) {
        let test = Test::new(engine).await;
        let (_, ben, token) = looking(&test).await;
        let before = test.get(&ben.token, USER).await.json();
        let forbidden = refused(403, "forbidden");

        for (method, path, body) in [
            (Method::PUT, USER, json!({"password": "another password"})),
            (Method::PUT, USER, json!({"data": {"name": "x"}})),
            (Method::DELETE, USER, json!({})),
            (Method::POST, "/auth/v1/logout", json!({})),
            (Method::POST, "/auth/v1/factors", json!({"factor_type": "totp"})),
            (Method::POST, "/api/chat", json!({"message": "x"})),
            (Method::POST, "/v1/chat/completions", json!({"model": "gpt-4o-mini", "messages": []})),
            (Method::GET, "/auth/v1/user/export", json!({})),
            (Method::GET, "/auth/v1/reauthenticate", json!({})),
        ] {
            assert_eq!(test.call(method.clone(), &token, path, body).await.refusal(), forbidden, "{method} {path}");
        }
        assert_eq!(test.get(&token, USERS).await.refusal(), refused(403, "not_admin"));
        assert_eq!(look(&test, &token, &ben.id).await.refusal(), forbidden);
        assert_eq!(test.get(&ben.token, USER).await.json(), before);
        assert_eq!((test.rows("mfa_factors").await, test.mails_waiting().await), (0, 0));
        assert_eq!(test.refresh(&token).await.refusal(), refused(400, "refresh_token_not_found"));
    }

    async fn it_ends_in_a_quarter_of_an_hour_and_with_the_admins_own_session(engine: Engine) {
        let test = Test::new(engine).await;
        let (ada, ben, token) = looking(&test).await;
        test.later(Duration::from_secs(899));
        assert_eq!(test.get(&token, USER).await.status, 200);
        test.later(Duration::from_secs(1));
        assert_eq!(test.get(&token, USER).await.refusal(), refused(403, "bad_jwt"));

        let again = async |test: &Test| {
            let ada = test.sign_in_again("ada@example.com").await;
            let answer = look(test, &ada.token, &ben.id).await.json();
            (ada, answer["access_token"].as_str().unwrap().to_owned())
        };
        let ended = refused(403, "session_not_found");
        let (other, token) = again(&test).await;
        test.post(&other.token, "/auth/v1/logout?scope=local", json!({})).await;
        assert_eq!(test.get(&token, USER).await.refusal(), ended, "signed out");
        let (_, token) = again(&test).await;
        test.ban("ada@example.com").await;
        assert_eq!(test.get(&token, USER).await.refusal(), ended, "banned");
        test.later(Duration::from_secs(3600));
        let (_, token) = again(&test).await;
        let mut tx = test.app.db.begin().await.unwrap();
        db::users::set_role(&mut tx, ada.id.parse().unwrap(), "authenticated", test.app.now()).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(test.get(&token, USER).await.refusal(), ended, "no admin any more");
        let mut tx = test.app.db.begin().await.unwrap();
        db::users::set_role(&mut tx, ada.id.parse().unwrap(), "admin", test.app.now()).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(test.get(&token, USER).await.status, 200);
        let ben = test.sign_in_again("ben@example.com").await;
        test.post(&ben.token, "/auth/v1/logout", json!({})).await;
        assert_eq!(test.get(&token, USER).await.refusal(), ended, "the user ended every session");
    }

    async fn who_may_not_look_leaves_a_line_and_no_session(engine: Engine) {
        let test = Test::new(engine).await;
        let (ada, ben) = (test.sign_up_admin("ada@example.com").await, test.sign_up("ben@example.com").await);
        let carl = test.sign_up_admin("carl@example.com").await;
        test.ban("ben@example.com").await;
        let sessions = test.rows("sessions").await;

        for (token, whom, refusal) in [
            (&test.service_key(), &carl.id, refused(403, "forbidden")),
            (&ada.token, &carl.id, refused(403, "forbidden")),
            (&ada.token, &ada.id, refused(403, "forbidden")),
            (&ada.token, &ben.id, refused(403, "user_banned")),
        ] {
            assert_eq!(look(&test, token, whom).await.refusal(), refusal);
            let last = &decisions(&test, &json!({"id": whom})).await[0];
            assert_eq!((last.action.as_str(), last.outcome.as_str()), ("user_impersonated", "refused"));
        }
        let nobody = uuid::Uuid::now_v7().to_string();
        assert_eq!(look(&test, &ada.token, &nobody).await.refusal(), refused(404, "user_not_found"));
        test.later(Duration::from_secs(301));
        assert_eq!(look(&test, &carl.token, &ben.id).await.refusal(), refused(403, "reauthentication_needed"), "invariant 54");
        let path = format!("/api/admin/users/{}/impersonate", ben.id);
        for body in [json!({}), json!({"reason": " "}), json!({"reason": "x".repeat(501)})] {
            assert_eq!(test.post(&test.service_key(), &path, body).await.refusal(), refused(400, "validation_failed"));
        }
        assert_eq!(test.rows("sessions").await, sessions);
    }

    async fn a_token_that_hides_who_looks_is_no_token(engine: Engine) {
        let test = Test::new(engine).await;
        let (_, ben, token) = looking(&test).await;
        let session = claims(&token)["session_id"].as_str().unwrap().parse().unwrap();
        let user = db::users::by_id(&test.app.db, ben.id.parse().unwrap()).await.unwrap().unwrap();
        let mut tx = test.app.db.begin().await.unwrap();
        let session = db::sessions::locked(&mut tx, session).await.unwrap().unwrap();
        drop(tx);

        let bare = access::sign(&test.app, &access::claims(&test.app, &user, &session)).unwrap();

        assert_eq!(test.get(&bare, USER).await.refusal(), refused(403, "bad_jwt"));
    }

    async fn an_admin_sees_and_removes_the_factors_and_sessions_of_who_lost_them(engine: Engine) {
        let test = Test::new(engine).await;
        let (ada, ben) = (test.sign_up_admin("ada@example.com").await, test.sign_up("ben@example.com").await);
        let factor = test.post(&ben.token, "/auth/v1/factors", json!({"factor_type": "totp"})).await.json();
        let (id, secret) = (factor["id"].as_str().unwrap(), factor["totp"]["secret"].as_str().unwrap());
        let mut tx = test.app.db.begin().await.unwrap();
        db::factors::proved(&mut tx, id.parse().unwrap(), None, test.app.now()).await.unwrap();
        tx.commit().await.unwrap();
        let factors = format!("{USERS}/{}/factors", ben.id);

        let listed = test.get(&ada.token, &factors).await;
        let removed = test.call(Method::DELETE, &ada.token, &format!("{factors}/{id}"), json!({})).await;

        assert_eq!((&listed.json()[0]["id"], &listed.json()[0]["status"]), (&json!(id), &json!("verified")));
        assert!(!listed.text().contains(secret));
        assert_eq!((removed.status.as_u16(), &removed.json()["id"]), (200, &json!(id)));
        assert_eq!(test.get(&ada.token, &factors).await.json(), json!([]));
        assert_eq!(test.get(&ben.token, USER).await.refusal(), refused(403, "session_not_found"), "whoever it was");
        test.work().await;
        assert_eq!(test.world.mailbox().to("ben@example.com").last().unwrap().subject, "A second factor was removed from your account");
        let last = &decisions(&test, &json!({"id": ben.id})).await[0];
        assert_eq!((last.action.as_str(), last.actor_kind.as_str()), ("factor_deleted", "admin"));

        let ben = test.sign_in_again("ben@example.com").await;
        let sessions = format!("/api/admin/users/{}/sessions", ben.id);
        let open = test.get(&ada.token, &sessions).await.json();
        assert_eq!(open["data"].as_array().unwrap().len(), 1);
        let one = format!("{sessions}/{}", open["data"][0]["id"].as_str().unwrap());
        assert_eq!(test.call(Method::DELETE, &ada.token, &one, json!({})).await.status, 204);
        assert_eq!(test.get(&ben.token, USER).await.refusal(), refused(403, "session_not_found"));
        assert_eq!(test.call(Method::DELETE, &ada.token, &one, json!({})).await.refusal(), refused(404, "not_found"));
        test.later(Duration::from_secs(301));
        let gone = test.call(Method::DELETE, &ada.token, &format!("{factors}/{id}"), json!({})).await;
        assert_eq!(gone.refusal(), refused(403, "reauthentication_needed"));
        let gone = test.call(Method::DELETE, &test.service_key(), &format!("{factors}/{id}"), json!({})).await;
        assert_eq!(gone.refusal(), refused(404, "mfa_factor_not_found"));
    }
}
