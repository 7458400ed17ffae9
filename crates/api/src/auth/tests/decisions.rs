//! Every decision writes one row, in the transaction that carries it out: invariant 69. One table of what is
//! decided: who asks what, and the row it leaves.
use super::*;
use crate::testing::{Engine, request};
use axum::extract::ConnectInfo;
use std::net::SocketAddr;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Anyone,
    /// Signed in just now.
    Ada,
    /// Signed in long ago.
    Old,
    Admin,
}
use By::{Ada, Admin, Anyone, Old};

/// A decision: what it is, who asks, how, with what; the row it leaves.
type Decision = (
    &'static str,
    By,
    &'static str,
    &'static str,
    &'static str,
    (&'static str, &'static str),
);

const OK: &str = "succeeded";
const NO: &str = "refused";

/// `{…}` stands for what there is of it. Those that end something stand last.
const DECISIONS: &[Decision] = &[
    (
        "a sign-in",
        Anyone,
        "POST",
        "/auth/v1/token?grant_type=password",
        r#"{"email": "ada@example.com", "password": "correct horse battery"}"#,
        ("login", OK),
    ),
    (
        "a wrong password",
        Anyone,
        "POST",
        "/auth/v1/token?grant_type=password",
        r#"{"email": "ada@example.com", "password": "another"}"#,
        ("login", NO),
    ),
    (
        "an unknown address",
        Anyone,
        "POST",
        "/auth/v1/token?grant_type=password",
        r#"{"email": "nobody@example.com", "password": "another"}"#,
        ("login", NO),
    ),
    (
        "an address that was not proved",
        Anyone,
        "POST",
        "/auth/v1/token?grant_type=password",
        r#"{"email": "unproved@example.com", "password": "correct horse battery"}"#,
        ("login", NO),
    ),
    (
        "a banned user",
        Anyone,
        "POST",
        "/auth/v1/token?grant_type=password",
        r#"{"email": "banned@example.com", "password": "correct horse battery"}"#,
        ("login", NO),
    ),
    (
        "a refresh by a banned user",
        Anyone,
        "POST",
        "/auth/v1/token?grant_type=refresh_token",
        r#"{"refresh_token": "{of_banned}"}"#,
        ("token_refreshed", NO),
    ),
    (
        "a refresh of a session that was ended",
        Anyone,
        "POST",
        "/auth/v1/token?grant_type=refresh_token",
        r#"{"refresh_token": "{ended}"}"#,
        ("token_refreshed", NO),
    ),
    (
        "a refresh of a session that ran out",
        Anyone,
        "POST",
        "/auth/v1/token?grant_type=refresh_token",
        r#"{"refresh_token": "{run_out}"}"#,
        ("token_refreshed", NO),
    ),
    (
        "a user who administers",
        Ada,
        "GET",
        "/auth/v1/admin/users",
        "{}",
        ("admin_access", NO),
    ),
    (
        "a sign-up",
        Anyone,
        "POST",
        "/auth/v1/signup",
        r#"{"email": "new@example.com", "password": "correct horse battery"}"#,
        ("user_signedup", OK),
    ),
    (
        "a sign-up of an address that is somebody's",
        Anyone,
        "POST",
        "/auth/v1/signup",
        r#"{"email": "ada@example.com", "password": "correct horse battery"}"#,
        ("user_repeated_signup", NO),
    ),
    (
        "a recovery",
        Anyone,
        "POST",
        "/auth/v1/recover",
        r#"{"email": "ada@example.com"}"#,
        ("user_recovery_requested", OK),
    ),
    (
        "a recovery of nobody",
        Anyone,
        "POST",
        "/auth/v1/recover",
        r#"{"email": "nobody@example.com"}"#,
        ("user_recovery_requested", NO),
    ),
    (
        "a wrong code",
        Anyone,
        "POST",
        "/auth/v1/verify",
        r#"{"type": "signup", "email": "unproved@example.com", "token": "00000"}"#,
        ("login", NO),
    ),
    (
        "a wrong link",
        Anyone,
        "POST",
        "/auth/v1/verify",
        r#"{"type": "signup", "token_hash": "another"}"#,
        ("login", NO),
    ),
    (
        "a right code",
        Anyone,
        "POST",
        "/auth/v1/verify",
        r#"{"type": "signup", "email": "unproved@example.com", "token": "{code}"}"#,
        ("login", OK),
    ),
    (
        "a nonce",
        Ada,
        "GET",
        "/auth/v1/reauthenticate",
        "{}",
        ("user_reauthenticate_requested", OK),
    ),
    (
        "a wrong nonce",
        Ada,
        "PUT",
        "/auth/v1/user",
        r#"{"password": "one that is better", "nonce": "00000"}"#,
        ("user_modified", NO),
    ),
    (
        "a change",
        Ada,
        "PUT",
        "/auth/v1/user",
        r#"{"data": {"name": "Ada"}}"#,
        ("user_modified", OK),
    ),
    (
        "a new password by who does not know the old one",
        Old,
        "PUT",
        "/auth/v1/user",
        r#"{"password": "one that is better", "current_password": "another"}"#,
        ("user_modified", NO),
    ),
    (
        "a new password in an old session",
        Old,
        "PUT",
        "/auth/v1/user",
        r#"{"password": "one that is better"}"#,
        ("user_modified", NO),
    ),
    (
        "a new address in an old session",
        Old,
        "PUT",
        "/auth/v1/user",
        r#"{"email": "other@example.com"}"#,
        ("user_modified", NO),
    ),
    (
        "an archive",
        Ada,
        "GET",
        "/auth/v1/user/export",
        "{}",
        ("user_exported", OK),
    ),
    (
        "an archive in an old session",
        Old,
        "GET",
        "/auth/v1/user/export",
        "{}",
        ("user_exported", NO),
    ),
    (
        "a second factor",
        Ada,
        "POST",
        "/auth/v1/factors",
        r#"{"factor_type": "totp", "friendly_name": "second"}"#,
        ("factor_in_progress", OK),
    ),
    (
        "a second factor in an old session",
        Old,
        "POST",
        "/auth/v1/factors",
        r#"{"factor_type": "totp"}"#,
        ("factor_in_progress", NO),
    ),
    (
        "a challenge",
        Ada,
        "POST",
        "/auth/v1/factors/{factor}/challenge",
        "{}",
        ("challenge_created", OK),
    ),
    (
        "a wrong answer",
        Ada,
        "POST",
        "/auth/v1/factors/{factor}/verify",
        r#"{"challenge_id": "{challenge}", "code": "x"}"#,
        ("verification_attempted", NO),
    ),
    (
        "a factor that goes",
        Ada,
        "DELETE",
        "/auth/v1/factors/{factor}",
        "{}",
        ("factor_unenrolled", OK),
    ),
    (
        "the last identity",
        Ada,
        "DELETE",
        "/auth/v1/user/identities/{identity}",
        "{}",
        ("identity_unlinked", NO),
    ),
    (
        "an identity in an old session",
        Old,
        "DELETE",
        "/auth/v1/user/identities/{identity}",
        "{}",
        ("identity_unlinked", NO),
    ),
    (
        "an API key",
        Ada,
        "POST",
        "/api/keys",
        r#"{"name": "a script"}"#,
        ("api_key_created", OK),
    ),
    (
        "an API key in an old session",
        Old,
        "POST",
        "/api/keys",
        r#"{"name": "a script"}"#,
        ("api_key_created", NO),
    ),
    (
        "an API key that goes",
        Ada,
        "DELETE",
        "/api/keys/{api_key}",
        "{}",
        ("api_key_deleted", OK),
    ),
    (
        "an API key of nobody's",
        Ada,
        "DELETE",
        "/api/keys/0190a8c0-0000-7000-8000-000000000000",
        "{}",
        ("api_key_deleted", NO),
    ),
    (
        "a passkey in an old session",
        Old,
        "POST",
        "/auth/v1/passkeys/registration/options",
        "{}",
        ("passkey_created", NO),
    ),
    (
        "an end of another's session",
        Ada,
        "DELETE",
        "/auth/v1/sessions/0190a8c0-0000-7000-8000-000000000000",
        "{}",
        ("session_ended", NO),
    ),
    (
        "a passkey of nobody's",
        Anyone,
        "POST",
        "/auth/v1/passkeys/authentication/verify",
        r#"{"challenge_id": "0190a8c0-0000-7000-8000-000000000000", "credential": {"id": "eA", "response": {"clientDataJSON": "e30", "authenticatorData": "eA", "signature": "eA"}}}"#,
        ("login", NO),
    ),
    (
        "a budget of the model",
        Admin,
        "PUT",
        "/api/admin/llm",
        r#"{"budget_day_microusd": 5000000}"#,
        ("llm_settings_changed", OK),
    ),
    (
        "a user that an admin makes",
        Admin,
        "POST",
        "/auth/v1/admin/users",
        r#"{"email": "made@example.com"}"#,
        ("user_signedup", OK),
    ),
    (
        "a user that an admin changes",
        Admin,
        "PUT",
        "/auth/v1/admin/users/{ada}",
        r#"{"user_metadata": {"name": "x"}}"#,
        ("user_modified", OK),
    ),
    (
        "a password that an admin sets",
        Admin,
        "PUT",
        "/auth/v1/admin/users/{ada}",
        r#"{"password": "one that is better"}"#,
        ("user_modified", NO),
    ),
    (
        "a link that an admin makes",
        Admin,
        "POST",
        "/auth/v1/admin/generate_link",
        r#"{"type": "magiclink", "email": "ada@example.com"}"#,
        ("user_recovery_requested", OK),
    ),
    (
        "an admin who is looked through",
        Admin,
        "POST",
        "/api/admin/users/{admin}/impersonate",
        r#"{"reason": "a ticket"}"#,
        ("user_impersonated", NO),
    ),
    (
        "another's session that an admin does not find",
        Admin,
        "DELETE",
        "/api/admin/users/{ada}/sessions/0190a8c0-0000-7000-8000-000000000000",
        "{}",
        ("session_ended", NO),
    ),
    (
        "a merge token of nobody",
        Ada,
        "POST",
        "/auth/v1/guest/merge",
        r#"{"merge_token": "nobody's"}"#,
        ("user_merged", NO),
    ),
    (
        "a guest who is merged",
        Ada,
        "POST",
        "/auth/v1/guest/merge",
        r#"{"merge_token": "{merge_token}"}"#,
        ("user_merged", OK),
    ),
    (
        "a passkey that an admin removes",
        Admin,
        "DELETE",
        "/auth/v1/admin/users/{admin}/passkeys/{passkey}",
        "{}",
        ("passkey_deleted", OK),
    ),
    (
        "a factor that an admin removes",
        Admin,
        "DELETE",
        "/auth/v1/admin/users/{ada}/factors/{other_factor}",
        "{}",
        ("factor_deleted", OK),
    ),
    (
        "a ban",
        Admin,
        "POST",
        "/api/admin/users/{banned}/ban",
        r#"{"reason": "spam"}"#,
        ("user_banned", OK),
    ),
    (
        "its end",
        Admin,
        "POST",
        "/api/admin/users/{banned}/unban",
        "{}",
        ("user_unbanned", OK),
    ),
    (
        "a deletion by an admin",
        Admin,
        "DELETE",
        "/auth/v1/admin/users/{banned}",
        "{}",
        ("user_deleted", OK),
    ),
    (
        "a refresh token that was used before",
        Anyone,
        "POST",
        "/auth/v1/token?grant_type=refresh_token",
        r#"{"refresh_token": "{used}"}"#,
        ("token_refreshed", NO),
    ),
    (
        "a deletion in an old session",
        Old,
        "DELETE",
        "/auth/v1/user",
        "{}",
        ("user_deleted", NO),
    ),
    (
        "a new password",
        Ada,
        "PUT",
        "/auth/v1/user",
        r#"{"password": "one that is better"}"#,
        ("user_modified", OK),
    ),
    (
        "an end of every session but one",
        Ada,
        "POST",
        "/auth/v1/logout?scope=others",
        "{}",
        ("logout", OK),
    ),
    (
        "a deletion",
        Ada,
        "DELETE",
        "/auth/v1/user",
        "{}",
        ("user_deleted", OK),
    ),
];

