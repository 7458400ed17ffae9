//! What a user takes along, and what stays.
use super::{admin::decisions, *};
use crate::{auth::export, commands::users as command, testing::Engine};
use db::{Timestamp, billing, passkeys::NewPasskey, users::User};
use std::{collections::BTreeMap, io::Read};
use uuid::Uuid;

const EXPORT: &str = "/auth/v1/user/export";

/// The file that says what a table has of a user; `None`, and why nothing is to be told.
const TABLES: &[(&str, Result<&str, &str>)] = &[
    ("api_keys", Ok("api_keys.json")),
    ("audit_origins", Ok("audit.json")),
    ("auth_codes", Err("seconds old, and hashed")),
    (
        "billing_checkouts",
        Err("pages to pay on, and subscriptions.json tells what came of them"),
    ),
    ("billing_credits", Ok("credits.json")),
    ("billing_customers", Ok("customers.json")),
    ("billing_identities", Ok("customers.json")),
    (
        "billing_notices",
        Err("which mails were sent, without them"),
    ),
    ("billing_payments", Ok("purchases.json")),
    ("billing_subscriptions", Ok("subscriptions.json")),
    ("billing_timeline", Ok("receipts.json")),
    (
        "billing_transfers",
        Err("between names of theirs, which receipts.json tells"),
    ),
    ("conversations", Ok("conversations.json")),
    ("entitlement_grants", Ok("entitlements.json")),
    (
        "feature_overrides",
        Err("switches of the product, which the user gave nothing to"),
    ),
    ("generations", Ok("generations.json")),
    ("idempotency_keys", Err("copies of answers, for a day")),
    ("identities", Ok("identities.json")),
    (
        "merged_users",
        Err("ids of anonymous users, which audit.json tells"),
    ),
    ("mfa_factors", Ok("factors.json")),
    ("oauth_flows", Err("minutes old, and hashed")),
    (
        "one_time_tokens",
        Err("hashed, and nobody's but the mail's"),
    ),
    ("profiles", Ok("profile.json")),
    ("sessions", Ok("sessions.json")),
    ("usage_ledger", Ok("usage.json")),
    ("webauthn_challenges", Err("minutes old, and random")),
    ("webauthn_credentials", Ok("passkeys.json")),
];

type Files = BTreeMap<String, String>;

fn unzipped(bytes: &[u8]) -> Files {
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(bytes)).unwrap();
    let mut files = Files::new();
    for n in 0..archive.len() {
        let (mut file, mut text) = (archive.by_index(n).unwrap(), String::new());
        file.read_to_string(&mut text).unwrap();
        files.insert(file.name().unwrap().into_owned(), text);
    }
    files
}

fn file(files: &Files, name: &str) -> Value {
    serde_json::from_str(&files[name]).unwrap_or_else(|error| panic!("{name}: {error}"))
}

async fn user(test: &Test, id: &str) -> User {
    let id = id.parse().unwrap();
    db::users::by_id(&test.app.db, id).await.unwrap().unwrap()
}

/// What a user has who has everything.
pub(super) async fn fill(test: &Test, person: &Person) {
    let chat = json!({"message": "What is in my archive?"});
    assert_eq!(
        test.post(&person.token, "/api/chat", chat).await.status,
        200
    );
    let profile = json!({"hopes": "peace"});
    let put = test.call(Method::PUT, &person.token, "/api/profile", profile);
    assert_eq!(put.await.status, 200);
    let (id, now): (Uuid, _) = (person.id.parse().unwrap(), test.app.now());
    let (customer, subscription) = (format!("cus_{id}"), format!("sub_{id}"));
    let passkey = NewPasskey {
        user: id,
        credential_id: id.as_bytes(),
        public_key: b"a key of the tests",
        sign_count: 0,
        backup_eligible: true,
        backed_up: true,
        aaguid: Uuid::nil(),
        transports: vec!["internal".into()],
    };
    let subscription = billing::Subscription {
        provider: "stripe".into(),
        mode: "test".into(),
        external_id: subscription,
        user_id: Some(id),
        customer: Some(customer.clone()),
        store: "stripe".into(),
        status: "active".into(),
        plan: Some("pro".into()),
        product: None,
        quantity: 1,
        will_renew: true,
        period_start: None,
        period_end: None,
        trial_end: None,
        cancel_at: None,
        ended_at: None,
        basis_at: now,
        basis_rank: 1,
        basis_event: "evt_1".into(),
        entitlements: None,
        kind: None,
        started_at: None,
        latest_invoice: None,
        paused: None,
        paid_up_at: None,
        grace_until: None,
        refunded_at: None,
    };
    let grant = billing::Grant {
        user_id: id,
        entitlement: "pro".into(),
        source: "stripe".into(),
        source_ref: subscription.external_id.clone(),
        starts_at: now,
        ends_at: None,
        revoked_at: None,
        reason: None,
        in_grace: false,
        will_renew: true,
        kind: "paid".into(),
    };
    let mut tx = test.app.db.begin().await.unwrap();
    db::api_keys::create(
        &mut tx,
        Uuid::now_v7(),
        id,
        "a script",
        id.as_bytes(),
        "pl_01234",
        None,
        now,
    )
    .await
    .unwrap();
    db::passkeys::create(&mut tx, passkey, now).await.unwrap();
    billing::link_customer(&mut tx, "stripe", "test", &customer, id, now)
        .await
        .unwrap();
    billing::save_subscription(&mut tx, &subscription, now)
        .await
        .unwrap();
    let (checkout, page) = (format!("cs_{id}"), "https://checkout.example.com");
    db::checkouts::keep(
        &mut tx, &checkout, id, "test", "key:1", b"hash", "pro", page, now, now,
    )
    .await
    .unwrap();
    pays(&mut tx, id, now).await;
    billing::replace_grants(
        &mut tx,
        "stripe",
        &grant.source_ref,
        std::slice::from_ref(&grant),
        now,
    )
    .await
    .unwrap();
    tx.commit().await.unwrap();
}

