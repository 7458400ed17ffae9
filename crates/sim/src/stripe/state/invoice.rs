use serde_json::{Value, json};

use super::{Discount, Price, Show, list, put, take, thing};
use crate::stripe::params::Metadata;
use crate::stripe::version::Version;

#[derive(Debug, Clone, Default)]
pub struct Invoice {
    pub id: String,
    pub created: i64,
    pub customer: String,
    pub email: Option<String>,
    pub name: Option<String>,
    pub subscription: Option<String>,
    /// Of the subscription, as it was then.
    pub subscription_metadata: Metadata,
    pub billing_reason: String,
    /// draft, open, paid, uncollectible or void.
    pub status: &'static str,
    pub currency: String,
    pub lines: Vec<Line>,
    pub discount: Option<Discount>,
    /// The customer's before it; negative is in their favour.
    pub starting_balance_minor: i64,
    pub number: Option<String>,
    pub attempts: u32,
    pub next_attempt: Option<i64>,
    /// Of a draft.
    pub finalizes_at: Option<i64>,
    pub finalized_at: Option<i64>,
    pub paid_at: Option<i64>,
    pub uncollectible_at: Option<i64>,
    pub voided_at: Option<i64>,
    pub payment: Option<String>,
    /// Of the payment.
    pub charge: Option<String>,
    pub url: Option<String>,
    pub test_clock: Option<String>,
    pub livemode: bool,
}

#[derive(Debug, Clone, Default)]
pub struct Line {
    pub id: String,
    pub description: String,
    pub amount_minor: i64,
    pub price: Price,
    pub quantity: i64,
    pub period: (i64, i64),
    pub is_proration: bool,
    /// Of the subscription.
    pub item: Option<String>,
}

thing!(Invoice, "invoice", invoices);

impl Invoice {
    pub fn subtotal_minor(&self) -> i64 {
        self.lines.iter().map(|line| line.amount_minor).sum()
    }

    pub fn discount_minor(&self) -> i64 {
        self.discount
            .as_ref()
            .map_or(0, |discount| discount.coupon.of(self.subtotal_minor()))
    }

    pub fn total_minor(&self) -> i64 {
        self.subtotal_minor() - self.discount_minor()
    }

    /// After the balance.
    pub fn due_minor(&self) -> i64 {
        (self.total_minor() + self.starting_balance_minor).max(0)
    }

    /// The customer's balance after it.
    pub fn ending_balance_minor(&self) -> i64 {
        (self.total_minor() + self.starting_balance_minor).min(0)
    }

    pub fn is_paid(&self) -> bool {
        self.status == "paid"
    }
}

impl Line {
    fn show(&self, of: &Invoice, version: &Version) -> Value {
        let mut shown = json!({
            "id": self.id,
            "object": "line_item",
            "amount": self.amount_minor,
            "currency": of.currency,
            "description": self.description,
            "discount_amounts": [],
            "discountable": !self.is_proration,
            "discounts": [],
            "invoice": of.id,
            "livemode": of.livemode,
            "metadata": of.subscription_metadata,
            "parent": self.item.as_ref().map(|item| json!({
                "type": "subscription_item_details",
                "invoice_item_details": null,
                "subscription_item_details": {
                    "invoice_item": null,
                    "proration": self.is_proration,
                    "proration_details": {"credited_items": null},
                    "subscription": of.subscription,
                    "subscription_item": item,
                },
            })),
            "period": {"start": self.period.0, "end": self.period.1},
            "pretax_credit_amounts": [],
            "pricing": {
                "type": "price_details",
                "price_details": {"price": self.price.id, "product": self.price.product},
                "unit_amount_decimal": self.price.amount_minor.to_string(),
            },
            "quantity": self.quantity,
            "quantity_decimal": self.quantity.to_string(),
            "subscription": of.subscription,
            "subtotal": self.amount_minor,
            "taxes": [],
        });
        if version.is_old() {
            take(
                &mut shown,
                &["parent", "pricing", "quantity_decimal", "subtotal", "taxes"],
            );
            let older = json!({
                "amount_excluding_tax": self.amount_minor,
                "plan": self.price.plan(version),
                "price": self.price.show(version),
                "proration": self.is_proration,
                "proration_details": {"credited_items": null},
                "subscription_item": self.item,
                "tax_amounts": [],
                "tax_rates": [],
                "type": if self.is_proration { "invoiceitem" } else { "subscription" },
                "unit_amount_excluding_tax": self.price.amount_minor.to_string(),
            });
            put(&mut shown, older);
        }
        shown
    }
}

