use super::{
    phones,
    reconcile::{self, Report},
    revenuecat_api, stripe_api,
};
use crate::{
    App, Error, Result,
    auth::{audit, session::Client},
    extract::{Admin, Json, Path, Query},
};
use axum::extract::State;
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(reconcile))
}

#[derive(Deserialize, IntoParams)]
struct How {
    /// Say what differs, and change nothing.
    #[serde(default)]
    dry_run: bool,
}

/// Compare what is kept of a user's subscriptions with what Stripe and RevenueCat say, and make it so.
#[utoipa::path(post, path = "/api/admin/billing/users/{id}/reconcile", tag = "admin", params(("id" = Uuid, Path), How),
    responses((status = 200, body = Report), (status = 404), (status = 503)))]
async fn reconcile(
    State(app): State<App>,
    admin: Admin,
    client: Client,
    Path(id): Path<Uuid>,
    Query(how): Query<How>,
) -> Result<Json<Report>> {
    if app.stripe.is_none() && app.revenuecat.is_none() {
        return Err(Error::BillingNotConfigured);
    }
    db::users::by_id(&app.db, id)
        .await?
        .ok_or(Error::UserNotFound)?;

    let mut report = Report::of(how.dry_run);
    if let Some(api) = &app.stripe {
        let compared = reconcile::user(&app, api, id, &mut report).await;
        compared.map_err(said)?;
    }
    if let Some(api) = &app.revenuecat {
        let compared = phones::user(&app, api, id, &mut report).await;
        compared.map_err(said)?;
    }
    if !how.dry_run {
        let detail = json!({"compared": report.compared, "drift": report.drift.len()});
        let (action, now) = ("billing_reconciled", app.now());
        let mut tx = app.db.begin().await?;
        audit::by_admin(&mut tx, &client, action, &admin, Some(id), detail, now).await?;
        tx.commit().await?;
    }
    Ok(Json(report))
}

/// That a provider cannot be asked is no fault of ours.
fn said(error: anyhow::Error) -> Error {
    match error.downcast::<stripe_api::Failure>() {
        Ok(failure) => failure.into(),
        Err(error) => match error.downcast::<revenuecat_api::Failure>() {
            Ok(failure) => failure.into(),
            Err(error) => Error::Internal(error),
        },
    }
}
