//! `plans.toml`, with the ids that the environment fills in.
use super::Config;
use crate::chat;
use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use utoipa::ToSchema;

/// What one plan opens.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Also the name of its entitlement.
    pub name: String,
    pub title: String,
    /// Messages a period; 0 is no limit.
    pub messages: u32,
    /// Tokens a period; 0 is no limit.
    pub tokens: u32,
    /// Micro-dollars a period; 0 is no limit.
    #[serde(default)]
    pub cost: u32,
    pub models: Vec<String>,
    /// Models that turn texts into vectors.
    #[serde(default)]
    pub embeddings: Vec<String>,
    /// The ways to buy it, the usual one first.
    #[serde(default, rename = "price")]
    pub offers: Vec<Offer>,
    /// Days that who never subscribed before has for nothing; 0 is none.
    #[serde(default)]
    pub trial_days: u32,
    /// Products of the app stores that open it where RevenueCat names no entitlement.
    #[serde(default)]
    products: Vec<String>,
    /// Limits on single models besides.
    #[serde(default)]
    limit: HashMap<String, Limits>,
}

/// One way to buy a plan: a price at Stripe.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// Stripe's `lookup_key` of the price, by which it is found where its id is not known.
    pub lookup: String,
    pub title: String,
    pub amount_minor: u32,
    /// ISO code in lower case, as Stripe writes it.
    pub currency: String,
    /// How often it is paid; absent, once and for ever.
    pub interval: Option<Interval>,
    /// `price_…`, where the environment names it.
    #[serde(skip)]
    pub id: Option<String>,
}

/// Stripe's `recurring.interval`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Interval {
    Month,
    Year,
}

/// What may be used in a period; 0 is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    pub messages: u32,
    pub tokens: u32,
    /// Micro-dollars.
    pub cost: u32,
}

impl Plan {
    /// On everything together.
    pub fn limits(&self) -> Limits {
        Limits {
            messages: self.messages,
            tokens: self.tokens,
            cost: self.cost,
        }
    }

    /// On this model besides, if it is limited.
    pub fn limits_of(&self, model: &str) -> Option<Limits> {
        self.limit.get(model).copied()
    }

    /// The models that are limited besides.
    pub fn limited(&self) -> impl Iterator<Item = &str> {
        self.limit.keys().map(String::as_str)
    }
}

/// What a model costs, in micro-dollars for a million tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    pub input: u32,
    /// Of input that the provider had at hand; absent, as any other.
    cached: Option<u32>,
    pub output: u32,
    /// Tokens that question and answer may have together.
    #[serde(default = "usual_window")]
    pub window: u32,
}

fn usual_window() -> u32 {
    128_000
}

impl Price {
    pub fn cached(self) -> u32 {
        self.cached.unwrap_or(self.input)
    }
}

/// What a consumable product of an app store is worth.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credit {
    product: String,
    pub currency: String,
    pub amount: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    plan: Vec<Plan>,
    #[serde(default)]
    credit: Vec<Credit>,
    model: HashMap<String, Price>,
}

/// Everything that is sold.
pub struct Plans {
    plans: Vec<Plan>,
    credits: Vec<Credit>,
    prices: HashMap<String, Price>,
    /// Stripe price, or its lookup key → plan.
    by_price: HashMap<String, String>,
    /// RevenueCat entitlement → plan.
    by_entitlement: HashMap<String, String>,
    /// The simulated models may be asked for by name.
    simulated_models: bool,
}

