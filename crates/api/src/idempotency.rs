//! The second request with an `Idempotency-Key` gets the first one's answer, and is charged nothing; so
//! does a retry without one, where it can be told from a new question.
use crate::{App, Error, Result, chat::Form, extract::Auth};
use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use db::{Tx, generations::Generation};
use sha2::{Digest, Sha256};
use std::time::Duration;
use uuid::Uuid;

/// How long an answer is kept for.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// How long a request may be under way; one whose process died frees its key after that.
const UNDER_WAY: Duration = Duration::from_secs(15 * 60);
const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Within so long the same request again may be a retry of one whose answer nobody heard.
const RETRIED_WITHIN: Duration = Duration::from_secs(120);
/// OpenAI's SDKs count their retries here, and send no key.
const RETRY_COUNT: HeaderName = HeaderName::from_static("x-stainless-retry-count");

/// A request, as a second one like it is recognised.
#[derive(Debug, Clone)]
pub struct Keyed {
    user: Uuid,
    scope: &'static str,
    key: String,
    request_hash: [u8; 32],
    /// Whether the client chose the key; else it is the request itself.
    pub chosen: bool,
    /// How its answer is written down.
    pub form: Form,
}

/// Whether there was a request like this one.
pub enum Seen {
    New(Keyed),
    /// There was, and this is its answer.
    Answered(String),
    /// There was, and this answer is being made for it, or was made and nobody heard it.
    Joins(Box<Generation>),
}

/// What makes a request without a key one that may have been sent before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retries {
    /// Its client says so.
    Said,
    /// Its client repeats itself without a word when an answer does not arrive.
    Silent,
}

/// A request that may have been sent before.
pub struct Request<'a> {
    /// What it asks for: another's key is another key there.
    pub scope: &'static str,
    pub form: Form,
    pub retries: Retries,
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
}

impl Request<'_> {
    pub fn has_key(&self) -> bool {
        self.headers.contains_key(KEY)
    }
}

impl Keyed {
    /// Looks whether a request was here before, before anything is done for it.
    pub async fn look(app: &App, auth: &Auth, request: &Request<'_>) -> Result<Seen> {
        let request_hash: [u8; 32] = Sha256::digest(request.body).into();
        let keyed = Self {
            user: auth.user,
            scope: request.scope,
            key: match chosen_key(request.headers)? {
                Some(key) => key.to_owned(),
                // No header could hold this.
                None => format!("≈{}", hex::encode(request_hash)),
            },
            request_hash,
            chosen: request.has_key(),
            form: request.form,
        };
        if keyed.chosen {
            return keyed.look_by_key(app).await;
        }
        let said = retry_count(request.headers) > 0;
        match said || request.retries == Retries::Silent {
            true => keyed.look_by_likeness(app, said).await,
            false => Ok(Seen::New(keyed)),
        }
    }

    async fn known(&self, app: &App) -> Result<Option<db::idempotency::Known>> {
        Ok(db::idempotency::known(&app.db, self.user, self.scope, &self.key, app.now()).await?)
    }

    async fn look_by_key(self, app: &App) -> Result<Seen> {
        let Some(known) = self.known(app).await? else {
            return Ok(Seen::New(self));
        };
        if known.request_hash != self.request_hash {
            return Err(Error::IdempotencyMismatch);
        }
        if let Some(answer) = known.answer {
            return Ok(Seen::Answered(answer));
        }
        match known.generation_id {
            Some(id) => db::generations::of_user(&app.db, self.user, id)
                .await?
                .map(|row| Seen::Joins(Box::new(row)))
                .ok_or(Error::IdempotencyInFlight),
            None => Err(Error::IdempotencyInFlight),
        }
    }

    /// A retry joins what it retries: an answer that is being made though its client is gone, or that
    /// was made and did not arrive.
    async fn look_by_likeness(self, app: &App, said: bool) -> Result<Seen> {
        let like = self.known(app).await?.and_then(|known| known.generation_id);
        let Some(id) = like else {
            return Ok(Seen::New(self));
        };
        let Some(row) = db::generations::of_user(&app.db, self.user, id).await? else {
            return Ok(Seen::New(self));
        };
        let here = app.streams.made_here(id);
        let unheard = here.as_ref().is_some_and(|log| log.listeners() == 0);
        let joins = match row.finished_at {
            None => said || unheard,
            // Its words are at hand, and an end that is worth hearing. Who was there at the end may not
            // have got the answer all the same: a client that counts its retries says that it did not.
            Some(_) => {
                let kept = here.is_some() || row.message_id.is_some();
                let reason = row.finish_reason.as_deref().unwrap_or_default();
                let wanted = !row.delivered || said && self.form.holds(reason);
                wanted && kept && row.error_code.is_none()
            }
        };
        if !joins {
            return Ok(Seen::New(self));
        }
        if row.finished_at.is_some() {
            // Once heard, the same words again are a question of their own.
            let mut tx = app.db.begin().await?;
            db::generations::deliver(&mut tx, id).await?;
            tx.commit().await?;
        }
        Ok(Seen::Joins(Box::new(row)))
    }

    /// Takes the key in the transaction that does the work; of two requests at once one does.
    pub async fn claim(&self, app: &App, tx: &mut Tx, generation: Uuid) -> Result<()> {
        let (now, hash) = (app.now(), &self.request_hash);
        let (user, scope, key) = (self.user, self.scope, self.key.as_str());
        if self.chosen {
            let until = now + UNDER_WAY;
            if !db::idempotency::claim(tx, user, scope, key, hash, generation, until, now).await? {
                return Err(Error::IdempotencyInFlight);
            }
        } else {
            let until = now + RETRIED_WITHIN;
            db::idempotency::supersede(tx, user, scope, key, hash, generation, until, now).await?;
        }
        Ok(())
    }

    /// Keeps the answer, for a key that a client chose.
    pub async fn complete(&self, app: &App, tx: &mut Tx, answer: &str) -> Result<()> {
        let until = app.now() + KEPT;
        Ok(db::idempotency::complete(tx, self.user, self.scope, &self.key, answer, until).await?)
    }

    /// Frees the key: the work came to nothing, and may be tried again.
    pub async fn release(&self, tx: &mut Tx) -> Result<()> {
        Ok(db::idempotency::release(tx, self.user, self.scope, &self.key).await?)
    }
}

pub fn chosen_key(headers: &HeaderMap) -> Result<Option<&str>> {
    let Some(key) = headers.get(KEY) else {
        return Ok(None);
    };
    let key = key
        .to_str()
        .ok()
        .filter(|key| (1..=255).contains(&key.len()));
    key.map(Some)
        .ok_or_else(|| Error::invalid("Idempotency-Key", "has to be 1 to 255 printable characters"))
}

fn retry_count(headers: &HeaderMap) -> u32 {
    let count = headers
        .get(RETRY_COUNT)
        .and_then(|count| count.to_str().ok());
    count.and_then(|count| count.parse().ok()).unwrap_or(0)
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
