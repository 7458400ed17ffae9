//! Sign-in with an ID token that an app got from the provider's own SDK, at GoTrue's path and at short
//! ones. A token serves once, whatever is made of it.
use super::{
    apple as of_apple, audit, federation,
    federation::{Arrived, Beside},
    id_token::{self, Besides, Claims},
    providers::Provider,
    session::{self, Client},
    step_up,
};
use crate::{
    App, Error, Result,
    error::Dialect,
    extract::{Auth, Json},
};
use axum::extract::State;
use db::users::User;
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(google))
        .routes(routes!(oauth_google))
        .routes(routes!(apple))
        .routes(routes!(oauth_apple))
}

#[derive(Deserialize, ToSchema)]
pub struct IdTokenGrant {
    /// `google`, `apple`, or `oidc`: the issuer of `ISSUER_URL`.
    provider: String,
    id_token: String,
    /// As the app made it; the provider may have been given its SHA-256 in hex.
    #[serde(default)]
    nonce: Option<String>,
    /// The provider's, where the ID token names it (`at_hash`).
    #[serde(default)]
    access_token: Option<String>,
    /// What Apple's SDK gives besides: with it, what Apple keeps of the sign-in is revoked when the user leaves.
    #[serde(default)]
    authorization_code: Option<String>,
    /// Add the identity to the signed-in user, who sends their access token and signed in within the last minutes.
    #[serde(default)]
    link_identity: Option<bool>,
}

impl IdTokenGrant {
    pub fn links(&self) -> bool {
        self.link_identity == Some(true)
    }
}

#[derive(Deserialize, ToSchema)]
struct NativeSignIn {
    id_token: String,
    /// As the app made it; the provider may have been given its SHA-256 in hex.
    #[serde(default)]
    nonce: Option<String>,
    /// The provider's, where the ID token names it (`at_hash`).
    #[serde(default)]
    access_token: Option<String>,
    /// What Apple's SDK gives besides: with it, what Apple keeps of the sign-in is revoked when the user leaves.
    #[serde(default)]
    authorization_code: Option<String>,
    /// How Apple said at the first sign-in that the user is called; nobody signed it.
    #[serde(default)]
    name: Option<String>,
}

/// Sign in with Google's ID token.
#[utoipa::path(post, path = "/auth/google", tag = "sign-in", security(()), request_body = NativeSignIn, responses((status = 200, body = session::Response)))]
async fn google(
    State(app): State<App>,
    client: Client,
    Json(given): Json<NativeSignIn>,
) -> Result<session::Response> {
    by_name(&app, "google", given, &client).await
}

/// The same.
#[utoipa::path(post, path = "/auth/oauth/google", tag = "sign-in", security(()), request_body = NativeSignIn, responses((status = 200, body = session::Response)))]
async fn oauth_google(
    app: State<App>,
    client: Client,
    given: Json<NativeSignIn>,
) -> Result<session::Response> {
    google(app, client, given).await
}

/// Sign in with Apple's ID token.
#[utoipa::path(post, path = "/auth/apple", tag = "sign-in", security(()), request_body = NativeSignIn, responses((status = 200, body = session::Response)))]
async fn apple(
    State(app): State<App>,
    client: Client,
    Json(given): Json<NativeSignIn>,
) -> Result<session::Response> {
    by_name(&app, "apple", given, &client).await
}

/// The same.
#[utoipa::path(post, path = "/auth/oauth/apple", tag = "sign-in", security(()), request_body = NativeSignIn, responses((status = 200, body = session::Response)))]
async fn oauth_apple(
    app: State<App>,
    client: Client,
    given: Json<NativeSignIn>,
) -> Result<session::Response> {
    apple(app, client, given).await
}

async fn by_name(
    app: &App,
    provider: &str,
    given: NativeSignIn,
    client: &Client,
) -> Result<session::Response> {
    let grant = IdTokenGrant {
        provider: provider.into(),
        id_token: given.id_token,
        nonce: given.nonce,
        access_token: given.access_token,
        authorization_code: given.authorization_code,
        link_identity: None,
    };
    let beside = Beside {
        name: given.name.as_deref(),
        ..Beside::default()
    };
    open(app, &grant, beside, None, client).await
}

