//! What users tell assistants of themselves.
use crate::prelude::*;

row! {
    /// What one user tells.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Profile {
        pub data: Json<Value>,
        pub updated_at: Timestamp,
    }
}

sql! {
    /// What a user tells of themself.
    pub fn of_user(db: &Db, user: Uuid) -> Option<Profile> {
        "select {columns} from profiles where user_id = $user"
    }

    /// Replaces it.
    pub fn put(tx: &mut Tx, user: Uuid, data: &Json<Value>, now: Timestamp) {
        "insert into profiles (user_id, data, updated_at) values ($user, $data, $now)
         on conflict (user_id) do update set data = excluded.data, updated_at = excluded.updated_at"
    }
}
