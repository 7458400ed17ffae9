//! What happens to what somebody bought, by what they do and by what time brings.

use serde::Deserialize;

use super::event::{self, DAY_S};
use super::project::{Kept, Teller};
use super::subscriber::{Next, Purchase};
use crate::dice::Dice;

/// What happens to somebody's purchase.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "act", rename_all = "snake_case", deny_unknown_fields)]
pub enum Act {
    Purchase(Bought),
    /// Before its time, or after a billing issue.
    Renew,
    Cancel,
    Uncancel,
    /// The store cannot charge; days of grace, none at all when absent.
    BillingIssue {
        grace_days: Option<i64>,
    },
    Expire,
    Refund,
    /// To another product of the same subscription, at once or with the next period, as on the App Store.
    ChangeProduct {
        product: String,
        entitlement: Option<String>,
        #[serde(default)]
        later: bool,
    },
    /// From the end of the period for so many days, as on Google Play.
    Pause {
        days: i64,
    },
    /// The purchase is somebody else's from now on.
    Transfer {
        to: String,
    },
    /// The same person goes by this id too.
    Alias {
        id: String,
    },
}

/// What is bought.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bought {
    pub product: String,
    pub entitlement: Option<String>,
    pub store: String,
    pub environment: String,
    /// Of a period.
    pub days: i64,
    pub trial: bool,
    /// Paid once, and for ever.
    pub once: bool,
}

impl Default for Bought {
    fn default() -> Self {
        Self {
            product: "com.example.pro.monthly".to_owned(),
            entitlement: Some("pro_access".to_owned()),
            store: "APP_STORE".to_owned(),
            environment: "SANDBOX".to_owned(),
            days: 30,
            trial: false,
            once: false,
        }
    }
}

/// One of the purchases that were handed on, and every id of both.
pub struct Handed {
    first: Purchase,
    from: Vec<String>,
    to: Vec<String>,
}

const PRICE: f64 = 9.99;

impl Kept {
    pub fn act(&mut self, id: &str, act: Act, teller: &mut Teller<'_>) -> Result<(), &'static str> {
        let at = teller.at;
        match act {
            Act::Purchase(bought) => return self.purchase(id, bought, teller),
            Act::Transfer { to } => return self.transfer(id, &to, teller),
            Act::Alias { id: other } => return self.alias(id, other, at),
            _ => {}
        }
        let customer = self.customer(id, at);
        let lasting = |purchase: &Purchase| !purchase.has_ended;
        let Some(place) = customer.purchases.iter().rposition(lasting) else {
            return Err("there is no purchase that has not ended");
        };
        let purchase = &mut customer.purchases[place];
        let (kind, reason, price) = match act {
            Act::Renew => {
                renew(purchase, at);
                ("RENEWAL", "", PRICE)
            }
            Act::Cancel => {
                purchase.unsubscribed_at = Some(at);
                ("CANCELLATION", "UNSUBSCRIBE", 0.0)
            }
            Act::Uncancel => {
                purchase.unsubscribed_at = None;
                ("UNCANCELLATION", "", 0.0)
            }
            Act::BillingIssue { grace_days } => {
                purchase.billing_issue_at = Some(at);
                purchase.grace_until = grace_days.map(|days| at + days * DAY_S);
                ("BILLING_ISSUE", "", 0.0)
            }
            Act::Refund => {
                (purchase.refunded_at, purchase.unsubscribed_at) = (Some(at), Some(at));
                purchase.expires_at = purchase.expires_at.map(|_| at);
                purchase.has_ended = purchase.expires_at.is_none();
                ("CANCELLATION", "CUSTOMER_SUPPORT", -PRICE)
            }
            Act::ChangeProduct {
                product,
                entitlement,
                later,
            } => {
                purchase.next = Some(Next {
                    product,
                    entitlement,
                });
                let changed = purchase.clone();
                let other = (!later).then(|| other_product(purchase, at)).flatten();
                teller.tell(customer, &changed, "PRODUCT_CHANGE", "", 0.0);
                if let Some(other) = other {
                    teller.tell(customer, &other, "RENEWAL", "", PRICE);
                    customer.purchases.push(other);
                }
                return Ok(());
            }
            Act::Pause { days } => {
                let end = purchase.expires_at.unwrap_or(at);
                purchase.resumes_at = Some(end + days * DAY_S);
                ("SUBSCRIPTION_PAUSED", "", 0.0)
            }
            // The rest is above.
            _ => {
                purchase.expires_at = purchase.expires_at.map(|_| at);
                purchase.has_ended = true;
                ("EXPIRATION", "UNSUBSCRIBE", 0.0)
            }
        };
        let purchase = purchase.clone();
        teller.tell(customer, &purchase, kind, reason, price);
        Ok(())
    }

    fn purchase(
        &mut self,
        id: &str,
        bought: Bought,
        teller: &mut Teller<'_>,
    ) -> Result<(), &'static str> {
        let at = teller.at;
        let customer = self.customer(id, at);
        if customer
            .purchases
            .iter()
            .any(|purchase| purchase.product == bought.product && !purchase.has_ended)
        {
            return Err("this product is theirs already");
        }
        let mut dice = Dice::of(&format!("{id} {} {at}", bought.product));
        let number = 2_000_000_000_000_000 + dice.below(999_999_999);
        let purchase = Purchase {
            first_transaction: if bought.store == "PLAY_STORE" {
                format!("GPA.{number}")
            } else {
                number.to_string()
            },
            product: bought.product,
            entitlement: bought.entitlement,
            store: bought.store,
            environment: bought.environment,
            first_purchased_at: at,
            purchased_at: at,
            expires_at: (!bought.once).then_some(at + bought.days * DAY_S),
            period_type: if bought.trial { "TRIAL" } else { "NORMAL" }.to_owned(),
            period_s: bought.days.max(1) * DAY_S,
            began_with_trial: bought.trial,
            renewals: 0,
            unsubscribed_at: None,
            billing_issue_at: None,
            grace_until: None,
            refunded_at: None,
            next: None,
            resumes_at: None,
            is_paused: false,
            has_ended: false,
            made_up_at: None,
        };
        let kind = if bought.once {
            "NON_RENEWING_PURCHASE"
        } else {
            "INITIAL_PURCHASE"
        };
        let price = if bought.trial { 0.0 } else { PRICE };
        customer
            .purchases
            .retain(|old| old.product != purchase.product);
        customer.purchases.push(purchase.clone());
        teller.tell(customer, &purchase, kind, "", price);
        Ok(())
    }