impl Plans {
    /// The default model is part of every plan: whoever may ask at all may ask it.
    pub fn load(config: &Config, chat: &chat::Config) -> anyhow::Result<Self> {
        let own = config.plans_file.as_deref().map(|path| {
            let text = std::fs::read_to_string(path);
            text.with_context(|| format!("cannot read PLANS_FILE {}", path.display()))
        });
        let own = own.transpose()?;
        let text = own.as_deref().unwrap_or(include_str!("../../plans.toml"));
        let mut file: File = toml::from_str(text)?;
        ensure!(!file.plan.is_empty(), "there has to be a plan for everyone");
        for (model, price) in &file.model {
            ensure!(
                price.cached() <= price.input,
                "cached input of {model} costs more than other input"
            );
        }
        for plan in &file.plan {
            let models = plan.models.iter().chain(&plan.embeddings);
            for model in models.chain(plan.limit.keys()) {
                file.model
                    .get(model)
                    .with_context(|| format!("{model} of the plan {} has no price", plan.name))?;
            }
        }
        for plan in &mut file.plan {
            if !plan.models.contains(&chat.llm_model) {
                plan.models.push(chat.llm_model.clone());
            }
        }
        let ids = [
            (&config.stripe_price_standard, "standard"),
            (&config.stripe_price_pro, "pro"),
        ];
        for (id, name) in ids {
            let plan = file.plan.iter_mut().find(|plan| plan.name == name);
            if let Some(offer) = plan.and_then(|plan| plan.offers.first_mut()) {
                offer.id.clone_from(id);
            }
        }
        let mut lookups = HashSet::new();
        let offers = file.plan.iter().flat_map(|plan| &plan.offers);
        for Offer {
            lookup, currency, ..
        } in offers
        {
            ensure!(lookups.insert(lookup), "the price {lookup} is there twice");
            ensure!(
                currency.len() == 3 && currency.bytes().all(|b| b.is_ascii_lowercase()),
                "the price {lookup} has no currency of three small letters"
            );
        }
        let mut by_price = known(ids);
        for plan in &file.plan {
            let lookups = plan.offers.iter().map(|offer| &offer.lookup);
            by_price.extend(lookups.map(|lookup| (lookup.clone(), plan.name.clone())));
        }
        Ok(Self {
            by_price,
            by_entitlement: known([
                (&config.revenuecat_entitlement_standard, "standard"),
                (&config.revenuecat_entitlement_pro, "pro"),
            ]),
            plans: file.plan,
            credits: file.credit,
            prices: file.model,
            simulated_models: chat.allows_simulated_models(),
        })
    }

    pub fn iter(&self) -> impl Iterator<Item = &Plan> {
        self.plans.iter()
    }

    /// What everyone has.
    pub fn everyones(&self) -> &Plan {
        &self.plans[0]
    }

    /// The best plan among these entitlements.
    pub fn best<'a>(&self, entitlements: impl Iterator<Item = &'a str> + Clone) -> &Plan {
        let held = |plan: &&Plan| {
            entitlements
                .clone()
                .any(|entitlement| entitlement == plan.name)
        };
        self.plans
            .iter()
            .rev()
            .find(held)
            .unwrap_or(self.everyones())
    }

    /// The best plan among these entitlements, if one of them is a plan.
    pub fn best_of<'a>(
        &self,
        entitlements: impl Iterator<Item = &'a str> + Clone,
    ) -> Option<String> {
        let held = |plan: &&Plan| entitlements.clone().any(|name| name == plan.name);
        self.plans
            .iter()
            .rev()
            .find(held)
            .map(|plan| plan.name.clone())
    }

    /// What a consumable product of an app store is worth.
    pub fn credit(&self, product: &str) -> Option<&Credit> {
        self.credits.iter().find(|credit| credit.product == product)
    }

    /// The plan that a Stripe price buys, by its id or its lookup key.
    pub fn of_price(&self, price: &str) -> Option<&str> {
        self.by_price.get(price).map(String::as_str)
    }

    /// What may be bought under this name, and nothing else may: a plan, which is its first price, or a
    /// price by its id or lookup key.
    pub fn offer(&self, name: &str) -> Option<(&Plan, &Offer)> {
        let named = |offer: &Offer| offer.lookup == name || offer.id.as_deref() == Some(name);
        self.plans.iter().find_map(|plan| {
            let offer = match plan.name == name {
                true => plan.offers.first(),
                false => plan.offers.iter().find(|offer| named(offer)),
            };
            Some((plan, offer?))
        })
    }

    /// The plan of this name.
    pub fn by_name(&self, name: &str) -> Option<&Plan> {
        self.plans.iter().find(|plan| plan.name == name)
    }

    /// The plan that a product of an app store opens. Google Play names the base plan too:
    /// `pro_monthly:base`.
    pub fn of_product(&self, product: &str) -> Option<&str> {
        let sold = |name: &str| {
            let sells = |plan: &&Plan| plan.products.iter().any(|product| product == name);
            self.plans.iter().find(sells)
        };
        let subscription = || sold(product.split_once(':')?.0);
        sold(product)
            .or_else(subscription)
            .map(|plan| plan.name.as_str())
    }

    /// Our name for a RevenueCat entitlement; one that is no plan keeps its own.
    pub fn of_revenuecat(&self, entitlement: &str) -> String {
        self.by_entitlement
            .get(entitlement)
            .cloned()
            .unwrap_or_else(|| entitlement.to_owned())
    }

    /// Whether the plan may use the model, and whether anyone may.
    pub fn allows(&self, plan: &Plan, model: &str) -> ModelAccess {
        self.access(&plan.models, |plan| &plan.models, model)
    }

    /// The same of models that turn texts into vectors.
    pub fn allows_embedding(&self, plan: &Plan, model: &str) -> ModelAccess {
        self.access(&plan.embeddings, |plan| &plan.embeddings, model)
    }

    fn access(
        &self,
        own: &[String],
        of: impl Fn(&Plan) -> &Vec<String>,
        model: &str,
    ) -> ModelAccess {
        let simulated = self.simulated_models && model.starts_with("sim");
        let known = || {
            self.plans
                .iter()
                .any(|plan| of(plan).iter().any(|m| m == model))
        };
        if simulated || own.iter().any(|allowed| allowed == model) {
            ModelAccess::Allowed
        } else if known() {
            ModelAccess::NotInPlan
        } else {
            ModelAccess::Unknown
        }
    }

    pub fn has_price(&self, model: &str) -> bool {
        self.prices.contains_key(model)
    }

    /// Tokens that a model takes in and gives at most.
    pub fn window(&self, model: &str) -> i64 {
        let known = self.prices.get(model).map(|price| price.window);
        known.unwrap_or_else(usual_window).into()
    }

    /// What every model costs that is known here; a simulated one costs nothing.
    pub fn prices(&self) -> impl Iterator<Item = (&str, Price)> {
        self.prices
            .iter()
            .map(|(model, price)| (model.as_str(), *price))
    }
}

