//! What an event says, by what it is about.
use super::{
    Read, Reading,
    keep::{Touched, reduce},
    money::invoice_row,
    owner::{of_customer, owner},
    sold::checked_out,
};
use crate::{
    App,
    billing::{
        apply::{Cause, Outcome},
        reduce::{
            Basis, READ,
            stripe::{Fact, is_terminal, snapshot, unknown_payment},
        },
    },
};
use db::{Tx, billing::money::Payment};
use uuid::Uuid;
use webhooks::stripe::{self as wire, Checkout};

/// An event on its way.
pub struct Told<'a> {
    pub app: &'a App,
    pub mode: &'a str,
    pub by: Cause<'a>,
    pub reading: &'a Reading,
}

impl Told<'_> {
    pub async fn subscription(
        &self,
        tx: &mut Tx,
        told: &wire::Subscription,
    ) -> anyhow::Result<Outcome> {
        let Self { app, mode, by, .. } = self;
        // First, so that even an event which is too old to count can say whose the subscription is.
        let (customer, named) = (told.customer.as_deref(), told.user_id.as_deref());
        let owner = owner(app, tx, mode, customer, named, by).await?;
        let mut facts = vec![];
        if let Some(read) = &self.reading.subscription {
            facts.push(read_fact(app, mode, read, owner));
        } else if !self.reading.is_covered {
            let basis = Basis {
                at: by.at,
                rank: rank(by.kind),
                event: by.event.into(),
            };
            facts.push(Fact::Snapshot {
                snapshot: Box::new(snapshot(&app.plans, mode, told, &basis, owner)),
                previous_status: told.previous_status.clone(),
            });
        }
        if by.kind == "customer.subscription.trial_will_end" {
            facts.push(Fact::TrialEnding);
        }
        let touched = Touched::subscription(&told.id);
        let reduced = reduce(app, tx, mode, &touched, &facts, by).await?;
        Ok(reduced.outcome())
    }

    /// Goes by what was read alone.
    pub async fn again(&self, tx: &mut Tx) -> anyhow::Result<Outcome> {
        match &self.reading.subscription {
            Some(read) => again(self.app, tx, self.mode, read, &self.by).await,
            None => Ok(Outcome::Processed),
        }
    }

    pub async fn checkout(&self, tx: &mut Tx, checkout: &Checkout) -> anyhow::Result<Outcome> {
        let outcome = checked_out(self.app, tx, self.mode, checkout, &self.by).await?;
        self.again(tx).await?;
        Ok(outcome)
    }

    pub async fn invoice(&self, tx: &mut Tx, told: &wire::Invoice) -> anyhow::Result<Outcome> {
        let Self { app, mode, by, .. } = self;
        let (Some(id), Some(subscription)) = (&told.id, &told.subscription) else {
            return Ok(Outcome::Ignored("no_effect"));
        };
        let (customer, named) = (told.customer.as_deref(), told.user_id.as_deref());
        let owner = owner(app, tx, mode, customer, named, by).await?;
        let paid_at = ["invoice.paid", "invoice.payment_succeeded"]
            .contains(&by.kind)
            .then_some(by.at);
        let mut facts = vec![Fact::Invoice(invoice_row(mode, told, Some(by), paid_at))];
        if let Some(payment) = &told.payment_intent {
            facts.push(Fact::Payment(Payment {
                invoice: Some(id.clone()),
                amount: told.amount_paid,
                currency: Some(told.currency.clone()),
                paid_at,
                ..unknown_payment(mode, payment)
            }));
        }
        if let Some(read) = &self.reading.subscription {
            facts.push(read_fact(app, mode, read, owner));
        }
        let touched = Touched {
            subscription: Some(subscription),
            invoice: Some(id),
            payment: told.payment_intent.as_deref(),
        };
        reduce(app, tx, mode, &touched, &facts, by).await?;
        Ok(Outcome::Processed)
    }

    pub async fn invoice_payment(
        &self,
        tx: &mut Tx,
        told: &wire::InvoicePayment,
    ) -> anyhow::Result<Outcome> {
        let Some(payment) = &told.payment_intent else {
            return Ok(Outcome::Ignored("no_effect"));
        };
        let paid = Payment {
            invoice: Some(told.invoice.clone()),
            amount: told.amount_paid,
            currency: Some(told.currency.clone()),
            paid_at: Some(self.by.at),
            ..unknown_payment(self.mode, payment)
        };
        self.payment(tx, payment, vec![Fact::Payment(paid)]).await?;
        Ok(Outcome::Processed)
    }

    /// One that somebody made by hand may say whose it is.
    pub async fn customer(&self, tx: &mut Tx, told: &wire::Customer) -> anyhow::Result<Outcome> {
        let Self { app, mode, by, .. } = self;
        let named = told.user_id.as_deref();
        Ok(
            match owner(app, tx, mode, Some(&told.id), named, by).await? {
                Some(_) => Outcome::Processed,
                None => Outcome::Ignored("no_effect"),
            },
        )
    }

    pub async fn customer_deleted(&self, tx: &mut Tx) -> anyhow::Result<Outcome> {
        let Self {
            app,
            mode,
            by,
            reading,
        } = self;
        let event = &reading.event;
        let Some(customer) = event.customer.as_deref().or(event.object_id.as_deref()) else {
            return Ok(Outcome::Ignored("no_effect"));
        };
        let fact = [Fact::CustomerDeleted { at: by.at }];
        for subscription in of_customer(tx, mode, customer).await? {
            if !is_terminal(&subscription.status) {
                let touched = Touched::subscription(&subscription.external_id);
                reduce(app, tx, mode, &touched, &fact, by).await?;
            }
        }
        Ok(Outcome::Processed)
    }
}

/// Within one second deleted wins over updated, and updated over created.
fn rank(kind: &str) -> i64 {
    match kind {
        "customer.subscription.deleted" => 3,
        "customer.subscription.created" => 1,
        _ => 2,
    }
}

fn read_fact(app: &App, mode: &str, read: &Read, owner: Option<Uuid>) -> Fact {
    match &read.told {
        None => Fact::Gone { at: read.at },
        Some(told) => {
            let basis = Basis {
                at: read.at,
                rank: READ,
                event: "read".into(),
            };
            Fact::Snapshot {
                snapshot: Box::new(snapshot(&app.plans, mode, told, &basis, owner)),
                previous_status: None,
            }
        }
    }
}

pub async fn again(
    app: &App,
    tx: &mut Tx,
    mode: &str,
    read: &Read,
    by: &Cause<'_>,
) -> anyhow::Result<Outcome> {
    let owner = match &read.told {
        None => None,
        Some(told) => {
            let (customer, named) = (told.customer.as_deref(), told.user_id.as_deref());
            owner(app, tx, mode, customer, named, by).await?
        }
    };
    let fact = [read_fact(app, mode, read, owner)];
    let touched = Touched::subscription(&read.id);
    Ok(reduce(app, tx, mode, &touched, &fact, by).await?.outcome())
}
