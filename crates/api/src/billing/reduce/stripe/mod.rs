//! Of a subscription of Stripe's, or of what is bought there once.
use super::{Notice, Policy, READ};
use db::{
    Timestamp,
    billing::{
        Subscription,
        money::{Invoice, Payment, Reversal},
    },
};
use merging::{first, invoice, merge, payment, reversal};
use snapshot::outdated;
use uuid::Uuid;

mod merging;
mod notices;
mod opens;
mod snapshot;

pub use merging::{unknown_invoice, unknown_payment};
pub use snapshot::{names, snapshot};

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
}

pub fn is_terminal(status: &str) -> bool {
    ["canceled", "incomplete_expired"].contains(&status)
}

fn is_paid_up(status: &str) -> bool {
    ["active", "trialing"].contains(&status)
}
