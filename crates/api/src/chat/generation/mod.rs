//! The life of one answer: claimed, stored and paid for in one transaction, made by a task that no
//! client can interrupt by leaving, settled in one transaction, and only then said to be over.
use super::{
    LEASE,
    answer::Answer,
    llm::{Failure, Usage},
    moderation,
    quota::{self, Left},
    relay,
    stream::{Event, Reader, StopOnDrop},
    subject,
};
use crate::{
    App, Error, Result,
    billing::{entitlements, plans::ModelAccess},
    extract::Auth,
    idempotency::{Keyed, Request, Seen},
    limit::Action,
};
use db::{Timestamp, Tx, generations::Generation};
use serde_json::{Map, Value};
use uuid::Uuid;

mod producer;
mod settling;

use producer::Producer;
pub use settling::{Ended, close, ended};

/// An answer that was asked for and accepted, and a reader of it from its beginning.
pub struct Accepted {
    pub head: Head,
    pub reader: Reader,
    /// What its user may still ask for; `None` of one that was accepted before.
    pub left: Option<Left>,
    /// Stops it when its client leaves, where nobody can come back to it.
    pub guard: Option<StopOnDrop>,
}

/// What is known of an answer before its first word.
#[derive(Debug, Clone)]
pub struct Head {
    pub generation: Uuid,
    pub model: String,
    pub created_at: Timestamp,
    /// Where it is kept, when it is.
    pub place: Option<Place>,
}

impl From<&Generation> for Head {
    fn from(row: &Generation) -> Self {
        let place = |(conversation, message)| Place {
            conversation,
            message,
        };
        Self {
            generation: row.id,
            model: row.model.clone(),
            created_at: row.created_at,
            place: row.conversation_id.zip(row.message_id).map(place),
        }
    }
}

/// Where an answer is kept.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub conversation: Uuid,
    pub message: Uuid,
}

/// What is asked.
#[derive(Clone)]
pub struct Asked {
    /// OpenAI's request; the length of the answer is put in here.
    pub request: Map<String, Value>,
    pub model: String,
    /// Everything the model is shown, for estimates.
    pub prompt_text_tokens: i64,
    pub max_output: i64,
    /// Whose second request gets this answer.
    pub keyed: Option<Keyed>,
}

/// Accepts and starts an answer, or refuses with nothing stored. `store` writes the question and
/// the answer's place in the same transaction.
pub async fn start(
    app: &App,
    auth: &Auth,
    mut asked: Asked,
    store: impl AsyncFnOnce(&mut Tx) -> Result<Option<Place>>,
) -> Result<Accepted> {
    let plan = entitlements::plan_of(app, auth.user).await?;
    match app.plans.allows(plan, &asked.model) {
        ModelAccess::Allowed => {}
        ModelAccess::NotInPlan => return Err(Error::ModelNotInPlan { model: asked.model }),
        ModelAccess::Unknown => return Err(Error::ModelNotFound { model: asked.model }),
    }
    moderation::check(app, auth.user, &asked.request).await?;
    let (id, now) = (Uuid::now_v7(), app.now());
    let mut tx = app.db.begin().await?;
    if let Some(keyed) = &asked.keyed {
        keyed.claim(app, &mut tx, id).await?;
    }
    let place = store(&mut tx).await?;
    let reservation = quota::reserve(
        &mut tx,
        auth.user,
        plan,
        &asked.model,
        asked.prompt_text_tokens,
        asked.max_output,
        now,
    )
    .await?;
    db::generations::create(
        &mut tx,
        id,
        auth.user,
        place.map(|p| p.conversation),
        place.map(|p| p.message),
        &asked.model,
        &app.instance,
        now + LEASE,
        reservation.window_start,
        reservation.amount.tokens,
        reservation.amount.microusd,
        reservation.price,
        reservation.in_model_window,
        reservation.in_budget,
        asked.prompt_text_tokens,
        now,
    )
    .await?;
    asked
        .request
        .insert("model".into(), asked.model.clone().into());
    asked
        .request
        .insert("max_tokens".into(), reservation.max_output.into());
    let head = Head {
        generation: id,
        model: asked.model,
        created_at: now,
        place,
    };
    let begun = begin(
        app.clone(),
        tx,
        auth.user,
        head,
        asked.request,
        asked.keyed,
        reservation.left,
    );

    // On a task of its own: a client that leaves in this moment leaves nothing that is paid for and
    // not made.
    let begun = app.tasks.spawn(begun).await;
    begun.map_err(|error| Error::Internal(error.into()))?
}

