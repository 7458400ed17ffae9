use super::{
    overview::{self, Billing},
    reread,
};
use crate::{App, Result, extract::Auth, extract::Json, limit::Action};
use axum::extract::State;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(sync))
}

/// Read anew what Stripe and RevenueCat know of the user, as after a purchase on a phone, before their
/// events arrive.
#[utoipa::path(post, path = "/api/billing/sync", tag = "billing",
    responses((status = 200, body = Billing), (status = 429), (status = 503)))]
async fn sync(State(app): State<App>, auth: Auth) -> Result<Json<Billing>> {
    let key = auth.user.to_string();
    app.limits.check(Action::BillingSync, &key).await?;

    if let Some(api) = &app.stripe {
        reread::user(&app, api, auth.user).await?;
    }
    if let Some(api) = &app.revenuecat {
        reread::purchases(&app, api, auth.user).await?;
    }

    overview::of_user(&app, auth.user).await.map(Json)
}
