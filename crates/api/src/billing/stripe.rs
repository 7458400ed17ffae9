//! The way of Stripe's events to the reducer: what they name is read anew from the API where it can be,
//! and what they change is written down.
use super::{
    apply::{self, Cause, Outcome},
    notices,
    reduce::{
        self, Basis, READ,
        stripe::{
            Fact, SOURCE, State, is_terminal, names, snapshot, unknown_invoice, unknown_payment,
        },
    },
    stripe_api::{Failure, Stripe},
};
use crate::App;
use anyhow::anyhow;
use db::{
    Timestamp, Tx,
    billing::{
        Grant, Subscription,
        money::{self, Payment, Reversal},
    },
};
use serde_json::{Value, json};
use uuid::Uuid;
use webhooks::stripe::{self as wire, Change, Checkout, Event};

/// An event, with what the API says now of what it is about.
pub struct Reading {
    event: Event,
    subscription: Option<Read>,
    /// It was read after this event came, on behalf of another: there is nothing new in this one.
    is_covered: bool,
    /// Which invoice a payment was of, and which subscription that invoice is of.
    payment: Option<(Payment, money::Invoice)>,
}

/// What the API answered to a request that was sent at `at`.
struct Read {
    id: String,
    /// `None`: there is no such subscription.
    told: Option<wire::Subscription>,
    at: Timestamp,
}

/// Reads an event, and asks the API what has become of it since. Fails while the API cannot be asked: the
/// event waits, and nothing is taken from anybody meanwhile.
pub async fn read(
    app: &App,
    body: &[u8],
    received_at: Timestamp,
) -> anyhow::Result<Result<Reading, Outcome>> {
    let mut event = wire::read(body).map_err(|e| anyhow!("{e}"))?;
    if event.livemode != app.config.billing.is_live(app.config.is_production()) {
        return Ok(Err(Outcome::Ignored("other_mode")));
    }
    if event.account.is_some() {
        return Ok(Err(Outcome::Ignored("connected_account")));
    }
    let Some(api) = &app.stripe else {
        return Ok(match thin_path(&event) {
            Some(_) => Err(Outcome::Parked("thin")),
            None => Ok(Reading {
                event,
                subscription: None,
                is_covered: false,
                payment: None,
            }),
        });
    };
    if let Some(path) = thin_path(&event) {
        if let Change::Thin { object_type } = &event.change
            && object_type.as_deref() == Some("subscription")
        {
            let id = event.object_id.clone().unwrap_or_default();
            let Some(Answer { read, object }) = ask(app, api, &id).await? else {
                return Ok(Err(Outcome::Ignored("gone")));
            };
            event = match object {
                Some(object) => wire::with_object(event, &object).map_err(|e| anyhow!("{e}"))?,
                None => event,
            };
            return Ok(Ok(Reading {
                event,
                subscription: Some(read),
                is_covered: false,
                payment: None,
            }));
        }
        event = match api.get(&path, &[]).await {
            Ok(object) => wire::with_object(event, &object).map_err(|e| anyhow!("{e}"))?,
            Err(Failure::NotFound) => return Ok(Err(Outcome::Ignored("gone"))),
            Err(failure) => return Err(failure.into()),
        };
    }
    let mode = mode(&event);
    let (mut subscription, mut is_covered) = (None, false);
    if let Some(id) = subscription_of(&event) {
        is_covered = is_read(app, mode, id, received_at).await?;
        if !is_covered {
            subscription = ask(app, api, id).await?.map(|answer| answer.read);
        }
    }
    let payment = match payment_of(&event.change) {
        Some(id) => invoice_of(app, api, mode, id).await?,
        None => None,
    };
    Ok(Ok(Reading {
        event,
        subscription,
        is_covered,
        payment,
    }))
}

fn mode(event: &Event) -> &'static str {
    if event.livemode { "live" } else { "test" }
}

