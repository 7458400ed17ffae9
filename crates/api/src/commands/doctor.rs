use super::{DONE, FAILED, frame::say, warn};
use crate::{
    app::Clock,
    auth::{jwks::Issuers, providers::Provider},
    backup::{Place, take},
    billing::{
        offers::{Unpriced, price_id},
        plans::Plans,
        stripe_api::{Failure, Stripe},
    },
    chat::llm,
    config::Checked,
    http,
    limit::Limits,
    mail::Mailer,
};
use db::{Db, Pooling};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);

/// Asks each service in turn; gives the exit code.
pub async fn run(checked: Checked) -> u8 {
    warn(&checked.warnings);
    let config = &checked.config;
    let mut failed = false;
    let mut say = |service: &str, outcome: Result<String, String>| match outcome {
        Ok(good) => say!("✓ {service:<12}{good}"),
        Err(bad) => {
            failed = true;
            say!("✗ {service:<12}{bad}");
        }
    };

    say("database", within(database(config)).await);
    match &config.core.redis_url {
        None => say!(
            "– {:<12}not configured: each instance counts rate limits for itself",
            "redis"
        ),
        Some(_) => say("redis", within(redis(config)).await),
    }
    match config.chat.is_simulated() {
        true => say!("– {:<12}simulated", "llm"),
        false => {
            for provider in config.chat.providers.providers() {
                let asked = llm(&config.chat.providers, provider);
                say(provider.name(), within(asked).await);
            }
        }
    }
    match Mailer::new(&config.mail, http::Client::default()) {
        Ok(mailer) if !mailer.is_configured() => say!(
            "– {:<12}{}",
            "mail",
            if config.is_production() {
                "not configured"
            } else {
                "simulated"
            }
        ),
        Ok(mailer) => say(
            "mail",
            within(async {
                mailer
                    .test()
                    .await
                    .map(|()| "the server takes us".into())
                    .map_err(|e| format!("{e:#}. Check SMTP_URL or SENDGRID_API_KEY"))
            })
            .await,
        ),
        Err(error) => say("mail", Err(error.to_string())),
    }
    let client = crate::http::Client::default();
    let made = client.get().map(drop);
    match made.map(|()| Issuers::new(&config.auth.providers, client)) {
        Ok(issuers) if issuers.providers.is_empty() => say!(
            "– {:<12}{}",
            "providers",
            if config.is_production() {
                "not configured"
            } else {
                "simulated"
            }
        ),
        Ok(issuers) => {
            // GitHub publishes no keys: it is asked when somebody comes by it.
            let publish = |provider: &&Provider| !provider.algorithms.is_empty();
            for provider in issuers.providers.iter().filter(publish) {
                say(provider.name, within(issuer(&issuers, provider)).await);
            }
        }
        Err(error) => say("providers", Err(error.to_string())),
    }
    match Stripe::new(&config.billing, http::Client::default()) {
        Some(api) => say("stripe", within(stripe(config, &api)).await),
        None => say!(
            "– {:<12}{}",
            "stripe",
            if config.is_production() {
                "not configured"
            } else {
                "simulated"
            }
        ),
    }
    match &config.backup.backup_url {
        Some(_) => say("backups", within(backups(config)).await),
        None => say!("– {:<12}not configured: set BACKUP_URL", "backups"),
    }
    if failed { FAILED } else { DONE }
}

/// Whether one could be made now, and whether there are any.
async fn backups(config: &crate::Config) -> Result<String, String> {
    let Some(url) = &config.backup.backup_url else {
        return Ok(String::new());
    };
    let look = async {
        take::Source::open(&config.core).await?.close().await;
        let place = Place::open(url, &config.backup)?;
        place.test().await?;
        place.list().await
    };
    let found = look.await.map_err(|e| crate::error::explain(&e))?;
    Ok(match found.first() {
        Some(newest) => format!("{} in {url}, the newest is {}", found.len(), newest.name),
        None => format!("{url} can be written; there are none yet"),
    })
}

