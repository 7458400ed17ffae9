//! The project: its customers, what happens to what they bought, and telling about it.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use super::event::{self, Told};
use super::life::{self, Act};
use super::made_up::{self, RevenueCat};
use super::subscriber::{Customer, Purchase};
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
pub struct Kept {
    pub customers: Vec<Customer>,
    target: Option<Target>,
    signing_secret: Option<String>,
}

#[derive(Clone)]
struct Target {
    url: String,
    secret: String,
}

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
        life::catch_up(&mut kept, &mut teller);
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

    /// Knows from now on what a made-up event says.
    pub(crate) fn know(&self, spec: &RevenueCat) {
        self.with(|kept, _| made_up::know(kept, spec, crate::now()));
    }

    /// Does it, and tells of it. The error says why that cannot be.
    pub fn act(&self, id: &str, act: Act) -> Result<(), &'static str> {
        self.with(|kept, teller| kept.act(id, act, teller))
    }
}

impl Kept {
    pub fn customer(&mut self, id: &str, now: i64) -> &mut Customer {
        self.customer_of(&[id.to_owned()], now)
    }

    /// Who has one of these ids; somebody new with all of them, where nobody has.
    pub fn customer_of(&mut self, ids: &[String], now: i64) -> &mut Customer {
        let mut customers = self.customers.iter();
        let place = customers.position(|known| known.ids.iter().any(|id| ids.contains(id)));
        let place = place.unwrap_or_else(|| {
            self.customers.push(Customer {
                ids: ids.to_vec(),
                first_seen: now,
                purchases: vec![],
            });
            self.customers.len() - 1
        });
        &mut self.customers[place]
    }
}

/// Collects what is to be told, and sends it off.
pub struct Teller<'a> {
    outbox: &'a Outbox,
    pub at: i64,
    pub told: Vec<(String, Value)>,
}

impl Teller<'_> {
    pub fn stamp(&self) -> i64 {
        self.outbox.stamp(self.at)
    }

    pub fn tell(
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
