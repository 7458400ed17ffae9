//! An answer as it comes. Dropping it closes the connection to the provider.
use super::{
    Attempt, Broken, By, Failure, Said, Won,
    breaker::Leave,
    call::{Begun, Reading},
};
use crate::app::Clock;
use bytes::Bytes;
use futures_util::Stream;
use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, Sleep},
};

/// For what it cost, behind what it said. Some servers never close.
const AFTER_FINISH: Duration = Duration::from_secs(2);

/// What a provider says, ended by its own end or the first failure. After the first word there is
/// no other provider.
pub struct Answer {
    /// Who says it.
    pub by: By,
    /// All who were asked, in order; this one is the last.
    pub attempts: Vec<Attempt>,
    bytes: Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>,
    reading: Reading,
    ready: VecDeque<Said>,
    broken: Option<Broken>,
    over: bool,
    idle: Duration,
    /// When it was last heard of.
    heard_at: Instant,
    silence: Pin<Box<Sleep>>,
    leave: Leave,
    clock: Clock,
    _permit: OwnedSemaphorePermit,
}

impl Answer {
    pub(super) fn new(won: Won<Begun>, clock: Clock, idle: Duration) -> Self {
        let Begun {
            bytes,
            reading,
            ready,
            broken,
        } = won.value;
        Self {
            by: won.by,
            attempts: won.attempts,
            over: reading.is_done(),
            bytes,
            reading,
            ready,
            broken,
            idle,
            heard_at: Instant::now(),
            silence: Box::pin(tokio::time::sleep(idle)),
            leave: won.leave,
            clock,
            _permit: won.permit,
        }
    }

    fn patience(&self) -> Duration {
        if self.reading.is_finished() {
            AFTER_FINISH.min(self.idle)
        } else {
            self.idle
        }
    }

    /// What comes next that is not ready: more, its end, or how it broke.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        match self.bytes.as_mut().poll_next(cx) {
            Poll::Ready(Some(Ok(bytes))) => {
                self.heard_at = Instant::now();
                let taken = self.reading.take(&bytes, &mut self.ready);
                self.over = self.reading.is_done();
                Poll::Ready(taken)
            }
            Poll::Ready(Some(Err(_))) => Poll::Ready(Err(Broken::cut("cut"))),
            Poll::Ready(None) => {
                self.over = true;
                let finished = self.reading.is_finished();
                Poll::Ready(if finished {
                    Ok(())
                } else {
                    Err(Broken::cut("ended"))
                })
            }
            Poll::Pending => {
                loop {
                    let until = self.heard_at + self.patience();
                    // Moved once a silence, not once a word.
                    if until < self.silence.deadline() || self.silence.is_elapsed() {
                        self.silence.as_mut().reset(until);
                    }
                    ready!(self.silence.as_mut().poll(cx));
                    if Instant::now() >= self.heard_at + self.patience() {
                        break;
                    }
                }
                Poll::Ready(Err(Broken {
                    failure: Failure::TimedOut,
                    outcome: "idle_timeout",
                }))
            }
        }
    }

    /// It broke: the provider's fault, unless it had said why it finished.
    fn end(&mut self, broken: Broken) -> Option<Result<Said, Failure>> {
        self.over = true;
        if self.reading.is_finished() {
            return None;
        }
        let provider = self.by.provider;
        metrics::counter!("llm_interrupted_total", "provider" => provider.name(), "outcome" => broken.outcome)
            .increment(1);
        tracing::warn!(%provider, model = %self.by.model, outcome = broken.outcome, "an answer was cut off");
        if let Some(last) = self.attempts.last_mut() {
            last.outcome = broken.outcome;
        }
        self.leave.failed(self.clock.now());
        Some(Err(broken.failure))
    }
}

impl Stream for Answer {
    type Item = Result<Said, Failure>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(said) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(said)));
            }
            if let Some(broken) = this.broken.take() {
                return Poll::Ready(this.end(broken));
            }
            if this.over {
                return Poll::Ready(None);
            }
            if let Err(broken) = ready!(this.poll_more(cx)) {
                this.broken = Some(broken);
            }
        }
    }
}
