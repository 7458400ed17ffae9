use super::{AUTHENTICATION, Base64, Options, ask, consume, expected, party, refused};
use crate::{
    App, Error, Result,
    auth::{
        audit,
        session::{self, Client},
        webauthn::{self, Asserted, Expected, Refused},
    },
    extract::Json,
};
use axum::extract::State;
use db::{Tx, passkeys::Passkey, users::User};
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(options))
        .routes(routes!(verify))
}

/// What a browser needs to sign in with a passkey; which one, and whose, the user says there.
#[utoipa::path(post, path = "/auth/v1/passkeys/authentication/options", tag = "sign-in", security(()), responses((status = 200, body = Options)))]
async fn options(State(app): State<App>) -> Result<Json<Options>> {
    let options = json!({
        "rpId": party(&app).id,
        "allowCredentials": [],
        "userVerification": "required",
    });
    ask(&app, AUTHENTICATION, None, options).await.map(Json)
}

#[derive(Deserialize, ToSchema)]
#[schema(as = PasskeyAuthentication)]
struct Authentication {
    challenge_id: Uuid,
    /// What `navigator.credentials.get()` gave, as JSON.
    #[serde(alias = "credential_response")]
    credential: Credential,
}

#[derive(Deserialize, ToSchema)]
pub struct Credential {
    id: Base64,
    response: AssertionResponse,
}

impl Credential {
    /// What its authenticator calls it.
    pub fn id(&self) -> &[u8] {
        &self.id.0
    }

    /// Judges its use by the public key that was registered, and by how far it had counted.
    pub fn assert(
        &self,
        expected: Expected<'_>,
        public_key: &[u8],
        counted: i64,
    ) -> Result<Asserted, Refused> {
        let response = &self.response;
        let asserted = webauthn::assert(
            expected,
            &response.client_data.0,
            &response.authenticator_data.0,
            &response.signature.0,
            public_key,
        )?;
        // Authenticators that count were copied when they fall behind; many do not count at all.
        let count = i64::from(asserted.sign_count);
        if counted > 0 && count > 0 && count <= counted {
            return Err(Refused::Counter);
        }
        Ok(asserted)
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct AssertionResponse {
    #[serde(rename = "clientDataJSON")]
    client_data: Base64,
    authenticator_data: Base64,
    signature: Base64,
    user_handle: Option<Base64>,
}

/// Sign in with a passkey.
#[utoipa::path(post, path = "/auth/v1/passkeys/authentication/verify", tag = "sign-in", security(()), request_body = Authentication, responses((status = 200, body = session::Response)))]
async fn verify(
    State(app): State<App>,
    client: Client,
    Json(given): Json<Authentication>,
) -> Result<session::Response> {
    let now = app.now();

    let mut tx = app.db.begin().await?;
    let found = find(&mut tx, &given.credential).await?;
    let (user, judged) = judge(&app, &mut tx, &given, found).await?;
    let outcome = if judged.is_ok() {
        "succeeded"
    } else {
        "failed"
    };
    metrics::counter!("auth_events_total", "kind" => "passkey", "outcome" => outcome).increment(1);
    let (passkey, asserted) = match judged {
        Ok(judged) => judged,
        Err(refusal) => {
            let detail = json!({"method": "passkey", "reason": refusal.to_string()});
            let user = user.map(|user| user.id);
            audit::refused(&mut tx, &client, "login", user, detail, now).await?;
            tx.commit().await?;
            return Err(refusal);
        }
    };
    let user = user.ok_or(refused(Refused::Unknown))?;
    let count = asserted.sign_count.into();
    if count == 0 && passkey.sign_count > 0 {
        let detail = json!({"passkey": passkey.id, "counter": passkey.sign_count});
        audit::succeeded(
            &mut tx,
            &client,
            "passkey_counter_reset",
            user.id,
            detail,
            now,
        )
        .await?;
    }
    db::passkeys::used(&mut tx, passkey.id, count, asserted.backed_up, now).await?;
    let (user, session) = session::open(&app, &mut tx, user, "passkey", &client, now).await?;
    tx.commit().await?;

    session::respond(&app, user, session).await
}

/// The passkey and its user, as they are once the user is held against others.
async fn find(tx: &mut Tx, credential: &Credential) -> Result<Option<(Passkey, User)>> {
    let Some(passkey) = db::passkeys::by_credential_id(tx, credential.id()).await? else {
        return Ok(None);
    };
    let user = db::users::locked(tx, passkey.user_id).await?;
    let passkey = db::passkeys::by_credential_id(tx, credential.id()).await?;
    Ok(passkey.zip(user))
}

/// Who it is about, where that is known, and whether they are let in.
async fn judge(
    app: &App,
    tx: &mut Tx,
    given: &Authentication,
    found: Option<(Passkey, User)>,
) -> Result<(Option<User>, Result<(Passkey, Asserted)>)> {
    let challenge = consume(app, tx, given.challenge_id, AUTHENTICATION, None).await?;
    let Some((passkey, user)) = found else {
        let refusal = challenge.err().unwrap_or(refused(Refused::Unknown));
        return Ok((None, Err(refusal)));
    };
    let judged = challenge.and_then(|challenge| {
        let party = party(app);
        let asserted = asserted(expected(&party, &challenge), &passkey, given)?;
        if user.is_banned(app.now()) {
            return Err(Error::UserBanned);
        }
        if user.email.is_some() && user.email_confirmed_at.is_none() {
            return Err(Error::EmailNotConfirmed);
        }
        Ok((passkey, asserted))
    });
    Ok((Some(user), judged))
}

fn asserted(expected: Expected<'_>, passkey: &Passkey, given: &Authentication) -> Result<Asserted> {
    let credential = &given.credential;
    let asserted = credential
        .assert(expected, &passkey.public_key, passkey.sign_count)
        .map_err(refused)?;
    // Without a user name, this is who the user meant to be.
    let meant = credential
        .response
        .user_handle
        .as_ref()
        .map(|handle| &*handle.0);
    if meant != Some(passkey.user_id.to_string().as_bytes()) {
        return Err(refused(Refused::User));
    }
    Ok(asserted)
}
