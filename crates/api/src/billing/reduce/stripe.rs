//! Of a subscription of Stripe's, or of what is bought there once.
use super::{Basis, News, Notice, Policy, READ, RENEWAL_LEEWAY, is_news};
use crate::billing::plans::Plans;
use db::{
    Json, Timestamp,
    billing::{
        Grant, Subscription,
        money::{Invoice, Payment, Reversal},
    },
};
use uuid::Uuid;
use webhooks::stripe as wire;

pub const SOURCE: &str = "stripe";

/// What is known of one subscription and its money, or of a payment alone.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    pub subscription: Option<Subscription>,
    pub invoices: Vec<Invoice>,
    pub payments: Vec<Payment>,
    pub reversals: Vec<Reversal>,
}

/// One thing that was told.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    /// The subscription as of a moment, and what its status was before.
    Snapshot {
        snapshot: Box<Subscription>,
        previous_status: Option<String>,
    },
    /// Stripe has no such subscription.
    Gone {
        at: Timestamp,
    },
    /// Its customer is gone, and everything of theirs with them.
    CustomerDeleted {
        at: Timestamp,
    },
    /// Its trial ends soon.
    TrialEnding,
    /// It is known whose it is.
    Claimed {
        user: Uuid,
    },
    Invoice(Invoice),
    Payment(Payment),
    Reversal(Reversal),
}

/// What came of a fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// By which rule, in one word.
    pub rule: &'static str,
    pub notices: Vec<Notice>,
}

/// The state after a fact, and what follows from it.
pub fn apply(mut state: State, fact: &Fact, now: Timestamp, policy: &Policy) -> (State, Step) {
    let rule = match fact {
        Fact::Snapshot {
            snapshot,
            previous_status,
        } => state.told(snapshot, previous_status.as_deref()),
        Fact::Gone { at } => state.gone(*at),
        Fact::CustomerDeleted { at } => state.end(*at),
        Fact::TrialEnding => "trial_ending",
        Fact::Claimed { user } => state.claim(*user),
        Fact::Invoice(told) => state.invoiced(told),
        Fact::Payment(told) => {
            let same = |known: &Payment| known.external_id == told.external_id;
            merge(&mut state.payments, told, same, payment);
            "payment"
        }
        Fact::Reversal(told) => {
            let same = |known: &Reversal| known.external_id == told.external_id;
            merge(&mut state.reversals, told, same, reversal);
            match told.kind.as_str() {
                "dispute" => "dispute",
                _ => "refund",
            }
        }
    };
    let mut notices = state.notices(now, policy);
    if *fact == Fact::TrialEnding {
        notices.extend(state.trial_ending(now));
    }
    (state, Step { rule, notices })
}

