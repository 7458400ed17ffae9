//! What somebody who is signed in asked for, carried by a URL: their script asked, with their token;
//! their browser follows, without. Good once, for a few minutes, and for what was asked alone.
use crate::{App, Error, Result};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use db::{Timestamp, Tx};
use sha2::{Digest, Sha256};
use std::time::Duration;
use subtle::ConstantTimeEq;
use uuid::Uuid;

const LIFE: Duration = Duration::from_secs(300);
/// What its MAC is bound to.
const TICKET: &[u8] = b"authorize ticket";
const PARAMETER: &str = "&ticket=";
/// The session, when it expires, and what makes it another each time.
const HEAD: usize = 16 + 8 + 8;

/// `GET authorize` with this query, for the user of this session.
pub fn url(app: &App, session: Uuid, query: &str, now: Timestamp) -> String {
    let mut ticket = session.as_bytes().to_vec();
    ticket.extend((now + LIFE).as_micros().to_be_bytes());
    ticket.extend(rand::random::<[u8; 8]>());
    let mac = app.keys.otp_mac(&[TICKET, &ticket, query.as_bytes()]);
    ticket.extend(mac);
    let ticket = URL_SAFE_NO_PAD.encode(ticket);
    let url = app.public_url();
    format!("{url}/auth/v1/authorize?{query}{PARAMETER}{ticket}")
}

/// Whose ticket a query carries, once; `None` when it carries none.
pub async fn redeem(app: &App, tx: &mut Tx, query: &str, now: Timestamp) -> Result<Option<Uuid>> {
    let Some((query, ticket)) = query.rsplit_once(PARAMETER) else {
        return Ok(None);
    };
    let (session, expires_at) = read(app, query, ticket).ok_or(Error::FlowStateNotFound)?;
    if expires_at <= now {
        return Err(Error::FlowStateExpired);
    }
    if !db::seen_tokens::note(tx, &Sha256::digest(ticket), expires_at).await? {
        return Err(Error::FlowStateNotFound);
    }
    let standing = db::sessions::standing(&app.db, session).await?;
    let standing = standing.filter(|s| s.revoked_at.is_none() && s.absolute_expires_at > now);
    Ok(Some(standing.ok_or(Error::SessionEnded)?.user_id))
}

fn read(app: &App, query: &str, ticket: &str) -> Option<(Uuid, Timestamp)> {
    let ticket = URL_SAFE_NO_PAD.decode(ticket).ok()?;
    let (head, mac) = ticket.split_at_checked(HEAD)?;
    let signed = [TICKET, head, query.as_bytes()];
    let mut known = app.keys.otp_macs(&signed);
    if !known.any(|known| known.as_slice().ct_eq(mac).into()) {
        return None;
    }
    let (session, rest) = head.split_first_chunk::<16>()?;
    let (expires_at, _) = rest.split_first_chunk::<8>()?;
    let expires_at = Timestamp::from_micros(i64::from_be_bytes(*expires_at));
    Some((Uuid::from_bytes(*session), expires_at))
}
