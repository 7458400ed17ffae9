use super::{
    address, audit,
    code::{Back, LeadingTo, Purpose},
    email_change, guesses,
    guesses::Guess,
    password, reauthenticate,
    session::{Client, UserBody},
    signup, step_up,
};
use crate::{
    App, Error, Result,
    extract::{Auth, Json, Query, Reach, SignedIn},
    mail::{self, Mail},
};
use axum::extract::State;
use db::users::User;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get, put))
}

/// The signed-in user.
#[utoipa::path(get, path = "/auth/v1/user", tag = "sign-in", responses((status = 200, body = UserBody)))]
async fn get(State(app): State<App>, SignedIn(auth): SignedIn) -> Result<Json<UserBody>> {
    let kind = Purpose::EmailChange.word();
    let own = db::users::own(&app.db, auth.user, kind, app.now()).await?;
    let own = own.ok_or(Error::SessionEnded)?;
    let identities = db::users::identities(&app.db, own.user.id).await?;
    let factors = match own.has_factors {
        true => db::factors::of_user(&app.db, own.user.id).await?,
        false => vec![],
    };
    Ok(Json(UserBody {
        new_email: own.new_email,
        factors: factors.into_iter().map(Into::into).collect(),
        ..UserBody::new(own.user, identities)
    }))
}

#[derive(Deserialize, ToSchema)]
#[schema(as = UserUpdate)]
struct Update {
    /// Merged into `user_metadata`; a null removes a member.
    #[serde(default)]
    data: Option<Value>,
    /// The new password; ends every other session.
    #[serde(default)]
    password: Option<String>,
    /// The old password, where the sign-in is not of the last minutes (`AUTH_STEP_UP_TTL`).
    #[serde(default)]
    current_password: Option<String>,
    /// The new address; it counts once it is confirmed, by the address of now too (`AUTH_SECURE_EMAIL_CHANGE`).
    #[serde(default)]
    email: Option<String>,
    /// Refused: nobody signs in with a number.
    #[serde(default)]
    phone: Option<String>,
    /// The code that `reauthenticate` mailed, in place of a fresh sign-in.
    #[serde(default)]
    nonce: Option<String>,
    #[serde(default)]
    code_challenge: Option<String>,
    /// `s256`.
    #[serde(default)]
    code_challenge_method: Option<String>,
}

/// Change what the user says of themself, or the password.
#[utoipa::path(put, path = "/auth/v1/user", tag = "sign-in", params(LeadingTo), request_body = Update, responses((status = 200, body = UserBody)))]
async fn put(
    State(app): State<App>,
    SignedIn(auth): SignedIn,
    client: Client,
    Query(to): Query<LeadingTo>,
    Json(update): Json<Update>,
) -> Result<Json<UserBody>> {
    if auth.reach == Reach::ChoosingPassword && update.password.is_none() {
        return Err(Error::PasswordExpired);
    }
    if update.phone.is_some_and(|phone| !phone.trim().is_empty()) {
        return Err(Error::PhoneDisabled);
    }
    let user = db::users::by_id(&app.db, auth.user)
        .await?
        .ok_or(Error::SessionEnded)?;
    let (challenge, method) = (update.code_challenge, update.code_challenge_method);
    let back = Back::of(&app, to, challenge.as_deref(), method.as_deref())?;
    let email = update.email.as_deref().map(address).transpose()?;
    let email = email.filter(|email| user.email.as_ref() != Some(email));
    let data = signup::metadata(update.data)?;
    let proved = update.nonce.is_some();
    if let Some(nonce) = &update.nonce {
        reauthenticate::require(&app, &client, &user, nonce).await?;
    }
    let current = update.current_password.as_deref();
    let allowed = async {
        if email.is_some() {
            may_move(&app, &auth, &user, proved)?;
        }
        match &update.password {
            Some(new) => new_hash(&app, &client, &auth, &user, new, current, proved)
                .await
                .map(Some),
            None => Ok(None),
        }
    };
    let hash = match allowed.await {
        Ok(hash) => hash,
        Err(refusal) if is_decision(&refusal) => {
            return Err(audit::refuse(&app, &client, "user_modified", user.id, refusal).await);
        }
        Err(invalid) => return Err(invalid),
    };
    if let Some(email) = &email {
        app.limits.check_mail(email).await?;
    }

    let now = app.now();
    let mut tx = app.db.begin().await?;
    let user = db::users::locked(&mut tx, user.id)
        .await?
        .ok_or(Error::SessionEnded)?;
    let metadata = signup::within_limit(merged(user.user_metadata.0.clone(), data))?;
    db::users::set_user_metadata(&mut tx, user.id, &db::Json(metadata), now).await?;
    let changed = json!({"password": hash.is_some()});
    audit::succeeded(&mut tx, &client, "user_modified", user.id, changed, now).await?;
    if let Some(hash) = hash {
        db::users::set_password_hash(&mut tx, user.id, Some(&hash), now).await?;
        db::sessions::revoke_of_user(
            &mut tx,
            user.id,
            Some(auth.session),
            "password_changed",
            now,
        )
        .await?;
        // Whoever asked for another address may be whom the new password is to keep out.
        email_change::forget(&mut tx, user.id).await?;
        mail::tell(&mut tx, &user, |to| Mail::PasswordChanged { to }, now).await?;
    }
    if let Some(email) = &email {
        email_change::ask(&app, &mut tx, &client, &user, email, &back, now).await?;
    }
    tx.commit().await?;

    get(State(app), SignedIn(auth)).await
}

