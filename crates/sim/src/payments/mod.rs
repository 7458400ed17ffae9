//! What the providers of payments share: the clock, the post, and what can go wrong.

pub mod clock;
pub mod faults;
pub mod outbox;
