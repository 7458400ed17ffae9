//! What the two providers may send, and what we make of it. The fixtures are invented, in the
//! shapes that the providers document; their secrets are good for nothing.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fixtures;
mod hostile;
mod revenuecat;
mod sendgrid;
mod signature;
mod stripe;
