//! The life of one answer: claimed, stored and paid for in one transaction, made by a task that no
//! client can interrupt by leaving, settled in one transaction, and only then said to be over.
use super::{
    LEASE,
    answer::Answer,
    llm::{By, Failure, Said, Usage},
    moderation, prices,
    quota::{self, Left},
    relay,
    scrub::Scrub,
    stream::{Event, Log, Reader, StopOnDrop},
    titles,
};
use crate::{
    App, Error, Result,
    billing::{entitlements, plans::ModelAccess},
    extract::Auth,
    idempotency::Keyed,
};
use db::{Timestamp, Tx, generations::Generation, usage::Amount};
use futures_util::{FutureExt, StreamExt};
use serde_json::{Map, Value};
use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};
use uuid::Uuid;

/// How often what has come so far is put on disk; and where a reader on another instance waits for it.
const CHECKPOINT: Duration = Duration::from_secs(1);
const FOLLOWED_CHECKPOINT: Duration = Duration::from_millis(250);

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
    let producer = Producer {
        app: app.clone(),
        log,
        user,
        place: accepted.head.place,
        usage: None,
        by: None,
    };
    app.tasks.spawn(producer.run(request, keyed));
    Ok(accepted)
}

/// One that was accepted before.
pub async fn join(app: &App, generation: &Generation) -> Result<Accepted> {
    Ok(Accepted {
        head: generation.into(),
        reader: relay::attach(app, generation, 0).await?,
        left: None,
        guard: None,
    })
}

/// How it ended.
enum End {
    Finished(String),
    /// A client, or the end of the process, asked for it.
    Stopped,
    Failed(Failure),
}

struct Producer {
    app: App,
    log: Arc<Log>,
    user: Uuid,
    place: Option<Place>,
    /// As the provider counts.
    usage: Option<Usage>,
    /// Who answers, once that is known.
    by: Option<By>,
}