pub async fn sign_in(
    app: &App,
    grant: &IdTokenGrant,
    client: &Client,
) -> Result<session::Response> {
    open(app, grant, Beside::default(), None, client).await
}

/// Adds an identity to the account of who is signed in. Who is anonymous has nothing to sign in with
/// anew, and is somebody from then on.
pub async fn link(
    app: &App,
    grant: &IdTokenGrant,
    auth: &Auth,
    client: &Client,
) -> Result<session::Response> {
    if !app.config.auth.auth_manual_linking {
        return Err(Error::ManualLinkingDisabled);
    }
    let user = db::users::by_id(&app.db, auth.user).await?;
    let user = user.ok_or(Error::SessionEnded)?;
    if !user.is_anonymous {
        step_up::demand(app, auth, client, "identity_linked").await?;
    }
    open(app, grant, Beside::default(), Some(user), client).await
}

/// A session for whom the token names, or for the `caller` who links it.
async fn open(
    app: &App,
    grant: &IdTokenGrant,
    beside: Beside<'_>,
    caller: Option<User>,
    client: &Client,
) -> Result<session::Response> {
    let provider = app.issuers.named(&grant.provider);
    let provider = provider.ok_or(Error::ProviderDisabled)?;
    let claims = believed(app, provider, grant, client).await?;
    let (audience, subject) = (&claims.audience, &claims.subject);
    let to_give_back = match &grant.authorization_code {
        Some(code) => of_apple::redeem(app, provider, code, audience, subject).await,
        None => None,
    };
    let beside = Beside {
        refresh_token: to_give_back.as_deref(),
        ..beside
    };

    let now = app.now();
    let mut tx = app.db.begin().await?;
    if let Err(refusal) = id_token::once(&mut tx, &grant.id_token, &claims).await {
        if matches!(refusal, Error::IdTokenReplayed) {
            refused(&mut tx, provider, client, &refusal, now).await?;
            tx.commit().await?;
        }
        return Err(refusal);
    }
    let outcome = match caller {
        Some(caller) => {
            let linked = federation::link(app, &mut tx, caller.id, &claims, beside, client, now);
            linked.await?.map(|user| Arrived {
                user,
                is_new: false,
            })
        }
        None => federation::sign_in(app, &mut tx, &claims, beside, client, now).await?,
    };
    let counted = if outcome.is_ok() {
        "succeeded"
    } else {
        "failed"
    };
    metrics::counter!("auth_events_total", "kind" => "id_token", "outcome" => counted).increment(1);
    let Arrived { user, is_new } = match outcome {
        Ok(arrived) => arrived,
        Err(refusal) => {
            tx.commit().await?;
            return Err(refusal);
        }
    };
    let (user, session) = session::open(app, &mut tx, user, "oauth", client, now).await?;
    tx.commit().await?;

    Ok(session::Response {
        is_new: Some(is_new),
        ..session::respond(app, user, session).await?
    })
}

/// What the token says, once it is believed. One that is not is in the audit log.
async fn believed(
    app: &App,
    provider: &Provider,
    grant: &IdTokenGrant,
    client: &Client,
) -> Result<Claims> {
    let besides = Besides {
        nonce: grant.nonce.as_deref(),
        access_token: grant.access_token.as_deref(),
        is_bearer: false,
    };
    let checked = id_token::check(app, &grant.id_token, provider, besides).await;
    if let Err(refusal @ Error::InvalidIdToken) = &checked {
        let mut tx = app.db.begin().await?;
        refused(&mut tx, provider, client, refusal, app.now()).await?;
        tx.commit().await?;
    }
    checked
}

async fn refused(
    tx: &mut db::Tx,
    provider: &Provider,
    client: &Client,
    refusal: &Error,
    now: db::Timestamp,
) -> Result<()> {
    let reason = refusal.code(Dialect::GoTrue);
    let detail = json!({"method": "oauth", "provider": provider.name, "reason": reason});
    Ok(audit::refused(tx, client, "login", None, detail, now).await?)
}
