//! An anonymous user who has an account: what they have becomes the account's, for two proofs.
use super::*;
use crate::testing::Engine;
use db::merging::{self, Fate};
use std::collections::BTreeSet;

pub(super) const OPEN: &[(&str, &str)] = &[("AUTH_ANONYMOUS", "true")];
const TOKEN: &str = "/auth/v1/guest/merge-token";
const MERGE: &str = "/auth/v1/guest/merge";

impl Test {
    async fn guest(&self) -> Person {
        Person::of(&self.post("", SIGN_UP, json!({})).await.json())
    }

    async fn asked_to_merge(&self, guest: &Person) -> String {
        let answer = self.post(&guest.token, TOKEN, json!({})).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["merge_token"].as_str().unwrap().to_owned()
    }

    /// Of an anonymous user who has just come.
    pub(super) async fn merge_token(&self) -> String {
        self.asked_to_merge(&self.guest().await).await
    }

    async fn merge(&self, into: &Person, token: &str) -> Answer {
        let body = json!({"merge_token": token});
        self.post(&into.token, MERGE, body).await
    }

    /// How many rows of a table are this user's.
    async fn rows_of(&self, table: &str, user: &Person) -> i64 {
        let id: uuid::Uuid = user.id.parse().unwrap();
        let (literal, quoted) = match self.app.db.is_sqlite() {
            true => (format!("x'{}'", id.simple()), format!("'user:{id}'")),
            false => (format!("'{id}'"), format!("'user:{id}'")),
        };
        let condition = match table {
            "quota_windows" => format!("subject = {quoted}"),
            "audit_origins" => format!("subject_id = {literal}"),
            "oauth_flows" => format!("link_user_id = {literal}"),
            "billing_transfers" => format!("from_user = {literal}"),
            _ => format!("user_id = {literal}"),
        };
        self.rows(&format!("{table} where {condition}")).await
    }

    async fn used(&self, person: &Person) -> Value {
        self.get(&person.token, "/api/usage").await.json()["messages"]["used"].clone()
    }
}

