use sha2::{Digest, Sha256};

use super::Kind;
use crate::Unreadable;
use crate::json::{self, Object};

/// One event. `None` where the member is null or not sent for this kind. Times are unix
/// milliseconds, as sent.
/// <https://www.revenuecat.com/docs/integrations/webhooks/event-types-and-fields>
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Equal for every delivery of this event. A test without one gets a hash of its body.
    pub id: String,
    /// What happened.
    pub kind: Kind,
    /// When RevenueCat made the event; the same for every delivery. 0 for a test without one.
    pub at_ms: i64,
    /// Every id by which the customer may be known to us: `app_user_id`, `original_app_user_id`,
    /// then the aliases, each once. Empty for a transfer.
    pub app_user_ids: Vec<String>,
    /// Whether no real money is involved. An environment with an unknown name counts as a sandbox;
    /// kinds that do not name one count as production.
    pub sandbox: bool,
    /// Where it was bought, such as `APP_STORE`.
    pub store: Option<String>,
    /// The store's product; `<subscription>:<base plan>` on Google Play.
    pub product_id: Option<String>,
    /// The product it changes to, for [`Kind::ProductChange`].
    pub new_product_id: Option<String>,
    /// What the product unlocks. `None` when it is not mapped, which does not mean everything.
    pub entitlement_ids: Option<Vec<String>>,
    /// `TRIAL`, `INTRO`, `NORMAL`, `PROMOTIONAL` or `PREPAID`.
    pub period_type: Option<String>,
    /// When the current period was bought.
    pub purchased_at_ms: Option<i64>,
    /// When access ends. `None` for a purchase that does not end.
    pub expiration_at_ms: Option<i64>,
    /// Until when a failed charge is forgiven, for [`Kind::BillingIssue`].
    pub grace_period_expiration_at_ms: Option<i64>,
    /// When a paused subscription goes on.
    pub auto_resume_at_ms: Option<i64>,
    /// Why it will not renew, such as `UNSUBSCRIBE`.
    pub cancel_reason: Option<String>,
    /// Why it ended, such as `BILLING_ERROR`.
    pub expiration_reason: Option<String>,
    /// The store's id of this payment.
    pub transaction_id: Option<String>,
    /// The store's id of the first payment: equal for all periods of a subscription. Without the
    /// `..N` that Google Play counts renewals with.
    pub original_transaction_id: Option<String>,
    /// Whether somebody of the customer's family paid.
    pub is_family_share: bool,
    /// Whether this renewal turned a trial into a paid subscription.
    pub is_trial_conversion: bool,
    /// The App User IDs that lost their purchases, for [`Kind::Transfer`].
    pub transferred_from: Vec<String>,
    /// The App User IDs that got them.
    pub transferred_to: Vec<String>,
    /// In US dollars, negative for a refund. RevenueCat sends decimals, not minor units.
    pub price: Option<f64>,
    /// In `currency`, negative for a refund.
    pub price_in_purchased_currency: Option<f64>,
    /// ISO code in upper case.
    pub currency: Option<String>,
    /// Names the change of balances, for [`Kind::VirtualCurrencyTransaction`].
    pub virtual_currency_transaction_id: Option<String>,
    /// The changes of balances.
    pub adjustments: Vec<Adjustment>,
}

/// A change of one balance of virtual currency.
/// <https://www.revenuecat.com/docs/offerings/virtual-currency>
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adjustment {
    /// The currency's code in the dashboard.
    pub code: String,
    /// What is added; negative when it is taken.
    pub amount: i64,
}

