use super::stripe_of;
use crate::{
    App, Error, Result,
    extract::{Auth, Json, List, Page, Query, Time},
};
use axum::extract::State;
use db::Timestamp;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(invoices))
}

#[derive(Serialize, ToSchema)]
struct Invoice {
    id: String,
    /// As it stands on the document.
    number: Option<String>,
    /// Stripe's word: `paid`, `open`, `draft`, `void` or `uncollectible`.
    status: Option<String>,
    created_at: Time,
    /// In the currency's smallest unit.
    total_minor: i64,
    paid_minor: i64,
    due_minor: i64,
    /// ISO code.
    currency: String,
    /// A page of Stripe's that shows it, and takes what is due.
    url: Option<String>,
    pdf: Option<String>,
}

/// The user's invoices of purchases on the web, newest first.
#[utoipa::path(get, path = "/api/billing/invoices", tag = "billing", params(Page),
    responses((status = 200, body = List<Invoice>), (status = 503)))]
async fn invoices(
    State(app): State<App>,
    auth: Auth,
    Query(page): Query<Page>,
) -> Result<Json<List<Invoice>>> {
    let api = stripe_of(&app)?;
    let (limit, mode) = (
        page.limit()?,
        app.config.billing.mode(app.config.is_production()),
    );
    let customers = db::billing::customers_of_user(&app.db, auth.user).await?;
    let own = customers
        .into_iter()
        .filter(|c| c.provider == "stripe" && c.mode == mode);
    let own: Vec<_> = own.map(|customer| customer.external_id).collect();
    // One customer after another: more than one have those alone whose accounts were merged.
    let (mut n, mut after) = match page.text() {
        None => (0, None),
        Some(cursor) => {
            let parts = cursor.split_once('.');
            let place = parts.and_then(|(n, after)| Some((n.parse().ok()?, after)));
            let (n, after) = place
                .filter(|(n, _)| *n < own.len())
                .ok_or_else(|| Error::invalid("cursor", "has to be a next_cursor"))?;
            (n, Some(after.to_owned()).filter(|after| !after.is_empty()))
        }
    };
    let (mut data, mut next_cursor) = (vec![], None);
    while let Some(customer) = own.get(n) {
        let left = (limit as usize - data.len()).to_string();
        let query = [("customer", customer.as_str()), ("limit", &left)];
        let found = api.page("/v1/invoices", &query, after.as_deref()).await?;
        data.extend(found.data.iter().map(invoice));
        after = found.next;
        if after.is_none() {
            n += 1;
        }
        if data.len() >= limit as usize {
            let more = n < own.len();
            next_cursor = more.then(|| format!("{n}.{}", after.unwrap_or_default()));
            break;
        }
    }
    Ok(Json(List { data, next_cursor }))
}

fn invoice(invoice: &Value) -> Invoice {
    let text = |name: &str| invoice[name].as_str().map(ToOwned::to_owned);
    let number = |name: &str| invoice[name].as_i64().unwrap_or_default();
    Invoice {
        id: text("id").unwrap_or_default(),
        number: text("number"),
        status: text("status"),
        created_at: Timestamp::from_unix(number("created")).into(),
        total_minor: number("total"),
        paid_minor: number("amount_paid"),
        due_minor: number("amount_remaining"),
        currency: text("currency").unwrap_or_default().to_uppercase(),
        url: text("hosted_invoice_url"),
        pdf: text("invoice_pdf"),
    }
}