both_engines! {
    /// Invariant 56.
    async fn what_a_guest_has_becomes_the_accounts_and_the_guest_ends(engine: Engine) {
        let test = Test::with(engine, OPEN).await;
        let (ada, guest) = (test.sign_up("ada@example.com").await, test.guest().await);
        export::fill(&test, &guest).await;
        test.post(&ada.token, "/api/chat", json!({"message": "Her own."})).await;
        test.post("", "/auth/v1/otp", json!({"email": "ada@example.com"})).await;
        let mut before = vec![];
        for (table, _) in merging::TABLES {
            before.push((test.rows_of(table, &guest).await, test.rows_of(table, &ada).await));
        }
        let token = test.asked_to_merge(&guest).await;

        let merged = test.merge(&ada, &token).await;

        assert_eq!((merged.status.as_u16(), merged.json()), (200, json!({"merged": true})));
        for ((table, fate), (guests, own)) in merging::TABLES.iter().zip(before) {
            assert_eq!(test.rows_of(table, &guest).await, 0, "{table}");
            let expected = match (*table, fate) {
                // Of one period, and added up.
                ("quota_windows", _) => own,
                // That of the merging itself.
                ("audit_origins", _) => own + 1,
                ("merged_users", _) => 1,
                (_, Fate::Moves) => {
                    assert!(guests > 0, "{table}: nothing was tried");
                    own + guests
                }
                (_, Fate::Ends(_)) => own,
            };
            assert_eq!(test.rows_of(table, &ada).await, expected, "{table}");
        }
        assert_eq!(test.used(&ada).await, 2, "what was used stays used");
        assert_eq!(test.rows("users").await, 1);
        assert_eq!(test.get(&guest.token, USER).await.refusal(), refused(403, "session_not_found"));
        assert_eq!(test.refresh(&guest.refresh_token).await.refusal(), refused(400, "refresh_token_not_found"));
        let listed = test.get(&ada.token, "/api/conversations").await.json();
        assert_eq!(listed["data"].as_array().unwrap().len(), 2);
        assert_eq!(test.get(&ada.token, "/api/entitlements").await.json()["plan"], "pro");
        assert_eq!(test.rows("billing_cancellations").await, 0, "nobody ended a subscription");
        let mut tx = test.app.db.begin().await.unwrap();
        let named = db::billing::user_named(&mut tx, guest.id.parse().unwrap()).await.unwrap();
        assert_eq!(named.unwrap().0.to_string(), ada.id, "stores go on calling her by the id of then");
        drop(tx);
        // After it came the refusal of what the guest had left.
        let newest = db::audit::page(&test.app.db, None, 2).await.unwrap().remove(1);
        assert_eq!((newest.action.as_str(), newest.outcome.as_str(), &newest.detail["from"]), ("user_merged", "succeeded", &json!(guest.id)));
        assert_eq!(test.merge(&ada, &token).await.refusal(), refused(410, "merge_token_expired"), "once");
    }

    /// An attacker who plants a session of theirs gets nothing of the account's: nothing that lets in moves.
    async fn what_let_the_guest_in_lets_nobody_into_the_account(engine: Engine) {
        let test = Test::with(engine, OPEN).await;
        let (ada, guest) = (test.sign_up("ada@example.com").await, test.guest().await);
        export::fill(&test, &guest).await;
        let said = json!({"data": {"name": "Mallory"}});
        test.call(Method::PUT, &guest.token, USER, said).await;
        let mallory = test.asked_to_merge(&guest).await;

        assert_eq!(test.merge(&ada, &mallory).await.status, 200);

        let user = test.get(&ada.token, USER).await.json();
        assert_eq!((&user["user_metadata"], &user["email"]), (&json!({}), &json!("ada@example.com")));
        assert_eq!(test.get(&ada.token, "/auth/v1/passkeys").await.json(), json!([]));
        assert_eq!(user["identities"].as_array().unwrap().len(), 1);
        assert_eq!(test.rows_of("sessions", &ada).await, 1);
    }

    /// Invariant 56: both proofs, each of them live.
    async fn nothing_is_merged_without_both_proofs(engine: Engine) {
        let test = Test::with(engine, OPEN).await;
        let (ada, guest) = (test.sign_up("ada@example.com").await, test.guest().await);
        let token = test.asked_to_merge(&guest).await;
        let expired = || refused(410, "merge_token_expired");

        assert_eq!(test.merge(&ada, "").await.refusal(), expired());
        for own in [&guest.token, &guest.refresh_token, &ada.token, &token[1..]] {
            assert_eq!(test.merge(&ada, own).await.refusal(), expired(), "{own}");
        }
        assert_eq!(test.post("", MERGE, json!({"merge_token": token})).await.status, 401);
        assert_eq!(test.merge(&guest, &token).await.refusal(), refused(400, "validation_failed"), "into themself");
        assert_eq!(test.merge(&test.guest().await, &token).await.refusal(), refused(400, "validation_failed"), "into another guest");
        assert_eq!(test.post(&ada.token, TOKEN, json!({})).await.refusal(), refused(400, "validation_failed"), "who is somebody stays it");
        assert_eq!(test.post(&token, "/auth/v1/logout", json!({})).await.status, 403, "it is no access token");

        test.later(Duration::from_secs(301));
        assert_eq!(test.merge(&ada, &token).await.refusal(), refused(403, "reauthentication_needed"));
        test.post(&guest.token, "/auth/v1/logout?scope=local", json!({})).await;
        let ada = test.sign_in_again("ada@example.com").await;
        assert_eq!(test.merge(&ada, &token).await.refusal(), expired(), "the session ended");

        assert_eq!((test.rows("users").await, test.rows("merged_users").await), (3, 0));
        let newest = db::audit::page(&test.app.db, None, 1).await.unwrap().remove(0);
        assert_eq!((newest.action.as_str(), newest.outcome.as_str()), ("user_merged", "refused"));
    }

    async fn a_token_is_good_for_half_an_hour(engine: Engine) {
        let test = Test::with(engine, OPEN).await;
        test.sign_up("ada@example.com").await;
        let [one, other] = [test.merge_token().await, test.merge_token().await];

        test.later(Duration::from_secs(30 * 60 - 1));
        let ada = test.sign_in_again("ada@example.com").await;
        assert_eq!(test.merge(&ada, &one).await.status, 200);
        test.later(Duration::from_secs(1));
        assert_eq!(test.merge(&ada, &other).await.refusal(), refused(410, "merge_token_expired"));
        assert_eq!(test.rows("merged_users").await, 1);
    }

    async fn who_became_somebody_meanwhile_is_merged_no_more(engine: Engine) {
        let test = Test::with(engine, OPEN).await;
        let (ada, guest) = (test.sign_up("ada@example.com").await, test.guest().await);
        let token = test.asked_to_merge(&guest).await;
        let address = json!({"email": "ben@example.com"});
        assert_eq!(test.call(Method::PUT, &guest.token, USER, address).await.status, 200);

        assert_eq!(test.merge(&ada, &token).await.refusal(), refused(410, "merge_token_expired"));

        assert_eq!(test.get(&guest.token, USER).await.json()["email"], "ben@example.com");
    }
}

/// A table that a fork adds has to be decided about.
#[tokio::test]
async fn every_table_that_knows_a_user_moves_or_ends() {
    let test = Test::new(Engine::Sqlite).await;

    let schema = db::check::schema(&test.app.db).await.unwrap();

    let of_users = |line: &String| {
        let (table, rest) = line.split_once(['.', ' '])?;
        let column = rest.split(' ').next().filter(|_| line.contains('.'));
        let named = column.is_some_and(|column| column.ends_with("user_id") || column == "subject");
        (named || rest.contains("references users on")).then(|| table.to_owned())
    };
    // Their subjects are objects of providers and of jobs.
    let others = ["jobs", "webhook_events"];
    let found: BTreeSet<_> = schema.iter().filter_map(of_users).collect();
    let decided = merging::TABLES.iter().map(|(table, _)| (*table).to_owned());
    let found = found
        .into_iter()
        .filter(|table| !others.contains(&table.as_str()));
    assert_eq!(
        found.collect::<BTreeSet<_>>(),
        decided.collect(),
        "a table that knows a user belongs into db/merging: its rows move, or end with the anonymous user"
    );
}
