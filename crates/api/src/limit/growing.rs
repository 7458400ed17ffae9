//! Waits that grow with every try in a row: who guesses is slowed down more and more, who mistypes is
//! not, and nobody is kept out for good.
use super::{Decision, Rule};
use db::Timestamp;
use std::time::Duration;

pub const FIRST_WAIT: Duration = Duration::from_secs(1);

/// A row of tries is over when none came for so long.
pub fn kept(rule: &Rule) -> Duration {
    rule.period * 4
}

/// Tries of one key in a row.
#[derive(Default)]
pub struct Tries {
    so_far: u32,
    /// There may be no other before then.
    until: Option<Timestamp>,
    last: Option<Timestamp>,
}

impl Tries {
    /// Counts one more, unless it came too early.
    pub fn decide(&mut self, rule: &Rule, now: Timestamp) -> Decision {
        if self.are_over(kept(rule), now) {
            *self = Self::default();
        }
        if let Some(until) = self.until.filter(|until| *until > now) {
            return Decision {
                allowed: false,
                remaining: 0,
                retry_after: until.since(now),
            };
        }
        self.so_far = self.so_far.saturating_add(1);
        self.until = Some(now + wait(rule, self.so_far));
        self.last = Some(now);
        Decision {
            allowed: true,
            remaining: rule.requests.get().saturating_sub(self.so_far),
            retry_after: Duration::ZERO,
        }
    }

    pub fn are_over(&self, kept: Duration, now: Timestamp) -> bool {
        self.last.is_none_or(|last| last + kept <= now)
    }
}

fn wait(rule: &Rule, tries: u32) -> Duration {
    match tries.checked_sub(rule.requests.get()) {
        Some(doubled) => (FIRST_WAIT * 2_u32.pow(doubled.min(30))).min(rule.period),
        None => Duration::ZERO,
    }
}
