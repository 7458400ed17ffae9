use super::{
    checkout::ours,
    customers,
    stripe_api::{Failure, Stripe},
    stripe_of, subscriptions,
};
use crate::{App, Error, Result, extract::Auth, extract::Json};
use anyhow::Context;
use axum::extract::{Request, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(portal))
}

#[derive(Default, Deserialize, ToSchema)]
struct Visit {
    /// Where the browser comes back to, on a site of yours.
    #[serde(default)]
    return_url: Option<String>,
    /// What it goes to do at once; without it, the portal shows everything.
    #[serde(default)]
    flow: Option<Flow>,
    /// Which subscription that is about.
    #[serde(default)]
    subscription: Option<String>,
}

/// Stripe's `flow_data[type]`.
#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Flow {
    PaymentMethodUpdate,
    SubscriptionCancel,
    SubscriptionUpdate,
}

#[derive(Serialize, ToSchema)]
struct Portal {
    /// Where to send the browser, within minutes.
    url: String,
}

/// Open Stripe's portal: invoices, cards, changing and ending subscriptions.
#[utoipa::path(post, path = "/api/billing/portal", tag = "billing", request_body = Option<Visit>,
    responses((status = 200, body = Portal), (status = 404), (status = 503)))]
async fn portal(State(app): State<App>, auth: Auth, request: Request) -> Result<Json<Portal>> {
    let visit: Visit = crate::extract::json_or_default(request, &app).await?;
    let api = stripe_of(&app)?;
    let back = visit.return_url.as_deref();
    let back = back
        .map(|back| ours(&app, "return_url", back))
        .transpose()?;
    let flow = visit.flow(&app, auth.user).await?;

    let url = url(&app, api, auth.user, back, &flow).await?;
    Ok(Json(Portal { url }))
}

impl Visit {
    async fn flow(&self, app: &App, user: Uuid) -> Result<Vec<(&'static str, String)>> {
        let (kind, field) = match self.flow {
            None => return Ok(vec![]),
            Some(Flow::PaymentMethodUpdate) => {
                return Ok(vec![("flow_data[type]", "payment_method_update".into())]);
            }
            Some(Flow::SubscriptionCancel) => (
                "subscription_cancel",
                "flow_data[subscription_cancel][subscription]",
            ),
            Some(Flow::SubscriptionUpdate) => (
                "subscription_update",
                "flow_data[subscription_update][subscription]",
            ),
        };
        let id = self.subscription.as_deref();
        let id =
            id.ok_or_else(|| Error::invalid("subscription", "has to be named for this flow"))?;
        let own = subscriptions::own(app, user, id).await?;
        Ok(vec![
            ("flow_data[type]", kind.into()),
            (field, own.external_id),
        ])
    }
}

/// A visit of the user's own customer.
pub async fn url(
    app: &App,
    api: &Stripe,
    user: Uuid,
    back: Option<String>,
    flow: &[(&'static str, String)],
) -> Result<String> {
    let customer = customers::of(app, api, user).await?;
    let mut fields = vec![("return_url", back.unwrap_or_else(|| app.public_url()))];
    if let Some(configuration) = &app.config.billing.stripe_portal_configuration {
        fields.push(("configuration", configuration.clone()));
    }
    fields.extend_from_slice(flow);
    let open = async |customer: &str| {
        let mut fields = fields.clone();
        fields.push(("customer", customer.to_owned()));
        let key = format!("portal:{}", Uuid::new_v4());
        api.post("/v1/billing_portal/sessions", &fields, &key).await
    };
    let session = match open(&customer).await {
        Err(Failure::Refused { code, param, .. })
            if code == "resource_missing" && param.as_deref() == Some("customer") =>
        {
            let other = customers::in_place_of(app, api, user, &customer).await?;
            open(&other).await?
        }
        session => session?,
    };
    let url = session["url"].as_str();
    Ok(url.context("a visit of the portal has a URL")?.to_owned())
}
