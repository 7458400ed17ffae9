//! Of a purchase in an app store, as RevenueCat tells of it.
use super::{Basis, News, Notice, READ, RENEWAL_LEEWAY, is_news, stripe::names};
use db::{
    Json, Timestamp,
    billing::{Grant, Subscription},
};
use std::time::Duration;
use uuid::Uuid;
use webhooks::revenuecat::{Event, Kind, Purchase, without_renewal_count};

pub const SOURCE: &str = "revenuecat";
/// Expiries of one period may differ by this between events.
const SAME_PERIOD: Duration = Duration::from_secs(1);

/// One thing that was told.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    /// The purchase as of a moment. What it says of an end is one more end that was told.
    Snapshot(Box<Subscription>),
    /// An end was told, and with it what else is known of the purchase, where nothing else is.
    Ended {
        at: Timestamp,
        otherwise: Box<Subscription>,
    },
    /// It is known whose it is.
    Claimed { user: Uuid },
    /// It is another's from now on, or waits for whoever has this name.
    Moved { to: Option<Uuid>, name: String },
}

/// What came of a fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// By which rule, in one word.
    pub rule: &'static str,
    pub notices: Vec<Notice>,
}

/// The purchase after a fact, and what follows from it.
pub fn apply(
    state: Option<Subscription>,
    fact: &Fact,
    now: Timestamp,
) -> (Option<Subscription>, Step) {
    let (mut state, rule) = match (fact, state) {
        (Fact::Snapshot(told), None) => (Some((**told).clone()), "told"),
        (Fact::Snapshot(told), Some(known)) => {
            let (next, rule) = snapshot_over(known, told);
            (Some(next), rule)
        }
        (Fact::Ended { at, otherwise }, known) => {
            let mut known = known.unwrap_or_else(|| (**otherwise).clone());
            known.ended_at = known.ended_at.max(Some(*at));
            known.user_id = known.user_id.or(otherwise.user_id);
            let rule = if is_over(&known) { "ended" } else { "stale" };
            (Some(known), rule)
        }
        (_, None) => (None, "unknown"),
        (Fact::Claimed { user }, Some(mut known)) => {
            known.user_id = known.user_id.or(Some(*user));
            (Some(known), "claimed")
        }
        (Fact::Moved { to, name }, Some(mut known)) => {
            (known.user_id, known.customer) = (*to, Some(name.clone()));
            (Some(known), "moved")
        }
    };
    if let Some(known) = &mut state
        && is_over(known)
    {
        known.status = "expired".into();
        known.will_renew = false;
    }
    let notices = state.as_ref().and_then(|s| ended(s, now));
    let notices = notices.into_iter().collect();
    (state, Step { rule, notices })
}

/// The later counts, and of one moment the worse.
fn snapshot_over(known: Subscription, told: &Subscription) -> (Subscription, &'static str) {
    let ended_at = known.ended_at.max(told.ended_at);
    let basis = |s: &Subscription| (s.basis_at, s.basis_rank);
    if basis(told) < basis(&known) {
        let kept = Subscription {
            user_id: known.user_id.or(told.user_id),
            ended_at,
            ..known
        };
        return (kept, "stale");
    }
    let rule = if told.basis_rank == READ {
        "read"
    } else {
        "told"
    };
    let next = Subscription {
        ended_at,
        latest_invoice: told.latest_invoice.clone().or(known.latest_invoice),
        ..told.clone()
    };
    (next, rule)
}

/// Whether the end that was told is the end of the period that is known. An expiration may be told
/// after the renewal that followed it, and a renewal after the expiration that it made void.
fn is_over(s: &Subscription) -> bool {
    let ends = |ended: Timestamp| s.period_end.is_none_or(|end| end <= ended + SAME_PERIOD);
    s.ended_at.is_some_and(ends)
}

