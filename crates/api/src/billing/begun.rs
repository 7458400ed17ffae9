//! Checkouts that were begun: the same request leads to the same page.
use super::{
    checkout::NewCheckout,
    stripe_api::{Failure, Stripe},
};
use crate::{App, Error, Result, extract::Auth};
use anyhow::Context;
use db::{Timestamp, checkouts::Checkout};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::time::Duration;
use uuid::Uuid;

/// A page that is open for less is not given to anyone any more.
const STILL_OPEN: Duration = Duration::from_secs(10 * 60);

/// A request for a checkout, as a second one like it is recognised.
pub struct Request {
    pub user: Uuid,
    mode: &'static str,
    hash: [u8; 32],
    /// A client's own, or one of the request and the pages that it led to before: two at once have the same,
    /// and so has one that was cut off before its page was kept.
    key: String,
    chosen: bool,
}

impl Request {
    pub async fn of(
        app: &App,
        auth: &Auth,
        new: &NewCheckout,
        chosen: Option<&str>,
    ) -> Result<Self> {
        let body = serde_json::to_vec(new).context("a request is JSON")?;
        let hash: [u8; 32] = Sha256::digest(&body).into();
        let key = match chosen {
            Some(key) => format!("key:{}", hex::encode(Sha256::digest(key))),
            None => {
                let (before, one) = db::checkouts::like(&app.db, auth.user, &hash).await?;
                let one = one.unwrap_or_default();
                format!("like:{}:{before}:{one}", hex::encode(hash))
            }
        };
        Ok(Self {
            user: auth.user,
            mode: app.config.billing.mode(app.config.is_production()),
            hash,
            key,
            chosen: chosen.is_some(),
        })
    }

    pub fn stripe_key(&self) -> String {
        let digest = hex::encode(Sha256::digest(&self.key));
        format!("checkout:{}:{digest}", self.user)
    }

    /// What a request with the client's key led to.
    pub async fn known(&self, app: &App) -> Result<Option<Checkout>> {
        if !self.chosen {
            return Ok(None);
        }
        let known = db::checkouts::by_key(&app.db, self.user, &self.key).await?;
        match known {
            Some(known) if known.request_hash != self.hash => Err(Error::IdempotencyMismatch),
            known => Ok(known),
        }
    }

    /// The page that the same request without a key led to, while it can be paid on.
    pub async fn still_open(&self, app: &App, api: &Stripe) -> Result<Option<Checkout>> {
        if self.chosen {
            return Ok(None);
        }
        let until = app.now() + STILL_OPEN;
        let newest =
            db::checkouts::newest_like(&app.db, self.user, self.mode, &self.hash, until).await?;
        let Some(newest) = newest else {
            return Ok(None);
        };
        let path = format!("/v1/checkout/sessions/{}", newest.id);
        match api.get(&path, &[]).await {
            Ok(session) => Ok(Some(newest).filter(|_| session["status"] == "open")),
            Err(Failure::NotFound) => Ok(None),
            Err(failure) => Err(failure.into()),
        }
    }

    pub async fn keep(&self, app: &App, plan: &str, session: &Value) -> Result<Checkout> {
        let text = |name: &str| {
            let text = session[name].as_str().map(ToOwned::to_owned);
            text.with_context(|| format!("a checkout has a member {name}"))
        };
        let expires_at = session["expires_at"].as_i64();
        let checkout = Checkout {
            id: text("id")?,
            user_id: self.user,
            mode: self.mode.into(),
            request_hash: self.hash.into(),
            plan: plan.into(),
            url: text("url")?,
            expires_at: Timestamp::from_unix(expires_at.context("a checkout expires")?),
        };
        let mut tx = app.db.begin().await?;
        db::checkouts::keep(
            &mut tx,
            &checkout.id,
            self.user,
            self.mode,
            &self.key,
            &self.hash,
            plan,
            &checkout.url,
            checkout.expires_at,
            app.now(),
        )
        .await?;
        tx.commit().await?;
        Ok(checkout)
    }
}
