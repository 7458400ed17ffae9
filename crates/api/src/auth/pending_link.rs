//! A provider's word on somebody, kept until the app that asked for it proves to be the one: the URL
//! that begins a link may be followed by anyone, in whose browser the provider knows them. Sealed
//! beside the code, since it names a person.
use super::{
    federation::{self, Beside},
    id_token::Claims,
    session::Client,
};
use crate::{App, Error, Result};
use anyhow::Context;
use db::{Timestamp, Tx, users::User};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What the seal is bound to.
const PENDING_LINK: &[u8] = b"pending link";

#[derive(Serialize, Deserialize)]
pub struct PendingLink {
    provider: String,
    subject: String,
    audience: String,
    email: Option<String>,
    email_verified: bool,
    authoritative: bool,
    name: Option<String>,
    picture: Option<String>,
    /// What nobody signed: how their device calls them.
    called: Option<String>,
    refresh_token: Option<String>,
}

impl PendingLink {
    pub fn new(claims: Claims, beside: Beside<'_>) -> Self {
        Self {
            provider: claims.provider.to_owned(),
            subject: claims.subject,
            audience: claims.audience,
            email: claims.email,
            email_verified: claims.email_verified,
            authoritative: claims.authoritative,
            name: claims.name,
            picture: claims.picture,
            called: beside.name.map(ToOwned::to_owned),
            refresh_token: beside.refresh_token.map(ToOwned::to_owned),
        }
    }

    pub fn seal(&self, app: &App) -> Result<Vec<u8>> {
        let json = serde_json::to_vec(self).context("a pending link is JSON")?;
        Ok(app.keys.seal(PENDING_LINK, &json)?)
    }

    pub fn unseal(app: &App, sealed: &[u8]) -> Result<Self> {
        let json = app.keys.unseal(PENDING_LINK, sealed);
        let json = json.context("a pending link was sealed under another JWT_SECRET")?;
        Ok(serde_json::from_slice(&json).context("a pending link is JSON")?)
    }

    /// Links it to this user; as [`federation::link`] refuses.
    pub async fn link(
        self,
        app: &App,
        tx: &mut Tx,
        user: Uuid,
        client: &Client,
        now: Timestamp,
    ) -> Result<Result<User>> {
        let Some(provider) = app.issuers.named(&self.provider) else {
            return Ok(Err(Error::ProviderDisabled));
        };
        let claims = Claims {
            provider: provider.name,
            issuer: provider.issuer().to_owned(),
            subject: self.subject,
            audience: self.audience,
            email: self.email,
            email_verified: self.email_verified,
            authoritative: self.authoritative,
            name: self.name,
            picture: self.picture,
            is_anonymous: false,
            expires_at: now,
            authenticated_at: None,
            session: None,
        };
        let beside = Beside {
            name: self.called.as_deref(),
            refresh_token: self.refresh_token.as_deref(),
        };
        federation::link(app, tx, user, &claims, beside, client, now).await
    }
}
