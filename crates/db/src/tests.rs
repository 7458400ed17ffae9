use crate::{prelude::*, *};
use serde_json::json;
use std::time::Duration;

fn now() -> Timestamp {
    Timestamp::from_unix(1_795_000_000)
}

fn new_user(email: &str) -> users::NewUser<'_> {
    users::NewUser {
        id: Uuid::now_v7(),
        identity: Uuid::now_v7(),
        email: Some(email),
        confirmed_at: Some(now()),
        password_hash: Some("hash"),
        role: "authenticated",
        user_metadata: json!({"theme": "dark"}),
    }
}

async fn register(db: &Db, email: &str) -> Option<users::User> {
    let mut tx = db.begin().await.unwrap();
    let user = users::create(&mut tx, new_user(email), now())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    user
}

async fn someone(db: &Db) -> users::User {
    register(db, "ada@example.com").await.unwrap()
}

both_engines! {
    async fn every_statement_is_sound(db: Db) {
        assert!(check::count() > 60);
        assert_eq!(check::verify(&db).await.unwrap(), Vec::<String>::new());
    }

    async fn the_schema_is_the_one_that_was_reviewed(db: Db) {
        let schema = check::schema(&db).await.unwrap().join("\n") + "\n";
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/schema.txt");
        #[expect(clippy::disallowed_methods, reason = "how the reviewer accepts a new schema")]
        if std::env::var("ACCEPT").is_ok() && db.is_sqlite() {
            std::fs::write(file, &schema).unwrap();
        }
        assert_eq!(std::fs::read_to_string(file).unwrap(), schema, "run with ACCEPT=1 to accept, and read the diff");
    }

    async fn migrations_go_down_and_up_again(db: Db) {
        let all = db.migrations().await.unwrap();
        assert!(all.iter().all(|m| m.applied));

        db.revert(1).await.unwrap();
        let left = db.migrations().await.unwrap().into_iter().filter(|m| m.applied).count();
        assert_eq!(left, all.len() - 1);

        db.revert(all.len()).await.unwrap();
        assert_eq!(check::schema(&db).await.unwrap(), Vec::<String>::new());

        db.migrate().await.unwrap();
        someone(&db).await;
    }

    async fn instances_that_migrate_at_once_do_it_once(db: Db) {
        db.revert(100).await.unwrap();
        let instances: Vec<_> = (0..4).map(|_| { let db = db.clone(); tokio::spawn(async move { db.migrate().await }) }).collect();
        for instance in instances {
            instance.await.unwrap().unwrap();
        }
        assert!(db.migrations().await.unwrap().iter().all(|m| m.applied));
    }

    async fn a_start_that_is_cut_off_leaves_all_of_the_history_or_none(db: Db) {
        db.revert(100).await.unwrap();
        let all = db.migrations().await.unwrap().len();
        for n in 0..12u64 {
            let _ = tokio::time::timeout(Duration::from_millis(n * n * 3), db.migrate()).await;
            let applied = db.migrations().await.unwrap().into_iter().filter(|m| m.applied).count();
            assert!(applied == 0 || applied == all, "{applied} of {all}");
            if applied == 0 {
                assert_eq!(check::schema(&db).await.unwrap(), Vec::<String>::new());
            }
        }
        db.migrate().await.unwrap();
        someone(&db).await;
    }

    async fn a_migration_that_fails_takes_those_before_it_along(db: Db) {
        db.revert(100).await.unwrap();
        raw(&db, "create table backups (name text)").await;
        let refusal = db.migrate().await.unwrap_err().to_string();
        assert!(refusal.contains("migration 62 failed and was taken back whole"), "{refusal}");
        assert_eq!(check::schema(&db).await.unwrap(), ["backups.name text"]);
        assert!(db.migrations().await.unwrap().iter().all(|m| !m.applied));
    }

    async fn a_changed_migration_is_refused_with_what_to_do(db: Db) {
        raw(&db, "update _sqlx_migrations set checksum = checksum || checksum where version = 2").await;
        let refusal = db.migrate().await.unwrap_err().to_string();
        assert!(refusal.contains("migration 2 was changed") && refusal.contains("new migration"), "{refusal}");
    }

    async fn a_half_applied_migration_is_refused_with_what_to_do(db: Db) {
        raw(&db, "update _sqlx_migrations set success = false where version = 3").await;
        let refusal = db.migrate().await.unwrap_err().to_string();
        assert!(refusal.contains("migration 3 was left half-applied") && refusal.contains("_sqlx_migrations"), "{refusal}");
    }

    async fn a_database_of_a_newer_version_is_refused_with_what_to_do(db: Db) {
        raw(&db, "update _sqlx_migrations set version = 9000 where version = 4").await;
        let refusal = db.migrate().await.unwrap_err().to_string();
        assert!(refusal.contains("migration 9000") && refusal.contains("newer"), "{refusal}");
    }

    async fn a_row_comes_back_as_it_went_in(db: Db) {
        let user = someone(&db).await;
        assert_eq!(users::by_id(&db, user.id).await.unwrap(), Some(user.clone()));
        assert_eq!(user.user_metadata.0["theme"], "dark");
        assert_eq!(user.created_at, now());
        let identities = users::identities(&db, user.id).await.unwrap();
        assert_eq!((identities.len(), identities[0].provider.as_str()), (1, "email"));
    }

    async fn a_confirmed_address_is_taken_once_and_an_unconfirmed_one_blocks_nobody(db: Db) {
        for _ in 0..2 {
            let mut tx = db.begin().await.unwrap();
            let unconfirmed = users::NewUser { confirmed_at: None, ..new_user("ada@example.com") };
            assert!(users::create(&mut tx, unconfirmed, now()).await.unwrap().is_some());
            tx.commit().await.unwrap();
        }
        let held = register(&db, "ada@example.com").await.unwrap();
        assert_eq!(register(&db, "ada@example.com").await, None);
        assert_eq!(users::by_email(&db, "ada@example.com").await.unwrap().unwrap().id, held.id);
    }

    async fn fifty_registrations_of_one_address_make_one_user(db: Db) {
        let tasks: Vec<_> = (0..50).map(|_| { let db = db.clone(); tokio::spawn(async move { register(&db, "ada@example.com").await.is_some() }) }).collect();
        let mut made = 0;
        for task in tasks { made += task.await.unwrap() as u32; }
        assert_eq!(made, 1);
    }

    async fn a_session_rotates_once_from_each_counter(db: Db) {
        let user = someone(&db).await;
        let later = now() + Duration::from_secs(60);
        let mut tx = db.begin().await.unwrap();
        let new = sessions::NewSession { user: user.id, refresh_secret: b"s", method: "password", ip: None, user_agent: None, idle_expires_at: later, absolute_expires_at: later };
        let session = sessions::create(&mut tx, new, now()).await.unwrap();
        tx.commit().await.unwrap();

        let tasks: Vec<_> = (0..20).map(|_| { let db = db.clone(); tokio::spawn(async move {
            let mut tx = db.begin().await.unwrap();
            let rotated = sessions::rotate(&mut tx, session.id, 1, later, now()).await.unwrap();
            tx.commit().await.unwrap();
            rotated
        }) }).collect();
        let mut rotated = 0;
        for task in tasks { rotated += task.await.unwrap() as u32; }
        assert_eq!(rotated, 1);

        let mut tx = db.begin().await.unwrap();
        assert!(sessions::revoke(&mut tx, session.id, "logout", now()).await.unwrap());
        assert!(!sessions::rotate(&mut tx, session.id, 2, later, now()).await.unwrap());
        tx.commit().await.unwrap();
        assert!(sessions::standing(&db, session.id).await.unwrap().unwrap().revoked_at.is_some());
    }

    async fn an_event_is_kept_once_with_its_job(db: Db) {
        let body = br#"{"type":"invoice.paid"}"#;
        let arrival = inbox::Arrival { provider: "stripe", mode: "test", external_id: "evt_1", kind: "invoice.paid", api_version: None, subject: "stripe:cus_1", occurred_at: now(), source: "hook", key_id: None, body };
        let tasks: Vec<_> = (0..100).map(|_| { let (db, arrival) = (db.clone(), arrival); tokio::spawn(async move { inbox::ingest(&db, arrival, now()).await.unwrap() }) }).collect();
        let mut fresh = 0;
        for task in tasks { fresh += task.await.unwrap() as u32; }
        assert_eq!(fresh, 1);

        let event = inbox::by_external_id(&db, "stripe", "test", "evt_1").await.unwrap().unwrap();
        assert_eq!(event.body, body);
        let jobs = claim(&db, "w").await;
        assert_eq!(jobs.len(), 1);
        assert_eq!(jobs[0].payload.0["event"], json!(event.id));
    }

    async fn many_workers_claim_each_job_once(db: Db) {
        for n in 0..60 { enqueue(&db, None, n).await; }
        let workers: Vec<_> = (0..6).map(|n| { let db = db.clone(); tokio::spawn(async move {
            let mut mine = vec![];
            loop {
                let got = claim(&db, &format!("w{n}")).await;
                if got.is_empty() { break mine }
                mine.extend(got.into_iter().map(|job| job.id));
            }
        }) }).collect();
        let mut all = vec![];
        for worker in workers { all.extend(worker.await.unwrap()); }
        assert_eq!(all.len(), 60);
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 60);
    }

    async fn jobs_of_one_subject_run_one_at_a_time_in_order(db: Db) {
        for n in 0..3 { enqueue(&db, Some("cus_1"), n).await; }
        for n in 0..3 {
            let jobs = claim(&db, "w1").await;
            assert_eq!(jobs.len(), 1);
            assert_eq!(jobs[0].payload.0, json!(n));
            assert_eq!(claim(&db, "w2").await, vec![], "another worker has to wait");
            finish(&db, jobs[0].id, "w1").await;
        }
        assert_eq!(claim(&db, "w1").await, vec![]);
    }

    async fn inv_16_many_workers_never_hold_two_jobs_of_one_subject(db: Db) {
        for n in 0..30 { enqueue(&db, Some(["a", "b"][n as usize % 2]), n).await; }
        let holding = std::sync::Arc::new(tokio::sync::Mutex::new(std::collections::HashSet::new()));
        let workers: Vec<_> = (0..6).map(|n| { let (db, holding) = (db.clone(), holding.clone()); tokio::spawn(async move {
            let name = format!("w{n}");
            let mut done = 0;
            while !jobs::unfinished(&db, "k").await.unwrap().is_empty() {
                for job in claim(&db, &name).await {
                    assert!(holding.lock().await.insert(job.subject.clone()), "two at once");
                    tokio::task::yield_now().await;
                    assert!(holding.lock().await.remove(&job.subject));
                    finish(&db, job.id, &name).await;
                    done += 1;
                }
            }
            done
        }) }).collect();
        let mut done = 0;
        for worker in workers { done += worker.await.unwrap(); }
        assert_eq!(done, 30);
    }

    async fn a_lease_that_ran_out_is_taken_over_and_its_holder_can_change_nothing(db: Db) {
        enqueue(&db, Some("cus_1"), 1).await;
        let held = claim(&db, "zombie").await;
        let later = now() + Duration::from_secs(61);
        let taken = jobs::claim(&db, "heir", later, later + Duration::from_secs(60), 10).await.unwrap();
        assert_eq!((taken.len(), taken[0].id, taken[0].attempts), (1, held[0].id, 2));

        let mut tx = db.begin().await.unwrap();
        assert!(!jobs::finish(&mut tx, held[0].id, "zombie", later).await.unwrap());
        assert!(!jobs::retry(&mut tx, held[0].id, "zombie", later, "x").await.unwrap());
        assert!(!jobs::extend(&mut tx, held[0].id, "zombie", later).await.unwrap());
        assert!(jobs::finish(&mut tx, held[0].id, "heir", later).await.unwrap());
        tx.commit().await.unwrap();
    }

    async fn a_worker_that_stops_gives_back_what_it_holds(db: Db) {
        enqueue(&db, None, 1).await;
        assert_eq!(claim(&db, "w1").await.len(), 1);
        let mut tx = db.begin().await.unwrap();
        assert_eq!(jobs::give_back(&mut tx, "w1").await.unwrap(), 1);
        tx.commit().await.unwrap();
        assert_eq!(claim(&db, "w2").await[0].attempts, 1);
    }

    async fn a_job_of_a_known_key_is_not_made_again(db: Db) {
        let mut tx = db.begin().await.unwrap();
        let new = jobs::NewJob { kind: "k", subject: None, payload: json!(1), dedupe_key: Some("tick:1"), due_at: now() };
        assert!(jobs::enqueue(&mut tx, new.clone(), now()).await.unwrap());
        assert!(!jobs::enqueue(&mut tx, new, now()).await.unwrap());
        tx.commit().await.unwrap();
        assert_eq!(claim(&db, "w").await.len(), 1);
    }

    async fn a_quota_holds_exactly_under_concurrency(db: Db) {
        let tasks: Vec<_> = (0..50).map(|_| { let db = db.clone(); tokio::spawn(async move {
            let mut tx = db.begin().await.unwrap();
            usage::open(&mut tx, "user:1", "", now(), usage::Amount::default()).await.unwrap();
            let window = usage::held(&mut tx, "user:1", "", now()).await.unwrap().unwrap();
            let amount = usage::Amount { tokens: 10, ..Default::default() };
            let ok = window.used().tokens + window.reserved().tokens + 10 <= 205;
            if ok {
                usage::reserve(&mut tx, "user:1", "", now(), amount).await.unwrap();
                usage::settle(&mut tx, "user:1", "", now(), amount, amount).await.unwrap();
            }
            tx.commit().await.unwrap();
            ok
        }) }).collect();
        let mut admitted = 0;
        for task in tasks { admitted += task.await.unwrap() as u32; }
        assert_eq!(admitted, 20);
        let windows = usage::windows(&db, "user:1", now()).await.unwrap();
        assert_eq!((windows[0].tokens_used, windows[0].tokens_reserved), (200, 0));
    }

    async fn a_generation_is_finished_and_charged_once(db: Db) {
        let user = someone(&db).await;
        let (id, later) = (Uuid::now_v7(), now() + Duration::from_secs(30));
        let mut tx = db.begin().await.unwrap();
        generations::create(&mut tx, id, user.id, None, None, "m", "w", later, now(), 10, 0, None, false, false, 5, now()).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(generations::expired(&db, now(), 10).await.unwrap(), vec![]);
        assert_eq!(generations::expired(&db, later + Duration::from_secs(1), 10).await.unwrap().len(), 1);

        let mut tx = db.begin().await.unwrap();
        assert!(generations::finish(&mut tx, id, "stop", None, true, now()).await.unwrap().is_some());
        assert!(generations::finish(&mut tx, id, "stop", None, true, now()).await.unwrap().is_none());
        assert!(usage::charge(&mut tx, id, Some(user.id), "openai", "m", None, 5, 0, 7, 0, 3, "provider", now()).await.unwrap());
        assert!(!usage::charge(&mut tx, id, Some(user.id), "openai", "m", None, 5, 0, 7, 0, 3, "provider", now()).await.unwrap());
        tx.commit().await.unwrap();
        let spent = usage::spent(&db, user.id, now()).await.unwrap();
        assert_eq!((spent.input_tokens, spent.output_tokens, spent.cost_microusd), (5, 7, 3));
    }

    async fn a_key_is_claimed_once_until_it_expires(db: Db) {
        let user = someone(&db).await.id;
        let expires = now() + Duration::from_secs(60);
        let mut tx = db.begin().await.unwrap();
        assert!(idempotency::claim(&mut tx, user, "chat", "k", b"h", Uuid::nil(), expires, now()).await.unwrap());
        assert!(!idempotency::claim(&mut tx, user, "chat", "k", b"h", Uuid::nil(), expires, now()).await.unwrap());
        idempotency::complete(&mut tx, user, "chat", "k", "{}", expires).await.unwrap();
        idempotency::release(&mut tx, user, "chat", "k").await.unwrap();
        tx.commit().await.unwrap();
        let known = idempotency::known(&db, user, "chat", "k", now()).await.unwrap().unwrap();
        assert_eq!(known.answer.as_deref(), Some("{}"));
        assert_eq!(idempotency::known(&db, user, "chat", "k", expires).await.unwrap(), None);

        let mut tx = db.begin().await.unwrap();
        assert!(idempotency::claim(&mut tx, user, "chat", "k", b"x", Uuid::nil(), expires + Duration::from_secs(60), expires).await.unwrap());
        tx.commit().await.unwrap();
        assert_eq!(idempotency::known(&db, user, "chat", "k", expires).await.unwrap().unwrap().answer, None);
    }

    async fn a_guessed_code_is_counted_even_when_it_is_wrong(db: Db) {
        let user = someone(&db).await;
        let mut tx = db.begin().await.unwrap();
        one_time_tokens::create(&mut tx, Uuid::now_v7(), user.id, "signup", "a@b.c", b"old", now() + Duration::from_secs(9), Some(b"link of old"), now() + Duration::from_secs(99), None, now()).await.unwrap();
        one_time_tokens::create(&mut tx, Uuid::now_v7(), user.id, "signup", "a@b.c", b"new", now() + Duration::from_secs(9), Some(b"link of new"), now() + Duration::from_secs(99), None, now()).await.unwrap();
        for n in 1..=5 {
            let token = one_time_tokens::guess(&mut tx, "a@b.c", "signup", "magiclink", 5, now()).await.unwrap().unwrap();
            assert_eq!((token.attempts, token.secret_hash.as_slice()), (n, b"new".as_slice()), "the newest alone counts");
        }
        assert_eq!(one_time_tokens::guess(&mut tx, "a@b.c", "signup", "magiclink", 5, now()).await.unwrap(), None);
        assert_eq!(one_time_tokens::by_link(&mut tx, b"link of old", now()).await.unwrap(), None);
        let by_link = one_time_tokens::by_link(&mut tx, b"link of new", now()).await.unwrap().unwrap();
        assert_eq!(by_link.secret_hash, b"new", "five wrong guesses at a code are nothing to its link");
        assert_eq!(one_time_tokens::guess(&mut tx, "a@b.c", "recovery", "recovery", 5, now()).await.unwrap(), None);
        tx.commit().await.unwrap();
    }

    async fn one_key_is_active(db: Db) {
        let jwk = Json(json!({}));
        let mut tx = db.begin().await.unwrap();
        assert!(keys::create_active(&mut tx, "a", "ES256", &jwk, b"sealed", now()).await.unwrap());
        assert!(!keys::create_active(&mut tx, "b", "ES256", &jwk, b"sealed", now()).await.unwrap());
        tx.commit().await.unwrap();
        assert_eq!(keys::all(&db).await.unwrap().len(), 1);
    }

    async fn work_that_is_dropped_or_fails_leaves_no_trace_among_others(db: Db) {
        let tasks: Vec<_> = (0..90u32).map(|i| { let db = db.clone(); tokio::spawn(async move {
            match i % 3 {
                0 => assert!(register(&db, &format!("kept{i}@b.c")).await.is_some()),
                1 => {
                    let mut tx = db.begin().await.unwrap();
                    users::create(&mut tx, new_user(&format!("dropped{i}@b.c")), now()).await.unwrap();
                }
                _ => {
                    // A second key of the same id: the engine fails the statement.
                    let mut tx = db.begin().await.unwrap();
                    let id = Uuid::from_u128(u128::from(i) + 1);
                    users::create(&mut tx, new_user(&format!("failed{i}@b.c")), now()).await.unwrap();
                    conversations::ask(&mut tx, id, id, None, "no such conversation", None, now()).await.unwrap_err();
                }
            }
        }) }).collect();
        for task in tasks { task.await.unwrap(); }
        for i in 0..90 {
            let name = ["kept", "dropped", "failed"][i % 3];
            let found = users::by_email(&db, &format!("{name}{i}@b.c")).await.unwrap();
            assert_eq!(found.is_some(), name == "kept", "{name}{i}");
        }
    }

    async fn a_dropped_commit_is_either_there_or_not_and_blocks_nobody(db: Db) {
        for i in 0..40u64 {
            let _ = tokio::time::timeout(Duration::from_micros(i * 60), register(&db, &format!("maybe{i}@b.c"))).await;
            let next = tokio::time::timeout(Duration::from_secs(10), register(&db, &format!("next{i}@b.c"))).await;
            assert!(next.expect("not blocked").is_some());
        }
    }
}

