//! Who makes an answer: asks the provider, writes down what it says, and settles.
use super::{
    Place,
    settling::{Ended, close, status, was_asked},
};
use crate::{
    App, Result,
    chat::{
        llm::{By, Failure, Said, Usage},
        scrub::Scrub,
        stream::{Event, Log},
    },
    idempotency::Keyed,
};
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

/// How it ended.
enum End {
    Finished(String),
    /// A client, or the end of the process, asked for it.
    Stopped,
    Failed(Failure),
}

pub struct Producer {
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
    pub fn new(app: App, log: Arc<Log>, user: Uuid, place: Option<Place>) -> Self {
        Self {
            app,
            log,
            user,
            place,
            usage: None,
            by: None,
        }
    }

    /// Makes the answer, settles it, and then says that it is over.
    pub async fn run(mut self, request: Map<String, Value>, keyed: Option<Keyed>) {
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
                keyed
                    .complete(&self.app, &mut tx, &kept.to_string())
                    .await?;
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
