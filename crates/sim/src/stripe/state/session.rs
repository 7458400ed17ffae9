//! Checkout sessions.

use serde_json::{Value, json};

use super::{Discount, Price, Show, list, put, take, thing};
use crate::stripe::params::Metadata;
use crate::stripe::version::Version;

#[derive(Debug, Clone, Default)]
pub struct Session {
    pub id: String,
    pub created: i64,
    pub expires_at: i64,
    /// payment, subscription or setup.
    pub mode: &'static str,
    /// open, complete or expired.
    pub status: &'static str,
    /// unpaid, paid or no_payment_required.
    pub payment_status: &'static str,
    pub customer: Option<String>,
    pub customer_creation: Option<&'static str>,
    /// Given by the application.
    pub customer_email: Option<String>,
    /// Known by the end.
    pub email: Option<String>,
    pub name: Option<String>,
    pub client_reference_id: Option<String>,
    pub success_url: Option<String>,
    pub cancel_url: Option<String>,
    pub lines: Vec<SessionLine>,
    pub allows_promotion_codes: bool,
    pub discount: Option<Discount>,
    pub always_asks_for_card: bool,
    pub locale: Option<String>,
    pub metadata: Metadata,
    /// Of the subscription, or of the payment.
    pub onward: Onward,
    pub subscription: Option<String>,
    pub invoice: Option<String>,
    pub payment: Option<String>,
    pub url: String,
    /// What was filled in, while the bank asks.
    pub asked: Option<Asked>,
    pub livemode: bool,
}

/// What a customer fills in.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// Empty where nothing has to be paid now.
    pub number: String,
    pub expires: Option<(u32, i32)>,
    pub name: String,
    pub email: Option<String>,
}

/// What the session passes on.
#[derive(Debug, Clone, Default)]
pub struct Onward {
    pub metadata: Metadata,
    pub description: Option<String>,
    pub trial_end: Option<i64>,
    pub trial_days: Option<i64>,
    /// create_invoice, cancel or pause.
    pub without_card: Option<&'static str>,
}

#[derive(Debug, Clone, Default)]
pub struct SessionLine {
    pub id: String,
    pub price: Price,
    pub quantity: i64,
}

thing!(Session, "checkout.session", sessions);

impl Session {
    /// Until then nothing is paid.
    pub fn trial_end(&self, now: i64) -> Option<i64> {
        let days = self.onward.trial_days.map(|days| now + days * 24 * 60 * 60);
        self.onward
            .trial_end
            .or(days)
            .filter(|end| self.mode == "subscription" && *end > now)
    }

    /// What all lines cost, and what is taken off, in minor units.
    pub fn amounts(&self, now: i64) -> (i64, i64) {
        let due =
            |line: &&SessionLine| line.price.recurring.is_none() || self.trial_end(now).is_none();
        let subtotal = self
            .lines
            .iter()
            .filter(due)
            .map(|line| line.price.amount_minor * line.quantity)
            .sum();
        let off = self
            .discount
            .as_ref()
            .map_or(0, |discount| discount.coupon.of(subtotal));
        (subtotal, off)
    }

    pub fn currency(&self) -> &str {
        self.lines
            .first()
            .map_or("usd", |line| line.price.currency.as_str())
    }

    pub fn lines(&self, version: &Version) -> Vec<Value> {
        let one_off = self.discount.as_ref().filter(|_| self.lines.len() == 1);
        let lines = self.lines.iter().map(|line| {
            let subtotal = line.price.amount_minor * line.quantity;
            let off = one_off.map_or(0, |discount| discount.coupon.of(subtotal));
            json!({
                "id": line.id,
                "object": "item",
                "adjustable_quantity": null,
                "amount_discount": off,
                "amount_subtotal": subtotal,
                "amount_tax": 0,
                "amount_total": subtotal - off,
                "currency": line.price.currency,
                "description": line.price.product_name,
                "metadata": {},
                "price": line.price.show(version),
                "quantity": line.quantity,
            })
        });
        lines.collect()
    }