/// Reads a verified body.
pub fn read(body: &[u8]) -> Result<Event, Unreadable> {
    let json = json::parse(body)?;
    let event = Object::root(&json)?.required_object("event")?;
    let kind = Kind::from(event.required("type", Object::text)?);

    // Hand-written smoke tests send nothing but the type. They may pass because a test has no
    // effect; anything else has to say what it is and when it happened.
    let (id, at_ms) = if kind == Kind::Test {
        let id = event.text("id")?;
        let at_ms = event.int("event_timestamp_ms")?;
        (id.unwrap_or_else(|| hash_of(body)), at_ms.unwrap_or(0))
    } else {
        (
            event.required("id", Object::text)?,
            event.required("event_timestamp_ms", Object::int)?,
        )
    };

    Ok(Event {
        id,
        kind,
        at_ms,
        app_user_ids: app_user_ids(&event)?,
        sandbox: is_sandbox(&event)?,
        store: event.text("store")?,
        product_id: event.text("product_id")?,
        new_product_id: event.text("new_product_id")?,
        entitlement_ids: event.texts("entitlement_ids")?,
        period_type: event.text("period_type")?,
        purchased_at_ms: event.int("purchased_at_ms")?,
        expiration_at_ms: event.int("expiration_at_ms")?,
        grace_period_expiration_at_ms: event.int("grace_period_expiration_at_ms")?,
        auto_resume_at_ms: event.int("auto_resume_at_ms")?,
        cancel_reason: event.text("cancel_reason")?,
        expiration_reason: event.text("expiration_reason")?,
        transaction_id: event.text("transaction_id")?,
        original_transaction_id: event
            .text("original_transaction_id")?
            .map(|id| without_renewal_count(&id).to_owned()),
        is_family_share: event.flag("is_family_share")?.unwrap_or(false),
        is_trial_conversion: event.flag("is_trial_conversion")?.unwrap_or(false),
        transferred_from: event.texts("transferred_from")?.unwrap_or_default(),
        transferred_to: event.texts("transferred_to")?.unwrap_or_default(),
        price: event.number("price")?,
        price_in_purchased_currency: event.number("price_in_purchased_currency")?,
        currency: event.text("currency")?,
        virtual_currency_transaction_id: event.text("virtual_currency_transaction_id")?,
        adjustments: event
            .objects("adjustments")?
            .iter()
            .map(Adjustment::read)
            .collect::<Result<_, _>>()?,
    })
}

impl Adjustment {
    fn read(adjustment: &Object) -> json::Result<Self> {
        Ok(Self {
            code: adjustment
                .object("currency")?
                .required("code", Object::text)?,
            amount: adjustment.required("amount", Object::int)?,
        })
    }
}

fn hash_of(body: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(body)))
}

fn app_user_ids(event: &Object) -> json::Result<Vec<String>> {
    let named = [
        event.text("app_user_id")?,
        event.text("original_app_user_id")?,
    ];
    let aliases = event.texts("aliases")?.unwrap_or_default();

    let mut ids = Vec::new();
    for id in named.into_iter().flatten().chain(aliases) {
        if !id.is_empty() && !ids.contains(&id) {
            ids.push(id);
        }
    }
    Ok(ids)
}

fn is_sandbox(event: &Object) -> json::Result<bool> {
    // Virtual currency names it differently.
    let environment = event
        .text("environment")?
        .or(event.text("purchase_environment")?);
    Ok(environment.is_some_and(|name| name != "PRODUCTION"))
}

impl Event {
    /// What all events of one purchase have in common: the first transaction, else the one that is
    /// named, without the count of renewals.
    pub fn purchase(&self) -> Option<&str> {
        let one = self.transaction_id.as_deref().map(without_renewal_count);
        self.original_transaction_id.as_deref().or(one)
    }
}

/// `GPA.3345-1122-7788-90123..4` is the fifth renewal of `GPA.3345-1122-7788-90123`: Google's
/// «subscription order numbers», quoted at <https://stackoverflow.com/a/36739101>.
pub fn without_renewal_count(id: &str) -> &str {
    match id.rsplit_once("..") {
        Some((first, count)) if count.parse::<u32>().is_ok() => first,
        _ => id,
    }
}
