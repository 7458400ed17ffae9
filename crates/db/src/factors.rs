//! Second factors, and the questions that sessions are asked about them.
use crate::prelude::*;

row! {
    /// What a user can prove besides the first proof.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Factor {
        pub id: Uuid,
        pub user_id: Uuid,
        pub factor_type: String,
        pub friendly_name: String,
        pub status: String,
        pub secret_sealed: Option<Vec<u8>>,
        pub last_used_step: Option<i64>,
        pub failed_attempts: i64,
        pub locked_until: Option<Timestamp>,
        pub last_challenged_at: Option<Timestamp>,
        pub created_at: Timestamp,
        pub updated_at: Timestamp,
    }
}

/// The type of the factor that a user's recovery codes are together.
pub const RECOVERY_CODE: &str = "recovery_code";

impl Factor {
    /// Whether it was proved once, and counts from then on.
    pub fn is_verified(&self) -> bool {
        self.status == "verified"
    }

    /// Whether it stands in for others, and for nothing alone.
    pub fn is_recovery_codes(&self) -> bool {
        self.factor_type == RECOVERY_CODE
    }
}

sql! {
    /// A user's factors, oldest first.
    pub fn of_user(db: &Db, user: Uuid) -> Vec<Factor> {
        "select {columns} from mfa_factors where user_id = $user order by id"
    }

    /// The same, as a transaction sees them.
    pub fn now_of_user(tx: &mut Tx, user: Uuid) -> Vec<Factor> {
        "select {columns} from mfa_factors where user_id = $user order by id"
    }

    /// A user's factor, held against others until the transaction ends.
    pub fn locked(tx: &mut Tx, id: Uuid, user: Uuid) -> Option<Factor> {
        "select {columns} from mfa_factors where id = $id and user_id = $user {postgres: for update}"
    }

    /// A user's recovery codes together, held against others until the transaction ends.
    pub fn recovery_codes_locked(tx: &mut Tx, user: Uuid) -> Option<Factor> {
        "select {columns} from mfa_factors where user_id = $user and factor_type = 'recovery_code' {postgres: for update}"
    }

    /// Keeps a new factor. `false` when the user has one of this name, or of a kind there is one of.
    pub fn create(
        tx: &mut Tx, id: Uuid, user: Uuid, factor_type: &str, friendly_name: &str, status: &str,
        secret_sealed: Option<&[u8]>, now: Timestamp,
    ) -> bool {
        "insert into mfa_factors (id, user_id, factor_type, friendly_name, status, secret_sealed, failed_attempts, created_at, updated_at)
         values ($id, $user, $factor_type, $friendly_name, $status, $secret_sealed, 0, $now, $now)
         on conflict do nothing"
    }

    /// Counts a wrong answer; at the `max`th in a row nobody is asked until `until`, and counting begins anew.
    pub fn failed(tx: &mut Tx, id: Uuid, max: i64, until: Timestamp, now: Timestamp) {
        "update mfa_factors
         set locked_until = case when failed_attempts + 1 >= $max then $until else locked_until end,
             failed_attempts = case when failed_attempts + 1 >= $max then 0 else failed_attempts + 1 end,
             updated_at = $now
         where id = $id"
    }

    /// Wrong answers so far are forgotten.
    pub fn unlock(tx: &mut Tx, id: Uuid, now: Timestamp) {
        "update mfa_factors set failed_attempts = 0, locked_until = null, updated_at = $now where id = $id"
    }

    /// A right answer; the first one makes the factor count. `step` is that of a TOTP code.
    pub fn proved(tx: &mut Tx, id: Uuid, step: Option<i64>, now: Timestamp) {
        "update mfa_factors
         set status = 'verified', last_used_step = coalesce($step, last_used_step), failed_attempts = 0,
             locked_until = null, updated_at = $now
         where id = $id"
    }

    /// Forgets one.
    pub fn delete(tx: &mut Tx, id: Uuid) -> bool {
        "delete from mfa_factors where id = $id"
    }

    /// Forgets a user's factors of this type that were never proved.
    pub fn delete_unproved_of_user(tx: &mut Tx, user: Uuid, factor_type: &str) -> u64 {
        "delete from mfa_factors where user_id = $user and status = 'unverified' and factor_type = $factor_type"
    }

    /// Forgets all of a user's factors.
    pub fn delete_of_user(tx: &mut Tx, user: Uuid) -> u64 {
        "delete from mfa_factors where user_id = $user"
    }

    /// Forgets those of a user's factors that were added since.
    pub fn delete_since(tx: &mut Tx, user: Uuid, since: Timestamp) -> u64 {
        "delete from mfa_factors where user_id = $user and created_at >= $since"
    }

    /// Forgets factors that were made before `before` and never proved.
    pub fn delete_unproved(tx: &mut Tx, before: Timestamp) -> u64 {
        "delete from mfa_factors where status = 'unverified' and created_at < $before"
    }

    fn insert_challenge(
        tx: &mut Tx, id: Uuid, factor: Uuid, session: Uuid, challenge: Option<&[u8]>, expires_at: Timestamp, now: Timestamp,
    ) {
        "insert into mfa_challenges (id, factor_id, session_id, challenge, expires_at, created_at)
         values ($id, $factor, $session, $challenge, $expires_at, $now)"
    }

    fn note_challenge(tx: &mut Tx, factor: Uuid, now: Timestamp) {
        "update mfa_factors set last_challenged_at = $now where id = $factor"
    }

    /// What this session was asked to sign, where something is signed, if it was asked this about this
    /// factor and has not answered.
    pub fn open(tx: &mut Tx, challenge: Uuid, factor: Uuid, session: Uuid, now: Timestamp) -> Option<(Option<Vec<u8>>,)> {
        "select challenge from mfa_challenges
         where id = $challenge and factor_id = $factor and session_id = $session
           and answered_at is null and expires_at > $now"
    }

    /// The question was answered.
    pub fn answered(tx: &mut Tx, challenge: Uuid, now: Timestamp) -> bool {
        "update mfa_challenges set answered_at = $now where id = $challenge and answered_at is null"
    }

    /// Forgets questions that expired before `before`.
    pub fn delete_expired_challenges(tx: &mut Tx, before: Timestamp) -> u64 {
        "delete from mfa_challenges where expires_at < $before"
    }
}

/// Asks a session about a factor; `challenge` is what an authenticator has to sign.
pub async fn challenge(
    tx: &mut Tx,
    factor: Uuid,
    session: Uuid,
    challenge: Option<&[u8]>,
    expires_at: Timestamp,
    now: Timestamp,
) -> Result<Uuid> {
    let id = Uuid::now_v7();
    insert_challenge(tx, id, factor, session, challenge, expires_at, now).await?;
    note_challenge(tx, factor, now).await?;
    Ok(id)
}
