//! What an admin does to users, in GoTrue's shapes: `supabase.auth.admin` is a client. Beside it, under
//! `/api/admin`, what GoTrue has no word for.
use crate::App;
use utoipa_axum::{router::OpenApiRouter, routes};

mod audit;
mod ban;
mod bans;
pub mod bootstrap;
mod create;
mod delete;
mod factors;
mod impersonate;
mod list;
mod page;
mod passkeys;
mod search;
mod sessions;
mod show;
mod update;

pub use bans::reason;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list::list, create::create))
        .routes(routes!(show::show, update::update, delete::delete))
        .routes(routes!(audit::numbered))
        .routes(routes!(audit::list))
        .routes(routes!(search::search))
        .routes(routes!(search::show))
        .routes(routes!(bans::ban))
        .routes(routes!(bans::unban))
        .routes(routes!(factors::list))
        .routes(routes!(factors::delete))
        .routes(routes!(passkeys::list))
        .routes(routes!(passkeys::delete))
        .routes(routes!(sessions::list))
        .routes(routes!(sessions::end))
        .routes(routes!(impersonate::impersonate))
}