async fn enqueue(db: &Db, subject: Option<&str>, n: i64) {
    let mut tx = db.begin().await.unwrap();
    let due_at = now() - Duration::from_secs(100) + Duration::from_secs(n as u64);
    let new = jobs::NewJob {
        kind: "k",
        subject,
        payload: json!(n),
        dedupe_key: None,
        due_at,
    };
    assert!(jobs::enqueue(&mut tx, new, now()).await.unwrap());
    tx.commit().await.unwrap();
}

async fn claim(db: &Db, worker: &str) -> Vec<jobs::Job> {
    jobs::claim(db, worker, now(), now() + Duration::from_secs(60), 7)
        .await
        .unwrap()
}

async fn finish(db: &Db, job: Uuid, worker: &str) {
    let mut tx = db.begin().await.unwrap();
    assert!(jobs::finish(&mut tx, job, worker, now()).await.unwrap());
    tx.commit().await.unwrap();
}

/// What no statement of ours says.
async fn raw(db: &Db, sql: &'static str) {
    let mut tx = db.begin().await.unwrap();
    match &mut tx.open {
        engine::Open::Postgres(session) => session.say(sql).await,
        engine::Open::Sqlite(work) => sqlx::query(sql)
            .execute(work.conn().unwrap())
            .await
            .map(drop),
    }
    .unwrap();
    tx.commit().await.unwrap();
}

