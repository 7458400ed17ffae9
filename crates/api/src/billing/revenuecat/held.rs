//! What RevenueCat's API says that a user holds.
use super::{Read, SOURCE, is_twin, keep::reduce};
use crate::{
    App,
    billing::{
        apply::Cause,
        reduce::{
            revenuecat::{About, family, held, source_ref},
            stripe::names,
        },
    },
};
use db::{
    Timestamp, Tx,
    billing::{Subscription, money, stores},
};
use uuid::Uuid;
use webhooks::revenuecat::Purchase;

/// What changes its product ends and begins within so long.
const AT_ONCE_MS: u64 = 60_000;

/// What a product opens by `plans.toml`, else what it had opened.
pub fn opened_by(app: &App, product: Option<&str>, known: Option<&Subscription>) -> Vec<String> {
    match product.and_then(|product| app.plans.of_product(product)) {
        Some(plan) => vec![plan.to_owned()],
        None => known.map(names).unwrap_or_default(),
    }
}

/// What became of an answer.
#[derive(Debug, Default)]
pub struct Taken {
    pub changed: bool,
    /// The purchases that it named, as their grants are known.
    pub named: Vec<String>,
}

/// Makes what is known of a user's purchases what the API says of them. What it does not name stays as it is.
pub async fn take(app: &App, tx: &mut Tx, read: &Read, by: &Cause<'_>) -> anyhow::Result<Taken> {
    let mut taken = Taken::default();
    for Named {
        mode,
        id,
        purchase,
        known,
    } in named(app, tx, read).await?
    {
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
        taken.changed |= reduce(app, tx, mode, &id, &fact, by).await?.changed;
        taken.named.push(source_ref(mode, &id));
    }
    Ok(taken)
}

/// A purchase of the answer, and what it is known as here.
struct Named<'a> {
    mode: &'static str,
    id: String,
    purchase: &'a Purchase,
    known: Option<Subscription>,
}

/// A subscription that changed its product is named once for each: the one that ends last says how it stands.
async fn named<'a>(app: &App, tx: &mut Tx, read: &'a Read) -> db::Result<Vec<Named<'a>>> {
    let mut all: Vec<Named<'a>> = vec![];
    for purchase in &read.subscriber.purchases {
        let skipped = purchase.sandbox && app.config.is_production();
        if skipped || is_twin(app, Some(&purchase.store)) {
            continue;
        }
        let mode = if purchase.sandbox { "test" } else { "live" };
        let mut known = known(tx, mode, read.user, purchase).await?;
        if known.is_none()
            && let Some(before) = before(&read.subscriber.purchases, purchase)
        {
            known = self::known(tx, mode, read.user, before).await?;
        }
        // What was over before anyone told of it opens nothing.
        if known.is_none() && ends(purchase).is_some_and(|end| end <= read.at) {
            continue;
        }
        let id = known.as_ref().map(|s| s.external_id.clone());
        let Some(id) = id.or_else(|| purchase.transaction.clone()) else {
            continue;
        };
        let same = |named: &&mut Named| named.mode == mode && named.id == id;
        match all.iter_mut().find(same) {
            Some(named) if is_later(purchase, named.purchase) => named.purchase = purchase,
            Some(_) => {}
            None => all.push(Named {
                mode,
                id,
                purchase,
                known,
            }),
        }
    }
    Ok(all)
}

/// The product that this one took the place of: in the same store, it ended when this one began.
fn before<'a>(all: &'a [Purchase], purchase: &Purchase) -> Option<&'a Purchase> {
    let began = purchase.purchased_at_ms?;
    all.iter().find(|other| {
        let is_other = other.product != purchase.product && other.sandbox == purchase.sandbox;
        let in_store = family(&other.store) == family(&purchase.store);
        let ended = other.expires_at_ms.filter(|_| is_other && in_store);
        ended.is_some_and(|ended| ended.abs_diff(began) <= AT_ONCE_MS)
    })
}

/// `None` is never.
fn ends(purchase: &Purchase) -> Option<Timestamp> {
    let expires = purchase.expires_at_ms?;
    let ends = expires.max(purchase.grace_expires_at_ms.unwrap_or(expires));
    Some(Timestamp::from_millis(ends))
}

fn is_later(one: &Purchase, other: &Purchase) -> bool {
    let end = |purchase| (ends(purchase).is_none(), ends(purchase));
    end(other) < end(one)
}

/// The API names the last payment, events the first: it is known by either, else by the user's latest
/// purchase of this product in this store.
async fn known(
    tx: &mut Tx,
    mode: &str,
    user: Uuid,
    purchase: &Purchase,
) -> db::Result<Option<Subscription>> {
    if let Some(id) = purchase.transaction.as_deref()
        && let Some(known) = db::billing::subscription(tx, SOURCE, mode, id).await?
    {
        return Ok(Some(known));
    }
    let in_store = |s: &Subscription| family(&s.store) == family(&purchase.store);
    let mut all = stores::purchases_of_user(tx, mode, user).await?;
    all.retain(in_store);
    let paid =
        |s: &&Subscription| s.latest_invoice.is_some() && s.latest_invoice == purchase.transaction;
    if let Some(known) = all.iter().find(paid) {
        return Ok(Some(known.clone()));
    }
    all.retain(|s| s.product.as_ref() == Some(&purchase.product));
    Ok(all.into_iter().max_by_key(|s| (s.period_end, s.basis_at)))
}
