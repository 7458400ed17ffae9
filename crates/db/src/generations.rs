//! Answers being made: who makes them, until when that is believed, and what was set aside for them.
use crate::prelude::*;

row! {
    /// One answer, from the reservation to the settlement.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Generation {
        pub id: Uuid,
        pub user_id: Uuid,
        pub conversation_id: Option<Uuid>,
        pub message_id: Option<Uuid>,
        pub model: String,
        pub owner: String,
        pub window_start: Timestamp,
        pub reserved_tokens: i64,
        pub prompt_tokens: i64,
        pub finished_at: Option<Timestamp>,
        pub finish_reason: Option<String>,
        pub error_code: Option<String>,
        pub created_at: Timestamp,
    }
}

sql! {
    /// Opens one under a lease. From here on the provider may be asked, and may cost money.
    pub fn create(
        tx: &mut Tx, id: Uuid, user: Uuid, conversation: Option<Uuid>, message: Option<Uuid>, model: &str, owner: &str,
        lease_until: Timestamp, window_start: Timestamp, reserved_tokens: i64, prompt_tokens: i64, now: Timestamp,
    ) {
        "insert into generations (id, user_id, conversation_id, message_id, model, owner, lease_until, window_start,
                                  reserved_tokens, prompt_tokens, created_at)
         values ($id, $user, $conversation, $message, $model, $owner, $lease_until, $window_start,
                 $reserved_tokens, $prompt_tokens, $now)"
    }

    /// Keeps the lease alive. `false` when another settled it: the producer must stop.
    pub fn extend(tx: &mut Tx, id: Uuid, owner: &str, lease_until: Timestamp) -> bool {
        "update generations set lease_until = $lease_until where id = $id and owner = $owner and finished_at is null"
    }

    /// Closes it. `None` when it is closed: then nothing else may be settled.
    pub fn finish(tx: &mut Tx, id: Uuid, reason: &str, error_code: Option<&str>, now: Timestamp) -> Option<Generation> {
        "update generations set finished_at = $now, finish_reason = $reason, error_code = $error_code
         where id = $id and finished_at is null returning {columns}"
    }

    /// The user's generation of this id.
    pub fn of_user(db: &Db, user: Uuid, id: Uuid) -> Option<Generation> {
        "select {columns} from generations where id = $id and user_id = $user"
    }

    /// One page of a user's generations, oldest first; start with `Uuid::nil()`, go on with the last id.
    pub fn all_of_user(db: &Db, user: Uuid, after: Uuid, limit: i64) -> Vec<Generation> {
        "select {columns} from generations where user_id = $user and id > $after order by id limit $limit"
    }

    /// Those whose producer is gone.
    pub fn expired(db: &Db, now: Timestamp, limit: i64) -> Vec<Generation> {
        "select {columns} from generations where finished_at is null and lease_until < $now order by lease_until limit $limit"
    }
}
