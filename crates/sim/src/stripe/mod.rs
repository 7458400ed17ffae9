//! A Stripe of one's own: an account that holds what the API and the pages put into it, bills for it as
//! time passes, and tells of it. Things are shown in the shape of API version 2026-10-28.endive, where
//! the period is on the subscription's items, or in that of 2024: <https://docs.stripe.com/api>.

mod account;
mod api;
mod books;
mod call;
mod event;
mod expand;
mod life;
mod made_up;
mod pages;
mod params;
mod refusal;
mod seed;
mod state;
mod version;

use axum::Router;

pub use account::Account;
pub use books::AfterRetries;
pub use made_up::{Stripe, TYPES, builds, event};
pub(crate) use seed::PROMOTION_CODE;

pub const API_VERSION: &str = "2026-10-28.endive";

pub fn routes(account: Account) -> Router {
    Router::new()
        .merge(api::routes(account.clone()))
        .merge(pages::routes(account))
}
