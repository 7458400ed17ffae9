//! Codes that prove an address: hashed, counted, used once.
use crate::prelude::*;

row! {
    /// A code that was sent.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct OneTimeToken {
        pub id: Uuid,
        pub user_id: Uuid,
        pub kind: String,
        pub email: String,
        pub secret_hash: Vec<u8>,
        pub attempts: i64,
        pub expires_at: Timestamp,
        pub challenge: Option<String>,
        /// The address that the owner of `email` agrees to have instead.
        pub moves_to: Option<String>,
        pub created_at: Timestamp,
    }
}

sql! {
    /// Keeps a new code, and the link beside it, if there is one.
    pub fn create(
        tx: &mut Tx, id: Uuid, user: Uuid, kind: &str, email: &str, secret_hash: &[u8], expires_at: Timestamp,
        link_hash: Option<&[u8]>, link_expires_at: Timestamp, challenge: Option<&str>, now: Timestamp,
    ) {
        "insert into one_time_tokens (id, user_id, kind, email, secret_hash, attempts, expires_at,
                                      link_hash, link_expires_at, challenge, created_at)
         values ($id, $user, $kind, $email, $secret_hash, 0, $expires_at,
                 $link_hash, $link_expires_at, $challenge, $now)"
    }

    /// The newest code of these purposes for this address, if it may still be used, with this guess
    /// counted. Only the newest counts: a new code makes the older ones worthless.
    pub fn guess(tx: &mut Tx, email: &str, kind: &str, or_kind: &str, max_attempts: i64, now: Timestamp) -> Option<OneTimeToken> {
        "update one_time_tokens set attempts = attempts + 1
         where id = (select id from one_time_tokens where email = $email and kind in ($kind, $or_kind)
                     order by id desc limit 1)
           and consumed_at is null and expires_at > $now and attempts < $max_attempts
         returning {columns}"
    }

    /// The token of this link, if it may still be used: the newest of its purpose for its address.
    pub fn by_link(tx: &mut Tx, link_hash: &[u8], now: Timestamp) -> Option<OneTimeToken> {
        "select {columns} from one_time_tokens one
         where link_hash = $link_hash and consumed_at is null and link_expires_at > $now and not exists (
             select 1 from one_time_tokens newer
             where newer.email = one.email and newer.kind = one.kind and newer.id > one.id)"
    }

    /// Uses it up. `false` when it was.
    pub fn consume(tx: &mut Tx, id: Uuid, now: Timestamp) -> bool {
        "update one_time_tokens set consumed_at = $now where id = $id and consumed_at is null"
    }

    /// Whether this code was used up while its link was good: an address that confirmed.
    pub fn confirmed(tx: &mut Tx, user: Uuid, kind: &str, email: &str, moves_to: Option<&str>, now: Timestamp) -> Option<(Uuid,)> {
        "select id from one_time_tokens
         where user_id = $user and kind = $kind and email = $email and moves_to is not distinct from $moves_to
           and consumed_at is not null and link_expires_at > $now
         limit 1"
    }

    /// Notes what the owner of the address is asked to agree to.
    pub fn set_moves_to(tx: &mut Tx, id: Uuid, address: &str) {
        "update one_time_tokens set moves_to = $address where id = $id"
    }

    /// Forgets a user's codes of this purpose, used or not.
    pub fn delete_of_kind(tx: &mut Tx, user: Uuid, kind: &str) {
        "delete from one_time_tokens where user_id = $user and kind = $kind"
    }

    /// Forgets a user's codes, used or not.
    pub fn delete_of_user(tx: &mut Tx, user: Uuid) -> u64 {
        "delete from one_time_tokens where user_id = $user"
    }

    /// Forgets what expired before `before`.
    pub fn delete_expired(tx: &mut Tx, before: Timestamp) -> u64 {
        "delete from one_time_tokens
         where expires_at < $before and (link_expires_at is null or link_expires_at < $before)"
    }
}
