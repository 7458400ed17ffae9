//! One request on its way: to one provider after another, with its keys in turn, until the first word.
use super::{
    Attempt, Backend, By, Failed, Failure, Llm, Next, RETRY_AFTER, breaker::Leave, call::Call,
};
use std::{
    future::Future,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};
use uuid::Uuid;

/// Times that one provider is asked before the first word; after it nothing is tried again.
const ATTEMPTS: u32 = 3;
/// A provider that asks for a longer pause is not waited for.
const MAX_PAUSE: Duration = Duration::from_secs(20);
/// Pauses between attempts: a random part of twice the last one's.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// An attempt that came to something.
pub struct Won<T> {
    pub value: T,
    pub by: By,
    pub attempts: Vec<Attempt>,
    pub leave: Leave,
    pub permit: OwnedSemaphorePermit,
}

/// One request on its way from route to route.
pub struct Asking<'a> {
    llm: &'a Llm,
    caller: Uuid,
    attempts: Vec<Attempt>,
    /// The newest.
    pub failure: Option<Failure>,
}

pub enum Asked<T> {
    Won(Won<T>),
    /// And nobody else needs to be asked.
    Refused(Failure),
    Next,
}

impl<'a> Asking<'a> {
    pub fn new(llm: &'a Llm, caller: Uuid) -> Self {
        Self {
            llm,
            caller,
            attempts: vec![],
            failure: None,
        }
    }

    /// Asks one provider, with its keys in turn, again after pauses, until its time for the first
    /// word is up.
    pub async fn of<T, F>(
        &mut self,
        backend: &Arc<Backend>,
        model: &str,
        is_last: bool,
        attempt: &impl Fn(Call) -> F,
    ) -> Asked<T>
    where
        F: Future<Output = Result<T, Failed>>,
    {
        let by = By {
            provider: backend.provider,
            model: model.into(),
        };
        let deadline = Instant::now() + self.llm.first_token;
        let (mut spent, mut pauses) = (Vec::new(), 0);
        loop {
            let (key, mut leave) = match self.key(backend, model, &spent, is_last) {
                Ok(found) => found,
                Err(retry_after) => {
                    let left_alone = || Failure::Unavailable { retry_after };
                    self.failure.get_or_insert_with(left_alone);
                    return Asked::Next;
                }
            };
            let Some(permit) = backend.permit(deadline).await else {
                self.note(&by, "too_many_in_flight");
                self.failure = Some(Failure::unavailable());
                return Asked::Next;
            };
            let Ok(client) = self.llm.http.get() else {
                // The machine has no certificates to judge anybody by.
                self.note(&by, "unreachable");
                self.failure = Some(Failure::unavailable());
                return Asked::Next;
            };
            let call = Call {
                client: client.clone(),
                backend: backend.clone(),
                key,
                model: by.model.clone(),
                deadline,
            };
            let failed = match attempt(call).await {
                Ok(value) => {
                    leave.answered(self.llm.clock.now());
                    backend.current.store(key, Ordering::Relaxed);
                    self.note(&by, "answered");
                    return Asked::Won(Won {
                        value,
                        by,
                        attempts: std::mem::take(&mut self.attempts),
                        leave,
                        permit,
                    });
                }
                Err(failed) => failed,
            };
            drop(permit);
            self.note(&by, failed.outcome);
            if failed.is_fault && leave.failed(self.llm.clock.now()) {
                tracing::error!(provider = %by.provider, model, key, "a language model failed repeatedly and is left alone");
            }
            drop(leave);
            let pause = match failed.next {
                Next::Nothing => return Asked::Refused(failed.failure),
                Next::OtherRoute => None,
                Next::OtherKey => {
                    spent.push(key);
                    (spent.len() < backend.keys.len()).then_some(Duration::ZERO)
                }
                // Another key has limits of its own.
                Next::Again(_)
                    if failed.outcome == "rate_limited" && spent.len() + 1 < backend.keys.len() =>
                {
                    spent.push(key);
                    Some(Duration::ZERO)
                }
                Next::Again(after) => {
                    pauses += 1;
                    let pause = after.max(jittered(pauses));
                    (pauses < ATTEMPTS && pause <= MAX_PAUSE).then_some(pause)
                }
            };
            self.failure = Some(failed.failure);
            match pause.filter(|pause| Instant::now() + *pause < deadline) {
                Some(Duration::ZERO) => {}
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Asked::Next,
            }
        }
    }

    /// The first key from the current one on that is not spent and not left alone; or when one
    /// might be had.
    fn key(
        &self,
        backend: &Backend,
        model: &str,
        spent: &[usize],
        is_last: bool,
    ) -> Result<(usize, Leave), Duration> {
        let now = self.llm.clock.now();
        let (first, count) = (backend.current.load(Ordering::Relaxed), backend.keys.len());
        let mut soonest = None;
        for key in (0..count).map(|at| (first + at) % count) {
            if spent.contains(&key) {
                continue;
            }
            let is_last = is_last && spent.len() + 1 >= count;
            let breaker = backend.keys[key].breaker(model, now);
            match breaker.admit(self.caller, is_last, now) {
                Ok(leave) => return Ok((key, leave)),
                Err(pause) => {
                    soonest = Some(soonest.map_or(pause, |soonest: Duration| soonest.min(pause)));
                }
            }
        }
        Err(soonest.unwrap_or(RETRY_AFTER))
    }

    fn note(&mut self, by: &By, outcome: &'static str) {
        metrics::counter!("llm_attempts_total", "provider" => by.provider.name(), "outcome" => outcome)
            .increment(1);
        self.attempts.push(Attempt {
            by: by.clone(),
            outcome,
        });
    }
}

/// Full jitter: clients that failed together do not come back together.
fn jittered(pause: u32) -> Duration {
    let longest = (FIRST_PAUSE * 2_u32.pow(pause.min(6) - 1)).min(LONGEST_PAUSE);
    longest.mul_f64(rand::random())
}
