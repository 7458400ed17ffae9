//! Invitations, and links that an admin hands over by other ways than our mail.
use super::{
    address, audit,
    code::{self, Back, LeadingTo, Purpose},
    link, otp, password,
    session::{Client, UserBody},
    signup, step_up,
};
use crate::{
    App, Error, Result,
    extract::{Admin, Json, Query},
};
use axum::extract::State;
use db::{
    Timestamp, Tx,
    users::{NewUser, User},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

const GENERATED: &str =
    "has to be signup, invite, magiclink, recovery, email_change_current or email_change_new";

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(invite))
        .routes(routes!(generate_link))
}

#[derive(Deserialize, ToSchema)]
struct Invite {
    email: String,
    /// `user_metadata` of the new user.
    #[serde(default)]
    data: Option<Value>,
}

/// Make a user of an address and mail them a link, by which they confirm it.
#[utoipa::path(post, path = "/auth/v1/invite", tag = "admin", params(LeadingTo), request_body = Invite, responses((status = 200, body = UserBody)))]
async fn invite(
    State(app): State<App>,
    admin: Admin,
    client: Client,
    Query(to): Query<LeadingTo>,
    Json(asked): Json<Invite>,
) -> Result<Json<UserBody>> {
    let email = address(&asked.email)?;
    let data = signup::metadata(asked.data)?;
    let back = Back::of(&app, to, None, None)?;
    app.limits.check_mail(&email).await?;

    let (found, now) = (Found::of(&app, &email).await?, app.now());
    let mut tx = app.db.begin().await?;
    let user = found.newcomer(&mut tx, &client, &email, data, now).await?;
    code::send(&app, &mut tx, Purpose::Invite, user.id, &email, &back, now).await?;
    let action = Purpose::Invite.requested();
    audit::by_admin(
        &mut tx,
        &client,
        action,
        &admin,
        Some(user.id),
        json!({}),
        now,
    )
    .await?;
    tx.commit().await?;

    Ok(Json(UserBody::load(&app.db, user).await?))
}

#[derive(Deserialize, ToSchema)]
struct NewLink {
    /// `signup`, `invite`, `magiclink`, `recovery`, `email_change_current` or `email_change_new`: an address changes once both have been used (`AUTH_SECURE_EMAIL_CHANGE`).
    r#type: String,
    email: String,
    /// With `email_change_current` and `email_change_new`.
    #[serde(default)]
    new_email: Option<String>,
    /// With `signup`.
    #[serde(default)]
    password: Option<String>,
    /// `user_metadata` of a new user.
    #[serde(default)]
    data: Option<Value>,
}

/// A link as a mail would bring it, and the user it is for.
#[derive(Serialize, ToSchema)]
struct GeneratedLink {
    /// To follow.
    action_link: String,
    /// To type.
    email_otp: String,
    /// For `verify`, as `token_hash`.
    hashed_token: String,
    /// As it was asked for.
    verification_type: String,
    redirect_to: String,
    #[serde(flatten)]
    user: UserBody,
}

