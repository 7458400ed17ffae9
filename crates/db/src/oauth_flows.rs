//! Sign-ins that are away at a provider: hashed, short-lived, come back once.
use crate::prelude::*;

row! {
    /// One that went.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct OauthFlow {
        pub provider: String,
        pub verifier: Vec<u8>,
        pub nonce: String,
        pub redirect_to: String,
        pub challenge: String,
        pub link_user_id: Option<Uuid>,
        pub binding_hash: Vec<u8>,
        pub expires_at: Timestamp,
    }
}

sql! {
    fn insert(
        tx: &mut Tx, state_hash: &[u8], provider: &str, verifier: &[u8], nonce: &str, redirect_to: &str, challenge: &str,
        link_user_id: Option<Uuid>, binding_hash: &[u8], expires_at: Timestamp, now: Timestamp,
    ) {
        "insert into oauth_flows (state_hash, provider, verifier, nonce, redirect_to, challenge, link_user_id,
                                  binding_hash, expires_at, created_at)
         values ($state_hash, $provider, $verifier, $nonce, $redirect_to, $challenge, $link_user_id,
                 $binding_hash, $expires_at, $now)"
    }

    /// Uses it up, whatever comes of it; `None` when it was used, or never was.
    pub fn take(tx: &mut Tx, state_hash: &[u8], now: Timestamp) -> Option<OauthFlow> {
        "update oauth_flows set used_at = $now where state_hash = $state_hash and used_at is null returning {columns}"
    }

    /// Forgets the links that a user began: what comes back is linked to nobody.
    pub fn delete_of_user(tx: &mut Tx, user: Uuid) -> u64 {
        "delete from oauth_flows where link_user_id = $user"
    }

    /// Forgets those that expired before `before`.
    pub fn delete_expired(tx: &mut Tx, before: Timestamp) -> u64 {
        "delete from oauth_flows where expires_at < $before"
    }
}

/// What has to be known again when it comes back.
#[derive(Debug, Clone)]
pub struct NewOauthFlow<'a> {
    /// What is kept of the `state`.
    pub state_hash: &'a [u8],
    /// GoTrue's word for it.
    pub provider: &'a str,
    /// RFC 7636, ours, sealed.
    pub verifier: &'a [u8],
    /// For the ID token.
    pub nonce: &'a str,
    /// Where it ends; already allowed.
    pub redirect_to: &'a str,
    /// RFC 7636, of the client that asked.
    pub challenge: &'a str,
    /// Who links; `None` is a sign-in.
    pub link_user: Option<Uuid>,
    /// What is kept of the browser's cookie.
    pub binding_hash: &'a [u8],
    /// Good until then.
    pub expires_at: Timestamp,
}

/// Keeps a new one.
pub async fn create(tx: &mut Tx, new: NewOauthFlow<'_>, now: Timestamp) -> Result<()> {
    insert(
        tx,
        new.state_hash,
        new.provider,
        new.verifier,
        new.nonce,
        new.redirect_to,
        new.challenge,
        new.link_user,
        new.binding_hash,
        new.expires_at,
        now,
    )
    .await
}
