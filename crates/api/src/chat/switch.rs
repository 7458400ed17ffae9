//! Whether the model may be asked at all, and what everyone together may cost. Read in the transaction
//! that accepts a question: a change counts for the next one, on every instance. What is being answered
//! is answered.
use super::quota::{DAY, MONTH, Period};
use crate::{
    App, Error, Result,
    auth::{audit, session::Client},
    error::Invalid,
    extract::{Admin, Json, Time},
};
use axum::extract::State;
use db::prices::Settings;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(show, change))
}

/// The switch and the budgets.
#[derive(Serialize, ToSchema)]
#[schema(as = LlmSettings)]
struct Llm {
    /// Whether anyone may ask the model.
    enabled: bool,
    /// When an admin last changed something here.
    updated_at: Option<Time>,
    day: Budget,
    month: Budget,
}

/// Everyone's cost in a period, in millionths of a dollar.
#[derive(Serialize, ToSchema)]
#[schema(as = LlmBudget)]
struct Budget {
    /// Null is no limit.
    budget_microusd: Option<i64>,
    /// As the ledger has it.
    spent_microusd: i64,
    /// Set aside for answers being made; counted where there is a budget.
    reserved_microusd: i64,
    /// When it starts anew.
    resets_at: Time,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = LlmChange)]
struct Change {
    /// Absent, as it is.
    #[serde(default)]
    enabled: Option<bool>,
    /// Millionths of a dollar that everyone together may cost in a day, in UTC; null is no limit, absent as it is.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<i64>)]
    budget_day_microusd: Option<Option<i64>>,
    /// The same in a calendar month.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<i64>)]
    budget_month_microusd: Option<Option<i64>>,
}

/// Tells null from absent.
fn present<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Option<i64>>, D::Error> {
    Option::deserialize(value).map(Some)
}

/// Whether the model may be asked, what it may cost, and what it did.
#[utoipa::path(get, path = "/api/admin/llm", tag = "admin", responses((status = 200, body = Llm)))]
async fn show(State(app): State<App>, _: Admin) -> Result<Json<Llm>> {
    stand(&app).await.map(Json)
}

/// Switch the model off or on, or give it a budget. Counts for the next question, on every instance;
/// answers being made are finished.
#[utoipa::path(put, path = "/api/admin/llm", tag = "admin", request_body = Change, responses((status = 200, body = Llm)))]
async fn change(
    State(app): State<App>,
    admin: Admin,
    client: Client,
    Json(change): Json<Change>,
) -> Result<Json<Llm>> {
    let budgets = [
        ("budget_day_microusd", change.budget_day_microusd),
        ("budget_month_microusd", change.budget_month_microusd),
    ];
    let negative = budgets
        .iter()
        .filter(|(_, budget)| budget.flatten().is_some_and(|budget| budget < 0))
        .map(|(field, _)| Invalid::new(field, "has to be 0 or more, or null"));
    let negative: Vec<_> = negative.collect();
    if !negative.is_empty() {
        return Err(Error::Invalid(negative));
    }
    if change.enabled.is_none() && budgets.iter().all(|(_, budget)| budget.is_none()) {
        return Err(Error::invalid("enabled", "has to be given, or a budget"));
    }

    let now = app.now();
    let mut tx = app.db.begin().await?;
    let before = db::prices::locked_settings(&mut tx).await?;
    let after = Settings {
        enabled: change.enabled.unwrap_or(before.enabled),
        budget_day_microusd: change
            .budget_day_microusd
            .unwrap_or(before.budget_day_microusd),
        budget_month_microusd: change
            .budget_month_microusd
            .unwrap_or(before.budget_month_microusd),
        updated_at: Some(now),
    };
    db::prices::set(
        &mut tx,
        after.enabled,
        after.budget_day_microusd,
        after.budget_month_microusd,
        now,
    )
    .await?;
    if !has_budget(&before) && has_budget(&after) {
        let (day, month) = (Period::day_of(now).start, Period::of(now).start);
        db::usage::begin_budget(&mut tx, [(DAY, day), (MONTH, month)], day).await?;
    }
    let detail = json!({"before": audited(&before), "after": audited(&after)});
    let action = "llm_settings_changed";
    audit::by_admin(&mut tx, &client, action, &admin, None, detail, now).await?;
    tx.commit().await?;

    stand(&app).await.map(Json)
}

fn has_budget(settings: &Settings) -> bool {
    settings.budget_day_microusd.is_some() || settings.budget_month_microusd.is_some()
}

fn audited(settings: &Settings) -> Value {
    json!({
        "enabled": settings.enabled,
        "budget_day_microusd": settings.budget_day_microusd,
        "budget_month_microusd": settings.budget_month_microusd,
    })
}

async fn stand(app: &App) -> Result<Llm> {
    let now = app.now();
    let settings = db::prices::settings(&app.db).await?;
    let budget = async |subject: &str, period: Period, budget| -> Result<Budget> {
        let windows = db::usage::windows(&app.db, subject, period.start).await?;
        let reserved = windows.first().map_or(0, |window| window.cost_reserved);
        Ok(Budget {
            budget_microusd: budget,
            spent_microusd: db::usage::spent_by_all(&app.db, period.start).await?.0,
            reserved_microusd: reserved,
            resets_at: period.end.into(),
        })
    };
    Ok(Llm {
        enabled: settings.enabled,
        updated_at: settings.updated_at.map(Into::into),
        day: budget(DAY, Period::day_of(now), settings.budget_day_microusd).await?,
        month: budget(MONTH, Period::of(now), settings.budget_month_microusd).await?,
    })
}
