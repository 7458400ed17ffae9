//! How far features are rolled out, and for whom it is decided by hand.
use super::{ALL, Feature, named};
use crate::{
    App, Error, Result,
    auth::{audit, session::Client},
    extract::{Admin, Json, Path, Time},
};
use axum::{extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

/// Overrides that are shown of one feature.
const SHOWN: i64 = 100;

#[derive(Serialize, ToSchema)]
pub struct Rollouts {
    data: Vec<Rollout>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = FeatureRollout)]
pub struct Rollout {
    name: &'static str,
    about: &'static str,
    /// Of all users, those who have it.
    percentage: i64,
    /// When an admin last said so; null is never.
    updated_at: Option<Time>,
    /// For whom it is decided by hand, the first 100.
    overrides: Vec<Override>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = FeatureOverride)]
struct Override {
    user_id: Uuid,
    enabled: bool,
}

/// Every feature, how far it is rolled out, and who has it by hand.
#[utoipa::path(get, path = "/api/admin/features", tag = "admin", responses((status = 200, body = Rollouts)))]
pub async fn list(State(app): State<App>, _: Admin) -> Result<Json<Rollouts>> {
    let mut data = vec![];
    for feature in ALL {
        data.push(rollout(&app, feature).await?);
    }
    Ok(Json(Rollouts { data }))
}

async fn rollout(app: &App, feature: &Feature) -> Result<Rollout> {
    let stored = db::features::rollout(&app.db, feature.name).await?;
    let overrides = db::features::overrides(&app.db, feature.name, SHOWN).await?;
    let own = |row: db::features::Override| Override {
        user_id: row.user_id,
        enabled: row.enabled,
    };
    Ok(Rollout {
        name: feature.name,
        about: feature.about,
        percentage: stored
            .as_ref()
            .map_or(feature.percentage, |row| row.percentage),
        updated_at: stored.map(|row| row.updated_at.into()),
        overrides: overrides.into_iter().map(own).collect(),
    })
}

#[derive(Deserialize, ToSchema)]
pub struct RollOut {
    /// 0 to 100.
    #[schema(minimum = 0, maximum = 100)]
    percentage: i64,
}

/// Roll a feature out to a percentage of all users. Who has it keeps it while the percentage grows.
#[utoipa::path(put, path = "/api/admin/features/{name}", tag = "admin", params(("name" = String, Path)), request_body = RollOut,
    responses((status = 200, body = Rollout), (status = 404)))]
pub async fn roll_out(
    State(app): State<App>,
    admin: Admin,
    client: Client,
    Path(name): Path<String>,
    Json(wanted): Json<RollOut>,
) -> Result<Json<Rollout>> {
    let feature = named(&name).ok_or(Error::NotFound)?;
    if !(0..=100).contains(&wanted.percentage) {
        return Err(Error::invalid("percentage", "has to be 0 to 100"));
    }

    let now = app.now();
    let mut tx = app.db.begin().await?;
    db::features::roll_out(&mut tx, feature.name, wanted.percentage, now).await?;
    let detail = json!({"feature": feature.name, "percentage": wanted.percentage});
    audit::by_admin(
        &mut tx,
        &client,
        "feature_rolled_out",
        &admin,
        None,
        detail,
        now,
    )
    .await?;
    tx.commit().await?;

    rollout(&app, feature).await.map(Json)
}

#[derive(Deserialize, ToSchema)]
pub struct Decision {
    enabled: bool,
}

/// Give one user a feature, or take it away, whatever the percentage.
#[utoipa::path(put, path = "/api/admin/features/{name}/users/{id}", tag = "admin", params(("name" = String, Path), ("id" = Uuid, Path)),
    request_body = Decision, responses((status = 204), (status = 404)))]
pub async fn decide(
    State(app): State<App>,
    admin: Admin,
    client: Client,
    Path((name, user)): Path<(String, Uuid)>,
    Json(decision): Json<Decision>,
) -> Result<StatusCode> {
    change(&app, &admin, &client, &name, user, Some(decision.enabled)).await
}

/// Leave it to the percentage again.
#[utoipa::path(delete, path = "/api/admin/features/{name}/users/{id}", tag = "admin", params(("name" = String, Path), ("id" = Uuid, Path)),
    responses((status = 204), (status = 404)))]
pub async fn undecide(
    State(app): State<App>,
    admin: Admin,
    client: Client,
    Path((name, user)): Path<(String, Uuid)>,
) -> Result<StatusCode> {
    change(&app, &admin, &client, &name, user, None).await
}

async fn change(
    app: &App,
    admin: &Admin,
    client: &Client,
    name: &str,
    user: Uuid,
    enabled: Option<bool>,
) -> Result<StatusCode> {
    let feature = named(name).ok_or(Error::NotFound)?;
    db::users::by_id(&app.db, user)
        .await?
        .ok_or(Error::NotFound)?;

    let now = app.now();
    let mut tx = app.db.begin().await?;
    match enabled {
        Some(enabled) => {
            db::features::decide(&mut tx, feature.name, user, enabled, now).await?;
        }
        None => {
            db::features::undecide(&mut tx, feature.name, user).await?;
        }
    }
    let detail = json!({"feature": feature.name, "enabled": enabled});
    audit::by_admin(
        &mut tx,
        client,
        "feature_decided",
        admin,
        Some(user),
        detail,
        now,
    )
    .await?;
    tx.commit().await?;

    Ok(StatusCode::NO_CONTENT)
}
