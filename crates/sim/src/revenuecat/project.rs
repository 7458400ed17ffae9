//! The project: its customers, what happens to what they bought, and telling about it.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use serde_json::Value;

use super::event::{self, DAY_S, Told};
use super::subscriber::{Customer, Purchase};
use crate::dice::Dice;
use crate::payments::clock::Clock;
use crate::payments::outbox::{Outbox, Provider, Seal};

/// Clones are of the same project.
#[derive(Clone)]
pub struct Project(Arc<Inner>);

struct Inner {
    clock: Clock,
    outbox: Outbox,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    customers: Vec<Customer>,
    target: Option<Target>,
    signing_secret: Option<String>,
}

#[derive(Clone)]
struct Target {
    url: String,
    secret: String,
}

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

const PRICE: f64 = 9.99;

impl Project {
    pub(crate) fn new(clock: Clock, outbox: Outbox) -> Self {
        Self(Arc::new(Inner {
            clock,
            outbox,
            kept: Mutex::default(),
        }))
    }

    pub(crate) fn send_to(&self, url: &str, secret: &str) {
        let target = Target {
            url: url.to_owned(),
            secret: secret.to_owned(),
        };
        self.with(|kept, _| kept.target = Some(target));
    }

    /// Signs every event besides from now on.
    pub fn sign_with(&self, secret: &str) {
        self.with(|kept, _| kept.signing_secret = Some(secret.to_owned()));
    }

    /// Before it looks, what time has brought happens.
    fn with<T>(&self, work: impl FnOnce(&mut Kept, &mut Teller<'_>) -> T) -> T {
        let mut kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut teller = Teller {
            outbox: &self.0.outbox,
            at: self.0.clock.now(),
            told: vec![],
        };
        catch_up(&mut kept, &mut teller);
        let result = work(&mut kept, &mut teller);
        teller.send(&kept);
        result
    }

    pub(crate) fn catch_up(&self) {
        self.with(|_, _| ());
    }

    /// Whether they were known, and what they hold. Whoever is asked for is known from then on.
    pub fn subscriber(&self, id: &str) -> (bool, Value) {
        self.with(|kept, teller| {
            let known = kept
                .customers
                .iter()
                .any(|customer| customer.ids.iter().any(|known| known == id));
            (known, kept.customer(id, teller.at).show(teller.at))
        })
    }

    /// The ids in use, in the order in which they came.
    pub(crate) fn customers(&self) -> Vec<Customer> {
        self.with(|kept, _| kept.customers.clone())
    }

    /// Does it, and tells of it. The error says why that cannot be.
    pub fn act(&self, id: &str, act: Act) -> Result<(), &'static str> {
        self.with(|kept, teller| kept.act(id, act, teller))
    }
}

impl Kept {
    fn customer(&mut self, id: &str, now: i64) -> &mut Customer {
        let place = self
            .customers
            .iter()
            .position(|customer| customer.ids.iter().any(|known| known == id));
        let place = place.unwrap_or_else(|| {
            self.customers.push(Customer {
                ids: vec![id.to_owned()],
                first_seen: now,
                purchases: vec![],
            });
            self.customers.len() - 1
        });
        &mut self.customers[place]
    }

    fn act(&mut self, id: &str, act: Act, teller: &mut Teller<'_>) -> Result<(), &'static str> {
        let at = teller.at;
        match act {
            Act::Purchase(bought) => return self.purchase(id, bought, teller),
            Act::Transfer { to } => return self.transfer(id, &to, teller),
            Act::Alias { id: other } => return self.alias(id, other, at),
            _ => {}
        }
        let customer = self.customer(id, at);
        let purchase = customer
            .purchases
            .iter_mut()
            .rev()
            .find(|purchase| !purchase.has_ended);
        let Some(purchase) = purchase else {
            return Err("there is no purchase that has not ended");
        };
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
            period_s: bought.days * DAY_S,
            began_with_trial: bought.trial,
            renewals: 0,
            unsubscribed_at: None,
            billing_issue_at: None,
            grace_until: None,
            refunded_at: None,
            has_ended: false,
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
        let (moved, from_ids) = {
            let customer = self.customer(from, teller.at);
            (
                std::mem::take(&mut customer.purchases),
                customer.ids.clone(),
            )
        };
        let Some(first) = moved.first().cloned() else {
            return Err("there is nothing to transfer");
        };
        let customer = self.customer(to, teller.at);
        customer.purchases.extend(moved);
        let id = event::fresh_id();
        let event = event::of_transfer(
            &from_ids,
            &customer.ids,
            &first.store,
            &first.environment,
            teller.stamp(),
            &id,
        );
        teller.told.push((id, event));
        Ok(())
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
    ) = (None, None, None);
}

/// Renewals and ends, each at its own time.
fn catch_up(kept: &mut Kept, teller: &mut Teller<'_>) {
    let now = teller.at;
    for customer in &mut kept.customers {
        let mut told = vec![];
        for purchase in customer
            .purchases
            .iter_mut()
            .filter(|purchase| !purchase.has_ended)
        {
            while let Some(end) = purchase
                .expires_at
                .map(|end| purchase.grace_until.unwrap_or(end).max(end))
            {
                if end > now || purchase.has_ended {
                    break;
                }
                if purchase.unsubscribed_at.is_some() || purchase.billing_issue_at.is_some() {
                    purchase.has_ended = true;
                    let reason = if purchase.refunded_at.is_some() {
                        "CUSTOMER_SUPPORT"
                    } else if purchase.billing_issue_at.is_some() {
                        "BILLING_ERROR"
                    } else {
                        "UNSUBSCRIBE"
                    };
                    told.push((end, purchase.clone(), "EXPIRATION", reason, 0.0));
                } else {
                    renew(purchase, end);
                    told.push((end, purchase.clone(), "RENEWAL", "", PRICE));
                }
            }
        }
        for (at, purchase, kind, reason, price) in told {
            teller.at = at;
            teller.tell(customer, &purchase, kind, reason, price);
        }
        teller.at = now;
    }
}

/// Collects what is to be told, and sends it off.
struct Teller<'a> {
    outbox: &'a Outbox,
    at: i64,
    told: Vec<(String, Value)>,
}

impl Teller<'_> {
    fn stamp(&self) -> i64 {
        self.outbox.stamp(self.at)
    }

    fn tell(
        &mut self,
        customer: &Customer,
        purchase: &Purchase,
        kind: &str,
        reason: &str,
        price: f64,
    ) {
        let times = if self.outbox.faults().twin { 2 } else { 1 };
        for _ in 0..times {
            let id = event::fresh_id();
            let told = Told {
                kind,
                at: self.stamp(),
                id: id.clone(),
                reason,
                price,
            };
            self.told
                .push((id, event::of_purchase(customer, purchase, &told)));
        }
    }

    fn send(self, kept: &Kept) {
        let Some(target) = &kept.target else { return };
        for (id, event) in self.told {
            let seal = Seal {
                provider: Provider::RevenueCat,
                secret: target.secret.clone(),
                signing_secret: kept.signing_secret.clone(),
            };
            self.outbox.post(
                &id,
                target.url.clone(),
                event::wrap(event).to_string(),
                seal,
            );
        }
    }
}
