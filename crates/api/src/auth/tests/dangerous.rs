//! What is dangerous asks for a sign-in of the last minutes: invariant 54, over every route of accounts.
use super::*;
use crate::docs;
use db::passkeys::NewPasskey;
use std::collections::BTreeSet;
use uuid::Uuid;

/// What changes how somebody proves who they are, takes along what is theirs or ends it: method, route and
/// body. Parameters are filled with what there is.
const DANGEROUS: &[(&str, &str, &str)] = &[
    (
        "post",
        "/api/admin/users/{other}/impersonate",
        r#"{"reason": "a ticket"}"#,
    ),
    ("post", "/api/keys", r#"{"name": "a script"}"#),
    (
        "delete",
        "/auth/v1/admin/users/{other}/factors/{their_factor}",
        "{}",
    ),
    (
        "delete",
        "/auth/v1/admin/users/{other}/passkeys/{their_passkey}",
        "{}",
    ),
    (
        "post",
        "/auth/v1/admin/generate_link",
        r#"{"type": "magiclink", "email": "ben@example.com"}"#,
    ),
    (
        "post",
        "/auth/v1/admin/users",
        r#"{"email": "made@example.com"}"#,
    ),
    (
        "put",
        "/auth/v1/admin/users/{other}",
        r#"{"app_metadata": {"plan": "gold"}}"#,
    ),
    ("delete", "/auth/v1/admin/users/{other}", "{}"),
    (
        "post",
        "/auth/v1/factors",
        r#"{"factor_type": "totp", "friendly_name": "another"}"#,
    ),
    (
        "post",
        "/auth/v1/guest/merge",
        r#"{"merge_token": "{merge_token}"}"#,
    ),
    ("post", "/auth/v1/factors/recovery-codes", "{}"),
    ("post", "/auth/v1/factors/recovery-codes/regenerate", "{}"),
    ("delete", "/auth/v1/factors/recovery-codes", "{}"),
    ("delete", "/auth/v1/factors/{factor}", "{}"),
    ("post", "/auth/v1/passkeys/registration/options", "{}"),
    (
        "post",
        "/auth/v1/passkeys/registration/verify",
        r#"{"challenge_id": "0190a8c0-0000-7000-8000-000000000000", "credential": {"response": {"clientDataJSON": "", "attestationObject": ""}}}"#,
    ),
    ("delete", "/auth/v1/passkeys/{passkey}", "{}"),
    (
        "put",
        "/auth/v1/user",
        r#"{"password": "another password"}"#,
    ),
    (
        "put",
        "/auth/v1/user",
        r#"{"email": "another@example.com"}"#,
    ),
    ("get", "/auth/v1/user/export", "{}"),
    (
        "get",
        "/auth/v1/user/identities/authorize?provider=google&code_challenge_method=s256&code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
        "{}",
    ),
    ("delete", "/auth/v1/user/identities/{identity}", "{}"),
    ("delete", "/auth/v1/user", "{}"),
];

/// What an open session is enough for: what lists and names, what ends sessions, what proves a second factor,
/// and what admins do to others by their office.
const HARMLESS: &[(&str, &str)] = &[
    ("get", "/api/admin/audit"),
    ("get", "/api/admin/features"),
    ("put", "/api/admin/features/{}"),
    ("delete", "/api/admin/features/{}/users/{}"),
    ("put", "/api/admin/features/{}/users/{}"),
    ("post", "/api/admin/billing/users/{}/reconcile"),
    ("get", "/api/admin/billing/users/{}"),
    ("post", "/api/admin/entitlements"),
    ("delete", "/api/admin/entitlements/{}"),
    ("get", "/api/admin/llm"),
    ("put", "/api/admin/llm"),
    ("post", "/api/admin/test-error"),
    ("get", "/api/admin/usage"),
    ("get", "/api/admin/users"),
    ("get", "/api/admin/users/{}"),
    ("post", "/api/admin/users/{}/ban"),
    ("get", "/api/admin/users/{}/sessions"),
    ("delete", "/api/admin/users/{}/sessions/{}"),
    ("post", "/api/admin/users/{}/unban"),
    ("get", "/api/admin/webhooks"),
    ("post", "/api/admin/webhooks/replay"),
    ("get", "/api/admin/webhooks/stats"),
    ("get", "/api/admin/webhooks/{}"),
    ("post", "/api/admin/webhooks/{}/discard"),
    ("post", "/api/admin/webhooks/{}/replay"),
    ("get", "/api/keys"),
    ("delete", "/api/keys/{}"),
    ("get", "/auth/v1/admin/audit"),
    ("get", "/auth/v1/admin/users"),
    ("get", "/auth/v1/admin/users/{}"),
    ("get", "/auth/v1/admin/users/{}/factors"),
    ("get", "/auth/v1/admin/users/{}/passkeys"),
    ("get", "/auth/v1/audit"),
    ("post", "/auth/v1/factors/{}/challenge"),
    ("post", "/auth/v1/factors/{}/verify"),
    ("post", "/auth/v1/guest/merge-token"),
    ("post", "/auth/v1/invite"),
    ("post", "/auth/v1/logout"),
    ("get", "/auth/v1/factors/recovery-codes"),
    ("post", "/auth/v1/factors/recovery-codes/verify"),
    ("get", "/auth/v1/passkeys"),
    ("patch", "/auth/v1/passkeys/{}"),
    ("get", "/auth/v1/reauthenticate"),
    ("get", "/auth/v1/sessions"),
    ("delete", "/auth/v1/sessions/{}"),
    ("get", "/auth/v1/user"),
];

/// A route without the names of its parameters.
fn bare(route: &str) -> String {
    let (route, _) = route.split_once('?').unwrap_or((route, ""));
    let part = |part: &str| if part.starts_with('{') { "{}" } else { part }.to_owned();
    route.split('/').map(part).collect::<Vec<_>>().join("/")
}

#[test]
fn every_route_of_accounts_is_dangerous_or_harmless() {
    let openapi: Value = serde_json::from_str(&docs::json()).unwrap();
    let mut described = BTreeSet::new();
    for (route, methods) in openapi["paths"].as_object().unwrap() {
        let of_accounts = ["/auth/", "/api/admin/", "/api/keys"]
            .iter()
            .any(|part| route.starts_with(part));
        for (method, operation) in methods.as_object().unwrap() {
            if of_accounts && operation.get("security").is_none() {
                described.insert((method.clone(), bare(route)));
            }
        }
    }

    let dangerous = DANGEROUS.iter().map(|(method, route, _)| (*method, *route));
    let harmless = HARMLESS.iter().copied();
    let judged: BTreeSet<_> = dangerous
        .chain(harmless)
        .map(|(method, route)| (method.to_owned(), bare(route)))
        .collect();
    assert_eq!(
        described, judged,
        "a new route belongs into one of the lists above"
    );
}

/// Someone who has one of everything, administers, and proved a second factor.
struct Owner {
    person: Person,
    /// What parameters are filled with.
    things: Vec<(&'static str, String)>,
}

impl Owner {
    async fn new(test: &Test) -> Self {
        let (ada, ben) = (
            test.sign_up_admin("ada@example.com").await,
            test.sign_up("ben@example.com").await,
        );
        let (user, other): (Uuid, Uuid) = (ada.id.parse().unwrap(), ben.id.parse().unwrap());
        let [factor, theirs, identity] = [(); 3].map(|()| Uuid::now_v7());
        let (now, mut tx) = (test.app.now(), test.app.db.begin().await.unwrap());
        for (id, user) in [(factor, user), (theirs, other)] {
            db::factors::create(
                &mut tx,
                id,
                user,
                "totp",
                "",
                "verified",
                Some(b"sealed"),
                now,
            )
            .await
            .unwrap();
        }
        let profile = db::Json(json!({}));
        db::users::add_identity(
            &mut tx, identity, user, "google", "google", "1", &profile, now,
        )
        .await
        .unwrap();
        let passkey = |user, credential_id| NewPasskey {
            user,
            credential_id,
            public_key: b"a key",
            sign_count: 0,
            backup_eligible: false,
            backed_up: false,
            aaguid: Uuid::nil(),
            transports: vec![],
        };
        let (own, others) = (
            passkey(user, &b"a credential"[..]),
            passkey(other, &b"another"[..]),
        );
        let passkey = db::passkeys::create(&mut tx, own, now).await.unwrap();
        let their_passkey = db::passkeys::create(&mut tx, others, now).await.unwrap();
        tx.commit().await.unwrap();
        db::testing::execute(&test.app.db, "update sessions set aal = 'aal2'")
            .await
            .unwrap();
        let things = [
            ("{factor}", factor),
            ("{their_factor}", theirs),
            ("{identity}", identity),
            ("{passkey}", passkey.unwrap().id),
            ("{other}", other),
            ("{their_passkey}", their_passkey.unwrap().id),
        ];
        let mut things = Vec::from(things.map(|(name, id)| (name, id.to_string())));
        things.push(("{merge_token}", test.merge_token().await));
        Self {
            person: test.refreshed(&ada.refresh_token).await,
            things,
        }
    }

    async fn dare(
        &self,
        test: &Test,
        token: &str,
        (method, route, body): (&str, &str, &str),
    ) -> Answer {
        let (mut path, mut body) = (route.to_owned(), body.to_owned());
        for (name, id) in &self.things {
            (path, body) = (path.replace(name, id), body.replace(name, id));
        }
        let method = method.to_uppercase().parse().unwrap();
        let body = serde_json::from_str(&body).unwrap();
        test.call(method, token, &path, body).await
    }
}

/// How much there is of what such routes change.
async fn standing(test: &Test) -> Vec<i64> {
    let mut rows = vec![];
    for table in [
        "users",
        "identities",
        "mfa_factors",
        "webauthn_credentials",
        "api_keys",
        "sessions",
        "webauthn_challenges",
        "one_time_tokens",
    ] {
        rows.push(test.rows(table).await);
    }
    rows
}

both_engines! {
    async fn what_is_dangerous_is_refused_to_an_old_session_and_done_in_a_fresh_one(engine: Engine) {
        let test = Test::with(engine, guest::OPEN).await;
        let owner = Owner::new(&test).await;
        test.later(Duration::from_secs(301));
        let before = standing(&test).await;

        for dared in DANGEROUS {
            let refusals = test.rows("audit_events").await;
            let answer = owner.dare(&test, &owner.person.token, *dared).await;
            assert_eq!(answer.refusal(), refused(403, "reauthentication_needed"), "{dared:?}");
            assert_eq!(answer.header("www-authenticate"), "Bearer error=\"insufficient_user_authentication\", max_age=\"300\"", "{dared:?}");
            assert_eq!(test.rows("audit_events").await, refusals + 1, "{dared:?}: invariant 69");
        }
        assert_eq!(standing(&test).await, before);
        assert_eq!(test.mails_waiting().await, 0);
        assert_eq!(test.sign_in("ada@example.com", PASSWORD).await.status, 200);

        db::testing::execute(&test.app.db, "update sessions set authenticated_at = (select max(created_at) from sessions)").await.unwrap();
        for dared in DANGEROUS {
            // Leaves the session at aal1, and so would be the last.
            if dared.0 == "delete" && dared.1.starts_with("/auth/v1/factors/") {
                continue;
            }
            let answer = owner.dare(&test, &owner.person.token, *dared).await;
            let unforeseen = answer.status.is_client_error() && !dared.1.ends_with("registration/verify");
            assert!(!unforeseen, "{dared:?}: {}", answer.text());
        }
        let left = db::users::by_email(&test.app.db, "made@example.com").await.unwrap();
        assert!(left.is_some() && test.rows("users").await == 1, "the account ended last");
    }

    async fn what_is_dangerous_is_refused_without_the_second_factor_of_who_has_one(engine: Engine) {
        let test = Test::with(engine, guest::OPEN).await;
        let owner = Owner::new(&test).await;
        let fresh = test.sign_in_again("ada@example.com").await;
        let before = standing(&test).await;

        for dared in DANGEROUS {
            let answer = owner.dare(&test, &fresh.token, *dared).await;
            assert_eq!(answer.refusal(), refused(403, "insufficient_aal"), "{dared:?}");
        }
        assert_eq!(standing(&test).await, before);
    }

    /// Invariant 73.
    async fn what_is_dangerous_is_refused_to_an_admin_who_looks(engine: Engine) {
        let test = Test::with(engine, guest::OPEN).await;
        let owner = Owner::new(&test).await;
        let looked = test.post(&owner.person.token, &format!("/api/admin/users/{}/impersonate", owner.things[4].1), json!({"reason": "a ticket"})).await;
        let token = looked.json()["access_token"].as_str().unwrap().to_owned();
        let before = standing(&test).await;

        for dared in DANGEROUS {
            let answer = owner.dare(&test, &token, *dared).await;
            assert_eq!(answer.refusal(), refused(403, "forbidden"), "{dared:?}");
        }
        assert_eq!(standing(&test).await, before);
    }
}