fn ended(s: &Subscription, now: Timestamp) -> Option<Notice> {
    let (plan, at) = (s.plan.clone()?, s.ended_at?);
    s.user_id?;
    let told = s.basis_at > Timestamp::from_unix(0) && s.refunded_at.is_none();
    (s.status == "expired" && told && is_news(at, now)).then(|| Notice {
        key: format!("ended:{}:{}:{}", s.mode, s.external_id, at.unix()),
        news: News::Ended { plan },
    })
}

/// What a purchase opens.
pub fn grants(s: &Subscription) -> Vec<Grant> {
    let Some(user_id) = s.user_id else {
        return vec![];
    };
    let ends_at = match s.status.as_str() {
        "active" if s.will_renew => s.period_end.map(|end| end + RENEWAL_LEEWAY),
        "billing_issue" => s.grace_until.or(s.period_end),
        "expired" => s.ended_at.or(s.period_end),
        _ => s.period_end,
    };
    // An end that was told alone says nothing of when it began.
    let told_at = match s.basis_at > Timestamp::from_unix(0) {
        true => s.basis_at,
        false => s.ended_at.unwrap_or(s.basis_at),
    };
    let grant = |entitlement| Grant {
        user_id,
        entitlement,
        source: SOURCE.into(),
        source_ref: source_ref(&s.mode, &s.external_id),
        starts_at: s.period_start.unwrap_or(told_at).min(told_at),
        ends_at,
        revoked_at: s.refunded_at,
        reason: s.refunded_at.map(|_| "refund".into()),
        in_grace: s.status == "billing_issue",
        will_renew: s.will_renew,
        kind: s.kind.clone().unwrap_or_else(|| "paid".into()),
    };
    names(s).into_iter().map(grant).collect()
}

/// By which the grants of a purchase are known: the sandbox numbers its purchases for itself.
pub fn source_ref(mode: &str, purchase: &str) -> String {
    format!("{mode}:{purchase}")
}

/// What is said of whom and what, beside what happened.
pub struct About<'a> {
    pub mode: &'a str,
    pub purchase: &'a str,
    pub user: Option<Uuid>,
    /// What RevenueCat calls them.
    pub name: Option<String>,
    pub plan: Option<String>,
    pub entitlements: Vec<String>,
}

/// What an event says of its purchase. `None` when it says nothing that changes it.
pub fn fact(event: &Event, about: About<'_>) -> Option<Fact> {
    let status = status(event)?;
    let at = Timestamp::from_millis(event.at_ms);
    let expires = event.expiration_at_ms.map(Timestamp::from_millis);
    // Of one moment the worse counts. An expiration tells no state but an end: whatever else is told of
    // the purchase, before or after, knows more.
    let basis = Basis {
        at: match status {
            "expired" => Timestamp::from_unix(0),
            _ => at,
        },
        rank: match status {
            "billing_issue" => 1,
            "cancelled" => 2,
            "refunded" => 3,
            _ => 0,
        },
        event: event.id.clone(),
    };
    let period = event.period_type.as_deref().map(str::to_lowercase);
    let renews = status == "active" && expires.is_some() && period.as_deref() != Some("prepaid");
    let store = event.store.as_deref().unwrap_or_default().to_lowercase();
    let told = Subscription {
        kind: kind(period.as_deref(), &store, event.is_family_share),
        product: event.product_id.clone(),
        will_renew: renews,
        period_start: event.purchased_at_ms.map(Timestamp::from_millis),
        period_end: expires,
        cancel_at: expires.filter(|_| status == "cancelled"),
        grace_until: event
            .grace_period_expiration_at_ms
            .map(Timestamp::from_millis),
        refunded_at: (status == "refunded").then_some(at),
        latest_invoice: payment(event).map(ToOwned::to_owned),
        store,
        status: status.into(),
        ..blank(about, basis)
    };
    Some(match status {
        "expired" => Fact::Ended {
            at: expires.unwrap_or(at),
            otherwise: Box::new(told),
        },
        _ => Fact::Snapshot(Box::new(told)),
    })
}