impl State {
    /// A later snapshot takes the place of an earlier one. What an earlier one marks counts all the same.
    fn told(&mut self, told: &Subscription, previous_status: Option<&str>) -> &'static str {
        let mut told = told.clone();
        let at = Timestamp::from_unix(told.basis_at.unix());
        if is_paid_up(&told.status) {
            told.paid_up_at = Some(at);
        }
        if told.status == "past_due"
            && let Some(id) = &told.latest_invoice
        {
            self.invoiced(&Invoice {
                subscription: Some(told.external_id.clone()),
                failed_at: Some(at),
                ..unknown_invoice(&told.mode, id)
            });
        }
        let Some(known) = &mut self.subscription else {
            self.subscription = Some(told);
            return "told";
        };
        known.user_id = known.user_id.or(told.user_id);
        known.paid_up_at = known.paid_up_at.max(told.paid_up_at);
        known.started_at = first(known.started_at, told.started_at);
        if let Some(refusal) = outdated(known, &told, previous_status) {
            return refusal;
        }
        let rule = if told.basis_rank == READ {
            "read"
        } else {
            "told"
        };
        *known = Subscription {
            user_id: known.user_id,
            paid_up_at: known.paid_up_at,
            started_at: known.started_at,
            customer: told.customer.clone().or_else(|| known.customer.clone()),
            ..told
        };
        rule
    }

    fn gone(&mut self, at: Timestamp) -> &'static str {
        self.end(at);
        if let Some(known) = &mut self.subscription {
            (known.basis_at, known.basis_rank) = (at, READ);
        }
        "gone"
    }

    /// Its basis stays: the subscription's own end is told too, and knows better.
    fn end(&mut self, at: Timestamp) -> &'static str {
        match &mut self.subscription {
            Some(known) if !is_terminal(&known.status) => {
                known.status = "canceled".into();
                known.will_renew = false;
                known.ended_at = Some(at);
                "customer_deleted"
            }
            _ => "terminal",
        }
    }

    fn claim(&mut self, user: Uuid) -> &'static str {
        if let Some(known) = &mut self.subscription {
            known.user_id = known.user_id.or(Some(user));
        }
        for bought in self.payments.iter_mut().filter(|p| p.plan.is_some()) {
            bought.user_id = bought.user_id.or(Some(user));
        }
        "claimed"
    }

    fn invoiced(&mut self, told: &Invoice) -> &'static str {
        let same = |known: &Invoice| known.external_id == told.external_id;
        merge(&mut self.invoices, told, same, invoice);
        match (told.paid_at, told.failed_at, told.action_at) {
            (Some(_), ..) => "invoice_paid",
            (None, _, Some(_)) => "action_required",
            (None, Some(_), None) => "payment_failed",
            (None, None, None) => "invoice",
        }
    }

    /// What all of this opens.
    pub fn grants(&self, policy: &Policy) -> Vec<Grant> {
        let subscribed = self
            .subscription
            .iter()
            .flat_map(|s| self.opened(s, policy));
        let bought = self.payments.iter().filter_map(|p| self.bought(p, policy));
        subscribed.chain(bought).collect()
    }

    /// What a subscription opens, by its status:
    /// <https://docs.stripe.com/billing/subscriptions/overview#subscription-statuses>.
    fn opened(&self, s: &Subscription, policy: &Policy) -> Vec<Grant> {
        let Some(user_id) = s.user_id else {
            return vec![];
        };
        // What is not told is over when it was told: nothing is open for ever for want of a date.
        let period_end = s.period_end.unwrap_or(s.basis_at);
        let no_later = |end: Timestamp| s.cancel_at.map_or(end, |at| at.min(end));
        let (ends_at, in_grace) = match s.status.as_str() {
            "trialing" => (s.cancel_at.or(s.trial_end).unwrap_or(period_end), false),
            // Periods go on, and nobody is asked to pay for them.
            "active" if s.paused.as_deref() == Some("void") => {
                (no_later(self.paid_through().unwrap_or(period_end)), false)
            }
            "active" => (s.cancel_at.unwrap_or(period_end + RENEWAL_LEEWAY), false),
            // The period that is not paid for has begun.
            "past_due" => (no_later(self.unpaid_since(s) + policy.grace), true),
            "unpaid" | "paused" | "incomplete" | "incomplete_expired" | "canceled" => {
                (s.ended_at.unwrap_or(s.basis_at), false)
            }
            // A status that Stripe invents later opens what was paid for.
            _ => (period_end, false),
        };
        let revoked = self.revoked(policy);
        let kind = match s.status.as_str() {
            "trialing" => "trial",
            _ => "paid",
        };
        let grant = |entitlement| Grant {
            user_id,
            entitlement,
            source: SOURCE.into(),
            source_ref: s.external_id.clone(),
            starts_at: s.period_start.unwrap_or(s.basis_at).min(s.basis_at),
            ends_at: Some(ends_at),
            revoked_at: revoked.map(|(at, _)| at),
            reason: revoked.map(|(_, why)| why.into()),
            in_grace,
            will_renew: s.will_renew,
            kind: kind.into(),
        };
        names(s).into_iter().map(grant).collect()
    }

    /// What was bought once is open for ever.
    fn bought(&self, bought: &Payment, policy: &Policy) -> Option<Grant> {
        let (user_id, plan, paid_at) = (bought.user_id?, bought.plan.clone()?, bought.paid_at?);
        let reversed = self.reversed(bought);
        let revoked = reversed.revokes(policy, true);
        Some(Grant {
            user_id,
            entitlement: plan,
            source: SOURCE.into(),
            source_ref: bought.external_id.clone(),
            starts_at: paid_at,
            ends_at: None,
            revoked_at: revoked.map(|(at, _)| at),
            reason: Some(revoked.map_or("purchase", |(_, why)| why).into()),
            in_grace: false,
            will_renew: false,
            kind: "paid".into(),
        })
    }

    /// When the first charge failed of those that are open now. Stripe may leave a subscription past due
    /// for ever, and write an invoice a month that nobody pays.
    fn unpaid_since(&self, s: &Subscription) -> Timestamp {
        let since_paid_up = |at: &Timestamp| s.paid_up_at.is_none_or(|paid_up| *at >= paid_up);
        let open = self.invoices.iter().filter(|i| i.paid_at.is_none());
        let first = open.filter_map(|i| i.failed_at).filter(since_paid_up).min();
        first.unwrap_or(s.period_start.unwrap_or(s.basis_at))
    }

    fn paid_through(&self) -> Option<Timestamp> {
        let paid = self.invoices.iter().filter(|i| i.paid_at.is_some());
        paid.filter_map(|i| i.period_end).max()
    }

    /// Since when, and why, it opens nothing although its status says so. Money counts when it was paid
    /// for the latest period: the next payment makes up for what went back before it.
    fn revoked(&self, policy: &Policy) -> Option<(Timestamp, &'static str)> {
        let through = |i: &Invoice| i.paid_at.is_some() && i.amount_paid > 0;
        let last = self.invoices.iter().filter(|i| through(i));
        let last = last.filter_map(|i| i.period_end).max();
        let of_last = |p: &&Payment| {
            let invoice = self
                .invoices
                .iter()
                .find(|i| Some(&i.external_id) == p.invoice.as_ref());
            invoice.is_some_and(|i| through(i) && i.period_end == last)
        };
        let of_others = |p: &&Payment| p.plan.is_none() && !of_last(p);
        let reversed = |p: &Payment| self.reversed(p);
        let latest: Vec<_> = self.payments.iter().filter(of_last).map(reversed).collect();
        let others = self.payments.iter().filter(of_others).map(reversed);
        let disputed = latest.iter().filter_map(|r| r.disputed(policy, true));
        let disputed = disputed.chain(others.filter_map(|r| r.disputed(policy, false)));
        let refunded: Option<Vec<_>> = latest.iter().map(|r| r.refunded(policy)).collect();
        disputed
            .min()
            .or(refunded.and_then(|all| all.into_iter().max()))
    }

    fn reversed(&self, payment: &Payment) -> Reversed {
        let of = |kind: &'static str| {
            let of_payment =
                move |r: &&Reversal| r.payment == payment.external_id && r.kind == kind;
            self.reversals.iter().filter(of_payment)
        };
        // A charge says how much of it went back until then, and a refund that fails afterwards came back.
        let charged = of("charge").map(|charge| {
            let failed = |r: &&Reversal| is_failed(r) && r.basis_at >= charge.basis_at;
            let back: i64 = of("refund").filter(failed).map(|r| r.amount).sum();
            (charge.amount - back, charge.basis_at)
        });
        let succeeded = || of("refund").filter(|r| r.status == "succeeded");
        let refunds = (
            succeeded().map(|r| r.amount).sum(),
            succeeded().map(|r| r.basis_at).max(),
        );
        let refunds = refunds.1.map(|at| (refunds.0, at));
        let is_all =
            |(amount, _): &(i64, Timestamp)| payment.amount > 0 && *amount >= payment.amount;
        let taken = |statuses: &'static [&'static str]| {
            of("dispute")
                .filter(|r| statuses.contains(&r.status.as_str()))
                .map(|r| r.basis_at)
                .min()
        };
        Reversed {
            refunded_at: charged
                .chain(refunds)
                .filter(is_all)
                .map(|(_, at)| at)
                .min(),
            disputed_at: taken(&["needs_response", "under_review"]),
            lost_at: taken(&["lost", "prevented"]),
        }
    }

    /// What there is to say now. Each is said once, whatever says it first.
    fn notices(&self, now: Timestamp, policy: &Policy) -> Vec<Notice> {
        let mut notices = vec![];
        for bought in &self.payments {
            if let (Some(_), Some(plan), Some(at)) = (bought.user_id, &bought.plan, bought.paid_at)
                && is_news(at, now)
            {
                notices.push(Notice {
                    key: format!("subscribed:{}", bought.external_id),
                    news: News::Subscribed { plan: plan.clone() },
                });
            }
        }
        let Some(s) = &self.subscription else {
            return notices;
        };
        let (Some(_), Some(plan)) = (s.user_id, s.plan.clone()) else {
            return notices;
        };
        if is_paid_up(&s.status) && s.started_at.is_some_and(|at| is_news(at, now)) {
            notices.push(Notice {
                key: format!("subscribed:{}", s.external_id),
                news: News::Subscribed { plan: plan.clone() },
            });
        }
        // Who never had it does not lose it.
        let had_it = s.paid_up_at.is_some();
        let ended = s.ended_at.filter(|_| s.status == "canceled");
        if had_it && ended.is_some_and(|at| is_news(at, now)) {
            notices.push(Notice {
                key: format!("ended:{}", s.external_id),
                news: News::Ended { plan: plan.clone() },
            });
        }
        if !is_terminal(&s.status) {
            let unpaid = self
                .invoices
                .iter()
                .filter_map(|i| self.unpaid(i, s, &plan, now, policy));
            notices.extend(unpaid);
        }
        notices
    }

    /// The first payment fails before the customer's eyes; renewals fail behind their back.
    fn unpaid(
        &self,
        i: &Invoice,
        s: &Subscription,
        plan: &str,
        now: Timestamp,
        policy: &Policy,
    ) -> Option<Notice> {
        let reason = i.billing_reason.as_deref()?;
        let news = |at: Option<Timestamp>| at.is_some_and(|at| is_news(at, now));
        if i.paid_at.is_some() || reason == "subscription_create" {
            return None;
        }
        let (plan, link) = (plan.to_owned(), i.url.clone());
        let (what, news) = if news(i.action_at) {
            ("action_required", News::ActionRequired { plan, link })
        } else if news(i.failed_at) {
            let until = (s.status == "past_due").then(|| self.unpaid_since(s) + policy.grace);
            ("payment_failed", News::PaymentFailed { plan, until, link })
        } else {
            return None;
        };
        Some(Notice {
            key: format!("{what}:{}", i.external_id),
            news,
        })
    }

    /// Stripe says so three days before, or at once when somebody ends a trial early.
    fn trial_ending(&self, now: Timestamp) -> Option<Notice> {
        let s = self.subscription.as_ref()?;
        let (plan, at) = (s.plan.clone()?, s.trial_end?);
        s.user_id?;
        (s.status == "trialing" && at > now).then(|| Notice {
            key: format!("trial_ending:{}:{}", s.external_id, at.unix()),
            news: News::TrialEnding {
                plan,
                at,
                renews: s.will_renew,
            },
        })
    }
}