#[test]
fn a_database_url_is_read_as_every_provider_writes_it() {
    let shown = |text: &str| {
        DatabaseUrl::parse(text)
            .map(|url| url.to_string())
            .map_err(|e| e.to_string())
    };
    for (text, expected) in [
        ("sqlite://data/plinth.db", "sqlite://data/plinth.db"),
        ("sqlite:data/plinth.db", "sqlite://data/plinth.db"),
        ("sqlite:///var/lib/plinth.db", "sqlite:///var/lib/plinth.db"),
        ("/var/lib/plinth.db", "sqlite:///var/lib/plinth.db"),
        ("sqlite+aiosqlite:///x.db?mode=rwc", "sqlite:///x.db"),
        ("postgres://u:p@h/n", "postgres://h:5432/n"),
        (
            "postgresql://u:p%40ss@h:6432/n?sslmode=require",
            "postgres://h:6432/n",
        ),
        (
            "postgresql+asyncpg://user:pass@host:5432/solacore_prod",
            "postgres://host:5432/solacore_prod",
        ),
        (
            "postgresql+psycopg2://[::1]:5432/n",
            "postgres://[::1]:5432/n",
        ),
    ] {
        assert_eq!(shown(text).as_deref(), Ok(expected), "{text}");
    }
    assert!(
        shown("mysql://h/n")
            .unwrap_err()
            .contains("mysql: is not a database")
    );
    assert!(
        shown("sqlite::memory:")
            .unwrap_err()
            .contains("needs a file")
    );
    assert!(!format!("{:?}", DatabaseUrl::parse("postgres://u:hidden@h/n")).contains("hidden"));
}

