//! What was presented once and may not be presented again, as hashes.
use crate::prelude::*;

sql! {
    /// Notes that a thing of this hash was presented. `false` when it had been.
    pub fn note(tx: &mut Tx, hash: &[u8], expires_at: Timestamp) -> bool {
        "insert into seen_tokens (hash, expires_at) values ($hash, $expires_at) on conflict (hash) do nothing"
    }

    /// Whether a thing of this hash was presented, or remembered.
    pub fn known(tx: &mut Tx, hash: &[u8]) -> Option<(Timestamp,)> {
        "select expires_at from seen_tokens where hash = $hash"
    }

    /// Forgets what expired before `before`.
    pub fn delete_expired(tx: &mut Tx, before: Timestamp) -> u64 {
        "delete from seen_tokens where expires_at < $before"
    }
}
