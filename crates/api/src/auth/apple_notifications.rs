//! What Apple tells of its users: that they want no more mail, signed us out, or are gone.
//! <https://developer.apple.com/documentation/signinwithapple/processing-changes-for-sign-in-with-apple-accounts>
use super::{
    access::points_elsewhere,
    audit,
    deletion::{self, Leaves},
    id_token, identities, normalise_email,
    providers::Provider,
    session::Client,
    user::merged,
};
use crate::{App, Error, Result, extract::Json, http::ClientAddress, limit::Action};
use axum::{extract::State, http::StatusCode};
use db::{
    Timestamp, Tx,
    users::{Identity, User},
};
use jsonwebtoken::{DecodingKey, Validation};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::time::Duration;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(notifications))
}

/// Apple tries again for days; what is older is somebody else's attempt.
const MAX_AGE: Duration = Duration::from_secs(30 * 86_400);
/// Another's clock may be so far ahead of ours.
const SKEW_S: i64 = 60;
const RELAY: &str = "@privaterelay.appleid.com";

#[derive(Deserialize, ToSchema)]
struct AppleNotification {
    /// A JWT of Apple's.
    payload: String,
}

#[derive(Deserialize)]
struct Signed {
    iat: i64,
    #[serde(default)]
    exp: Option<i64>,
    jti: String,
    /// An event, as text.
    events: Value,
}

#[derive(Deserialize)]
struct Event {
    r#type: String,
    sub: String,
    #[serde(default)]
    email: Option<String>,
}

/// For Apple: register this as the server-to-server notification endpoint of the app.
#[utoipa::path(post, path = "/auth/v1/apple/notifications", tag = "sign-in", security(()), request_body = AppleNotification, responses((status = 200, description = "Noted")))]
async fn notifications(
    State(app): State<App>,
    client: Client,
    address: ClientAddress,
    Json(given): Json<AppleNotification>,
) -> Result<StatusCode> {
    let provider = app.issuers.named("apple").ok_or(Error::ProviderDisabled)?;
    let now = app.now();
    let Some((signed, event)) = read(&app, provider, &given.payload, now).await? else {
        return refuse(&app, &address).await;
    };

    let mut tx = app.db.begin().await?;
    let seen = Sha256::digest(format!("apple notification {}", signed.jti));
    if !db::seen_tokens::note(&mut tx, &seen, now + MAX_AGE).await? {
        return refuse(&app, &address).await;
    }
    apply(&mut tx, provider, &event, &client, now).await?;
    tx.commit().await?;

    Ok(StatusCode::OK)
}

async fn refuse<T>(app: &App, address: &ClientAddress) -> Result<T> {
    tracing::warn!("a notification that is not Apple's, not for us, or not the first was refused");
    let key = address.bucket().to_string();
    app.limits.check(Action::WebhookRefused, &key).await?;
    Err(Error::InvalidNotification)
}

/// `None` for what is not Apple's, not for a client of ours, or too old.
async fn read(
    app: &App,
    provider: &Provider,
    payload: &str,
    now: Timestamp,
) -> Result<Option<(Signed, Event)>> {
    let header = id_token::header(payload).ok();
    let trusted = |header: &jsonwebtoken::Header| {
        provider.algorithms.contains(&header.alg) && !points_elsewhere(header)
    };
    let Some(header) = header.filter(trusted) else {
        return Ok(None);
    };
    let key = app.issuers.key(provider, header.kid.as_deref(), now).await;
    let Some(key) = key.map_err(|_| Error::ProviderUnavailable)? else {
        return Ok(None);
    };
    Ok(verify(provider, &key, header.alg, payload, now))
}

fn verify(
    provider: &Provider,
    key: &DecodingKey,
    algorithm: jsonwebtoken::Algorithm,
    payload: &str,
    now: Timestamp,
) -> Option<(Signed, Event)> {
    let mut validation = Validation::new(algorithm);
    validation.set_required_spec_claims(&["iss", "aud"]);
    validation.set_issuer(&provider.issuers);
    validation.set_audience(&provider.audiences);
    // By our clock.
    validation.validate_exp = false;
    let signed = jsonwebtoken::decode::<Signed>(payload, key, &validation);
    let signed = signed.ok()?.claims;
    let oldest = (now - MAX_AGE).unix();
    let in_time = (oldest..=now.unix() + SKEW_S).contains(&signed.iat)
        && signed.exp.is_none_or(|exp| exp > now.unix());
    let event = match &signed.events {
        Value::String(text) => serde_json::from_str(text),
        event => Event::deserialize(event),
    };
    in_time.then_some((signed, event.ok()?))
}

async fn apply(
    tx: &mut Tx,
    provider: &Provider,
    event: &Event,
    client: &Client,
    now: Timestamp,
) -> Result<()> {
    match event.r#type.as_str() {
        "email-disabled" | "email-enabled" => {
            let email = event.email.as_deref().and_then(normalise_email);
            let Some(email) = email.filter(|email| email.ends_with(RELAY)) else {
                return Ok(());
            };
            match event.r#type.as_str() {
                "email-disabled" => db::muted_addresses::mute(tx, &email, now).await?,
                _ => drop(db::muted_addresses::unmute(tx, &email).await?),
            }
            Ok(())
        }
        // The documentation and what is sent differ in a letter.
        "consent-revoked" | "account-delete" | "account-deleted" => {
            let known = db::users::identity(tx, provider.issuer(), &event.sub).await?;
            let Some(identity) = known else { return Ok(()) };
            let Some(user) = db::users::locked(tx, identity.user_id).await? else {
                return Ok(());
            };
            let detail = json!({"provider": "apple", "event": event.r#type});
            audit::by_system(
                tx,
                Some(&client.request_id),
                "identity_revoked",
                user.id,
                detail,
                now,
            )
            .await?;
            let reason = "apple_consent_revoked";
            db::sessions::revoke_of_providers(tx, user.id, reason, now).await?;
            match event.r#type.as_str() {
                "consent-revoked" => Ok(db::identities::forget_token(tx, identity.id).await?),
                _ => gone(tx, user, &identity, client, now).await,
            }
        }
        other => {
            tracing::info!(kind = other, "Apple told of something we do not know");
            Ok(())
        }
    }
}

/// Their account at Apple is no more, so nobody comes by it again. An account here that nothing else
/// opens goes with it.
async fn gone(
    tx: &mut Tx,
    user: User,
    identity: &Identity,
    client: &Client,
    now: Timestamp,
) -> Result<()> {
    db::users::delete_identity(tx, user.id, identity.id).await?;
    let left = db::users::identities_locked(tx, user.id).await?;
    let passkeys = db::passkeys::count(tx, user.id).await?.0;
    let reads_mail = user.email_confirmed_at.is_some()
        && user
            .email
            .as_ref()
            .is_some_and(|email| !email.ends_with(RELAY));
    let other_way = user.password_hash.is_some()
        || reads_mail
        || passkeys > 0
        || left.iter().any(|identity| identity.issuer != "email");
    if other_way || user.role != "authenticated" {
        let metadata = merged(user.app_metadata.0, identities::providers(&left));
        db::users::set_app_metadata(tx, user.id, &db::Json(metadata), now).await?;
        return Ok(());
    }
    let detail = json!({"reason": "apple_account_deleted"});
    audit::by_system(
        tx,
        Some(&client.request_id),
        "user_deleted",
        user.id,
        detail,
        now,
    )
    .await?;
    deletion::delete(tx, user.id, Leaves::Nothing, now).await?;
    Ok(())
}
