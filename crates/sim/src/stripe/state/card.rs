//! Cards to pay with, and the test numbers: <https://docs.stripe.com/testing>.

use serde_json::{Value, json};

use super::{Show, take, thing};
use crate::stripe::refusal::Refusal;
use crate::stripe::version::Version;

/// A payment method.
#[derive(Debug, Clone)]
pub struct Card {
    pub id: String,
    pub created: i64,
    pub customer: Option<String>,
    pub name: Option<String>,
    pub email: Option<String>,
    pub brand: &'static str,
    pub last4: String,
    pub exp_month: u32,
    pub exp_year: i32,
    pub behaviour: Behaviour,
}

/// What happens when it is charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    Pays,
    /// With a decline code.
    Declines(&'static str),
    /// Can be kept, and declines whenever it is charged.
    DeclinesLater,
    /// Its bank asks once, while the customer is there.
    AsksOnce,
    /// Its bank asks every time.
    AsksAlways,
    /// A bank account, of which it is known days later whether it had the money.
    Settles(bool),
    /// Pays, and its owner asks for the money back; the dispute's first status.
    Disputes(&'static str),
}

/// Number, the SDKs' token for it, brand, behaviour.
pub const NUMBERS: &[(&str, &str, &str, Behaviour)] = &[
    ("4242424242424242", "pm_card_visa", "visa", Behaviour::Pays),
    (
        "5555555555554444",
        "pm_card_mastercard",
        "mastercard",
        Behaviour::Pays,
    ),
    ("378282246310005", "pm_card_amex", "amex", Behaviour::Pays),
    (
        "4000000000000002",
        "pm_card_visa_chargeDeclined",
        "visa",
        Behaviour::Declines("generic_decline"),
    ),
    (
        "4000000000009995",
        "pm_card_visa_chargeDeclinedInsufficientFunds",
        "visa",
        Behaviour::Declines("insufficient_funds"),
    ),
    (
        "4000000000000069",
        "pm_card_chargeDeclinedExpiredCard",
        "visa",
        Behaviour::Declines("expired_card"),
    ),
    (
        "4000000000000127",
        "pm_card_chargeDeclinedIncorrectCvc",
        "visa",
        Behaviour::Declines("incorrect_cvc"),
    ),
    (
        "4000000000000341",
        "pm_card_chargeCustomerFail",
        "visa",
        Behaviour::DeclinesLater,
    ),
    (
        "4000002500003155",
        "pm_card_authenticationRequiredOnSetup",
        "visa",
        Behaviour::AsksOnce,
    ),
    (
        "4000002760003184",
        "pm_card_authenticationRequired",
        "visa",
        Behaviour::AsksAlways,
    ),
    (
        "4000000000000259",
        "pm_card_createDispute",
        "visa",
        Behaviour::Disputes("needs_response"),
    ),
    (
        "4000000000001976",
        "pm_card_createDisputeInquiry",
        "visa",
        Behaviour::Disputes("warning_needs_response"),
    ),
    (
        "000123456789",
        "pm_usBankAccount_success",
        BANK_ACCOUNT,
        Behaviour::Settles(true),
    ),
    (
        "000111111116",
        "pm_usBankAccount_noAccount",
        BANK_ACCOUNT,
        Behaviour::Settles(false),
    ),
];

/// In place of a brand.
const BANK_ACCOUNT: &str = "us_bank_account";

impl Card {
    /// Of this number, or of this token.
    pub fn read(number: &str, now: i64) -> Result<Self, Refusal> {
        let number: String = number
            .chars()
            .filter(|sign| !sign.is_whitespace() && *sign != '-')
            .collect();
        let known = NUMBERS
            .iter()
            .find(|(digits, token, ..)| *digits == number || *token == number);
        let Some((digits, _, brand, behaviour)) = known else {
            return Err(if is_number(&number) {
                let message = "Your card was declined. Your request was in test mode, but used a non test card.";
                Refusal::card("card_declined", Some("test_mode_live_card"), message)
            } else {
                Refusal::card("incorrect_number", None, "Your card number is incorrect.")
            });
        };
        Ok(Self {
            id: crate::dice::fresh("pm", 24),
            created: now,
            customer: None,
            name: None,
            email: None,
            brand,
            last4: digits[digits.len() - 4..].to_owned(),
            exp_month: 12,
            exp_year: 2034,
            behaviour: *behaviour,
        })
    }

    /// What the bank says to a charge; `Ok(false)` asks the customer first.
    pub fn charge(&self, customer_is_there: bool, confirmed: bool) -> Result<bool, Refusal> {
        match self.behaviour {
            Behaviour::Pays | Behaviour::Settles(_) | Behaviour::Disputes(_) => Ok(true),
            Behaviour::Declines(code) => Err(declined(code)),
            Behaviour::DeclinesLater => Err(declined("generic_decline")),
            Behaviour::AsksOnce => Ok(confirmed || !customer_is_there),
            Behaviour::AsksAlways => Ok(confirmed),
        }
    }

    /// What the bank says when it is only kept for later.
    pub fn keep(&self, confirmed: bool) -> Result<bool, Refusal> {
        match self.behaviour {
            Behaviour::DeclinesLater => Ok(true),
            _ => self.charge(true, confirmed),
        }
    }

    pub fn shown_brand(&self) -> &'static str {
        match self.brand {
            "mastercard" => "Mastercard",
            "amex" => "American Express",
            BANK_ACCOUNT => "Bank account",
            _ => "Visa",
        }
    }
}

