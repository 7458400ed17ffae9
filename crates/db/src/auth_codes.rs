//! Codes that a redirect carries and a client exchanges for a session: hashed, short-lived, used once.
use crate::prelude::*;

row! {
    /// A code that was given out.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct AuthCode {
        pub id: Uuid,
        pub user_id: Uuid,
        pub challenge: String,
        pub method: String,
        pub provider_token: Option<Vec<u8>>,
        pub provider_refresh_token: Option<Vec<u8>>,
        /// What is linked to the user when it is exchanged, sealed.
        pub link: Option<Vec<u8>>,
        pub session_id: Option<Uuid>,
        pub expires_at: Timestamp,
        pub consumed_at: Option<Timestamp>,
    }
}

sql! {
    fn insert(
        tx: &mut Tx, id: Uuid, user: Uuid, code_hash: &[u8], challenge: &str, method: &str,
        provider_token: Option<&[u8]>, provider_refresh_token: Option<&[u8]>, link: Option<&[u8]>,
        expires_at: Timestamp, now: Timestamp,
    ) {
        "insert into auth_codes (id, user_id, code_hash, challenge, method, provider_token, provider_refresh_token,
                                 link, expires_at, created_at)
         values ($id, $user, $code_hash, $challenge, $method, $provider_token, $provider_refresh_token,
                 $link, $expires_at, $now)"
    }

    /// The code of this hash, used or not, held against others until the transaction ends.
    pub fn locked(tx: &mut Tx, code_hash: &[u8]) -> Option<AuthCode> {
        "select {columns} from auth_codes where code_hash = $code_hash {postgres: for update}"
    }

    /// Uses it up, and forgets what the provider gave. `false` when it was.
    pub fn consume(tx: &mut Tx, id: Uuid, now: Timestamp) -> bool {
        "update auth_codes set consumed_at = $now, provider_token = null, provider_refresh_token = null, link = null
         where id = $id and consumed_at is null"
    }

    /// Notes which session it opened.
    pub fn opened(tx: &mut Tx, id: Uuid, session: Uuid) {
        "update auth_codes set session_id = $session where id = $id"
    }

    /// Forgets a user's codes, used or not.
    pub fn delete_of_user(tx: &mut Tx, user: Uuid) -> u64 {
        "delete from auth_codes where user_id = $user"
    }

    /// Forgets codes that expired before `before`.
    pub fn delete_expired(tx: &mut Tx, before: Timestamp) -> u64 {
        "delete from auth_codes where expires_at < $before"
    }
}

/// What a code stands for.
#[derive(Debug, Clone)]
pub struct NewAuthCode<'a> {
    /// Who will be signed in.
    pub user: Uuid,
    /// What is kept of the code.
    pub code_hash: &'a [u8],
    /// RFC 7636, of the client that asked.
    pub challenge: &'a str,
    /// How the user proved who they are: the session's `amr`.
    pub method: &'a str,
    /// For the provider's own API, sealed.
    pub provider_token: Option<&'a [u8]>,
    /// To get another of those, sealed.
    pub provider_refresh_token: Option<&'a [u8]>,
    /// What is linked to the user when it is exchanged, sealed.
    pub link: Option<&'a [u8]>,
    /// Good until then.
    pub expires_at: Timestamp,
}

/// Keeps a new code.
pub async fn create(tx: &mut Tx, new: NewAuthCode<'_>, now: Timestamp) -> Result<()> {
    insert(
        tx,
        Uuid::now_v7(),
        new.user,
        new.code_hash,
        new.challenge,
        new.method,
        new.provider_token,
        new.provider_refresh_token,
        new.link,
        new.expires_at,
        now,
    )
    .await
}
