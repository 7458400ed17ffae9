//! The identities by which a user is known, and how one is given up.
use super::{apple, audit, session::Client, step_up, user::merged};
use crate::{
    App, Error, Result,
    extract::{Auth, Json, Path},
};
use axum::extract::State;
use db::users::{Identity, User};
use serde_json::{Value, json};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(unlink))
}

/// Unlink an identity: its `identity_id`. It needs a sign-in of the last minutes, and another way in
/// that stays. With that of the address its password goes; mail may still be sent there.
#[utoipa::path(delete, path = "/auth/v1/user/identities/{id}", tag = "sign-in", params(("id" = Uuid, Path)), responses((status = 200, description = "Unlinked", body = Value)))]
async fn unlink(
    State(app): State<App>,
    auth: Auth,
    client: Client,
    Path(id): Path<Uuid>,
) -> Result<Json<Value>> {
    if !app.config.auth.auth_manual_linking {
        return Err(Error::ManualLinkingDisabled);
    }
    step_up::demand(&app, &auth, &client, "identity_unlinked").await?;
    let now = app.now();
    let mut tx = app.db.begin().await?;
    let user = db::users::locked(&mut tx, auth.user)
        .await?
        .ok_or(Error::SessionEnded)?;
    let identities = db::users::identities_locked(&mut tx, user.id).await?;
    let (gone, left): (Vec<_>, Vec<_>) = identities.into_iter().partition(|one| one.id == id);
    let gone = gone.first().ok_or(Error::IdentityNotFound)?;
    let detail = json!({"provider": gone.provider, "identity": gone.id});
    if !left.iter().any(|identity| lets_in(&user, identity)) {
        audit::refused(
            &mut tx,
            &client,
            "identity_unlinked",
            Some(user.id),
            detail,
            now,
        )
        .await?;
        tx.commit().await?;
        return Err(Error::LastCredential);
    }

    apple::unlink(&mut tx, id, now).await?;
    db::users::delete_identity(&mut tx, user.id, id).await?;
    if gone.issuer == "email" {
        db::users::set_password_hash(&mut tx, user.id, None, now).await?;
        db::one_time_tokens::delete_of_user(&mut tx, user.id).await?;
    }
    let metadata = merged(user.app_metadata.0, providers(&left));
    db::users::set_app_metadata(&mut tx, user.id, &db::Json(metadata), now).await?;
    audit::succeeded(&mut tx, &client, "identity_unlinked", user.id, detail, now).await?;
    tx.commit().await?;

    Ok(Json(json!({})))
}

/// Whether somebody with this identity alone could sign in again.
fn lets_in(user: &User, identity: &Identity) -> bool {
    identity.issuer != "email" || user.password_hash.is_some() || user.email_confirmed_at.is_some()
}

/// What `app_metadata` says of them.
pub fn providers(identities: &[Identity]) -> Value {
    let mut names: Vec<&str> = vec![];
    for identity in identities {
        if !names.contains(&&*identity.provider) {
            names.push(&identity.provider);
        }
    }
    json!({"provider": names.first(), "providers": names})
}