fn declined(code: &'static str) -> Refusal {
    match code {
        "insufficient_funds" => Refusal::card(
            "card_declined",
            Some(code),
            "Your card has insufficient funds.",
        ),
        "expired_card" => Refusal::card("expired_card", Some(code), "Your card has expired."),
        "incorrect_cvc" => Refusal::card(
            "incorrect_cvc",
            Some(code),
            "Your card's security code is incorrect.",
        ),
        _ => Refusal::card("card_declined", Some(code), "Your card was declined."),
    }
}

/// Luhn's formula: <https://en.wikipedia.org/wiki/Luhn_algorithm>.
fn is_number(text: &str) -> bool {
    let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(10)).collect();
    let Some(digits) = digits.filter(|digits| (12..=19).contains(&digits.len())) else {
        return false;
    };
    let sum = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| match (at % 2, digit * 2) {
            (0, _) => *digit,
            (_, twice) => twice / 10 + twice % 10,
        });
    sum.sum::<u32>() % 10 == 0
}

impl Show for Card {
    fn show(&self, _: &Version) -> Value {
        let mut shown = json!({
            "id": self.id,
            "object": "payment_method",
            "allow_redisplay": "always",
            "billing_details": {
                "address": {"city": null, "country": "US", "line1": null, "line2": null, "postal_code": "94107", "state": null},
                "email": self.email,
                "name": self.name,
                "phone": null,
                "tax_id": null,
            },
            "card": {
                "brand": self.brand,
                "checks": {"address_line1_check": null, "address_postal_code_check": "pass", "cvc_check": "pass"},
                "country": "US",
                "display_brand": self.brand,
                "exp_month": self.exp_month,
                "exp_year": self.exp_year,
                "fingerprint": crate::dice::Dice::of(&self.last4).letters(16),
                "funding": "credit",
                "generated_from": null,
                "last4": self.last4,
                "networks": {"available": [self.brand], "preferred": null},
                "three_d_secure_usage": {"supported": true},
                "wallet": null,
            },
            "created": self.created,
            "customer": self.customer,
            "customer_account": null,
            "livemode": false,
            "metadata": {},
            "type": "card",
        });
        if self.brand == BANK_ACCOUNT {
            take(&mut shown, &["card"]);
            shown["type"] = BANK_ACCOUNT.into();
            shown[BANK_ACCOUNT] = json!({
                "account_holder_type": "individual",
                "account_type": "checking",
                "bank_name": "STRIPE TEST BANK",
                "financial_connections_account": null,
                "fingerprint": crate::dice::Dice::of(&self.last4).letters(16),
                "last4": self.last4,
                "networks": {"preferred": "ach", "supported": ["ach"]},
                "routing_number": "110000000",
                "status_details": {},
            });
        }
        shown
    }
}

thing!(Card, "payment_method", cards);
