use super::{quota::Period, subject};
use crate::{
    App, Result,
    billing::entitlements,
    extract::{Asker, Json, Time},
};
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(usage))
}

#[derive(Serialize, ToSchema)]
struct Usage {
    plan: String,
    period_start: Time,
    /// When the limits start anew.
    period_end: Time,
    messages: Metric,
    tokens: Metric,
    /// What the period cost, in millionths of a dollar.
    cost_microusd: i64,
}

#[derive(Serialize, ToSchema)]
struct Metric {
    used: i64,
    /// Set aside for answers being made.
    reserved: i64,
    /// Null is no limit.
    limit: Option<u32>,
    remaining: Option<i64>,
}

/// What the user has used of their plan in this period.
#[utoipa::path(get, path = "/api/usage", tag = "chat", responses((status = 200, body = Usage)))]
async fn usage(State(app): State<App>, Asker(auth): Asker) -> Result<Json<Usage>> {
    let period = Period::of(app.now());
    let plan = entitlements::plan_of(&app, auth.user).await?;
    let windows = db::usage::windows(&app.db, &subject(&auth), period.start).await?;
    let spent = db::usage::spent(&app.db, auth.user, period.start).await?;

    let metric = |name: &str, limit: u32| {
        let (used, reserved) = windows
            .iter()
            .find(|w| w.metric == name)
            .map_or((0, 0), |w| (w.used, w.reserved));
        let limit = (limit > 0).then_some(limit);
        Metric {
            used,
            reserved,
            limit,
            remaining: limit.map(|limit| (i64::from(limit) - used - reserved).max(0)),
        }
    };
    Ok(Json(Usage {
        plan: plan.name.clone(),
        period_start: period.start.into(),
        period_end: period.end.into(),
        messages: metric("messages", plan.messages),
        tokens: metric("tokens", plan.tokens),
        cost_microusd: spent.cost_microusd,
    }))
}
