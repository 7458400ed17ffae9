use serde_json::{Value, json};

use crate::dice::fresh;
use crate::stripe::books::Books;
use crate::stripe::call::Call;
use crate::stripe::params::Params;
use crate::stripe::refusal::{Refusal, Result};
use crate::stripe::state::{PortalConfiguration, PortalSession, Show, Subscription};

const CONFIGURATION: &[&str] = &[
    "active",
    "business_profile",
    "default_return_url",
    "features",
    "login_page",
    "metadata",
    "name",
];

pub fn create(books: &mut Books, call: &Call) -> Result<Value> {
    let params = &call.params;
    params.only(&[
        "configuration",
        "customer",
        "flow_data",
        "locale",
        "on_behalf_of",
        "return_url",
    ])?;
    let customer = params.required("customer")?.to_owned();
    books.customer(&customer, "customer")?;
    let configuration = match params.text("configuration") {
        Some(id) => books.find::<PortalConfiguration>(id, "configuration")?,
        None => books
            .portal_configurations
            .iter()
            .find(|configuration| configuration.is_default)
            .ok_or_else(|| Refusal::missing("configuration"))?,
    };
    let id = fresh("bps", 24);
    let session = PortalSession {
        created: books.now,
        configuration: configuration.id.clone(),
        return_url: params
            .owned("return_url")
            .or_else(|| configuration.default_return_url.clone()),
        flow: flow(books, &params.inside("flow_data"), &customer)?,
        url: format!("{}/portal/{id}", books.origin),
        customer,
        id,
    };
    let shown = session.show(&call.version);
    books.portal_sessions.put(session);
    Ok(shown)
}

/// Straight to one thing, instead of the whole portal.
fn flow(books: &Books, data: &Params, customer: &str) -> Result<Value> {
    let kinds = [
        "payment_method_update",
        "subscription_cancel",
        "subscription_update",
        "subscription_update_confirm",
    ];
    let Some(kind) = data.word("type", &kinds)? else {
        return Ok(Value::Null);
    };
    let mut flow = json!({
        "type": kind,
        "after_completion": {"type": "portal_homepage", "hosted_confirmation": null, "redirect": null},
        "subscription_cancel": null,
        "subscription_update": null,
        "subscription_update_confirm": null,
    });
    if kind != "payment_method_update" {
        let within = data.inside(kind);
        let id = within.required("subscription")?;
        let own = books.find::<Subscription>(id, &within.name("subscription"))?;
        if own.customer != customer {
            return Err(Refusal::no_such(
                "subscription",
                id,
                &within.name("subscription"),
            ));
        }
        flow[kind] = within.json();
    }
    let after = data.inside("after_completion");
    if after.text("type") == Some("redirect") {
        flow["after_completion"] = json!({"type": "redirect", "hosted_confirmation": null, "redirect": after.inside("redirect").json()});
    }
    Ok(flow)
}

pub fn create_configuration(books: &mut Books, call: &Call) -> Result<Value> {
    call.params.only(CONFIGURATION)?;
    if !call.params.has("features") {
        return Err(Refusal::missing("features"));
    }
    let mut configuration = PortalConfiguration {
        id: fresh("bpc", 24),
        created: books.now,
        is_active: true,
        is_default: false,
        name: None,
        business_profile: json!({"headline": null, "privacy_policy_url": null, "terms_of_service_url": null}),
        default_return_url: None,
        features: PortalConfiguration::no_features(),
        metadata: Default::default(),
    };
    fill(&mut configuration, &call.params)?;
    let shown = configuration.show(&call.version);
    books.add(
        configuration,
        "billing_portal.configuration.created",
        books.now,
    );
    Ok(shown)
}

pub fn update_configuration(books: &mut Books, call: &Call) -> Result<Value> {
    call.params.only(CONFIGURATION)?;
    let mut configuration = books.find::<PortalConfiguration>(call.id(), "id")?.clone();
    fill(&mut configuration, &call.params)?;
    let shown = configuration.show(&call.version);
    books.change::<PortalConfiguration>(
        call.id(),
        "billing_portal.configuration.updated",
        books.now,
        |kept| *kept = configuration,
    );
    Ok(shown)
}

fn fill(configuration: &mut PortalConfiguration, params: &Params) -> Result<()> {
    configuration.is_active = params.flag("active")?.unwrap_or(configuration.is_active);
    if params.has("default_return_url") {
        configuration.default_return_url = params.owned("default_return_url");
    }
    if params.has("name") {
        configuration.name = params.owned("name");
    }
    over(
        &mut configuration.business_profile,
        params.inside("business_profile").json(),
    );
    over(
        &mut configuration.features,
        params.inside("features").json(),
    );
    params.merge_metadata(&mut configuration.metadata);
    Ok(())
}

/// What is given over what is there.
fn over(kept: &mut Value, given: Value) {
    match (kept, given) {
        (Value::Object(kept), Value::Object(given)) => {
            for (name, value) in given {
                over(kept.entry(name).or_insert(Value::Null), value);
            }
        }
        (kept, given) => *kept = given,
    }
}

pub fn configuration(books: &mut Books, call: &Call) -> Result<Value> {
    Ok(books
        .find::<PortalConfiguration>(call.id(), "id")?
        .show(&call.version))
}

pub fn configurations(books: &mut Books, call: &Call) -> Result<Value> {
    call.params.only(&[
        "active",
        "ending_before",
        "is_default",
        "limit",
        "starting_after",
    ])?;
    let (active, default) = (call.params.flag("active")?, call.params.flag("is_default")?);
    let holds = |configuration: &&PortalConfiguration| {
        active.is_none_or(|active| configuration.is_active == active)
            && default.is_none_or(|default| configuration.is_default == default)
    };
    books.list(call, books.portal_configurations.iter().filter(holds))
}
