//! The way of RevenueCat's events to the reducer: whose they are, what RevenueCat's API says besides, and
//! writing down what they change. <https://www.revenuecat.com/docs/integrations/webhooks/event-types-and-fields>
use super::{
    apply::{self, Cause, Outcome},
    entitlements, notices,
    reduce::{
        revenuecat::{self as reduce, About, Fact, SOURCE, fact, family, held, source_ref},
        stripe::names,
    },
};
use crate::App;
use anyhow::anyhow;
use db::{
    Timestamp, Tx,
    billing::{Grant, Subscription, money, stores},
};
use serde_json::Value;
use std::time::Duration;
use uuid::Uuid;
use webhooks::revenuecat::{self as wire, Event, Kind, Purchase, Subscriber};

/// What a store could not be asked about is open for so long.
const TEMPORARY: Duration = Duration::from_secs(24 * 3600);
/// Purchases are handed on so often at most.
const MOST_TRANSFERS: usize = 16;

/// An event, with what the API says now of those of our users whom it names.
pub struct Reading {
    event: Event,
    subscribers: Vec<Read>,
}

/// What the API answered to a request that was sent at `at`.
struct Read {
    user: Uuid,
    subscriber: Subscriber,
    at: Timestamp,
}

/// Reads an event, and asks the API what its customers hold. Fails while the API cannot be asked: the event
/// waits, and nothing is taken from anybody meanwhile.
pub async fn read(app: &App, body: &[u8]) -> anyhow::Result<Result<Reading, Outcome>> {
    let event = wire::read(body).map_err(|e| anyhow!("{e}"))?;
    if event.sandbox && app.config.is_production() {
        return Ok(Err(Outcome::Ignored("sandbox")));
    }
    if is_twin(app, event.store.as_deref()) {
        return Ok(Err(Outcome::Ignored("told_by_stripe")));
    }
    let mut subscribers = vec![];
    if let Some(api) = app.revenuecat.as_ref().filter(|_| changes(&event)) {
        let named = event.app_user_ids.iter();
        let moved = event.transferred_from.iter().chain(&event.transferred_to);
        for name in named.chain(moved) {
            // The API makes a customer of whoever it is asked for: only our own users are.
            let Ok(id) = Uuid::try_parse(name) else {
                continue;
            };
            let Some((user,)) = db::billing::known_user_named(&app.db, id).await? else {
                continue;
            };
            if subscribers.iter().any(|read: &Read| read.user == user) {
                continue;
            }
            let at = app.now();
            let answer = api.subscriber(name).await?;
            let subscriber = wire::read_subscriber(&answer).map_err(|e| anyhow!("{e}"))?;
            subscribers.push(Read {
                user,
                subscriber,
                at,
            });
        }
    }
    Ok(Ok(Reading { event, subscribers }))
}

/// What Stripe sold, it tells by itself where it is asked to: counted once.
fn is_twin(app: &App, store: Option<&str>) -> bool {
    store.is_some_and(|store| store.eq_ignore_ascii_case("stripe"))
        && app.config.billing.takes_stripe()
}

fn changes(event: &Event) -> bool {
    matches!(
        event.kind,
        Kind::InitialPurchase
            | Kind::Renewal
            | Kind::Cancellation
            | Kind::Uncancellation
            | Kind::NonRenewingPurchase
            | Kind::SubscriptionPaused
            | Kind::Expiration
            | Kind::BillingIssue
            | Kind::ProductChange
            | Kind::Transfer
            | Kind::SubscriptionExtended
            | Kind::TemporaryEntitlementGrant
            | Kind::RefundReversed
            | Kind::PurchaseRedeemed
    )
}