/// What else is known of somebody who pays.
async fn pays(tx: &mut db::Tx, id: Uuid, now: Timestamp) {
    let bought = billing::money::Payment {
        provider: "stripe".into(),
        mode: "test".into(),
        external_id: format!("pi_{id}"),
        invoice: None,
        amount: 9_900,
        currency: Some("usd".into()),
        customer: None,
        user_id: Some(id),
        plan: Some("pro".into()),
        paid_at: Some(now),
    };
    billing::money::save_payment(tx, &bought).await.unwrap();
    let receipt = billing::timeline::Receipt {
        id: Uuid::now_v7(),
        user_id: Some(id),
        provider: "stripe".into(),
        mode: "test".into(),
        object: bought.external_id,
        event: "evt_1".into(),
        kind: "checkout.session.completed".into(),
        rule: "payment".into(),
        before: db::Json(json!({})),
        after: db::Json(json!({})),
        occurred_at: now,
        created_at: now,
    };
    billing::timeline::note(tx, receipt).await.unwrap();
    billing::stores::credit(tx, &format!("test:{id}"), id, "coins", 100, now)
        .await
        .unwrap();
    let anonymous = format!("$RCAnonymousID:{id}");
    billing::stores::link_name(tx, &anonymous, id, now)
        .await
        .unwrap();
    billing::stores::transfer(tx, &anonymous, "test", id, Some(id), "", None, now)
        .await
        .unwrap();
}

