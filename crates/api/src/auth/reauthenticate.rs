use super::{
    audit,
    code::{self, Back, MAX_ATTEMPTS, Purpose},
    guesses,
    session::Client,
    step_up, verify,
};
use crate::{
    App, Error, Result,
    extract::{Auth, Json},
};
use axum::extract::State;
use db::users::User;
use serde_json::{Value, json};
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(reauthenticate))
}

/// Mail a code that stands for a fresh sign-in: the `nonce` of `PUT user`.
#[utoipa::path(get, path = "/auth/v1/reauthenticate", tag = "sign-in", responses((status = 200, description = "Nothing", body = Value)))]
async fn reauthenticate(State(app): State<App>, auth: Auth, client: Client) -> Result<Json<Value>> {
    step_up::in_person(&auth)?;
    let user = db::users::by_id(&app.db, auth.user).await?;
    let user = user.ok_or(Error::SessionEnded)?;
    let (Some(email), Some(_)) = (&user.email, user.email_confirmed_at) else {
        return Err(Error::invalid("email", "is needed first"));
    };
    app.limits.check_mail(email).await?;

    let (purpose, now) = (Purpose::Reauthentication, app.now());
    let mut tx = app.db.begin().await?;
    code::send(
        &app,
        &mut tx,
        purpose,
        user.id,
        email,
        &Back::default(),
        now,
    )
    .await?;
    let action = purpose.requested();
    audit::succeeded(&mut tx, &client, action, user.id, json!({}), now).await?;
    tx.commit().await?;

    Ok(Json(json!({})))
}

/// Uses the code up; a wrong one counts as a guess at it, and as one at the account from within, and is
/// refused.
pub async fn require(app: &App, client: &Client, user: &User, nonce: &str) -> Result<()> {
    let guess = guesses::begin_within(app, user.id).await?;
    let now = app.now();
    let email = user.email.as_deref().unwrap_or_default();
    let kind = Purpose::Reauthentication.word();
    let mut tx = app.db.begin().await?;
    let found = db::one_time_tokens::guess(&mut tx, email, kind, kind, MAX_ATTEMPTS, now).await?;
    let right =
        found.filter(|token| token.user_id == user.id && verify::is_code(app, token, nonce));
    let accepted = match right {
        Some(token) => db::one_time_tokens::consume(&mut tx, token.id, now).await?,
        None => false,
    };
    if !accepted {
        let detail = json!({"reason": "wrong_nonce"});
        audit::refused(&mut tx, client, "user_modified", Some(user.id), detail, now).await?;
    }
    tx.commit().await?;
    if accepted {
        guess.forget(app).await;
    }
    accepted
        .then_some(())
        .ok_or(Error::ReauthenticationNotValid)
}
