use super::{
    Base64, Options, Passkey, REGISTRATION, ask, consume, descriptor, encode, expected, party,
    refused,
};
use crate::{
    App, Error, Result,
    auth::{
        audit,
        session::Client,
        step_up,
        webauthn::{self, Expected, Refused, Registered},
    },
    extract::{Auth, Json},
    mail::{self, Mail},
};
use axum::extract::State;
use db::{Tx, passkeys::NewPasskey, users::User};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

/// Of one user.
const MAX_PASSKEYS: i64 = 20;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(options))
        .routes(routes!(verify))
}

/// What a browser needs to make a passkey of the signed-in user. Needs a sign-in of the last minutes.
#[utoipa::path(post, path = "/auth/v1/passkeys/registration/options", tag = "sign-in", responses((status = 200, body = Options)))]
async fn options(State(app): State<App>, auth: Auth, client: Client) -> Result<Json<Options>> {
    step_up::demand(&app, &auth, &client, "passkey_created").await?;
    let user = db::users::by_id(&app.db, auth.user)
        .await?
        .ok_or(Error::SessionEnded)?;
    if user.is_anonymous {
        return Err(Error::invalid("user", "needs an e-mail address first"));
    }
    let passkeys = db::passkeys::of_user(&app.db, user.id).await?;
    if passkeys.len() as i64 >= MAX_PASSKEYS {
        return Err(Error::TooManyPasskeys);
    }

    let known = passkeys
        .iter()
        .map(|passkey| descriptor(&passkey.credential_id, &passkey.transports.0));
    let wanted = json!({
        "residentKey": "required",
        "requireResidentKey": true,
        "userVerification": "required",
    });
    let options = creation(&app, &user, user.id, known.collect(), wanted);
    ask(&app, REGISTRATION, Some(user.id), options)
        .await
        .map(Json)
}

/// Authenticators keep one credential a handle. `wanted` is of them.
/// <https://www.w3.org/TR/webauthn-3/#dictionary-makecredentialoptions>
pub fn creation(app: &App, user: &User, handle: Uuid, known: Vec<Value>, wanted: Value) -> Value {
    let id = party(app).id;
    let name = user.email.clone().unwrap_or_else(|| user.id.to_string());
    let said = user.user_metadata.0.get("name").and_then(Value::as_str);
    let kinds = webauthn::ALGORITHMS.map(|alg| json!({"type": "public-key", "alg": alg}));
    json!({
        "rp": {"id": id, "name": id},
        "user": {
            "id": encode(handle.to_string().as_bytes()),
            "name": name,
            "displayName": said.unwrap_or(&name),
        },
        "pubKeyCredParams": kinds,
        "excludeCredentials": known,
        "authenticatorSelection": wanted,
        "attestation": "none",
    })
}

#[derive(Deserialize, ToSchema)]
#[schema(as = PasskeyRegistration)]
struct Registration {
    challenge_id: Uuid,
    /// What `navigator.credentials.create()` gave, as JSON.
    #[serde(alias = "credential_response")]
    credential: NewCredential,
}

#[derive(Deserialize, ToSchema)]
pub struct NewCredential {
    response: AttestationResponse,
}

#[derive(Deserialize, ToSchema)]
struct AttestationResponse {
    #[serde(rename = "clientDataJSON")]
    client_data: Base64,
    #[serde(rename = "attestationObject")]
    attestation_object: Base64,
    #[serde(default)]
    transports: Vec<String>,
}

impl NewCredential {
    pub fn register(&self, expected: Expected<'_>) -> Result<Registered, Refused> {
        let response = &self.response;
        let (data, object) = (&response.client_data.0, &response.attestation_object.0);
        webauthn::register(expected, data, object)
    }

    /// How it is reached. Hints that go back to browsers as they came; nothing else is kept.
    /// <https://www.w3.org/TR/webauthn-3/#enum-transport>
    pub fn transports(&self) -> Vec<String> {
        const KNOWN: [&str; 6] = ["usb", "nfc", "ble", "smart-card", "hybrid", "internal"];
        let said = self.response.transports.iter();
        let known = said.filter(|said| KNOWN.contains(&said.as_str()));
        known.take(KNOWN.len()).cloned().collect()
    }
}

/// Keep a passkey. The user is told by mail.
#[utoipa::path(post, path = "/auth/v1/passkeys/registration/verify", tag = "sign-in", request_body = Registration, responses((status = 200, body = Passkey)))]
async fn verify(
    State(app): State<App>,
    auth: Auth,
    client: Client,
    Json(given): Json<Registration>,
) -> Result<Json<Passkey>> {
    step_up::demand(&app, &auth, &client, "passkey_created").await?;
    let now = app.now();

    let mut tx = app.db.begin().await?;
    let user = db::users::locked(&mut tx, auth.user)
        .await?
        .ok_or(Error::SessionEnded)?;
    let kept = keep(&app, &mut tx, &user, given).await?;
    match &kept {
        Ok(passkey) => {
            let detail = json!({"passkey": passkey.id});
            audit::succeeded(&mut tx, &client, "passkey_created", user.id, detail, now).await?;
            mail::tell(&mut tx, &user, |to| Mail::PasskeyAdded { to }, now).await?;
        }
        Err(refusal) => {
            let detail = json!({"reason": refusal.to_string()});
            let user = Some(user.id);
            audit::refused(&mut tx, &client, "passkey_created", user, detail, now).await?;
        }
    }
    tx.commit().await?;

    kept.map(|passkey| Json(passkey.into()))
}

/// The outer result is a failure, the inner one a refusal, which is written down.
async fn keep(
    app: &App,
    tx: &mut Tx,
    user: &User,
    given: Registration,
) -> Result<Result<db::passkeys::Passkey>> {
    let challenge = match consume(app, tx, given.challenge_id, REGISTRATION, Some(user.id)).await? {
        Ok(challenge) => challenge,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let (party, credential) = (party(app), given.credential);
    let registered = match credential.register(expected(&party, &challenge)) {
        Ok(registered) => registered,
        Err(why) => return Ok(Err(refused(why))),
    };
    if db::passkeys::count(tx, user.id).await?.0 >= MAX_PASSKEYS {
        return Ok(Err(Error::TooManyPasskeys));
    }
    let new = NewPasskey {
        user: user.id,
        credential_id: &registered.credential_id,
        public_key: &registered.public_key,
        sign_count: registered.sign_count.into(),
        backup_eligible: registered.backup_eligible,
        backed_up: registered.backed_up,
        aaguid: Uuid::from_bytes(registered.aaguid),
        transports: credential.transports(),
    };
    let passkey = db::passkeys::create(tx, new, app.now()).await?;
    Ok(passkey.ok_or(Error::WebauthnCredentialExists))
}
