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
        pub private_sealed: Vec<u8>,
        pub created_at: Timestamp,
    }
}

sql! {
    /// Every key, newest first.
    pub fn all(db: &Db) -> Vec<SigningKey> {
        "select {columns} from signing_keys order by kid desc"
    }

    /// Adds the first active key. `false` when another instance was quicker.
    pub fn create_active(
        tx: &mut Tx, kid: &str, alg: &str, public_jwk: &Json<Value>, private_sealed: &[u8], now: Timestamp,
    ) -> bool {
        "insert into signing_keys (kid, alg, state, public_jwk, private_sealed, created_at, activated_at)
         values ($kid, $alg, 'active', $public_jwk, $private_sealed, $now, $now)
         on conflict (state) where state = 'active' do nothing"
    }

    /// Keeps the private half under another seal.
    pub fn reseal(tx: &mut Tx, kid: &str, private_sealed: &[u8]) {
        "update signing_keys set private_sealed = $private_sealed where kid = $kid"
    }
}
