//! Keys of WebAuthn as second factors. Who they belong to was proved by other means already, so that it
//! is enough for a key to be there and be touched: those without a PIN or a finger's print will do.
use crate::{
    App, Error, Result,
    auth::{
        passkeys::{self, Credential, NewCredential, descriptor},
        webauthn::{Expected, Refused},
    },
};
use db::{Json, Timestamp, Tx, factors::Factor};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

pub const TYPE: &str = "webauthn";
/// How `amr` calls it.
pub const METHOD: &str = "mfa/webauthn";

/// What a browser is to do.
#[derive(Serialize, ToSchema)]
#[schema(as = WebauthnQuestion)]
pub struct Question {
    /// `create` for a key that is new, `request` for one that counts.
    r#type: &'static str,
    /// `publicKey` is for `navigator.credentials`, as JSON has it.
    credential_options: Value,
}

/// What a browser did.
#[derive(Deserialize, ToSchema)]
#[schema(as = WebauthnAnswer)]
pub struct Answer {
    /// That of the question.
    r#type: String,
    /// What `navigator.credentials` gave, as JSON.
    credential_response: Value,
}

/// `create` until a key is there.
fn ceremony(factor: &Factor) -> &'static str {
    if factor.is_verified() {
        "request"
    } else {
        "create"
    }
}

/// Has this challenge signed, by the key of this factor, or by one that will be.
pub async fn ask(app: &App, tx: &mut Tx, factor: &Factor, challenge: &[u8]) -> Result<Question> {
    let shown =
        |key: db::webauthn_factors::Credential| descriptor(&key.credential_id, &key.transports.0);
    let mut options = if factor.is_verified() {
        let key = db::webauthn_factors::of_factor(tx, factor.id).await?;
        json!({
            "rpId": passkeys::party(app).id,
            "allowCredentials": key.map(shown).as_slice(),
            "userVerification": "preferred",
        })
    } else {
        let user = db::users::by_id(&app.db, factor.user_id).await?;
        let user = user.ok_or(Error::SessionEnded)?;
        let known = db::webauthn_factors::of_user(tx, user.id).await?;
        let known = known.into_iter().map(shown).collect();
        let wanted = json!({"residentKey": "discouraged", "userVerification": "preferred"});
        // A handle of its own: under the user's it would take the place of their passkey.
        passkeys::creation(app, &user, factor.id, known, wanted)
    };
    passkeys::to_sign(&mut options, challenge);
    Ok(Question {
        r#type: ceremony(factor),
        credential_options: json!({"publicKey": options}),
    })
}

/// Judges an answer; that of a new key keeps it. The inner result is the verdict.
pub async fn judge(
    app: &App,
    tx: &mut Tx,
    factor: &Factor,
    challenge: &[u8],
    answer: Answer,
    now: Timestamp,
) -> Result<Result<(), Refused>> {
    let ceremony = ceremony(factor);
    if answer.r#type != ceremony {
        let problem = format!("has to be {ceremony}, as the challenge said");
        return Err(Error::invalid("webauthn.type", problem));
    }
    let party = passkeys::party(app);
    let expected = Expected {
        party: &party,
        challenge,
        user_verified: false,
    };
    let given = answer.credential_response;
    match factor.is_verified() {
        true => assert(tx, factor, expected, read(given)?, now).await,
        false => register(tx, factor, expected, read(given)?, now).await,
    }
}

fn read<T: DeserializeOwned>(given: Value) -> Result<T> {
    serde_json::from_value(given).map_err(|error| {
        let problem = format!("is not what navigator.credentials gives as JSON: {error}");
        Error::invalid("webauthn.credential_response", problem)
    })
}

async fn register(
    tx: &mut Tx,
    factor: &Factor,
    expected: Expected<'_>,
    given: NewCredential,
    now: Timestamp,
) -> Result<Result<(), Refused>> {
    let key = match given.register(expected) {
        Ok(key) => key,
        Err(why) => return Ok(Err(why)),
    };
    let id = &key.credential_id;
    let is_passkey = db::passkeys::by_credential_id(tx, id).await?.is_some();
    let kept = !is_passkey
        && db::webauthn_factors::create(
            tx,
            factor.id,
            id,
            &key.public_key,
            key.sign_count.into(),
            key.backup_eligible,
            key.backed_up,
            Uuid::from_bytes(key.aaguid),
            &Json(given.transports().into()),
            now,
        )
        .await?;
    match kept {
        true => Ok(Ok(())),
        false => Err(Error::WebauthnCredentialExists),
    }
}

async fn assert(
    tx: &mut Tx,
    factor: &Factor,
    expected: Expected<'_>,
    given: Credential,
    now: Timestamp,
) -> Result<Result<(), Refused>> {
    let own = db::webauthn_factors::of_factor(tx, factor.id).await?;
    let Some(own) = own.filter(|own| own.credential_id == given.id()) else {
        return Ok(Err(Refused::Unknown));
    };
    let asserted = match given.assert(expected, &own.public_key, own.sign_count) {
        Ok(asserted) => asserted,
        Err(why) => return Ok(Err(why)),
    };
    let count = asserted.sign_count.into();
    db::webauthn_factors::used(tx, factor.id, count, asserted.backed_up, now).await?;
    Ok(Ok(()))
}
