//! Rate limits: every limited action in one table, counted in memory or, when `REDIS_URL` is set,
//! for all instances together. When Redis does not answer, each instance counts for itself.
use crate::{
    App, Error, Result,
    app::Clock,
    config::{Config, seconds},
    http::ClientAddress,
};
use axum::{
    extract::{Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode},
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::{num::NonZeroU32, str::FromStr, time::Duration};

mod growing;
mod memory;
mod redis;
#[cfg(test)]
mod tests;

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    Api,
    SignIn,
    SignInAccount,
    SignInPair,
    IdToken,
    Oauth,
    SignUp,
    Mail,
    MailSpacing,
    MailSender,
    Refresh,
    Verify,
    SecondFactor,
    Passkey,
    WebhookRefused,
    Chat,
    Export,
    BillingSync,
    AuditedRefusal,
}

/// How often is too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// So many requests of one key in a period, spread evenly after a first burst (GCRA).
    Even,
    /// So many at once; after each further one a wait of a second, doubled every time, of a period at
    /// most. What succeeds is forgotten.
    Growing,
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    pub action: Action,
    pub name: &'static str,
    /// What is counted together.
    pub by: &'static str,
    pub requests: NonZeroU32,
    pub period: Duration,
    pub shape: Shape,
}

const fn rule(
    action: Action,
    name: &'static str,
    by: &'static str,
    requests: u32,
    period_s: u64,
) -> Rule {
    let requests = NonZeroU32::new(requests).expect("a limit of none is no limit");
    Rule {
        action,
        name,
        by,
        requests,
        period: Duration::from_secs(period_s),
        shape: Shape::Even,
    }
}

const fn growing(
    action: Action,
    name: &'static str,
    by: &'static str,
    at_once: u32,
    longest_wait_s: u64,
) -> Rule {
    let shape = Shape::Growing;
    Rule {
        shape,
        ..rule(action, name, by, at_once, longest_wait_s)
    }
}

/// The table. `RATE_LIMITS` overrides rows by name.
pub const RULES: [Rule; 19] = [
    rule(Action::Api, "api", "address, on /api/", 100, 15 * 60),
    rule(Action::SignIn, "sign_in", "address", 10, 60),
    growing(
        Action::SignInAccount,
        "sign_in_account",
        "e-mail address, or the device that is known there: wrong passwords in a row, then a wait that doubles from 1 s to the period",
        5,
        15 * 60,
    ),
    rule(
        Action::SignInPair,
        "sign_in_pair",
        "e-mail address and address together",
        5,
        60,
    ),
    rule(
        Action::IdToken,
        "id_token",
        "address, signing in with a provider's token",
        30,
        60,
    ),
    rule(
        Action::Oauth,
        "oauth",
        "address, on the way to a provider or back",
        60,
        60,
    ),
    rule(Action::SignUp, "sign_up", "address", 10, 60 * 60),
    rule(
        Action::Mail,
        "mail",
        "e-mail address that is written to",
        3,
        60 * 60,
    ),
    rule(
        Action::MailSpacing,
        "mail_spacing",
        "e-mail address that is written to",
        1,
        60,
    ),
    rule(
        Action::MailSender,
        "mail_sender",
        "address that asks for codes",
        5,
        60 * 60,
    ),
    rule(Action::Refresh, "refresh", "address", 150, 5 * 60),
    rule(Action::Verify, "verify", "address", 30, 5 * 60),
    rule(Action::SecondFactor, "second_factor", "user", 15, 60),
    rule(
        Action::Passkey,
        "passkey",
        "address, asking for a challenge",
        30,
        60,
    ),
    rule(
        Action::WebhookRefused,
        "webhook_refused",
        "address, refused deliveries alone",
        60,
        60,
    ),
    rule(Action::Chat, "chat", "user", 60, 60),
    rule(
        Action::Export,
        "export",
        "user, asking for their data",
        3,
        60 * 60,
    ),
    rule(
        Action::BillingSync,
        "billing_sync",
        "user, else checkout, read anew from Stripe and RevenueCat",
        6,
        60,
    ),
    rule(
        Action::AuditedRefusal,
        "audited_refusal",
        "user, else address, and why: rows of the audit log; further refusals are counted, not kept",
        1,
        60,
    ),
];

