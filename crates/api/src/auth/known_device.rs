//! Devices on which a user was signed in before: whoever guesses elsewhere does not lock them out
//! there. What a device keeps is no proof of anybody, only a count of its own:
//! <https://owasp.org/www-community/Slow_Down_Online_Guessing_Attacks_with_Device_Cookies>.
use super::cookies;
use crate::App;
use axum::{extract::FromRequestParts, http::request::Parts};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use std::{convert::Infallible, time::Duration};
use subtle::ConstantTimeEq;
use uuid::Uuid;

/// By which apps keep it and bring it along; browsers that want cookies have one.
pub const HEADER: &str = "x-device-token";
/// No browser keeps a cookie longer.
pub const LIFE: Duration = Duration::from_secs(400 * 86_400);
const PREFIX: &str = "kd1.";
const TAG: usize = 16;
/// What its tag is bound to.
const KNOWN_DEVICE: &[u8] = b"known device";

/// What a request says of its device.
#[derive(Debug, Clone, Default)]
pub struct Device(Option<String>);

impl FromRequestParts<App> for Device {
    type Rejection = Infallible;
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Infallible> {
        let header = parts
            .headers
            .get(HEADER)
            .and_then(|token| token.to_str().ok());
        let token = header.or_else(|| cookies::device(app, &parts.headers));
        Ok(Self(token.map(ToOwned::to_owned)))
    }
}

impl Device {
    /// Its id, where this account was signed in on it.
    pub fn known_to(&self, app: &App, email: &str) -> Option<Uuid> {
        let token = self.0.as_deref()?.strip_prefix(PREFIX)?;
        let bytes: [u8; 24 + TAG] = URL_SAFE_NO_PAD.decode(token).ok()?.try_into().ok()?;
        let (head, tag) = bytes.split_at(24);
        let (id, expires) = head.split_at(16);
        let message = [KNOWN_DEVICE, head, email.as_bytes()];
        let mut macs = app.keys.otp_macs(&message);
        let ours = macs.any(|mac| mac[..TAG].ct_eq(tag).into());
        let in_time = i64::from_be_bytes(expires.try_into().ok()?) > app.now().unix();
        (ours && in_time).then(|| Uuid::from_slice(id).ok())?
    }
}

/// What a device keeps on which this account is signed in.
pub fn token(app: &App, email: &str) -> String {
    let expires = (app.now() + LIFE).unix().to_be_bytes();
    let head = [Uuid::new_v4().as_bytes().as_slice(), &expires].concat();
    let mac = app.keys.otp_mac(&[KNOWN_DEVICE, &head, email.as_bytes()]);
    let token = URL_SAFE_NO_PAD.encode([&head, &mac[..TAG]].concat());
    format!("{PREFIX}{token}")
}
