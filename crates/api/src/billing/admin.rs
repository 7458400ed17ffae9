//! What an admin sees of what somebody pays for, and gives by hand.
use super::{apply, entitlements};
use crate::{
    App, Error, Result,
    auth::{admin::reason, audit, session::Client},
    extract::{Admin, Json, List, Page, Path, Query, Time},
};
use axum::{extract::State, http::StatusCode};
use db::{
    Timestamp, Tx,
    billing::{Grant, timeline},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

/// Where grants come from that an admin gave.
const SOURCE: &str = "manual";

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(show))
        .routes(routes!(give))
        .routes(routes!(take))
}

/// What is known of somebody who pays, and how it came about.
#[derive(Serialize, ToSchema)]
struct Account {
    user_id: Uuid,
    plan: String,
    customers: Vec<Customer>,
    /// Names by which RevenueCat knows them besides.
    names: Vec<String>,
    subscriptions: Vec<Value>,
    grants: Vec<GrantBody>,
    /// Newest first.
    timeline: List<Receipt>,
}

#[derive(Serialize, ToSchema)]
struct Customer {
    provider: String,
    mode: String,
    id: String,
}

/// One grant, open or not.
#[derive(Serialize, ToSchema)]
#[schema(as = EntitlementGrant)]
struct GrantBody {
    user_id: Uuid,
    entitlement: String,
    /// `stripe`, `revenuecat` or `manual`.
    source: String,
    /// What it hangs on there; of one that an admin gave, its id.
    source_ref: String,
    starts_at: Time,
    expires_at: Option<Time>,
    revoked_at: Option<Time>,
    reason: Option<String>,
    /// `paid`, `trial` or `promo`.
    kind: String,
    in_grace: bool,
    will_renew: bool,
}

impl From<Grant> for GrantBody {
    fn from(g: Grant) -> Self {
        Self {
            user_id: g.user_id,
            entitlement: g.entitlement,
            source: g.source,
            source_ref: g.source_ref,
            starts_at: g.starts_at.into(),
            expires_at: g.ends_at.map(Into::into),
            revoked_at: g.revoked_at.map(Into::into),
            reason: g.reason,
            kind: g.kind,
            in_grace: g.in_grace,
            will_renew: g.will_renew,
        }
    }
}

/// Which event, by which rule, changed what.
#[derive(Serialize, ToSchema)]
#[schema(as = BillingReceipt)]
struct Receipt {
    id: Uuid,
    provider: String,
    mode: String,
    object: String,
    event: String,
    kind: String,
    rule: String,
    before: Value,
    after: Value,
    occurred_at: Time,
    created_at: Time,
}

impl From<timeline::Receipt> for Receipt {
    fn from(r: timeline::Receipt) -> Self {
        Self {
            id: r.id,
            provider: r.provider,
            mode: r.mode,
            object: r.object,
            event: r.event,
            kind: r.kind,
            rule: r.rule,
            before: r.before.0,
            after: r.after.0,
            occurred_at: r.occurred_at.into(),
            created_at: r.created_at.into(),
        }
    }
}

/// What somebody pays for, and by which events it came to be as it is.
#[utoipa::path(get, path = "/api/admin/billing/users/{id}", tag = "admin", params(("id" = Uuid, Path), Page),
    responses((status = 200, body = Account), (status = 404)))]
async fn show(
    State(app): State<App>,
    _: Admin,
    Path(id): Path<Uuid>,
    Query(page): Query<Page>,
) -> Result<Json<Account>> {
    let (limit, cursor) = (page.limit()?, page.cursor()?);
    db::users::by_id(&app.db, id)
        .await?
        .ok_or(Error::UserNotFound)?;

    let customers = db::billing::customers_of_user(&app.db, id).await?;
    let customer = |c: db::billing::Customer| Customer {
        provider: c.provider,
        mode: c.mode,
        id: c.external_id,
    };
    let subscription = |s: db::billing::Subscription| {
        let mut view = apply::view(Some(&s), &[]);
        (view["provider"], view["mode"], view["id"]) =
            (s.provider.into(), s.mode.into(), s.external_id.into());
        (view["store"], view["customer"]) = (s.store.into(), s.customer.into());
        view
    };
    let names = db::billing::stores::names_of_user(&app.db, id).await?;
    let subscriptions = db::billing::subscriptions_of_user(&app.db, id).await?;
    let grants = db::billing::grants(&app.db, id).await?;
    let receipts = timeline::of_user(&app.db, id, cursor, limit + 1).await?;
    Ok(Json(Account {
        user_id: id,
        plan: entitlements::plan_of(&app, id).await?.name.clone(),
        customers: customers.into_iter().map(customer).collect(),
        names: names.into_iter().map(|(name,)| name).collect(),
        subscriptions: subscriptions.into_iter().map(subscription).collect(),
        grants: grants.into_iter().map(Into::into).collect(),
        timeline: List::of(receipts, limit, |r| r.id, Into::into),
    }))
}