#[test]
fn a_connection_that_may_be_in_the_clear_is_seen() {
    let plain = |text: &str| DatabaseUrl::parse(text).unwrap().may_be_plaintext();
    assert!(plain("postgres://u@db.example.com/n"));
    assert!(plain("postgres://u@db.example.com/n?sslmode=prefer"));
    assert!(!plain("postgres://u@db.example.com/n?sslmode=verify-full"));
    assert!(!plain(
        "postgresql+asyncpg://u@db.example.com/n?ssl=require"
    ));
    assert!(!plain("postgres://u@localhost/n"));
    assert!(!plain("sqlite://x.db"));
}

#[tokio::test]
async fn a_file_that_was_deleted_or_replaced_takes_nothing_more() {
    for replaced in [false, true] {
        let (db, file) = testing::sqlite().await.unwrap();
        db.ping().await.unwrap();

        std::fs::remove_file(file.path()).unwrap();
        if replaced {
            std::fs::write(file.path(), "another").unwrap();
        }

        let tx = db.begin().await.unwrap();
        let refusal = tx.commit().await.unwrap_err();
        assert!(refusal.is_unavailable(), "{refusal}");
        assert!(db.ping().await.is_err());
        db.lost().await;
    }
}

#[tokio::test]
async fn a_damaged_file_and_a_read_only_one_are_refused_with_one_clear_line() {
    let file = testing::SqliteFile::new();
    std::fs::write(
        file.path(),
        "not a database, not even nearly one".repeat(100),
    )
    .unwrap();
    let refusal = Db::open(&file.url().parse().unwrap(), &Options::default())
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(
        refusal.contains("damaged") && refusal.contains("plinth restore"),
        "{refusal}"
    );

    let refusal = Db::open(
        &"sqlite:///proc/nowhere/x.db".parse().unwrap(),
        &Options::default(),
    )
    .await
    .err()
    .unwrap();
    assert!(
        refusal
            .to_string()
            .contains("cannot open the database file /proc/nowhere/x.db"),
        "{refusal}"
    );
}

