//! Who answers: providers, their keys, and how long they may take.
use crate::config::{Problem, Secret, some_seconds};
use std::{fmt, str::FromStr, time::Duration};

/// Whose dialect is spoken, and under whose name it is paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// Or whoever OPENAI_BASE_URL names.
    OpenAi,
    Gemini,
    Anthropic,
}

impl Provider {
    const ALL: [Self; 3] = [Self::OpenAi, Self::Gemini, Self::Anthropic];

    pub fn name(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Gemini => "gemini",
            Self::Anthropic => "anthropic",
        }
    }

    /// Where it is asked to answer when LLM_MODEL is another's.
    fn usual_model(self) -> &'static str {
        match self {
            Self::OpenAi => USUAL_MODEL,
            Self::Gemini => "gemini-2.5-flash",
            Self::Anthropic => "claude-haiku-4-5",
        }
    }

    /// Whose model a name is; `None` for names that any server may have given.
    pub fn of_model(model: &str) -> Option<Self> {
        let begins = |with: &[&str]| with.iter().any(|begin| model.starts_with(begin));
        if begins(&[
            "gpt-",
            "chatgpt-",
            "o1",
            "o3",
            "o4",
            "text-embedding-",
            "omni-moderation",
        ]) {
            Some(Self::OpenAi)
        } else if begins(&["gemini-"]) {
            Some(Self::Gemini)
        } else if begins(&["claude-"]) {
            Some(Self::Anthropic)
        } else {
            None
        }
    }
}

pub const USUAL_MODEL: &str = "gpt-4o-mini";
/// What a client sends a simulated provider, and one that wants none.
const NO_KEY: &str = "simulated";

/// `model=provider:other`: who answers for a model whose provider cannot. Without `provider:` the
/// name says whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Equivalent {
    pub model: String,
    pub provider: Provider,
    pub other: String,
}

impl FromStr for Equivalent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = "model=other, as gpt-4o-mini=gemini-2.5-flash; a name that does not say whose it is as gpt-4o=openai:llama-3";
        let (model, other) = text.split_once('=').ok_or(wanted)?;
        let (model, other) = (model.trim(), other.trim());
        let (provider, other) = match other.split_once(':') {
            Some((named, other)) => (provider(named).map_err(|_| wanted)?, other.trim()),
            None => (Provider::of_model(other).ok_or(wanted)?, other),
        };
        if model.is_empty() || other.is_empty() {
            return Err(wanted.into());
        }
        Ok(Self {
            model: model.into(),
            provider,
            other: other.into(),
        })
    }
}

/// Providers of language models.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Language model")]
pub struct Config {
    /// Who answers: openai, gemini, anthropic; of several, separated by commas, later ones answer when earlier ones cannot. Default: all that have a key.
    #[arg(long, value_delimiter = ',', value_parser = provider)]
    pub llm_provider: Vec<Provider>,

    /// The key of OpenAI, or of whoever OPENAI_BASE_URL names. Of several, separated by commas, the next is used when one is refused or used up. Without any key in development, the model is simulated.
    #[arg(long, value_delimiter = ',')]
    pub openai_api_key: Vec<Secret>,

    /// Any server that speaks OpenAI's API.
    #[arg(long, default_value = "https://api.openai.com/v1")]
    pub openai_base_url: url::Url,

    /// The key of Google's Gemini, or several.
    #[arg(long, value_delimiter = ',')]
    pub gemini_api_key: Vec<Secret>,