impl Show for Invoice {
    fn show(&self, version: &Version) -> Value {
        let (total, due) = (self.total_minor(), self.due_minor());
        let paid = if self.is_paid() { due } else { 0 };
        let lines: Vec<_> = self
            .lines
            .iter()
            .map(|line| line.show(self, version))
            .collect();
        let off = self
            .discount
            .iter()
            .map(|discount| json!({"amount": self.discount_minor(), "discount": discount.id}));
        let mut shown = json!({
            "id": self.id,
            "object": "invoice",
            "account_country": "US",
            "account_name": "Plinth, simulated",
            "account_tax_ids": null,
            "amount_due": due,
            "amount_overpaid": 0,
            "amount_paid": paid,
            "amount_remaining": due - paid,
            "amount_shipping": 0,
            "application": null,
            "attempt_count": self.attempts,
            "attempted": self.attempts > 0 || self.is_paid(),
            "auto_advance": matches!(self.status, "draft" | "open"),
            "automatic_tax": {"enabled": false, "liability": null, "provider": null, "status": null, "disabled_reason": null},
            "automatically_finalizes_at": self.finalizes_at,
            "billing_reason": self.billing_reason,
            "collection_method": "charge_automatically",
            "confirmation_secret": null,
            "created": self.created,
            "currency": self.currency,
            "custom_fields": null,
            "customer": self.customer,
            "customer_account": null,
            "customer_address": null,
            "customer_email": self.email,
            "customer_name": self.name,
            "customer_phone": null,
            "customer_shipping": null,
            "customer_tax_exempt": "none",
            "customer_tax_ids": [],
            "default_payment_method": null,
            "default_source": null,
            "default_tax_rates": [],
            "description": null,
            "discounts": self.discount.iter().map(|discount| discount.id.as_str()).collect::<Vec<_>>(),
            "due_date": null,
            "effective_at": self.finalized_at,
            "ending_balance": self.finalized_at.map(|_| self.ending_balance_minor()),
            "footer": null,
            "from_invoice": null,
            "hosted_invoice_url": self.url,
            "invoice_pdf": self.url.as_ref().map(|url| format!("{url}/pdf")),
            "issuer": {"type": "self"},
            "last_finalization_error": null,
            "latest_revision": null,
            "lines": list(lines, format!("/v1/invoices/{}/lines", self.id)),
            "livemode": self.livemode,
            "metadata": {},
            "next_payment_attempt": self.next_attempt.or(self.finalizes_at),
            "number": self.number,
            "on_behalf_of": null,
            "parent": self.subscription.as_ref().map(|subscription| json!({
                "type": "subscription_details",
                "quote_details": null,
                "subscription_details": {"metadata": self.subscription_metadata, "subscription": subscription},
            })),
            "payment_settings": {"default_mandate": null, "payment_method_options": null, "payment_method_types": null},
            "period_end": self.created,
            "period_start": self.created,
            "post_payment_credit_notes_amount": 0,
            "pre_payment_credit_notes_amount": 0,
            "receipt_number": null,
            "rendering": null,
            "shipping_cost": null,
            "shipping_details": null,
            "starting_balance": self.starting_balance_minor,
            "statement_descriptor": null,
            "status": self.status,
            "status_transitions": {
                "finalized_at": self.finalized_at,
                "marked_uncollectible_at": self.uncollectible_at,
                "paid_at": self.paid_at,
                "voided_at": self.voided_at,
            },
            "subtotal": self.subtotal_minor(),
            "subtotal_excluding_tax": self.subtotal_minor(),
            "test_clock": self.test_clock,
            "total": total,
            "total_discount_amounts": off.collect::<Vec<_>>(),
            "total_excluding_tax": total,
            "total_pretax_credit_amounts": [],
            "total_taxes": [],
            "webhooks_delivered_at": self.created,
        });
        if version.is_old() {
            as_of_old(self, &mut shown, version);
        }
        shown
    }
}

fn as_of_old(invoice: &Invoice, shown: &mut Value, version: &Version) {
    take(
        shown,
        &[
            "amount_overpaid",
            "confirmation_secret",
            "customer_account",
            "parent",
            "total_taxes",
        ],
    );
    take(
        &mut shown["automatic_tax"],
        &["provider", "disabled_reason"],
    );
    let details = invoice
        .subscription
        .as_ref()
        .map(|_| json!({"metadata": invoice.subscription_metadata}));
    let older = json!({
        "application_fee_amount": null,
        "charge": invoice.charge,
        "discount": invoice.discount.as_ref().map(|discount| discount.show(version)),
        "paid": invoice.is_paid(),
        "paid_out_of_band": false,
        "payment_intent": invoice.payment,
        "quote": null,
        "rendering_options": null,
        "subscription": invoice.subscription,
        "subscription_details": details,
        "tax": null,
        "total_tax_amounts": [],
        "transfer_data": null,
    });
    put(shown, older);
}