/// `RATE_LIMITS`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    off: bool,
    rules: Vec<(String, NonZeroU32, Duration)>,
}

impl FromStr for Overrides {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text == "off" {
            return Ok(Self {
                off: true,
                rules: vec![],
            });
        }
        let one = |item: &str| {
            let (name, rate) = item.split_once('=')?;
            let (requests, period) = rate.split_once('/')?;
            RULES.iter().find(|rule| rule.name == name.trim())?;
            let period = seconds(period.trim())
                .ok()
                .filter(|period| !period.is_zero())?;
            Some((
                name.trim().to_owned(),
                requests.trim().parse().ok()?,
                period,
            ))
        };
        let items = text.split(',').filter(|item| !item.trim().is_empty());
        let rules = items
            .map(|item| one(item).ok_or_else(|| explain(item)))
            .collect::<Result<_, _>>()?;
        Ok(Self { off: false, rules })
    }
}

fn explain(item: &str) -> String {
    let names: Vec<_> = RULES.iter().map(|rule| rule.name).collect();
    format!(
        "{item:?} is not action=requests/period with one of the actions {}",
        names.join(", ")
    )
}

/// What was decided about one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    /// How many more may follow at once.
    pub remaining: u32,
    /// When to try again; zero when allowed.
    pub retry_after: Duration,
}

/// The limits of this instance.
pub struct Limits {
    rules: Vec<Rule>,
    memory: memory::Memory,
    redis: Option<redis::Redis>,
}

impl Limits {
    pub async fn new(config: &Config, clock: Clock) -> anyhow::Result<Self> {
        let overrides = &config.http.rate_limits;
        let mut rules = RULES.to_vec();
        if overrides.off {
            // Nobody is refused by it: it keeps the audit log from being filled.
            rules.retain(|rule| rule.action == Action::AuditedRefusal);
        }
        for rule in &mut rules {
            if let Some((_, requests, period)) = overrides
                .rules
                .iter()
                .rev()
                .find(|(name, ..)| name == rule.name)
            {
                (rule.requests, rule.period) = (*requests, *period);
            }
        }
        let redis = match &config.core.redis_url {
            Some(url) => Some(redis::Redis::connect(url).await?),
            None => None,
        };
        Ok(Self {
            memory: memory::Memory::new(&rules, clock),
            rules,
            redis,
        })
    }

    fn rule(&self, action: Action) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.action == action)
    }

    async fn decide(&self, rule: &Rule, key: &str) -> Decision {
        let shared = match &self.redis {
            Some(redis) => redis.decide(rule, key).await,
            None => None,
        };
        let backend = if shared.is_some() { "redis" } else { "memory" };
        let decision = shared.unwrap_or_else(|| self.memory.decide(rule, key));
        let label = if decision.allowed {
            "allowed"
        } else {
            "limited"
        };
        metrics::counter!("rate_limit_decisions_total", "action" => rule.name, "decision" => label, "backend" => backend).increment(1);
        decision
    }

    /// Counts one request of `key`, and refuses it when it is too many.
    pub async fn check(&self, action: Action, key: &str) -> Result<()> {
        let Some(rule) = self.rule(action) else {
            return Ok(());
        };
        let decision = self.decide(rule, key).await;
        if decision.allowed {
            Ok(())
        } else {
            Err(Error::RateLimited {
                retry_after: decision.retry_after,
            })
        }
    }

    /// Counts one of `key`, and says whether it is not too many: of what is no request.
    pub async fn admits(&self, action: Action, key: &str) -> bool {
        self.check(action, key).await.is_ok()
    }

    /// What was counted of `key` was no abuse: it succeeded.
    pub async fn forget(&self, action: Action, key: &str) {
        let Some(rule) = self.rule(action) else {
            return;
        };
        self.memory.forget(rule, key);
        if let Some(redis) = &self.redis {
            redis.forget(rule, key).await;
        }
    }

    /// Counts one mail to this address, and refuses it when it is too many. Whoever asks, and whether
    /// or not anyone is there who would be written to.
    pub async fn check_mail(&self, email: &str) -> Result<()> {
        for action in [Action::MailSpacing, Action::Mail] {
            let checked = self.check(action, email).await;
            checked.map_err(|refusal| match refusal {
                Error::RateLimited { retry_after } => Error::MailRateLimited { retry_after },
                other => other,
            })?;
        }
        Ok(())
    }

    /// Forgets keys that are as good as new.
    pub fn shed(&self) {
        self.memory.shed();
    }

    /// Whether Redis answers; `None` without Redis.
    pub async fn redis_answers(&self) -> Option<bool> {
        match &self.redis {
            Some(redis) => Some(redis.answers().await),
            None => None,
        }
    }
}

