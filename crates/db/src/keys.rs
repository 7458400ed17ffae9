//! The keys that sign access tokens. The private half is sealed before it comes here.
use crate::prelude::*;

row! {
    /// One key.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct SigningKey {
        pub kid: String,
        pub alg: String,
        /// `standby`, `active` or `retired`.
        pub state: String,
        pub public_jwk: Json<Value>,
        /// Empty for a key that will sign nothing any more.
        pub private_sealed: Vec<u8>,
        pub created_at: Timestamp,
        pub activated_at: Option<Timestamp>,
        pub retired_at: Option<Timestamp>,
        /// Since when it verifies nothing any more.
        pub revoked_at: Option<Timestamp>,
    }
}

sql! {
    /// Every key there was.
    pub fn all(db: &Db) -> Vec<SigningKey> {
        "select {columns} from signing_keys order by kid desc"
    }

    /// The same, held against others until the transaction ends.
    pub fn locked(tx: &mut Tx) -> Vec<SigningKey> {
        "select {columns} from signing_keys order by kid desc {postgres: for update}"
    }

    /// Adds the active key. `false` when there is one.
    pub fn create_active(
        tx: &mut Tx, kid: &str, alg: &str, public_jwk: &Json<Value>, private_sealed: &[u8], now: Timestamp,
    ) -> bool {
        "insert into signing_keys (kid, alg, state, public_jwk, private_sealed, created_at, activated_at)
         values ($kid, $alg, 'active', $public_jwk, $private_sealed, $now, $now)
         on conflict (state) where state = 'active' do nothing"
    }

    /// Adds the key that will be the active one. `false` when there is one.
    pub fn create_standby(
        tx: &mut Tx, kid: &str, alg: &str, public_jwk: &Json<Value>, private_sealed: &[u8], now: Timestamp,
    ) -> bool {
        "insert into signing_keys (kid, alg, state, public_jwk, private_sealed, created_at)
         values ($kid, $alg, 'standby', $public_jwk, $private_sealed, $now)
         on conflict (state) where state = 'standby' do nothing"
    }

    /// The standby signs from now on.
    pub fn activate(tx: &mut Tx, kid: &str, now: Timestamp) -> bool {
        "update signing_keys set state = 'active', activated_at = $now where kid = $kid and state = 'standby'"
    }

    /// A key verifies what it signed, and signs nothing any more: `nothing` takes the place of its private half.
    pub fn retire(tx: &mut Tx, kid: &str, nothing: &[u8], now: Timestamp) -> bool {
        "update signing_keys set state = 'retired', retired_at = $now, private_sealed = $nothing
         where kid = $kid and state <> 'retired'"
    }

    /// A retired key verifies nothing any more either.
    pub fn revoke(tx: &mut Tx, kid: &str, now: Timestamp) -> bool {
        "update signing_keys set revoked_at = $now where kid = $kid and state = 'retired' and revoked_at is null"
    }

    /// Keeps the private half under another seal.
    pub fn reseal(tx: &mut Tx, kid: &str, from: &[u8], to: &[u8]) {
        "update signing_keys set private_sealed = $to where kid = $kid and private_sealed = $from"
    }
}