/// Where the object of a thin event is read, when it is one that matters here.
fn thin_path(event: &Event) -> Option<String> {
    let Change::Thin { object_type } = &event.change else {
        return None;
    };
    let id = event.object_id.as_deref().filter(|id| is_id(id))?;
    let objects = match object_type.as_deref()? {
        "subscription" => "subscriptions",
        "invoice" => "invoices",
        "invoice_payment" => "invoice_payments",
        "checkout.session" => "checkout/sessions",
        "customer" => "customers",
        "charge" => "charges",
        "refund" => "refunds",
        "dispute" => "disputes",
        _ => return None,
    };
    Some(format!("/v1/{objects}/{id}"))
}

/// Ids go into paths: what is none asks for nothing.
fn is_id(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// The subscription whose state an event may have changed.
fn subscription_of(event: &Event) -> Option<&str> {
    match &event.change {
        Change::Subscription(told) => Some(&told.id),
        Change::Checkout(told) => told.subscription.as_deref(),
        Change::Invoice(told) => told.subscription.as_deref(),
        _ => None,
    }
}

/// The payment that money went back of.
fn payment_of(change: &Change) -> Option<&str> {
    match change {
        Change::ChargeRefunded(told) => told.payment_intent.as_deref(),
        Change::Refund(told) => told.payment_intent.as_deref(),
        Change::Dispute(told) => told.payment_intent.as_deref(),
        _ => None,
    }
}

/// Whether it was read after the event came: of many events that wait together, the first asks for all.
async fn is_read(app: &App, mode: &str, id: &str, received_at: Timestamp) -> db::Result<bool> {
    let known = db::billing::known_subscription(&app.db, SOURCE, mode, id).await?;
    Ok(known.is_some_and(|s| s.basis_rank == READ && s.basis_at > received_at))
}

struct Answer {
    read: Read,
    object: Option<Value>,
}

/// `None` where the answer means nothing: the simulated Stripe does not know what somebody made up and
/// signed with the secret that everyone knows.
async fn ask(app: &App, api: &Stripe, id: &str) -> anyhow::Result<Option<Answer>> {
    if !is_id(id) {
        return Err(anyhow!("an id that is none"));
    }
    let at = app.now();
    let object = match api.get(&format!("/v1/subscriptions/{id}"), &[]).await {
        Ok(object) => Some(object),
        Err(Failure::NotFound) if app.config.billing.sells_simulated() => return Ok(None),
        Err(Failure::NotFound) => None,
        Err(failure) => return Err(failure.into()),
    };
    let told = object.as_ref().map(wire::read_subscription).transpose();
    let read = Read {
        id: id.into(),
        told: told.map_err(|e| anyhow!("{e}"))?,
        at,
    };
    Ok(Some(Answer { read, object }))
}

/// Since «basil» neither refund nor dispute names the invoice: asked for where no event has told.
async fn invoice_of(
    app: &App,
    api: &Stripe,
    mode: &str,
    payment: &str,
) -> anyhow::Result<Option<(Payment, money::Invoice)>> {
    let known = money::known_payment(&app.db, SOURCE, mode, payment).await?;
    if !is_id(payment) || known.is_some_and(|p| p.invoice.is_some() || p.plan.is_some()) {
        return Ok(None);
    }
    let query = [
        ("payment[type]", "payment_intent"),
        ("payment[payment_intent]", payment),
    ];
    let found = match api.get("/v1/invoice_payments", &query).await {
        Ok(found) => found,
        Err(Failure::NotFound) => return Ok(None),
        Err(failure) => return Err(failure.into()),
    };
    let Some(invoice) = found["data"][0]["invoice"].as_str().filter(|id| is_id(id)) else {
        return Ok(None);
    };
    let read = match api.get(&format!("/v1/invoices/{invoice}"), &[]).await {
        Ok(read) => wire::read_invoice(&read).map_err(|e| anyhow!("{e}"))?,
        Err(Failure::NotFound) => return Ok(None),
        Err(failure) => return Err(failure.into()),
    };
    let paid_at = read.paid_at.map(Timestamp::from_unix);
    let paid = Payment {
        invoice: Some(invoice.into()),
        amount: found["data"][0]["amount_paid"].as_i64().unwrap_or(0),
        ..unknown_payment(mode, payment)
    };
    Ok(Some((paid, invoice_row(mode, &read, None, paid_at))))
}

/// Writes down what an event says.
pub async fn apply(app: &App, tx: &mut Tx, reading: &Reading) -> anyhow::Result<Outcome> {
    let Reading { event, .. } = reading;
    let by = Cause {
        event: &event.id,
        kind: &event.kind,
        at: Timestamp::from_unix(event.created),
    };
    let told = Told {
        app,
        mode: mode(event),
        by,
        reading,
    };
    match &event.change {
        Change::Subscription(subscription) => told.subscription(tx, subscription).await,
        Change::Thin { .. } if reading.subscription.is_some() => told.again(tx).await,
        Change::Checkout(_) if sold_nothing(event) => Ok(Outcome::Ignored("no_effect")),
        Change::Checkout(checkout) => told.checkout(tx, checkout).await,
        Change::Invoice(invoice) => told.invoice(tx, invoice).await,
        Change::InvoicePayment(paid) => told.invoice_payment(tx, paid).await,
        Change::ChargeRefunded(charge) => told.charge(tx, charge).await,
        Change::Refund(refund) => told.refund(tx, refund).await,
        Change::Dispute(dispute) => told.dispute(tx, dispute).await,
        Change::Customer(customer) => told.customer(tx, customer).await,
        Change::CustomerDeleted => told.customer_deleted(tx).await,
        Change::Thin { .. } | Change::Other => Ok(Outcome::Ignored("no_effect")),
    }
}

/// A subscription as the API gave it to a request that was sent at `basis`.
pub async fn apply_subscription(
    app: &App,
    tx: &mut Tx,
    object: &Value,
    basis: Timestamp,
) -> anyhow::Result<Outcome> {
    let told = wire::read_subscription(object).map_err(|e| anyhow!("{e}"))?;
    let read = Read {
        id: told.id.clone(),
        told: Some(told),
        at: basis,
    };
    again(app, tx, own_mode(app), &read, &Cause::read(basis)).await
}

/// The same where the API says that there is no such subscription.
pub async fn gone(
    app: &App,
    tx: &mut Tx,
    subscription: &str,
    basis: Timestamp,
) -> anyhow::Result<Outcome> {
    let read = Read {
        id: subscription.into(),
        told: None,
        at: basis,
    };
    again(app, tx, own_mode(app), &read, &Cause::read(basis)).await
}

/// A checkout session as the API gave it.
pub async fn apply_checkout(
    app: &App,
    tx: &mut Tx,
    session: &Value,
    basis: Timestamp,
) -> anyhow::Result<Outcome> {
    let checkout = wire::read_checkout(session).map_err(|e| anyhow!("{e}"))?;
    if session["status"] == "expired" {
        return Ok(Outcome::Ignored("no_effect"));
    }
    checked_out(app, tx, own_mode(app), &checkout, &Cause::read(basis)).await
}

fn own_mode(app: &App) -> &'static str {
    match app.config.billing.is_live(app.config.is_production()) {
        true => "live",
        false => "test",
    }
}

