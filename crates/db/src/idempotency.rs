//! Requests that carry a key: the second one gets the first one's answer.
use crate::prelude::*;

row! {
    /// What is known of a key.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Known {
        pub request_hash: Vec<u8>,
        /// `None` while the first request is under way.
        pub answer: Option<String>,
        /// The answer that is being made for it.
        pub generation_id: Option<Uuid>,
        pub created_at: Timestamp,
    }
}

sql! {
    /// Takes the key until `expires_at`, also one that expired. `false` when it is taken.
    pub fn claim(
        tx: &mut Tx, user: Uuid, scope: &str, key: &str, request_hash: &[u8], generation: Uuid,
        expires_at: Timestamp, now: Timestamp,
    ) -> bool {
        "insert into idempotency_keys (user_id, scope, key, request_hash, generation_id, expires_at, created_at)
         values ($user, $scope, $key, $request_hash, $generation, $expires_at, $now)
         on conflict (user_id, scope, key) do update
         set request_hash = excluded.request_hash, answer = null, generation_id = excluded.generation_id,
             expires_at = excluded.expires_at, created_at = excluded.created_at
         where idempotency_keys.expires_at <= $now"
    }

    /// Takes the key whoever had it: the newest of like requests is the one that a retry means.
    pub fn supersede(
        tx: &mut Tx, user: Uuid, scope: &str, key: &str, request_hash: &[u8], generation: Uuid,
        expires_at: Timestamp, now: Timestamp,
    ) {
        "insert into idempotency_keys (user_id, scope, key, request_hash, generation_id, expires_at, created_at)
         values ($user, $scope, $key, $request_hash, $generation, $expires_at, $now)
         on conflict (user_id, scope, key) do update
         set request_hash = excluded.request_hash, answer = null, generation_id = excluded.generation_id,
             expires_at = excluded.expires_at, created_at = excluded.created_at"
    }

    /// What is known of a key.
    pub fn known(db: &Db, user: Uuid, scope: &str, key: &str, now: Timestamp) -> Option<Known> {
        "select {columns} from idempotency_keys
         where user_id = $user and scope = $scope and key = $key and expires_at > $now"
    }

    /// Keeps the answer until `expires_at`.
    pub fn complete(tx: &mut Tx, user: Uuid, scope: &str, key: &str, answer: &str, expires_at: Timestamp) {
        "update idempotency_keys set answer = $answer, expires_at = $expires_at where user_id = $user and scope = $scope and key = $key"
    }

    /// Frees a key whose request came to nothing.
    pub fn release(tx: &mut Tx, user: Uuid, scope: &str, key: &str) {
        "delete from idempotency_keys where user_id = $user and scope = $scope and key = $key and answer is null"
    }

    /// Forgets what expired.
    pub fn delete_expired(tx: &mut Tx, now: Timestamp) -> u64 {
        "delete from idempotency_keys where expires_at <= $now"
    }
}
