use super::{Action, Decision, Rule};
use crate::app::Clock;
use governor::{
    Quota, RateLimiter, middleware::StateInformationMiddleware, nanos::Nanos,
    state::keyed::DashMapStateStore,
};
use std::{collections::HashMap, time::Duration};

type Limiter = RateLimiter<String, DashMapStateStore<String>, Governed, StateInformationMiddleware>;

/// One instance's own count.
pub struct Memory {
    limiters: HashMap<Action, Limiter>,
    clock: Governed,
}

impl Memory {
    pub fn new(rules: &[Rule], clock: Clock) -> Self {
        let clock = Governed(clock);
        let limiter = |rule: &Rule| {
            let quota =
                Quota::with_period(rule.period / rule.requests.get())?.allow_burst(rule.requests);
            Some((
                rule.action,
                Limiter::new(quota, DashMapStateStore::default(), clock.clone()),
            ))
        };
        Self {
            limiters: rules.iter().filter_map(limiter).collect(),
            clock,
        }
    }

    pub fn decide(&self, rule: &Rule, key: &str) -> Decision {
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

    pub fn shed(&self) {
        for limiter in self.limiters.values() {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }

    #[cfg(test)]
    pub fn keys(&self) -> usize {
        self.limiters.values().map(|limiter| limiter.len()).sum()
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
