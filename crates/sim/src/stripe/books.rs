//! Everything the account holds, and telling about it when it changes.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::call::Call;
use super::event::{Cause, Event};
use super::refusal::{Refusal, Result};
use super::state::{
    Card, Coupon, Customer, Dispute, Endpoint, Invoice, InvoicePayment, Payment,
    PortalConfiguration, PortalSession, Price, Product, PromotionCode, Refund, Session, Show,
    Subscription, TestClock, Thing,
};
use super::version::Version;
use crate::payments::outbox::{Outbox, Provider, Seal};

/// In the order in which they were made.
#[derive(Clone)]
pub struct Table<T> {
    rows: Vec<T>,
    at: HashMap<String, usize>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            rows: vec![],
            at: HashMap::new(),
        }
    }
}

impl<T: Thing> Table<T> {
    pub fn get(&self, id: &str) -> Option<&T> {
        self.at.get(id).map(|at| &self.rows[*at])
    }

    pub fn get_mut(&mut self, id: &str) -> Option<&mut T> {
        self.at.get(id).map(|at| &mut self.rows[*at])
    }

    pub fn put(&mut self, row: T) {
        self.at.insert(row.id().to_owned(), self.rows.len());
        self.rows.push(row);
    }

    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.rows.iter()
    }
}

pub struct Books {
    /// Of the pages, as `http://127.0.0.1:8025`.
    pub origin: String,
    /// Unix seconds; a customer may be on a clock of its own: [`Self::now_of`].
    pub now: i64,
    /// Of what is being done; `None` when time does it.
    pub cause: Option<Cause>,
    pub policy: Policy,
    pub outbox: Outbox,
    /// So many of the events were sent off.
    sent: usize,
    pub cards: Table<Card>,
    pub coupons: Table<Coupon>,
    pub customers: Table<Customer>,
    pub disputes: Table<Dispute>,
    pub endpoints: Table<Endpoint>,
    pub events: Table<Event>,
    pub invoice_payments: Table<InvoicePayment>,
    pub invoices: Table<Invoice>,
    pub payments: Table<Payment>,
    pub portal_configurations: Table<PortalConfiguration>,
    pub portal_sessions: Table<PortalSession>,
    pub prices: Table<Price>,
    pub products: Table<Product>,
    pub promotion_codes: Table<PromotionCode>,
    pub refunds: Table<Refund>,
    pub sessions: Table<Session>,
    pub subscriptions: Table<Subscription>,
    pub test_clocks: Table<TestClock>,
}

/// What the account's settings say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Policy {
    pub after_retries: AfterRetries,
}

/// A subscription's status when every attempt to be paid has failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AfterRetries {
    #[default]
    Canceled,
    Unpaid,
    PastDue,
}

impl Books {
    pub fn new(origin: String, now: i64, outbox: Outbox) -> Self {
        Self {
            origin,
            now,
            cause: None,
            policy: Policy::default(),
            outbox,
            sent: 0,
            cards: Table::default(),
            coupons: Table::default(),
            customers: Table::default(),
            disputes: Table::default(),
            endpoints: Table::default(),
            events: Table::default(),
            invoice_payments: Table::default(),
            invoices: Table::default(),
            payments: Table::default(),
            portal_configurations: Table::default(),
            portal_sessions: Table::default(),
            prices: Table::default(),
            products: Table::default(),
            promotion_codes: Table::default(),
            refunds: Table::default(),
            sessions: Table::default(),
            subscriptions: Table::default(),
            test_clocks: Table::default(),
        }
    }

    pub fn get<T: Thing>(&self, id: &str) -> Option<&T> {
        T::table(self).get(id)
    }

    /// The parameter that names it is for the refusal.
    pub fn find<T: Thing>(&self, id: &str, param: &str) -> Result<&T> {
        self.get(id)
            .ok_or_else(|| Refusal::no_such(T::KIND, id, param))
    }

    /// A customer that is still there.
    pub fn customer(&self, id: &str, param: &str) -> Result<&Customer> {
        let customer = self.find::<Customer>(id, param)?;
        if customer.is_deleted {
            Err(Refusal::no_such("customer", id, param))
        } else {
            Ok(customer)
        }
    }

    /// What time it is for this customer.
    pub fn now_of(&self, customer: &str) -> i64 {
        let clock = self
            .get::<Customer>(customer)
            .and_then(|customer| customer.test_clock.as_deref());
        clock
            .and_then(|clock| self.get::<TestClock>(clock))
            .map_or(self.now, |clock| clock.frozen_at)
    }

    /// Keeps something new, and tells of it.
    pub fn add<T: Thing>(&mut self, thing: T, event: &str, at: i64) {
        T::table_mut(self).put(thing.clone());
        self.tell(event, at, thing);
    }

    /// Changes something, and tells of it if that made a difference. `None`: there is no such thing.
    pub fn change<T: Thing>(
        &mut self,
        id: &str,
        event: &str,
        at: i64,
        change: impl FnOnce(&mut T),
    ) -> Option<T> {
        let (before, after) = self.edit(id, change)?;
        self.tell_change(event, at, before, after.clone());
        Some(after)
    }