    /// Shown only to who asks for it with `expand[]`.
    pub fn line_items(&self, version: &Version) -> Value {
        list(
            self.lines(version),
            format!("/v1/checkout/sessions/{}/line_items", self.id),
        )
    }
}

impl Show for Session {
    fn show(&self, version: &Version) -> Value {
        let (subtotal, off) = self.amounts(self.created);
        let is_open = self.status == "open";
        let email = self.email.as_ref().or(self.customer_email.as_ref());
        let known = (email.is_some() || self.name.is_some()).then(|| {
            json!({
                "address": (!is_open).then(|| json!({"city": null, "country": "US", "line1": null, "line2": null, "postal_code": "94107", "state": null})),
                "business_name": null,
                "email": email,
                "individual_name": null,
                "name": self.name,
                "phone": null,
                "tax_exempt": "none",
                "tax_ids": (!is_open).then(|| json!([])),
            })
        });
        let discounts = self.discount.iter().map(|discount| {
            json!({"coupon": discount.promotion_code.is_none().then_some(&discount.coupon.id), "promotion_code": discount.promotion_code})
        });
        let mut shown = json!({
            "id": self.id,
            "object": "checkout.session",
            "adaptive_pricing": {"enabled": false},
            "after_expiration": null,
            "allow_promotion_codes": self.allows_promotion_codes.then_some(true),
            "allowed_payment_method_types": null,
            "amount_subtotal": subtotal,
            "amount_total": subtotal - off,
            "automatic_tax": {"enabled": false, "liability": null, "provider": null, "status": null},
            "billing_address_collection": null,
            "cancel_url": self.cancel_url,
            "client_reference_id": self.client_reference_id,
            "client_secret": null,
            "collected_information": {"business_name": null, "individual_name": null, "shipping_details": null},
            "consent": null,
            "consent_collection": null,
            "created": self.created,
            "currency": self.currency(),
            "currency_conversion": null,
            "custom_fields": [],
            "custom_text": {"after_submit": null, "shipping_address": null, "submit": null, "terms_of_service_acceptance": null},
            "customer": self.customer,
            "customer_account": null,
            "customer_creation": self.customer_creation,
            "customer_details": known,
            "customer_email": self.customer_email,
            "discounts": discounts.collect::<Vec<_>>(),
            "expires_at": self.expires_at,
            "integration_identifier": null,
            "invoice": self.invoice,
            "invoice_creation": null,
            "livemode": self.livemode,
            "locale": self.locale,
            "managed_payments": {"enabled": false},
            "metadata": self.metadata,
            "mode": self.mode,
            "origin_context": null,
            "payment_intent": self.payment,
            "payment_link": null,
            "payment_method_collection": if self.always_asks_for_card { "always" } else { "if_required" },
            "payment_method_configuration_details": null,
            "payment_method_options": {"card": {"request_three_d_secure": "automatic"}},
            "payment_method_types": ["card"],
            "payment_status": self.payment_status,
            "permissions": null,
            "phone_number_collection": {"enabled": false},
            "recovered_from": null,
            "saved_payment_method_options": null,
            "setup_intent": null,
            "shipping_address_collection": null,
            "shipping_cost": null,
            "shipping_options": [],
            "status": self.status,
            "submit_type": null,
            "subscription": self.subscription,
            "success_url": self.success_url,
            "total_details": {"amount_discount": off, "amount_shipping": 0, "amount_tax": 0},
            "ui_mode": "hosted_page",
            "url": is_open.then_some(&self.url),
            "wallet_options": null,
        });
        if version.is_old() {
            as_of_old(&mut shown);
        }
        shown
    }
}

fn as_of_old(shown: &mut Value) {
    let newer = [
        "allowed_payment_method_types",
        "collected_information",
        "customer_account",
        "integration_identifier",
        "managed_payments",
        "origin_context",
        "permissions",
        "wallet_options",
    ];
    take(shown, &newer);
    put(
        shown,
        json!({"shipping_details": null, "ui_mode": "hosted"}),
    );
    take(&mut shown["automatic_tax"], &["provider"]);
    take(
        &mut shown["customer_details"],
        &["business_name", "individual_name"],
    );
}