#[derive(Deserialize, ToSchema)]
struct NewGrant {
    user_id: Uuid,
    /// A plan's name, or what else the app asks for.
    entitlement: String,
    /// Why: for the audit log, up to 500 characters.
    reason: String,
    /// RFC 3339; without it, for ever.
    #[serde(default)]
    #[schema(format = DateTime)]
    expires_at: Option<String>,
}

/// Give somebody an entitlement by hand. No provider takes it away.
#[utoipa::path(post, path = "/api/admin/entitlements", tag = "admin", request_body = NewGrant,
    responses((status = 201, body = GrantBody), (status = 404)))]
async fn give(
    State(app): State<App>,
    admin: Admin,
    client: Client,
    Json(new): Json<NewGrant>,
) -> Result<(StatusCode, Json<GrantBody>)> {
    let now = app.now();
    let reason = reason(&new.reason)?;
    let named = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if new.entitlement.is_empty()
        || new.entitlement.len() > 100
        || !new.entitlement.chars().all(named)
    {
        return Err(Error::invalid(
            "entitlement",
            "has to be 1 to 100 of a-z, A-Z, 0-9, _, - and .",
        ));
    }
    let ends_at = new.expires_at.as_deref().map(time).transpose()?;
    if ends_at.is_some_and(|end| end <= now) {
        return Err(Error::invalid("expires_at", "has to be in the future"));
    }

    let grant = Grant {
        user_id: new.user_id,
        entitlement: new.entitlement,
        source: SOURCE.into(),
        source_ref: Uuid::now_v7().to_string(),
        starts_at: now,
        ends_at,
        revoked_at: None,
        reason: Some(reason.to_owned()),
        in_grace: false,
        will_renew: false,
        kind: "promo".into(),
    };
    let mut tx = app.db.begin().await?;
    db::users::locked(&mut tx, new.user_id)
        .await?
        .ok_or(Error::UserNotFound)?;
    let change = Change {
        admin: &admin,
        client: &client,
        action: "entitlement_granted",
        now,
    };
    change.write(&mut tx, None, &grant).await?;
    tx.commit().await?;

    Ok((StatusCode::CREATED, Json(grant.into())))
}

/// Take back what was given by hand.
#[utoipa::path(delete, path = "/api/admin/entitlements/{id}", tag = "admin", params(("id" = Uuid, Path)),
    responses((status = 200, body = GrantBody), (status = 404)))]
async fn take(
    State(app): State<App>,
    admin: Admin,
    client: Client,
    Path(id): Path<Uuid>,
) -> Result<Json<GrantBody>> {
    let now = app.now();
    let mut tx = app.db.begin().await?;
    let given = db::billing::grants_of_source(&mut tx, SOURCE, &id.to_string()).await?;
    let given = given.into_iter().find(|grant| grant.revoked_at.is_none());
    let given = given.ok_or(Error::NotFound)?;

    let taken = Grant {
        revoked_at: Some(now),
        ..given.clone()
    };
    let change = Change {
        admin: &admin,
        client: &client,
        action: "entitlement_revoked",
        now,
    };
    change.write(&mut tx, Some(&given), &taken).await?;
    tx.commit().await?;

    Ok(Json(taken.into()))
}

/// What an admin does, and who they are.
struct Change<'a> {
    admin: &'a Admin,
    client: &'a Client,
    action: &'a str,
    now: Timestamp,
}

impl Change<'_> {
    /// The grant as it is from now on, in the log of the account and in its receipts.
    async fn write(&self, tx: &mut Tx, before: Option<&Grant>, after: &Grant) -> Result<()> {
        let (action, now) = (self.action, self.now);
        let detail = json!({
            "grant": after.source_ref, "entitlement": after.entitlement, "expires_at": after.ends_at,
            "reason": after.reason,
        });
        db::billing::replace_grants(
            tx,
            SOURCE,
            &after.source_ref,
            std::slice::from_ref(after),
            now,
        )
        .await?;
        let subject = Some(after.user_id);
        audit::by_admin(tx, self.client, action, self.admin, subject, detail, now).await?;
        let receipt = apply::Receipt {
            provider: SOURCE,
            mode: "live",
            object: &after.source_ref,
            user: subject,
            rule: action,
            before: apply::view(None, before.map_or(&[], std::slice::from_ref)),
            after: apply::view(None, std::slice::from_ref(after)),
        };
        let by = apply::Cause {
            event: "admin",
            kind: action,
            at: now,
        };
        Ok(apply::note(tx, receipt, &by, now).await?)
    }
}

fn time(text: &str) -> Result<Timestamp> {
    chrono::DateTime::parse_from_rfc3339(text)
        .map(|time| Timestamp::from_micros(time.timestamp_micros()))
        .map_err(|_| Error::invalid("expires_at", "has to be a time of RFC 3339"))
}
