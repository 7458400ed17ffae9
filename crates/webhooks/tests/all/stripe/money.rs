//! Checkouts, invoices, refunds and disputes.

use serde_json::{Value, json};
use webhooks::stripe::{
    Change, ChargeRefunded, Checkout, Dispute, Event, Invoice, InvoicePayment, Refund,
};

use super::{CUSTOMER, INVOICE, SUBSCRIPTION, USER, event, reread};
use crate::fixtures;

const CHARGE: &str = "ch_bLyvnTfFMql6NdstUr1FE2Gu";
const PAYMENT_INTENT: &str = "pi_v3uJLhiAa941oIBxL5QcZmLd";

fn checkout(variant: &str) -> Checkout {
    match event(&format!("endive--checkout.session.{variant}")).change {
        Change::Checkout(checkout) => checkout,
        other => panic!("{other:?}"),
    }
}

fn invoice_of(event: Event) -> Invoice {
    match event.change {
        Change::Invoice(invoice) => invoice,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_checkout_says_whether_it_was_paid_and_for_what() {
    assert_eq!(
        checkout("completed--payment-lifetime"),
        Checkout {
            id: "cs_test_3XBXa16aEgqZzSqyERYEfZAMaKjcAaxMImPy6urfJfXAAAAAAAAAAAAAAA".into(),
            mode: "payment".into(),
            payment_status: "paid".into(),
            customer: Some(CUSTOMER.into()),
            subscription: None,
            payment_intent: Some(PAYMENT_INTENT.into()),
            user_id: Some(USER.into()),
            amount_total: Some(9900),
            currency: Some("usd".into()),
            metadata: [("plan", "pro"), ("user_id", USER)]
                .map(|(key, value)| (key.into(), value.into()))
                .into(),
        }
    );
    assert_eq!(
        checkout("completed--payment-async-unpaid").payment_status,
        "unpaid"
    );
    assert_eq!(checkout("async_payment_succeeded").payment_status, "paid");
    assert_eq!(checkout("completed--setup").amount_total, None);
    assert_eq!(
        checkout("completed--subscription-paid")
            .subscription
            .as_deref(),
        Some(SUBSCRIPTION)
    );
}

#[test]
fn the_user_of_a_checkout_is_its_reference_before_its_metadata() {
    let mut body =
        fixtures::json("stripe/endive--checkout.session.completed--subscription-paid.json");
    let user = |body: &Value| match reread(body).change {
        Change::Checkout(checkout) => checkout.user_id,
        other => panic!("{other:?}"),
    };

    body["data"]["object"]["metadata"]["user_id"] = json!("from-metadata");
    assert_eq!(user(&body).as_deref(), Some(USER));
    body["data"]["object"]["client_reference_id"] = json!(null);
    assert_eq!(user(&body).as_deref(), Some("from-metadata"));
    assert_eq!(
        checkout("completed--subscription-no-reference").user_id,
        None
    );
}

#[test]
fn an_invoice_says_until_when_it_pays_for_which_subscription() {
    assert_eq!(
        invoice_of(event("legacy--invoice.paid--subscription_cycle")),
        Invoice {
            id: Some("in_5xq1o2U6DlwwmQzj2UWI5T18".into()),
            customer: Some(CUSTOMER.into()),
            subscription: Some(SUBSCRIPTION.into()),
            billing_reason: Some("subscription_cycle".into()),
            attempt_count: 1,
            next_payment_attempt: None,
            amount_paid: 2900,
            amount_due: 2900,
            currency: "usd".into(),
            period_end: Some(1_799_184_000),
            payment_intent: Some(PAYMENT_INTENT.into()),
            user_id: Some(USER.into()),
            hosted_invoice_url: Some(
                "https://invoice.stripe.com/i/acct_demo/in_5xq1o2U6DlwwmQzj2UWI5T18".into()
            ),
            paid_at: Some(1_796_592_004),
        }
    );
}

#[test]
fn a_failed_invoice_says_when_it_is_tried_again() {
    let failed = invoice_of(event("endive--invoice.payment_failed--first-attempt"));

    assert_eq!(failed.attempt_count, 1);
    assert_eq!(failed.next_payment_attempt, Some(1_796_851_200));
    assert_eq!(failed.amount_paid, 0);
}

#[test]
fn an_upcoming_invoice_has_no_id() {
    let event = event("endive--invoice.upcoming");

    assert_eq!(event.object_id, None);
    assert_eq!(event.customer.as_deref(), Some(CUSTOMER));
    assert_eq!(invoice_of(event).id, None);
}

#[test]
fn an_invoice_by_hand_bills_no_subscription_though_its_lines_mention_one() {
    for shape in ["legacy", "endive"] {
        let invoice = invoice_of(event(&format!(
            "{shape}--invoice.paid--manual-no-subscription"
        )));

        assert_eq!(invoice.subscription, None, "{shape}");
        assert_eq!(invoice.period_end, None, "{shape}");
    }
}

#[test]
fn the_lines_tell_the_subscription_when_the_invoice_has_no_place_for_it() {
    for (shape, place) in [("legacy", "subscription"), ("endive", "parent")] {
        let file = format!("stripe/{shape}--invoice.paid--subscription_cycle.json");
        let mut body = fixtures::json(&file);
        body["data"]["object"]
            .as_object_mut()
            .unwrap()
            .remove(place);

        let invoice = invoice_of(reread(&body));

        assert_eq!(
            invoice.subscription.as_deref(),
            Some(SUBSCRIPTION),
            "{shape}"
        );
        assert_eq!(invoice.period_end, Some(1_799_184_000), "{shape}");
    }
}

#[test]
fn lines_of_another_subscription_do_not_move_the_period() {
    let mut body = fixtures::json("stripe/endive--invoice.paid--subscription_cycle.json");
    let lines = body["data"]["object"]["lines"]["data"]
        .as_array_mut()
        .unwrap();
    let mut other = lines[0].clone();
    other["parent"]["subscription_item_details"]["subscription"] = json!("sub_other");
    other["period"]["end"] = json!(1_900_000_000);
    lines.push(other);

    assert_eq!(invoice_of(reread(&body)).period_end, Some(1_799_184_000));
}

#[test]
fn an_invoice_by_hand_knows_its_user_by_its_own_metadata() {
    let mut body = fixtures::json("stripe/endive--invoice.paid--manual-no-subscription.json");
    body["data"]["object"]["metadata"]["user_id"] = json!(USER);

    assert_eq!(invoice_of(reread(&body)).user_id.as_deref(), Some(USER));
}

#[test]
fn expanded_payments_tell_the_payment_intent() {
    let mut body = fixtures::json("stripe/endive--invoice.paid--subscription_cycle.json");
    body["data"]["object"]["payments"] = json!({ "object": "list", "data": [
        { "payment": { "type": "payment_intent", "payment_intent": PAYMENT_INTENT } },
    ]});

    assert_eq!(
        invoice_of(reread(&body)).payment_intent.as_deref(),
        Some(PAYMENT_INTENT)
    );
}

#[test]
fn an_invoice_payment_joins_invoice_and_payment() {
    assert_eq!(
        event("endive--invoice_payment.paid").change,
        Change::InvoicePayment(InvoicePayment {
            id: "inpay_vE3I69R36y9q5UljjOEqexqu".into(),
            invoice: INVOICE.into(),
            payment_intent: Some(PAYMENT_INTENT.into()),
            amount_paid: 2900,
            currency: "usd".into(),
        })
    );
}

#[test]
fn a_refunded_charge_says_how_much_of_it() {
    let charge = |variant: &str| match event(&format!("legacy--charge.refunded--{variant}")).change
    {
        Change::ChargeRefunded(charge) => charge,
        other => panic!("{other:?}"),
    };

    assert_eq!(
        charge("full"),
        ChargeRefunded {
            id: CHARGE.into(),
            payment_intent: Some(PAYMENT_INTENT.into()),
            invoice: Some(INVOICE.into()),
            amount: 2900,
            amount_refunded: 2900,
            refunded: true,
            currency: "usd".into(),
        }
    );
    assert!(!charge("partial").refunded);
    assert!(charge("partial").amount_refunded < 2900);
}

#[test]
fn a_refund_says_whether_it_went_through() {
    let refund = |name: &str| match event(&format!("endive--refund.{name}")).change {
        Change::Refund(refund) => refund,
        other => panic!("{other:?}"),
    };

    assert_eq!(
        refund("created--pending").status.as_deref(),
        Some("pending")
    );
    assert_eq!(
        refund("updated"),
        Refund {
            id: "re_Yg1JL7sxF2tqz6zLnJCLEhD7".into(),
            charge: Some(CHARGE.into()),
            payment_intent: Some(PAYMENT_INTENT.into()),
            amount: 2900,
            currency: "usd".into(),
            status: Some("succeeded".into()),
        }
    );
}

#[test]
fn a_dispute_says_where_it_stands() {
    let dispute = |name: &str| match event(&format!("endive--charge.dispute.{name}")).change {
        Change::Dispute(dispute) => dispute,
        other => panic!("{other:?}"),
    };

    assert_eq!(
        dispute("created--needs_response"),
        Dispute {
            id: "du_R6Wea9v3s7tQGQd5Rf1xtD1t".into(),
            charge: Some(CHARGE.into()),
            payment_intent: Some(PAYMENT_INTENT.into()),
            amount: 2900,
            currency: "usd".into(),
            status: "needs_response".into(),
            reason: Some("fraudulent".into()),
        }
    );
    assert!(dispute("created--inquiry").status.starts_with("warning_"));
    assert_eq!(dispute("closed--won").status, "won");
}
