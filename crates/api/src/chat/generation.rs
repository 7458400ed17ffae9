//! The life of one answer: claimed, stored and paid for in one transaction, made by a task that no
//! client can interrupt by leaving, settled in one transaction, and only then said to be over.
use super::{
    llm::{self, Failure, Said, Usage},
    quota::{self, Reservation},
    stream::{Event, Log},
    subject,
};
use crate::{
    App, Error, Result,
    billing::{entitlements, plans::ModelAccess},
    extract::Auth,
    idempotency::Keyed,
};
use db::{Timestamp, Tx, generations::Generation};
use futures_util::{FutureExt, StreamExt};
use serde_json::{Map, Value};
use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};
use uuid::Uuid;

/// A producer that is not heard of for so long is gone; the sweeper settles what it left.
pub const LEASE: Duration = Duration::from_secs(60);
/// How often what has come so far is put on disk.
const CHECKPOINT: Duration = Duration::from_secs(1);
/// In all, an answer may take so many times the silence that is allowed.
const TOTAL: u32 = 10;

/// An answer that was asked for and accepted.
pub struct Accepted {
    pub log: Arc<Log>,
    pub generation: Uuid,
    pub model: String,
    pub created_at: Timestamp,
    /// Where it is kept, when it is.
    pub place: Option<Place>,
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
    let (id, now) = (Uuid::now_v7(), app.now());
    let mut tx = app.db.begin().await?;
    if let Some(keyed) = &asked.keyed {
        keyed.claim(app, &mut tx).await?;
    }
    let place = store(&mut tx).await?;
    let reservation = quota::reserve(
        app,
        &mut tx,
        &subject(auth),
        plan,
        asked.prompt_text_tokens,
        asked.max_output,
    )
    .await?;
    let Reservation {
        window_start,
        tokens,
        max_output,
    } = reservation;
    db::generations::create(
        &mut tx,
        id,
        auth.user,
        place.map(|p| p.conversation),
        place.map(|p| p.message),
        &asked.model,
        &app.instance,
        now + LEASE,
        window_start,
        tokens,
        asked.prompt_text_tokens,
        now,
    )
    .await?;
    tx.commit().await?;

    asked
        .request
        .insert("model".into(), asked.model.clone().into());
    asked.request.insert("max_tokens".into(), max_output.into());
    let log = app.streams.open(id);
    let producer = Producer {
        app: app.clone(),
        log: log.clone(),
        place,
        answer: Answer::default(),
    };
    let (model, keyed) = (asked.model, asked.keyed);
    app.tasks.spawn(producer.run(asked.request, keyed));
    Ok(Accepted {
        log,
        generation: id,
        model,
        created_at: now,
        place,
    })
}

/// What came of an answer so far.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub text: String,
    pub tool_calls: Vec<Value>,
    pub refusal: String,
    usage: Option<Usage>,
}

impl Answer {
    /// One of which no more than the text is known.
    pub fn of_text(text: String) -> Self {
        Self {
            text,
            ..Self::default()
        }
    }

    fn take(&mut self, delta: &Map<String, Value>) {
        let text = |name: &str| delta.get(name).and_then(Value::as_str).unwrap_or_default();
        self.text += text("content");
        self.refusal += text("refusal");
        for call in delta
            .get("tool_calls")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            self.take_tool_call(call);
        }
    }

    /// A piece goes on with the call of its index. Some servers leave the index out, or give all calls
    /// the same, and send calls whole: what has an id or a name of its own begins a call there.
    fn take_tool_call(&mut self, piece: &Value) {
        fn word<'a>(call: &'a Value, path: &str) -> &'a str {
            call.pointer(path).and_then(Value::as_str).unwrap_or("")
        }
        let (id, index) = (word(piece, "/id"), piece.get("index"));
        let more = word(piece, "/function/arguments");
        let goes_on = |call: &&mut Value| {
            call.get("index") == index
                && (id.is_empty() || id == word(call, "/id"))
                && (index.is_some() || word(piece, "/function/name").is_empty())
        };
        if let Some(call) = self.tool_calls.iter_mut().rev().find(goes_on) {
            if let Some(Value::String(arguments)) = call.pointer_mut("/function/arguments") {
                arguments.push_str(more);
            }
        } else if piece.get("function").is_some_and(Value::is_object) {
            let mut call = piece.clone();
            call["function"]["arguments"] = more.into();
            self.tool_calls.push(call);
        }
    }

    /// Where the provider does not say.
    fn estimated_tokens(&self) -> i64 {
        let calls = self.tool_calls.iter().map(Value::to_string);
        let calls = calls.map(|call| llm::estimate_tokens(&call)).sum::<i64>();
        llm::estimate_tokens(&self.text) + llm::estimate_tokens(&self.refusal) + calls
    }

    fn is_empty(&self) -> bool {
        self.text.is_empty() && self.tool_calls.is_empty() && self.refusal.is_empty()
    }

    /// The model's text as OpenAI's `message`.
    pub fn message(&self) -> Value {
        let text = |text: &str| {
            if text.is_empty() {
                Value::Null
            } else {
                text.into()
            }
        };
        let mut message = serde_json::json!({"role": "assistant", "content": text(&self.text), "refusal": text(&self.refusal)});
        if !self.tool_calls.is_empty() {
            let mut calls = self.tool_calls.clone();
            for members in calls.iter_mut().filter_map(Value::as_object_mut) {
                members.remove("index");
            }
            message["tool_calls"] = calls.into();
        }
        message
    }
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
    place: Option<Place>,
    answer: Answer,
}

