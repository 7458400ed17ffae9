use serde_json::Value;

use crate::dice::fresh;
use crate::stripe::books::Books;
use crate::stripe::call::Call;
use crate::stripe::params::Params;
use crate::stripe::refusal::{Refusal, Result};
use crate::stripe::state::catalog::Recurring;
use crate::stripe::state::{Price, Product, Show};

const PRODUCT: &[&str] = &[
    "active",
    "default_price",
    "default_price_data",
    "description",
    "id",
    "images",
    "marketing_features",
    "metadata",
    "name",
    "shippable",
    "statement_descriptor",
    "tax_code",
    "unit_label",
    "url",
];
const PRICE: &[&str] = &[
    "active",
    "billing_scheme",
    "currency",
    "lookup_key",
    "metadata",
    "nickname",
    "product",
    "product_data",
    "recurring",
    "tax_behavior",
    "transfer_lookup_key",
    "unit_amount",
    "unit_amount_decimal",
];

pub fn create_product(books: &mut Books, call: &Call) -> Result<Value> {
    call.params.only(PRODUCT)?;
    let id = call.params.owned("id").unwrap_or_else(|| fresh("prod", 14));
    if books.get::<Product>(&id).is_some() {
        return Err(Refusal::not_now(
            Some("resource_already_exists"),
            format!("Product already exists: {id}"),
        ));
    }
    let product = new_product(id, &call.params, books.now)?;
    let shown = product.show(&call.version);
    books.add(product, "product.created", books.now);
    Ok(shown)
}

fn new_product(id: String, params: &Params, now: i64) -> Result<Product> {
    let name = params.required("name")?.to_owned();
    let mut product = Product {
        id,
        created: now,
        name,
        is_active: true,
        ..Product::default()
    };
    fill_product(&mut product, params)?;
    Ok(product)
}

pub fn product(books: &mut Books, call: &Call) -> Result<Value> {
    Ok(books.find::<Product>(call.id(), "id")?.show(&call.version))
}

pub fn update_product(books: &mut Books, call: &Call) -> Result<Value> {
    call.params.only(PRODUCT)?;
    let mut product = books.find::<Product>(call.id(), "id")?.clone();
    fill_product(&mut product, &call.params)?;
    let shown = product.show(&call.version);
    books.change::<Product>(call.id(), "product.updated", books.now, |kept| {
        *kept = product
    });
    Ok(shown)
}

fn fill_product(product: &mut Product, params: &Params) -> Result<()> {
    if let Some(name) = params.owned("name") {
        product.name = name;
    }
    if params.has("description") {
        product.description = params.owned("description");
    }
    if params.has("default_price") {
        product.default_price = params.owned("default_price");
    }
    product.is_active = params.flag("active")?.unwrap_or(product.is_active);
    params.merge_metadata(&mut product.metadata);
    Ok(())
}

pub fn products(books: &mut Books, call: &Call) -> Result<Value> {
    call.params.only(&[
        "active",
        "created",
        "ending_before",
        "ids",
        "limit",
        "starting_after",
    ])?;
    let (active, ids) = (call.params.flag("active")?, call.params.texts("ids"));
    let holds = |product: &&Product| {
        active.is_none_or(|active| product.is_active == active)
            && (ids.is_empty() || ids.contains(&product.id))
    };
    books.list(call, books.products.iter().filter(holds))
}

pub fn create_price(books: &mut Books, call: &Call) -> Result<Value> {
    let params = &call.params;
    params.only(PRICE)?;
    let currency = params.required("currency")?.to_lowercase();
    let Some(amount_minor) = params.int("unit_amount")? else {
        return Err(Refusal::missing("unit_amount"));
    };
    let recurring = if params.has("recurring") {
        Some(recurring(&params.inside("recurring"))?)
    } else {
        None
    };
    let product = match params.text("product") {
        Some(id) => books.find::<Product>(id, "product")?.clone(),
        None if params.has("product_data") => {
            new_product(fresh("prod", 14), &params.inside("product_data"), books.now)?
        }
        None => return Err(Refusal::missing("product")),
    };
    let lookup_key = params.owned("lookup_key");
    free_lookup_key(
        books,
        lookup_key.as_deref(),
        "",
        params.flag("transfer_lookup_key")?,
    )?;

    if books.get::<Product>(&product.id).is_none() {
        books.add(product.clone(), "product.created", books.now);
    }
    let price = Price {
        id: fresh("price", 24),
        created: books.now,
        product: product.id,
        product_name: product.name,
        currency,
        amount_minor,
        recurring,
        lookup_key,
        nickname: params.owned("nickname"),
        is_active: params.flag("active")?.unwrap_or(true),
        livemode: false,
        metadata: params.metadata(),
    };
    let shown = price.show(&call.version);
    books.add(price, "price.created", books.now);
    Ok(shown)
}

