//! The audit log tells of a change. Invariant 69, the chain.
use super::*;
use crate::{
    auth::chain::{self, Found},
    testing::Engine,
};

/// A log with decisions of several kinds.
async fn decided(engine: Engine) -> Test {
    let test = Test::new(engine).await;
    let ada = test.sign_up("ada@example.com").await;
    test.sign_in("ada@example.com", "not the password").await;
    test.sign_in("nobody@example.com", "not the password").await;
    test.sign_in_again("ada@example.com").await;
    test.post(&ada.token, "/auth/v1/logout", json!({})).await;
    chain::seal(&test.app).await.unwrap();
    test
}

async fn verified(test: &Test, kept: Option<(i64, Vec<u8>)>) -> Found {
    chain::verify(&test.app.db, kept, |_| {}).await.unwrap()
}

async fn execute(test: &Test, sql: &str) {
    let done = db::testing::execute(&test.app.db, sql).await;
    done.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// As one who owns the tables, and so can do without what guards them.
async fn unguard(test: &Test) {
    for table in ["audit_events", "audit_seals"] {
        match test.app.db.is_sqlite() {
            true => {
                execute(test, &format!("drop trigger {table}_final")).await;
                execute(test, &format!("drop trigger {table}_whole")).await;
            }
            false => execute(test, &format!("alter table {table} disable trigger user")).await,
        }
    }
}

/// The decision at this place, as a condition.
fn at(seq: i64) -> String {
    format!("id = (select event_id from audit_seals where seq = {seq})")
}

both_engines! {
    async fn every_decision_gets_its_place_once(engine: Engine) {
        let test = decided(engine).await;
        let rows = test.rows("audit_events").await;

        let found = verified(&test, None).await;

        assert!(rows > 5);
        assert_eq!((found.intact, found.unsealed, found.broken), (rows, 0, None));
        chain::seal(&test.app).await.unwrap();
        assert_eq!(test.rows("audit_seals").await, rows, "there was nothing to do");
        test.sign_in_again("ada@example.com").await;
        let waiting = verified(&test, None).await;
        assert_eq!((waiting.intact, waiting.unsealed, waiting.broken), (rows, 1, None));
        assert_eq!(waiting.head, found.head);
        chain::seal(&test.app).await.unwrap();
        let found = verified(&test, found.head).await;
        assert_eq!((found.intact, found.unsealed, found.broken), (rows + 1, 0, None));
    }

    async fn instances_that_seal_at_once_make_one_chain(engine: Engine) {
        let test = decided(engine).await;
        let beside = test.beside(&[]).await;
        let mut rows = test.rows("audit_events").await;

        for _ in 0..5 {
            for _ in 0..4 {
                test.sign_in("nobody@example.com", "not the password").await;
            }
            rows += 4;
            let (one, other) = tokio::join!(chain::seal(&test.app), chain::seal(&beside.app));
            one.unwrap();
            other.unwrap();
        }
        chain::seal(&test.app).await.unwrap();

        let found = verified(&test, None).await;
        assert_eq!((found.intact, found.unsealed, found.broken), (rows, 0, None));
    }

    async fn the_worker_seals_by_itself(engine: Engine) {
        let test = Test::new(engine).await;
        test.sign_up("ada@example.com").await;
        let job = db::jobs::NewJob { kind: chain::KIND, subject: None, payload: json!({}), dedupe_key: None, due_at: test.app.now() };
        let mut tx = test.app.db.begin().await.unwrap();
        db::jobs::enqueue(&mut tx, job, test.app.now()).await.unwrap();
        tx.commit().await.unwrap();

        test.work().await;

        assert_eq!(test.rows("audit_seals").await, test.rows("audit_events").await);
    }

    async fn no_statement_changes_or_removes_what_was_decided(engine: Engine) {
        let test = decided(engine).await;

        for table in ["audit_events", "audit_seals"] {
            let column = if table == "audit_events" { "action = 'x'" } else { "seq = seq + 1000" };
            for sql in [format!("update {table} set {column}"), format!("delete from {table}")] {
                assert!(db::testing::execute(&test.app.db, &sql).await.is_err(), "{sql}");
            }
        }
        if !test.app.db.is_sqlite() {
            assert!(db::testing::execute(&test.app.db, "truncate audit_events, audit_seals cascade").await.is_err());
        }
        assert_eq!(verified(&test, None).await.broken, None);
    }

    async fn a_decision_that_was_changed_is_named(engine: Engine) {
        let id = "x'0190a8c0000070008000000000000000'";
        let id = if engine == Engine::Sqlite { id } else { "'0190a8c0-0000-7000-8000-000000000000'" };
        for change in [
            "outcome = 'refused'".to_owned(),
            "action = 'logout'".into(),
            "actor_kind = 'system'".into(),
            "actor_id = null".into(),
            format!("subject_id = {id}"),
            "request_id = 'another'".into(),
            "detail = '{}'".into(),
            "created_at = (select max(created_at) from users)".into(),
        ] {
            let test = decided(engine).await;
            unguard(&test).await;
            if change.starts_with("created_at") {
                test.later(Duration::from_secs(60));
                test.sign_up("late@example.com").await;
            }

            execute(&test, &format!("update audit_events set {change} where {}", at(2))).await;

            let broken = verified(&test, None).await.broken.expect(&change);
            assert_eq!(broken.seq, Some(2), "{change}");
        }
    }

    async fn a_decision_that_was_removed_or_slipped_in_shows(engine: Engine) {
        let test = decided(engine).await;
        let rows = test.rows("audit_events").await;
        let kept = verified(&test, None).await.head;
        unguard(&test).await;
        execute(&test, "delete from audit_origins").await;

        // The newest, which the chain alone cannot miss.
        execute(&test, &format!("delete from audit_seals where seq = {rows}")).await;
        execute(&test, "delete from audit_events where not exists (select 1 from audit_seals where event_id = audit_events.id)").await;
        assert_eq!(verified(&test, None).await.broken, None);
        let broken = verified(&test, kept).await.broken.unwrap();
        assert_eq!((broken.seq, broken.why), (Some(rows), "the log ends before it, although its hash was kept"));

        execute(&test, "delete from audit_seals where seq = 2").await;
        execute(&test, "delete from audit_events where not exists (select 1 from audit_seals where event_id = audit_events.id)").await;
        let broken = verified(&test, None).await.broken.unwrap();
        assert_eq!((broken.seq, broken.why), (Some(3), "what was before it is missing"));
    }

    async fn a_decision_of_long_ago_that_was_never_sealed_shows(engine: Engine) {
        let test = decided(engine).await;
        let id = if engine == Engine::Sqlite { "x'0190a8c0000070008000000000000000'" } else { "'0190a8c0-0000-7000-8000-000000000000'" };
        let forged = format!("insert into audit_events (id, actor_kind, action, outcome, detail, created_at) select {id}, actor_kind, action, outcome, detail, created_at from audit_events limit 1");

        execute(&test, &forged).await;
        chain::seal(&test.app).await.unwrap();

        let broken = verified(&test, None).await.broken.unwrap();
        assert_eq!((broken.seq, broken.event.map(|id| id.to_string())), (None, Some("0190a8c0-0000-7000-8000-000000000000".to_owned())));
    }

    async fn a_chain_that_was_made_anew_is_not_the_one_that_was_kept(engine: Engine) {
        let test = decided(engine).await;
        let kept = verified(&test, None).await.head;
        unguard(&test).await;
        execute(&test, &format!("update audit_events set outcome = 'refused' where {}", at(2))).await;
        execute(&test, "delete from audit_seals").await;

        chain::seal(&test.app).await.unwrap();

        assert_eq!(verified(&test, None).await.broken, None, "by itself it is whole");
        let broken = verified(&test, kept).await.broken.unwrap();
        assert_eq!(broken.why, "its hash is not the one that was kept");
    }
}