/// What went back of a payment.
struct Reversed {
    /// All of it.
    refunded_at: Option<Timestamp>,
    /// A bank asks for it.
    disputed_at: Option<Timestamp>,
    /// A bank took it.
    lost_at: Option<Timestamp>,
}

impl Reversed {
    fn refunded(&self, policy: &Policy) -> Option<(Timestamp, &'static str)> {
        let at = self.refunded_at.filter(|_| policy.revokes_refunded);
        at.map(|at| (at, "refund"))
    }

    /// While it is open, a dispute of any payment suspends; once it is lost, it is money that went back.
    fn disputed(&self, policy: &Policy, is_latest: bool) -> Option<(Timestamp, &'static str)> {
        let lost = self.lost_at.filter(|_| is_latest);
        let at = [self.disputed_at, lost].into_iter().flatten().min();
        at.filter(|_| policy.suspends_disputed)
            .map(|at| (at, "dispute"))
    }

    fn revokes(&self, policy: &Policy, is_latest: bool) -> Option<(Timestamp, &'static str)> {
        self.disputed(policy, is_latest)
            .or_else(|| self.refunded(policy))
    }
}

/// A subscription as it was told or read.
pub fn snapshot(
    plans: &Plans,
    mode: &str,
    told: &wire::Subscription,
    basis: &Basis,
    user: Option<Uuid>,
) -> Subscription {
    let at = |seconds: Option<i64>| seconds.map(Timestamp::from_unix);
    let entitlements = entitlements(plans, &told.items);
    let plan = plans.best_of(entitlements.iter().map(String::as_str));
    let ends_at_period = told.cancel_at_period_end.then_some(told.period_end);
    let cancel_at = told.cancel_at.or(ends_at_period.flatten());
    let ended = told.deleted || is_terminal(told.status.as_str());
    let ended_at = at(told.ended_at).unwrap_or(basis.at);
    Subscription {
        provider: SOURCE.into(),
        mode: mode.into(),
        external_id: told.id.clone(),
        user_id: user,
        customer: told.customer.clone(),
        store: SOURCE.into(),
        status: if told.deleted {
            "canceled".into()
        } else {
            told.status.as_str().to_owned()
        },
        plan,
        product: told.items.first().and_then(|item| item.product.clone()),
        quantity: told.items.iter().map(|item| item.quantity).sum(),
        will_renew: !ended && cancel_at.is_none(),
        period_start: at(told.period_start),
        period_end: at(told.period_end),
        trial_end: at(told.trial_end),
        cancel_at: at(cancel_at),
        ended_at: ended.then_some(ended_at),
        basis_at: basis.at,
        basis_rank: basis.rank,
        basis_event: basis.event.clone(),
        entitlements: Some(Json(entitlements)),
        kind: None,
        started_at: at(told.created),
        latest_invoice: told.latest_invoice.clone(),
        paused: told.pause_collection.clone(),
        paid_up_at: None,
        grace_until: None,
        refunded_at: None,
    }
}

