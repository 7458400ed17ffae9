//! What an event says, by its kind.
use super::{
    Read, SOURCE,
    held::opened_by,
    keep::{Reduced, reduce},
    names::{Who, link, owner, resolve},
};
use crate::{
    App,
    billing::{
        apply::{self, Cause, Outcome},
        entitlements,
        reduce::{
            READ,
            revenuecat::{About, fact, family, payment, source_ref},
        },
    },
};
use db::{
    Timestamp, Tx,
    billing::{Grant, Subscription, money, stores},
};
use std::time::Duration;
use uuid::Uuid;
use webhooks::revenuecat::{Event, Kind};

/// What a store could not be asked about is open for so long.
const TEMPORARY: Duration = Duration::from_secs(24 * 3600);

/// An event on its way.
pub struct Told<'a> {
    pub app: &'a App,
    pub event: &'a Event,
    pub mode: &'a str,
    pub at: Timestamp,
    pub by: Cause<'a>,
}

impl Told<'_> {
    fn names(&self) -> impl Iterator<Item = &String> + Clone {
        self.event.app_user_ids.iter()
    }

    pub async fn purchase(&self, tx: &mut Tx) -> anyhow::Result<Outcome> {
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
        self.fold(tx, purchase).await?;
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

    /// What was read before this was told may be known by its last payment: it is one purchase.
    async fn fold(&self, tx: &mut Tx, purchase: &str) -> db::Result<()> {
        let Some(payment) = payment(self.event).filter(|payment| *payment != purchase) else {
            return Ok(());
        };
        let read = db::billing::subscription(tx, SOURCE, self.mode, payment).await?;
        let Some(read) = read.filter(|read| read.basis_rank == READ) else {
            return Ok(());
        };
        let now = self.app.now();
        let of_payment = source_ref(self.mode, payment);
        db::billing::replace_grants(tx, SOURCE, &of_payment, &[], now).await?;
        db::billing::forget_subscription(tx, SOURCE, self.mode, payment).await?;
        let whole = Subscription {
            external_id: purchase.to_owned(),
            ..read
        };
        db::billing::save_subscription(tx, &whole, now).await
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

    pub async fn virtual_currency(&self, tx: &mut Tx) -> anyhow::Result<Outcome> {
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

    pub async fn alias(&self, tx: &mut Tx) -> anyhow::Result<Outcome> {
        Ok(match resolve(tx, self.names()).await? {
            Who::Many => Outcome::Parked("ambiguous"),
            Who::Nobody => Outcome::Parked("unlinked"),
            Who::One(user) => {
                link(self.app, tx, self.names(), user, &self.by).await?;
                Outcome::Processed
            }
        })
    }

    /// The store could not be asked. Only what RevenueCat's API shows counts, and for a day at most.
    pub async fn temporary(&self, tx: &mut Tx, reads: &[Read]) -> anyhow::Result<Outcome> {
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