/// What an event says was paid last: by it the API names the purchase, whose first payment it does not tell.
pub fn payment(event: &Event) -> Option<&str> {
    event.transaction_id.as_deref().map(without_renewal_count)
}

fn status(event: &Event) -> Option<&'static str> {
    Some(match event.kind {
        Kind::InitialPurchase
        | Kind::Renewal
        | Kind::Uncancellation
        | Kind::SubscriptionExtended
        | Kind::RefundReversed
        | Kind::PurchaseRedeemed
        | Kind::NonRenewingPurchase => "active",
        Kind::Cancellation => match event.cancel_reason.as_deref() {
            Some("CUSTOMER_SUPPORT") => "refunded",
            // A billing issue is told at the same time, and knows of the grace.
            Some("BILLING_ERROR") => return None,
            _ => "cancelled",
        },
        Kind::BillingIssue => "billing_issue",
        Kind::Expiration => "expired",
        _ => return None,
    })
}

/// What the API says of a purchase, asked at `at`.
pub fn held(purchase: &Purchase, at: Timestamp, about: About<'_>) -> Fact {
    let time = |ms: Option<i64>| ms.map(Timestamp::from_millis);
    let expires = time(purchase.expires_at_ms);
    let grace_until = time(purchase.grace_expires_at_ms);
    let ends = grace_until.max(expires);
    let status = if purchase.refunded_at_ms.is_some() {
        "refunded"
    } else if purchase.billing_issue_at_ms.is_some() {
        "billing_issue"
    } else if purchase.unsubscribed_at_ms.is_some() {
        "cancelled"
    } else {
        "active"
    };
    let basis = Basis {
        at,
        rank: READ,
        event: "read".into(),
    };
    let period = purchase.period_type.as_deref();
    Fact::Snapshot(Box::new(Subscription {
        kind: kind(period, &purchase.store, purchase.family_share),
        product: Some(purchase.product.clone()),
        will_renew: status == "active"
            && !purchase.once
            && purchase.resumes_at_ms.is_none()
            && expires.is_some()
            && !matches!(period, Some("prepaid" | "promotional")),
        period_start: time(purchase.purchased_at_ms),
        period_end: expires,
        cancel_at: expires.filter(|_| status == "cancelled"),
        grace_until,
        refunded_at: time(purchase.refunded_at_ms),
        ended_at: ends.filter(|end| *end <= at),
        latest_invoice: purchase.transaction.clone(),
        store: purchase.store.clone(),
        status: status.into(),
        ..blank(about, basis)
    }))
}

fn kind(period: Option<&str>, store: &str, is_family_share: bool) -> Option<String> {
    match (period, store) {
        (Some("trial"), _) => Some("trial".into()),
        (Some("promotional"), _) | (_, "promotional") => Some("promo".into()),
        // Somebody else pays for it.
        _ if is_family_share => Some("promo".into()),
        _ => None,
    }
}

fn blank(about: About<'_>, basis: Basis) -> Subscription {
    Subscription {
        provider: SOURCE.into(),
        mode: about.mode.into(),
        external_id: about.purchase.into(),
        user_id: about.user,
        customer: about.name,
        store: String::new(),
        status: String::new(),
        plan: about.plan,
        product: None,
        quantity: 1,
        will_renew: false,
        period_start: None,
        period_end: None,
        trial_end: None,
        cancel_at: None,
        ended_at: None,
        basis_at: basis.at,
        basis_rank: basis.rank,
        basis_event: basis.event,
        entitlements: Some(Json(about.entitlements)),
        kind: None,
        started_at: None,
        latest_invoice: None,
        paused: None,
        paid_up_at: None,
        grace_until: None,
        refunded_at: None,
    }
}

/// Stores whose receipts move together.
pub fn family(store: &str) -> String {
    match store.to_lowercase().as_str() {
        "mac_app_store" => "app_store".into(),
        other => other.into(),
    }
}