/// The limits that hold by address for a part of the tree, said in the response's headers.
pub async fn of_address(
    State(app): State<App>,
    address: ClientAddress,
    request: Request,
    next: Next,
) -> Response {
    let rule = action_of(&request).and_then(|action| app.limits.rule(action));
    let Some(rule) = rule.copied() else {
        return next.run(request).await;
    };
    let decision = app
        .limits
        .decide(&rule, &address.bucket().to_string())
        .await;
    let mut response = if decision.allowed {
        next.run(request).await
    } else {
        Error::RateLimited {
            retry_after: decision.retry_after,
        }
        .into_response()
    };
    // What another limit refused comes back when that one says, whatever is left of this.
    if !decision.allowed || response.status() != StatusCode::TOO_MANY_REQUESTS {
        for (name, value) in decision.headers(&rule) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn action_of(request: &Request) -> Option<Action> {
    let path = request.uri().path();
    if path.starts_with("/api/") && path != "/api/health" {
        return Some(Action::Api);
    }
    if ["/auth/v1/authorize", "/auth/v1/callback"].contains(&path) {
        return Some(Action::Oauth);
    }
    if request.method() != Method::POST {
        return None;
    }
    let path = path.strip_prefix("/auth/")?;
    if ["google", "oauth/google", "apple", "oauth/apple"].contains(&path) {
        return Some(Action::IdToken);
    }
    match path.strip_prefix("v1/")? {
        "signup" => Some(Action::SignUp),
        "verify" => Some(Action::Verify),
        "passkeys/authentication/options" | "passkeys/registration/options" => {
            Some(Action::Passkey)
        }
        "otp" | "magiclink" | "recover" | "resend" => Some(Action::MailSender),
        "token" => {
            // As the handler reads it: the same words elsewhere in the query are no refresh.
            let query = request.uri().query().unwrap_or_default();
            let grant = url::form_urlencoded::parse(query.as_bytes())
                .find_map(|(name, value)| (name == "grant_type").then_some(value));
            match grant.as_deref() {
                Some("refresh_token") => Some(Action::Refresh),
                Some("id_token") => Some(Action::IdToken),
                _ => Some(Action::SignIn),
            }
        }
        _ => None,
    }
}

impl Decision {
    /// <https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/>
    fn headers(&self, rule: &Rule) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let one = rule.period / rule.requests.get();
        let wait = if self.allowed { one } else { self.retry_after };
        let policy = format!(
            "\"{}\";q={};w={}",
            rule.name,
            rule.requests,
            rule.period.as_secs()
        );
        let now = format!(
            "\"{}\";r={};t={}",
            rule.name,
            self.remaining,
            wait.as_secs().max(1)
        );
        [("ratelimit-policy", policy), ("ratelimit", now)]
            .into_iter()
            .filter_map(|(name, value)| {
                Some((
                    HeaderName::from_static(name),
                    HeaderValue::from_str(&value).ok()?,
                ))
            })
    }
}

/// The table for `docs/configuration.md`.
pub fn markdown() -> String {
    let mut out = String::from("| action | counted by | requests | period |\n|---|---|---|---|\n");
    for rule in RULES {
        out += &format!(
            "| `{}` | {} | {} | {} s |\n",
            rule.name,
            rule.by,
            rule.requests,
            rule.period.as_secs()
        );
    }
    out
}