pub fn recurring(params: &Params) -> Result<Recurring> {
    let Some(interval) = params.word("interval", Recurring::INTERVALS)? else {
        return Err(Refusal::missing(&params.name("interval")));
    };
    let count = params.int("interval_count")?.unwrap_or(1);
    let count = u32::try_from(count)
        .ok()
        .filter(|count| (1..=1095).contains(count));
    let Some(count) = count else {
        return Err(Refusal::invalid(
            &params.name("interval_count"),
            "The interval count must be between 1 and 3 years.",
        ));
    };
    Ok(Recurring {
        interval,
        count,
        trial_days: params.int("trial_period_days")?,
    })
}

/// A lookup key is one price's; it moves only if that is asked for.
fn free_lookup_key(
    books: &mut Books,
    key: Option<&str>,
    own: &str,
    transfers: Option<bool>,
) -> Result<()> {
    let Some(key) = key else { return Ok(()) };
    let taken = books
        .prices
        .iter()
        .find(|price| price.lookup_key.as_deref() == Some(key) && price.id != own);
    let Some(taken) = taken.map(|price| price.id.clone()) else {
        return Ok(());
    };
    if transfers != Some(true) {
        let message = format!("A price (`{taken}`) already uses that lookup key.");
        return Err(Refusal::invalid("lookup_key", message));
    }
    books.change::<Price>(&taken, "price.updated", books.now, |price| {
        price.lookup_key = None
    });
    Ok(())
}

pub fn price(books: &mut Books, call: &Call) -> Result<Value> {
    Ok(books.find::<Price>(call.id(), "id")?.show(&call.version))
}

pub fn update_price(books: &mut Books, call: &Call) -> Result<Value> {
    let params = &call.params;
    params.only(&[
        "active",
        "lookup_key",
        "metadata",
        "nickname",
        "tax_behavior",
        "transfer_lookup_key",
    ])?;
    let mut price = books.find::<Price>(call.id(), "id")?.clone();
    if params.has("lookup_key") {
        price.lookup_key = params.owned("lookup_key");
        free_lookup_key(
            books,
            price.lookup_key.as_deref(),
            &price.id,
            params.flag("transfer_lookup_key")?,
        )?;
    }
    if params.has("nickname") {
        price.nickname = params.owned("nickname");
    }
    price.is_active = params.flag("active")?.unwrap_or(price.is_active);
    params.merge_metadata(&mut price.metadata);
    let shown = price.show(&call.version);
    books.change::<Price>(call.id(), "price.updated", books.now, |kept| *kept = price);
    Ok(shown)
}

pub fn prices(books: &mut Books, call: &Call) -> Result<Value> {
    let params = &call.params;
    params.only(&[
        "active",
        "created",
        "currency",
        "ending_before",
        "limit",
        "lookup_keys",
        "product",
        "recurring",
        "starting_after",
        "type",
    ])?;
    let (active, keys, product) = (
        params.flag("active")?,
        params.texts("lookup_keys"),
        params.text("product"),
    );
    let (kind, currency) = (
        params.word("type", &["recurring", "one_time"])?,
        params.text("currency"),
    );
    let holds = |price: &&Price| {
        active.is_none_or(|active| price.is_active == active)
            && (keys.is_empty()
                || price
                    .lookup_key
                    .as_ref()
                    .is_some_and(|key| keys.contains(key)))
            && product.is_none_or(|product| price.product == product)
            && currency.is_none_or(|currency| price.currency == currency)
            && kind.is_none_or(|kind| (kind == "recurring") == price.recurring.is_some())
    };
    books.list(call, books.prices.iter().filter(holds))
}
