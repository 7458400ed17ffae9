//! What a user may do: a pure function of their grants and the clock.
use super::plans::Plan;
use crate::{
    App, Result,
    extract::{Auth, Json, Time},
};
use axum::extract::State;
use db::{Timestamp, billing::Grant};
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(entitlements))
}

/// One entitlement, over all its sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub entitlement: String,
    /// The furthest end of what is open; `None` is for ever.
    pub expires_at: Option<Timestamp>,
    /// Which source reaches that far.
    pub source: String,
    pub will_renew: bool,
    pub in_grace: bool,
}

/// What is open now. A union: one source's end never closes what another opens.
pub fn standing(grants: &[Grant], now: Timestamp) -> Vec<Standing> {
    let open = grants.iter().filter(|grant| {
        grant.revoked_at.is_none_or(|at| at > now)
            && grant.starts_at <= now
            && grant.ends_at.is_none_or(|end| now < end)
    });
    let mut furthest: BTreeMap<&str, &Grant> = BTreeMap::new();
    let reach = |grant: &Grant| grant.ends_at.map_or(i64::MAX, Timestamp::as_micros);
    for grant in open {
        let held = furthest.entry(&grant.entitlement).or_insert(grant);
        if reach(grant) > reach(held) {
            *held = grant;
        }
    }
    let stand = |grant: &Grant| Standing {
        entitlement: grant.entitlement.clone(),
        expires_at: grant.ends_at,
        source: grant.source.clone(),
        will_renew: grant.will_renew,
        in_grace: grant.in_grace,
    };
    furthest.into_values().map(stand).collect()
}

async fn of_user(app: &App, user: Uuid) -> Result<Vec<Standing>> {
    Ok(standing(
        &db::billing::grants(&app.db, user).await?,
        app.now(),
    ))
}

/// The user's plan.
pub async fn plan_of(app: &App, user: Uuid) -> Result<&Plan> {
    let standing = of_user(app, user).await?;
    Ok(app
        .plans
        .best(standing.iter().map(|s| s.entitlement.as_str())))
}

#[derive(Serialize, ToSchema)]
struct Entitlements {
    /// The best plan among them, or everyone's.
    plan: String,
    entitlements: Vec<Entitlement>,
}

#[derive(Serialize, ToSchema)]
struct Entitlement {
    entitlement: String,
    active: bool,
    /// Null is for ever.
    expires_at: Option<Time>,
    /// `stripe` or `revenuecat`.
    source: String,
    will_renew: bool,
    /// A payment failed; access goes on until `expires_at`.
    in_grace: bool,
}

/// What the user has bought, on the web and on phones alike.
#[utoipa::path(get, path = "/api/entitlements", tag = "billing", responses((status = 200, body = Entitlements)))]
async fn entitlements(State(app): State<App>, auth: Auth) -> Result<Json<Entitlements>> {
    let standing = of_user(&app, auth.user).await?;
    let plan = app
        .plans
        .best(standing.iter().map(|s| s.entitlement.as_str()))
        .name
        .clone();
    let entitlements = standing.into_iter().map(|s| Entitlement {
        entitlement: s.entitlement,
        active: true,
        expires_at: s.expires_at.map(Into::into),
        source: s.source,
        will_renew: s.will_renew,
        in_grace: s.in_grace,
    });
    Ok(Json(Entitlements {
        plan,
        entitlements: entitlements.collect(),
    }))
}