both_engines! {
    async fn everything_that_hangs_on_a_user_is_in_their_archive_and_nothing_of_another(engine: Engine) {
        let test = Test::new(engine).await;
        let (ada, ben) = (test.sign_up("ada@example.com").await, test.sign_up("ben@example.com").await);
        for person in [&ada, &ben] {
            fill(&test, person).await;
        }
        let factor = test.post(&ada.token, "/auth/v1/factors", json!({"factor_type": "totp"})).await.json();

        let answer = test.get(&ada.token, EXPORT).await;

        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), "application/zip");
        assert_eq!(answer.header("content-disposition"), "attachment; filename=\"export-2026-11-20.zip\"");
        assert_eq!((answer.header("cache-control"), answer.header("content-encoding")), ("no-store", ""));
        let files = unzipped(&answer.bytes);
        for (table, what) in TABLES {
            let Ok(name) = what else { continue };
            assert_ne!(file(&files, name), json!([]), "{table}");
        }
        let readme = &files["README.txt"];
        for name in files.keys().filter(|name| *name != "README.txt") {
            assert!(readme.contains(name.as_str()), "{name}");
        }
        assert_eq!(file(&files, "user.json")["email"], "ada@example.com");
        assert_eq!(file(&files, "messages.json")[0]["content"], "What is in my archive?");
        assert_eq!(file(&files, "messages.json").as_array().unwrap().len(), 2);
        assert_eq!(file(&files, "factors.json")[0]["id"], factor["id"]);
        assert_eq!(file(&files, "audit.json")[0]["action"], "user_exported");
        assert_ne!(file(&files, "quotas.json"), json!([]));
        let all: String = files.values().map(String::as_str).collect();
        let secret = factor["totp"]["secret"].as_str().unwrap();
        for hidden in ["argon2", secret, "secret_sealed", "refresh_secret", "public_key", &ada.refresh_token, &ben.id, "ben@example.com"] {
            assert!(!all.contains(hidden), "{hidden}");
        }
    }

    /// Invariants 54 and 71, for the export.
    async fn nothing_is_taken_along_by_an_old_session_or_from_an_account_that_ended(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        test.later(Duration::from_secs(301));

        let refusal = test.get(&ada.token, EXPORT).await;

        assert_eq!(refusal.refusal(), refused(403, "reauthentication_needed"));
        let last = decisions(&test, &json!({"id": ada.id})).await.remove(0);
        assert_eq!((last.action.as_str(), last.outcome.as_str()), ("user_exported", "refused"));
        let ada = test.sign_in_again("ada@example.com").await;
        assert_eq!(test.get(&ada.token, EXPORT).await.status, 200);
        let last = decisions(&test, &json!({"id": ada.id})).await.remove(0);
        assert_eq!((last.action.as_str(), last.outcome.as_str()), ("user_exported", "succeeded"));
        test.call(Method::DELETE, &ada.token, USER, json!({})).await;
        assert_eq!(test.get(&ada.token, EXPORT).await.refusal(), refused(403, "session_not_found"));
    }

    async fn who_is_taken_along_hears_of_it_by_mail(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        test.sign_up("ben@example.com").await;

        assert_eq!(test.get(&ada.token, EXPORT).await.status, 200);

        test.work().await;
        let subjects = |email: &str| test.world.mailbox().to(email).into_iter().map(|mail| mail.subject).collect::<Vec<_>>();
        assert_eq!(subjects("ada@example.com"), ["Your data was downloaded"]);
        assert!(subjects("ben@example.com").is_empty());
        test.later(Duration::from_secs(301));
        assert_eq!(test.get(&ada.token, EXPORT).await.status, 403);
        assert_eq!(test.mails_waiting().await, 0, "nothing was taken");
    }

    async fn a_large_archive_is_made_no_faster_than_it_is_taken(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let (id, now): (Uuid, Timestamp) = (ada.id.parse().unwrap(), test.app.now());
        let conversation = Uuid::now_v7();
        let mut tx = test.app.db.begin().await.unwrap();
        db::conversations::create(&mut tx, conversation, id, None, "default", None, now).await.unwrap();
        for _ in 0..450 {
            let noise: String = (0..256).map(|_| Uuid::new_v4().simple().to_string()).collect();
            db::conversations::ask(&mut tx, Uuid::now_v7(), conversation, None, &noise, None, now).await.unwrap();
        }
        tx.commit().await.unwrap();

        let mut pieces = export::pieces(&test.app, user(&test, &ada.id).await);

        let (mut bytes, mut most, mut longest) = (vec![], 0, 0);
        while let Some(piece) = pieces.recv().await {
            let piece = piece.unwrap();
            (most, longest) = (most.max(pieces.len()), longest.max(piece.len()));
            bytes.extend(piece);
        }
        assert!(bytes.len() > 1_500_000 && longest < 128 * 1024 && most <= 2, "{} bytes, {longest} at once, {most} waiting", bytes.len());
        assert_eq!(file(&unzipped(&bytes), "messages.json").as_array().unwrap().len(), 450);
    }

    async fn the_command_line_exports_and_deletes_by_address_and_by_id(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        fill(&test, &ada).await;

        let found = command::find(&test.app, "Ada@Example.com").await.unwrap();
        let mut bytes = vec![];
        command::write(&test.app, found.clone(), &mut bytes).await.unwrap();
        let files = unzipped(&bytes);
        assert_eq!(command::find(&test.app, &ada.id).await.unwrap().id, found.id);
        command::delete(&test.app, &found).await.unwrap();

        assert_eq!(file(&files, "user.json")["id"], ada.id);
        assert_eq!(test.get(&ada.token, USER).await.refusal(), refused(403, "session_not_found"));
        assert_eq!((test.rows("users").await, test.rows("conversations").await), (0, 0));
        assert_eq!(test.rows("billing_cancellations").await, 1);
        let events = decisions(&test, &json!({"id": ada.id})).await;
        let done: Vec<_> = events.iter().take(2).map(|e| (e.action.as_str(), e.actor_kind.as_str())).collect();
        assert_eq!(done, [("user_deleted", "system"), ("user_exported", "system")]);
        for nobody in ["ada@example.com", ada.id.as_str(), "ada"] {
            assert!(command::find(&test.app, nobody).await.is_err(), "{nobody}");
        }
    }
}

#[tokio::test]
async fn every_table_that_knows_a_user_is_in_the_archive_or_says_why_not() {
    let test = Test::new(Engine::Sqlite).await;

    let schema = db::check::schema(&test.app.db).await.unwrap();

    let of_users = |line: &String| {
        let (table, rest) = line.split_once(['.', ' '])?;
        let named = line.contains('.') && rest.split(' ').next()?.ends_with("user_id");
        (named || rest.contains("references users on")).then(|| table.to_owned())
    };
    let found: std::collections::BTreeSet<_> = schema.iter().filter_map(of_users).collect();
    let told: std::collections::BTreeSet<_> = TABLES
        .iter()
        .map(|(table, _)| (*table).to_owned())
        .collect();
    assert_eq!(
        found, told,
        "a table that knows a user belongs into auth/export, and into this list"
    );
}

#[tokio::test]
async fn an_archive_is_asked_for_three_times_an_hour() {
    let test = Test::with(Engine::Sqlite, &[("RATE_LIMITS", "")]).await;
    let ada = test.sign_up("ada@example.com").await;

    for _ in 0..3 {
        assert_eq!(test.get(&ada.token, EXPORT).await.status, 200);
    }
    let answer = test.get(&ada.token, EXPORT).await;
    assert_eq!(answer.refusal(), refused(429, "over_request_rate_limit"));
}
