//! What a change of plan costs, and what a code takes off.
use super::*;

#[tokio::test]
async fn a_dearer_plan_costs_the_rest_of_the_month_and_the_preview_says_so() {
    let bank = Bank::new().await;
    let customer = bank.customer("pm_card_visa").await;
    let subscription = bank
        .post(
            "subscriptions",
            &[
                ("customer", &customer),
                ("items[0][price]", "price_standard"),
            ],
        )
        .await;
    let (sub, item) = (
        id(&subscription),
        words(&subscription["items"]["data"][0]["id"]).to_owned(),
    );
    bank.later(DAY * 15);

    let asked = [
        ("subscription", &*sub),
        ("subscription_details[items][0][id]", &item),
        ("subscription_details[items][0][price]", "price_pro"),
        ("subscription_details[proration_behavior]", "always_invoice"),
    ];
    let preview = bank.post("invoices/create_preview", &asked).await;
    let before = bank.subscription(&subscription).await;
    bank.told();
    bank.post(
        &format!("subscriptions/{sub}"),
        &[
            ("items[0][id]", &*item),
            ("items[0][price]", "price_pro"),
            ("proration_behavior", "always_invoice"),
        ],
    )
    .await;

    // Half of $29.00 and of $9.00, as the month has thirty days.
    assert_eq!(preview["total"], 1000);
    assert_eq!(before["items"]["data"][0]["price"]["id"], "price_standard");
    let told = bank.told();
    let updated = told
        .iter()
        .find(|event| event["type"] == "customer.subscription.updated")
        .unwrap();
    assert_eq!(
        updated["data"]["previous_attributes"]["items"]["data"][0]["price"]["id"],
        "price_standard"
    );
    let invoice = bank
        .get(&format!("invoices?subscription={sub}&limit=1"))
        .await["data"][0]
        .clone();
    assert_eq!(
        (
            &invoice["total"],
            &invoice["status"],
            &invoice["billing_reason"]
        ),
        (&json!(1000), &json!("paid"), &json!("subscription_update"))
    );
}

#[tokio::test]
async fn what_a_cheaper_plan_leaves_over_pays_for_the_next_months() {
    let bank = Bank::new().await;
    let subscription = bank.subscriber("pm_card_visa", &[]).await;
    let item = words(&subscription["items"]["data"][0]["id"]);
    let form = [
        ("items[0][id]", item),
        ("items[0][price]", "price_standard"),
        ("proration_behavior", "always_invoice"),
    ];
    bank.post(&format!("subscriptions/{}", id(&subscription)), &form)
        .await;

    let customer = bank
        .get(&format!("customers/{}", words(&subscription["customer"])))
        .await;
    bank.later(DAY * 31);

    assert_eq!(customer["balance"], -2000);
    let invoices = bank.get("invoices?limit=1").await;
    assert_eq!(
        (
            &invoices["data"][0]["total"],
            &invoices["data"][0]["amount_due"],
            &invoices["data"][0]["status"]
        ),
        (&json!(900), &json!(0), &json!("paid"))
    );
}

#[tokio::test]
async fn a_promotion_code_takes_off_once() {
    let bank = Bank::new().await;
    let code = bank.get("promotion_codes?code=welcome20&active=true").await["data"][0].clone();
    let form = [("discounts[0][promotion_code]", words(&code["id"]))];
    let subscription = bank.subscriber("pm_card_visa", &form).await;

    bank.later(DAY * 31);

    let invoices = bank
        .get(&format!("invoices?subscription={}", id(&subscription)))
        .await;
    let totals: Vec<_> = invoices["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|invoice| invoice["total"].clone())
        .collect();
    assert_eq!(totals, [2900, 2320]);
}
