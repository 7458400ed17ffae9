//! What was told of a subscription's money: invoices, what paid them, and what went back.
use crate::prelude::*;

row! {
    /// One invoice.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Invoice {
        pub provider: String,
        pub mode: String,
        pub external_id: String,
        pub subscription: Option<String>,
        pub billing_reason: Option<String>,
        /// In the currency's smallest unit.
        pub amount_paid: i64,
        pub currency: Option<String>,
        /// Until when it pays.
        pub period_end: Option<Timestamp>,
        /// When a charge of it was first told to have failed.
        pub failed_at: Option<Timestamp>,
        /// When its customer was first told to have to confirm it.
        pub action_at: Option<Timestamp>,
        /// Where its customer pays or sees it.
        pub url: Option<String>,
        pub paid_at: Option<Timestamp>,
    }
}

row! {
    /// A payment of an invoice, or of something that is bought once.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Payment {
        pub provider: String,
        pub mode: String,
        pub external_id: String,
        pub invoice: Option<String>,
        /// In the currency's smallest unit; 0 while nobody told.
        pub amount: i64,
        pub currency: Option<String>,
        pub customer: Option<String>,
        pub user_id: Option<Uuid>,
        /// What is bought once.
        pub plan: Option<String>,
        pub paid_at: Option<Timestamp>,
    }
}

row! {
    /// Money that goes back: a charge with what was refunded of it, a refund, a dispute.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Reversal {
        pub provider: String,
        pub mode: String,
        pub external_id: String,
        /// `charge`, `refund` or `dispute`.
        pub kind: String,
        /// Which payment it is of.
        pub payment: String,
        pub amount: i64,
        pub status: String,
        pub basis_at: Timestamp,
    }
}