/// Writes down what an event says. `arrival` is its row in the inbox, which waits while nobody is known by
/// its names.
pub async fn apply(
    app: &App,
    tx: &mut Tx,
    reading: &Reading,
    arrival: Option<Uuid>,
) -> anyhow::Result<Outcome> {
    let event = &reading.event;
    let told = Told {
        app,
        event,
        mode: if event.sandbox { "test" } else { "live" },
        at: Timestamp::from_millis(event.at_ms),
        by: Cause {
            event: &event.id,
            kind: event.kind.as_str(),
            at: Timestamp::from_millis(event.at_ms),
        },
    };
    if let Some(arrival) = arrival {
        stores::stop_waiting(tx, arrival).await?;
    }
    let outcome = match event.kind {
        Kind::Transfer => told.transfer(tx).await?,
        Kind::VirtualCurrencyTransaction => told.virtual_currency(tx).await?,
        Kind::SubscriberAlias => told.alias(tx).await?,
        Kind::TemporaryEntitlementGrant => told.temporary(tx, &reading.subscribers).await?,
        _ => told.purchase(tx).await?,
    };
    for read in &reading.subscribers {
        take(app, tx, read, &told.by).await?;
    }
    if let (Outcome::Parked("unlinked"), Some(arrival)) = (outcome, arrival) {
        let moved = event.transferred_from.iter().chain(&event.transferred_to);
        for name in event.app_user_ids.iter().chain(moved) {
            stores::wait_for_name(tx, name, arrival).await?;
        }
    }
    Ok(outcome)
}

/// What a user holds, as the API answered to a request that was sent at `basis`.
pub async fn apply_subscriber(
    app: &App,
    tx: &mut Tx,
    user: Uuid,
    answer: &Value,
    basis: Timestamp,
) -> anyhow::Result<Outcome> {
    let read = Read {
        user,
        subscriber: wire::read_subscriber(answer).map_err(|e| anyhow!("{e}"))?,
        at: basis,
    };
    let original = read.subscriber.original_app_user_id.iter();
    let by = Cause::read(basis);
    let who = resolve(tx, original.clone()).await?;
    if who != Who::Many {
        link(app, tx, original, user, &by).await?;
    }
    match take(app, tx, &read, &by).await? {
        true => Ok(Outcome::Processed),
        false => Ok(Outcome::Ignored("no_effect")),
    }
}

/// Of our users, whom some names mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Nobody,
    One(Uuid),
    Many,
}

impl Who {
    fn one(self) -> Option<Uuid> {
        match self {
            Self::One(user) => Some(user),
            _ => None,
        }
    }
}

async fn users_of(tx: &mut Tx, names: impl Iterator<Item = &String>) -> db::Result<Vec<Uuid>> {
    let mut users = vec![];
    for name in names {
        let own = apply::user(tx, name).await?;
        let linked = stores::user_of_name(tx, name).await?.map(|(user,)| user);
        if let Some(user) = own.or(linked)
            && !users.contains(&user)
        {
            users.push(user);
        }
    }
    Ok(users)
}

async fn resolve(tx: &mut Tx, names: impl Iterator<Item = &String>) -> db::Result<Who> {
    Ok(match users_of(tx, names).await?.as_slice() {
        [] => Who::Nobody,
        [user] => Who::One(*user),
        _ => Who::Many,
    })
}

/// What apps send where they know nobody, which RevenueCat refuses: nobody's name.
/// <https://www.revenuecat.com/docs/customers/user-ids#tips-for-setting-app-user-ids>
const NOBODY: &[&str] = &[
    "null",
    "none",
    "nil",
    "(null)",
    "nan",
    "unknown",
    "anonymous",
    "guest",
    "undefined",
    "no_user",
    "0",
    "-1",
    "[]",
    "{}",
    "",
    "\"\"",
    "''",
    "unidentified",
    "user",
    "test",
    "\\\"\\\"",
    "null_user",
];

fn can_name(name: &str) -> bool {
    let known = NOBODY
        .iter()
        .any(|nobody| name.trim().eq_ignore_ascii_case(nobody));
    !known && name.len() <= 100 && !name.contains('/')
}

