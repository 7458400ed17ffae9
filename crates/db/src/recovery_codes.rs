//! Codes that stand for a lost second factor, as hashes.
use crate::prelude::*;

sql! {
    /// Keeps one.
    pub fn create(tx: &mut Tx, id: Uuid, factor: Uuid, code_hash: &[u8], now: Timestamp) {
        "insert into mfa_recovery_codes (id, factor_id, code_hash, created_at) values ($id, $factor, $code_hash, $now)"
    }

    /// Uses one up. `false` when there is none, or it was.
    pub fn consume(tx: &mut Tx, factor: Uuid, code_hash: &[u8], now: Timestamp) -> bool {
        "update mfa_recovery_codes set used_at = $now
         where factor_id = $factor and code_hash = $code_hash and used_at is null"
    }

    /// How many there are in all, and how many are left.
    pub fn count(db: &Db, factor: Uuid) -> One<(i64, i64)> {
        "select count(*), count(*) - count(used_at) from mfa_recovery_codes where factor_id = $factor"
    }

    /// How many are left.
    pub fn left(tx: &mut Tx, factor: Uuid) -> One<(i64,)> {
        "select count(*) from mfa_recovery_codes where factor_id = $factor and used_at is null"
    }

    /// Forgets those of a user's codes that were made since.
    pub fn delete_since(tx: &mut Tx, user: Uuid, since: Timestamp) -> u64 {
        "delete from mfa_recovery_codes
         where created_at >= $since and factor_id in (select id from mfa_factors where user_id = $user)"
    }

    /// Forgets them, used or not.
    pub fn delete_of_factor(tx: &mut Tx, factor: Uuid) -> u64 {
        "delete from mfa_recovery_codes where factor_id = $factor"
    }
}
