//! What time and people do to a subscription.
use super::*;

async fn statuses(bank: &Bank, of: &Value) -> Vec<String> {
    let path = format!("invoices?subscription={}&limit=100", id(of));
    let invoices = bank.get(&path).await;
    let mut statuses: Vec<_> = invoices["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|invoice| words(&invoice["status"]).to_owned())
        .collect();
    statuses.reverse();
    statuses
}

#[tokio::test]
async fn what_happens_is_told_in_its_order() {
    let bank = Bank::new().await;
    let session = bank.post("checkout/sessions", &session_form()).await;

    bank.world
        .stripe()
        .pay(&id(&session), "4242424242424242")
        .unwrap();

    assert_eq!(
        bank.told_types(),
        [
            "customer.created",
            "payment_method.attached",
            "invoice.created",
            "customer.subscription.created",
            "customer.updated",
            "payment_intent.created",
            "invoice.finalized",
            "payment_intent.succeeded",
            "charge.succeeded",
            "invoice.paid",
            "invoice.payment_succeeded",
            "invoice_payment.paid",
            "customer.subscription.updated",
            "checkout.session.completed",
        ]
    );
    let paid = bank
        .get(&format!(
            "checkout/sessions/{}?expand[]=subscription",
            id(&session)
        ))
        .await;
    assert_eq!(
        (&paid["status"], &paid["payment_status"], &paid["url"]),
        (&json!("complete"), &json!("paid"), &Value::Null)
    );
    assert_eq!(
        (
            &paid["subscription"]["status"],
            &paid["subscription"]["metadata"]["user_id"]
        ),
        (&json!("active"), &json!("u1"))
    );
    assert!(
        bank.world
            .stripe()
            .pay(&id(&session), "4242424242424242")
            .is_err()
    );
}

#[tokio::test]
async fn a_subscription_renews_at_the_end_of_its_period_an_hour_after_its_invoice_was_drafted() {
    let bank = Bank::new().await;
    let subscription = bank.subscriber("pm_card_visa", &[]).await;
    let end = subscription["items"]["data"][0]["current_period_end"]
        .as_i64()
        .unwrap();
    bank.told();

    bank.later(Duration::from_secs((end - START) as u64));
    let drafted = statuses(&bank, &subscription).await;
    let renewed = bank.told();
    bank.later(Duration::from_secs(3600));

    assert_eq!(drafted, ["paid", "draft"]);
    let updated = &renewed[1];
    assert_eq!(
        (words(&renewed[0]["type"]), words(&updated["type"])),
        ("invoice.created", "customer.subscription.updated")
    );
    assert_eq!(
        updated["data"]["object"]["items"]["data"][0]["current_period_start"],
        end
    );
    assert_eq!(
        updated["data"]["previous_attributes"]["items"]["data"][0]["current_period_end"],
        end
    );
    assert_eq!(updated["created"], end);
    assert_eq!(statuses(&bank, &subscription).await, ["paid", "paid"]);
    assert!(bank.told_types().contains(&"invoice.paid".to_owned()));
}

#[tokio::test]
async fn years_bring_every_renewal_at_its_own_time() {
    let bank = Bank::new().await;
    let subscription = bank.subscriber("pm_card_visa", &[]).await;

    bank.later(DAY * 366);

    let renewals = bank.get("events?type=invoice.paid&limit=100").await;
    let times: Vec<_> = renewals["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["created"].as_i64().unwrap())
        .collect();
    assert_eq!(statuses(&bank, &subscription).await.len(), 13);
    assert!(times.windows(2).all(|pair| pair[0] - pair[1] > 27 * 86_400));
}

#[tokio::test]
async fn a_trial_is_told_of_three_days_before_it_ends_and_then_paid() {
    let bank = Bank::new().await;
    let subscription = bank
        .subscriber("pm_card_visa", &[("trial_period_days", "7")])
        .await;
    assert_eq!(
        (
            &subscription["status"],
            statuses(&bank, &subscription).await
        ),
        (&json!("trialing"), vec!["paid".to_owned()])
    );
    bank.told();

    bank.later(DAY * 4);
    let told = bank.told_types();
    bank.later(DAY * 3 + Duration::from_secs(3600));

    assert_eq!(told, ["customer.subscription.trial_will_end"]);
    assert_eq!(bank.subscription(&subscription).await["status"], "active");
    assert_eq!(statuses(&bank, &subscription).await, ["paid", "paid"]);
}

#[tokio::test]
async fn a_trial_without_a_card_ends_as_was_said_at_its_start() {
    let bank = Bank::new().await;
    let start = async |what: &'static str| {
        let customer = id(&bank.post("customers", &[]).await);
        let form = [
            ("customer", customer.as_str()),
            ("items[0][price]", "price_pro"),
            ("trial_period_days", "1"),
            ("trial_settings[end_behavior][missing_payment_method]", what),
        ];
        bank.post("subscriptions", &form).await
    };
    let (cancels, pauses, bills) = (
        start("cancel").await,
        start("pause").await,
        start("create_invoice").await,
    );

    bank.later(DAY * 2);

    let mut ends = vec![];
    for subscription in [cancels, pauses, bills] {
        ends.push(bank.subscription(&subscription).await["status"].clone());
    }
    assert_eq!(ends, ["canceled", "paused", "past_due"]);
}

#[tokio::test]
async fn what_is_not_paid_is_tried_four_times_and_then_over() {
    let bank = Bank::new().await;
    let subscription = bank.subscriber("pm_card_visa", &[]).await;
    let customer = words(&subscription["customer"]).to_owned();
    bank.post(
        &format!("customers/{customer}"),
        &[(
            "invoice_settings[default_payment_method]",
            "pm_card_chargeCustomerFail",
        )],
    )
    .await;
    bank.later(DAY * 30 + Duration::from_secs(3601));
    let due = bank.subscription(&subscription).await["status"].clone();
    bank.told();

    bank.later(DAY * 15);

    let failures = bank
        .told()
        .into_iter()
        .filter(|event| event["type"] == "invoice.payment_failed")
        .count();
    let ended = bank.subscription(&subscription).await;
    assert_eq!((due, failures), (json!("past_due"), 3));
    assert_eq!(
        (&ended["status"], &ended["cancellation_details"]["reason"]),
        (&json!("canceled"), &json!("payment_failed"))
    );
}

#[tokio::test]
async fn a_new_card_pays_what_was_owed() {
    let bank = Bank::new().await;
    let subscription = bank.subscriber("pm_card_visa", &[]).await;
    let customer = format!("customers/{}", words(&subscription["customer"]));
    bank.post(
        &customer,
        &[(
            "invoice_settings[default_payment_method]",
            "pm_card_chargeCustomerFail",
        )],
    )
    .await;
    bank.later(DAY * 31);
    bank.post(
        &customer,
        &[("invoice_settings[default_payment_method]", "pm_card_visa")],
    )
    .await;

    bank.later(DAY * 3);

    assert_eq!(bank.subscription(&subscription).await["status"], "active");
    assert_eq!(statuses(&bank, &subscription).await, ["paid", "paid"]);
}

#[tokio::test]
async fn who_cancels_stays_until_the_end_and_may_think_better_of_it() {
    let bank = Bank::new().await;
    let subscription = bank.subscriber("pm_card_visa", &[]).await;
    let path = format!("subscriptions/{}", id(&subscription));

    let leaves = bank.post(&path, &[("cancel_at_period_end", "true")]).await;
    let stays = bank.post(&path, &[("cancel_at_period_end", "false")]).await;
    bank.post(&path, &[("cancel_at_period_end", "true")]).await;
    bank.told();
    bank.later(DAY * 31);

    let end = &subscription["items"]["data"][0]["current_period_end"];
    assert_eq!(
        (
            &leaves["status"],
            &leaves["cancel_at"],
            &leaves["canceled_at"]
        ),
        (&json!("active"), end, &json!(START))
    );
    assert_eq!(
        (&stays["cancel_at"], &stays["canceled_at"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(bank.told_types(), ["customer.subscription.deleted"]);
    let ended = bank.subscription(&subscription).await;
    assert_eq!(
        (&ended["status"], &ended["ended_at"]),
        (&json!("canceled"), end)
    );
    assert_eq!(
        bank.try_post(&path, &[("cancel_at_period_end", "false")])
            .await
            .0,
        400
    );
    let standing = bank.get("subscriptions").await["data"]
        .as_array()
        .unwrap()
        .len();
    let all = bank.get("subscriptions?status=all").await["data"]
        .as_array()
        .unwrap()
        .len();
    assert_eq!((standing, all), (0, 1));
}

#[tokio::test]
async fn a_test_clock_is_its_customers_alone() {
    let bank = Bank::new().await;
    let clock = bank
        .post(
            "test_helpers/test_clocks",
            &[("frozen_time", &START.to_string())],
        )
        .await;
    let customer = bank
        .post(
            "customers",
            &[
                ("test_clock", &*id(&clock)),
                ("invoice_settings[default_payment_method]", "pm_card_visa"),
            ],
        )
        .await;
    let theirs = bank
        .post(
            "subscriptions",
            &[
                ("customer", &*id(&customer)),
                ("items[0][price]", "price_pro"),
            ],
        )
        .await;
    let other = bank.subscriber("pm_card_visa", &[]).await;

    let month = (START + 32 * 86_400).to_string();
    let advanced = bank
        .post(
            &format!("test_helpers/test_clocks/{}/advance", id(&clock)),
            &[("frozen_time", &month)],
        )
        .await;

    assert_eq!(advanced["status"], "ready");
    assert_eq!(
        (
            statuses(&bank, &theirs).await.len(),
            statuses(&bank, &other).await.len()
        ),
        (2, 1)
    );
    let (back, _) = bank
        .try_post(
            &format!("test_helpers/test_clocks/{}/advance", id(&clock)),
            &[("frozen_time", "1")],
        )
        .await;
    assert_eq!(back, 400);
}

#[tokio::test]
async fn a_session_expires_by_itself_or_when_it_is_told_to() {
    let bank = Bank::new().await;
    let (first, second) = (
        bank.post("checkout/sessions", &session_form()).await,
        bank.post("checkout/sessions", &session_form()).await,
    );
    bank.post(&format!("checkout/sessions/{}/expire", id(&first)), &[])
        .await;

    bank.later(DAY);

    assert_eq!(
        bank.told_types(),
        ["checkout.session.expired", "checkout.session.expired"]
    );
    assert!(
        bank.world
            .stripe()
            .pay(&id(&second), "4242424242424242")
            .is_err()
    );
    assert_eq!(
        bank.try_post(&format!("checkout/sessions/{}/expire", id(&first)), &[])
            .await
            .0,
        400
    );
}

#[tokio::test]
async fn collection_can_be_paused_and_a_paused_subscription_resumed() {
    let bank = Bank::new().await;
    let (void, paused) = (
        bank.subscriber("pm_card_visa", &[]).await,
        bank.subscriber("pm_card_visa", &[]).await,
    );
    bank.post(
        &format!("subscriptions/{}", id(&void)),
        &[("pause_collection[behavior]", "void")],
    )
    .await;
    let stopped = bank
        .post(&format!("subscriptions/{}/pause", id(&paused)), &[])
        .await;

    bank.later(DAY * 40);
    let resumed = bank
        .post(
            &format!("subscriptions/{}/resume", id(&paused)),
            &[("billing_cycle_anchor", "now")],
        )
        .await;

    assert_eq!(statuses(&bank, &void).await, ["paid", "void"]);
    assert_eq!(
        (&stopped["status"], &resumed["status"]),
        (&json!("paused"), &json!("active"))
    );
    assert_eq!(statuses(&bank, &paused).await, ["paid", "paid"]);
}

#[tokio::test]
async fn a_deleted_customer_takes_its_subscriptions_along() {
    let bank = Bank::new().await;
    let subscription = bank.subscriber("pm_card_visa", &[]).await;
    bank.told();
    let url = format!(
        "{}/v1/customers/{}",
        bank.world.stripe_url(),
        words(&subscription["customer"])
    );

    let (_, deleted) = bank.ask(http().delete(url)).await;

    assert_eq!(deleted["deleted"], true);
    assert_eq!(
        bank.told_types(),
        ["customer.subscription.deleted", "customer.deleted"]
    );
    let (gone, _) = bank
        .try_post(
            "billing_portal/sessions",
            &[("customer", words(&subscription["customer"]))],
        )
        .await;
    assert_eq!(gone, 400);
}
