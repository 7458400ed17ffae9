//! `expand[]`: ids become what they name, <https://docs.stripe.com/api/expanding_objects>.

use serde_json::Value;

use super::books::Books;
use super::refusal::{Refusal, Result};
use super::state::{Charge, Customer, InvoicePayment, Payment, Session, Show, Subscription, Thing};
use super::version::Version;

/// As deep as Stripe goes.
const MAX_DEPTH: usize = 4;

pub fn all(books: &Books, shown: &mut Value, paths: &[String], version: &Version) -> Result<()> {
    for path in paths {
        let names: Vec<_> = path.split('.').collect();
        let depth = names.iter().filter(|name| **name != "data").count();
        if depth > MAX_DEPTH {
            let message =
                format!("You cannot expand more than {MAX_DEPTH} levels of a property ({path}).");
            return Err(Refusal::invalid("expand", message));
        }
        expand(books, shown, &names, version).map_err(|name| {
            let message = format!("This property cannot be expanded ({name}). You may want to try expanding something else.");
            Refusal::invalid("expand", message)
        })?;
    }
    Ok(())
}

/// The name that cannot be expanded, if one cannot.
fn expand(
    books: &Books,
    shown: &mut Value,
    names: &[&str],
    version: &Version,
) -> Result<(), String> {
    let Some((name, rest)) = names.split_first() else {
        return Ok(());
    };
    if let Value::Array(values) = shown {
        return values
            .iter_mut()
            .try_for_each(|value| expand(books, value, names, version));
    }
    if shown.get(*name).is_none_or(Value::is_null)
        && let Some(value) = included(books, shown, name, version)
    {
        shown[*name] = value;
    }
    let is_object = shown.is_object();
    match shown.get_mut(*name) {
        None if is_object => Err((*name).to_owned()),
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(id)) => {
            let Some(mut value) = named(books, id, version) else {
                return Err((*name).to_owned());
            };
            expand(books, &mut value, rest, version)?;
            shown[*name] = value;
            Ok(())
        }
        Some(Value::Array(values)) if rest.is_empty() => {
            for value in values {
                let named = value.as_str().and_then(|id| named(books, id, version));
                *value = named.unwrap_or_else(|| value.clone());
            }
            Ok(())
        }
        Some(value) => expand(books, value, rest, version),
    }
}

/// What an id names.
fn named(books: &Books, id: &str, version: &Version) -> Option<Value> {
    fn show<T: Thing>(books: &Books, id: &str, version: &Version) -> Option<Value> {
        books.get::<T>(id).map(|thing| thing.show(version))
    }
    use super::state as s;
    let kinds = [
        show::<Customer>,
        show::<Subscription>,
        show::<s::Invoice>,
        show::<Payment>,
        show::<s::Card>,
        show::<s::Price>,
        show::<s::Product>,
        show::<Session>,
        show::<s::PortalConfiguration>,
        show::<s::TestClock>,
        show::<s::Coupon>,
        show::<s::PromotionCode>,
    ];
    let found = kinds.iter().find_map(|show| show(books, id, version));
    found
        .or_else(|| charge(books, id, version))
        .or_else(|| discount(books, id, version))
}

fn charge(books: &Books, id: &str, version: &Version) -> Option<Value> {
    let payment = books
        .payments
        .iter()
        .find(|payment| payment.charge.as_deref() == Some(id))?;
    Some(
        Charge {
            id: id.to_owned(),
            payment: payment.clone(),
        }
        .show(version),
    )
}

fn discount(books: &Books, id: &str, version: &Version) -> Option<Value> {
    let of_subscriptions = books
        .subscriptions
        .iter()
        .filter_map(|subscription| subscription.discount.as_ref());
    let of_invoices = books
        .invoices
        .iter()
        .filter_map(|invoice| invoice.discount.as_ref());
    let found = of_subscriptions
        .chain(of_invoices)
        .find(|discount| discount.id == id);
    found.map(|discount| discount.show(version))
}

/// Parts that are left out unless they are asked for.
fn included(books: &Books, shown: &Value, name: &str, version: &Version) -> Option<Value> {
    let id = shown["id"].as_str().unwrap_or_default();
    match (shown["object"].as_str()?, name) {
        ("checkout.session", "line_items") => books
            .get::<Session>(id)
            .map(|session| session.line_items(version)),
        ("customer", "subscriptions") => {
            let of_customer = books.subscriptions.iter().filter(|subscription| {
                subscription.customer == id && !subscription.status.is_over()
            });
            let data: Vec<_> = of_customer
                .map(|subscription| subscription.show(version))
                .collect();
            Some(
                serde_json::json!({"object": "list", "data": data, "has_more": false, "url": format!("/v1/customers/{id}/subscriptions")}),
            )
        }
        ("invoice", "payments") if !version.is_old() => {
            let payments = books
                .invoice_payments
                .iter()
                .filter(|payment: &&InvoicePayment| payment.invoice == id);
            let data: Vec<_> = payments.map(|payment| payment.show(version)).collect();
            Some(
                serde_json::json!({"object": "list", "data": data, "has_more": false, "url": format!("/v1/invoices/{id}/payments")}),
            )
        }
        ("invoice", "confirmation_secret") if !version.is_old() => {
            let payment = books.get::<super::state::Invoice>(id)?.payment.as_ref()?;
            let shown = books.get::<Payment>(payment)?.show(version);
            Some(
                serde_json::json!({"client_secret": shown["client_secret"], "type": "payment_intent"}),
            )
        }
        _ => None,
    }
}
