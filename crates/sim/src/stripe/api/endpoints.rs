use serde_json::{Value, json};

use crate::dice::fresh;
use crate::stripe::books::{Books, Table};
use crate::stripe::call::Call;
use crate::stripe::params::Params;
use crate::stripe::refusal::{Refusal, Result};
use crate::stripe::state::{Endpoint, Show};
use crate::stripe::version::Version;

const PARAMS: &[&str] = &[
    "api_version",
    "connect",
    "description",
    "disabled",
    "enabled_events",
    "metadata",
    "url",
];

/// The only answer that has the secret.
pub fn create(books: &mut Books, call: &Call) -> Result<Value> {
    let params = &call.params;
    params.only(PARAMS)?;
    let version = params.owned("api_version");
    if let Some(name) = version.as_ref().filter(|name| !Version::is_known(name)) {
        return Err(Refusal::invalid(
            "api_version",
            format!("Invalid Stripe API version: {name}."),
        ));
    }
    if !params.has("enabled_events") {
        return Err(Refusal::missing("enabled_events"));
    }
    let mut endpoint = Endpoint {
        id: fresh("we", 24),
        created: books.now,
        url: params.required("url")?.to_owned(),
        secret: fresh("whsec", 32),
        events: vec![],
        is_enabled: true,
        version,
        description: None,
        metadata: Default::default(),
    };
    fill(&mut endpoint, params)?;
    let mut shown = endpoint.show(&call.version);
    shown["secret"] = endpoint.secret.as_str().into();
    books.endpoints.put(endpoint);
    Ok(shown)
}

fn fill(endpoint: &mut Endpoint, params: &Params) -> Result<()> {
    if let Some(url) = params.owned("url") {
        endpoint.url = url;
    }
    if !endpoint.url.starts_with("http://") && !endpoint.url.starts_with("https://") {
        return Err(Refusal::invalid(
            "url",
            "Invalid URL: An explicit scheme (such as https) must be provided.",
        ));
    }
    let events = params.texts("enabled_events");
    if !events.is_empty() {
        endpoint.events = events;
    }
    if params.has("description") {
        endpoint.description = params.owned("description");
    }
    endpoint.is_enabled = params
        .flag("disabled")?
        .map_or(endpoint.is_enabled, |disabled| !disabled);
    params.merge_metadata(&mut endpoint.metadata);
    Ok(())
}

pub fn retrieve(books: &mut Books, call: &Call) -> Result<Value> {
    Ok(books.find::<Endpoint>(call.id(), "id")?.show(&call.version))
}

pub fn update(books: &mut Books, call: &Call) -> Result<Value> {
    call.params.only(PARAMS)?;
    let mut endpoint = books.find::<Endpoint>(call.id(), "id")?.clone();
    fill(&mut endpoint, &call.params)?;
    let shown = endpoint.show(&call.version);
    books.edit::<Endpoint>(call.id(), |kept| *kept = endpoint);
    Ok(shown)
}

pub fn list(books: &mut Books, call: &Call) -> Result<Value> {
    call.params
        .only(&["ending_before", "limit", "starting_after"])?;
    books.list(call, books.endpoints.iter())
}

pub fn delete(books: &mut Books, call: &Call) -> Result<Value> {
    books.find::<Endpoint>(call.id(), "id")?;
    let mut left = Table::default();
    books
        .endpoints
        .iter()
        .filter(|endpoint| endpoint.id != call.id())
        .for_each(|endpoint| left.put(endpoint.clone()));
    books.endpoints = left;
    Ok(json!({"id": call.id(), "object": "webhook_endpoint", "deleted": true}))
}
