//! Writing down what facts change.
use crate::{
    App,
    billing::{
        apply::{self, Cause, Outcome},
        notices,
        reduce::{
            self,
            stripe::{Fact, SOURCE, State, names},
        },
    },
};
use db::{
    Timestamp, Tx,
    billing::{Grant, money},
};
use serde_json::{Value, json};
use uuid::Uuid;

/// What a fact is about, as far as it says.
#[derive(Default)]
pub struct Touched<'a> {
    pub subscription: Option<&'a str>,
    pub invoice: Option<&'a str>,
    pub payment: Option<&'a str>,
}

impl<'a> Touched<'a> {
    pub fn subscription(id: &'a str) -> Self {
        Self {
            subscription: Some(id),
            ..Self::default()
        }
    }

    pub fn payment(id: &'a str) -> Self {
        Self {
            payment: Some(id),
            ..Self::default()
        }
    }
}

/// What became of a state.
pub struct Reduced {
    state: State,
    rules: Vec<&'static str>,
}

impl Reduced {
    pub fn user(&self) -> Option<Uuid> {
        user_of(&self.state)
    }

    /// Whether anybody knows what was paid for.
    pub fn is_of_something(&self) -> bool {
        self.state.subscription.is_some() || self.state.payments.iter().any(|p| p.plan.is_some())
    }

    pub fn outcome(&self) -> Outcome {
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
pub async fn reduce(
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
