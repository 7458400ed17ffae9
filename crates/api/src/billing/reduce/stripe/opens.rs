//! What a state opens, and what takes that away again.
use super::{SOURCE, State, names};
use crate::billing::reduce::{Policy, RENEWAL_LEEWAY};
use db::{
    Timestamp,
    billing::{
        Grant, Subscription,
        money::{Invoice, Payment, Reversal},
    },
};

impl State {
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
    pub fn unpaid_since(&self, s: &Subscription) -> Timestamp {
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

fn is_failed(refund: &Reversal) -> bool {
    ["failed", "canceled"].contains(&refund.status.as_str())
}
