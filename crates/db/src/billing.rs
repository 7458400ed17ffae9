//! Customers and subscriptions as providers know them, and the grants that come of them.
use crate::prelude::*;

pub mod money;
pub mod stores;
pub mod timeline;

row! {
    /// A provider's subscription, as of `basis_at`.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Subscription {
        pub provider: String,
        pub mode: String,
        pub external_id: String,
        pub user_id: Option<Uuid>,
        pub customer: Option<String>,
        pub store: String,
        pub status: String,
        pub plan: Option<String>,
        pub product: Option<String>,
        pub quantity: i64,
        pub will_renew: bool,
        pub period_start: Option<Timestamp>,
        pub period_end: Option<Timestamp>,
        pub trial_end: Option<Timestamp>,
        pub cancel_at: Option<Timestamp>,
        /// When it ended; of RevenueCat's, the furthest end that was told, which a renewal may have made void.
        pub ended_at: Option<Timestamp>,
        /// When the event happened that this is the state of; an older one changes nothing.
        pub basis_at: Timestamp,
        /// Decides within one second: deleted over updated over created.
        pub basis_rank: i64,
        pub basis_event: String,
        /// All it opens; `None` is its plan alone.
        pub entitlements: Option<Json<Vec<String>>>,
        /// `trial` or `promo`; `None` is paid for.
        pub kind: Option<String>,
        /// When it was first taken out.
        pub started_at: Option<Timestamp>,
        /// What was charged last: an invoice of Stripe's, a payment in a store.
        pub latest_invoice: Option<String>,
        /// What becomes of invoices while collection is paused.
        pub paused: Option<String>,
        /// When it was last told to be paid up.
        pub paid_up_at: Option<Timestamp>,
        /// Until when a store forgives a failed charge.
        pub grace_until: Option<Timestamp>,
        pub refunded_at: Option<Timestamp>,
    }
}

row! {
    /// What a provider calls a user.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Customer {
        pub provider: String,
        pub mode: String,
        pub external_id: String,
        pub created_at: Timestamp,
    }
}

row! {
    /// A subscription of someone who is gone, which the provider still has to be told to end.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Cancellation {
        pub provider: String,
        pub mode: String,
        pub external_id: String,
        pub customer: Option<String>,
        pub store: String,
        pub requested_at: Timestamp,
    }
}

row! {
    /// What one source opens for one user.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Grant {
        pub user_id: Uuid,
        pub entitlement: String,
        pub source: String,
        pub source_ref: String,
        pub starts_at: Timestamp,
        /// `None` is for ever.
        pub ends_at: Option<Timestamp>,
        pub revoked_at: Option<Timestamp>,
        pub reason: Option<String>,
        pub in_grace: bool,
        pub will_renew: bool,
        /// `paid`, `trial` or `promo`.
        pub kind: String,
    }
}

