//! Leaves a route alone that fails for everyone: a provider's model, asked with one key.
use db::Timestamp;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use uuid::Uuid;

/// What is older says nothing about now.
const WINDOW: Duration = Duration::from_secs(30);
/// So many of its own faults, and half of all outcomes, open it.
const FAULTS: usize = 5;
const LEFT_ALONE: Duration = Duration::from_secs(10);
/// The newest outcomes are enough of a sample.
const SAMPLE: usize = 128;

/// Closed; open until a time; then half open, for one probe.
#[derive(Default)]
pub struct Breaker(Mutex<State>);

#[derive(Default)]
struct State {
    outcomes: VecDeque<Outcome>,
    open_until: Option<Timestamp>,
    /// More than one caller met the faults that opened it.
    several: bool,
    probing: bool,
}

struct Outcome {
    at: Timestamp,
    /// Who met it; `None` when it went well.
    fault_of: Option<Uuid>,
}

/// Leave to ask. Dropped without an outcome, it was the caller who left.
pub struct Leave {
    breaker: Arc<Breaker>,
    caller: Uuid,
    probe: bool,
}

impl Breaker {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while it was held left whole fields.
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Leave to ask now, or the pause after which it may be had. What one caller alone met does not
    /// keep anyone from the last route.
    pub fn admit(
        self: &Arc<Self>,
        caller: Uuid,
        is_last: bool,
        now: Timestamp,
    ) -> Result<Leave, Duration> {
        let mut state = self.state();
        let probe = match state.open_until {
            Some(_) if is_last && !state.several => false,
            Some(until) if now < until => return Err(until.since(now)),
            Some(_) if state.probing => return Err(Duration::from_secs(1)),
            Some(_) => true,
            None => false,
        };
        state.probing |= probe;
        drop(state);
        Ok(Leave {
            breaker: self.clone(),
            caller,
            probe,
        })
    }

    pub fn is_open(&self, now: Timestamp) -> bool {
        let state = self.state();
        state.several && state.open_until.is_some_and(|until| now < until)
    }

    /// Whether it remembers nothing that counts.
    pub fn is_idle(&self, now: Timestamp) -> bool {
        let mut state = self.state();
        state.forget(now);
        state.outcomes.is_empty() && state.open_until.is_none()
    }
}

impl State {
    fn forget(&mut self, now: Timestamp) {
        while let Some(oldest) = self.outcomes.front()
            && (self.outcomes.len() > SAMPLE || now.since(oldest.at) >= WINDOW)
        {
            self.outcomes.pop_front();
        }
    }

    fn note(&mut self, at: Timestamp, fault_of: Option<Uuid>) {
        self.outcomes.push_back(Outcome { at, fault_of });
        self.forget(at);
    }
}

impl Leave {
    /// It began to answer.
    pub fn answered(&mut self, now: Timestamp) {
        let mut state = self.breaker.state();
        if std::mem::take(&mut self.probe) {
            *state = State::default();
        }
        state.note(now, None);
        // What one caller met alone is over as soon as somebody is answered.
        if !state.several {
            state.open_until = None;
        }
    }

