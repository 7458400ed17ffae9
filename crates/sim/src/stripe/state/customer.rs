use serde_json::{Value, json};

use super::{Discount, Show, thing};
use crate::stripe::params::Metadata;
use crate::stripe::version::Version;

#[derive(Debug, Clone, Default)]
pub struct Customer {
    pub id: String,
    pub created: i64,
    pub email: Option<String>,
    pub name: Option<String>,
    pub phone: Option<String>,
    pub description: Option<String>,
    pub metadata: Metadata,
    /// The card that invoices are charged to.
    pub card: Option<String>,
    /// Negative is in the customer's favour.
    pub balance_minor: i64,
    pub currency: Option<String>,
    pub discount: Option<Discount>,
    pub next_invoice: u32,
    pub test_clock: Option<String>,
    pub is_deleted: bool,
}

thing!(Customer, "customer", customers);

impl Customer {
    /// What its invoices' numbers begin with.
    pub fn invoice_prefix(&self) -> String {
        format!("{:08X}", crate::dice::hash(&self.id) >> 32)
    }
}

impl Show for Customer {
    fn show(&self, version: &Version) -> Value {
        if self.is_deleted {
            return json!({"id": self.id, "object": "customer", "deleted": true});
        }
        let mut shown = json!({
            "id": self.id,
            "object": "customer",
            "address": null,
            "balance": self.balance_minor,
            "created": self.created,
            "currency": self.currency,
            "default_source": null,
            "delinquent": false,
            "description": self.description,
            "discount": self.discount.as_ref().map(|discount| discount.show(version)),
            "email": self.email,
            "invoice_prefix": self.invoice_prefix(),
            "invoice_settings": {"custom_fields": null, "default_payment_method": self.card, "footer": null, "rendering_options": null},
            "livemode": false,
            "metadata": self.metadata,
            "name": self.name,
            "next_invoice_sequence": self.next_invoice.max(1),
            "phone": self.phone,
            "preferred_locales": [],
            "shipping": null,
            "tax_exempt": "none",
            "test_clock": self.test_clock,
        });
        if !version.is_old() {
            shown["customer_account"] = Value::Null;
        }
        shown
    }
}