sql! {
    /// Who a provider's customer is.
    fn customer_user(tx: &mut Tx, provider: &str, mode: &str, external_id: &str) -> Option<(Uuid,)> {
        "select user_id from billing_customers where provider = $provider and mode = $mode and external_id = $external_id"
    }

    /// What providers call a user.
    pub fn customers_of_user(db: &Db, user: Uuid) -> Vec<Customer> {
        "select {columns} from billing_customers where user_id = $user order by provider, mode, external_id"
    }

    /// Ties a customer to a user, once and for all. `false` when it is tied.
    pub fn link_customer(tx: &mut Tx, provider: &str, mode: &str, external_id: &str, user: Uuid, now: Timestamp) -> bool {
        "insert into billing_customers (provider, mode, external_id, user_id, created_at)
         values ($provider, $mode, $external_id, $user, $now)
         on conflict (provider, mode, external_id) do nothing"
    }

    /// The user of this id, or whom the anonymous user of this id became.
    pub fn user_named(tx: &mut Tx, id: Uuid) -> Option<(Uuid,)> {
        "select id from users where id = $id union all select user_id from merged_users where id = $id"
    }

    /// The same, for whoever only looks.
    pub fn known_user_named(db: &Db, id: Uuid) -> Option<(Uuid,)> {
        "select id from users where id = $id union all select user_id from merged_users where id = $id"
    }

    /// The stored state of a subscription, held against others until the transaction ends.
    pub fn subscription(tx: &mut Tx, provider: &str, mode: &str, external_id: &str) -> Option<Subscription> {
        "select {columns} from billing_subscriptions
         where provider = $provider and mode = $mode and external_id = $external_id {postgres: for update}"
    }

    /// The same, for whoever only looks.
    pub fn known_subscription(db: &Db, provider: &str, mode: &str, external_id: &str) -> Option<Subscription> {
        "select {columns} from billing_subscriptions
         where provider = $provider and mode = $mode and external_id = $external_id"
    }

    /// A customer's subscriptions.
    pub fn subscriptions_of_customer(tx: &mut Tx, provider: &str, mode: &str, customer: &str) -> Vec<Subscription> {
        "select {columns} from billing_subscriptions
         where customer = $customer and provider = $provider and mode = $mode order by external_id"
    }

    /// A user's subscriptions, newest state first.
    pub fn subscriptions_of_user(db: &Db, user: Uuid) -> Vec<Subscription> {
        "select {columns} from billing_subscriptions where user_id = $user order by basis_at desc, external_id"
    }

    fn upsert_subscription(
        tx: &mut Tx, provider: &str, mode: &str, external_id: &str, user: Option<Uuid>, customer: Option<&str>, store: &str,
        status: &str, plan: Option<&str>, product: Option<&str>, quantity: i64, will_renew: bool,
        period_start: Option<Timestamp>, period_end: Option<Timestamp>, trial_end: Option<Timestamp>,
        cancel_at: Option<Timestamp>, ended_at: Option<Timestamp>, basis_at: Timestamp, basis_rank: i64,
        basis_event: &str, entitlements: &Option<Json<Vec<String>>>, kind: Option<&str>,
        started_at: Option<Timestamp>, latest_invoice: Option<&str>, paused: Option<&str>, paid_up_at: Option<Timestamp>, grace_until: Option<Timestamp>,
        refunded_at: Option<Timestamp>, now: Timestamp,
    ) {
        "insert into billing_subscriptions (provider, mode, external_id, user_id, customer, store, status, plan, product,
             quantity, will_renew, period_start, period_end, trial_end, cancel_at, ended_at, basis_at, basis_rank,
             basis_event, entitlements, kind, started_at, latest_invoice, paused, paid_up_at, grace_until, refunded_at,
             created_at, updated_at)
         values ($provider, $mode, $external_id, $user, $customer, $store, $status, $plan, $product,
             $quantity, $will_renew, $period_start, $period_end, $trial_end, $cancel_at, $ended_at, $basis_at, $basis_rank,
             $basis_event, $entitlements, $kind, $started_at, $latest_invoice, $paused, $paid_up_at, $grace_until, $refunded_at,
             $now, $now)
         on conflict (provider, mode, external_id) do update set
             user_id = excluded.user_id, customer = excluded.customer, store = excluded.store, status = excluded.status,
             plan = excluded.plan, product = excluded.product, quantity = excluded.quantity,
             will_renew = excluded.will_renew, period_start = excluded.period_start, period_end = excluded.period_end,
             trial_end = excluded.trial_end, cancel_at = excluded.cancel_at, ended_at = excluded.ended_at,
             basis_at = excluded.basis_at, basis_rank = excluded.basis_rank, basis_event = excluded.basis_event,
             entitlements = excluded.entitlements, kind = excluded.kind, started_at = excluded.started_at,
             latest_invoice = excluded.latest_invoice, paused = excluded.paused, paid_up_at = excluded.paid_up_at, grace_until = excluded.grace_until,
             refunded_at = excluded.refunded_at, updated_at = excluded.updated_at"
    }

    /// Asks for the end of what would go on charging a user.
    pub fn ask_to_cancel(tx: &mut Tx, user: Uuid, now: Timestamp) -> u64 {
        "insert into billing_cancellations (provider, mode, external_id, customer, store, requested_at)
         select provider, mode, external_id, customer, store, $now
         from billing_subscriptions where user_id = $user and will_renew
         on conflict (provider, mode, external_id) do nothing"
    }

    /// Forgets a subscription that turned out to be another one.
    pub fn forget_subscription(tx: &mut Tx, provider: &str, mode: &str, external_id: &str) {
        "delete from billing_subscriptions
         where provider = $provider and mode = $mode and external_id = $external_id"
    }

    /// What is asked for and not done, oldest first.
    pub fn cancellations(db: &Db, limit: i64) -> Vec<Cancellation> {
        "select {columns} from billing_cancellations where done_at is null order by requested_at limit $limit"
    }

    /// A user's grants.
    pub fn grants(db: &Db, user: Uuid) -> Vec<Grant> {
        "select {columns} from entitlement_grants where user_id = $user order by source, source_ref, entitlement"
    }

    /// The same, in a transaction that changes them.
    pub fn grants_of_user(tx: &mut Tx, user: Uuid) -> Vec<Grant> {
        "select {columns} from entitlement_grants where user_id = $user order by source, source_ref, entitlement"
    }

    /// What a source grants for one object.
    pub fn grants_of_source(tx: &mut Tx, source: &str, source_ref: &str) -> Vec<Grant> {
        "select {columns} from entitlement_grants where source = $source and source_ref = $source_ref order by entitlement"
    }

    fn upsert_grant(
        tx: &mut Tx, user: Uuid, entitlement: &str, source: &str, source_ref: &str, starts_at: Timestamp,
        ends_at: Option<Timestamp>, revoked_at: Option<Timestamp>, reason: Option<&str>, in_grace: bool,
        will_renew: bool, kind: &str, now: Timestamp,
    ) {
        "insert into entitlement_grants (user_id, entitlement, source, source_ref, starts_at, ends_at, revoked_at, reason,
                                         in_grace, will_renew, kind, updated_at)
         values ($user, $entitlement, $source, $source_ref, $starts_at, $ends_at, $revoked_at, $reason,
                 $in_grace, $will_renew, $kind, $now)
         on conflict (source, source_ref, entitlement) do update set
             user_id = excluded.user_id, starts_at = excluded.starts_at, ends_at = excluded.ends_at,
             revoked_at = excluded.revoked_at, reason = excluded.reason, in_grace = excluded.in_grace,
             will_renew = excluded.will_renew, kind = excluded.kind, updated_at = excluded.updated_at"
    }

    /// Takes away what a source granted, so that what it grants now can be written afresh.
    fn clear_grants(tx: &mut Tx, source: &str, source_ref: &str) {
        "delete from entitlement_grants where source = $source and source_ref = $source_ref"
    }
}