/// Everything that the items open: by the price's id, else its lookup key, else what its metadata says.
fn entitlements(plans: &Plans, items: &[wire::Item]) -> Vec<String> {
    let mut all: Vec<String> = vec![];
    for item in items {
        let lookup = || plans.of_price(item.lookup_key.as_deref()?);
        let opens = match plans.of_price(&item.price).or_else(lookup) {
            Some(plan) => vec![plan.to_owned()],
            None => {
                let named = item.entitlements.iter();
                named.map(|name| plans.of_revenuecat(name)).collect()
            }
        };
        all.extend(opens);
    }
    all.sort();
    all.dedup();
    all
}

/// All that a subscription opens, by name.
pub fn names(s: &Subscription) -> Vec<String> {
    match &s.entitlements {
        Some(names) => names.0.clone(),
        None => s.plan.clone().into_iter().collect(),
    }
}

/// Why what is told changes nothing of what is known.
fn outdated(
    known: &Subscription,
    told: &Subscription,
    previous_status: Option<&str>,
) -> Option<&'static str> {
    let is_read = |s: &Subscription| s.basis_rank == READ;
    // A read says how it is, also where a row had it wrong.
    if is_terminal(&known.status) && !is_terminal(&told.status) && !is_read(told) {
        return Some("terminal");
    }
    let second = |s: &Subscription| s.basis_at.unix();
    // Of two updates in one second the later is the one that knows of the other's status.
    let follows = previous_status.unwrap_or(&told.status) == known.status;
    let stale = match (is_read(known), is_read(told)) {
        (true, true) => told.basis_at < known.basis_at,
        (false, true) => second(told) < second(known),
        (true, false) if second(told) == second(known) => previous_status.is_none() || !follows,
        (true, false) => second(told) < second(known),
        (false, false) => {
            let (was, is) = (
                (known.basis_at, known.basis_rank),
                (told.basis_at, told.basis_rank),
            );
            is < was || (is == was && known.basis_event != told.basis_event && !follows)
        }
    };
    stale.then_some("stale")
}

