//! Recovery codes: what a user writes down for the day on which every other second factor is lost.
//! As GoTrue has them: <https://github.com/supabase/auth/pull/2780>.
use super::totp;
use crate::{App, Error, Result, extract::Auth};
use db::{Timestamp, Tx, factors::Factor};
use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

mod generate;
mod regenerate;
mod remove;
mod status;
mod verify;

const CODES: usize = 10;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(status::status, generate::generate, remove::remove))
        .routes(routes!(regenerate::regenerate))
        .routes(routes!(verify::verify))
}

/// New codes. Shown once.
#[derive(Serialize, ToSchema)]
struct RecoveryCodes {
    /// That of the factor which they are together.
    id: Uuid,
    r#type: &'static str,
    friendly_name: String,
    total: usize,
    /// 16 letters and digits each, to be written in groups of four.
    codes: Vec<String>,
}

impl RecoveryCodes {
    fn new(id: Uuid, friendly_name: String, codes: Vec<String>) -> Self {
        Self {
            id,
            r#type: db::factors::RECOVERY_CODE,
            friendly_name,
            total: codes.len(),
            codes,
        }
    }
}

/// Makes a user's codes; what is kept of them does not tell them.
async fn make(tx: &mut Tx, factor: Uuid, now: Timestamp) -> db::Result<Vec<String>> {
    let mut codes = vec![];
    for _ in 0..CODES {
        let code = totp::base32(&rand::random::<[u8; 10]>()).to_lowercase();
        let (id, hash) = (Uuid::now_v7(), hash(factor, &code));
        db::recovery_codes::create(tx, id, factor, &hash, now).await?;
        codes.push(code);
    }
    Ok(codes)
}

/// 80 random bits are beyond guessing also from a plain hash, and outlive every `JWT_SECRET`.
fn hash(factor: Uuid, code: &str) -> [u8; 32] {
    let hash = Sha256::new_with_prefix(factor.as_bytes());
    hash.chain_update(code.as_bytes()).finalize().into()
}

/// The user's codes together, held against others until the transaction ends.
async fn held(tx: &mut Tx, auth: &Auth) -> Result<Factor> {
    let factor = db::factors::recovery_codes_locked(tx, auth.user).await?;
    factor.ok_or(Error::FactorNotFound)
}
