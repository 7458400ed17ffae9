//! What an admin does to users, in GoTrue's shapes: `supabase.auth.admin` is a client.
use crate::App;
use utoipa_axum::router::OpenApiRouter;

mod ban;
mod create;
mod list;
mod page;
mod show;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(utoipa_axum::routes!(list::list, create::create))
        .routes(utoipa_axum::routes!(show::show))
}
