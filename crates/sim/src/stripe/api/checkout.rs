use serde_json::Value;

use super::super::life::DAY_S;
use crate::dice::fresh;
use crate::stripe::books::Books;
use crate::stripe::call::Call;
use crate::stripe::params::Params;
use crate::stripe::refusal::{Refusal, Result};
use crate::stripe::state::promotion::Discount;
use crate::stripe::state::session::{Onward, SessionLine};
use crate::stripe::state::{Coupon, Price, Product, PromotionCode, Session, Show};

const PARAMS: &[&str] = &[
    "adaptive_pricing",
    "after_expiration",
    "allow_promotion_codes",
    "allowed_payment_method_types",
    "automatic_tax",
    "billing_address_collection",
    "cancel_url",
    "client_reference_id",
    "consent_collection",
    "currency",
    "custom_fields",
    "custom_text",
    "customer",
    "customer_creation",
    "customer_email",
    "customer_update",
    "discounts",
    "expires_at",
    "invoice_creation",
    "line_items",
    "locale",
    "metadata",
    "mode",
    "payment_intent_data",
    "payment_method_collection",
    "payment_method_configuration",
    "payment_method_options",
    "phone_number_collection",
    "return_url",
    "saved_payment_method_options",
    "setup_intent_data",
    "submit_type",
    "subscription_data",
    "success_url",
    "tax_id_collection",
    "ui_mode",
];

pub fn create(books: &mut Books, call: &Call) -> Result<Value> {
    let params = &call.params;
    // Gone since endive: https://docs.stripe.com/changelog/endive.
    let is_gone = call.version.name() >= "2026-09-30";
    let old = ["payment_method_types"];
    params.only(&[PARAMS, if is_gone { &[] } else { &old }].concat())?;
    let Some(mode) = params.word("mode", &["payment", "subscription", "setup"])? else {
        return Err(Refusal::missing("mode"));
    };
    params.word("ui_mode", &["hosted", "hosted_page"])?;
    let customer = params.owned("customer");
    if let Some(customer) = &customer {
        books.customer(customer, "customer")?;
        if params.has("customer_email") {
            let message = "You may only specify one of these parameters: customer, customer_email.";
            return Err(Refusal::invalid("customer_email", message));
        }
    }
    let now = customer
        .as_deref()
        .map_or(books.now, |customer| books.now_of(customer));
    let expires_at = params.int("expires_at")?.unwrap_or(now + DAY_S);
    if !(now + 30 * 60..=now + DAY_S + 60).contains(&expires_at) {
        let message = "The `expires_at` timestamp must be between 30 minutes and 24 hours from Checkout Session creation.";
        return Err(Refusal::invalid("expires_at", message));
    }
    let id = format!("cs_test_{}", fresh("", 58).trim_start_matches('_'));
    let session = Session {
        created: now,
        expires_at,
        mode,
        status: "open",
        payment_status: if mode == "setup" {
            "no_payment_required"
        } else {
            "unpaid"
        },
        customer_creation: customer.is_none().then_some(if mode == "payment" {
            "if_required"
        } else {
            "always"
        }),
        customer,
        customer_email: params.owned("customer_email"),
        client_reference_id: params.owned("client_reference_id"),
        success_url: Some(params.required("success_url")?.to_owned()),
        cancel_url: params.owned("cancel_url"),
        lines: lines(books, params, mode)?,
        allows_promotion_codes: params.flag("allow_promotion_codes")?.unwrap_or(false),
        discount: discount(books, params, now)?,
        always_asks_for_card: params
            .word("payment_method_collection", &["always", "if_required"])?
            != Some("if_required"),
        locale: params.owned("locale"),
        metadata: params.metadata(),
        onward: onward(params, mode)?,
        url: format!("{}/pay/{id}", books.origin),
        id,
        ..Session::default()
    };
    let shown = session.show(&call.version);
    books.sessions.put(session);
    Ok(shown)
}

fn lines(books: &mut Books, params: &Params, mode: &str) -> Result<Vec<SessionLine>> {
    let mut lines = vec![];
    for item in params.each("line_items") {
        item.only(&[
            "adjustable_quantity",
            "metadata",
            "price",
            "price_data",
            "quantity",
            "tax_rates",
        ])?;
        let price = if item.has("price_data") {
            made_up(books, &item.inside("price_data"))?
        } else {
            books
                .find::<Price>(item.required("price")?, &item.name("price"))?
                .clone()
        };
        if !price.is_active {
            let message = format!(
                "The price specified is inactive. This field only accepts active prices: {}.",
                price.id
            );
            return Err(Refusal::invalid(&item.name("price"), message));
        }
        if price.recurring.is_some() != (mode == "subscription") {
            let message = if mode == "subscription" {
                "The simulated Checkout takes recurring prices alone in `subscription` mode."
            } else {
                "You specified `payment` mode but passed a recurring price. Either switch to `subscription` mode or use only one-time prices."
            };
            return Err(Refusal::invalid(&item.name("price"), message));
        }
        let quantity = item
            .int("quantity")?
            .ok_or_else(|| Refusal::missing(&item.name("quantity")))?;
        if quantity < 1 {
            return Err(Refusal::invalid(
                &item.name("quantity"),
                "This value must be greater than or equal to 1.",
            ));
        }
        lines.push(SessionLine {
            id: fresh("li", 24),
            price,
            quantity,
        });
    }
    if lines.is_empty() && mode != "setup" {
        return Err(Refusal::missing("line_items"));
    }
    Ok(lines)
}