/// Remembers that these are names of this user. What waited for one of them is theirs.
async fn link(
    app: &App,
    tx: &mut Tx,
    names: impl Iterator<Item = &String>,
    user: Uuid,
    by: &Cause<'_>,
) -> anyhow::Result<()> {
    let now = app.now();
    for name in names.filter(|name| can_name(name)) {
        if apply::user(tx, name).await?.is_some() || !stores::link_name(tx, name, user, now).await?
        {
            continue;
        }
        for mode in ["live", "test"] {
            for waiting in db::billing::subscriptions_of_customer(tx, SOURCE, mode, name).await? {
                if waiting.user_id.is_none() {
                    let claimed = Fact::Claimed { user };
                    reduce(app, tx, mode, &waiting.external_id, &claimed, by).await?;
                }
            }
        }
        for (event,) in stores::waiting_for_name(tx, name).await? {
            stores::stop_waiting(tx, event).await?;
            db::inbox::replay(tx, event, now).await?;
        }
    }
    Ok(())
}

/// Whose a purchase of `user` is that was told of at `since`, after all transfers that followed; or the
/// name of whom nobody knows.
async fn owner(
    tx: &mut Tx,
    mode: &str,
    user: Uuid,
    stores: &str,
    mut since: Timestamp,
) -> db::Result<Result<Uuid, String>> {
    let mut owner = user;
    for _ in 0..MOST_TRANSFERS {
        let next = stores::next_transfer(tx, mode, owner, stores, since).await?;
        let Some(transfer) = next else { break };
        match transfer.to_user {
            Some(to) => (owner, since) = (to, transfer.at),
            None => return Ok(Err(transfer.to_name)),
        }
    }
    Ok(Ok(owner))
}

/// An event on its way.
struct Told<'a> {
    app: &'a App,
    event: &'a Event,
    mode: &'a str,
    at: Timestamp,
    by: Cause<'a>,
}

