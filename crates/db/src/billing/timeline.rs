//! Receipts: which event, by which rule, changed what of a user's subscriptions; and what users were told.
use crate::prelude::*;

row! {
    /// One receipt.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Receipt {
        pub id: Uuid,
        pub user_id: Option<Uuid>,
        pub provider: String,
        pub mode: String,
        /// The subscription or purchase.
        pub object: String,
        /// The provider's id of the event, or what else was the cause.
        pub event: String,
        /// The provider's word for the event.
        pub kind: String,
        /// What it was found to mean.
        pub rule: String,
        pub before: Json<Value>,
        pub after: Json<Value>,
        /// When it happened, says the provider.
        pub occurred_at: Timestamp,
        pub created_at: Timestamp,
    }
}

sql! {
    fn insert(
        tx: &mut Tx, id: Uuid, user: Option<Uuid>, provider: &str, mode: &str, object: &str, event: &str, kind: &str,
        rule: &str, before: &Json<Value>, after: &Json<Value>, occurred_at: Timestamp, created_at: Timestamp,
    ) {
        "insert into billing_timeline (id, user_id, provider, mode, object, event, kind, rule, before, after,
             occurred_at, created_at)
         values ($id, $user, $provider, $mode, $object, $event, $kind, $rule, $before, $after, $occurred_at, $created_at)"
    }

    /// Gives what was noted before anyone knew whose it was to its user.
    pub fn claim(tx: &mut Tx, object: &str, user: Uuid) {
        "update billing_timeline set user_id = $user where object = $object and user_id is null"
    }

    /// A user's receipts, newest first, older than `before` when given.
    pub fn of_user(db: &Db, user: Uuid, before: Option<Uuid>, limit: i64) -> Vec<Receipt> {
        "select {columns} from billing_timeline
         where user_id = $user and ($before is null or id < $before) order by id desc limit $limit"
    }

    /// Forgets what is older.
    pub fn delete_before(tx: &mut Tx, id: Uuid) -> u64 {
        "delete from billing_timeline where id < $id"
    }

    /// Takes it on to tell a user something, once for each key. `false` when they were told.
    pub fn tell_once(tx: &mut Tx, key: &str, user: Uuid, now: Timestamp) -> bool {
        "insert into billing_notices (key, user_id, created_at) values ($key, $user, $now) on conflict (key) do nothing"
    }
}

/// Keeps a receipt.
pub async fn note(tx: &mut Tx, r: Receipt) -> Result<()> {
    insert(
        tx,
        r.id,
        r.user_id,
        &r.provider,
        &r.mode,
        &r.object,
        &r.event,
        &r.kind,
        &r.rule,
        &r.before,
        &r.after,
        r.occurred_at,
        r.created_at,
    )
    .await
}