/// What decisions are about.
struct Stage {
    /// Has the database.
    _first: Test,
    test: Test,
    things: Vec<(&'static str, String)>,
    tokens: [String; 3],
}

impl Stage {
    async fn set(engine: Engine) -> Self {
        let test = Test::with(engine, guest::OPEN).await;
        let used = test.sign_up("used@example.com").await;
        let newer = test.refreshed(&used.refresh_token).await;
        test.get(&newer.token, USER).await;
        test.later(Duration::from_secs(11));
        let old = test.sign_up("ada@example.com").await;
        test.later(Duration::from_secs(301));
        let (ada, admin) = (
            test.sign_in_again("ada@example.com").await,
            test.sign_up_admin("admin@example.com").await,
        );
        let banned = test.sign_up("banned@example.com").await;
        test.ban("banned@example.com").await;
        let ended = test.sign_up("ended@example.com").await;
        test.post(&ended.token, "/auth/v1/logout", json!({})).await;
        let run_out = test.sign_up("run_out@example.com").await;
        let past = "update sessions set idle_expires_at = created_at
                    where user_id in (select id from users where email = 'run_out@example.com')";
        db::testing::execute(&test.app.db, past).await.unwrap();
        let confirming = test.beside(CONFIRMING).await;
        confirming
            .ask_to_sign_up("unproved@example.com", PASSWORD)
            .await;
        let code = confirming.mailed_code("unproved@example.com").await;
        let mut things = vec![
            ("{code}", code),
            ("{used}", used.refresh_token),
            ("{ada}", ada.id.clone()),
            ("{admin}", admin.id.clone()),
            ("{banned}", banned.id.clone()),
        ];
        for (name, what) in [("{factor}", "first"), ("{other_factor}", "other")] {
            let body = json!({"factor_type": "totp", "friendly_name": what});
            let factor = test.post(&ada.token, "/auth/v1/factors", body).await.json();
            things.push((name, factor["id"].as_str().unwrap().to_owned()));
        }
        let path = format!("/auth/v1/factors/{}/challenge", things[5].1);
        let challenge = test.post(&ada.token, &path, json!({})).await.json();
        things.push(("{challenge}", challenge["id"].as_str().unwrap().to_owned()));
        things.push(("{merge_token}", test.merge_token().await));
        let api_key = test.api_key(&ada, json!({"name": "another"})).await;
        things.push(("{api_key}", api_key["id"].as_str().unwrap().to_owned()));
        let mut key = authenticator::Authenticator::new("localhost", "http://localhost:8080");
        things.push(("{passkey}", test.with_passkey(&admin, &mut key).await));
        let user = test.get(&ada.token, USER).await.json();
        let identity = user["identities"][0]["identity_id"].as_str().unwrap();
        things.push(("{identity}", identity.to_owned()));
        things.push(("{of_banned}", banned.refresh_token));
        things.push(("{ended}", ended.refresh_token));
        things.push(("{run_out}", run_out.refresh_token));
        let tokens = [ada.token, old.token, admin.token];
        for token in &tokens {
            // That it arrived is known, and written, before.
            assert_eq!(test.get(token, USER).await.status, 200);
        }
        Self {
            _first: test,
            test: confirming,
            things,
            tokens,
        }
    }