impl Told<'_> {
    fn names(&self) -> impl Iterator<Item = &String> + Clone {
        self.event.app_user_ids.iter()
    }

    async fn purchase(&self, tx: &mut Tx) -> anyhow::Result<Outcome> {
        let Self {
            app,
            event,
            mode,
            by,
            ..
        } = self;
        let blank = About {
            mode,
            purchase: "",
            user: None,
            name: None,
            plan: None,
            entitlements: vec![],
        };
        if fact(event, blank).is_none() {
            return Ok(Outcome::Ignored("no_effect"));
        }
        let Some(purchase) = event.purchase() else {
            return Ok(Outcome::Parked("no_transaction"));
        };
        let who = resolve(tx, self.names()).await?;
        let user = match who {
            Who::Many => return Ok(Outcome::Parked("ambiguous")),
            Who::Nobody => None,
            Who::One(user) => {
                link(app, tx, self.names(), user, by).await?;
                Some(user)
            }
        };
        money::hold(tx, &source_ref(mode, purchase)).await?;
        let known = db::billing::subscription(tx, SOURCE, mode, purchase).await?;
        let name = self.names().next().cloned();
        let (user, name) = match user {
            None => (known.as_ref().and_then(|s| s.user_id), name),
            Some(user) => {
                let stores = family(event.store.as_deref().unwrap_or_default());
                match owner(tx, mode, user, &stores, self.at).await? {
                    Ok(owner) => (Some(owner), name),
                    Err(unknown) => (None, Some(unknown)),
                }
            }
        };
        let entitlements = self.entitlements(known.as_ref());
        let plan = app.plans.best_of(entitlements.iter().map(String::as_str));
        let opens = !entitlements.is_empty();
        let about = About {
            mode,
            purchase,
            user,
            name,
            plan,
            entitlements,
        };
        let Some(fact) = fact(event, about) else {
            return Ok(Outcome::Ignored("no_effect"));
        };
        let reduced = reduce(app, tx, mode, purchase, &fact, by).await?;
        let credited = self.credit(tx, user, purchase).await?;
        Ok(match reduced {
            Reduced { rule: "stale", .. } => Outcome::Ignored("stale"),
            Reduced { user: None, .. } => Outcome::Parked("unlinked"),
            _ if !opens && !credited => Outcome::Parked("no_entitlement"),
            _ => Outcome::Processed,
        })
    }

    /// Our names of what it opens. Null says that nobody mapped the product there: what it opens is what
    /// `plans.toml` says, or what it had opened.
    fn entitlements(&self, known: Option<&Subscription>) -> Vec<String> {
        let plans = &self.app.plans;
        match &self.event.entitlement_ids {
            Some(ids) => ids.iter().map(|id| plans.of_revenuecat(id)).collect(),
            None => opened_by(self.app, self.event.product_id.as_deref(), known),
        }
    }

    /// What a consumable is worth, once for each transaction, and back when it is refunded.
    async fn credit(&self, tx: &mut Tx, user: Option<Uuid>, purchase: &str) -> db::Result<bool> {
        let worth = self
            .app
            .plans
            .credit(self.event.product_id.as_deref().unwrap_or_default());
        let (Some(worth), Some(user)) = (worth, user) else {
            return Ok(false);
        };
        let transaction = self.event.transaction_id.as_deref().unwrap_or(purchase);
        let id = source_ref(self.mode, transaction);
        let now = self.app.now();
        let amount = i64::from(worth.amount);
        match (&self.event.kind, self.event.cancel_reason.as_deref()) {
            (Kind::NonRenewingPurchase, _) => {
                stores::credit(tx, &id, user, &worth.currency, amount, now).await?;
            }
            (Kind::Cancellation, Some("CUSTOMER_SUPPORT")) => {
                let back = format!("{id}:refund");
                stores::credit(tx, &back, user, &worth.currency, -amount, now).await?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    async fn virtual_currency(&self, tx: &mut Tx) -> anyhow::Result<Outcome> {
        let Self {
            app,
            event,
            mode,
            by,
            ..
        } = self;
        let Some(id) = &event.virtual_currency_transaction_id else {
            return Ok(Outcome::Ignored("no_effect"));
        };
        let user = match resolve(tx, self.names()).await? {
            Who::Many => return Ok(Outcome::Parked("ambiguous")),
            Who::Nobody => return Ok(Outcome::Parked("unlinked")),
            Who::One(user) => user,
        };
        link(app, tx, self.names(), user, by).await?;
        for adjustment in &event.adjustments {
            let id = format!("{mode}:{id}:{}", adjustment.code);
            let (code, amount) = (&adjustment.code, adjustment.amount);
            stores::credit(tx, &id, user, code, amount, app.now()).await?;
        }
        Ok(Outcome::Processed)
    }

    async fn alias(&self, tx: &mut Tx) -> anyhow::Result<Outcome> {
        Ok(match resolve(tx, self.names()).await? {
            Who::Many => Outcome::Parked("ambiguous"),
            Who::Nobody => Outcome::Parked("unlinked"),
            Who::One(user) => {
                link(self.app, tx, self.names(), user, &self.by).await?;
                Outcome::Processed
            }
        })
    }

    /// What users of one side bought is the other side's from now on, as far as it is of that store.
    async fn transfer(&self, tx: &mut Tx) -> anyhow::Result<Outcome> {
        let Self {
            app,
            event,
            mode,
            at,
            by,
        } = self;
        let (from, to) = (&event.transferred_from, &event.transferred_to);
        let to_user = match resolve(tx, to.iter()).await? {
            Who::Many => return Ok(Outcome::Parked("ambiguous")),
            who => who.one(),
        };
        let (Some(to_name), false) = (to.first(), from.is_empty()) else {
            return Ok(Outcome::Ignored("no_effect"));
        };
        let stores = event.store.as_deref().map(family);
        let of_store = |s: &Subscription| stores.as_ref().is_none_or(|f| *f == family(&s.store));
        let from_users = users_of(tx, from.iter()).await?;
        let mut found = !from_users.is_empty();
        for user in from_users.into_iter().filter(|user| Some(*user) != to_user) {
            stores::transfer(
                tx,
                &event.id,
                mode,
                user,
                to_user,
                to_name,
                stores.as_deref(),
                *at,
            )
            .await?;
            for bought in stores::purchases_of_user(tx, mode, user).await? {
                if of_store(&bought) {
                    self.hand_on(tx, user, &bought).await?;
                }
            }
        }
        // What waits under a name that was nobody's goes with it.
        for name in from {
            for waiting in db::billing::subscriptions_of_customer(tx, SOURCE, mode, name).await? {
                if waiting.user_id.is_none() && of_store(&waiting) {
                    found = true;
                    let moved = Fact::Moved {
                        to: to_user,
                        name: to_name.clone(),
                    };
                    reduce(app, tx, mode, &waiting.external_id, &moved, by).await?;
                }
            }
        }
        let Some(to_user) = to_user else {
            return Ok(Outcome::Parked("unlinked"));
        };
        let anonymous = from
            .iter()
            .filter(|name| name.starts_with("$RCAnonymousID:"));
        link(app, tx, to.iter(), to_user, by).await?;
        if !found {
            // Only names that nobody has: what they bought before waits under them.
            link(app, tx, anonymous.clone(), to_user, by).await?;
            found = anonymous.count() > 0;
        }
        Ok(match found {
            true => Outcome::Processed,
            false => Outcome::Parked("unlinked"),
        })
    }

    async fn hand_on(&self, tx: &mut Tx, from: Uuid, bought: &Subscription) -> anyhow::Result<()> {
        let stores = family(&bought.store);
        let told_at = bought.basis_at;
        let moved = match owner(tx, self.mode, from, &stores, told_at).await? {
            Ok(owner) if owner == from => return Ok(()),
            Ok(owner) => Fact::Moved {
                to: Some(owner),
                name: owner.to_string(),
            },
            Err(name) => Fact::Moved { to: None, name },
        };
        reduce(
            self.app,
            tx,
            self.mode,
            &bought.external_id,
            &moved,
            &self.by,
        )
        .await?;
        Ok(())
    }

    /// The store could not be asked. Only what RevenueCat's API shows counts, and for a day at most.
    async fn temporary(&self, tx: &mut Tx, reads: &[Read]) -> anyhow::Result<Outcome> {
        let now = self.app.now();
        for Read {
            user, subscriber, ..
        } in reads
        {
            let held = db::billing::grants_of_user(tx, *user).await?;
            let standing = entitlements::standing(&held, now);
            let source_ref = format!("{}:temporary:{}", self.mode, self.event.id);
            let until = now + TEMPORARY;
            let open = |(name, ends): &(String, Option<i64>)| {
                let ends_at = ends.map_or(until, |ms| Timestamp::from_millis(ms).min(until));
                let entitlement = self.app.plans.of_revenuecat(name);
                let has_it = standing.iter().any(|s| s.entitlement == entitlement);
                (!has_it && ends_at > now).then(|| Grant {
                    user_id: *user,
                    entitlement,
                    source: SOURCE.into(),
                    source_ref: source_ref.clone(),
                    starts_at: self.at.min(now),
                    ends_at: Some(ends_at),
                    revoked_at: None,
                    reason: Some("temporary".into()),
                    in_grace: false,
                    will_renew: false,
                    kind: "promo".into(),
                })
            };
            let grants: Vec<_> = subscriber.entitlements.iter().filter_map(open).collect();
            if grants.is_empty() {
                continue;
            }
            db::billing::replace_grants(tx, SOURCE, &source_ref, &grants, now).await?;
            let receipt = apply::Receipt {
                provider: SOURCE,
                mode: self.mode,
                object: &source_ref,
                user: Some(*user),
                rule: "temporary",
                before: apply::view(None, &[]),
                after: apply::view(None, &grants),
            };
            apply::note(tx, receipt, &self.by, now).await?;
            return Ok(Outcome::Processed);
        }
        Ok(Outcome::Ignored("no_effect"))
    }
}

/// What a product opens by `plans.toml`, else what it had opened.
fn opened_by(app: &App, product: Option<&str>, known: Option<&Subscription>) -> Vec<String> {
    match product.and_then(|product| app.plans.of_product(product)) {
        Some(plan) => vec![plan.to_owned()],
        None => known.map(names).unwrap_or_default(),
    }
}

/// Makes what is known of a user's purchases what the API says of them. Gives whether anything changed.
/// What it does not name stays as it is.
async fn take(app: &App, tx: &mut Tx, read: &Read, by: &Cause<'_>) -> anyhow::Result<bool> {
    let mut changed = false;
    for purchase in &read.subscriber.purchases {
        let skipped = purchase.sandbox && app.config.is_production();
        if skipped || is_twin(app, Some(&purchase.store)) {
            continue;
        }
        let mode = if purchase.sandbox { "test" } else { "live" };
        let known = match purchase.transaction.as_deref() {
            Some(id) => db::billing::subscription(tx, SOURCE, mode, id).await?,
            None => None,
        };
        let known = match known {
            Some(known) => Some(known),
            None => bought(tx, mode, read.user, purchase).await?,
        };
        let Some(id) = known
            .as_ref()
            .map(|s| s.external_id.clone())
            .or_else(|| purchase.transaction.clone())
        else {
            continue;
        };
        money::hold(tx, &source_ref(mode, &id)).await?;
        let entitlements = match purchase.entitlements.is_empty() {
            true => opened_by(app, Some(&purchase.product), known.as_ref()),
            false => {
                let named = purchase.entitlements.iter();
                named.map(|name| app.plans.of_revenuecat(name)).collect()
            }
        };
        let about = About {
            mode,
            purchase: &id,
            user: Some(read.user),
            name: Some(read.user.to_string()),
            plan: app.plans.best_of(entitlements.iter().map(String::as_str)),
            entitlements,
        };
        let fact = held(purchase, read.at, about);
        changed |= reduce(app, tx, mode, &id, &fact, by).await?.changed;
    }
    Ok(changed)
}

/// The user's latest purchase of this product in this store: the API names the last payment, events the
/// first.
async fn bought(
    tx: &mut Tx,
    mode: &str,
    user: Uuid,
    purchase: &Purchase,
) -> db::Result<Option<Subscription>> {
    let is_it = |s: &Subscription| {
        s.product.as_ref() == Some(&purchase.product) && family(&s.store) == family(&purchase.store)
    };
    let all = stores::purchases_of_user(tx, mode, user).await?;
    let latest = all.into_iter().filter(is_it);
    Ok(latest.max_by_key(|s| (s.period_end, s.basis_at)))
}

/// What became of a purchase.
struct Reduced {
    rule: &'static str,
    user: Option<Uuid>,
    changed: bool,
}

/// Has a fact change what is known, writes it down with what it opens, tells the user what is new to them,
/// and keeps a receipt.
async fn reduce(
    app: &App,
    tx: &mut Tx,
    mode: &str,
    purchase: &str,
    fact: &Fact,
    by: &Cause<'_>,
) -> anyhow::Result<Reduced> {
    let now = app.now();
    let source_ref = source_ref(mode, purchase);
    let before = db::billing::subscription(tx, SOURCE, mode, purchase).await?;
    let (after, step) = reduce::apply(before.clone(), fact, now);
    let held = db::billing::grants_of_source(tx, SOURCE, &source_ref).await?;
    let mut grants = after.as_ref().map(reduce::grants).unwrap_or_default();
    grants.sort_by(|a, b| a.entitlement.cmp(&b.entitlement));
    if let Some(after) = &after
        && before.as_ref() != Some(after)
    {
        db::billing::save_subscription(tx, after, now).await?;
    }
    if held != grants {
        db::billing::replace_grants(tx, SOURCE, &source_ref, &grants, now).await?;
    }
    let user = after.as_ref().and_then(|s| s.user_id);
    let lost = before.as_ref().and_then(|s| s.user_id);
    let lost = lost.filter(|lost| Some(*lost) != user);
    for user in [user].into_iter().chain(lost.map(Some)) {
        let receipt = apply::Receipt {
            provider: SOURCE,
            mode,
            object: purchase,
            user,
            rule: step.rule,
            before: apply::view(before.as_ref(), &held),
            after: apply::view(after.as_ref(), &grants),
        };
        apply::note(tx, receipt, by, now).await?;
    }
    if let Some(user) = user {
        notices::tell(app, tx, user, step.notices).await?;
        if held != grants {
            notices::look_for_duplicates(tx, user, now).await?;
        }
    }
    Ok(Reduced {
        rule: step.rule,
        user,
        changed: before != after || held != grants,
    })
}
