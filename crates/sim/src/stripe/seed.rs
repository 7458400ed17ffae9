//! What is there from the start: two plans, by the month and by the year, as `cargo run` sells them, and
//! something off.

use super::books::Books;
use super::state::catalog::Recurring;
use super::state::promotion::Off;
use super::state::{Coupon, PortalConfiguration, Price, Product, PromotionCode};

pub const PROMOTION_CODE: &str = "WELCOME20";

pub fn fill(books: &mut Books) {
    let now = books.now;
    for (name, title, description, amount_minor) in [
        ("standard", "Standard", "For every day", 900),
        ("pro", "Pro", "For those who want more", 2900),
    ] {
        let product = Product {
            id: format!("prod_{name}"),
            created: now,
            name: title.to_owned(),
            description: Some(description.to_owned()),
            is_active: true,
            default_price: Some(format!("price_{name}")),
            ..Product::default()
        };
        let price = |id: String, interval: &'static str, amount_minor: i64| Price {
            id,
            created: now,
            product: product.id.clone(),
            product_name: product.name.clone(),
            currency: "usd".to_owned(),
            amount_minor,
            recurring: Some(Recurring {
                interval,
                count: 1,
                trial_days: None,
            }),
            lookup_key: Some(format!("{name}_{interval}")),
            is_active: true,
            ..Price::default()
        };
        books
            .prices
            .put(price(format!("price_{name}"), "month", amount_minor));
        books.prices.put(price(
            format!("price_{name}_year"),
            "year",
            amount_minor * 10,
        ));
        books.products.put(product);
    }
    let coupon = Coupon {
        id: "welcome20".to_owned(),
        created: now,
        name: Some("Welcome".to_owned()),
        off: Off::Percent(20.0),
        duration: "once",
        months: None,
        metadata: Default::default(),
    };
    books.promotion_codes.put(PromotionCode {
        id: crate::dice::fresh("promo", 24),
        created: now,
        code: PROMOTION_CODE.to_owned(),
        coupon: coupon.clone(),
        is_active: true,
        times_redeemed: 0,
        metadata: Default::default(),
    });
    books.coupons.put(coupon);
    books.portal_configurations.put(PortalConfiguration {
        id: crate::dice::fresh("bpc", 24),
        created: now,
        is_active: true,
        is_default: true,
        name: None,
        business_profile: serde_json::json!({"headline": null, "privacy_policy_url": null, "terms_of_service_url": null}),
        default_return_url: None,
        features: PortalConfiguration::usual_features(),
        metadata: Default::default(),
    });
}
