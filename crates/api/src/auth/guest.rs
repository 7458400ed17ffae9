//! An anonymous user who has an account already: what they have here becomes the account's. It takes
//! two proofs, the anonymous session, which asks for a token, and a sign-in to the account of the last
//! minutes, which brings the token. Nothing is merged unasked: whoever plants an anonymous session in
//! another's browser would have a say in what is theirs.
use super::{
    audit,
    deletion::{self, Leaves},
    session::Client,
    step_up,
};
use crate::{
    App, Error, Result,
    error::Dialect,
    extract::{Auth, Json, Time},
};
use anyhow::Context;
use axum::extract::State;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use db::{Timestamp, Tx, users::User};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::Duration;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

/// A sign-in by mail, a page of a provider and a second factor fit in.
const LIFE: Duration = Duration::from_secs(30 * 60);
/// What the seal is bound to.
const MERGE: &[u8] = b"merge";

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(merge_token))
        .routes(routes!(merge))
}

#[derive(Serialize, ToSchema)]
struct MergeToken {
    /// For `merge`, while the anonymous session stands.
    merge_token: String,
    expires_at: Time,
}

/// Which session asked, until when. Sealed, so that nobody else makes one; the session may end before.
#[derive(Serialize, Deserialize)]
struct Asked {
    session: Uuid,
    until_us: i64,
}

/// A token by which what the anonymous user has goes to an account that they sign in to within half an
/// hour. It signs nobody in.
#[utoipa::path(post, path = "/auth/v1/guest/merge-token", tag = "sign-in", responses((status = 200, body = MergeToken), (status = 400, description = "They are not anonymous")))]
async fn merge_token(State(app): State<App>, auth: Auth) -> Result<Json<MergeToken>> {
    let user = db::users::by_id(&app.db, auth.user).await?;
    let user = user.ok_or(Error::SessionEnded)?;
    if !user.is_anonymous {
        return Err(Error::invalid("user", "is not anonymous"));
    }

    let until = app.now() + LIFE;
    let asked = Asked {
        session: auth.session,
        until_us: until.as_micros(),
    };
    let asked = serde_json::to_vec(&asked).context("a merge token is JSON")?;
    Ok(Json(MergeToken {
        merge_token: URL_SAFE_NO_PAD.encode(app.keys.seal(MERGE, &asked)?),
        expires_at: until.into(),
    }))
}

#[derive(Deserialize, ToSchema)]
struct Merge {
    /// What the anonymous session got.
    merge_token: String,
}

#[derive(Serialize, ToSchema)]
struct Merged {
    /// `true`.
    merged: bool,
}

/// Take over what an anonymous user has, and end them. Needs a sign-in to this account of the last minutes.
#[utoipa::path(post, path = "/auth/v1/guest/merge", tag = "sign-in", request_body = Merge, responses((status = 200, body = Merged), (status = 410, description = "The token is used, too old, or of a session that has ended")))]
async fn merge(
    State(app): State<App>,
    auth: Auth,
    client: Client,
    Json(given): Json<Merge>,
) -> Result<Json<Merged>> {
    let (action, now) = ("user_merged", app.now());
    step_up::demand(&app, &auth, &client, action).await?;
    let into = db::users::by_id(&app.db, auth.user).await?;
    let into = into.ok_or(Error::SessionEnded)?;
    if into.is_anonymous {
        return Err(Error::invalid("user", "is anonymous: sign in first"));
    }

    let mut tx = app.db.begin().await?;
    let Some(guest) = guest(&app, &mut tx, &given.merge_token, now).await? else {
        let refusal = Error::MergeTokenExpired;
        let why = json!({"reason": refusal.code(Dialect::GoTrue)});
        audit::refused(&mut tx, &client, action, Some(into.id), why, now).await?;
        tx.commit().await?;
        return Err(refusal);
    };
    db::merging::move_rows(&mut tx, guest.id, into.id, now).await?;
    deletion::delete(&mut tx, guest.id, Leaves::Nothing, now).await?;
    let detail = json!({"from": guest.id});
    audit::succeeded(&mut tx, &client, action, into.id, detail, now).await?;
    tx.commit().await?;

    Ok(Json(Merged { merged: true }))
}

/// Who asked for this token, while they are anonymous and their session stands; held against others until
/// the transaction ends.
async fn guest(app: &App, tx: &mut Tx, token: &str, now: Timestamp) -> Result<Option<User>> {
    let Some(asked) = read(app, token).filter(|asked| asked.until_us > now.as_micros()) else {
        return Ok(None);
    };
    let session = db::sessions::locked(tx, asked.session).await?;
    let stands = |session: &db::sessions::Session| {
        session.revoked_at.is_none()
            && session.idle_expires_at.min(session.absolute_expires_at) > now
    };
    let Some(session) = session.filter(stands) else {
        return Ok(None);
    };
    let user = db::users::locked(tx, session.user_id).await?;
    Ok(user.filter(|user| user.is_anonymous && !user.is_banned(now)))
}

fn read(app: &App, token: &str) -> Option<Asked> {
    let sealed = URL_SAFE_NO_PAD.decode(token).ok()?;
    serde_json::from_slice(&app.keys.unseal(MERGE, &sealed)?).ok()
}