    async fn take(&self, (_, by, method, path, body, _): &Decision) -> Answer {
        let token = match by {
            Anyone => "",
            Ada => &self.tokens[0],
            Old => &self.tokens[1],
            Admin => &self.tokens[2],
        };
        let (mut path, mut body) = ((*path).to_owned(), (*body).to_owned());
        for (name, thing) in &self.things {
            (path, body) = (path.replace(name, thing), body.replace(name, thing));
        }
        let body = serde_json::from_str(&body).unwrap();
        self.test
            .call(method.parse().unwrap(), token, &path, body)
            .await
    }

    /// Every insertion into the log fails from now on.
    async fn break_log(&self) {
        let sql = match self.test.app.db.is_sqlite() {
            true => {
                "create trigger audit_broken before insert on audit_events begin select raise(abort, 'broken'); end"
            }
            false => {
                "create trigger audit_broken before insert on audit_events for each row execute function refuse_change()"
            }
        };
        db::testing::execute(&self.test.app.db, sql).await.unwrap();
    }

    async fn content(&self) -> Vec<String> {
        db::testing::content(&self.test.app.db, &[]).await.unwrap()
    }
}

both_engines! {
    async fn every_decision_leaves_one_row_refusals_too(engine: Engine) {
        let stage = Stage::set(engine).await;

        for decision in DECISIONS {
            let rows = stage.test.rows("audit_events").await;
            let answer = stage.take(decision).await;
            let (what, expected) = (decision.0, decision.5);
            let newest = db::audit::page(&stage.test.app.db, None, 1).await.unwrap().remove(0);
            assert_eq!(stage.test.rows("audit_events").await, rows + 1, "{what}: {} {}", answer.status, answer.text());
            assert_eq!((newest.action.as_str(), newest.outcome.as_str()), expected, "{what}");
            assert_eq!(newest.request_id.as_deref(), Some(answer.header("x-request-id")), "{what}");
            let refusal = answer.status.is_client_error();
            // What a stranger asks for is answered alike, whatever is decided.
            let alike = ["a sign-up of an address that is somebody's", "a recovery of nobody"].contains(&what);
            assert!(refusal == (expected.1 == NO) || alike, "{what}: {} {}", answer.status, answer.text());
        }
    }

    async fn what_is_refused_without_end_leaves_a_row_a_minute_of_each_account_or_address(engine: Engine) {
        let test = Test::new(engine).await;
        let (ada, ben) = (test.sign_up("ada@example.com").await, test.sign_up("ben@example.com").await);
        let forged = ada.refresh_token.replace(&ada.refresh_token[30..34], if &ada.refresh_token[30..34] == "AAAA" { "BBBB" } else { "AAAA" });
        let from = async |peer: &str| {
            let asked = request(Method::POST, "", "/auth/v1/logout").header("cookie", "plinth-access=any").header("origin", "https://evil.example");
            let mut asked = asked.body(Default::default()).unwrap();
            asked.extensions_mut().insert(ConnectInfo(SocketAddr::new(peer.parse().unwrap(), 40_000)));
            assert_eq!(test.send(asked).await.refusal(), refused(403, "cross_site_request"));
        };
        for person in [&ada, &ben] {
            test.post(&person.token, "/auth/v1/logout", json!({})).await;
        }
        let before = test.rows("audit_events").await;

        for _ in 0..20 {
            assert_eq!(test.refresh(&forged).await.status, 400);
            assert_eq!(test.refresh("rt1.nonsense").await.status, 400);
        }
        assert_eq!(test.rows("audit_events").await, before, "a token that is none of ours is about no account");

        for _ in 0..5 {
            assert_eq!(test.refresh(&ada.refresh_token).await.status, 400);
            for peer in ["192.0.2.1", "2001:db8:1:2::1", "2001:db8:1:2::2"] {
                from(peer).await;
            }
        }
        assert_eq!(test.rows("audit_events").await, before + 3, "one account, one address, one network");
        test.refresh(&ben.refresh_token).await;
        assert_eq!(test.rows("audit_events").await, before + 4, "nobody is hidden behind another");
        let newest = db::audit::page(&test.app.db, None, 1).await.unwrap().remove(0);
        assert_eq!(newest.subject_id.map(|id| id.to_string()), Some(ben.id));
        assert_eq!(newest.detail.0, json!({"reason": "refresh_token_not_found"}));

        test.later(Duration::from_secs(60));
        test.refresh(&ada.refresh_token).await;
        assert_eq!(test.rows("audit_events").await, before + 5);
    }

    async fn what_cannot_be_written_down_is_not_done(engine: Engine) {
        let stage = Stage::set(engine).await;
        let before = stage.content().await;
        stage.break_log().await;

        for decision in DECISIONS {
            let answer = stage.take(decision).await;
            assert!(answer.status.is_server_error(), "{}: {} {}", decision.0, answer.status, answer.text());
        }

        let after = stage.content().await;
        let new: Vec<_> = after.iter().filter(|row| !before.contains(row)).collect();
        let gone: Vec<_> = before.iter().filter(|row| !after.contains(row)).collect();
        assert_eq!((new, gone), (vec![], vec![]));
    }
}