    /// Changes something silently; before and after.
    pub fn edit<T: Thing>(&mut self, id: &str, change: impl FnOnce(&mut T)) -> Option<(T, T)> {
        let thing = T::table_mut(self).get_mut(id)?;
        let before = thing.clone();
        change(thing);
        Some((before, thing.clone()))
    }

    pub fn tell(&mut self, kind: &str, at: i64, object: impl Show + 'static) {
        self.keep(Event::new(kind, at, self.cause.clone(), object, None));
    }

    pub fn tell_change<T: Show + 'static>(&mut self, kind: &str, at: i64, before: T, after: T) {
        let newest = Version::newest();
        if before.show(&newest) != after.show(&newest) {
            self.keep(Event::new(
                kind,
                at,
                self.cause.clone(),
                after,
                Some(Box::new(before)),
            ));
        }
    }

    fn keep(&mut self, mut event: Event) {
        event.created = self.outbox.stamp(event.created);
        if self.outbox.faults().twin {
            self.events.put(event.twin());
        }
        self.events.put(event);
    }

    /// Sends what happened since the last time to every endpoint that wants it.
    pub fn send_off(&mut self) {
        self.events.rows[self.sent..]
            .iter()
            .for_each(|event| self.send(event));
        self.sent = self.events.rows.len();
    }

    /// Whether there is such an event.
    pub fn send_again(&self, event: &str) -> bool {
        let event = self.get::<Event>(event);
        event.inspect(|event| self.send(event)).is_some()
    }

    fn send(&self, event: &Event) {
        let default = if self.outbox.faults().old_version {
            Version::of_2024()
        } else {
            Version::newest()
        };
        let endpoints = self.endpoints.iter();
        let endpoints: Vec<_> = endpoints
            .filter(|endpoint| endpoint.wants(&event.kind))
            .collect();
        let event = event.awaited(endpoints.len());
        for endpoint in endpoints {
            let version = endpoint.version.as_deref().map(Version::new);
            let body = event.show(version.as_ref().unwrap_or(&default)).to_string();
            let seal = Seal {
                provider: Provider::Stripe,
                secret: endpoint.secret.clone(),
                signing_secret: None,
            };
            self.outbox
                .post(&event.id, endpoint.url.clone(), body, seal);
        }
    }

    /// A page of these, which come oldest first, shown newest first.
    pub fn list<'a, T: Thing>(
        &self,
        call: &Call,
        rows: impl IntoIterator<Item = &'a T>,
    ) -> Result<Value> {
        self.list_as(call, rows, |row| row.show(&call.version))
    }

    pub fn list_as<'a, T: Thing>(
        &self,
        call: &Call,
        rows: impl IntoIterator<Item = &'a T>,
        show: impl Fn(&T) -> Value,
    ) -> Result<Value> {
        let limit = call.params.int("limit")?.unwrap_or(10);
        let Some(limit) = usize::try_from(limit)
            .ok()
            .filter(|limit| (1..=100).contains(limit))
        else {
            return Err(Refusal::invalid(
                "limit",
                "This value must be between 1 and 100 (inclusive).",
            ));
        };
        let mut rows: Vec<&T> = rows.into_iter().collect();
        rows.reverse();
        let place = |param: &str| -> Result<Option<usize>> {
            let Some(id) = call.params.text(param) else {
                return Ok(None);
            };
            let place = rows.iter().position(|row| row.id() == id);
            place
                .map(Some)
                .ok_or_else(|| Refusal::no_such(T::KIND, id, param))
        };

        let (page, has_more) = match (place("starting_after")?, place("ending_before")?) {
            (Some(_), Some(_)) => {
                let message =
                    "You may only specify one of these parameters: starting_after, ending_before.";
                return Err(Refusal::invalid("starting_after", message));
            }
            (_, Some(end)) => (&rows[end.saturating_sub(limit)..end], end > limit),
            (start, None) => {
                let rows = &rows[start.map_or(0, |start| start + 1)..];
                (&rows[..limit.min(rows.len())], rows.len() > limit)
            }
        };
        let data: Vec<_> = page.iter().map(|row| show(row)).collect();
        Ok(json!({"object": "list", "data": data, "has_more": has_more, "url": call.path}))
    }
}

/// Whether it was made within `created[gt]`, `[gte]`, `[lt]`, `[lte]`, or at `created`.
pub fn within(call: &Call, created: i64) -> Result<bool> {
    let range = call.params.inside("created");
    let holds = [
        range.int("gt")?.is_none_or(|bound| created > bound),
        range.int("gte")?.is_none_or(|bound| created >= bound),
        range.int("lt")?.is_none_or(|bound| created < bound),
        range.int("lte")?.is_none_or(|bound| created <= bound),
        call.params
            .text("created")
            .and_then(|at| at.parse().ok())
            .is_none_or(|at: i64| created == at),
    ];
    Ok(holds.into_iter().all(|holds| holds))
}
