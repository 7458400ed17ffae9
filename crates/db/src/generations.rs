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
        pub reserved_microusd: i64,
        /// What its tokens cost; `None` where nobody knows.
        pub price_id: Option<Uuid>,
        /// Whether it was set aside in the user's window of its model as well,
        pub in_model_window: bool,
        /// and in everyone's budgets.
        pub in_budget: bool,
        pub prompt_tokens: i64,
        pub lease_until: Timestamp,
        pub finished_at: Option<Timestamp>,
        pub finish_reason: Option<String>,
        pub error_code: Option<String>,
        /// Whether somebody was listening when it ended.
        pub delivered: bool,
        pub created_at: Timestamp,
    }
}

row! {
    /// What other instances want of one that is being made here.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Wish {
        pub id: Uuid,
        pub stop_requested_at: Option<Timestamp>,
        pub followed_until: Option<Timestamp>,
    }
}

row! {
    /// The id of a generation, alone.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Id {
        pub id: Uuid,
    }
}

sql! {
    /// Opens one under a lease. From here on the provider may be asked, and may cost money.
    pub fn create(
        tx: &mut Tx, id: Uuid, user: Uuid, conversation: Option<Uuid>, message: Option<Uuid>, model: &str, owner: &str,
        lease_until: Timestamp, window_start: Timestamp, reserved_tokens: i64, reserved_microusd: i64, price: Option<Uuid>,
        in_model_window: bool, in_budget: bool, prompt_tokens: i64, now: Timestamp,
    ) {
        "insert into generations (id, user_id, conversation_id, message_id, model, owner, lease_until, window_start,
                                  reserved_tokens, reserved_microusd, price_id, in_model_window, in_budget,
                                  prompt_tokens, created_at)
         values ($id, $user, $conversation, $message, $model, $owner, $lease_until, $window_start,
                 $reserved_tokens, $reserved_microusd, $price, $in_model_window, $in_budget, $prompt_tokens, $now)"
    }

    /// Keeps the leases of everything that this owner makes, and says what that is: what is not among
    /// them was settled by another, and its producer must stop.
    pub fn extend(tx: &mut Tx, owner: &str, lease_until: Timestamp) -> Vec<Id> {
        "update generations set lease_until = $lease_until where owner = $owner and finished_at is null returning {columns}"
    }

    /// Closes it. `None` when it is closed: then nothing else may be settled.
    pub fn finish(tx: &mut Tx, id: Uuid, reason: &str, error_code: Option<&str>, delivered: bool, now: Timestamp) -> Option<Generation> {
        "update generations set finished_at = $now, finish_reason = $reason, error_code = $error_code, delivered = $delivered
         where id = $id and finished_at is null returning {columns}"
    }

    /// Its answer reached somebody after all.
    pub fn deliver(tx: &mut Tx, id: Uuid) {
        "update generations set delivered = true where id = $id"
    }

    /// Asks whoever makes it to stop. `false` when it is over, or asked already.
    pub fn request_stop(tx: &mut Tx, id: Uuid, now: Timestamp) -> bool {
        "update generations set stop_requested_at = $now
         where id = $id and finished_at is null and stop_requested_at is null"
    }

    /// Holds those of a conversation, which whoever settles one holds before its message.
    pub fn hold(tx: &mut Tx, conversation: Uuid) -> Vec<Id> {
        "select {columns} from generations where conversation_id = $conversation and finished_at is null
         order by id {postgres: for update}"
    }

    /// Holds those of a user in the same way.
    pub fn hold_of_user(tx: &mut Tx, user: Uuid) -> Vec<Id> {
        "select {columns} from generations where user_id = $user and finished_at is null order by id {postgres: for update}"
    }

    /// Asks whoever makes it to put it on disk more often until then.
    pub fn follow(tx: &mut Tx, id: Uuid, until: Timestamp) {
        "update generations set followed_until = $until where id = $id and finished_at is null"
    }

    /// What others want of those that this owner makes.
    pub fn wishes(db: &Db, owner: &str, now: Timestamp) -> Vec<Wish> {
        "select {columns} from generations
         where owner = $owner and finished_at is null and (stop_requested_at is not null or followed_until > $now)"
    }

    /// The generation of this id, whoever's.
    pub fn by_id(db: &Db, id: Uuid) -> Option<Generation> {
        "select {columns} from generations where id = $id"
    }

    /// The newest of a conversation.
    pub fn newest(db: &Db, conversation: Uuid) -> Option<Generation> {
        "select {columns} from generations where conversation_id = $conversation order by id desc limit 1"
    }

    /// The one that makes this message.
    pub fn of_message(db: &Db, message: Uuid) -> Option<Generation> {
        "select {columns} from generations where message_id = $message"
    }

    /// One page of a user's generations, newest first, all or those being made; start with `Uuid::max()`.
    pub fn page(db: &Db, user: Uuid, active: bool, before: Uuid, limit: i64) -> Vec<Generation> {
        "select {columns} from generations
         where user_id = $user and id < $before and (finished_at is null or not $active) order by id desc limit $limit"
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
