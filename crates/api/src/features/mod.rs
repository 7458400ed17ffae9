//! Parts of the product that not everyone has yet: rolled out to a percentage of all users, on or off for
//! single ones by an admin's hand. A feature is a constant here; `has` asks for it.
use crate::App;
use db::{Db, features::Override};
use sha2::{Digest, Sha256};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

mod admin;
mod list;
#[cfg(test)]
mod tests;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list::list))
        .routes(routes!(admin::list))
        .routes(routes!(admin::roll_out))
        .routes(routes!(admin::decide, admin::undecide))
}

pub struct Feature {
    /// Never used again for another.
    pub name: &'static str,
    pub about: &'static str,
    /// Per cent of users who have it until an admin says otherwise.
    pub percentage: i64,
}

/// Conversations get their titles from the model.
pub const MODEL_TITLES: Feature = Feature {
    name: "model_titles",
    about: "Conversations get their titles from the model",
    percentage: 100,
};

/// Every feature there is.
pub const ALL: &[&Feature] = &[&MODEL_TITLES];

fn named(name: &str) -> Option<&'static Feature> {
    ALL.iter().copied().find(|feature| feature.name == name)
}

/// Whether a user has a feature.
pub async fn has(db: &Db, feature: &Feature, user: Uuid) -> db::Result<bool> {
    let overrides = db::features::overrides_of(db, user).await?;
    let rollout = db::features::rollout(db, feature.name).await?;
    let percentage = rollout.map_or(feature.percentage, |rollout| rollout.percentage);
    Ok(decision(feature, user, percentage, &overrides))
}

/// By hand, or by the user's place in the rollout.
fn decision(feature: &Feature, user: Uuid, percentage: i64, overrides: &[Override]) -> bool {
    let by_hand = overrides.iter().find(|own| own.feature == feature.name);
    by_hand.map_or(place(feature, user) < percentage * 100, |own| own.enabled)
}

/// Where a user stands in the rollout of a feature, 0 to 9,999: always the same place, so that who has
/// it keeps it while the percentage grows, and another for each feature, so that nobody is always first.
fn place(feature: &Feature, user: Uuid) -> i64 {
    let hash = Sha256::new()
        .chain_update(feature.name)
        .chain_update([0])
        .chain_update(user)
        .finalize();
    let (first, _) = hash.split_first_chunk::<8>().expect("32 bytes");
    (u64::from_be_bytes(*first) % 10_000) as i64
}
