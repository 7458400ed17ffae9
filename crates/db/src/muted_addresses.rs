//! Addresses that are not written to: their owner turned the relay off.
use crate::prelude::*;

sql! {
    /// Writes there no more.
    pub fn mute(tx: &mut Tx, email: &str, now: Timestamp) {
        "insert into muted_addresses (email, muted_at) values ($email, $now) on conflict (email) do nothing"
    }

    /// Writes there again. `false` when nobody had stopped.
    pub fn unmute(tx: &mut Tx, email: &str) -> bool {
        "delete from muted_addresses where email = $email"
    }

    /// Since when it is not written to; `None` when it is.
    pub fn since(db: &Db, email: &str) -> Option<(Timestamp,)> {
        "select muted_at from muted_addresses where email = $email"
    }

    /// Those that are not written to, and since when, by address, after `after`.
    pub fn page(db: &Db, after: &str, limit: i64) -> Vec<(String, Timestamp)> {
        "select email, muted_at from muted_addresses where email > $after order by email limit $limit"
    }

    /// Forgets the address of a user who goes.
    pub fn forget_of_user(tx: &mut Tx, user: Uuid) {
        "delete from muted_addresses where email = (select email from users where id = $user)"
    }
}
