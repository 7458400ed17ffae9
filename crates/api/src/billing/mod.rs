//! Subscriptions of the web (Stripe) and of phones (RevenueCat), and the one truth of what they open.
use crate::{
    App, Error, Result,
    config::{Problem, Secret},
    http::is_loopback,
};
use stripe_api::Stripe;
use utoipa_axum::router::OpenApiRouter;

mod admin;
pub mod apply;
mod begun;
pub mod checkout;
mod compare;
mod customers;
mod drift;
pub mod endings;
pub mod entitlements;
pub mod inbox;
mod invoices;
pub mod notices;
pub mod offers;
mod overview;
mod pages;
pub mod phones;
pub mod plans;
pub mod poll;
mod portal;
pub mod reconcile;
mod reduce;
mod reread;
pub mod revenuecat;
pub mod revenuecat_api;
pub mod setup;
pub mod stripe;
pub mod stripe_api;
mod subscriptions;
mod sync;
#[cfg(test)]
mod tests;
pub mod webhook;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(webhook::routes())
        .merge(inbox::routes())
        .merge(overview::routes())
        .merge(checkout::routes())
        .merge(portal::routes())
        .merge(subscriptions::routes())
        .merge(invoices::routes())
        .merge(sync::routes())
        .merge(pages::routes())
        .merge(compare::routes())
        .merge(admin::routes())
}

/// What signs events in development, where nothing is configured.
pub const DEVELOPMENT_STRIPE_SECRET: &str = "whsec_development_only";
pub const DEVELOPMENT_REVENUECAT_SECRET: &str = "development_only";
/// The key of the simulated Stripe.
pub const DEVELOPMENT_STRIPE_KEY: &str = "sk_test_simulated";
/// The key of the simulated RevenueCat.
pub const DEVELOPMENT_REVENUECAT_KEY: &str = "sk_simulated";

/// Subscriptions.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Subscriptions")]
pub struct Config {
    /// The key of the Stripe account; tells whether its events are live or test.
    #[arg(long)]
    pub stripe_secret_key: Option<Secret>,

    /// Where Stripe's API is.
    #[arg(long, default_value = "https://api.stripe.com")]
    pub stripe_api_base: url::Url,

    /// Where a browser comes back to after it has paid; `{CHECKOUT_SESSION_ID}` in it becomes the checkout's id. Default: the page /subscriptions/success.
    #[arg(long)]
    pub stripe_success_url: Option<url::Url>,

    /// Where it comes back to when it has not. Default: the page /subscriptions/cancel.
    #[arg(long)]
    pub stripe_cancel_url: Option<url::Url>,

    /// What customers may do in Stripe's portal: `bpc_…`, as `plinth billing setup-stripe` prints it. Default: the one of the account.
    #[arg(long)]
    pub stripe_portal_configuration: Option<String>,

    /// Where the pages /subscriptions/success and /subscriptions/cancel lead on to, for example into your app: myapp://subscriptions. Unset, they lead nowhere.
    #[arg(long)]
    pub billing_app_url: Option<url::Url>,

    /// Signs Stripe's events. A comma list rotates: any of them is accepted. Development has one of its own.
    #[arg(long, value_delimiter = ',')]
    pub stripe_webhook_secret: Vec<Secret>,

    /// The price that buys the plan `standard`.
    #[arg(long, default_value = "price_standard")]
    pub stripe_price_standard: Option<String>,

    /// The price that buys the plan `pro`.
    #[arg(long, default_value = "price_pro")]
    pub stripe_price_pro: Option<String>,

    /// What RevenueCat sends as Authorization, with or without `Bearer`. A comma list rotates. Development has one of its own.
    #[arg(long, value_delimiter = ',')]
    pub revenuecat_webhook_secret: Vec<Secret>,

    /// Signs RevenueCat's events, when signing is on there. A comma list rotates.
    #[arg(long, value_delimiter = ',')]
    pub revenuecat_signing_secret: Vec<Secret>,

    /// The RevenueCat entitlement of the plan `standard`.
    #[arg(long, default_value = "standard_access")]
    pub revenuecat_entitlement_standard: Option<String>,

    /// The RevenueCat entitlement of the plan `pro`.
    #[arg(long, default_value = "pro_access")]
    pub revenuecat_entitlement_pro: Option<String>,

    /// A secret key of RevenueCat's API (v1). With it, each event is followed by a look at what its customers hold; without it, events alone count.
    #[arg(long)]
    pub revenuecat_api_key: Option<Secret>,

    /// Where RevenueCat's API is.
    #[arg(long, default_value = "https://api.revenuecat.com")]
    pub revenuecat_api_base: url::Url,

    /// What is sold and what it opens: a file like plans.toml. Default: the plans.toml that it was built with.
    #[arg(long)]
    pub plans_file: Option<std::path::PathBuf>,

    /// Seconds for which access goes on while a renewal is unpaid, from when its payment first failed.
    #[arg(long, value_parser = crate::config::some_seconds, default_value = "604800")]
    pub billing_grace: std::time::Duration,

    /// Whether access ends when all of what was paid for the latest period is refunded.
    #[arg(long, action = clap::ArgAction::Set, value_parser = clap::builder::BoolishValueParser::new(), default_value = "true")]
    pub billing_revoke_refunded: bool,

