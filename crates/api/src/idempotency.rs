//! `Idempotency-Key`: the second request with a key gets the first one's answer, and is charged nothing.
use crate::{App, Error, Result, chat::Form, extract::Auth};
use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use db::Tx;
use sha2::{Digest, Sha256};
use std::time::Duration;
use uuid::Uuid;

/// How long an answer is kept for.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// How long a request may be under way; one whose process died frees its key after that.
const UNDER_WAY: Duration = Duration::from_secs(15 * 60);
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// A request that brought a key.
#[derive(Debug, Clone)]
pub struct Keyed {
    user: Uuid,
    scope: &'static str,
    key: String,
    request_hash: [u8; 32],
    /// How its answer is written down.
    pub form: Form,
}

/// Whether a request is the first with its key.
pub enum First {
    /// It brought none.
    Unkeyed,
    Yes(Keyed),
    /// The answer of the first.
    No(String),
}

impl Keyed {
    /// Looks at the key of a request, before anything is done for it.
    pub async fn look(
        app: &App,
        auth: &Auth,
        scope: &'static str,
        form: Form,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<First> {
        let Some(key) = headers.get("idempotency-key") else {
            return Ok(First::Unkeyed);
        };
        let key = key
            .to_str()
            .ok()
            .filter(|key| (1..=255).contains(&key.len()));
        let key = key.ok_or_else(|| {
            Error::invalid("Idempotency-Key", "has to be 1 to 255 printable characters")
        })?;
        let keyed = Self {
            user: auth.user,
            scope,
            key: key.to_owned(),
            request_hash: Sha256::digest(body).into(),
            form,
        };
        match keyed.known(app).await? {
            Some(answer) => Ok(First::No(answer)),
            None => Ok(First::Yes(keyed)),
        }
    }

    /// The answer of the first request; `None` when there was none.
    async fn known(&self, app: &App) -> Result<Option<String>> {
        let Some(known) =
            db::idempotency::known(&app.db, self.user, self.scope, &self.key, app.now()).await?
        else {
            return Ok(None);
        };
        if known.request_hash != self.request_hash {
            return Err(Error::IdempotencyMismatch);
        }
        known.answer.map(Some).ok_or(Error::IdempotencyInFlight)
    }

    /// Takes the key in the transaction that does the work; of two requests at once one does.
    pub async fn claim(&self, app: &App, tx: &mut Tx) -> Result<()> {
        let now = app.now();
        let claimed = db::idempotency::claim(
            tx,
            self.user,
            self.scope,
            &self.key,
            &self.request_hash,
            now + UNDER_WAY,
            now,
        )
        .await?;
        if claimed {
            Ok(())
        } else {
            Err(Error::IdempotencyInFlight)
        }
    }

    /// Keeps the answer.
    pub async fn complete(&self, app: &App, tx: &mut Tx, answer: &serde_json::Value) -> Result<()> {
        let until = app.now() + KEPT;
        Ok(db::idempotency::complete(
            tx,
            self.user,
            self.scope,
            &self.key,
            &answer.to_string(),
            until,
        )
        .await?)
    }

    /// Frees the key: the work came to nothing, and may be tried again.
    pub async fn release(&self, tx: &mut Tx) -> Result<()> {
        Ok(db::idempotency::release(tx, self.user, self.scope, &self.key).await?)
    }
}

/// The first answer, said to be so.
pub fn replayed(answer: String) -> Response {
    let mut response = (
        StatusCode::OK,
        [(header::CONTENT_TYPE, "application/json")],
        answer,
    )
        .into_response();
    mark(&mut response);
    response
}

/// Says of a response that it repeats another.
pub fn mark(response: &mut Response) {
    response
        .headers_mut()
        .insert(REPLAYED, HeaderValue::from_static("true"));
}
