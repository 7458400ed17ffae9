//! Personal API keys. Who gives one back, or leaves, takes it away: a row that is there counts.
use crate::prelude::*;

row! {
    /// A key, without its secret.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct ApiKey {
        pub id: Uuid,
        pub user_id: Uuid,
        pub name: String,
        /// Its first characters.
        pub hint: String,
        pub expires_at: Option<Timestamp>,
        /// To the minute.
        pub last_used_at: Option<Timestamp>,
        pub created_at: Timestamp,
    }
}

row! {
    /// What a request needs to know of the key it comes with.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Standing {
        pub id: Uuid,
        pub user_id: Uuid,
        pub expires_at: Option<Timestamp>,
        pub last_used_at: Option<Timestamp>,
        pub banned_until: Option<Timestamp>,
    }
}

sql! {
    /// Makes a key. `hash` is the SHA-256 of its text.
    pub fn create(
        tx: &mut Tx, id: Uuid, user: Uuid, name: &str, hash: &[u8], hint: &str, expires_at: Option<Timestamp>, now: Timestamp,
    ) -> ApiKey {
        "insert into api_keys (id, user_id, name, hash, hint, expires_at, created_at)
         values ($id, $user, $name, $hash, $hint, $expires_at, $now)
         returning {columns}"
    }

    /// A user's keys, those that ran out too, oldest first.
    pub fn of_user(db: &Db, user: Uuid) -> Vec<ApiKey> {
        "select {columns} from api_keys where user_id = $user order by id"
    }

    /// How many keys a user has.
    pub fn count(tx: &mut Tx, user: Uuid) -> One<(i64,)> {
        "select count(*) from api_keys where user_id = $user"
    }

    /// The key whose text has this hash, with its user's standing.
    pub fn by_hash(db: &Db, hash: &[u8]) -> Option<Standing> {
        "select k.id, k.user_id, k.expires_at, k.last_used_at, u.banned_until
         from api_keys k join users u on u.id = k.user_id where k.hash = $hash"
    }

    /// The same, of a key that was presented before.
    pub fn standing(db: &Db, id: Uuid) -> Option<Standing> {
        "select k.id, k.user_id, k.expires_at, k.last_used_at, u.banned_until
         from api_keys k join users u on u.id = k.user_id where k.id = $id"
    }

    /// Notes a use, unless one was noted after `before`.
    pub fn used(tx: &mut Tx, id: Uuid, before: Timestamp, now: Timestamp) -> bool {
        "update api_keys set last_used_at = $now where id = $id and (last_used_at is null or last_used_at <= $before)"
    }

    /// Takes a key away. `false` when the user has none of this id.
    pub fn delete(tx: &mut Tx, user: Uuid, id: Uuid) -> bool {
        "delete from api_keys where id = $id and user_id = $user"
    }
}
