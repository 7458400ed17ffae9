//! A RevenueCat of one's own: customers and what they bought on their phones, the API that says so, and
//! its webhook events: <https://www.revenuecat.com/docs/integrations/webhooks/event-types-and-fields>.

mod event;
mod life;
mod made_up;
mod project;
mod routes;
mod subscriber;

pub use life::{Act, Bought};
pub use made_up::{RevenueCat, TYPES, event};
pub use project::Project;
pub use routes::routes;