/// A real PgBouncer before the test server, in this mode; `None` where either is missing.
fn pgbouncer(mode: &str) -> Option<(std::process::Child, DatabaseUrl)> {
    if !testing::postgres_is_there() {
        return None;
    }
    let server: ::url::Url = testing::variable(testing::VARIABLE)?.parse().unwrap();
    let folder =
        std::env::temp_dir().join(format!("plinth-pgbouncer-{mode}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let (host, name) = (
        server.host_str().unwrap(),
        server.path().trim_start_matches('/'),
    );
    let (server_port, user) = (server.port().unwrap_or(5432), server.username());
    let ini = format!(
        "[databases]\n{name} = host={host} port={server_port} user={user}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
         unix_socket_dir =\nauth_type = any\npool_mode = {mode}\ndefault_pool_size = 3\nignore_startup_parameters = extra_float_digits\n"
    );
    let file = folder.join("pgbouncer.ini");
    std::fs::write(&file, ini).unwrap();
    // It refuses to run as root; to others it makes no difference.
    let mut command = std::process::Command::new("pgbouncer");
    if std::fs::metadata("/proc/self")
        .is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
    {
        command.args(["-u", "nobody"]);
    }
    let child = command
        .arg("-q")
        .arg(&file)
        .stderr(std::process::Stdio::null())
        .spawn();
    let Ok(child) = child else {
        assert!(
            testing::variable(testing::REQUIRED).is_none(),
            "pgbouncer is not installed"
        );
        eprintln!("skipped behind a pooler: pgbouncer is not installed");
        return None;
    };
    let until = std::time::Instant::now() + Duration::from_secs(10);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(
            std::time::Instant::now() < until,
            "pgbouncer does not start"
        );
        std::thread::yield_now();
    }
    Some((
        child,
        format!("postgres://{user}@127.0.0.1:{port}/{name}")
            .parse()
            .unwrap(),
    ))
}