    /// Whether access ends while a customer's bank asks for the money back, and after it took it.
    #[arg(long, action = clap::ArgAction::Set, value_parser = clap::builder::BoolishValueParser::new(), default_value = "true")]
    pub billing_suspend_disputed: bool,
}

impl Config {
    pub fn check(
        &self,
        production: bool,
        problems: &mut Vec<Problem>,
        warnings: &mut Vec<Problem>,
    ) {
        if !stripe_api::may_be_asked(&self.stripe_api_base) {
            problems.push(Problem::new(
                "STRIPE_API_BASE",
                "is not https",
                "The key would cross the network in the clear; write https://….",
            ));
        }
        if !stripe_api::may_be_asked(&self.revenuecat_api_base) {
            problems.push(Problem::new(
                "REVENUECAT_API_BASE",
                "is not https",
                "The key would cross the network in the clear; write https://….",
            ));
        }
        if !production {
            return;
        }
        let simulated = self.revenuecat_api_key.as_ref().map(Secret::expose);
        let is_simulated = simulated == Some(DEVELOPMENT_REVENUECAT_KEY);
        if is_simulated || simulated.is_some() && is_loopback(&self.revenuecat_api_base) {
            problems.push(Problem::new(
                "REVENUECAT_API_BASE",
                "is a simulated RevenueCat: nothing that it sells is paid for",
                "Unset it, and set REVENUECAT_API_KEY to a key of your project.",
            ));
        }
        let simulated = self.stripe_secret_key.as_ref().map(Secret::expose);
        if is_loopback(&self.stripe_api_base) || simulated == Some(DEVELOPMENT_STRIPE_KEY) {
            problems.push(Problem::new(
                "STRIPE_API_BASE",
                "is a simulated Stripe: nothing that it sells is paid for",
                "Unset it, and set STRIPE_SECRET_KEY to the key of your account.",
            ));
        }
        let lists = [
            ("STRIPE_WEBHOOK_SECRET", &self.stripe_webhook_secret),
            ("REVENUECAT_WEBHOOK_SECRET", &self.revenuecat_webhook_secret),
            ("REVENUECAT_SIGNING_SECRET", &self.revenuecat_signing_secret),
        ];
        for (variable, secrets) in lists {
            for secret in secrets.iter().map(Secret::expose) {
                if [DEVELOPMENT_STRIPE_SECRET, DEVELOPMENT_REVENUECAT_SECRET].contains(&secret) {
                    problems.push(Problem::new(
                        variable,
                        "is the development secret, which everyone knows",
                        "Copy the one of your provider's dashboard.",
                    ));
                } else if secret.len() < 16 {
                    problems.push(Problem::new(variable, "is too short to be secret", "Copy the one of your provider's dashboard, or make one with `openssl rand -hex 32`."));
                }
            }
        }
        if self.stripe_secret_key.is_some() && self.stripe_webhook_secret.is_empty() {
            problems.push(Problem::new(
                "STRIPE_WEBHOOK_SECRET",
                "is not set, though STRIPE_SECRET_KEY is: nothing that is sold would ever open",
                "Copy the signing secret of the endpoint PUBLIC_URL/webhooks/stripe.",
            ));
        }
        if self
            .stripe_secret_key
            .as_ref()
            .is_some_and(|key| key.expose().contains("_test_"))
        {
            warnings.push(Problem::new(
                "STRIPE_SECRET_KEY",
                "is a test key in production: real payments are ignored",
                "Use the live key once you sell.",
            ));
        }
    }

    /// Whether live events are ours, or test events are.
    pub fn is_live(&self, production: bool) -> bool {
        match &self.stripe_secret_key {
            Some(key) => key.expose().contains("_live_"),
            None => production,
        }
    }

    /// The same in a word.
    pub fn mode(&self, production: bool) -> &'static str {
        match self.is_live(production) {
            true => "live",
            false => "test",
        }
    }

    /// Whether Stripe tells by itself what it sells.
    pub fn takes_stripe(&self) -> bool {
        !self.stripe_webhook_secret.is_empty()
    }

    /// Whether the Stripe that is asked is the simulated one.
    fn sells_simulated(&self) -> bool {
        let key = self.stripe_secret_key.as_ref().map(Secret::expose);
        key == Some(DEVELOPMENT_STRIPE_KEY)
    }

    fn policy(&self) -> reduce::Policy {
        reduce::Policy {
            grace: self.billing_grace,
            revokes_refunded: self.billing_revoke_refunded,
            suspends_disputed: self.billing_suspend_disputed,
        }
    }

    pub fn takes_revenuecat(&self) -> bool {
        !self.revenuecat_webhook_secret.is_empty() || !self.revenuecat_signing_secret.is_empty()
    }
}

/// Stripe, where something is sold on the web.
pub fn stripe_of(app: &App) -> Result<&Stripe> {
    app.stripe.as_ref().ok_or(Error::BillingNotConfigured)
}

/// Where somebody ends what a store charges them for.
pub fn manage_url(store: &str) -> Option<&'static str> {
    Some(match store {
        "app_store" | "mac_app_store" => "https://apps.apple.com/account/subscriptions",
        "play_store" => "https://play.google.com/store/account/subscriptions",
        "amazon" => "https://www.amazon.com/yourmembershipsandsubscriptions",
        "roku" => "https://my.roku.com/subscriptions",
        _ => return None,
    })
}
