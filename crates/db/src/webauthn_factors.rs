//! Credentials of WebAuthn that are second factors: one a factor.
use crate::prelude::*;

row! {
    /// What is known of one.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Credential {
        pub factor_id: Uuid,
        pub credential_id: Vec<u8>,
        pub public_key: Vec<u8>,
        pub sign_count: i64,
        pub transports: Json<Value>,
    }
}

sql! {
    /// Keeps one. `false` when it is known, whoever has it, or the factor has another.
    pub fn create(
        tx: &mut Tx, factor: Uuid, credential_id: &[u8], public_key: &[u8], sign_count: i64,
        backup_eligible: bool, backed_up: bool, aaguid: Uuid, transports: &Json<Value>, now: Timestamp,
    ) -> bool {
        "insert into mfa_webauthn_credentials (factor_id, credential_id, public_key, sign_count, backup_eligible, backed_up,
                                               aaguid, transports, created_at, updated_at)
         values ($factor, $credential_id, $public_key, $sign_count, $backup_eligible, $backed_up,
                 $aaguid, $transports, $now, $now)
         on conflict do nothing"
    }

    /// That of a factor.
    pub fn of_factor(tx: &mut Tx, factor: Uuid) -> Option<Credential> {
        "select {columns} from mfa_webauthn_credentials where factor_id = $factor"
    }

    /// All of a user.
    pub fn of_user(tx: &mut Tx, user: Uuid) -> Vec<Credential> {
        "select {columns} from mfa_webauthn_credentials
         where factor_id in (select id from mfa_factors where user_id = $user)"
    }

    /// Notes a use.
    pub fn used(tx: &mut Tx, factor: Uuid, sign_count: i64, backed_up: bool, now: Timestamp) {
        "update mfa_webauthn_credentials set sign_count = $sign_count, backed_up = $backed_up, updated_at = $now
         where factor_id = $factor"
    }
}
