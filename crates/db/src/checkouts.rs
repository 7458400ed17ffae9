//! Checkouts on the web, and whom they are for.
use crate::prelude::*;

row! {
    /// A page to pay on.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Checkout {
        pub id: String,
        pub user_id: Uuid,
        pub mode: String,
        pub request_hash: Vec<u8>,
        pub plan: String,
        pub url: String,
        pub expires_at: Timestamp,
    }
}

sql! {
    /// The checkout of this id.
    pub fn by_id(db: &Db, id: &str, mode: &str) -> Option<Checkout> {
        "select {columns} from billing_checkouts where id = $id and mode = $mode"
    }

    /// The checkout that a request with this key led to.
    pub fn by_key(db: &Db, user: Uuid, key: &str) -> Option<Checkout> {
        "select {columns} from billing_checkouts where user_id = $user and key = $key"
    }

    /// How many checkouts like this one the user began, and one of them: together they tell the next from
    /// every one before, also when old ones are forgotten.
    pub fn like(db: &Db, user: Uuid, request_hash: &[u8]) -> One<(i64, Option<String>)> {
        "select count(*), max(id) from billing_checkouts where user_id = $user and request_hash = $request_hash"
    }

    /// The newest checkout like this one that has not expired.
    pub fn newest_like(db: &Db, user: Uuid, mode: &str, request_hash: &[u8], now: Timestamp) -> Option<Checkout> {
        "select {columns} from billing_checkouts
         where user_id = $user and mode = $mode and request_hash = $request_hash and expires_at > $now
         order by created_at desc, id limit 1"
    }

    /// Keeps a checkout. `false` when it is kept.
    pub fn keep(
        tx: &mut Tx, id: &str, user: Uuid, mode: &str, key: &str, request_hash: &[u8], plan: &str, url: &str,
        expires_at: Timestamp, now: Timestamp,
    ) -> bool {
        "insert into billing_checkouts (id, user_id, mode, key, request_hash, plan, url, expires_at, created_at)
         values ($id, $user, $mode, $key, $request_hash, $plan, $url, $expires_at, $now)
         on conflict do nothing"
    }

    /// Forgets what expired before `before`.
    pub fn delete_expired(tx: &mut Tx, before: Timestamp) -> u64 {
        "delete from billing_checkouts where expires_at < $before"
    }

    /// The customer that a user's checkouts are for; where none was made for them, the first that is known.
    pub fn customer(db: &Db, provider: &str, mode: &str, user: Uuid) -> Option<(String,)> {
        "select external_id from billing_customers where provider = $provider and mode = $mode and user_id = $user
         order by checkout desc, created_at, external_id limit 1"
    }

    /// Keeps the customer that was made for a user's checkouts. `false` when there is one.
    pub fn keep_customer(tx: &mut Tx, provider: &str, mode: &str, external_id: &str, user: Uuid, now: Timestamp) -> bool {
        "insert into billing_customers (provider, mode, external_id, user_id, checkout, created_at)
         values ($provider, $mode, $external_id, $user, true, $now)
         on conflict do nothing"
    }

    /// Forgets a customer whom the provider does not know any more.
    pub fn forget_customer(tx: &mut Tx, provider: &str, mode: &str, external_id: &str) -> bool {
        "delete from billing_customers where provider = $provider and mode = $mode and external_id = $external_id"
    }
}