/// Whether the request was understood, and was refused to whoever makes it. A wrong password is written
/// down where it is counted.
fn is_decision(refusal: &Error) -> bool {
    matches!(
        refusal,
        Error::ReauthenticationNeeded { .. } | Error::InsufficientAal { .. } | Error::Forbidden
    )
}

/// Whether they may give the account another address.
fn may_move(app: &App, auth: &Auth, user: &User, proved: bool) -> Result<()> {
    // A code by mail stands for a fresh sign-in, not for a second factor.
    step_up::require_second_factor(app, auth)?;
    // Who is anonymous has nothing to sign in with anew.
    match proved || user.is_anonymous {
        true => Ok(()),
        false => step_up::require(app, auth),
    }
}

/// Whoever holds an open session is not yet its owner, also where there is no password so far: one that
/// signed in just now is, or one that says the old password.
async fn new_hash(
    app: &App,
    client: &Client,
    auth: &Auth,
    user: &User,
    new: &str,
    current: Option<&str>,
    proved: bool,
) -> Result<String> {
    if user.is_anonymous {
        return Err(Error::invalid("password", "needs an e-mail address first"));
    }
    step_up::require_second_factor(app, auth)?;
    let hash = user.password_hash.as_deref();
    // The new one tells by its refusal whether it is the old one: it counts as a guess too.
    let guess = match hash {
        Some(_) => Some(guesses::begin_within(app, user.id).await?),
        None => None,
    };
    match (current, &guess) {
        (Some(current), Some(guess)) => {
            knows_password(app, client, user, current, guess).await?;
        }
        _ if proved => {}
        _ => step_up::require(app, auth)?,
    }
    if hash.is_some() && app.passwords.verify(new, hash).await? {
        return Err(Error::SamePassword);
    }
    password::check(
        new,
        user.email.as_deref(),
        app.config.auth.auth_min_password_length,
    )?;
    app.passwords.hash(new).await
}

/// A wrong password counts and is written down as at a sign-in.
async fn knows_password(
    app: &App,
    client: &Client,
    user: &User,
    given: &str,
    guess: &Guess,
) -> Result<()> {
    let hash = user.password_hash.as_deref();
    let right = app.passwords.verify(given, hash).await?;
    if right {
        guess.forget(app).await;
    }
    let now = app.now();
    let mut tx = app.db.begin().await?;
    let counts = right && guess.counts(&mut tx, user.id).await?;
    if !right {
        guess.was_wrong(&mut tx, user, now).await?;
    }
    if !counts {
        let (action, detail) = ("user_modified", json!({"reason": "invalid_credentials"}));
        audit::refused(&mut tx, client, action, Some(user.id), detail, now).await?;
    }
    tx.commit().await?;
    counts.then_some(()).ok_or(Error::InvalidCredentials)
}

/// What was there with what is new; a null removes a member.
pub fn merged(mut old: Value, new: Value) -> Value {
    if let (Value::Object(old), Value::Object(new)) = (&mut old, new) {
        for (name, value) in new {
            match value {
                Value::Null => old.remove(&name),
                value => old.insert(name, value),
            };
        }
    }
    old
}
