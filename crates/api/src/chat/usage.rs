use super::{quota::Period, subject};
use crate::{
    App, Result,
    billing::{entitlements, plans::Limits},
    extract::{Asker, Json, Time},
};
use axum::extract::State;
use db::usage::{Amount, Sum, Window};
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
    /// In millionths of a dollar.
    cost: Metric,
    /// What the period cost so far, in millionths of a dollar: `cost.used`.
    cost_microusd: i64,
    /// Those that were asked, or that the plan limits.
    models: Vec<OfModel>,
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

#[derive(Serialize, ToSchema)]
#[schema(as = UsageOfModel)]
struct OfModel {
    model: String,
    /// Answered since the period began, whenever they were asked.
    messages: i64,
    input_tokens: i64,
    output_tokens: i64,
    cost_microusd: i64,
    /// What the plan allows of this model besides; null where it sets no limit.
    limits: Option<ModelLimits>,
}

#[derive(Serialize, ToSchema)]
struct ModelLimits {
    messages: Metric,
    tokens: Metric,
    cost: Metric,
}

/// What the user has used of their plan in this period.
#[utoipa::path(get, path = "/api/usage", tag = "chat", responses((status = 200, body = Usage)))]
async fn usage(State(app): State<App>, Asker(auth): Asker) -> Result<Json<Usage>> {
    let period = Period::of(app.now());
    let plan = entitlements::plan_of(&app, auth.user).await?;
    let windows = db::usage::windows(&app.db, &subject(&auth), period.start).await?;
    let spent = db::usage::spent_by_model(&app.db, auth.user, period.start).await?;

    let window = |model: &str| windows.iter().find(|window| window.model == model);
    let [messages, tokens, cost] = metrics(window(""), plan.limits());
    let asked = spent.iter().filter_map(|sum| sum.key.as_deref());
    let limited = plan
        .limited()
        .filter(|model| !spent.iter().any(|sum| sum.key.as_deref() == Some(*model)));
    let mut models: Vec<_> = asked.chain(limited).collect();
    models.sort_unstable();
    let models = models.into_iter().map(|model| {
        let sum = spent.iter().find(|sum| sum.key.as_deref() == Some(model));
        let limits = plan.limits_of(model).map(|limits| {
            let counted = window(model).cloned();
            // Before the first question under a limit there is no window: the ledger knows.
            let counted = counted.or_else(|| sum.map(|sum| counted_by(sum, period)));
            let [messages, tokens, cost] = metrics(counted.as_ref(), limits);
            ModelLimits {
                messages,
                tokens,
                cost,
            }
        });
        of_model(model, sum, limits)
    });
    Ok(Json(Usage {
        plan: plan.name.clone(),
        period_start: period.start.into(),
        period_end: period.end.into(),
        cost_microusd: cost.used,
        messages,
        tokens,
        cost,
        models: models.collect(),
    }))
}

fn metrics(window: Option<&Window>, limits: Limits) -> [Metric; 3] {
    let (used, reserved) = window.map_or((Amount::default(), Amount::default()), |window| {
        (window.used(), window.reserved())
    });
    let metric = |of: fn(Amount) -> i64, limit: u32| {
        let (used, reserved) = (of(used), of(reserved));
        let limit = (limit > 0).then_some(limit);
        Metric {
            used,
            reserved,
            limit,
            remaining: limit.map(|limit| (i64::from(limit) - used - reserved).max(0)),
        }
    };
    [
        metric(|amount| amount.messages, limits.messages),
        metric(|amount| amount.tokens, limits.tokens),
        metric(|amount| amount.microusd, limits.cost),
    ]
}

fn counted_by(sum: &Sum, period: Period) -> Window {
    Window {
        model: sum.key.clone().unwrap_or_default(),
        window_start: period.start,
        messages_used: sum.answers,
        messages_reserved: 0,
        tokens_used: sum.input_tokens + sum.output_tokens,
        tokens_reserved: 0,
        cost_used: sum.cost_microusd,
        cost_reserved: 0,
    }
}

fn of_model(model: &str, sum: Option<&Sum>, limits: Option<ModelLimits>) -> OfModel {
    let count = |of: fn(&Sum) -> i64| sum.map_or(0, of);
    OfModel {
        model: model.to_owned(),
        messages: count(|sum| sum.answers),
        input_tokens: count(|sum| sum.input_tokens),
        output_tokens: count(|sum| sum.output_tokens),
        cost_microusd: count(|sum| sum.cost_microusd),
        limits,
    }
}