pub fn is_terminal(status: &str) -> bool {
    ["canceled", "incomplete_expired"].contains(&status)
}

fn is_paid_up(status: &str) -> bool {
    ["active", "trialing"].contains(&status)
}

fn is_failed(refund: &Reversal) -> bool {
    ["failed", "canceled"].contains(&refund.status.as_str())
}

/// Merges what is told into what is known of the same object.
fn merge<T: Clone>(
    known: &mut Vec<T>,
    told: &T,
    is_same: impl Fn(&T) -> bool,
    merged: impl Fn(&T, &T) -> T,
) {
    match known.iter_mut().find(|known| is_same(known)) {
        Some(known) => *known = merged(known, told),
        None => known.push(told.clone()),
    }
}

/// An invoice of which only its name is known.
pub fn unknown_invoice(mode: &str, id: &str) -> Invoice {
    Invoice {
        provider: SOURCE.into(),
        mode: mode.into(),
        external_id: id.into(),
        subscription: None,
        billing_reason: None,
        amount_paid: 0,
        currency: None,
        period_end: None,
        failed_at: None,
        action_at: None,
        url: None,
        paid_at: None,
    }
}

/// A payment of which only its name is known.
pub fn unknown_payment(mode: &str, id: &str) -> Payment {
    Payment {
        provider: SOURCE.into(),
        mode: mode.into(),
        external_id: id.into(),
        invoice: None,
        amount: 0,
        currency: None,
        customer: None,
        user_id: None,
        plan: None,
        paid_at: None,
    }
}