    /// Gemini's endpoint that speaks OpenAI's API.
    #[arg(
        long,
        default_value = "https://generativelanguage.googleapis.com/v1beta/openai"
    )]
    pub gemini_base_url: url::Url,

    /// The key of Anthropic, or several.
    #[arg(long, value_delimiter = ',')]
    pub anthropic_api_key: Vec<Secret>,

    /// Any server that speaks Anthropic's Messages API, without /v1.
    #[arg(long, default_value = "https://api.anthropic.com")]
    pub anthropic_base_url: url::Url,

    /// Who answers for a model whose provider cannot, before the first word: `gpt-4o-mini=gemini-2.5-flash,gpt-4o-mini=claude-haiku-4-5`, tried in the order of LLM_PROVIDER. `provider:` before a name that does not say whose it is.
    #[arg(long, value_delimiter = ',')]
    pub llm_fallback_models: Vec<Equivalent>,

    /// Seconds until the first word, retries included; another provider has as many again. Default: LLM_TIMEOUT.
    #[arg(long, value_parser = some_seconds)]
    pub llm_first_token_timeout: Option<Duration>,

    /// Seconds of silence between words. Default: LLM_TIMEOUT.
    #[arg(long, value_parser = some_seconds)]
    pub llm_idle_timeout: Option<Duration>,

    /// Seconds for an answer in all. Default: ten times LLM_TIMEOUT.
    #[arg(long, value_parser = some_seconds)]
    pub llm_total_timeout: Option<Duration>,

    /// How freely the model words its answers, 0 to 2, where neither its assistant nor the request says it.
    #[arg(long, value_parser = temperature, default_value = "0.7")]
    pub llm_temperature: f64,

    /// Answers that one provider makes at once at most; further ones wait 5 s, then are refused.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub llm_max_in_flight: u32,
}

impl Config {
    fn keys(&self, provider: Provider) -> &[Secret] {
        match provider {
            Provider::OpenAi => &self.openai_api_key,
            Provider::Gemini => &self.gemini_api_key,
            Provider::Anthropic => &self.anthropic_api_key,
        }
    }

    fn has_key(&self, provider: Provider) -> bool {
        self.keys(provider)
            .iter()
            .any(|key| !key.expose().is_empty())
    }

    pub fn base_url(&self, provider: Provider) -> &url::Url {
        match provider {
            Provider::OpenAi => &self.openai_base_url,
            Provider::Gemini => &self.gemini_base_url,
            Provider::Anthropic => &self.anthropic_base_url,
        }
    }

    /// Whether no provider that was named, or none at all, has a key.
    pub fn is_simulated(&self) -> bool {
        self.named().all(|provider| !self.has_key(provider))
    }

    fn named(&self) -> impl Iterator<Item = Provider> {
        let named = if self.llm_provider.is_empty() {
            &Provider::ALL[..]
        } else {
            &self.llm_provider[..]
        };
        named.iter().copied()
    }

    /// Those that are asked, in order. With no key at all they are simulated: those that were
    /// named, or OpenAI.
    pub fn providers(&self) -> Vec<Provider> {
        let simulated = self.is_simulated();
        let mut providers = vec![];
        for provider in self.named() {
            if (simulated || self.has_key(provider)) && !providers.contains(&provider) {
                providers.push(provider);
            }
        }
        if simulated && self.llm_provider.is_empty() {
            providers.truncate(1);
        }
        providers
    }

    /// The keys to use: never none.
    pub fn keys_in_use(&self, provider: Provider) -> Vec<Secret> {
        let keys = self.keys(provider).iter();
        let mut keys: Vec<_> = keys
            .filter(|key| !key.expose().is_empty())
            .cloned()
            .collect();
        if keys.is_empty() {
            keys.push(NO_KEY.to_owned().into());
        }
        keys
    }

