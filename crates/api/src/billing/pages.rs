//! Where browsers come back to from Stripe's pages. Coming here opens nothing: what was paid for is read
//! from Stripe.
use super::{checkout, reread};
use crate::{
    App, Result,
    auth::{link, session::Client},
    extract::Query,
    limit::Action,
    mail::Locale,
};
use axum::{extract::State, http::StatusCode, response::Response};
use minijinja::context;
use serde::Deserialize;
use url::Url;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(success))
        .routes(routes!(cancel))
}

#[derive(Deserialize, IntoParams)]
struct Visit {
    /// The checkout's id.
    #[serde(default)]
    session_id: String,
}

/// What the page says.
#[derive(Clone, Copy)]
enum Said {
    Paid,
    UnderWay,
    NotPaid,
}

/// The page for who has paid.
#[utoipa::path(get, path = "/subscriptions/success", tag = "billing", security(()), params(Visit),
    responses((status = 200, description = "A page", content_type = "text/html", body = String)))]
async fn success(
    State(app): State<App>,
    client: Client,
    Query(visit): Query<Visit>,
) -> Result<Response> {
    let said = look(&app, &visit.session_id).await?;
    page(&app, &client, said, Some(&visit.session_id))
}

/// The page for who has not.
#[utoipa::path(get, path = "/subscriptions/cancel", tag = "billing", security(()),
    responses((status = 200, description = "A page", content_type = "text/html", body = String)))]
async fn cancel(State(app): State<App>, client: Client) -> Result<Response> {
    page(&app, &client, Said::NotPaid, None)
}

/// How the checkout stands. Of one that is not known here, or cannot be read, nothing is known.
async fn look(app: &App, id: &str) -> Result<Said> {
    let known = checkout::known(app, id).await?;
    let (Some(api), Some(begun)) = (&app.stripe, known) else {
        return Ok(Said::UnderWay);
    };
    if !app.limits.admits(Action::BillingSync, &begun.id).await {
        return Ok(Said::UnderWay);
    }
    Ok(match reread::checkout(app, api, &begun.id).await {
        Ok(session) if session["status"] != "complete" => Said::NotPaid,
        Ok(session) if session["payment_status"] == "unpaid" => Said::UnderWay,
        Ok(_) => Said::Paid,
        // Its events will tell.
        Err(_) => Said::UnderWay,
    })
}

fn page(app: &App, client: &Client, said: Said, id: Option<&str>) -> Result<Response> {
    let locale = client.language.unwrap_or_default();
    let (title, text) = words(locale, said);
    let on = app.config.billing.billing_app_url.clone().map(|mut url| {
        let outcome = match said {
            Said::Paid => "paid",
            Said::UnderWay => "under_way",
            Said::NotPaid => "not_paid",
        };
        url.query_pairs_mut().append_pair("checkout", outcome);
        if let Some(id) = id.filter(|id| !id.is_empty()) {
            url.query_pairs_mut().append_pair("session_id", id);
        }
        url
    });
    let go_back = match locale {
        Locale::En => "Continue",
        Locale::De => "Weiter",
    };
    let back = on.as_ref().map(Url::as_str);
    let shown = context! { title, text, go_back, back };
    let target = on.clone().or_else(|| Url::parse(&app.public_url()).ok());
    let target = target.ok_or_else(|| anyhow::anyhow!("PUBLIC_URL is no URL"))?;
    link::page(client, StatusCode::OK, shown, &target)
}

fn words(locale: Locale, said: Said) -> (&'static str, &'static str) {
    match (locale, said) {
        (Locale::En, Said::Paid) => (
            "Thank you",
            "Your payment has arrived, and what you bought is open. You can close this page.",
        ),
        (Locale::En, Said::UnderWay) => (
            "Thank you",
            "As soon as your payment has arrived, what you bought opens by itself. You can close this page.",
        ),
        (Locale::En, Said::NotPaid) => (
            "Nothing was bought",
            "The payment was not finished, and nothing was charged. You can close this page, or go back and try again.",
        ),
        (Locale::De, Said::Paid) => (
            "Vielen Dank",
            "Ihre Zahlung ist eingegangen, und was Sie gekauft haben, ist freigeschaltet. Sie können diese Seite schließen.",
        ),
        (Locale::De, Said::UnderWay) => (
            "Vielen Dank",
            "Sobald Ihre Zahlung eingegangen ist, wird das Gekaufte von selbst freigeschaltet. Sie können diese Seite schließen.",
        ),
        (Locale::De, Said::NotPaid) => (
            "Nichts gekauft",
            "Die Zahlung wurde nicht abgeschlossen, und nichts wurde berechnet. Sie können diese Seite schließen oder es noch einmal versuchen.",
        ),
    }
}