/// PgBouncer 1.18, Debian's, keeps no prepared statements apart; 1.21 and newer do.
#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_mixes_up_answers_is_refused_with_the_way_out() {
    let Some((mut pooler, url)) = pgbouncer("transaction") else {
        return;
    };
    let opened = Db::open(&url, &Options::default()).await;
    pooler.kill().unwrap();
    match opened {
        Err(refusal) => assert!(refusal.to_string().contains("session-mode"), "{refusal}"),
        Ok(db) => assert_eq!(db.pooling(), Pooling::Transaction),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_in_session_mode_is_as_good_as_none() {
    let Some((mut pooler, url)) = pgbouncer("session") else {
        return;
    };
    let db = Db::open(
        &url,
        &Options {
            max_connections: 2,
            ..Options::default()
        },
    )
    .await;
    assert_eq!(
        db.as_ref().map(Db::pooling).map_err(ToString::to_string),
        Ok(Pooling::Direct)
    );
    db.unwrap().ping().await.unwrap();
    pooler.kill().unwrap();
}

both_engines! {
    async fn arrivals_that_wait_together_are_each_told_their_own_fate(db: Db) {
        let tasks: Vec<_> = (0..400).map(|n| { let db = db.clone(); tokio::spawn(async move {
            let external_id = format!("evt_{}", n % 200);
            let arrival = inbox::Arrival { provider: "stripe", mode: "test", external_id: &external_id, kind: "invoice.paid", api_version: None, subject: "stripe:cus_1", occurred_at: now(), source: "hook", key_id: None, body: b"{}" };
            inbox::ingest(&db, arrival, now()).await.unwrap()
        }) }).collect();
        let mut fresh = 0;
        for task in tasks { fresh += task.await.unwrap() as u32; }
        assert_eq!(fresh, 200);
        assert_eq!(jobs::unfinished(&db, inbox::APPLY).await.unwrap().len(), 200);
    }

    async fn a_sender_who_goes_away_takes_no_other_with_it(db: Db) {
        for n in 0..30u64 {
            let ingest = async |id: String| {
                let arrival = inbox::Arrival { provider: "stripe", mode: "test", external_id: &id, kind: "k", api_version: None, subject: "s", occurred_at: now(), source: "hook", key_id: None, body: b"{}" };
                inbox::ingest(&db, arrival, now()).await
            };
            let hasty = tokio::time::timeout(Duration::from_micros(n * 40), ingest(format!("gone_{n}")));
            let (_, stays) = tokio::join!(hasty, ingest(format!("stays_{n}")));
            assert!(stays.unwrap());
        }
    }
}

both_engines! {
    async fn a_decision_is_kept_as_it_was_and_outlives_its_user(db: Db) {
        let user = someone(&db).await;
        let event = |action| audit::NewEvent {
            subject: Some(user.id), actor: Some(user.id), actor_kind: "user", action, succeeded: true,
            request_id: Some("r-1"), detail: json!({"method": "password"}), ip: Some("192.0.2.1"), user_agent: None,
        };
        let mut tx = db.begin().await.unwrap();
        audit::record(&mut tx, event("login"), now()).await.unwrap();
        audit::record(&mut tx, audit::NewEvent { subject: None, actor: None, ..event("login") }, now()).await.unwrap();
        tx.commit().await.unwrap();
        let first = audit::of_subject(&db, user.id, None, 10).await.unwrap().remove(0);

        for change in ["update audit_events set outcome = 'refused'", "delete from audit_events"] {
            assert!(testing::execute(&db, change).await.is_err(), "{change}");
        }
        testing::execute(&db, "delete from users").await.unwrap();

        assert_eq!(audit::of_subject(&db, user.id, None, 10).await.unwrap(), vec![first.clone()]);
        assert_eq!(audit::of_subject(&db, user.id, Some(first.id), 10).await.unwrap(), vec![]);
        assert_eq!((testing::rows(&db, "audit_events").await.unwrap(), testing::rows(&db, "audit_origins").await.unwrap()), (2, 1));
    }
}