    /// Who is asked for a model, in order, and under which name: whose it is, then those that have
    /// an equivalent.
    pub fn routes<'a>(&'a self, model: &'a str) -> Vec<(Provider, &'a str)> {
        let providers = self.providers();
        let listed = |provider: &Provider| providers.contains(provider);
        let home = Provider::of_model(model).filter(listed);
        let equivalents: Vec<_> = self
            .llm_fallback_models
            .iter()
            .filter(|equivalent| equivalent.model == model)
            .collect();
        // A gateway under OPENAI_BASE_URL may have any model.
        let home = home.or_else(|| {
            let only_other = Provider::of_model(model).is_some() && !equivalents.is_empty();
            let open = Some(Provider::OpenAi).filter(|provider| listed(provider) && !only_other);
            open.or_else(|| match Provider::of_model(model) {
                None if equivalents.is_empty() => providers.first().copied(),
                _ => None,
            })
        });
        let mut routes: Vec<_> = home.map(|home| (home, model)).into_iter().collect();
        for provider in providers {
            for equivalent in &equivalents {
                let route = (provider, equivalent.other.as_str());
                if equivalent.provider == provider && !routes.contains(&route) {
                    routes.push(route);
                }
            }
        }
        routes
    }

    /// Where nobody who is asked has the default model, the first one's own.
    pub fn choose_model(&self, model: &mut String) {
        if model == USUAL_MODEL
            && self.routes(model).is_empty()
            && let Some(first) = self.providers().first()
        {
            *model = first.usual_model().to_owned();
        }
    }

    pub fn check(
        &self,
        model: &str,
        production: bool,
        problems: &mut Vec<Problem>,
        warnings: &mut Vec<Problem>,
    ) {
        let no_key = "Make a key at your provider, and set OPENAI_BASE_URL when it is not OpenAI.";
        if production && self.is_simulated() && self.llm_provider.is_empty() {
            let fault = "is not set, and production does not simulate the model";
            problems.push(Problem::new("OPENAI_API_KEY", fault, no_key));
        }
        for provider in &self.llm_provider {
            if self.has_key(*provider) {
                continue;
            }
            let variable = format!("{}_API_KEY", provider.name().to_uppercase());
            let fault = format!("is not set, and LLM_PROVIDER names {}", provider.name());
            if production {
                problems.push(Problem::new(variable, fault, no_key));
            } else if !self.is_simulated() {
                warnings.push(Problem::new(variable, fault, "It is left out."));
            }
        }
        for provider in Provider::ALL {
            let url = self.base_url(provider);
            if url.scheme() != "https" && !crate::http::is_loopback(url) {
                problems.push(Problem::new(
                    format!("{}_BASE_URL", provider.name().to_uppercase()),
                    "is not https",
                    "Questions and the key would cross the network in the clear; write https://….",
                ));
            }
        }
        let routes = self.routes(model);
        if routes.is_empty() {
            problems.push(Problem::new(
                "LLM_MODEL",
                format!("is {model}, which none of the providers with a key has"),
                "Name a model of theirs, or its equivalent in LLM_FALLBACK_MODELS.",
            ));
        } else if self.providers().len() > 1 && routes.len() == 1 {
            warnings.push(Problem::new(
                "LLM_FALLBACK_MODELS",
                format!("names no equivalent of {model}: when its provider cannot answer, nobody does"),
                "Write for example gpt-4o-mini=claude-haiku-4-5, or name one provider in LLM_PROVIDER.",
            ));
        }
        for equivalent in &self.llm_fallback_models {
            if !self.providers().contains(&equivalent.provider) {
                warnings.push(Problem::new(
                    "LLM_FALLBACK_MODELS",
                    format!(
                        "names {}, whose provider {} is not asked",
                        equivalent.other,
                        equivalent.provider.name()
                    ),
                    "Name it in LLM_PROVIDER and give its key.",
                ));
            }
        }
    }
}

fn provider(text: &str) -> Result<Provider, &'static str> {
    let name = text.trim().to_lowercase();
    let found = Provider::ALL.into_iter().find(|known| known.name() == name);
    found.ok_or("one of openai, gemini, anthropic, or several with commas between")
}

fn temperature(text: &str) -> Result<f64, String> {
    let number = text.parse().ok();
    number
        .filter(|number| (0.0..=2.0).contains(number))
        .ok_or_else(|| "a number from 0 to 2".into())
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
