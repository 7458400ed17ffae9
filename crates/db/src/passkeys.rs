//! Credentials of WebAuthn, and the challenges they answer.
use crate::prelude::*;

row! {
    /// A passkey.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Passkey {
        pub id: Uuid,
        pub user_id: Uuid,
        pub credential_id: Vec<u8>,
        pub public_key: Vec<u8>,
        pub sign_count: i64,
        pub backup_eligible: bool,
        pub backed_up: bool,
        pub transports: Json<Value>,
        pub name: Option<String>,
        pub last_used_at: Option<Timestamp>,
        pub created_at: Timestamp,
    }
}

row! {
    /// What a browser was asked.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Challenge {
        pub challenge: Vec<u8>,
        pub expires_at: Timestamp,
    }
}

sql! {
    fn insert(
        tx: &mut Tx, id: Uuid, user: Uuid, credential_id: &[u8], public_key: &[u8], sign_count: i64,
        backup_eligible: bool, backed_up: bool, aaguid: Uuid, transports: &Json<Value>, now: Timestamp,
    ) -> Option<Passkey> {
        "insert into webauthn_credentials (id, user_id, credential_id, public_key, sign_count, backup_eligible, backed_up,
                                           aaguid, transports, created_at, updated_at)
         values ($id, $user, $credential_id, $public_key, $sign_count, $backup_eligible, $backed_up,
                 $aaguid, $transports, $now, $now)
         on conflict (credential_id) do nothing
         returning {columns}"
    }

    /// A user's passkeys, oldest first.
    pub fn of_user(db: &Db, user: Uuid) -> Vec<Passkey> {
        "select {columns} from webauthn_credentials where user_id = $user order by id"
    }

    /// How many passkeys a user has.
    pub fn count(tx: &mut Tx, user: Uuid) -> One<(i64,)> {
        "select count(*) from webauthn_credentials where user_id = $user"
    }

    /// The passkey that its authenticator calls so.
    pub fn by_credential_id(tx: &mut Tx, credential_id: &[u8]) -> Option<Passkey> {
        "select {columns} from webauthn_credentials where credential_id = $credential_id"
    }

    /// Notes a use.
    pub fn used(tx: &mut Tx, id: Uuid, sign_count: i64, backed_up: bool, now: Timestamp) {
        "update webauthn_credentials set sign_count = $sign_count, backed_up = $backed_up, last_used_at = $now, updated_at = $now
         where id = $id"
    }

    /// Gives one of a user's passkeys another name.
    pub fn rename(tx: &mut Tx, id: Uuid, user: Uuid, name: &str, now: Timestamp) -> Option<Passkey> {
        "update webauthn_credentials set name = $name, updated_at = $now where id = $id and user_id = $user
         returning {columns}"
    }

    /// Forgets one of a user's passkeys. `false` when it is not theirs.
    pub fn delete(tx: &mut Tx, id: Uuid, user: Uuid) -> bool {
        "delete from webauthn_credentials where id = $id and user_id = $user"
    }

    /// Forgets all of a user's passkeys.
    pub fn delete_of_user(tx: &mut Tx, user: Uuid) -> u64 {
        "delete from webauthn_credentials where user_id = $user"
    }

    /// Forgets those of a user's passkeys that were added since.
    pub fn delete_since(tx: &mut Tx, user: Uuid, since: Timestamp) -> u64 {
        "delete from webauthn_credentials where user_id = $user and created_at >= $since"
    }

    /// Keeps a new challenge.
    pub fn ask(
        tx: &mut Tx, id: Uuid, user: Option<Uuid>, kind: &str, challenge: &[u8], expires_at: Timestamp, now: Timestamp,
    ) {
        "insert into webauthn_challenges (id, user_id, kind, challenge, expires_at, created_at)
         values ($id, $user, $kind, $challenge, $expires_at, $now)"
    }

    /// Uses a challenge up: of this kind, and for this user, or nobody in particular.
    pub fn consume(tx: &mut Tx, id: Uuid, kind: &str, user: Option<Uuid>) -> Option<Challenge> {
        "delete from webauthn_challenges where id = $id and kind = $kind and user_id is not distinct from $user
         returning {columns}"
    }

    /// Forgets what a user was asked.
    pub fn delete_challenges_of_user(tx: &mut Tx, user: Uuid) -> u64 {
        "delete from webauthn_challenges where user_id = $user"
    }

    /// Forgets challenges that expired before `before`.
    pub fn delete_expired(tx: &mut Tx, before: Timestamp) -> u64 {
        "delete from webauthn_challenges where expires_at < $before"
    }
}

/// What an authenticator said of a new passkey.
#[derive(Debug, Clone)]
pub struct NewPasskey<'a> {
    /// Whose it is.
    pub user: Uuid,
    /// What its authenticator calls it.
    pub credential_id: &'a [u8],
    /// COSE.
    pub public_key: &'a [u8],
    /// Of signatures so far; 0 where it does not count.
    pub sign_count: i64,
    /// Whether it can be on several devices.
    pub backup_eligible: bool,
    /// Whether it is.
    pub backed_up: bool,
    /// The model of the authenticator.
    pub aaguid: Uuid,
    /// How it is reached: `internal`, `usb`, …
    pub transports: Vec<String>,
}

/// Keeps a new passkey. `None` when it is known, whoever has it.
pub async fn create(tx: &mut Tx, new: NewPasskey<'_>, now: Timestamp) -> Result<Option<Passkey>> {
    insert(
        tx,
        Uuid::now_v7(),
        new.user,
        new.credential_id,
        new.public_key,
        new.sign_count,
        new.backup_eligible,
        new.backed_up,
        new.aaguid,
        &Json(Value::from(new.transports)),
        now,
    )
    .await
}
