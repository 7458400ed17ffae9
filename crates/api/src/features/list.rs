use super::{ALL, decision};
use crate::{
    App, Result,
    extract::{Auth, Json},
};
use axum::extract::State;
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

#[derive(Serialize, ToSchema)]
pub struct Features {
    /// Whether the user has it, by name.
    features: BTreeMap<&'static str, bool>,
}

/// Which features the user has.
#[utoipa::path(get, path = "/api/features", tag = "features", responses((status = 200, body = Features)))]
pub async fn list(State(app): State<App>, auth: Auth) -> Result<Json<Features>> {
    let overrides = db::features::overrides_of(&app.db, auth.user).await?;
    let rollouts = db::features::rollouts(&app.db).await?;
    let features = ALL.iter().map(|feature| {
        let rollout = rollouts.iter().find(|rollout| rollout.name == feature.name);
        let percentage = rollout.map_or(feature.percentage, |rollout| rollout.percentage);
        let has = decision(feature, auth.user, percentage, &overrides);
        (feature.name, has)
    });
    Ok(Json(Features {
        features: features.collect(),
    }))
}
