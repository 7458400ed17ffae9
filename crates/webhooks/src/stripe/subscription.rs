use crate::Unreadable;
use crate::json::{self, Object};
use crate::open_enum::open_enum;
use serde_json::Value;

/// A subscription. <https://docs.stripe.com/api/subscriptions/object>
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// `sub_…`
    pub id: String,
    /// Who pays.
    pub customer: Option<String>,
    /// Whether it grants access now, together with the times below.
    pub status: Status,
    /// Told by `customer.subscription.deleted`: it is over, whatever the status says.
    pub deleted: bool,
    /// `metadata.user_id`: our user, when we started the checkout.
    pub user_id: Option<String>,
    /// What is paid for.
    pub items: Vec<Item>,
    /// When it was made, unix seconds.
    pub created: Option<i64>,
    /// When the period of `period_end` began, unix seconds.
    pub period_start: Option<i64>,
    /// When the current period ends, unix seconds: of the item that runs longest since «basil»,
    /// of the whole subscription before.
    pub period_end: Option<i64>,
    /// When the trial ends or ended, unix seconds.
    pub trial_end: Option<i64>,
    /// When it will end, unix seconds. The portal may set only this one for «at period end».
    pub cancel_at: Option<i64>,
    /// Whether it ends with the current period.
    pub cancel_at_period_end: bool,
    /// When someone asked to cancel, unix seconds. Not the end: it may still be active.
    pub canceled_at: Option<i64>,
    /// When it ended, unix seconds.
    pub ended_at: Option<i64>,
    /// Why it was or will be cancelled, such as `payment_failed`.
    pub cancellation_reason: Option<String>,
    /// What happens to invoices while their collection is paused: `void`, `keep_as_draft` or
    /// `mark_uncollectible`. The status does not change.
    pub pause_collection: Option<String>,
    /// The invoice of the current period, `in_…`.
    pub latest_invoice: Option<String>,
    /// The status before the change, when the event changed it.
    pub previous_status: Option<String>,
}

/// A part of a subscription. <https://docs.stripe.com/api/subscription_items/object>
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// `price_…`, or the id of a plan from before prices.
    pub price: String,
    /// `prod_…`
    pub product: Option<String>,
    /// How many, such as seats; 1 for a metered price, which has none.
    pub quantity: i64,
    /// The name by which the price is looked up, such as `pro_month`.
    pub lookup_key: Option<String>,
    /// What the price opens, where its metadata says so: `entitlement`, else `plan`. Several stand
    /// with commas between them.
    pub entitlements: Vec<String>,
}

open_enum! {
    /// Where a subscription stands.
    /// <https://docs.stripe.com/api/subscriptions/object#subscription_object-status>
    pub enum Status {
        /// The first payment is pending or failed; 23 hours to complete it.
        Incomplete = "incomplete",
        /// The first payment never came. Final.
        IncompleteExpired = "incomplete_expired",
        /// Free until the trial ends.
        Trialing = "trialing",
        /// Paid.
        Active = "active",
        /// The renewal is unpaid and will be tried again; the period is already the new one.
        PastDue = "past_due",
        /// The renewal is unpaid and will not be tried again.
        Unpaid = "unpaid",
        /// Over. Final.
        Canceled = "canceled",
        /// No invoices until someone resumes it.
        Paused = "paused",
    }
}

/// Reads a subscription as the API answers it (`GET /v1/subscriptions/{id}`), with the same eyes
/// as an event. `deleted` and `previous_status` are only ever told by events.
pub fn read_subscription(object: &Value) -> Result<Subscription, Unreadable> {
    Subscription::read(&Object::root(object)?)
}

impl Subscription {
    pub(super) fn read(subscription: &Object) -> json::Result<Self> {
        let items = subscription.object("items")?.objects("data")?;
        let (period_start, period_end) = period(subscription, &items)?;

        Ok(Self {
            id: subscription.required("id", Object::text)?,
            customer: subscription.id("customer")?,
            status: subscription.required("status", Object::text)?.into(),
            deleted: false,
            user_id: super::user_id(subscription)?,
            items: items.iter().map(Item::read).collect::<Result<_, _>>()?,
            created: subscription.int("created")?,
            period_start,
            period_end,
            trial_end: subscription.int("trial_end")?,
            cancel_at: subscription.int("cancel_at")?,
            cancel_at_period_end: subscription.flag("cancel_at_period_end")?.unwrap_or(false),
            canceled_at: subscription.int("canceled_at")?,
            ended_at: subscription.int("ended_at")?,
            cancellation_reason: subscription
                .object("cancellation_details")?
                .text("reason")?,
            pause_collection: subscription.object("pause_collection")?.text("behavior")?,
            latest_invoice: subscription.id("latest_invoice")?,
            previous_status: None,
        })
    }
}

/// Start and end of the item that runs longest, else of the subscription.
fn period(subscription: &Object, items: &[Object]) -> json::Result<(Option<i64>, Option<i64>)> {
    let mut longest = (None, None);
    for item in items {
        let period = current_period(item)?;
        if period.1 > longest.1 {
            longest = period;
        }
    }
    match longest {
        (_, None) => current_period(subscription),
        found => Ok(found),
    }
}

fn current_period(of: &Object) -> json::Result<(Option<i64>, Option<i64>)> {
    Ok((
        of.int("current_period_start")?,
        of.int("current_period_end")?,
    ))
}

impl Item {
    fn read(item: &Object) -> json::Result<Self> {
        // A plan is the older form of a price. Items carry both, or only the plan.
        let price = if item.has("price") { "price" } else { "plan" };
        let details = item.object(price)?;
        let metadata = details.object("metadata")?;
        let named = metadata.text("entitlement")?.or(metadata.text("plan")?);
        let names = named.as_deref().unwrap_or_default().split(',');

        Ok(Self {
            price: item.required(price, Object::id)?,
            product: details.id("product")?,
            quantity: item.int("quantity")?.unwrap_or(1),
            lookup_key: details.text("lookup_key")?,
            entitlements: names
                .map(|name| name.trim().to_owned())
                .filter(|name| !name.is_empty())
                .collect(),
        })
    }
}