impl Producer {
    async fn run(mut self, request: Map<String, Value>, keyed: Option<Keyed>) {
        let since = Instant::now();
        let total = self.app.config.chat.llm_timeout * TOTAL;
        let model = request
            .get("model")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        let (app, stop) = (self.app.clone(), self.log.stop.clone());
        let lost = hold_lease(&app, self.log.generation);
        let end = tokio::select! {
            // A panic is a failure like another: the readers hear of it, the reservation is settled.
            end = AssertUnwindSafe(self.produce(request, since)).catch_unwind() => {
                end.unwrap_or(End::Failed(Failure::Interrupted))
            }
            () = stop.cancelled() => End::Stopped,
            () = lost => End::Failed(Failure::Interrupted),
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
        self.app.streams.close(self.log.generation);
    }

    async fn produce(&mut self, request: Map<String, Value>, since: Instant) -> End {
        let mut said = match self.app.llm.ask(request, self.app.now()).await {
            Ok(said) => said,
            Err(failure) => return End::Failed(failure),
        };
        metrics::histogram!("llm_time_to_first_token_seconds")
            .record(since.elapsed().as_secs_f64());
        let mut finish = None;
        let mut kept = Instant::now();
        while let Some(next) = said.next().await {
            match next {
                Ok(Said::Delta(delta)) => {
                    self.answer.take(&delta);
                    if !self.log.push(Event::Delta(delta)) {
                        return End::Finished("length".into());
                    }
                }
                Ok(Said::Usage(usage)) => self.answer.usage = Some(usage),
                Ok(Said::Finish(reason)) => finish = Some(reason),
                // A stream that broke after it said why it finished has finished.
                Err(_) if finish.is_some() => break,
                Err(failure) => return End::Failed(failure),
            }
            if kept.elapsed() >= CHECKPOINT {
                // A database that is away for a moment does not end the answer.
                let _ = self.checkpoint().await;
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
        let mut tx = self.app.db.begin().await?;
        db::conversations::checkpoint(&mut tx, place.message, &self.answer.text).await?;
        tx.commit().await
    }

    /// Why it ended, or why there is nothing to show for it.
    fn outcome(&self, end: End) -> Result<String, Failure> {
        match end {
            End::Finished(reason) => Ok(reason),
            End::Stopped if self.app.draining.is_cancelled() => Err(Failure::Draining),
            End::Stopped => Ok("stopped".into()),
            End::Failed(Failure::Truncated) if !self.answer.is_empty() => Ok("truncated".into()),
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
        let mut tx = self.app.db.begin().await?;
        let id = self.log.generation;
        let Some(generation) =
            db::generations::finish(&mut tx, id, reason, code, self.app.now()).await?
        else {
            return Ok(Event::Error(Failure::Interrupted));
        };
        let status = status(outcome, &self.answer);
        let usage = close(&self.app, &mut tx, &generation, &self.answer, status).await?;
        match (keyed, outcome) {
            (Some(keyed), Ok(reason)) if keyed.form.holds(reason) => {
                let form = keyed.form;
                let kept = form.answer(&generation, self.place, &self.answer, reason, usage);
                keyed.complete(&self.app, &mut tx, &kept).await?;
            }
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

/// Keeps the lease for as long as it is ours, however silent the provider; ends when it is lost.
async fn hold_lease(app: &App, generation: Uuid) {
    loop {
        tokio::time::sleep(LEASE / 3).await;
        let extended = async {
            let mut tx = app.db.begin().await?;
            let until = app.now() + LEASE;
            let ours = db::generations::extend(&mut tx, generation, &app.instance, until).await?;
            tx.commit().await?;
            Ok::<_, db::Error>(ours)
        };
        if let Ok(false) = extended.await {
            return;
        }
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

/// Stores the answer, settles its reservation and writes what it cost, in the transaction that
/// finished the generation and so can only happen once.
pub async fn close(
    app: &App,
    tx: &mut Tx,
    generation: &Generation,
    answer: &Answer,
    status: &str,
) -> Result<Usage> {
    let nothing = answer.is_empty() && status != "complete";
    let (usage, source) = match answer.usage {
        Some(usage) => (usage, "provider"),
        None if nothing => (Usage::default(), "none"),
        None => (
            Usage {
                input: generation.prompt_tokens,
                output: answer.estimated_tokens(),
            },
            "estimated",
        ),
    };
    if let Some(message) = generation.message_id {
        db::conversations::settle_answer(
            tx,
            message,
            &answer.text,
            status,
            usage.input,
            usage.output,
        )
        .await?;
    }
    let subject = format!("user:{}", generation.user_id);
    let tokens = usage.input + usage.output;
    quota::settle(
        tx,
        &subject,
        generation.window_start,
        generation.reserved_tokens,
        tokens,
        !nothing,
    )
    .await?;
    let cost = app
        .plans
        .price(&generation.model)
        .of(usage.input, usage.output);
    let provider = if app.simulated.llm {
        "simulated"
    } else {
        "openai"
    };
    db::usage::charge(
        tx,
        generation.id,
        generation.user_id,
        provider,
        &generation.model,
        usage.input,
        usage.output,
        cost,
        source,
        app.now(),
    )
    .await?;
    for (kind, n) in [("input", usage.input), ("output", usage.output)] {
        metrics::counter!("llm_tokens_total", "kind" => kind).increment(n.max(0) as u64);
    }
    metrics::counter!("llm_cost_microusd_total", "model" => generation.model.clone())
        .increment(cost.max(0) as u64);
    Ok(usage)
}

impl Accepted {
    /// Waits for the end: what came, why it ended, and its tokens.
    pub async fn whole(&self) -> Result<(Answer, String, Usage)> {
        let mut answer = Answer::default();
        let mut reader = self.log.read();
        while let Some((_, event)) = reader.next().await {
            match &*event {
                Event::Delta(delta) => answer.take(delta),
                Event::Finish { reason, usage } => return Ok((answer, reason.clone(), *usage)),
                Event::Error(failure) => return Err(failure.clone().into()),
            }
        }
        Err(Failure::Interrupted.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn taken(deltas: impl IntoIterator<Item = Value>) -> Answer {
        let mut answer = Answer::default();
        for delta in deltas {
            answer.take(delta.as_object().unwrap());
        }
        answer
    }

    /// A text in pieces, none of them empty.
    fn pieces(text: &str, size: usize) -> Vec<String> {
        let chars: Vec<_> = text.chars().collect();
        chars
            .chunks(size)
            .map(|piece| piece.iter().collect())
            .collect()
    }

    proptest! {
        #[test]
        fn an_answer_is_the_same_in_whatever_pieces_it_came(text in "\\PC{0,60}", arguments in prop::collection::vec("\\PC{1,40}", 0..4), size in 1..9usize) {
            let words = pieces(&text, size).into_iter().map(|piece| json!({"content": piece}));
            let begin = arguments.iter().enumerate().map(|(index, _)| {
                json!({"tool_calls": [{"index": index, "id": format!("call_{index}"), "type": "function", "function": {"name": "f"}}]})
            });
            // As they come from parallel calls: a piece of each in turn.
            let mut parts: Vec<_> = arguments.iter().map(|text| pieces(text, size).into_iter()).collect();
            let mut turns = vec![];
            while parts.iter().any(|left| left.len() > 0) {
                for (index, left) in parts.iter_mut().enumerate() {
                    turns.extend(left.next().map(|piece| json!({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})));
                }
            }

            let answer = taken(words.chain(begin).chain(turns));

            prop_assert_eq!(&answer.text, &text);
            let message = answer.message();
            let calls: Vec<_> = message["tool_calls"].as_array().into_iter().flatten().map(|call| (call["id"].clone(), call["function"]["arguments"].clone())).collect();
            let expected: Vec<_> = arguments.iter().enumerate().map(|(index, text)| (json!(format!("call_{index}")), json!(text))).collect();
            prop_assert_eq!(calls, expected);
        }
    }

    #[test]
    fn a_piece_that_belongs_to_no_call_is_let_go() {
        let answer =
            taken([json!({"tool_calls": [{"index": 3}, 7, {"index": 0, "function": null}]})]);
        assert!(answer.is_empty());
    }

    #[test]
    fn what_is_called_is_estimated_like_what_is_said() {
        let call = json!({"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}});
        assert!(
            taken([json!({"tool_calls": [call]})]).estimated_tokens()
                > taken([]).estimated_tokens()
        );
    }
}