sql! {
    fn lock(tx: &mut Tx, name: &str) -> One<(String,)> {
        "select {postgres: cast(pg_advisory_xact_lock(hashtextextended($name, 7305810)) as text)}{sqlite: $name}"
    }

    /// One invoice.
    pub fn invoice(tx: &mut Tx, provider: &str, mode: &str, external_id: &str) -> Option<Invoice> {
        "select {columns} from billing_invoices
         where provider = $provider and mode = $mode and external_id = $external_id"
    }

    /// The invoices of a subscription.
    pub fn invoices(tx: &mut Tx, provider: &str, mode: &str, subscription: &str) -> Vec<Invoice> {
        "select {columns} from billing_invoices
         where subscription = $subscription and provider = $provider and mode = $mode order by external_id"
    }

    /// One payment.
    pub fn payment(tx: &mut Tx, provider: &str, mode: &str, external_id: &str) -> Option<Payment> {
        "select {columns} from billing_payments
         where provider = $provider and mode = $mode and external_id = $external_id"
    }

    /// The same, for whoever only looks.
    pub fn known_payment(db: &Db, provider: &str, mode: &str, external_id: &str) -> Option<Payment> {
        "select {columns} from billing_payments
         where provider = $provider and mode = $mode and external_id = $external_id"
    }

    /// The payments of an invoice.
    pub fn payments(tx: &mut Tx, provider: &str, mode: &str, invoice: &str) -> Vec<Payment> {
        "select {columns} from billing_payments
         where invoice = $invoice and provider = $provider and mode = $mode order by external_id"
    }

    /// What a customer bought once.
    pub fn purchases_of_customer(tx: &mut Tx, provider: &str, mode: &str, customer: &str) -> Vec<Payment> {
        "select {columns} from billing_payments
         where customer = $customer and provider = $provider and mode = $mode and plan is not null order by external_id"
    }

    /// What a user bought once, newest first.
    pub fn purchases_of_user(db: &Db, user: Uuid) -> Vec<Payment> {
        "select {columns} from billing_payments
         where user_id = $user and plan is not null order by paid_at desc, external_id"
    }

    /// What went back of a payment.
    pub fn reversals(tx: &mut Tx, provider: &str, mode: &str, payment: &str) -> Vec<Reversal> {
        "select {columns} from billing_reversals
         where payment = $payment and provider = $provider and mode = $mode order by external_id"
    }

    fn upsert_invoice(
        tx: &mut Tx, provider: &str, mode: &str, external_id: &str, subscription: Option<&str>,
        billing_reason: Option<&str>, amount_paid: i64, currency: Option<&str>, period_end: Option<Timestamp>,
        failed_at: Option<Timestamp>, action_at: Option<Timestamp>, url: Option<&str>, paid_at: Option<Timestamp>,
    ) {
        "insert into billing_invoices (provider, mode, external_id, subscription, billing_reason, amount_paid, currency,
             period_end, failed_at, action_at, url, paid_at)
         values ($provider, $mode, $external_id, $subscription, $billing_reason, $amount_paid, $currency,
             $period_end, $failed_at, $action_at, $url, $paid_at)
         on conflict (provider, mode, external_id) do update set
             subscription = excluded.subscription, billing_reason = excluded.billing_reason,
             amount_paid = excluded.amount_paid, currency = excluded.currency, period_end = excluded.period_end,
             failed_at = excluded.failed_at, action_at = excluded.action_at, url = excluded.url,
             paid_at = excluded.paid_at"
    }

    fn upsert_payment(
        tx: &mut Tx, provider: &str, mode: &str, external_id: &str, invoice: Option<&str>, amount: i64,
        currency: Option<&str>, customer: Option<&str>, user: Option<Uuid>, plan: Option<&str>,
        paid_at: Option<Timestamp>,
    ) {
        "insert into billing_payments (provider, mode, external_id, invoice, amount, currency, customer, user_id, plan, paid_at)
         values ($provider, $mode, $external_id, $invoice, $amount, $currency, $customer, $user, $plan, $paid_at)
         on conflict (provider, mode, external_id) do update set
             invoice = excluded.invoice, amount = excluded.amount, currency = excluded.currency,
             customer = excluded.customer, user_id = excluded.user_id, plan = excluded.plan, paid_at = excluded.paid_at"
    }

    fn upsert_reversal(
        tx: &mut Tx, provider: &str, mode: &str, external_id: &str, kind: &str, payment: &str, amount: i64,
        status: &str, basis_at: Timestamp,
    ) {
        "insert into billing_reversals (provider, mode, external_id, kind, payment, amount, status, basis_at)
         values ($provider, $mode, $external_id, $kind, $payment, $amount, $status, $basis_at)
         on conflict (provider, mode, external_id) do update set
             kind = excluded.kind, payment = excluded.payment, amount = excluded.amount, status = excluded.status,
             basis_at = excluded.basis_at"
    }
}

/// Holds what has this name against others until the transaction ends, whether or not there is a row of
/// it yet: facts of one object come by several ways at once. Payments are held before invoices, and
/// invoices before subscriptions.
pub async fn hold(tx: &mut Tx, name: &str) -> Result<()> {
    lock(tx, name).await.map(drop)
}

/// Writes an invoice over what was known.
pub async fn save_invoice(tx: &mut Tx, i: &Invoice) -> Result<()> {
    upsert_invoice(
        tx,
        &i.provider,
        &i.mode,
        &i.external_id,
        i.subscription.as_deref(),
        i.billing_reason.as_deref(),
        i.amount_paid,
        i.currency.as_deref(),
        i.period_end,
        i.failed_at,
        i.action_at,
        i.url.as_deref(),
        i.paid_at,
    )
    .await
}

/// Writes a payment over what was known.
pub async fn save_payment(tx: &mut Tx, p: &Payment) -> Result<()> {
    upsert_payment(
        tx,
        &p.provider,
        &p.mode,
        &p.external_id,
        p.invoice.as_deref(),
        p.amount,
        p.currency.as_deref(),
        p.customer.as_deref(),
        p.user_id,
        p.plan.as_deref(),
        p.paid_at,
    )
    .await
}

/// Writes what went back over what was known.
pub async fn save_reversal(tx: &mut Tx, r: &Reversal) -> Result<()> {
    upsert_reversal(
        tx,
        &r.provider,
        &r.mode,
        &r.external_id,
        &r.kind,
        &r.payment,
        r.amount,
        &r.status,
        r.basis_at,
    )
    .await
}
