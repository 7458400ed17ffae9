//! What a user may do: a pure function of their grants and the clock.
use super::plans::Plan;
use crate::{
    App, Result,
    extract::{Auth, Json, Time},
};
use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use db::{Timestamp, billing::Grant};
use serde::Serialize;
use sha2::{Digest, Sha256};
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
    /// `paid`, `trial` or `promo`.
    pub kind: String,
}

/// Whether it opens anything now.
fn is_open(grant: &Grant, now: Timestamp) -> bool {
    grant.revoked_at.is_none_or(|at| at > now)
        && grant.starts_at <= now
        && grant.ends_at.is_none_or(|end| now < end)
}

/// What is open now. A union: one source's end never closes what another opens. Of several sources the one
/// that reaches furthest is shown; of two that reach as far, what is paid for, and of those the newest.
pub fn standing(grants: &[Grant], now: Timestamp) -> Vec<Standing> {
    let worth = |grant: &Grant| match grant.kind.as_str() {
        "paid" => 2,
        "trial" => 1,
        _ => 0,
    };
    let rank = |grant: &Grant| {
        let reach = grant.ends_at.map_or(i64::MAX, Timestamp::as_micros);
        (reach, worth(grant), grant.starts_at)
    };
    let mut furthest: BTreeMap<&str, &Grant> = BTreeMap::new();
    for grant in grants.iter().filter(|grant| is_open(grant, now)) {
        let held = furthest.entry(&grant.entitlement).or_insert(grant);
        if rank(grant) > rank(held) {
            *held = grant;
        }
    }
    let stand = |grant: &Grant| Standing {
        entitlement: grant.entitlement.clone(),
        expires_at: grant.ends_at,
        source: grant.source.clone(),
        will_renew: grant.will_renew,
        in_grace: grant.in_grace,
        kind: grant.kind.clone(),
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
    /// Differs when anything of this does; also the `ETag`.
    version: String,
}

#[derive(Serialize, ToSchema)]
struct Entitlement {
    entitlement: String,
    active: bool,
    /// Null is for ever.
    expires_at: Option<Time>,
    /// `stripe`, `revenuecat`, or `manual` where an admin gave it.
    source: String,
    /// `paid`, `trial` or `promo`.
    kind: String,
    will_renew: bool,
    /// A payment failed; access goes on until `expires_at`.
    in_grace: bool,
}

/// What the user has bought, on the web and on phones alike. Asked with `If-None-Match` and the version that
/// it has, a client is told by 304 that nothing changed.
#[utoipa::path(get, path = "/api/entitlements", tag = "billing", params(("If-None-Match" = Option<String>, Header)),
    responses((status = 200, body = Entitlements, headers(("ETag" = String))), (status = 304)))]
async fn entitlements(State(app): State<App>, auth: Auth, headers: HeaderMap) -> Result<Response> {
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
        kind: s.kind,
        will_renew: s.will_renew,
        in_grace: s.in_grace,
    });
    let mut body = Entitlements {
        plan,
        entitlements: entitlements.collect(),
        version: String::new(),
    };
    body.version = version(&body)?;

    let tag = format!("\"{}\"", body.version);
    let known = headers.get(header::IF_NONE_MATCH);
    let known = known.and_then(|known| known.to_str().ok());
    let headers = [
        (header::ETAG, tag.clone()),
        (header::CACHE_CONTROL, "private, no-cache".into()),
    ];
    Ok(match known.is_some_and(|known| matches(known, &tag)) {
        true => (StatusCode::NOT_MODIFIED, headers).into_response(),
        false => (headers, Json(body)).into_response(),
    })
}

/// A hash: the same on every instance, and after an end that only the clock knows of another one.
fn version(of: &Entitlements) -> Result<String> {
    let bytes = serde_json::to_vec(of).map_err(anyhow::Error::from)?;
    Ok(hex::encode(&Sha256::digest(bytes)[..12]))
}

/// RFC 9110, section 13.1.2: a proxy may have weakened the tag.
fn matches(known: &str, tag: &str) -> bool {
    known
        .split(',')
        .map(str::trim)
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}