/// Who a provider's customer is, if we know.
pub async fn user_of_customer(
    tx: &mut Tx,
    provider: &str,
    mode: &str,
    external_id: &str,
) -> Result<Option<Uuid>> {
    Ok(customer_user(tx, provider, mode, external_id)
        .await?
        .map(|(user,)| user))
}

/// Writes a subscription's state over what was known.
pub async fn save_subscription(tx: &mut Tx, s: &Subscription, now: Timestamp) -> Result<()> {
    upsert_subscription(
        tx,
        &s.provider,
        &s.mode,
        &s.external_id,
        s.user_id,
        s.customer.as_deref(),
        &s.store,
        &s.status,
        s.plan.as_deref(),
        s.product.as_deref(),
        s.quantity,
        s.will_renew,
        s.period_start,
        s.period_end,
        s.trial_end,
        s.cancel_at,
        s.ended_at,
        s.basis_at,
        s.basis_rank,
        &s.basis_event,
        &s.entitlements,
        s.kind.as_deref(),
        s.started_at,
        s.latest_invoice.as_deref(),
        s.paused.as_deref(),
        s.paid_up_at,
        s.grace_until,
        s.refunded_at,
        now,
    )
    .await
}

/// Makes `grants` all that this source grants for this object.
pub async fn replace_grants(
    tx: &mut Tx,
    source: &str,
    source_ref: &str,
    grants: &[Grant],
    now: Timestamp,
) -> Result<()> {
    clear_grants(tx, source, source_ref).await?;
    for g in grants {
        upsert_grant(
            tx,
            g.user_id,
            &g.entitlement,
            &g.source,
            &g.source_ref,
            g.starts_at,
            g.ends_at,
            g.revoked_at,
            g.reason.as_deref(),
            g.in_grace,
            g.will_renew,
            &g.kind,
            now,
        )
        .await?;
    }
    Ok(())
}