fn first(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    a.into_iter().chain(b).min()
}

/// Of two texts that should be the same, one whatever came first.
fn either(a: &Option<String>, b: &Option<String>) -> Option<String> {
    a.as_ref().max(b.as_ref()).cloned()
}

fn invoice(a: &Invoice, b: &Invoice) -> Invoice {
    Invoice {
        subscription: either(&a.subscription, &b.subscription),
        billing_reason: either(&a.billing_reason, &b.billing_reason),
        amount_paid: a.amount_paid.max(b.amount_paid),
        currency: either(&a.currency, &b.currency),
        period_end: a.period_end.max(b.period_end),
        failed_at: first(a.failed_at, b.failed_at),
        action_at: first(a.action_at, b.action_at),
        url: either(&a.url, &b.url),
        paid_at: first(a.paid_at, b.paid_at),
        ..a.clone()
    }
}

fn payment(a: &Payment, b: &Payment) -> Payment {
    Payment {
        invoice: either(&a.invoice, &b.invoice),
        amount: a.amount.max(b.amount),
        currency: either(&a.currency, &b.currency),
        customer: either(&a.customer, &b.customer),
        user_id: a.user_id.or(b.user_id),
        plan: either(&a.plan, &b.plan),
        paid_at: first(a.paid_at, b.paid_at),
        ..a.clone()
    }
}

/// The later counts, and of one second what is further on.
fn reversal(a: &Reversal, b: &Reversal) -> Reversal {
    let standing = |r: &Reversal| {
        let rank = match r.status.as_str() {
            "warning_needs_response" | "pending" => 0,
            "warning_under_review" | "requires_action" => 1,
            "needs_response" => 2,
            "under_review" => 3,
            "succeeded" => 4,
            "failed" | "canceled" => 5,
            _ => 6,
        };
        (r.basis_at, rank, r.amount)
    };
    if standing(b) >= standing(a) { b } else { a }.clone()
}