    fn transfer(
        &mut self,
        from: &str,
        to: &str,
        teller: &mut Teller<'_>,
    ) -> Result<(), &'static str> {
        let Some(Handed { first, from, to }) = self.hand_on(from, to, teller.at) else {
            return Err("there is nothing to transfer");
        };
        let id = event::fresh_id();
        let event = event::of_transfer(
            &from,
            &to,
            &first.store,
            &first.environment,
            teller.stamp(),
            &id,
        );
        teller.told.push((id, event));
        Ok(())
    }

    /// What one has is the other's; `None` where it is nothing.
    pub fn hand_on(&mut self, from: &str, to: &str, at: i64) -> Option<Handed> {
        let loser = self.customer(from, at);
        let moved = std::mem::take(&mut loser.purchases);
        let from = loser.ids.clone();
        let first = moved.first().cloned()?;
        let winner = self.customer(to, at);
        winner.purchases.extend(moved);
        let to = winner.ids.clone();
        Some(Handed { first, from, to })
    }

    fn alias(&mut self, id: &str, other: String, now: i64) -> Result<(), &'static str> {
        if self
            .customers
            .iter()
            .any(|customer| customer.ids.contains(&other))
        {
            return Err("this id is somebody's already");
        }
        self.customer(id, now).ids.push(other);
        Ok(())
    }
}

fn renew(purchase: &mut Purchase, at: i64) {
    purchase.renewals += 1;
    purchase.purchased_at = at;
    // A store that charges before the end adds to it.
    purchase.expires_at = purchase
        .expires_at
        .map(|end| end.max(at) + purchase.period_s);
    purchase.period_type = "NORMAL".to_owned();
    (
        purchase.unsubscribed_at,
        purchase.billing_issue_at,
        purchase.grace_until,
        purchase.resumes_at,
    ) = (None, None, None, None);
    purchase.is_paused = false;
}

/// Ends it, and begins what it changes to: one subscription to the store, two products to RevenueCat.
fn other_product(purchase: &mut Purchase, at: i64) -> Option<Purchase> {
    let next = purchase.next.take()?;
    let mut other = purchase.clone();
    (other.product, other.entitlement) = (next.product, next.entitlement);
    renew(&mut other, at);
    other.expires_at = Some(at + other.period_s);
    (purchase.expires_at, purchase.has_ended) = (Some(at), true);
    Some(other)
}

/// Renewals, pauses and ends, each at its own time.
pub fn catch_up(kept: &mut Kept, teller: &mut Teller<'_>) {
    let now = teller.at;
    for customer in &mut kept.customers {
        let mut told = vec![];
        let mut place = 0;
        // What changes its product comes once more, as another.
        while place < customer.purchases.len() {
            let purchase = &mut customer.purchases[place];
            while let Some(at) = next_turn(purchase).filter(|at| *at <= now) {
                let (kind, reason, price) = turn(purchase, at);
                if kind == "CHANGED" {
                    let other = other_product(purchase, at);
                    let other = other.into_iter();
                    customer.purchases.extend(other.inspect(|other| {
                        told.push((at, other.clone(), "RENEWAL", "", PRICE));
                    }));
                    break;
                }
                if purchase.made_up_at.is_none() {
                    told.push((at, purchase.clone(), kind, reason, price));
                }
            }
            place += 1;
        }
        for (at, purchase, kind, reason, price) in told {
            teller.at = at;
            teller.tell(customer, &purchase, kind, reason, price);
        }
        teller.at = now;
    }
}

/// When something happens to it by itself.
fn next_turn(purchase: &Purchase) -> Option<i64> {
    if purchase.has_ended {
        return None;
    }
    if purchase.is_paused {
        return purchase.resumes_at;
    }
    let end = purchase.expires_at?;
    Some(purchase.grace_until.unwrap_or(end).max(end))
}

fn turn(purchase: &mut Purchase, at: i64) -> (&'static str, &'static str, f64) {
    let leaves = purchase.unsubscribed_at.is_some() || purchase.made_up_at.is_some();
    if leaves || purchase.billing_issue_at.is_some() {
        purchase.has_ended = true;
        let reason = if purchase.refunded_at.is_some() {
            "CUSTOMER_SUPPORT"
        } else if purchase.billing_issue_at.is_some() {
            "BILLING_ERROR"
        } else {
            "UNSUBSCRIBE"
        };
        ("EXPIRATION", reason, 0.0)
    } else if purchase.resumes_at.is_some() && !purchase.is_paused {
        purchase.is_paused = true;
        ("EXPIRATION", "SUBSCRIPTION_PAUSED", 0.0)
    } else if purchase.next.is_some() {
        ("CHANGED", "", 0.0)
    } else {
        renew(purchase, at);
        ("RENEWAL", "", PRICE)
    }
}
