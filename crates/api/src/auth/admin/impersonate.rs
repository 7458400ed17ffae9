use super::bans;
use crate::{
    App, Error, Result,
    auth::{
        access::{self, Act},
        audit,
        session::{Client, UserBody},
        step_up,
    },
    extract::{Admin, Auth, Json, Path},
    http::Uncompressed,
};
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use db::{Timestamp, Tx, sessions::Session, users::User};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::Duration;
use utoipa::ToSchema;
use uuid::Uuid;

/// How long an admin may look.
const TTL: Duration = Duration::from_secs(15 * 60);

#[derive(Deserialize, ToSchema)]
pub struct Asked {
    /// Why: for the audit log, up to 500 characters.
    reason: String,
}

/// A token that cannot be refreshed.
#[derive(Serialize, ToSchema)]
struct Impersonation {
    /// An access token of the user's, with the admin as `act` (RFC 8693).
    access_token: String,
    /// `bearer`.
    token_type: &'static str,
    /// Seconds from now.
    expires_in: u64,
    /// Seconds since 1970.
    expires_at: i64,
    user: UserBody,
}

/// Look at the service as a user sees it, for a quarter of an hour. The token reads what the user reads, and
/// changes nothing; every answer to it says `X-Impersonated-By`; the user finds it in their audit log and
/// among their sessions. It ends with the admin's own session. Needs a person, and a sign-in of the last
/// minutes; who administers cannot be looked through.
#[utoipa::path(post, path = "/api/admin/users/{id}/impersonate", tag = "admin", params(("id" = Uuid, Path)), request_body = Asked,
    responses((status = 200, body = Impersonation), (status = 404)))]
pub async fn impersonate(
    State(app): State<App>,
    admin: Admin,
    client: Client,
    Path(id): Path<Uuid>,
    Json(asked): Json<Asked>,
) -> Result<Response> {
    let reason = bans::reason(&asked.reason)?;
    let now = app.now();
    let mut tx = app.db.begin().await?;
    let user = db::users::locked(&mut tx, id).await?;
    let user = user
        .filter(|user| user.deleted_at.is_none())
        .ok_or(Error::UserNotFound)?;
    let auth = match may(&app, &admin, &user, now) {
        Ok(auth) => auth,
        Err(refusal) => {
            let (action, why) = ("user_impersonated", json!({"reason": reason}));
            drop(tx);
            let subject = Some(id);
            return Err(
                audit::refuse_admin(&app, &client, action, &admin, subject, why, refusal).await,
            );
        }
    };
    let session = begin(&mut tx, &user, auth, now).await?;
    log(&mut tx, &client, &admin, &user, &session, reason, now).await?;
    tx.commit().await?;

    let act = Act { sub: auth.user };
    let claims = access::Claims {
        act: Some(act),
        ..access::claims(&app, &user, &session)
    };
    let mut response = Json(Impersonation {
        access_token: access::sign(&app, &claims)?,
        token_type: "bearer",
        expires_in: claims.exp.saturating_sub(now.unix()).max(0) as u64,
        expires_at: claims.exp,
        user: UserBody::load(&app.db, user).await?,
    })
    .into_response();
    response.extensions_mut().insert(Uncompressed);
    Ok(response)
}

/// Whoever looks is a person who signed in just now, and sees no more than they may already.
fn may<'a>(app: &App, admin: &'a Admin, user: &User, now: Timestamp) -> Result<&'a Auth> {
    let auth = admin.session.as_ref().ok_or(Error::Forbidden)?;
    step_up::require(app, auth)?;
    match user {
        user if user.role == "admin" => Err(Error::Forbidden),
        user if user.is_banned(now) => Err(Error::UserBanned),
        _ => Ok(auth),
    }
}

async fn begin(tx: &mut Tx, user: &User, auth: &Auth, now: Timestamp) -> db::Result<Session> {
    let amr = db::Json(json!([{"method": "impersonation", "timestamp": now.unix()}]));
    let (id, never) = (Uuid::now_v7(), Timestamp::from_micros(0));
    let secret = rand::random::<[u8; 32]>();
    let until = now + TTL;
    db::sessions::impersonate(
        tx,
        id,
        user.id,
        auth.session,
        &secret,
        &amr,
        until,
        never,
        now,
    )
    .await
}

/// In both logs: the user's, and the admin's own.
async fn log(
    tx: &mut Tx,
    client: &Client,
    admin: &Admin,
    user: &User,
    session: &Session,
    reason: &str,
    now: Timestamp,
) -> db::Result<()> {
    let detail = json!({"reason": reason, "session": session.id});
    let (theirs, own) = ("user_impersonated", "impersonation_started");
    audit::by_admin(tx, client, theirs, admin, Some(user.id), detail, now).await?;
    let detail = json!({"reason": reason, "session": session.id, "user": user.id});
    audit::by_admin(tx, client, own, admin, admin.user, detail, now).await
}