async fn within(check: impl Future<Output = Result<String, String>>) -> Result<String, String> {
    tokio::time::timeout(PATIENCE, check)
        .await
        .unwrap_or_else(|_| Err(format!("did not answer within {} s", PATIENCE.as_secs())))
}

/// Whether everything that is sold is there.
async fn stripe(config: &crate::Config, api: &Stripe) -> Result<String, String> {
    let plans = Plans::load(&config.billing, &config.chat).map_err(|e| e.to_string())?;
    let offers: Vec<_> = plans.iter().flat_map(|plan| &plan.offers).collect();
    for offer in &offers {
        match price_id(api, offer).await {
            Ok(id) => api.get(&format!("/v1/prices/{id}"), &[]).await.map(drop),
            Err(Unpriced::Missing) => Err(Failure::NotFound),
            Err(Unpriced::Failed(failure)) => Err(failure),
        }
        .map_err(|failure| match failure {
            Failure::NotFound => format!(
                "the price {} is not there: run `plinth billing setup-stripe`",
                offer.lookup
            ),
            failure => format!("{failure}. Check STRIPE_SECRET_KEY"),
        })?;
    }
    Ok(format!("all {} prices are there", offers.len()))
}

async fn database(config: &crate::Config) -> Result<String, String> {
    let db = Db::open(&config.core.database_url, &config.core.database_options())
        .await
        .map_err(|e| e.to_string())?;
    let pending = db
        .migrations()
        .await
        .map_err(|e| e.to_string())?
        .iter()
        .filter(|m| !m.applied)
        .count();
    if pending > 0 {
        return Err(format!(
            "{pending} migrations are pending: run `plinth migrate`"
        ));
    }
    let faults = db::check::verify(&db).await.map_err(|e| e.to_string())?;
    if !faults.is_empty() {
        return Err(format!(
            "{} of {} statements do not fit this schema: {}",
            faults.len(),
            db::check::count(),
            faults.join("; ")
        ));
    }
    let pooling = match db.pooling() {
        Pooling::Direct => "",
        Pooling::Transaction => {
            ", through a pooler in transaction mode that keeps statements apart"
        }
    };
    db.close().await;
    Ok(format!(
        "{}: all {} statements fit{pooling}",
        config.core.database_url,
        db::check::count()
    ))
}

async fn redis(config: &crate::Config) -> Result<String, String> {
    let limits = Limits::new(config, Clock::system())
        .await
        .map_err(|e| format!("{e:#}"))?;
    match limits.redis_answers().await {
        Some(true) => Ok("answers".into()),
        _ => Err("does not answer. Check REDIS_URL and whether this machine may reach it".into()),
    }
}

async fn issuer(issuers: &Issuers, provider: &Provider) -> Result<String, String> {
    let found = issuers.answers(provider, Clock::system().now()).await;
    found
        .map(|keys| format!("keys at {keys}"))
        .map_err(|e| format!("{e:#}. Check its variables, and whether this machine may reach it"))
}

async fn llm(config: &llm::Config, provider: llm::Provider) -> Result<String, String> {
    let base = config.base_url(provider).as_str().trim_end_matches('/');
    let client = reqwest::Client::builder()
        .timeout(PATIENCE)
        .build()
        .map_err(|e| e.to_string())?;
    for key in config.keys_in_use(provider) {
        let request = llm::models(&client, provider, base, &key);
        let answer = request
            .send()
            .await
            .map_err(|e| format!("{base} cannot be reached ({})", e.without_url()))?;
        match answer.status().as_u16() {
            200..=299 => {}
            // Gemini says 400.
            400 | 401 | 403 => {
                let variable = provider.name().to_uppercase();
                return Err(format!(
                    "{base} does not take {variable}_API_KEY, or one of several"
                ));
            }
            status => return Err(format!("{base} answered {status}")),
        }
    }
    Ok(format!("{base} takes the key"))
}
