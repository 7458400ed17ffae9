//! How far parts of the product are rolled out.
use crate::prelude::*;

row! {
    /// How many of all users have a feature.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Rollout {
        pub name: String,
        pub percentage: i64,
        pub updated_at: Timestamp,
    }
}

row! {
    /// A user for whom it is decided by hand.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Override {
        pub feature: String,
        pub user_id: Uuid,
        pub enabled: bool,
    }
}

sql! {
    /// The features that an admin rolled out.
    pub fn rollouts(db: &Db) -> Vec<Rollout> {
        "select {columns} from features order by name"
    }

    /// How far this one is, if an admin said so.
    pub fn rollout(db: &Db, name: &str) -> Option<Rollout> {
        "select {columns} from features where name = $name"
    }

    /// What is decided by hand about a user.
    pub fn overrides_of(db: &Db, user: Uuid) -> Vec<Override> {
        "select {columns} from feature_overrides where user_id = $user order by feature"
    }

    /// The users for whom a feature is decided by hand.
    pub fn overrides(db: &Db, feature: &str, limit: i64) -> Vec<Override> {
        "select {columns} from feature_overrides where feature = $feature order by user_id limit $limit"
    }

    /// Rolls it out so far.
    pub fn roll_out(tx: &mut Tx, name: &str, percentage: i64, now: Timestamp) {
        "insert into features (name, percentage, updated_at) values ($name, $percentage, $now)
         on conflict (name) do update set percentage = excluded.percentage, updated_at = excluded.updated_at"
    }

    /// Decides it for one user.
    pub fn decide(tx: &mut Tx, feature: &str, user: Uuid, enabled: bool, now: Timestamp) {
        "insert into feature_overrides (feature, user_id, enabled, updated_at) values ($feature, $user, $enabled, $now)
         on conflict (feature, user_id) do update set enabled = excluded.enabled, updated_at = excluded.updated_at"
    }

    /// Leaves it to the percentage again. `false` when it was.
    pub fn undecide(tx: &mut Tx, feature: &str, user: Uuid) -> bool {
        "delete from feature_overrides where feature = $feature and user_id = $user"
    }
}
