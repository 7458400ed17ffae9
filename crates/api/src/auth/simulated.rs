//! Providers that are not configured, pointed at those of the simulated world: in development whoever
//! says who they are is believed.
use super::{
    apple,
    providers::{Config, DEVELOPMENT_CLIENT as CLIENT},
};
use anyhow::{Context, anyhow};
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use base64::{Engine, engine::general_purpose::STANDARD};

/// Fills in what is missing; gives the names of those that are simulated from now on.
pub fn stand_in(config: &mut Config, oidc: &sim::Oidc) -> anyhow::Result<Vec<&'static str>> {
    let mut simulated = vec![];
    if config.google_client_id.is_empty() {
        config.google_client_id = vec![CLIENT.into()];
        config.google_client_secret = Some(CLIENT.to_owned().into());
        config.google_issuer = oidc.issuer("google");
        config.google_jwks_url = format!("{}/keys", config.google_issuer);
        simulated.push("Google");
    }
    if config.apple_client_id.is_empty() && !apple::is_configured(config) {
        config.apple_client_id = vec![CLIENT.into()];
        config.apple_issuer = oidc.issuer("apple");
        config.apple_jwks_url = Some(format!("{}/keys", config.apple_issuer));
        config.apple_team_id = Some(CLIENT.into());
        config.apple_key_id = Some(CLIENT.into());
        config.apple_private_key = Some(private_key()?.into());
        simulated.push("Apple");
    }
    if config.github_client_id.is_none() {
        config.github_client_id = Some(CLIENT.into());
        config.github_client_secret = Some(CLIENT.to_owned().into());
        config.github_url = oidc.github_url();
        config.github_api_url = oidc.github_url();
        simulated.push("GitHub");
    }
    if config.issuer_url.is_none() {
        // On Replit every program is told its own.
        config.repl_id.get_or_insert_with(|| CLIENT.into());
        config.issuer_client_secret = Some(CLIENT.to_owned().into());
        config.issuer_url = Some(oidc.issuer("oidc"));
        simulated.push("OpenID Connect");
    }
    Ok(simulated)
}

/// As Apple's .p8 files are; nobody there looks at the signature.
fn private_key() -> anyhow::Result<String> {
    let rng = SystemRandom::new();
    let pair = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &rng)
        .map_err(|_| anyhow!("no key could be made"))
        .context("a key for the simulated Apple")?;
    let (kind, der) = (["PRIVATE", "KEY"].join(" "), STANDARD.encode(pair.as_ref()));
    Ok(format!(
        "-----BEGIN {kind}-----\n{der}\n-----END {kind}-----\n"
    ))
}