/// Make a link and the code beside it. Nothing is mailed: whoever asked hands it over. A person who
/// administers needs a sign-in of the last minutes: such a link signs in as somebody else.
#[utoipa::path(post, path = "/auth/v1/admin/generate_link", tag = "admin", params(LeadingTo), request_body = NewLink, responses((status = 200, body = GeneratedLink)))]
async fn generate_link(
    State(app): State<App>,
    admin: Admin,
    client: Client,
    Query(to): Query<LeadingTo>,
    Json(asked): Json<NewLink>,
) -> Result<Json<GeneratedLink>> {
    let purpose = match asked.r#type.as_str() {
        "email_change_new" => Purpose::EmailChange,
        "email_change_current" if app.config.auth.auth_secure_email_change => {
            Purpose::EmailChangeCurrent
        }
        word => Purpose::of(word)
            .filter(|purpose| *purpose != Purpose::EmailChange)
            .ok_or_else(|| Error::invalid("type", GENERATED))?,
    };
    let email = address(&asked.email)?;
    let data = signup::metadata(asked.data)?;
    let new = match purpose {
        Purpose::EmailChange | Purpose::EmailChangeCurrent => {
            Some(address(&asked.new_email.unwrap_or_default())?)
        }
        _ => None,
    };
    // Where a mail would go.
    let mailed = match &new {
        Some(new) if purpose == Purpose::EmailChange => new,
        _ => &email,
    };
    let hash = match purpose {
        Purpose::Signup => Some(hash(&app, asked.password.as_deref(), &email).await?),
        _ => None,
    };
    let back = Back::of(&app, to, None, None)?;
    let found = Found::of(&app, &email).await?;
    let whose = found.owner.as_ref().map(|owner| owner.id);
    step_up::demand_of_admin(&app, &admin, &client, purpose.requested(), whose).await?;

    let now = app.now();
    let mut tx = app.db.begin().await?;
    let user = match purpose {
        Purpose::Recovery => found.anyone()?,
        Purpose::EmailChange
        | Purpose::EmailChangeCurrent
        | Purpose::EmailChangeUndo
        | Purpose::Reauthentication => found.owner.ok_or(Error::UserNotFound)?,
        Purpose::MagicLink => match found.owner {
            Some(owner) => owner,
            None => found.newcomer(&mut tx, &client, &email, data, now).await?,
        },
        Purpose::Invite => found.newcomer(&mut tx, &client, &email, data, now).await?,
        Purpose::Signup => signed_up(&mut tx, &email, hash.as_deref(), data, now).await?,
    };
    let made = code::make(&app, &mut tx, purpose, user.id, mailed, &back, true, now).await?;
    if let (Purpose::EmailChangeCurrent, Some(new)) = (purpose, &new) {
        db::one_time_tokens::set_moves_to(&mut tx, made.id, new).await?;
    }
    let (action, detail) = (purpose.requested(), json!({"method": "generate_link"}));
    audit::by_admin(&mut tx, &client, action, &admin, Some(user.id), detail, now).await?;
    tx.commit().await?;

    let secret = made.secret.unwrap_or_default();
    Ok(Json(GeneratedLink {
        action_link: link::url(&app, purpose, &secret, back.to()),
        email_otp: made.code,
        hashed_token: secret,
        verification_type: asked.r#type,
        redirect_to: back.or_site(&app).into(),
        user: UserBody::load(&app.db, user).await?,
    }))
}

/// Who has something to do with an address.
struct Found {
    /// Who confirmed it.
    owner: Option<User>,
    /// Who claims it with a password, or the owner.
    any: Option<User>,
    /// Who claims it without.
    claimant: Option<User>,
}

impl Found {
    async fn of(app: &App, email: &str) -> Result<Self> {
        let any = db::users::by_email(&app.db, email).await?;
        let owner = any.clone();
        Ok(Self {
            owner: owner.filter(|user| user.email_confirmed_at.is_some()),
            any,
            claimant: db::users::claimant(&app.db, email).await?,
        })
    }

    fn anyone(self) -> Result<User> {
        self.any.ok_or(Error::UserNotFound)
    }

    /// A user who has yet to confirm the address; refused when somebody has.
    async fn newcomer(
        self,
        tx: &mut Tx,
        client: &Client,
        email: &str,
        data: Value,
        now: Timestamp,
    ) -> Result<User> {
        match self.owner {
            Some(_) => Err(Error::EmailExists),
            None => otp::newcomer(tx, client, email, self.claimant, data, now).await,
        }
    }
}

async fn signed_up(
    tx: &mut Tx,
    email: &str,
    hash: Option<&str>,
    data: Value,
    now: Timestamp,
) -> Result<User> {
    let new = NewUser {
        id: Uuid::now_v7(),
        identity: Uuid::now_v7(),
        email: Some(email),
        confirmed_at: None,
        password_hash: hash,
        role: "authenticated",
        user_metadata: data,
    };
    let created = db::users::create(tx, new, now).await?;
    created.ok_or(Error::EmailExists)
}

async fn hash(app: &App, given: Option<&str>, email: &str) -> Result<String> {
    let given = given.ok_or_else(|| Error::invalid("password", "is missing"))?;
    let min_chars = app.config.auth.auth_min_password_length;
    password::check(given, Some(email), min_chars)?;
    app.passwords.hash(given).await
}