/// A price for this session alone.
fn made_up(books: &mut Books, data: &Params) -> Result<Price> {
    let product = match data.text("product") {
        Some(id) => books.find::<Product>(id, &data.name("product"))?.clone(),
        None => {
            let name = data.inside("product_data").required("name")?.to_owned();
            let product = Product {
                id: fresh("prod", 14),
                created: books.now,
                name,
                is_active: true,
                ..Product::default()
            };
            books.products.put(product.clone());
            product
        }
    };
    let recurring = data
        .has("recurring")
        .then(|| super::catalog::recurring(&data.inside("recurring")))
        .transpose()?;
    let price = Price {
        id: fresh("price", 24),
        created: books.now,
        product: product.id,
        product_name: product.name,
        currency: data.required("currency")?.to_lowercase(),
        amount_minor: data
            .int("unit_amount")?
            .ok_or_else(|| Refusal::missing(&data.name("unit_amount")))?,
        recurring,
        is_active: true,
        ..Price::default()
    };
    books.prices.put(price.clone());
    Ok(price)
}

/// A coupon or a promotion code that the application gives.
pub fn discount(books: &Books, params: &Params, now: i64) -> Result<Option<Discount>> {
    let Some(given) = params.each("discounts").into_iter().next() else {
        return Ok(None);
    };
    if params.flag("allow_promotion_codes")? == Some(true) {
        let message =
            "You may only specify one of these parameters: allow_promotion_codes, discounts.";
        return Err(Refusal::invalid("discounts", message));
    }
    if let Some(id) = given.text("promotion_code") {
        let code = books.find::<PromotionCode>(id, &given.name("promotion_code"))?;
        return Ok(Some(Discount::new(
            code.coupon.clone(),
            Some(code.id.clone()),
            now,
        )));
    }
    let coupon = given.required("coupon")?;
    Ok(Some(Discount::new(
        books.find::<Coupon>(coupon, &given.name("coupon"))?.clone(),
        None,
        now,
    )))
}

fn onward(params: &Params, mode: &str) -> Result<Onward> {
    let data = params.inside(match mode {
        "subscription" => "subscription_data",
        "payment" => "payment_intent_data",
        _ => "setup_intent_data",
    });
    let end = data.inside("trial_settings").inside("end_behavior");
    Ok(Onward {
        metadata: data.metadata(),
        description: data.owned("description"),
        trial_end: data.int("trial_end")?,
        trial_days: data.int("trial_period_days")?,
        without_card: end.word(
            "missing_payment_method",
            &["create_invoice", "cancel", "pause"],
        )?,
    })
}

pub fn retrieve(books: &mut Books, call: &Call) -> Result<Value> {
    Ok(books.find::<Session>(call.id(), "id")?.show(&call.version))
}

pub fn list(books: &mut Books, call: &Call) -> Result<Value> {
    let params = &call.params;
    params.only(&[
        "created",
        "customer",
        "customer_details",
        "ending_before",
        "limit",
        "payment_intent",
        "starting_after",
        "status",
        "subscription",
    ])?;
    let is = |param: &str, value: Option<&str>| {
        params
            .text(param)
            .is_none_or(|wanted| value == Some(wanted))
    };
    let holds = |session: &&Session| {
        is("customer", session.customer.as_deref())
            && is("subscription", session.subscription.as_deref())
            && is("payment_intent", session.payment.as_deref())
            && is("status", Some(session.status))
    };
    books.list(call, books.sessions.iter().filter(holds))
}

pub fn expire(books: &mut Books, call: &Call) -> Result<Value> {
    let session = books.find::<Session>(call.id(), "id")?;
    if session.status != "open" {
        let message = format!(
            "Only Checkout Sessions with a status in [\"open\"] can be expired. This Checkout Session has a status of `{}`.",
            session.status
        );
        return Err(Refusal::not_now(None, message));
    }
    let expired = books.change::<Session>(
        call.id(),
        "checkout.session.expired",
        books.now,
        |session| session.status = "expired",
    );
    Ok(expired.map_or(Value::Null, |session| session.show(&call.version)))
}

pub fn line_items(books: &mut Books, call: &Call) -> Result<Value> {
    let mut shown = books
        .find::<Session>(call.id(), "id")?
        .line_items(&call.version);
    super::super::state::take(&mut shown, &["total_count"]);
    Ok(shown)
}