/// Those that are configured.
fn known(pairs: [(&Option<String>, &str); 2]) -> HashMap<String, String> {
    let known = |(id, plan): (&Option<String>, &str)| Some((id.clone()?, plan.to_owned()));
    pairs.into_iter().filter_map(known).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelAccess {
    Allowed,
    NotInPlan,
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_model_is_part_of_every_plan() {
        let env = [("LLM_MODEL".to_owned(), "gpt-9".to_owned())].into();
        let config = crate::Config::from_env(&env).unwrap().config;
        let plans = Plans::load(&config.billing, &config.chat).unwrap();
        assert!(
            plans
                .iter()
                .all(|plan| plans.allows(plan, "gpt-9") == ModelAccess::Allowed)
        );
        assert_eq!(
            plans.allows(plans.everyones(), "gpt-4o"),
            ModelAccess::NotInPlan
        );
        assert_eq!(
            plans.allows(plans.everyones(), "gpt-8"),
            ModelAccess::Unknown
        );
    }

    #[test]
    fn only_what_is_on_the_list_is_sold_and_a_plan_is_sold_by_its_first_price() {
        let env = [("STRIPE_PRICE_PRO".to_owned(), "price_1Pro".to_owned())].into();
        let config = crate::Config::from_env(&env).unwrap().config;
        let plans = Plans::load(&config.billing, &config.chat).unwrap();
        let sold = |name| {
            plans
                .offer(name)
                .map(|(plan, offer)| (plan.name.as_str(), offer.lookup.as_str()))
        };

        for name in ["pro", "price_1Pro", "pro_month"] {
            assert_eq!(sold(name), Some(("pro", "pro_month")));
        }
        assert_eq!(sold("pro_year"), Some(("pro", "pro_year")));
        for name in ["free", "price_2Other", "", "platinum"] {
            assert_eq!(sold(name), None, "{name}");
        }
        assert_eq!(plans.of_price("price_1Pro"), Some("pro"));
        assert_eq!(plans.of_price("pro_year"), Some("pro"));
    }

    #[test]
    fn a_product_of_a_store_opens_its_plan_under_any_base_plan() {
        let config = crate::Config::from_env(&HashMap::new()).unwrap().config;
        let plans = Plans::load(&config.billing, &config.chat).unwrap();

        assert_eq!(plans.of_product("com.example.pro.monthly"), Some("pro"));
        assert_eq!(
            plans.of_product("com.example.pro.monthly:base"),
            Some("pro")
        );
        assert_eq!(plans.of_product("com.example.coins"), None);
    }
}