/// Commits what was accepted, and has it made.
async fn begin(
    app: App,
    tx: Tx,
    user: Uuid,
    head: Head,
    request: Map<String, Value>,
    keyed: Option<Keyed>,
    left: Left,
) -> Result<Accepted> {
    tx.commit().await?;

    let log = app.streams.open(head.generation);
    if let Some(relay) = &app.streams.relay {
        app.tasks.spawn(relay.clone().carry(log.read_along()));
    }
    let can_come_back = head.place.is_some() || keyed.as_ref().is_some_and(|keyed| keyed.chosen);
    let accepted = Accepted {
        reader: log.read(0),
        guard: (!can_come_back).then(|| StopOnDrop(log.clone())),
        left: Some(left),
        head,
    };
    let producer = Producer::new(app.clone(), log, user, accepted.head.place);
    app.tasks.spawn(producer.run(request, keyed));
    Ok(accepted)
}

/// What a request gets that asks something.
pub enum Once {
    Accepted(Accepted),
    /// The answer that was kept for one like it.
    Kept(String),
}

/// Accepts a request as `ask` does, unless there was one like it: then it gets what that one got.
pub async fn once<F>(
    app: &App,
    auth: &Auth,
    request: Request<'_>,
    ask: impl Fn(Keyed) -> F,
) -> Result<Once>
where
    F: Future<Output = Result<Accepted>>,
{
    loop {
        let accepted = match Keyed::look(app, auth, &request).await? {
            Seen::Answered(answer) => return Ok(Once::Kept(answer)),
            Seen::Joins(generation) => {
                let mut joined = join(app, &generation).await?;
                let can_come_back = generation.message_id.is_some() || request.has_key();
                if !can_come_back && generation.finished_at.is_none() {
                    joined.guard = Some(StopOnDrop(joined.reader.log().clone()));
                }
                joined
            }
            Seen::New(keyed) => {
                app.limits.check(Action::Chat, &subject(auth)).await?;
                match ask(keyed).await {
                    // Another took the key, or began the conversation, in the same moment.
                    Err(Error::IdempotencyInFlight) => continue,
                    accepted => accepted?,
                }
            }
        };
        return Ok(Once::Accepted(accepted));
    }
}

/// One that was accepted before.
async fn join(app: &App, generation: &Generation) -> Result<Accepted> {
    Ok(Accepted {
        head: generation.into(),
        reader: relay::attach(app, generation, 0).await?,
        left: None,
        guard: None,
    })
}

/// The one behind an answer that was kept.
pub async fn again(app: &App, answer: &str) -> Result<Accepted> {
    let kept: Value = serde_json::from_str(answer).unwrap_or_default();
    let id = kept.get("messageId").or_else(|| kept.get("id"));
    let id = id.and_then(|id| Uuid::try_parse(id.as_str()?).ok());
    let row = match id {
        Some(id) => db::generations::of_message(&app.db, id).await?,
        None => None,
    };
    join(app, &row.ok_or(Error::NotFound)?).await
}

impl Accepted {
    /// Waits for the end: what came, why it ended, and its tokens.
    pub async fn whole(&mut self) -> Result<(Answer, String, Usage)> {
        let mut answer = Answer::default();
        while let Some((_, event)) = self.reader.next().await {
            match &*event {
                Event::Delta(delta) => answer.take(delta),
                Event::Snapshot(whole) => answer = whole.clone(),
                Event::Finish { reason, usage } => return Ok((answer, reason.clone(), *usage)),
                Event::Error(failure) => return Err(failure.clone().into()),
            }
        }
        Err(Failure::Interrupted.into())
    }
}
