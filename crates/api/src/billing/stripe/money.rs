//! What was paid, and what goes back of it.
use super::{
    keep::{Reduced, Touched, reduce},
    told::Told,
};
use crate::billing::{
    apply::{Cause, Outcome},
    reduce::stripe::{Fact, SOURCE, unknown_invoice, unknown_payment},
};
use db::{
    Timestamp, Tx,
    billing::money::{self, Payment, Reversal},
};
use webhooks::stripe as wire;

impl Told<'_> {
    pub async fn charge(
        &self,
        tx: &mut Tx,
        told: &wire::ChargeRefunded,
    ) -> anyhow::Result<Outcome> {
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

    pub async fn refund(&self, tx: &mut Tx, told: &wire::Refund) -> anyhow::Result<Outcome> {
        let (Some(payment), Some(status)) = (
            told.payment_intent.as_ref().or(told.charge.as_ref()),
            &told.status,
        ) else {
            return Ok(Outcome::Ignored("no_effect"));
        };
        let back = self.reversal(&told.id, "refund", payment, told.amount, status);
        self.back(tx, payment, vec![back]).await
    }

    pub async fn dispute(&self, tx: &mut Tx, told: &wire::Dispute) -> anyhow::Result<Outcome> {
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

    pub async fn payment(
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
}

/// What an invoice says, when an event tells of it or somebody looks.
pub fn invoice_row(
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
