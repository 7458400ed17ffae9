use super::{
    Action, Decision, Rule, Shape,
    growing::{Tries, kept},
};
use crate::app::Clock;
use governor::{
    Quota, RateLimiter, middleware::StateInformationMiddleware, nanos::Nanos,
    state::keyed::DashMapStateStore,
};
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

type Limiter = RateLimiter<String, DashMapStateStore<String>, Governed, StateInformationMiddleware>;

/// One instance's own count.
pub struct Memory {
    limiters: HashMap<Action, Limiter>,
    growing: Mutex<HashMap<(Action, String), Tries>>,
    /// How long a row of tries is kept after its last, at most.
    kept: Duration,
    clock: Governed,
}

impl Memory {
    pub fn new(rules: &[Rule], clock: Clock) -> Self {
        let clock = Governed(clock);
        let (even, growing): (Vec<_>, Vec<_>) =
            rules.iter().partition(|rule| rule.shape == Shape::Even);
        let limiter = |rule: &&Rule| {
            let quota =
                Quota::with_period(rule.period / rule.requests.get())?.allow_burst(rule.requests);
            Some((
                rule.action,
                Limiter::new(quota, DashMapStateStore::default(), clock.clone()),
            ))
        };
        Self {
            limiters: even.iter().filter_map(limiter).collect(),
            growing: Mutex::default(),
            kept: growing.into_iter().map(kept).max().unwrap_or_default(),
            clock,
        }
    }

    fn tries(&self) -> MutexGuard<'_, HashMap<(Action, String), Tries>> {
        self.growing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn decide(&self, rule: &Rule, key: &str) -> Decision {
        if rule.shape == Shape::Growing {
            let mut all = self.tries();
            let tries = all.entry((rule.action, key.to_owned())).or_default();
            return tries.decide(rule, self.clock.0.now());
        }
        let Some(limiter) = self.limiters.get(&rule.action) else {
            return Decision {
                allowed: true,
                remaining: 0,
                retry_after: Duration::ZERO,
            };
        };
        match limiter.check_key(&key.to_owned()) {
            Ok(state) => Decision {
                allowed: true,
                remaining: state.remaining_burst_capacity(),
                retry_after: Duration::ZERO,
            },
            Err(until) => {
                let retry_after = until.wait_time_from(governor::clock::Clock::now(&self.clock));
                Decision {
                    allowed: false,
                    remaining: 0,
                    retry_after,
                }
            }
        }
    }

    pub fn forget(&self, rule: &Rule, key: &str) {
        self.tries().remove(&(rule.action, key.to_owned()));
    }

    pub fn shed(&self) {
        let now = self.clock.0.now();
        let mut tries = self.tries();
        tries.retain(|_, tries| !tries.are_over(self.kept, now));
        tries.shrink_to_fit();
        for limiter in self.limiters.values() {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }

    #[cfg(test)]
    pub fn keys(&self) -> usize {
        let even: usize = self.limiters.values().map(|limiter| limiter.len()).sum();
        even + self.tries().len()
    }
}

/// The instance's clock, as governor wants to ask it.
#[derive(Clone)]
struct Governed(Clock);

impl governor::clock::Clock for Governed {
    type Instant = Nanos;
    fn now(&self) -> Nanos {
        Nanos::from(Duration::from_micros(self.0.now().as_micros().max(0) as u64))
    }
}
