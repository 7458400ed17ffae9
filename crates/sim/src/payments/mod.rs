//! What the providers of payments share: the clock, the post, what can go wrong, and the board to set it
//! from.

pub mod board;
pub mod clock;
pub mod faults;
pub mod outbox;
pub mod page;