/// An event on its way.
struct Told<'a> {
    app: &'a App,
    mode: &'a str,
    by: Cause<'a>,
    reading: &'a Reading,
}

impl Told<'_> {
    async fn subscription(
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
    async fn again(&self, tx: &mut Tx) -> anyhow::Result<Outcome> {
        match &self.reading.subscription {
            Some(read) => again(self.app, tx, self.mode, read, &self.by).await,
            None => Ok(Outcome::Processed),
        }
    }

    async fn checkout(&self, tx: &mut Tx, checkout: &Checkout) -> anyhow::Result<Outcome> {
        let outcome = checked_out(self.app, tx, self.mode, checkout, &self.by).await?;
        self.again(tx).await?;
        Ok(outcome)
    }

    async fn invoice(&self, tx: &mut Tx, told: &wire::Invoice) -> anyhow::Result<Outcome> {
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

    async fn invoice_payment(
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

    async fn charge(&self, tx: &mut Tx, told: &wire::ChargeRefunded) -> anyhow::Result<Outcome> {
        let payment = told.payment_intent.as_ref().unwrap_or(&told.id);
        let paid = Payment {
            invoice: told.invoice.clone(),
            amount: told.amount,
            currency: Some(told.currency.clone()),
            ..unknown_payment(self.mode, payment)
        };
        let back = self.reversal(
            &told.id,
            "charge",
            payment,
            told.amount_refunded,
            "refunded",
        );
        self.back(tx, payment, vec![Fact::Payment(paid), back])
            .await
    }

    async fn refund(&self, tx: &mut Tx, told: &wire::Refund) -> anyhow::Result<Outcome> {
        let (Some(payment), Some(status)) = (
            told.payment_intent.as_ref().or(told.charge.as_ref()),
            &told.status,
        ) else {
            return Ok(Outcome::Ignored("no_effect"));
        };
        let back = self.reversal(&told.id, "refund", payment, told.amount, status);
        self.back(tx, payment, vec![back]).await
    }

    async fn dispute(&self, tx: &mut Tx, told: &wire::Dispute) -> anyhow::Result<Outcome> {
        let Some(payment) = told.payment_intent.as_ref().or(told.charge.as_ref()) else {
            return Ok(Outcome::Ignored("no_effect"));
        };
        let back = self.reversal(&told.id, "dispute", payment, told.amount, &told.status);
        self.back(tx, payment, vec![back]).await
    }

    fn reversal(&self, id: &str, kind: &str, payment: &str, amount: i64, status: &str) -> Fact {
        Fact::Reversal(Reversal {
            provider: SOURCE.into(),
            mode: self.mode.into(),
            external_id: id.into(),
            kind: kind.into(),
            payment: payment.into(),
            amount,
            status: status.into(),
            basis_at: self.by.at,
        })
    }

    /// Money that goes back. Of a payment that nobody told of, it is known once somebody does.
    async fn back(&self, tx: &mut Tx, payment: &str, facts: Vec<Fact>) -> anyhow::Result<Outcome> {
        let reduced = self.payment(tx, payment, facts).await?;
        Ok(match reduced.is_of_something() {
            true => Outcome::Processed,
            false => Outcome::Parked("unknown_payment"),
        })
    }

    async fn payment(
        &self,
        tx: &mut Tx,
        payment: &str,
        mut facts: Vec<Fact>,
    ) -> anyhow::Result<Reduced> {
        let mut invoice = facts.iter().find_map(|fact| match fact {
            Fact::Payment(paid) => paid.invoice.clone(),
            _ => None,
        });
        if let Some((paid, of)) = &self.reading.payment {
            invoice = invoice.or_else(|| paid.invoice.clone());
            facts.splice(
                0..0,
                [Fact::Payment(paid.clone()), Fact::Invoice(of.clone())],
            );
        }
        let of = self.reading.payment.as_ref();
        let touched = Touched {
            subscription: of.and_then(|(_, of)| of.subscription.as_deref()),
            invoice: invoice.as_deref(),
            payment: Some(payment),
        };
        reduce(self.app, tx, self.mode, &touched, &facts, &self.by).await
    }

    /// One that somebody made by hand may say whose it is.
    async fn customer(&self, tx: &mut Tx, told: &wire::Customer) -> anyhow::Result<Outcome> {
        let Self { app, mode, by, .. } = self;
        let named = told.user_id.as_deref();
        Ok(
            match owner(app, tx, mode, Some(&told.id), named, by).await? {
                Some(_) => Outcome::Processed,
                None => Outcome::Ignored("no_effect"),
            },
        )
    }

    async fn customer_deleted(&self, tx: &mut Tx) -> anyhow::Result<Outcome> {
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

/// A checkout that its customer left, or whose slow payment never came.
fn sold_nothing(event: &Event) -> bool {
    [
        "checkout.session.expired",
        "checkout.session.async_payment_failed",
    ]
    .contains(&&*event.kind)
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

async fn again(
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

/// What an invoice says, when an event tells of it or somebody looks.
fn invoice_row(
    mode: &str,
    told: &wire::Invoice,
    by: Option<&Cause<'_>>,
    paid_at: Option<Timestamp>,
) -> money::Invoice {
    let when = |kind: &str| by.filter(|by| by.kind == kind).map(|by| by.at);
    let id = told.id.as_deref().unwrap_or_default();
    money::Invoice {
        subscription: told.subscription.clone(),
        billing_reason: told.billing_reason.clone(),
        amount_paid: told.amount_paid,
        currency: Some(told.currency.clone()),
        period_end: told.period_end.map(Timestamp::from_unix),
        failed_at: when("invoice.payment_failed"),
        action_at: when("invoice.payment_action_required"),
        url: told.hosted_invoice_url.clone(),
        paid_at,
        ..unknown_invoice(mode, id)
    }
}

/// Whose customer it is. One who is nobody's yet is tied, once and for all, to the user that the object
/// names, who then gets what was told of the customer before.
async fn owner(
    app: &App,
    tx: &mut Tx,
    mode: &str,
    customer: Option<&str>,
    named: Option<&str>,
    by: &Cause<'_>,
) -> anyhow::Result<Option<Uuid>> {
    let Some(customer) = customer else {
        return Ok(None);
    };
    let known = db::billing::user_of_customer(tx, SOURCE, mode, customer).await?;
    let (None, Some(named)) = (known, named) else {
        return Ok(known);
    };
    let Some(user) = apply::user(tx, named).await? else {
        return Ok(None);
    };
    db::billing::link_customer(tx, SOURCE, mode, customer, user, app.now()).await?;
    let claimed = [Fact::Claimed { user }];
    for subscription in of_customer(tx, mode, customer).await? {
        let touched = Touched::subscription(&subscription.external_id);
        reduce(app, tx, mode, &touched, &claimed, by).await?;
    }
    for bought in money::purchases_of_customer(tx, SOURCE, mode, customer).await? {
        let touched = Touched::payment(&bought.external_id);
        reduce(app, tx, mode, &touched, &claimed, by).await?;
    }
    Ok(Some(user))
}

async fn of_customer(tx: &mut Tx, mode: &str, customer: &str) -> db::Result<Vec<Subscription>> {
    db::billing::subscriptions_of_customer(tx, SOURCE, mode, customer).await
}

/// A checkout says whose customer it is; what it sold by subscription, the subscription's events say.
async fn checked_out(
    app: &App,
    tx: &mut Tx,
    mode: &str,
    checkout: &Checkout,
    by: &Cause<'_>,
) -> anyhow::Result<Outcome> {
    let (customer, named) = (checkout.customer.as_deref(), checkout.user_id.as_deref());
    let linked = owner(app, tx, mode, customer, named, by).await?;
    match checkout.mode.as_str() {
        "payment" => purchased(app, tx, mode, checkout, linked, by).await,
        "setup" => Ok(Outcome::Processed),
        _ if linked.is_some() => Ok(Outcome::Processed),
        _ => Ok(Outcome::Parked("unlinked")),
    }
}

/// A one-time purchase opens its plan for ever, once it is paid.
async fn purchased(
    app: &App,
    tx: &mut Tx,
    mode: &str,
    checkout: &Checkout,
    linked: Option<Uuid>,
    by: &Cause<'_>,
) -> anyhow::Result<Outcome> {
    if !["paid", "no_payment_required"].contains(&checkout.payment_status.as_str()) {
        return Ok(Outcome::Processed);
    }
    let user_id = match (&checkout.user_id, linked) {
        (Some(named), None) => apply::user(tx, named).await?,
        (_, linked) => linked,
    };
    let said = |name: &str| checkout.metadata.get(name).cloned();
    let of_price = || said("price").and_then(|price| app.plans.of_price(&price).map(Into::into));
    let Some(plan) = said("plan").or_else(of_price) else {
        return Ok(Outcome::Parked("unknown_price"));
    };
    // What costs nothing has no payment.
    let id = checkout.payment_intent.as_ref().unwrap_or(&checkout.id);
    let bought = Fact::Payment(Payment {
        amount: checkout.amount_total.unwrap_or(0),
        currency: checkout.currency.clone(),
        customer: checkout.customer.clone(),
        user_id,
        plan: Some(plan),
        paid_at: Some(by.at),
        ..unknown_payment(mode, id)
    });
    let reduced = reduce(app, tx, mode, &Touched::payment(id), &[bought], by).await?;
    Ok(match reduced.user() {
        Some(_) => Outcome::Processed,
        None => Outcome::Parked("unlinked"),
    })
}

/// What a fact is about, as far as it says.
#[derive(Default)]
struct Touched<'a> {
    subscription: Option<&'a str>,
    invoice: Option<&'a str>,
    payment: Option<&'a str>,
}

impl<'a> Touched<'a> {
    fn subscription(id: &'a str) -> Self {
        Self {
            subscription: Some(id),
            ..Self::default()
        }
    }

    fn payment(id: &'a str) -> Self {
        Self {
            payment: Some(id),
            ..Self::default()
        }
    }
}

/// What became of a state.
struct Reduced {
    state: State,
    rules: Vec<&'static str>,
}

impl Reduced {
    fn user(&self) -> Option<Uuid> {
        user_of(&self.state)
    }

    /// Whether anybody knows what was paid for.
    fn is_of_something(&self) -> bool {
        self.state.subscription.is_some() || self.state.payments.iter().any(|p| p.plan.is_some())
    }

    fn outcome(&self) -> Outcome {
        match (self.rules.first().copied(), &self.state.subscription) {
            (Some(rule @ ("stale" | "terminal")), _) => Outcome::Ignored(rule),
            (_, None) => Outcome::Ignored("gone"),
            (_, Some(s)) if s.user_id.is_none() => Outcome::Parked("unlinked"),
            (_, Some(s)) if names(s).is_empty() => Outcome::Parked("unknown_price"),
            _ => Outcome::Processed,
        }
    }
}

fn user_of(state: &State) -> Option<Uuid> {
    let subscriber = state.subscription.as_ref().and_then(|s| s.user_id);
    subscriber.or(state.payments.iter().find_map(|p| p.user_id))
}

/// Has the facts change what is known, writes it down with what it opens, tells the user what is new to
/// them, and keeps a receipt.
async fn reduce(
    app: &App,
    tx: &mut Tx,
    mode: &str,
    touched: &Touched<'_>,
    facts: &[Fact],
    by: &Cause<'_>,
) -> anyhow::Result<Reduced> {
    let now = app.now();
    let policy = app.config.billing.policy();
    let before = load(tx, mode, touched).await?;
    let (mut state, mut rules, mut news) = (before.clone(), vec![], vec![]);
    for fact in facts {
        let (next, step) = reduce::stripe::apply(state, fact, now, &policy);
        state = next;
        rules.push(step.rule);
        // What was true of an earlier fact may be over by a later one.
        news = step.notices;
    }
    save(tx, &before, &state, now).await?;
    let objects = objects(&state, touched);
    let mut held = vec![];
    for object in &objects {
        held.extend(db::billing::grants_of_source(tx, SOURCE, object).await?);
    }
    let grants = state.grants(&policy);
    for object in &objects {
        let of = |grants: &[Grant]| -> Vec<Grant> {
            let of = grants.iter().filter(|g| &g.source_ref == object);
            of.cloned().collect()
        };
        if of(&held) != of(&grants) {
            db::billing::replace_grants(tx, SOURCE, object, &of(&grants), now).await?;
        }
    }
    let receipt = apply::Receipt {
        provider: SOURCE,
        mode,
        object: objects.first().map_or("", String::as_str),
        user: user_of(&state),
        rule: &rules.join(", "),
        before: view(&before, &held),
        after: view(&state, &grants),
    };
    apply::note(tx, receipt, by, now).await?;
    if let Some(user) = user_of(&state) {
        notices::tell(app, tx, user, news).await?;
        if held != grants {
            notices::look_for_duplicates(tx, user, now).await?;
        }
    }
    Ok(Reduced { state, rules })
}

/// What grants may hang on: the subscription, and what was bought once.
fn objects(state: &State, touched: &Touched<'_>) -> Vec<String> {
    let subscription = state.subscription.iter().map(|s| s.external_id.clone());
    let bought = state.payments.iter().filter(|p| p.plan.is_some());
    let mut objects: Vec<_> = subscription
        .chain(bought.map(|p| p.external_id.clone()))
        .collect();
    let touched = [touched.subscription, touched.payment, touched.invoice];
    if objects.is_empty() {
        objects.extend(touched.into_iter().flatten().next().map(str::to_owned));
    }
    objects
}

/// From the payment to its invoice and its subscription, each held until the transaction ends, always in
/// this order.
async fn load(tx: &mut Tx, mode: &str, touched: &Touched<'_>) -> anyhow::Result<State> {
    let mut state = State::default();
    let mut paid = None;
    if let Some(id) = touched.payment {
        money::hold(tx, id).await?;
        paid = money::payment(tx, SOURCE, mode, id).await?;
        state.reversals = money::reversals(tx, SOURCE, mode, id).await?;
    }
    let of_payment = paid.as_ref().and_then(|p| p.invoice.clone());
    let invoice = touched.invoice.map(str::to_owned).or(of_payment);
    let mut known = None;
    if let Some(id) = &invoice {
        money::hold(tx, id).await?;
        known = money::invoice(tx, SOURCE, mode, id).await?;
    }
    let of_invoice = known.as_ref().and_then(|i| i.subscription.clone());
    let subscription = touched.subscription.map(str::to_owned).or(of_invoice);
    if let Some(id) = &subscription {
        money::hold(tx, id).await?;
        state.subscription = db::billing::subscription(tx, SOURCE, mode, id).await?;
        state.invoices = money::invoices(tx, SOURCE, mode, id).await?;
    }
    if let Some(known) = known
        && !state
            .invoices
            .iter()
            .any(|i| i.external_id == known.external_id)
    {
        state.invoices.push(known);
    }
    let known = state.invoices.iter().map(|i| i.external_id.clone());
    let mut invoices: Vec<_> = known.chain(invoice).collect();
    invoices.sort();
    invoices.dedup();
    for invoice in &invoices {
        let paid = money::payments(tx, SOURCE, mode, invoice).await?;
        state.payments.extend(paid);
    }
    for payment in &state.payments {
        if touched.payment != Some(payment.external_id.as_str()) {
            state
                .reversals
                .extend(money::reversals(tx, SOURCE, mode, &payment.external_id).await?);
        }
    }
    if let Some(paid) = paid
        && !state
            .payments
            .iter()
            .any(|p| p.external_id == paid.external_id)
    {
        state.payments.push(paid);
    }
    Ok(state)
}

async fn save(tx: &mut Tx, before: &State, state: &State, now: Timestamp) -> db::Result<()> {
    if let Some(subscription) = &state.subscription
        && state.subscription != before.subscription
    {
        db::billing::save_subscription(tx, subscription, now).await?;
    }
    for invoice in state
        .invoices
        .iter()
        .filter(|i| !before.invoices.contains(i))
    {
        money::save_invoice(tx, invoice).await?;
    }
    for payment in state
        .payments
        .iter()
        .filter(|p| !before.payments.contains(p))
    {
        money::save_payment(tx, payment).await?;
    }
    for back in state
        .reversals
        .iter()
        .filter(|r| !before.reversals.contains(r))
    {
        money::save_reversal(tx, back).await?;
    }
    Ok(())
}

/// What a receipt shows.
fn view(state: &State, grants: &[Grant]) -> Value {
    let mut view = apply::view(state.subscription.as_ref(), grants);
    let of = |kind: &str| {
        let of_kind = state.reversals.iter().filter(|r| r.kind == kind);
        of_kind
            .map(|r| json!({"id": r.external_id, "status": r.status, "amount_minor": r.amount}))
            .collect::<Vec<_>>()
    };
    for (name, kind) in [("refunds", "refund"), ("disputes", "dispute")] {
        let told = of(kind);
        if !told.is_empty() {
            view[name] = told.into();
        }
    }
    view
}