impl Producer {
    async fn run(mut self, request: Map<String, Value>, keyed: Option<Keyed>) {
        let since = Instant::now();
        let total = self.app.llm.total();
        let model = request
            .get("model")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        let (stop, lost) = (self.log.stop.clone(), self.log.lost.clone());
        let end = tokio::select! {
            // A panic is a failure like another: the readers hear of it, the reservation is settled.
            end = AssertUnwindSafe(self.produce(request, since)).catch_unwind() => {
                end.unwrap_or(End::Failed(Failure::Interrupted))
            }
            () = stop.cancelled() => End::Stopped,
            () = lost.cancelled() => End::Failed(Failure::Interrupted),
            () = tokio::time::sleep(total) => End::Failed(Failure::TimedOut),
        };
        let outcome = match &end {
            End::Finished(_) => "finished",
            End::Stopped => "stopped",
            End::Failed(failure) => failure.code(),
        };
        metrics::counter!("llm_requests_total", "model" => model.clone(), "outcome" => outcome)
            .increment(1);
        metrics::histogram!("llm_request_duration_seconds", "model" => model)
            .record(since.elapsed().as_secs_f64());
        let outcome = self.outcome(end);
        // What a client is told is over has to be on disk: until it is, it is not told.
        let mut pause = Duration::from_millis(100);
        let last = loop {
            match self.settle(&outcome, keyed.as_ref()).await {
                Ok(last) => break last,
                Err(error) => {
                    tracing::error!(generation = %self.log.generation, %error, "an answer cannot be settled yet")
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        };
        self.log.push(last);
        self.app.streams.close(&self.log);
    }

    async fn produce(&mut self, mut request: Map<String, Value>, since: Instant) -> End {
        let scrubs = self.app.config.chat.pii_scrub;
        let mut scrub = match scrubs {
            true => Scrub::of(&mut request),
            false => Scrub::default(),
        };
        let end = self.listen(request, &mut scrub, since).await;
        let fits = scrub
            .rest()
            .is_none_or(|rest| self.log.push(Event::Delta(rest)));
        match fits {
            true => end,
            false => End::Finished("length".into()),
        }
    }

    /// Asks the provider, and hears it to the end.
    async fn listen(
        &mut self,
        request: Map<String, Value>,
        scrub: &mut Scrub,
        since: Instant,
    ) -> End {
        let mut said = match self.app.llm.ask(request, self.user).await {
            Ok(said) => said,
            Err(failure) => return End::Failed(failure),
        };
        self.by = Some(said.by.clone());
        metrics::histogram!("llm_time_to_first_token_seconds")
            .record(since.elapsed().as_secs_f64());
        let mut finish = None;
        let (mut kept, mut unkept) = (Instant::now(), false);
        loop {
            let rhythm = match self.log.is_followed() {
                true => FOLLOWED_CHECKPOINT,
                false => CHECKPOINT,
            };
            let next = tokio::select! {
                biased;
                next = said.next() => next,
                // What was said before a pause is not to wait for its end.
                () = tokio::time::sleep_until((kept + rhythm).into()), if unkept => {
                    // A database that is away for a moment does not end the answer.
                    unkept = self.checkpoint().await.is_err();
                    kept = Instant::now();
                    continue;
                }
            };
            match next {
                None => break,
                Some(Ok(Said::Delta(mut delta))) => {
                    scrub.reveal(&mut delta);
                    // All of it may be held back for a moment.
                    if !delta.is_empty() {
                        if !self.log.push(Event::Delta(delta)) {
                            return End::Finished("length".into());
                        }
                        unkept = true;
                    }
                }
                Some(Ok(Said::Usage(usage))) => self.usage = Some(usage),
                Some(Ok(Said::Finish(reason))) => finish = Some(reason),
                // A stream that broke after it said why it finished has finished.
                Some(Err(_)) if finish.is_some() => break,
                Some(Err(failure)) => return End::Failed(failure),
            }
            if unkept && kept.elapsed() >= rhythm {
                unkept = self.checkpoint().await.is_err();
                kept = Instant::now();
            }
        }
        finish.map_or(End::Failed(Failure::Truncated), End::Finished)
    }

    /// Puts what has come on disk.
    async fn checkpoint(&self) -> Result<(), db::Error> {
        let Some(place) = self.place else {
            return Ok(());
        };
        let (text, said) = self
            .log
            .look(|answer, said| (answer.text.clone(), said as i64));
        let mut tx = self.app.db.begin().await?;
        db::conversations::checkpoint(&mut tx, place.message, &text, said).await?;
        tx.commit().await
    }

    /// Why it ended, or why there is nothing to show for it.
    fn outcome(&self, end: End) -> Result<String, Failure> {
        match end {
            End::Finished(reason) => Ok(reason),
            End::Stopped if self.app.draining.is_cancelled() => Err(Failure::Draining),
            End::Stopped => Ok("stopped".into()),
            End::Failed(Failure::Truncated) if self.log.look(|answer, _| !answer.is_empty()) => {
                Ok("truncated".into())
            }
            End::Failed(failure) => Err(failure),
        }
    }

    /// Settles everything, and gives what clients may now be told.
    async fn settle(
        &self,
        outcome: &Result<String, Failure>,
        keyed: Option<&Keyed>,
    ) -> Result<Event> {
        let (reason, code) = match outcome {
            Ok(reason) => (reason.as_str(), None),
            Err(failure) => ("error", Some(failure.code())),
        };
        let ((answer, said), heard) = (self.log.whole(), self.log.listeners() > 0);
        let mut tx = self.app.db.begin().await?;
        let id = self.log.generation;
        let Some(generation) =
            db::generations::finish(&mut tx, id, reason, code, heard, self.app.now()).await?
        else {
            return Ok(Event::Error(Failure::Interrupted));
        };
        let ended = Ended {
            status: status(outcome, &answer),
            answer,
            usage: self.usage,
            by: self.by.clone(),
            was_asked: was_asked(outcome),
            seq: said + 1,
        };
        let usage = close(&self.app, &mut tx, &generation, &ended).await?;
        match (keyed, outcome) {
            (Some(keyed), Ok(reason)) if keyed.chosen && keyed.form.holds(reason) => {
                let form = keyed.form;
                let kept = form.answer(&(&generation).into(), &ended.answer, reason, usage);
                keyed.complete(&self.app, &mut tx, &kept).await?;
            }
            // Without a key it stays known for as long as a retry may come.
            (Some(keyed), Ok(_)) if !keyed.chosen => {}
            (Some(keyed), _) => keyed.release(&mut tx).await?,
            (None, _) => {}
        }
        tx.commit().await?;
        Ok(match outcome {
            Ok(reason) => Event::Finish {
                reason: reason.clone(),
                usage,
            },
            Err(failure) => Event::Error(failure.clone()),
        })
    }
}

/// What a stored answer is said to be. Cut off is never passed off as finished.
fn status(outcome: &Result<String, Failure>, answer: &Answer) -> &'static str {
    match outcome.as_deref() {
        Ok("stopped") => "stopped",
        Ok("truncated") => "truncated",
        Ok(_) => "complete",
        Err(_) if answer.is_empty() => "failed",
        Err(_) => "truncated",
    }
}

/// Whether the provider may have begun an answer of which nothing came. One that refused has not.
fn was_asked(outcome: &Result<String, Failure>) -> bool {
    use Failure::{Draining, Interrupted, Refused, TimedOut, Truncated, Unavailable};
    match outcome {
        Ok(_) | Err(TimedOut | Truncated | Draining | Interrupted) => true,
        Err(Unavailable { .. } | Refused(_)) => false,
    }
}

/// What is to be stored of an answer.
pub struct Ended {
    pub answer: Answer,
    pub status: &'static str,
    /// `None` where the provider did not say.
    pub usage: Option<Usage>,
    /// Who said it, as far as that is known.
    pub by: Option<By>,
    /// Whether it may have cost something though nothing came of it.
    pub was_asked: bool,
    /// The number of its last event.
    pub seq: u64,
}

/// What clients are told of an answer that is settled.
pub fn ended(generation: &Generation, usage: Usage) -> Event {
    match (&generation.error_code, &generation.finish_reason) {
        (Some(code), _) => Event::Error(Failure::of(code)),
        (None, Some(reason)) => Event::Finish {
            reason: reason.clone(),
            usage,
        },
        (None, None) => Event::Error(Failure::Interrupted),
    }
}

/// Stores the answer, settles its reservation and writes what it cost, in the transaction that
/// finished the generation and so can only happen once.
pub async fn close(
    app: &App,
    tx: &mut Tx,
    generation: &Generation,
    ended: &Ended,
) -> Result<Usage> {
    let Ended { answer, status, .. } = ended;
    let nothing = answer.is_empty() && *status != "complete";
    let prompt = Usage {
        input: generation.prompt_tokens,
        ..Usage::default()
    };
    let (usage, source) = match ended.usage {
        Some(usage) => (usage, "provider"),
        None if nothing => (Usage::default(), "none"),
        None => (
            Usage {
                output: answer.estimated_tokens(),
                ..prompt
            },
            "estimated",
        ),
    };
    // What nobody heard of may be on the bill: budgets keep it in mind, and the user has it back.
    let (billed, source) = match source {
        "none" if ended.was_asked => (prompt, "maybe_billed"),
        source => (usage, source),
    };
    if let Some(message) = generation.message_id {
        db::conversations::settle_answer(
            tx,
            message,
            &answer.text,
            status,
            usage.input,
            usage.output,
            ended.seq as i64,
        )
        .await?;
    }
    titles::plan(app, tx, generation, ended).await?;
    // Another model may have answered for the one that was asked for.
    let by = ended.by.as_ref();
    let model = by.map_or(&*generation.model, |by| &by.model);
    let model = if app.plans.has_price(model) {
        model
    } else {
        &generation.model
    };
    let price = prices::of(tx, generation, model).await?;
    let cost = prices::cost(price.as_ref(), billed);
    let amount = |usage: Usage, microusd| Amount {
        messages: i64::from(!nothing),
        tokens: usage.input + usage.output,
        microusd,
    };
    let used = amount(usage, prices::cost(price.as_ref(), usage));
    quota::settle(tx, generation, used, amount(billed, cost)).await?;
    let provider = by
        .map(|by| by.provider)
        .or_else(|| app.llm.provider_of(&generation.model));
    let provider = match provider {
        _ if app.simulated.llm => "simulated",
        Some(provider) => provider.name(),
        None => "none",
    };
    db::usage::charge(
        tx,
        generation.id,
        Some(generation.user_id),
        provider,
        model,
        price.map(|price| price.id),
        billed.input,
        billed.cached,
        billed.output,
        billed.reasoning,
        cost,
        source,
        app.now(),
    )
    .await?;
    for (kind, n) in [("input", usage.input), ("output", usage.output)] {
        metrics::counter!("llm_tokens_total", "kind" => kind).increment(n.max(0) as u64);
    }
    metrics::counter!("llm_cost_microusd_total", "model" => model.to_owned())
        .increment(cost.max(0) as u64);
    Ok(usage)
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
