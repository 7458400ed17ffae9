//! The routes under `/v1`, as Stripe's API reference names them: <https://docs.stripe.com/api>.

mod catalog;
mod checkout;
mod clocks;
mod customers;
mod disputes;
mod endpoints;
mod events;
mod invoices;
mod payments;
mod portal;
mod promotions;
mod subscriptions;

use axum::Router;

use super::account::Account;
use super::call::{delete, get, post};

pub fn routes(account: Account) -> Router {
    Router::new()
        .route(
            "/v1/customers",
            get(customers::list).merge(post(customers::create)),
        )
        .route("/v1/customers/search", get(customers::search))
        .route(
            "/v1/customers/{id}",
            get(customers::retrieve)
                .merge(post(customers::update))
                .merge(delete(customers::delete)),
        )
        .route("/v1/customers/{id}/payment_methods", get(payments::cards))
        .route("/v1/payment_methods/{id}", get(payments::card))
        .route("/v1/payment_methods/{id}/attach", post(payments::attach))
        .route(
            "/v1/products",
            get(catalog::products).merge(post(catalog::create_product)),
        )
        .route(
            "/v1/products/{id}",
            get(catalog::product).merge(post(catalog::update_product)),
        )
        .route(
            "/v1/prices",
            get(catalog::prices).merge(post(catalog::create_price)),
        )
        .route(
            "/v1/prices/{id}",
            get(catalog::price).merge(post(catalog::update_price)),
        )
        .route("/v1/coupons", post(promotions::create_coupon))
        .route(
            "/v1/promotion_codes",
            get(promotions::list).merge(post(promotions::create)),
        )
        .route(
            "/v1/checkout/sessions",
            get(checkout::list).merge(post(checkout::create)),
        )
        .route("/v1/checkout/sessions/{id}", get(checkout::retrieve))
        .route("/v1/checkout/sessions/{id}/expire", post(checkout::expire))
        .route(
            "/v1/checkout/sessions/{id}/line_items",
            get(checkout::line_items),
        )
        .route("/v1/billing_portal/sessions", post(portal::create))
        .route(
            "/v1/billing_portal/configurations",
            get(portal::configurations).merge(post(portal::create_configuration)),
        )
        .route(
            "/v1/billing_portal/configurations/{id}",
            get(portal::configuration).merge(post(portal::update_configuration)),
        )
        .route(
            "/v1/subscriptions",
            get(subscriptions::list).merge(post(subscriptions::create)),
        )
        .route(
            "/v1/subscriptions/{id}",
            get(subscriptions::retrieve)
                .merge(post(subscriptions::update))
                .merge(delete(subscriptions::cancel)),
        )
        .route("/v1/subscriptions/{id}/resume", post(subscriptions::resume))
        .route("/v1/subscriptions/{id}/pause", post(subscriptions::pause))
        .route("/v1/invoices", get(invoices::list))
        .route(
            "/v1/invoices/create_preview",
            post(invoices::create_preview),
        )
        .route("/v1/invoices/{id}", get(invoices::retrieve))
        .route("/v1/invoices/{id}/pay", post(invoices::pay))
        .route("/v1/invoice_payments", get(invoices::payments))
        .route("/v1/payment_intents/{id}", get(payments::retrieve))
        .route(
            "/v1/refunds",
            get(payments::refunds).merge(post(payments::refund)),
        )
        .route("/v1/refunds/{id}", get(payments::retrieve_refund))
        .route("/v1/disputes", get(disputes::list))
        .route(
            "/v1/disputes/{id}",
            get(disputes::retrieve).merge(post(disputes::update)),
        )
        .route("/v1/disputes/{id}/close", post(disputes::close))
        .route("/v1/events", get(events::list))
        .route("/v1/events/{id}", get(events::retrieve))
        .route(
            "/v1/webhook_endpoints",
            get(endpoints::list).merge(post(endpoints::create)),
        )
        .route(
            "/v1/webhook_endpoints/{id}",
            get(endpoints::retrieve)
                .merge(post(endpoints::update))
                .merge(delete(endpoints::delete)),
        )
        .route(
            "/v1/test_helpers/test_clocks",
            get(clocks::list).merge(post(clocks::create)),
        )
        .route("/v1/test_helpers/test_clocks/{id}", get(clocks::retrieve))
        .route(
            "/v1/test_helpers/test_clocks/{id}/advance",
            post(clocks::advance),
        )
        .with_state(account)
}
