use crate::auth::keys::Keys;
use anyhow::Context;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Serialize;
use serde_json::Value;

/// A code or a link on its way into a mail. Jobs are kept for a while, and read by whoever looks
/// after them: only the mail itself shows it, and only the one to this address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(serde::Deserialize))]
pub struct Sealed {
    sealed: String,
}

impl Sealed {
    pub fn new(keys: &Keys, to: &str, secret: &str) -> anyhow::Result<Self> {
        let sealed = keys.seal(to.as_bytes(), secret.as_bytes())?;
        Ok(Self {
            sealed: STANDARD.encode(sealed),
        })
    }
}

/// What a job keeps, as the mail to this address says it: unsealed where it was sealed.
pub fn open(keys: &Keys, to: &str, kept: Value) -> anyhow::Result<Value> {
    let Some(sealed) = kept.get("sealed").and_then(Value::as_str) else {
        return Ok(kept);
    };
    let sealed = STANDARD.decode(sealed).context("what a mail says is cut")?;
    let opened = keys.unseal(to.as_bytes(), &sealed);
    let opened = opened.context("what a mail says does not open under this JWT_SECRET")?;
    Ok(String::from_utf8(opened)?.into())
}
