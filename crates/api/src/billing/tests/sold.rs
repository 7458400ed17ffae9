//! What the simulated Stripe sells, as it tells of it.
use super::*;
use crate::{billing::stripe_api::Stripe, testing::both_engines};

/// Ann pays for Pro with this card.
async fn buys(shop: &Shop, card: &str) -> String {
    let mut config = shop.app.config.billing.clone();
    config.stripe_api_base = shop.world.stripe_url().parse().unwrap();
    config.stripe_secret_key = Some("sk_test_of_the_tests".to_owned().into());
    let stripe = Stripe::new(&config, crate::http::Client::default()).unwrap();
    let form = [
        ("mode", "subscription"),
        ("success_url", "http://app.example/done"),
        ("client_reference_id", &shop.ann.id),
        ("subscription_data[metadata][user_id]", &shop.ann.id),
        ("customer_email", &shop.ann.email),
        ("line_items[0][price]", "price_pro"),
        ("line_items[0][quantity]", "1"),
    ];
    let session = stripe
        .post("/v1/checkout/sessions", &form, "once")
        .await
        .unwrap();
    let id = session["id"].as_str().unwrap().to_owned();
    shop.world.stripe().pay(&id, card).unwrap();
    id
}

both_engines! {
    async fn what_is_paid_for_opens_and_closes_when_it_is_not_paid_any_more(engine: Engine) {
        let shop = Shop::new(engine).await;
        buys(&shop, "4242424242424242").await;
        assert_eq!(shop.plan().await, "free", "nobody has told yet");

        assert_eq!(shop.deliver().await, 14);
        shop.work().await;
        assert_eq!(shop.plan().await, "pro");

        shop.later(DAY * 31);
        shop.deliver().await;
        shop.work().await;
        assert_eq!(shop.standing().await, ["pro"], "renewed");
        let (_, grants) = shop.everything().await;
        assert!(grants[0].ends_at.unwrap() > shop.app.now() + DAY * 28);
    }

    async fn whatever_goes_astray_on_the_way_what_is_paid_for_opens(engine: Engine) {
        for faults in [
            sim::Faults { duplicate: true, reorder: Some(3), ..Default::default() },
            sim::Faults { twin: true, reorder: Some(11), same_second: true, ..Default::default() },
            sim::Faults { old_version: true, two_signatures: true, reorder: Some(5), ..Default::default() },
        ] {
            let shop = Shop::new(engine).await;
            shop.world.set_faults(faults.clone());
            buys(&shop, "4242424242424242").await;

            shop.deliver().await;
            shop.work().await;

            assert_eq!(shop.plan().await, "pro", "{faults:?}");
            assert_eq!(shop.waiting().await, 0, "{faults:?}");
        }
    }

    async fn what_is_signed_with_another_secret_opens_nothing_until_it_is_signed_with_ours(engine: Engine) {
        let shop = Shop::new(engine).await;
        shop.world.set_faults(sim::Faults { bad_signature: true, ..Default::default() });
        buys(&shop, "4242424242424242").await;
        shop.deliver().await;
        shop.work().await;
        assert_eq!(shop.plan().await, "free");

        shop.world.set_faults(sim::Faults::default());
        shop.later(Duration::from_secs(10));
        shop.deliver().await;
        shop.work().await;

        assert_eq!(shop.plan().await, "pro");
    }
}
