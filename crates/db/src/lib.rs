//! Every table and every SQL text of Plinth, for SQLite and for PostgreSQL.
//!
//! A statement is one text in the subset both engines share, declared with `sql!` as a typed
//! function. **The first parameter tells all: `&Db` reads, `&mut Tx` writes**, and the caller
//! decides where it commits:
//!
//! ```ignore
//! let user = db::users::by_id(&db, id).await?;
//!
//! let mut tx = db.begin().await?;
//! db::jobs::enqueue(&mut tx, &job).await?;
//! tx.commit().await?;   // what is acknowledged after this line is on disk
//! ```
//!
//! There is no compile-time checking with two engines. Instead every statement registers itself,
//! and [`check::verify`] proves all of them against a migrated database of either engine.
#![deny(missing_docs)]

#[macro_use]
mod macros;

pub mod backup;
mod bell;
pub mod check;
mod engine;
mod error;
mod migrate;
mod pooler;
mod postgres;
mod statement;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod timestamp;
pub mod transfer;
mod url;
mod writer;

pub mod api_keys;
pub mod audit;
pub mod auth_codes;
pub mod backups;
pub mod billing;
pub mod checkouts;
pub mod conversations;
pub mod done_once;
pub mod factors;
pub mod features;
pub mod generations;
pub mod idempotency;
pub mod identities;
pub mod inbox;
pub mod jobs;
pub mod keys;
pub mod merging;
pub mod muted_addresses;
pub mod oauth_flows;
pub mod one_time_tokens;
pub mod passkeys;
pub mod prices;
pub mod profiles;
pub mod reconciling;
pub mod recovery_codes;
pub mod seen_tokens;
pub mod sessions;
pub mod usage;
pub mod users;
pub mod webauthn_factors;

pub use engine::{Db, Options, PoolState, Tx};
pub use error::{Error, Result};
pub use migrate::Applied;
pub use pooler::Pooling;
pub use sqlx::types::Json;
pub use timestamp::Timestamp;
pub use url::DatabaseUrl;

/// What a module of statements needs in scope.
mod prelude {
    pub(crate) use crate::statement::One;
    pub(crate) use crate::{Db, Result, Timestamp, Tx};
    pub use serde_json::Value;
    pub use sqlx::types::Json;
    pub use uuid::Uuid;
}