    /// It failed by its own fault, before or within its answer. `true` when that opened it.
    pub fn failed(&mut self, now: Timestamp) -> bool {
        let mut state = self.breaker.state();
        state.note(now, Some(self.caller));
        let faults = || state.outcomes.iter().filter_map(|outcome| outcome.fault_of);
        let count = faults().count();
        let several = faults().any(|caller| caller != self.caller);
        let opens = count >= FAULTS && count * 2 >= state.outcomes.len();
        let probe = std::mem::take(&mut self.probe);
        if probe {
            state.probing = false;
        }
        state.several |= several && opens;
        let was_open = state.open_until.is_some_and(|until| now < until);
        if (opens && !was_open) || probe {
            state.open_until = Some(now + LEFT_ALONE);
            return !was_open;
        }
        false
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        if self.probe {
            self.breaker.state().probing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix(1_795_167_000);
    const MS: Duration = Duration::from_millis(1);
    const ADA: Uuid = Uuid::from_u128(1);
    const BOB: Uuid = Uuid::from_u128(2);

    fn after(seconds: u64) -> Timestamp {
        NOW + Duration::from_secs(seconds)
    }

    impl Breaker {
        fn fault(self: &Arc<Self>, caller: Uuid, at: Timestamp) -> bool {
            let leave = self.admit(caller, true, at);
            leave.is_ok_and(|mut leave| leave.failed(at))
        }

        fn answer(self: &Arc<Self>, caller: Uuid, at: Timestamp) {
            self.admit(caller, true, at).ok().unwrap().answered(at);
        }

        fn asks(self: &Arc<Self>, caller: Uuid, at: Timestamp) -> bool {
            self.admit(caller, true, at).is_ok()
        }
    }

    fn opened() -> Arc<Breaker> {
        let breaker = Arc::new(Breaker::default());
        let opened = [ADA, BOB, ADA, BOB, ADA].map(|caller| breaker.fault(caller, NOW));
        assert_eq!(opened, [false, false, false, false, true]);
        breaker
    }

    /// Invariant 28.

    #[test]

    fn it_opens_at_the_fifth_fault_for_ten_seconds_and_then_lets_one_probe_through() {
        let breaker = opened();
        assert!(!breaker.asks(ADA, NOW) && !breaker.asks(BOB, after(10) - MS));
        assert_eq!(
            breaker.admit(ADA, true, after(4)).err(),
            Some(Duration::from_secs(6))
        );

        let mut probe = breaker.admit(ADA, true, after(10)).ok().unwrap();
        assert!(!breaker.asks(BOB, after(10)), "one probe at a time");
        probe.answered(after(11));

        assert!(breaker.asks(BOB, after(11)) && breaker.asks(ADA, after(11)));
        assert!(!breaker.fault(BOB, after(12)), "it begins anew");
    }

    #[test]
    fn a_probe_that_fails_opens_it_again_and_one_that_is_given_up_is_nothing() {
        let breaker = opened();
        drop(breaker.admit(ADA, true, after(10)));
        assert!(breaker.fault(BOB, after(10)), "the next one is a probe too");

        assert!(!breaker.asks(ADA, after(20) - MS));
        assert!(breaker.asks(ADA, after(20)));
    }

    #[test]
    fn half_of_the_outcomes_and_no_less_open_it() {
        let breaker = Arc::new(Breaker::default());
        for _ in 0..6 {
            breaker.answer(ADA, NOW);
        }
        for caller in [ADA, BOB, ADA, BOB, ADA] {
            assert!(!breaker.fault(caller, NOW));
        }
        assert!(breaker.fault(BOB, NOW), "six of twelve");
    }

    #[test]
    fn faults_that_are_half_a_minute_apart_do_not_add_up() {
        let breaker = Arc::new(Breaker::default());
        for n in 0..20 {
            let caller = if n % 2 == 0 { ADA } else { BOB };
            assert!(!breaker.fault(caller, after(n * 8)));
        }
        assert!(breaker.asks(ADA, after(160)) && breaker.is_idle(after(190)));
    }

    #[test]
    fn one_caller_does_not_keep_anyone_from_the_last_route() {
        let breaker = Arc::new(Breaker::default());
        for _ in 0..20 {
            breaker.fault(ADA, NOW);
        }
        assert!(breaker.asks(BOB, NOW) && breaker.asks(ADA, NOW));
        assert!(!breaker.is_open(NOW));
        assert!(
            breaker.admit(BOB, false, NOW).is_err(),
            "where there is another route, that one is taken"
        );

        breaker.fault(BOB, NOW);
        assert!(!breaker.asks(BOB, NOW), "two have met it");
        assert!(breaker.is_open(NOW));
    }
}
