use super::{MAX_FACTORS, short, totp, webauthn};
use crate::{
    App, Error, Result,
    auth::{audit, session::Client, step_up},
    extract::{Auth, Json},
    limit::Action,
};
use axum::extract::State;
use db::users::User;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

#[derive(Deserialize, ToSchema)]
#[schema(as = NewFactor)]
pub struct New {
    /// `totp` or `webauthn`.
    factor_type: String,
    /// Up to 100 characters; no two of a user are the same.
    #[serde(default)]
    friendly_name: Option<String>,
    /// Whose account it is, as the authenticator app shows it. Default: our host.
    #[serde(default)]
    issuer: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = EnrolledFactor)]
pub struct Enrolled {
    id: Uuid,
    r#type: String,
    friendly_name: String,
    /// Of an authenticator app; a key of WebAuthn is set up by its challenge.
    #[serde(skip_serializing_if = "Option::is_none")]
    totp: Option<Totp>,
}

/// What an authenticator app is set up with. Shown once.
#[derive(Serialize, ToSchema)]
struct Totp {
    /// SVG.
    qr_code: String,
    /// Base32.
    secret: String,
    /// `otpauth://totp/…`
    uri: String,
}

/// Begin to add a second factor. It counts once it was proved: ask for a challenge and verify it.
#[utoipa::path(post, path = "/auth/v1/factors", tag = "second factors", request_body = New, responses((status = 200, body = Enrolled)))]
pub async fn enroll(
    State(app): State<App>,
    auth: Auth,
    client: Client,
    Json(new): Json<New>,
) -> Result<Json<Enrolled>> {
    let secret = match new.factor_type.as_str() {
        "totp" => Some(rand::random::<[u8; 20]>()),
        webauthn::TYPE => None,
        _ => return Err(Error::invalid("factor_type", "has to be totp or webauthn")),
    };
    let friendly_name = short("friendly_name", new.friendly_name)?;
    let issuer = short("issuer", new.issuer)?;
    step_up::demand(&app, &auth, &client, "factor_in_progress").await?;
    app.limits
        .check(Action::SecondFactor, &auth.user.to_string())
        .await?;

    let (id, now) = (Uuid::now_v7(), app.now());
    let seal = |secret: [u8; 20]| app.keys.seal(id.as_bytes(), &secret);
    let sealed = secret.map(seal).transpose()?;
    let mut tx = app.db.begin().await?;
    let user = db::users::locked(&mut tx, auth.user).await?;
    let user = user.ok_or(Error::SessionEnded)?;
    if user.is_anonymous {
        return Err(Error::Forbidden);
    }
    if db::factors::now_of_user(&mut tx, user.id).await?.len() >= MAX_FACTORS {
        return Err(Error::TooManyFactors);
    }
    let (kind, name) = (new.factor_type.as_str(), friendly_name.as_str());
    let sealed = sealed.as_deref();
    if !db::factors::create(&mut tx, id, user.id, kind, name, "unverified", sealed, now).await? {
        return Err(Error::FactorNameConflict);
    }
    let detail = json!({"factor": id, "type": kind});
    audit::succeeded(&mut tx, &client, "factor_in_progress", user.id, detail, now).await?;
    tx.commit().await?;

    let set_up = |secret: [u8; 20]| Totp::new(&app, &issuer, &user, &secret);
    Ok(Json(Enrolled {
        id,
        totp: secret.map(set_up).transpose()?,
        r#type: new.factor_type,
        friendly_name,
    }))
}

impl Totp {
    fn new(app: &App, issuer: &str, user: &User, secret: &[u8]) -> anyhow::Result<Self> {
        let host = url::Url::parse(&app.public_url()).ok();
        let host = host
            .as_ref()
            .and_then(url::Url::host_str)
            .unwrap_or("plinth");
        let issuer = if issuer.is_empty() { host } else { issuer };
        let secret = totp::base32(secret);
        let account = user.email.clone().unwrap_or_else(|| user.id.to_string());
        let uri = totp::uri(issuer, &account, &secret)?.to_string();
        let qr_code = totp::qr(&uri)?;
        Ok(Self {
            qr_code,
            secret,
            uri,
        })
    }
}
